"""What a family file says: the spelling of its `config.json`, the names of its tensors and its heads.

And the few functions that family files are written with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from clozeline.config import EncoderConfig
from clozeline.errors import InputError
from clozeline.model.encoder import Encoder, initialise
from clozeline.model.heads import Network

Names = tuple[tuple[str, str | tuple[str, ...]], ...]
"""Rows of (our name, theirs). `{}` is a layer's number; several of theirs are stacked in ours along the first dimension.

A row counts where the configuration builds such a parameter.
"""

ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def linear(ours: str, theirs: str) -> Names:
    """The rows of a linear map or a norm: its weight and its bias."""
    return tuple((f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias"))


def stacked(ours: str, *theirs: str) -> Names:
    """The rows of one linear map here that is several there."""
    return tuple((f"{ours}.{part}", tuple(f"{name}.{part}" for name in theirs)) for part in ("weight", "bias"))


def within(part: str, rows: Names) -> Names:
    """The rows of a head that is a part of another."""
    return tuple((f"{part}.{ours}", theirs) for ours, theirs in rows)


Fields = tuple[tuple[str, str, Any], ...]
"""Rows of (our configuration field, their key, the default where `config.json` leaves it out)."""


def with_defaults(fields: Fields, **defaults: Any) -> Fields:
    """The same rows with other defaults for some of our fields; a field whose default is `LEFT_OUT` has no row."""
    assert defaults.keys() <= {ours for ours, _, _ in fields}
    rows = ((ours, theirs, defaults.get(ours, default)) for ours, theirs, default in fields)
    return tuple(row for row in rows if row[2] is not LEFT_OUT)


LEFT_OUT = object()


def activation(raw: Mapping[str, Any], key: str, default: str = "gelu") -> str:
    """Our name of the activation that `config.json` asks for under this key.

    Raises:
        InputError: it is not known here.
    """
    value = raw.get(key, default)
    if not isinstance(value, str) or value not in ACTIVATION_NAMES:
        raise InputError(f"config.json asks for {key} = {value!r}; known: {', '.join(ACTIVATION_NAMES)}.")
    return ACTIVATION_NAMES[value]


def activation_name(ours: str) -> str:
    """How `config.json` spells our name of an activation."""
    return next(name for name, known in ACTIVATION_NAMES.items() if known == ours)


def unsupported(key: str, value: object, served: Iterable[object]) -> InputError:
    """The error of a key that asks for what the bricks do not have."""
    allowed = " or ".join(repr(value) for value in served)
    return InputError(f"config.json asks for {key} = {value!r}, which is not supported: allowed {allowed}.")


def _nothing(_: object) -> dict[str, Any]:
    return {}


Build = Callable[[EncoderConfig, Encoder, int], nn.Module | None]
"""(configuration, encoder, classes) -> a head, or None for a bare encoder that has none."""


@dataclass(frozen=True)
class Head:
    """One head of a family. architecture: its class name in `config.json`.

    also: class names of checkpoints that hold this head beside another.
    """

    architecture: str
    build: Build
    names: Names
    also: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    """Their names for a second copy of a tensor, and the name of the first: accepted when equal, never written."""


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    name: `model_type` in `config.json`.
    fields: how `config.json` spells ours.
    only: their keys that may ask for what the bricks do not have, with the values that are served; the first is what
        `config.json` means where it leaves the key out.
    read_more, write_more: the fields that no row of `fields` can say, from their keys and back to them.
    prefix: what task models put before the names of the bare model's tensors; `base` says how those begin.
    published: the `config.json` of well-known sizes, without what goes without saying.
    heads: by the kind of task, "base" being the bare encoder with its pooler.
    ignored: tensors that hold nothing learned.
    renamed: how older checkpoints begin a tensor's name, and how newer ones do.
    foreign: how tensors begin that belong to heads which nobody but the authors has; they are left out and named.
    prunable: whether `config.json` may say `pruned_heads`, which transformers read before its version 5.
    """

    name: str
    prefix: str
    base: tuple[str, ...]
    fields: Fields
    only: Mapping[str, tuple[Any, ...]]
    names: Names
    heads: Mapping[str, Head]
    published: Mapping[str, Mapping[str, Any]]
    ignored: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    prunable: bool = False
    read_more: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    write_more: Callable[[EncoderConfig], dict[str, Any]] = _nothing

    @property
    def presets(self) -> dict[str, EncoderConfig]:
        """The published sizes."""
        return {name: self.read(raw) for name, raw in self.published.items()}

    def read(self, raw: Mapping[str, Any]) -> EncoderConfig:
        """Our configuration from a parsed `config.json`.

        Raises:
            InputError: a key is missing, or asks for something that is not supported; the key is named.
        """
        for key, served in self.only.items():
            if raw.get(key, served[0]) not in served:
                raise unsupported(key, raw[key], served)
        if raw.get("pruned_heads") and not self.prunable:
            raise unsupported("pruned_heads", raw["pruned_heads"], ({},))
        values: dict[str, Any] = {"family": self.name}
        for ours, theirs, default in self.fields:
            values[ours] = activation(raw, theirs, default) if ours == "activation" else raw.get(theirs, default)
        try:
            gone = {int(layer): heads for layer, heads in (raw.get("pruned_heads") or {}).items()}
            return EncoderConfig(**values | self.read_more(raw)).without(gone)
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"config.json holds a value that no {self.name} has: {error}.") from None

    def write(self, config: EncoderConfig) -> dict[str, Any]:
        """The `config.json` of an encoder, without what belongs to a task."""
        raw: dict[str, Any] = {"model_type": self.name}
        for ours, theirs, _ in self.fields:
            value = getattr(config, ours)
            raw[theirs] = activation_name(value) if ours == "activation" else value
        if gone := {str(layer): list(heads) for layer, heads in enumerate(config.block.pruned) if heads}:
            raw["pruned_heads"] = gone
        return raw | self.write_more(config)

    def build(
        self, config: EncoderConfig, head: str | None = None, classes: int = 0, *, seed: int = 0, encoder: bool = True
    ) -> Network:
        """A network in fp32 with fresh weights, the same for the same seed; `classes` counts a classifier's outputs.

        encoder=False leaves the encoder's weights unset, for a checkpoint to fill: drawing them takes longer than reading.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body = Encoder(config, fresh=encoder)
            module = None if head is None else self.heads[head].build(config, body, classes)
            if module is not None:
                initialise(module, config.init_std)
        return Network(config, body, module, head)

    def table(self, config: EncoderConfig, head: str | None) -> dict[str, tuple[str, ...]]:
        """Every parameter's name here, and the tensor or tensors (stacked) that hold it in a checkpoint, unprefixed.

        Also of parts that this configuration leaves out.
        """
        rows = [("encoder." + ours, theirs) for ours, theirs in self.names]
        if head is not None:
            rows += [("head." + ours, theirs) for ours, theirs in self.heads[head].names]
        found: dict[str, tuple[str, ...]] = {}
        for ours, theirs in rows:
            several = (theirs,) if isinstance(theirs, str) else theirs
            for number in range(config.distinct_layers) if "{}" in ours else (0,):
                found[ours.format(number)] = tuple(name.format(number) for name in several)
        return found

    def written(self, name: str, head: str | None) -> str:
        """A tensor's name as this kind of model is saved: task models prefix what belongs to the bare one."""
        return self.prefix + name if head not in (None, "base") and name.startswith(self.base) else name

    def head_of(self, architecture: str) -> str | None:
        """The kind of head an architecture name in `config.json` stands for, or None."""
        exact = (kind for kind, head in self.heads.items() if architecture == head.architecture)
        return next(exact, None) or next((kind for kind, head in self.heads.items() if architecture in head.also), None)
