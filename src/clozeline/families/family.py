"""What a family file says: the spelling of its `config.json`, the names of its tensors and its heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from clozeline.config import EncoderConfig
from clozeline.errors import InputError
from clozeline.model.encoder import Encoder, initialise
from clozeline.model.heads import Network

Names = tuple[tuple[str, str | tuple[str, ...]], ...]
"""Rows of (our name, theirs). `{}` is a layer's number; several of theirs are stacked in ours along the first dimension."""

ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Head:
    """One head of a family. architecture: its class name in `config.json`; build: (config, encoder, classes) -> module.

    also: class names of checkpoints that hold this head beside another.
    """

    architecture: str
    build: Callable[[EncoderConfig, Encoder, int], nn.Module]
    names: Names
    also: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    """Their names for a second copy of a tensor, and the name of the first: accepted when equal, never written."""


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    name: `model_type` in `config.json`.
    fields: rows of (our configuration field, their key, the default where `config.json` leaves it out).
    only: their keys that may ask for what the bricks do not have, with the values that are served.
    prefix: what task models put before the names of the bare model's tensors; `base` says how those begin.
    heads: by the kind of task, "base" being the bare encoder with its pooler.
    ignored: tensors that hold nothing learned.
    """

    name: str
    prefix: str
    base: tuple[str, ...]
    fields: tuple[tuple[str, str, Any], ...]
    only: Mapping[str, tuple[Any, ...]]
    names: Names
    heads: Mapping[str, Head]
    presets: Mapping[str, EncoderConfig]
    ignored: tuple[str, ...] = ()

    def read(self, raw: Mapping[str, Any]) -> EncoderConfig:
        """Our configuration from a parsed `config.json`.

        Raises:
            InputError: a key is missing, or asks for something that is not supported; the key is named.
        """
        for key, served in self.only.items():
            if key in raw and raw[key] not in served:
                allowed = " or ".join(repr(value) for value in served)
                raise InputError(
                    f"config.json asks for {key} = {raw[key]!r}, which is not supported: allowed {allowed}."
                )
        values: dict[str, Any] = {"family": self.name}
        for ours, theirs, default in self.fields:
            value = raw.get(theirs, default)
            if ours == "activation":
                if not isinstance(value, str) or value not in ACTIVATION_NAMES:
                    raise InputError(
                        f"config.json asks for {theirs} = {value!r}; known: {', '.join(ACTIVATION_NAMES)}."
                    )
                value = ACTIVATION_NAMES[value]
            values[ours] = value
        return EncoderConfig(**values)

    def write(self, config: EncoderConfig) -> dict[str, Any]:
        """The `config.json` of an encoder, without what belongs to a task."""
        raw: dict[str, Any] = {"model_type": self.name}
        for ours, theirs, _ in self.fields:
            value = getattr(config, ours)
            if ours == "activation":
                value = next(name for name, known in ACTIVATION_NAMES.items() if known == value)
            raw[theirs] = value
        return raw

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
        return Network(config, body, module)

    def table(self, config: EncoderConfig, head: str | None) -> dict[str, tuple[str, ...]]:
        """Every parameter's name here, and the tensor or tensors (stacked) that hold it in a checkpoint, unprefixed."""
        rows = [("encoder." + ours, theirs) for ours, theirs in self.names]
        if head is not None:
            rows += [("head." + ours, theirs) for ours, theirs in self.heads[head].names]
        found: dict[str, tuple[str, ...]] = {}
        for ours, theirs in rows:
            several = (theirs,) if isinstance(theirs, str) else theirs
            for number in range(config.layers) if "{}" in ours else (0,):
                found[ours.format(number)] = tuple(name.format(number) for name in several)
        return found

    def written(self, name: str, head: str | None) -> str:
        """A tensor's name as this kind of model is saved: task models prefix what belongs to the bare one."""
        return self.prefix + name if head not in (None, "base") and name.startswith(self.base) else name

    def head_of(self, architecture: str) -> str | None:
        """The kind of head an architecture name in `config.json` stands for, or None."""
        return next(
            (kind for kind, head in self.heads.items() if architecture in (head.architecture, *head.also)), None
        )
