"""What goes on inside an encoder while it reads: the output of every layer, and the queries, keys and values of some.

The model has no branch for it: hooks take what passes by, and are gone afterwards. The kernels stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clozeline.batch import Packed
from clozeline.model.encoder import Encoder, Layer


@dataclass(frozen=True)
class Trace:
    """states: layers + 1 tensors of (T, D), the embedding's output and then each layer's.

    qkv: by layer, counted from 0, (T, 3 D): queries, keys and values side by side, before any turning by position.
    """

    states: list[Tensor]
    qkv: dict[int, Tensor] = field(default_factory=dict)


def trace(encoder: Encoder, batch: Packed, qkv: Collection[int] = ()) -> Trace:
    """Read a batch and keep what the layers made of it, gradients included. qkv: layers whose projections are kept."""
    found = Trace([])
    passed: list[Tensor] = []

    def keep(module: Any, args: Any, out: Tensor) -> None:
        passed.append(out)

    layers = {number: encoder.layers[encoder.order[number]] for number in qkv}
    handles = []
    for layer in {id(each): each for each in layers.values()}.values():  # some families share a layer
        assert isinstance(layer, Layer)
        handles.append(layer.attention.qkv.register_forward_hook(keep))
    try:
        for number, state in enumerate(encoder.states(batch), -1):  # the embedding is number -1
            found.states.append(state)
            if number in layers:  # the first is the layer's own; relative positions are projected after it
                found.qkv[number] = passed[0][: batch.layout.tokens]
            passed.clear()
    finally:
        for handle in handles:
            handle.remove()
    return found
