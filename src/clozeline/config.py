"""The shape of an encoder: every size and switch that a model is built from, and nothing that belongs to a task.

A family file (`families/bert.py`) says how these fields are spelled in Hugging Face's `config.json`.
This module imports no torch: a configuration can be read, checked and printed without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clozeline.errors import InputError, nearest

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu", "tanh")


@dataclass(frozen=True, slots=True)
class Learned:
    """A table with a row for each position (BERT). offset: rows before the first position's, 2 in RoBERTa."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class Rotary:
    """Queries and keys turned by their position (Su et al. 2021, RoFormer).

    theta: base of the wavelengths; local_theta: that of layers with a window.
    """

    theta: float
    local_theta: float


@dataclass(frozen=True, slots=True)
class Disentangled:
    """Scores between content and relative position (He et al. 2021, DeBERTa), with the projections of content.

    buckets: distances told apart on either side, the far ones in logarithmic steps up to `reach`; 0 tells all up to it
    apart. content_to_position, position_to_content: the two kinds of score. norm: normalise the table before use.
    """

    buckets: int
    reach: int
    content_to_position: bool = True
    position_to_content: bool = True
    norm: bool = False

    @property
    def span(self) -> int:
        return self.buckets or self.reach


@dataclass(frozen=True, slots=True)
class Bucketed:
    """Learned positions, and one score for each head and bucket of distance (Raffel et al. 2020, T5; in MPNet)."""

    offset: int
    buckets: int


Positions = Learned | Rotary | Disentangled | Bucketed


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution over the embeddings beside the first layer (DeBERTa-v2). size: tokens it sees, an odd number."""

    size: int
    groups: int
    activation: str


@dataclass(frozen=True, slots=True)
class Block:
    """How a layer is made.

    norm_first: normalise before attention and feed-forward, and once more at the end, instead of after each (ModernBERT).
    gated: the feed-forward's activation is multiplied by a second projection (Shazeer 2020, GLU variants).
    bias: whether linear maps and norms have one.
    dropped: what `dropout` acts on: the output of "embedding", "attention" and "ffn".
    shared: how many layers have weights of their own; the others repeat them in runs (ALBERT). None: all.
    convolution: beside the first layer.
    pruned: for each layer, the heads that were taken out of it, by the numbers they had; () where all are there.
    """

    norm_first: bool = False
    gated: bool = False
    bias: bool = True
    dropped: tuple[str, ...] = ("embedding", "attention", "ffn")
    shared: int | None = None
    convolution: Convolution | None = None
    pruned: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Sizes and switches of one encoder. Lengths are in tokens, rates are probabilities.

    Names follow Devlin et al. 2019 (BERT) where the paper names a thing: `layers` is its L, `width` its H, `heads` its A.

    Raises:
        InputError: a value no encoder can have, with the field named.
    """

    family: str
    vocab_size: int
    width: int
    layers: int
    heads: int
    ffn_width: int
    max_length: int
    segments: int = 2  # 0: no table of segments
    embedding_width: int | None = None  # of the token table where it is narrower than the encoder (ALBERT, ELECTRA)
    positions: Positions = Learned()
    windows: tuple[int | None, ...] = ()  # for each layer, tokens seen on either side; None or () sees all
    block: Block = Block()
    activation: str = "gelu"
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float | None = None  # None: a task head drops as much as the encoder does
    pool: str = "first"  # what a classifier reads of a text: its "first" token, or the "mean" of all (ModernBERT)
    init_std: float = 0.02
    pad_id: int | None = 0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "layers", "heads", "ffn_width", "max_length", "segments"):
            value, least = getattr(self, name), 0 if name == "segments" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}.")
        for name in ("norm_eps", "init_std", "dropout", "attention_dropout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise InputError(f"{name} is {value!r}; it must be a number.")
        if self.width % self.heads:
            raise InputError(f"width {self.width} does not divide into {self.heads} heads; choose a multiple of it.")
        for name in ("dropout", "attention_dropout", "head_dropout"):
            rate = getattr(self, name)
            if rate is not None and not (isinstance(rate, int | float) and 0 <= rate < 1):
                raise InputError(f"{name} is {rate!r}; it must be at least 0 and below 1.")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation {self.activation!r} is not known: {nearest(self.activation, ACTIVATIONS)}")
        if self.pool not in ("first", "mean"):
            raise InputError(f"pool is {self.pool!r}; allowed: 'first', 'mean'.")
        if self.windows and len(self.windows) != self.layers:
            raise InputError(
                f"windows has {len(self.windows)} entries for {self.layers} layers; give each layer its own."
            )
        if self.block.shared is not None and not 1 <= self.block.shared <= self.layers:
            raise InputError(
                f"block.shared is {self.block.shared}; it must be 1 to {self.layers}, the number of layers."
            )
        if self.block.pruned and len(self.block.pruned) != self.layers:
            raise InputError(
                f"block.pruned has {len(self.block.pruned)} entries for {self.layers} layers; give each layer its own."
            )
        for layer, gone in enumerate(self.block.pruned):
            if not {*gone} < {*range(self.heads)}:
                shown = ", ".join(map(str, gone))
                raise InputError(
                    f"Heads {shown} cannot be taken out of layer {layer}: it has heads 0 to {self.heads - 1}, and one "
                    "must stay."
                )

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def without(self, heads: Mapping[int, Iterable[int]]) -> EncoderConfig:
        """The configuration of the encoder without these heads of some layers, and without those that were gone before."""
        for layer in heads:
            if layer not in range(self.layers):
                raise InputError(
                    f"There is no layer {layer} to take heads out of; there are layers 0 to {self.layers - 1}."
                )
        before = self.block.pruned or ((),) * self.layers
        gone = tuple(tuple(sorted({*before[layer], *heads.get(layer, ())})) for layer in range(self.layers))
        return self.replace(block=dataclasses.replace(self.block, pruned=gone if any(gone) else ()))

    def kept_heads(self, layer: int) -> list[int]:
        """The heads of a layer, by the numbers that they had before any was taken out."""
        gone = self.block.pruned[layer] if self.block.pruned else ()
        return [head for head in range(self.heads) if head not in gone]

    @property
    def distinct_layers(self) -> int:
        """Layers that have weights of their own."""
        return self.block.shared or self.layers

    @property
    def table_width(self) -> int:
        """The width of the token table."""
        return self.embedding_width or self.width

    def replace(self, **changes: object) -> EncoderConfig:
        """The same configuration with some fields changed; unknown fields are an error naming the nearest."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise InputError(f"An encoder has no setting {name!r}: {nearest(name, known)}")
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
