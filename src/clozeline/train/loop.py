"""The training loop: a generator of steps, without callbacks.

    for step in Training(network, task, samples, settings):
        print(step.number, step.loss)

What a step does depends on the weights, the optimiser's state, the settings and the step's number alone, so a run that was
stopped and resumed takes the very same steps.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clozeline.data.packing import Batch, Samples, by_tokens, training_batches
from clozeline.errors import InputError
from clozeline.model.heads import Network
from clozeline.precision import compute_dtype
from clozeline.tasks.supervised import Supervised
from clozeline.train import optim
from clozeline.train.compact import CompactTable
from clozeline.train.distributed import ALONE, Group
from clozeline.train.masters import Masters
from clozeline.train.settings import Settings

Learn = Callable[[Network, Batch, Tensor | None], tuple[Tensor, Tensor]]
"""(network, batch, weights of the outputs) -> the summed loss, and the weight to divide it by."""


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

    learning_rate: the head's, of which layers may have a share; grad_norm: before clipping; tokens, examples: in the batch;
    seconds: that the step took.
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


class Training:
    """Iterate to train `network` in place. `state` and `load_state` let another process take the next step.

    Args:
        network: fp32, in the shape that `task` needs. Its weights are the masters: each step computes on `twin`, whose
            matrices are in the computing precision, and adds the gradients up in fp32. Parameters whose `requires_grad`
            is False are not trained, nor are those that `settings.freeze` names, whose `requires_grad` is left alone.
        group: the processes that train together; each takes its share of a batch.
        learn: the loss of a network on a batch; None is the task's own.
        used: token ids that the table must keep a row for while training, or None to train the whole table.

    Raises:
        InputError: `settings.freeze` does not fit the network, or leaves nothing to train.
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
        group: Group = ALONE,
        learn: Learn | None = None,
    ) -> None:
        assert samples.targets is not None and len(samples) > 0, "training needs labelled examples"
        self.frozen = optim.frozen(network, settings.freeze)
        self.device = device or torch.device("cpu")
        self.network, self.task, self.settings, self.group = network.to(self.device), task, settings, group
        self.learn: Learn = learn or task.learn
        self.table: CompactTable | None = None
        if used is not None and "encoder.embedding.tokens.weight" not in self.frozen:
            self.table = CompactTable(network.encoder.embedding.tokens, used)
        try:
            self._make_ready(samples.apart() if task.windows_apart else samples)
        except BaseException:  # such as too little memory for a second network
            self.finish()
            raise

    def _make_ready(self, samples: Samples) -> None:
        network, task, settings = self.network, self.task, self.settings
        self.samples = self.renumber(samples)
        twin = network.twin(compute_dtype(settings.precision, self.device), self.device)
        self.masters = Masters(network, twin, self.device, self.group, self.frozen)
        self.optimizer = optim.adamw(network, settings)
        self.table_share = settings.layer_decay ** max(optim.steps_down(network).values())
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
        mine = self.group.share(chosen)
        loss = count = 0.0
        self.twin.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.group.seed(self.settings.seed, self.number))
            for number, part in enumerate(by_tokens(self.samples.lengths[mine], self.settings.max_tokens)):
                batch = self.samples.take(mine[part]).to(self.device)
                total, weight = self.learn(self.twin, batch, self.weights)
                self.masters.collect.adding = number > 0
                total.backward()
                loss, count = loss + total.item(), count + weight.item()
        loss, count = self.group.total(loss, count, device=self.device)
        learning_rate, norm = self._update(loss, count, chosen)
        self.number += 1
        return Step(
            number=self.number,
            epoch=self.number / self.per_epoch,
            loss=loss / (count or 1.0),
            learning_rate=learning_rate,
            grad_norm=norm,
            tokens=int(self.samples.lengths[chosen].sum()),
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
            rows = [self.table.lay_gradient(self.group)]
        self.masters.sum_gradients(dense, len(self.group.share(chosen)) > 0)
        count = count or 1.0  # nothing in the batch to learn from: a step of nothing
        norm = optim.norm([*rows, *(part.grad for part in dense if part.grad is not None)]).item() / count
        if not math.isfinite(loss):
            raise Diverged(self.number + 1, "the loss is not a number", chosen)
        if not math.isfinite(norm):
            raise Diverged(self.number + 1, "the gradient is not a number", chosen)
        clip = self.settings.clip
        divisor = count * (max(1.0, norm / clip) if clip else 1.0)
        learning_rate = optim.rate(self.settings, self.number, self.total)
        correct = self.settings.bias_correction
        optim.set_rates(self.optimizer, learning_rate, self.number + 1, bias_correction=correct)
        self.optimizer.grad_scale = torch.tensor(divisor, device=self.device)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.masters.publish()
        if self.table is not None:
            self.table.stepped(learning_rate * self.table_share, self.settings.weight_decay)
        return learning_rate, norm

    @property
    def twin(self) -> Network:
        """The network that computes."""
        return self.masters.twin

    def state(self) -> dict[str, Any]:
        """Everything the next step needs, for `load_state` in another process with the same model, data and settings.

        What is frozen is not in it.
        """
        weights = self.network.state_dict()
        return {
            "number": self.number,
            "decay": 1.0 if self.table is None else self.table.decay,
            "network": {name: value for name, value in weights.items() if name not in self.frozen},
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
        if self.table is not None:
            self.table.decay = state["decay"]
        missing, unexpected = self.network.load_state_dict(state["network"], strict=False)
        assert set(missing) == self.frozen and not unexpected, "a state of another training"
        self.masters.publish()
        self.optimizer.load_state_dict(state["optimizer"])

    def renumber(self, samples: Samples) -> Samples:
        """The samples as the network reads them until `finish`: with ids that count rows of the table it has meanwhile."""
        return samples if self.table is None else self.table.renumber(samples)

    def full_table(self) -> contextlib.AbstractContextManager[None]:
        """A block in which the network has its full table, for a save."""
        return contextlib.nullcontext() if self.table is None else self.table.whole()

    def finish(self) -> None:
        """Give the network its full table back, and let go of the gradients."""
        if self.table is not None:
            self.table.restore()
            self.table = None
        self.network.zero_grad()
