"""The pre-training loop: a generator of steps over a stream of packed batches.

As in fine-tuning, a step depends on the weights, the optimiser's state, the settings and its place in the stream alone, so
that a run that was stopped takes the very same steps, and several processes take those of one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from clozeline.data.packing import by_tokens
from clozeline.data.pretraining import Collator, Corrupted, Place, Portion, Stream, ahead
from clozeline.errors import InputError
from clozeline.model.encoder import Encoder
from clozeline.model.heads import MaskedLMHead, twin
from clozeline.model.positions import Learned
from clozeline.precision import compute_dtype
from clozeline.tasks.distillation import DistilledWords
from clozeline.tasks.pretraining import MaskedAndPairs, ReplacedTokens, Sum
from clozeline.train import optim
from clozeline.train.distributed import ALONE, Group
from clozeline.train.loop import Diverged
from clozeline.train.masters import Masters
from clozeline.train.pretraining_settings import PretrainSettings

Objectives = MaskedAndPairs | ReplacedTokens | DistilledWords
NAMES = ("mlm", "nsp", "sop", "rtd", "soft", "hidden", "relations")
"""Of the objectives, and of the settings that weigh them."""


@dataclass(frozen=True, slots=True)
class PretrainStep:
    """One optimiser step. number: from 1; progress: the share of the run before it; loss: the weighted sum of `losses`.

    losses, accuracy: of each objective that the batch has, means over it before the step; attended: tokens that a token sees
    on average; place: where the stream goes on.
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
    attended: float
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
        fresh: bool = False,
    ) -> None:
        """fresh: positions that no sequence has had yet begin as copies of those learned, when sequences get longer."""
        self.objectives, self.stream, self.collate = objectives.to(device), stream, collate
        self.settings, self.device, self.group = settings, device, group
        self.weights = {name: getattr(settings, name) for name in NAMES}
        if settings.compile and device.type == "cpu":
            raise InputError("compile is for GPUs: on a CPU torch compiles no half-precision product; leave it out.")
        dtype = compute_dtype(settings.precision, device)
        frozen = {name for name, part in objectives.named_parameters() if not part.requires_grad}
        self.masters: Masters[Any]
        if settings.sharded:
            from clozeline.train.sharded import Sharded  # what it needs of torch takes long to load

            self.masters = Sharded(objectives, dtype, device, group)
        else:
            self.masters = Masters(objectives, twin(objectives, dtype, device), device, group, frozen)
        for part in self.twin.modules():
            if isinstance(part, MaskedLMHead) and device.type == "cpu" and not settings.sharded:
                part.reuse_memory()
            if isinstance(part, Encoder):
                part.checkpointing = settings.checkpointing
                if settings.compile:
                    for layer in part.layers:
                        layer.get_submodule("ffn").compile(dynamic=True)
        # after the model was divided, which gives it other parameters
        self.trained = [part for part in objectives.parameters() if part.requires_grad]
        self.optimizers = optim.pretraining_optimizers(objectives, settings)
        self.number, self.place = 0, Place()
        self.fresh, self.length = fresh, 0

    @property
    def twin(self) -> Objectives:
        """The networks that compute."""
        return self.masters.twin

    def __iter__(self) -> Iterator[PretrainStep]:
        read: Iterator[tuple[Portion, list[Corrupted], int]] = (
            (portion, *self._mine(portion)) for portion in self.stream(self.place)
        )
        read = ahead(read) if self.device.type == "cuda" else read
        while True:
            began = time.perf_counter()  # what the reading takes is a part of the step
            if (found := next(read, None)) is None:
                return
            yield self._step(*found, began)

    def _mine(self, portion: Portion) -> tuple[list[Corrupted], int]:
        """This process's part of a batch, in forward passes, and how many of them count."""
        lengths, settings = self.stream.lengths(portion.examples)[portion.rows], self.settings
        parts, real = passes(lengths, settings.max_tokens, self.group, equal=settings.sharded)
        return [self.collate(portion.examples, portion.rows[part]) for part in parts], real

    def _step(self, portion: Portion, batches: list[Corrupted], real: int, began: float) -> PretrainStep:
        lengths = self.stream.lengths(portion.examples)[portion.rows]
        if self.fresh and 0 < self.length < portion.length:
            self._lengthen()
        self.length = portion.length
        names = [name for name, weight in self.weights.items() if weight]
        mine = [float(sum(counted(batch, self.settings)[name] for batch in batches[:real])) for name in names]
        counts = dict(zip(names, self.group.total(*mine, device=self.device), strict=True))
        self.twin.train()
        sums: list[dict[str, Sum]] = []
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.group.seed(self.settings.seed, self.number))
            for number, batch in enumerate(batches):
                found = self.twin(batch.to(self.device))
                self.masters.collect.adding = number > 0
                # means over the whole batch, all processes' parts of it included
                share = float(number < real)
                found = {name: each for name, each in found.items() if name in counts}
                means = [share * self.weights[name] / (counts[name] or 1) * each.loss for name, each in found.items()]
                (torch.stack(means).sum() * self.masters.scale).backward()
                if number < real:
                    sums.append({name: Sum(each.loss.detach(), each.right) for name, each in found.items()})
        losses, accuracy = averages(sums, counts, self.group, self.device)
        loss = sum((self.weights[name] * value for name, value in losses.items()), 0.0)
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
            attended=float((lengths**2).sum() / lengths.sum()),
            seconds=time.perf_counter() - began,
            place=self.place,
        )

    def _lengthen(self) -> None:
        for part in self.objectives.modules():
            if isinstance(part, Learned):
                self.masters.change(part.table.weight, partial(part.repeated, known=self.length))
        self.masters.publish()

    def _update(self, portion: Portion, loss: float, any_mine: bool) -> tuple[float, float]:
        self.masters.sum_gradients(self.trained, any_mine)
        gradients = [part.grad for part in self.trained if part.grad is not None]
        norm = self.masters.norm(gradients)
        for value, what in ((loss, "the loss"), (norm, "the gradient")):
            if not math.isfinite(value):
                raise Diverged(self.number + 1, f"{what} is not a number", portion.rows)
        clip = self.settings.clip
        if clip and norm > clip:
            torch._foreach_mul_(gradients, clip / norm)
        factor = self.settings.rate_at((portion.progress + min(1.0, portion.end)) / 2)  # of the step's middle
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * factor
            optimizer.step()
        self.masters.publish()
        return self.settings.learning_rate * factor, norm

    def state(self) -> dict[str, Any]:
        """Everything the next step needs, for `load_state` in another process with the same corpus and settings."""
        return {
            "number": self.number,
            "place": list(self.place),
            "length": self.length,
            **self.masters.state(self.optimizers),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.number, self.place = state["number"], Place(*state["place"])
        self.length = state.get("length", 0)  # which earlier states do not have
        self.masters.load_state(state, self.optimizers)


def passes(lengths: np.ndarray, max_tokens: int, group: Group, *, equal: bool) -> tuple[list[np.ndarray], int]:
    """A process's part of a batch, cut into forward passes of at most so many tokens, and how many of them count.

    equal: every process gets as many as the one with most, with one sequence each that does not count: a divided model
    is gathered in each pass, by all processes at once.
    """
    order = np.argsort(lengths, kind="stable")
    shares = [order[rank :: group.size] for rank in range(group.size)]
    mine = shares[group.rank]
    parts = [mine[part] for part in by_tokens(lengths[mine], max_tokens)]
    most = max(sum(1 for _ in by_tokens(lengths[share], max_tokens)) for share in shares) if equal else 0
    return parts + [order[:1]] * max(0, most - len(parts)), len(parts)


def counted(batch: Corrupted, settings: PretrainSettings) -> dict[str, int]:
    """How many answers each objective wants of a batch."""
    masked, tokens = len(batch.chosen), batch.packed.layout.tokens
    found = {"mlm": masked, "nsp": batch.paired, "sop": batch.paired, "rtd": tokens}
    return found | {"soft": tokens if settings.soft_at == "all" else masked, "hidden": tokens, "relations": tokens}


def averages(
    sums: list[dict[str, Sum]], counts: dict[str, float], group: Group, device: torch.device
) -> tuple[dict[str, float], dict[str, float]]:
    """The mean loss and the share of right answers of each objective over several batches of all processes.

    One that no batch has is left out.
    """
    zero = torch.zeros((), device=device)
    flat = [
        torch.stack([zero, *((found[name].loss, found[name].right)[part].float() for found in sums)]).sum()
        for part in (0, 1)
        for name in counts
    ]
    totals = group.total(*torch.stack(flat).tolist(), device=device)
    both = [
        {name: total / counts[name] for name, total in zip(counts, some, strict=True) if counts[name]}
        for some in (totals[: len(counts)], totals[len(counts) :])
    ]
    return both[0], both[1]
