"""The training loop: a generator of steps, without callbacks.

    for step in Training(network, task, samples, settings):
        print(step.number, step.loss)

What a step does depends on the weights, the optimiser's state, the settings and the step's number alone, so a run that was
stopped and resumed takes the very same steps.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clozeline.data.packing import Samples, by_tokens, training_batches
from clozeline.errors import InputError
from clozeline.model.heads import Network
from clozeline.precision import compute_dtype
from clozeline.tasks.supervised import Supervised
from clozeline.train import optim
from clozeline.train.compact import CompactTable
from clozeline.train.settings import Settings


class Diverged(InputError):
    """The loss or the gradient is not a number any more. `chosen` are the examples of the batch."""

    def __init__(self, step: int, what: str, chosen: np.ndarray) -> None:
        self.step, self.chosen = step, chosen
        shown = ", ".join(str(at + 1) for at in chosen[:8]) + (", ..." if len(chosen) > 8 else "")
        super().__init__(
            f"Step {step}: {what}, in the batch of training examples {shown}. "
            "Training stopped before the weights were touched. Try a lower learning rate, more warm-up or precision fp32."
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step. number: from 1; epoch: passes over the data so far; loss: mean over the batch, before the step.

    grad_norm: before clipping; tokens, examples: in the batch; seconds: that the step took.
    """

    number: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    examples: int
    seconds: float
    ends_epoch: bool


class Collect:
    """Moves a half-precision gradient to its master as soon as it is there, while it is in cache, into a buffer that stays.

    Knows nothing of the training: hooks that did would keep it alive for ever.
    """

    adding = False
    """Whether the batch has given gradients before, which these are added to."""

    def __call__(self, master: torch.nn.Parameter, copy: Tensor) -> None:
        assert copy.grad is not None and master.grad is not None
        if self.adding:
            master.grad.add_(copy.grad)
        else:
            master.grad.copy_(copy.grad)
        copy.grad = None


class Training:
    """Iterate to train `network` in place. `state` and `load_state` let another process take the next step.

    Args:
        network: fp32, in the shape that `task` needs. Its weights are the masters: each step computes on `twin`, whose
            matrices are in the computing precision, and adds the gradients up in fp32.
        used: token ids that the table must keep a row for while training, or None to train the whole table.
    """

    def __init__(
        self,
        network: Network,
        task: Supervised,
        samples: Samples,
        settings: Settings,
        *,
        used: np.ndarray | None = None,
        device: torch.device | None = None,
    ) -> None:
        assert samples.targets is not None and len(samples) > 0, "training needs labelled examples"
        if still := [name for name, part in network.named_parameters() if not part.requires_grad]:
            raise InputError(
                f"{len(still)} parameters are frozen (requires_grad is False), {still[0]} for one. Training only some "
                "layers is not supported; set requires_grad to True."
            )
        self.device = device or torch.device("cpu")
        self.network, self.task, self.settings = network.to(self.device), task, settings
        self.table = None if used is None else CompactTable(network.encoder.embedding.tokens, used)
        samples = samples.apart() if task.windows_apart else samples
        self.samples = samples if self.table is None else self.table.renumber(samples)
        self.twin = network.twin(compute_dtype(settings.precision, self.device), self.device)
        couples = zip(network.parameters(), self.twin.parameters(), strict=True)
        self.couples = [(master, copy) for master, copy in couples if master is not copy]
        self.collect = Collect()
        for master, copy in self.couples:
            master.grad = torch.zeros_like(master)
            copy.register_post_accumulate_grad_hook(functools.partial(self.collect, master))
        self.optimizer = optim.adamw(network, settings)
        weights = task.weights(samples)
        self.weights = None if weights is None else weights.to(self.device)
        self.number = 0
        self.per_epoch = math.ceil(len(samples) / settings.batch_size)
        self.total = self.per_epoch * settings.epochs

    def __iter__(self) -> Iterator[Step]:
        lengths = self.samples.lengths
        while self.number < self.total:
            epoch, at = divmod(self.number, self.per_epoch)
            batches = training_batches(
                lengths, self.settings.batch_size, self.settings.seed, epoch, grouping=self.settings.grouping
            )
            for chosen in batches[at:]:
                yield self._step(chosen)

    def _step(self, chosen: np.ndarray) -> Step:
        began = time.perf_counter()
        assert self.samples.targets is not None
        lengths = self.samples.lengths[chosen]
        loss = count = 0.0
        self.twin.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.settings.seed * 2**32 + self.number)
            for number, part in enumerate(by_tokens(lengths, self.settings.max_tokens)):
                batch = self.samples.take(chosen[part]).to(self.device)
                total, weight = self.task.loss(self.task.logits(self.twin, batch.packed), batch, self.weights)
                self.collect.adding = number > 0
                total.backward()
                loss, count = loss + total.item(), count + weight.item()
        learning_rate, norm = self._update(loss, count, chosen)
        self.number += 1
        return Step(
            number=self.number,
            epoch=self.number / self.per_epoch,
            loss=loss / count,
            learning_rate=learning_rate,
            grad_norm=norm,
            tokens=int(lengths.sum()),
            examples=len(chosen),
            seconds=time.perf_counter() - began,
            ends_epoch=self.number % self.per_epoch == 0,
        )

    def _update(self, loss: float, count: float, chosen: np.ndarray) -> tuple[float, float]:
        """One AdamW step from gradients of the summed loss. Mean and clipping are one factor, applied as it reads them."""
        dense = [part for group in self.optimizer.param_groups for part in group["params"]]
        rows = []
        if self.table is not None:
            dense = [part for part in dense if part is not self.table.table.weight]
            rows = [self.table.lay_gradient()]
        norm = optim.norm([*rows, *(part.grad for part in dense if part.grad is not None)]).item() / count
        if not math.isfinite(loss):
            raise Diverged(self.number + 1, "the loss is not a number", chosen)
        if not math.isfinite(norm):
            raise Diverged(self.number + 1, "the gradient is not a number", chosen)
        clip = self.settings.clip
        divisor = count * (max(1.0, norm / clip) if clip else 1.0)
        learning_rate = optim.rate(self.settings, self.number, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.grad_scale = torch.tensor(divisor, device=self.device)  # type: ignore[attr-defined]
        self.optimizer.step()
        self._publish()
        if self.table is not None:
            self.table.stepped(learning_rate, self.settings.weight_decay)
        return learning_rate, norm

    @torch.no_grad()
    def _publish(self) -> None:
        """Give the twin its matrices as the masters have them now, and clear the gradients that are not in buffers."""
        for master, copy in self.couples:
            copy.copy_(master)
        kept = {id(master) for master, _ in self.couples}
        for parameter in self.network.parameters():
            if id(parameter) not in kept:
                parameter.grad = None

    def state(self) -> dict[str, Any]:
        """Everything the next step needs, for `load_state` in another process with the same data and settings."""
        return {
            "number": self.number,
            "decay": 1.0 if self.table is None else self.table.decay,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
        if self.table is not None:
            self.table.decay = state["decay"]
        self.network.load_state_dict(state["network"])
        self._publish()
        self.optimizer.load_state_dict(state["optimizer"])

    def finish(self) -> None:
        """Give the network its full table back, and let go of the gradients."""
        if self.table is not None:
            self.table.restore()
            self.table = None
        self.network.zero_grad()
