"""Remember what a model's layers read while it works, and work out afterwards who read whom.

with inspect.trace(model) as seen:
    model.predict(texts)
seen[0].weights(layer=3)  # (heads, L, L)

The kernels stay as they are, in whatever precision: what goes into each layer's attention is kept, and probabilities are
computed again from it, in fp32, only when they are asked for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clozeline.batch import Layout, Packed
from clozeline.errors import InputError
from clozeline.model.attention import Attention
from clozeline.model.encoder import Encoder, Layer

if TYPE_CHECKING:
    from clozeline.face import Model


log = logging.getLogger("clozeline")


@dataclass(frozen=True, eq=False)
class _Pass:
    """One forward pass. read: by layer, what went into its attention and what came out, (T, D) each."""

    batch: Packed
    sums: dict[Attention, list[float]]
    read: list[tuple[Attention, Tensor, Tensor]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Reading:
    """One sequence as the model read it. ids: (L,) int64, special tokens included; layers: how many read it."""

    ids: np.ndarray
    _pass: _Pass
    _rows: slice

    @property
    def layers(self) -> int:
        return len(self._pass.read)

    def __len__(self) -> int:
        return len(self.ids)

    def weights(self, layer: int) -> np.ndarray:
        """(heads, L, L) fp32: row i says how much token i reads of each token, and sums to 1.

        Raises:
            InputError: there is no such layer, or the model has changed since it read this.
        """
        return self._again(layer)[0].cpu().numpy()

    def gap(self, layer: int) -> float:
        """How far what the layer's attention gave is from what these weights give: the largest difference over (L, D).

        It is rounding, about 1e-6 in fp32 and 0.01 in bf16.
        """
        attention, _, out_TD = self._pass.read[layer]
        heads_LNH = self._again(layer)[1].flatten(1)
        with torch.inference_mode():
            again_LD = attention.out(heads_LNH.to(out_TD.dtype))
            return (again_LD.float() - out_TD[self._rows].float()).abs().max().item()

    def _again(self, layer: int) -> tuple[Tensor, Tensor]:
        if not 0 <= layer < self.layers:
            raise InputError(f"layer is {layer}; the model has layers 0 to {self.layers - 1}.")
        attention, x_TD, _ = self._pass.read[layer]
        if _sums(attention) != self._pass.sums[attention]:
            raise InputError("The model was trained or changed since it read this; trace it again.")
        with torch.inference_mode():
            layout = Layout.of([len(self)], x_TD.device)
            (found,) = attention.weights(x_TD[self._rows], layout)
        return found


class Trace(list[Reading]):
    """The sequences that a model read, in the order it read them: prediction sorts many texts by length."""


@contextlib.contextmanager
def trace(model: Model) -> Iterator[Trace]:
    """Within this, everything that `model` predicts, embeds or evaluates is remembered, about 2 layers x T x D numbers.

    Texts longer than the model are several sequences, as it reads them. Training is not remembered: `record` the encoder.
    """
    network = model._network()
    with record(network.encoder) as found:
        yield found
    if model._network() is not network:
        log.warning(
            "The model was trained or changed while it was traced; what it read afterwards is not in the trace."
        )


def _sums(attention: Attention) -> list[float]:
    """Of the weights that scores are made with; a fused optimiser's step does not show in a tensor's version."""
    parts = [*attention.parameters(), *attention.positions[0].parameters()]
    return [part.detach().double().sum().item() for part in parts]


@contextlib.contextmanager
def record(encoder: Encoder) -> Iterator[Trace]:
    """The same of an encoder itself."""
    found, passes, sums = Trace(), list[_Pass](), dict[Attention, list[float]]()

    def begin(module: Any, args: Any, out: Tensor) -> None:
        (batch,) = args
        passes.append(_Pass(batch, sums))
        ids, ends = batch.ids.cpu().numpy(), np.cumsum(batch.layout.lengths).tolist()
        bounds = [slice(low, high) for low, high in zip([0, *ends[:-1]], ends, strict=True)]
        found.extend(Reading(ids[rows], passes[-1], rows) for rows in bounds)

    def keep(module: Any, args: Any, out: Tensor) -> None:
        passes[-1].read.append((module, args[0].detach(), out.detach()))  # a shared layer reads several times

    handles = [encoder.embedding.register_forward_hook(begin)]
    for layer in encoder.layers:
        assert isinstance(layer, Layer)
        sums[layer.attention] = _sums(layer.attention)
        handles.append(layer.attention.register_forward_hook(keep))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
