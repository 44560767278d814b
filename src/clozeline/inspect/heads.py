"""Heads: what each attention head is worth to a task, and a model without those that are worth nothing to it."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clozeline import predict as prediction
from clozeline.batch import Layout, Packed
from clozeline.data.corpus import documents
from clozeline.data.corruption import Corruption, Masking
from clozeline.data.packing import Batch, Samples, by_tokens
from clozeline.data.readers import Columns
from clozeline.errors import InputError, nearest
from clozeline.evaluate.counts import ratio
from clozeline.evaluate.intervals import Counted, Interval, percentile, resamples
from clozeline.inspect import panels as kinds
from clozeline.inspect.drawing import drawn
from clozeline.inspect.view import View, called
from clozeline.model.encoder import Encoder, Layer
from clozeline.model.heads import Network
from clozeline.student import take_heads
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tasks.supervised import Supervised

if TYPE_CHECKING:
    from clozeline.face import Model

LENGTH = 512
"""Tokens of a text that masked words are looked for in, or what the model reads."""
TOKENS = 1024
"""Tokens in one pass with gradients, where one takes about 1 MB in a BERT-base; and of masked words."""
SHOWN = 10
"""Heads that are printed."""


class Head(NamedTuple):
    """layer, head: its numbers, from 0; lost: of the metric without it, with its interval; slope: see `HeadWorth`."""

    layer: int
    head: int
    lost: Interval
    slope: float


@dataclass(frozen=True, eq=False)
class HeadWorth(View):
    """What a metric loses without each head by itself.

    whole: the metric with all heads; examples: that it was measured on, of so many in the data.
    heads: from the one that most is lost without. A loss below 0 is a gain; its interval is a bootstrap over the examples
    with the same draws for the model with and without the head. slope: the mean over the examples of |d loss / d gate|, the
    gate being a factor of 1 on what the head gives (Michel et al. 2019, not normalised by layer): one pass instead of one a
    head, and a guess only.
    """

    model: str
    metric: str
    whole: Interval
    examples: int
    data: int
    heads: tuple[Head, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{called(self.model)}: what each head is worth"

    @property
    def lost(self) -> np.ndarray:
        """(layers, heads), NaN where the model has no such head any more."""
        return self._grid(lambda head: head.lost.value)

    @property
    def slope(self) -> np.ndarray:
        """(layers, heads), as `lost`."""
        return self._grid(lambda head: head.slope)

    def _grid(self, value: Callable[[Head], float]) -> np.ndarray:
        found = np.full((1 + max(head.layer for head in self.heads), 1 + max(head.head for head in self.heads)), np.nan)
        for head in self.heads:
            found[head.layer, head.head] = value(head)
        return found

    def panels(self) -> list[kinds.Panel]:
        rows = [
            (head.layer, head.head, head.lost.value, head.lost.low, head.lost.high, head.slope) for head in self.heads
        ]
        columns = ["layer", "head", "lost", "from", "to (95 %)", "|d loss / d gate|"]
        note = "\n".join(
            [f"{self._of()}. {self._missed()} Below 0, in blue, it is better without the head.", *self.notes]
        )
        return [
            kinds.Heatmap(f"{self.metric} lost without a head", "head", "layer", self.lost, diverging=True, note=note),
            kinds.Heatmap(
                "|d loss / d gate|", "head", "layer", self.slope, low=0.0, note="A guess at the same in one pass."
            ),
            kinds.Table("Heads by what is lost without them", columns, rows),
        ]

    def as_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("model", "metric", "examples", "data")}
        each = [
            {"layer": one.layer, "head": one.head, **one.lost.named("lost"), "slope": one.slope} for one in self.heads
        ]
        return {**found, **self.whole.named("value"), "heads": each, "notes": list(self.notes)}

    def __str__(self) -> str:
        lines = [self._of(), f"{self._missed()} Most lost without:"]
        for head in self.heads[:SHOWN]:
            lost = f"{head.lost.value:+.4f} [{head.lost.low:+.4f}, {head.lost.high:+.4f}]"
            lines.append(f"  layer {head.layer:>2} head {head.head:>2}  {lost}  |d loss / d gate| {head.slope:.4g}")
        return "\n".join([*lines, *self.notes])

    def _missed(self) -> str:
        needed, chance = sum(head.lost.low > 0 for head in self.heads), 0.025 * len(self.heads)
        missed = f"{needed} of {len(self.heads)} heads are missed, each by itself, beyond its 95 % interval;"
        return f"{missed} {chance:.1g} would be by chance alone."

    def _of(self) -> str:
        return f"{self.metric} {self.whole} on {self.examples:,} of {self.data:,} examples"


class _Measure(NamedTuple):
    """How a network is measured. counted: its metric; losses: the layout of each batch, the example of each sequence where
    some have several, and what computes the summed loss."""

    counted: Callable[[Network], Counted]
    losses: Callable[[Network], Iterator[tuple[Layout, Tensor | None, Callable[[], Tensor]]]]
    examples: int
    data: int
    notes: tuple[str, ...] = ()


def heads(
    model: Model,
    data: str | Path,
    *,
    metric: str | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | Sequence[str] | None = None,
    choices: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    limit: int | None = None,
) -> HeadWorth:
    """Measure a model on data with each head switched off in turn: what it gives to the layer's output is zero.

    It reads the data once for each head, and once more. Where layers share weights (ALBERT), a head is switched off at one
    depth. A masked-LM model is measured on texts without labels: how many masked tokens it finds.

    Args:
        data, text, pair, label, choices, columns, encoding: as in `Model.evaluate`.
        metric: one of the task's, the first without a name.
        limit: examples to use, drawn at random where there are more.

    Raises:
        InputError: as `Model.evaluate`; no such metric, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; use at least 1 example, or leave it out for all.")
    where = Columns(text=text, pair=pair, label=label, choices=choices, names=columns, encoding=encoding)
    masked = isinstance(model.task, MaskedLM)
    measure = _masked(model, data, where, metric, limit) if masked else _labelled(model, data, where, metric, limit)
    network, config = model._network(), model.config
    every = [(layer, head) for layer in range(config.layers) for head in config.kept_heads(layer)]
    whole, without = measure.counted(network), []
    for layer, head in every:
        with switched_off(network.encoder, {layer: [head]}):
            without.append(measure.counted(network))
    slopes = _slopes(model.network.twin(torch.float32, model._device), measure)
    found = [Head(*at, lost, slopes[at]) for at, lost in zip(every, _lost(whole, without), strict=True)]
    ordered = sorted(found, key=lambda one: -one.lost.value)
    return HeadWorth(
        model.name, whole.name, whole.interval(), measure.examples, measure.data, tuple(ordered), measure.notes
    )


@contextlib.contextmanager
def switched_off(encoder: Encoder, heads: Mapping[int, Sequence[int]]) -> Iterator[None]:
    """Within this, these heads of some layers give zeros. Numbers are those that they had before any was pruned."""
    gates = {}
    for layer, gone in heads.items():
        kept = encoder.config.kept_heads(layer)
        gates[layer] = torch.tensor([float(head not in gone) for head in kept])
    with gated(encoder, gates):
        yield


@contextlib.contextmanager
def gated(encoder: Encoder, gates: Mapping[int, Tensor]) -> Iterator[None]:
    """Within this, what the heads of some layers give is multiplied. gates: by layer, (N,), or (T, N) for each token."""
    handles = []
    for number, layer in enumerate(encoder.layers):
        assert isinstance(layer, Layer)
        depths = [depth for depth, own in enumerate(encoder.order) if own == number]  # a shared layer has several
        if not gates.keys().isdisjoint(depths):
            gate = functools.partial(_gate, gates, itertools.cycle(depths), layer.attention.heads)
            handles.append(layer.attention.out.register_forward_pre_hook(gate))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gate(gates: Mapping[int, Tensor], depths: Iterator[int], heads: int, module: Any, args: Any) -> Any:
    gate, (y_TD,) = gates.get(next(depths)), args
    return args if gate is None else ((y_TD.unflatten(1, (heads, -1)) * gate.to(y_TD)[..., None]).flatten(1),)


def _labelled(model: Model, data: str | Path, where: Columns, metric: str | None, limit: int | None) -> _Measure:
    task, device = model._supervised("weigh its heads"), model._device
    _check(metric, [each for each in task.metrics if each != "spearman"])  # of ranks, which are no sums over examples
    every = task.read(data, "test", where)
    samples = task.samples(model.tokenizer, drawn(every, limit))

    def losses(network: Network) -> Iterator[tuple[Layout, Tensor | None, Callable[[], Tensor]]]:
        for chosen in by_tokens(samples.lengths, TOKENS):
            batch = samples.take(chosen).to(device)
            yield batch.packed.layout, batch.owners, functools.partial(_summed, task, network, batch)

    return _Measure(
        lambda network: task.counted(prediction.logits(network, task, samples, device), samples, metric),
        losses,
        len(samples),
        len(every),
        _cut(samples),
    )


def _summed(task: Supervised, network: Network, batch: Batch) -> Tensor:
    return task.learn(network, batch, None)[0]


def _masked(model: Model, data: str | Path, where: Columns, metric: str | None, limit: int | None) -> _Measure:
    task, tokenizer, device = model._masked_lm(), model.tokenizer, model._device
    _check(metric, ["accuracy"])
    every = [each.text for each in documents([data], text=where.text, encoding=where.encoding)]
    samples = Samples.tokenise(tokenizer, drawn(every, limit), max_length=min(LENGTH, model.config.max_length))
    content = ~np.isin(samples.ids, [*tokenizer.special_ids])
    keys = np.arange(len(samples), dtype=np.uint64)
    seen, masked = Corruption(Masking(), tokenizer)(samples.ids, content, samples.lengths.tolist(), keys)
    marks = np.zeros(len(samples.ids), dtype=bool)
    marks[masked] = True
    covered = replace(samples, ids=seen, targets=np.where(marks, samples.ids, -1).astype(np.int64), targets_of="token")

    def batches() -> Iterator[tuple[np.ndarray, Packed, Tensor, Tensor]]:
        """Examples, how they are read, the masked places and what stood there."""
        for chosen in by_tokens(samples.lengths, TOKENS):
            batch = covered.take(chosen).to(device)
            assert batch.targets is not None
            (at,) = torch.where(batch.targets >= 0)
            if len(at):
                yield chosen, batch.packed, at, batch.targets[at]

    @torch.inference_mode()
    def counted(network: Network) -> Counted:
        rows = np.zeros((len(samples), 2))
        for chosen, packed, at, targets in batches():
            right = task.logits(network, packed, at).argmax(-1) == targets
            found = np.stack([right.cpu().numpy(), np.ones(len(at))], 1)
            np.add.at(rows, chosen[packed.layout.owners[at].cpu().numpy()], found)
        return Counted("masked accuracy", rows, lambda sums: ratio(sums[:, 0], sums[:, 1]))

    def losses(network: Network) -> Iterator[tuple[Layout, Tensor | None, Callable[[], Tensor]]]:
        for _, packed, at, targets in batches():
            yield packed.layout, None, functools.partial(_missed, task, network, packed, at, targets)

    return _Measure(counted, losses, len(samples), len(every), _cut(samples))


def _missed(task: MaskedLM, network: Network, packed: Packed, at: Tensor, targets: Tensor) -> Tensor:
    return task.loss(task.logits(network, packed, at), targets)[0]


def _check(metric: str | None, allowed: Sequence[str]) -> None:
    if metric is not None and metric not in allowed:
        raise InputError(f"Heads cannot be weighed by {metric!r}: {nearest(metric, allowed)}")


def _cut(samples: Samples) -> tuple[str, ...]:
    lost = int((samples.cut > 0).sum())
    return (f"{lost:,} of {len(samples):,} texts lost {int(samples.cut.sum()):,} tokens at their end.",) if lost else ()


def _lost(whole: Counted, without: Sequence[Counted]) -> list[Interval]:
    """What is lost in each case, with paired intervals: the same draws of examples with and without the head."""
    drawn: list[list[np.ndarray]] = [[] for _ in without]
    for weights in resamples(len(whole.rows)):
        all_there = whole.measure(weights @ whole.rows)
        for part, each in zip(drawn, without, strict=True):
            part.append(all_there - each.measure(weights @ each.rows))
    values = (whole.value - each.value for each in without)
    return [percentile(value, np.concatenate(part)) for value, part in zip(values, drawn, strict=True)]


def _slopes(network: Network, measure: _Measure) -> dict[tuple[int, int], float]:
    """By layer and head, the mean of |d loss / d gate| over the examples, whose losses do not depend on each other."""
    encoder, config = network.encoder, network.config
    kept = [config.kept_heads(layer) for layer in range(config.layers)]
    sums = [np.zeros(len(each)) for each in kept]
    with torch.inference_mode(False), torch.enable_grad():
        for layout, owners, loss in measure.losses(network):
            device = layout.offsets.device
            gates = [torch.ones(len(layout.lengths), len(each), device=device, requires_grad=True) for each in kept]
            with gated(encoder, {layer: gate_SN[layout.owners] for layer, gate_SN in enumerate(gates)}):
                slopes = torch.autograd.grad(loss(), gates)
            for total, slope_SN in zip(sums, slopes, strict=True):
                slope_nN = (
                    slope_SN if owners is None else slope_SN.new_zeros(slope_SN.shape).index_add(0, owners, slope_SN)
                )
                total += slope_nN.abs().sum(0).double().cpu().numpy()
    return {
        (layer, head): float(value) / measure.examples
        for layer, (each, total) in enumerate(zip(kept, sums, strict=True))
        for head, value in zip(each, total, strict=True)
    }


def prune(model: Model, heads: Mapping[int, Sequence[int]]) -> Model:
    """The model without these heads: see `student.take_heads`. The given one stays as it is; `shrink` saves a smaller one.

    Raises:
        InputError: as `take_heads`.
    """
    pruned = copy.copy(model)
    pruned._bundle, pruned.fitted = take_heads(model._bundle, heads), None
    return pruned
