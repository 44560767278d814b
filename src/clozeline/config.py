"""The shape of an encoder: every size and switch that a model is built from, and nothing that belongs to a task.

A family file (`families/bert.py`) says how these fields are spelled in Hugging Face's `config.json`.
This module imports no torch: a configuration can be read, checked and printed without it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from clozeline.errors import InputError, nearest

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


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
    segments: int = 2
    activation: str = "gelu"
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float | None = None  # None: a task head drops as much as the encoder does
    init_std: float = 0.02
    pad_id: int | None = 0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "layers", "heads", "ffn_width", "max_length", "segments"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1.")
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

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def replace(self, **changes: object) -> EncoderConfig:
        """The same configuration with some fields changed; unknown fields are an error naming the nearest."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise InputError(f"An encoder has no setting {name!r}: {nearest(name, known)}")
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
