"""What a training run would do and cost, before it begins: `clozeline finetune --dry-run`.

Counts are exact. Memory and time come from a few real steps on a copy of the network, so nothing here knows what a layer
costs, and nothing is written.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clozeline.bundle import Bundle
from clozeline.data.packing import Samples
from clozeline.model import kernels
from clozeline.model.heads import Network
from clozeline.precision import compute_dtype
from clozeline.tasks.supervised import Supervised
from clozeline.train.loop import Step, Training
from clozeline.train.report import duration
from clozeline.train.settings import Settings
from clozeline.train.teaching import lesson

STEPS = 3
"""Real steps timed, after one that warms up."""
SECONDS = 4.0
"""After so many no further step is taken."""
TOKENS = 4096
"""Of a step to time. More would not change the time a token takes, only the wait."""


@dataclass(frozen=True)
class Split:
    """One set of examples. tokens: that the model reads, special tokens included; longest: of one example."""

    examples: int
    tokens: int
    longest: int
    labels: dict[str, int]
    truncated_texts: int
    truncated_tokens: int

    @classmethod
    def of(cls, samples: Samples, task: Supervised) -> Split:
        cut, lengths = samples.cut, samples.lengths
        labels = task.counts(samples)
        return cls(len(samples), int(lengths.sum()), int(lengths.max()), labels, int((cut > 0).sum()), int(cut.sum()))

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {label}" for label, count in self.labels.items()) or "no labels"
        cut = f"; {self.truncated_texts:,} texts lose {self.truncated_tokens:,} tokens" if self.truncated_texts else ""
        return f"{self.examples:,} examples ({counts}), {self.tokens:,} tokens, the longest {self.longest:,}{cut}"


@dataclass(frozen=True)
class Plan:
    """What `fit` would do. Memory in bytes, rates in tokens a second.

    trained: parameters with a gradient; what is frozen has none, nor have rows of the token table that no text uses.
    kernel_note: why attention does not take a faster kernel; None where it takes the fastest.
    activations: what a real step kept for its backward pass, scaled to the largest forward pass of the run.
    measured_steps: real steps behind `rate` and `seconds`; validation is reckoned at a third of training, for each token.
    runs: how many there are, one after the other, with other seeds and rates; `steps` are of one, `seconds` of all of them.
    """

    model: str
    parameters: int
    trained: int
    device: str
    precision: str
    kernel: str
    kernel_note: str | None
    train: Split
    validation: Split | None
    steps: int
    steps_per_epoch: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    measured_steps: int
    rate: float
    seconds: float
    runs: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        parts = self.weights, self.gradients, self.optimizer, self.activations
        total, *shares = (f"{size / 2**20:,.0f}" for size in (sum(parts), *parts))
        note = f" ({self.kernel_note})" if self.kernel_note else ""
        each = f" in each of {self.runs} runs" if self.runs > 1 else ""
        return "\n".join(
            [
                f"model       {self.model}: {self.parameters:,} parameters, {self.trained:,} of them with a gradient",
                f"device      {self.device}, {self.precision} over fp32 weights, attention kernel {self.kernel}{note}",
                f"train       {self.train}",
                f"validation  {self.validation or 'none: the last epoch is kept, not the best'}",
                f"steps       {self.steps:,}, {self.steps_per_epoch:,} an epoch{each}",
                f"memory      about {total} MiB: weights {shares[0]}, gradients {shares[1]}, optimiser {shares[2]}, "
                f"activations {shares[3]} (counted in a real step)",
                f"time        about {duration(self.seconds)}, at {self.rate:,.0f} tokens/s "
                f"(measured over {self.measured_steps} real steps)",
            ]
        )


def plan(
    bundle: Bundle,
    train: Samples,
    validation: Samples | None,
    settings: Settings,
    device: torch.device,
    runs: int = 1,
    teacher: Network | None = None,
) -> Plan:
    """Look at the data and take a few steps on a copy of the network; `bundle` stays as it is."""
    task, config = bundle.task, bundle.config
    assert isinstance(task, Supervised)
    dtype = compute_dtype(settings.precision, device)
    biased = bundle.network.encoder.positions.biased
    rate, width = config.attention_dropout, config.head_width
    note = kernels.refusal("varlen", device, dtype, dropout=rate, bias=biased, head_width=width)
    used: np.ndarray | None = np.unique(train.ids) if validation is None else np.union1d(train.ids, validation.ids)
    units = train.apart() if task.windows_apart else train  # what a batch is made of
    mean = float(units.lengths.mean())
    few = settings.replace(batch_size=min(settings.batch_size, max(1, int(TOKENS / mean))))
    copied, learn = copy.deepcopy(bundle.network), None
    if teacher is not None:
        copied, learn = lesson(task, copied, teacher, train, few, device)
        used = None if learn.teacher else used
    training = Training(copied, task, train, few, used=used, device=device, learn=learn)
    masters = dict(training.network.named_parameters())
    trained = sum(part.numel() for name, part in masters.items() if name not in training.frozen)
    couples = zip(masters.values(), training.twin.parameters(), strict=True)
    copies = sum(copy.nbytes for master, copy in couples if copy.data_ptr() != master.data_ptr())

    began = time.perf_counter()
    steps = iter(training)
    with kept_bytes(training.network, training.twin) as kept:
        first = next(steps)
    timed: list[Step] = []
    while len(timed) < STEPS and time.perf_counter() - began < SECONDS and (step := next(steps, None)):
        timed.append(step)
    timed = timed or [first]  # which has the start-up costs in it too
    rate = sum(step.tokens for step in timed) / sum(step.seconds for step in timed)
    heaviest = int(np.sort(units.lengths)[-settings.batch_size :].sum())

    once = Split.of(train, task)
    checks = None if validation is None else Split.of(validation, task)
    per_epoch = -(-len(units) // settings.batch_size)
    work = once.tokens + (checks.tokens / 3 if checks else 0)
    parameters = sum(part.numel() for part in bundle.network.parameters())
    return Plan(
        model=bundle.name,
        parameters=parameters,
        trained=trained,
        device=str(device),
        precision={torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype],
        kernel="varlen" if note is None else "blocks",
        kernel_note=note,
        train=once,
        validation=checks,
        steps=per_epoch * settings.epochs,
        steps_per_epoch=per_epoch,
        weights=4 * parameters + copies,
        gradients=4 * trained,
        optimizer=8 * trained,  # AdamW's two moments
        activations=int(sum(kept) / first.tokens * min(heaviest, max(settings.max_tokens, int(units.lengths.max())))),
        measured_steps=len(timed),
        rate=rate,
        seconds=runs * settings.epochs * work / rate,
        runs=runs,
    )


@contextmanager
def kept_bytes(*networks: torch.nn.Module) -> Iterator[list[int]]:
    """Lists the sizes of what autograd keeps for the backward pass inside the block, each storage once, no parameters."""
    seen = {part.untyped_storage().data_ptr() for network in networks for part in network.parameters()}
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            sizes.append(storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes
