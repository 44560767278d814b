"""The pre-training loop: a generator of steps over a stream of packed batches.

As in fine-tuning, a step depends on the weights, the optimiser's state, the settings and its place in the stream alone, so
that a run that was stopped takes the very same steps, and several processes take those of one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clozeline.data.packing import by_tokens
from clozeline.data.pretraining import Collator, Corrupted, Place, Portion, Stream, ahead
from clozeline.model.encoder import Encoder
from clozeline.model.heads import twin
from clozeline.precision import compute_dtype
from clozeline.tasks.pretraining import MaskedAndPairs, ReplacedTokens, Sum
from clozeline.train import optim
from clozeline.train.distributed import ALONE, Group
from clozeline.train.loop import Diverged
from clozeline.train.masters import Masters
from clozeline.train.pretraining_settings import PretrainSettings
from clozeline.train.sharded import Sharded

Objectives = MaskedAndPairs | ReplacedTokens


@dataclass(frozen=True, slots=True)
class PretrainStep:
    """One optimiser step. number: from 1; progress: the share of the run before it; loss: the weighted sum of `losses`.

    losses, accuracy: of each objective, means over the batch before the step; place: where the stream goes on.
    """

    number: int
    progress: float
    loss: float
    losses: dict[str, float]
    accuracy: dict[str, float]
    learning_rate: float
    grad_norm: float
    tokens: int
    sequences: int
    seconds: float
    place: Place


class Pretraining:
    """Iterate to train `objectives` in place; `state` and `load_state` let another process take the next step."""

    def __init__(
        self,
        objectives: Objectives,
        stream: Stream,
        collate: Collator,
        settings: PretrainSettings,
        *,
        device: torch.device,
        group: Group = ALONE,
    ) -> None:
        self.objectives, self.stream, self.collate = objectives.to(device), stream, collate
        self.settings, self.device, self.group = settings, device, group
        self.weights = {name: getattr(settings, name) for name in ("mlm", "nsp", "sop", "rtd")}
        dtype = compute_dtype(settings.precision, device)
        self.masters: Masters[Any] = (
            Sharded(objectives, dtype, device, group)
            if settings.sharded
            else Masters(objectives, twin(objectives, dtype, device), device, group)
        )
        for part in self.twin.modules():
            if isinstance(part, Encoder):
                part.checkpointing = settings.checkpointing
                if settings.compile:
                    for layer in part.layers:
                        layer.get_submodule("ffn").compile(dynamic=True)
        self.optimizers = optim.pretraining_optimizers(objectives, settings)
        self.number, self.place = 0, Place()

    @property
    def twin(self) -> Objectives:
        """The networks that compute."""
        return self.masters.twin

    def __iter__(self) -> Iterator[PretrainStep]:
        read: Iterator[tuple[Portion, list[Corrupted]]] = (
            (portion, self._mine(portion)) for portion in self.stream(self.place)
        )
        read = ahead(read) if self.device.type == "cuda" else read
        while True:
            began = time.perf_counter()  # what the reading takes is a part of the step
            if (found := next(read, None)) is None:
                return
            yield self._step(*found, began)

    def _step(self, portion: Portion, batches: list[Corrupted], began: float) -> PretrainStep:
        lengths = self._lengths(portion)
        counts = self._counts(batches)
        self.twin.train()
        sums: list[dict[str, Sum]] = []
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.group.seed(self.settings.seed, self.number))
            for number, batch in enumerate(batches):
                found = self.twin(batch.to(self.device))
                self.masters.collect.adding = number > 0
                # means over the whole batch, all processes' parts of it included
                means = [self.weights[name] / counts[name] * each.loss for name, each in found.items()]
                (torch.stack(means).sum() * self.masters.scale).backward()
                sums.append({name: Sum(each.loss.detach(), each.right) for name, each in found.items()})
        losses, accuracy = averages(sums, counts, self.group, self.device)
        loss = sum(self.weights[name] * value for name, value in losses.items())
        learning_rate, norm = self._update(portion, loss, any_mine=bool(batches))
        self.number, self.place = self.number + 1, portion.after
        return PretrainStep(
            number=self.number,
            progress=portion.progress,
            loss=loss,
            losses=losses,
            accuracy=accuracy,
            learning_rate=learning_rate,
            grad_norm=norm,
            tokens=int(lengths.sum()),
            sequences=len(lengths),
            seconds=time.perf_counter() - began,
            place=self.place,
        )

    def _lengths(self, portion: Portion) -> np.ndarray:
        return self.stream.lengths(portion.examples)[portion.rows]

    def _mine(self, portion: Portion) -> list[Corrupted]:
        """This process's part of a batch, in forward passes."""
        lengths = self._lengths(portion)
        order = self.group.share(np.argsort(lengths, kind="stable"))
        parts = by_tokens(lengths[order], self.settings.max_tokens)
        return [self.collate(portion.examples, portion.rows[order[part]]) for part in parts]

    def _counts(self, batches: list[Corrupted]) -> dict[str, float]:
        """What each objective has in the batch, over all processes; at least 1."""
        names = [name for name, weight in self.weights.items() if weight]
        mine = [float(sum(counted(batch)[name] for batch in batches)) for name in names]
        return {
            name: total or 1.0 for name, total in zip(names, self.group.total(*mine, device=self.device), strict=True)
        }

    def _update(self, portion: Portion, loss: float, any_mine: bool) -> tuple[float, float]:
        parts = list(self.objectives.parameters())
        self.masters.sum_gradients(parts, any_mine)
        gradients = [part.grad for part in parts if part.grad is not None]
        norm = self.masters.norm(gradients)
        for value, what in ((loss, "the loss"), (norm, "the gradient")):
            if not math.isfinite(value):
                raise Diverged(self.number + 1, f"{what} is not a number", portion.rows)
        clip = self.settings.clip
        if clip and norm > clip:
            torch._foreach_mul_(gradients, clip / norm)
        factor = self.settings.rate_at(portion.progress)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * factor
            optimizer.step()
        self.masters.publish()
        return self.settings.learning_rate * factor, norm

    def state(self) -> dict[str, Any]:
        """Everything the next step needs, for `load_state` in another process with the same corpus and settings."""
        return {"number": self.number, "place": list(self.place), **self.masters.state(self.optimizers)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.number, self.place = state["number"], Place(*state["place"])
        self.masters.load_state(state, self.optimizers)


def counted(batch: Corrupted) -> dict[str, int]:
    """How many answers each objective wants of a batch."""
    return {"mlm": len(batch.chosen), "nsp": batch.paired, "sop": batch.paired, "rtd": batch.packed.layout.tokens}


def averages(
    sums: list[dict[str, Sum]], counts: dict[str, float], group: Group, device: torch.device
) -> tuple[dict[str, float], dict[str, float]]:
    """The mean loss and the share of right answers of each objective over several batches of all processes."""
    zero = torch.zeros((), device=device)
    flat = [
        torch.stack([zero, *(found[name][part].float() for found in sums if name in found)]).sum()
        for part in (0, 1)
        for name in counts
    ]
    totals = group.total(*torch.stack(flat).tolist(), device=device)
    both = [
        {name: total / counts[name] for name, total in zip(counts, some, strict=True)}
        for some in (totals[: len(counts)], totals[len(counts) :])
    ]
    return both[0], both[1]
