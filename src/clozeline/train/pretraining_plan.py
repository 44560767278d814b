"""What a pre-training run would do and cost, before it begins; time and memory from a few real steps on a copy."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from clozeline.bundle import Bundle
from clozeline.data.pretraining import Stream
from clozeline.data.shards import Shards
from clozeline.model.heads import Network
from clozeline.precision import compute_dtype
from clozeline.train import cost
from clozeline.train.plan import kept_bytes
from clozeline.train.pretrain import made, reading
from clozeline.train.pretraining import Pretraining
from clozeline.train.pretraining_settings import PretrainSettings
from clozeline.train.report import duration

STEPS = 2
"""Real steps timed, after one that warms up."""
TOKENS = 8192
"""Of a step to time."""


@dataclass(frozen=True)
class PretrainPlan:
    """What `pretrain` would do. Memory in bytes, rates in tokens a second; mfu: share of the machine's peak.

    corpus: counts of the shards; tokens, steps: of the run, about, since sequences are filled as they come.
    """

    model: str
    parameters: int
    device: str
    precision: str
    corpus: dict[str, int]
    held_out: int
    tokens: int
    steps: int
    memory: int
    rate: float
    mfu: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        counts = ", ".join(f"{number:,} {name}" for name, number in self.corpus.items())
        return "\n".join(
            [
                f"model       {self.model}: {self.parameters:,} parameters",
                f"device      {self.device}, {self.precision} over fp32 weights",
                f"corpus      {counts}; {self.held_out:,} tokens held out",
                f"run         about {self.tokens:,} tokens in {self.steps:,} steps",
                f"memory      about {self.memory / 2**20:,.0f} MiB",
                f"time        about {duration(self.seconds)}, at {self.rate:,.0f} tokens/s, {100 * self.mfu:.0f} % of the "
                f"machine's peak (measured over {STEPS} real steps)",
            ]
        )


def plan(
    bundle: Bundle,
    shards: Shards,
    validation: Shards | None,
    settings: PretrainSettings,
    device: torch.device,
    teacher: Network | None = None,
) -> PretrainPlan:
    """Look at the corpus and take a few steps on a copy of the network; `bundle` stays as it is."""
    copied = dataclasses.replace(bundle, network=copy.deepcopy(bundle.network))
    objectives = made(copied, settings, teacher, device)
    size = min(TOKENS, settings.batch_tokens)
    few = settings.replace(
        batch_tokens=size, first_batch_tokens=0, max_tokens=min(size, settings.max_tokens), sharded=False
    )
    stream, collate = reading(copied, shards, few)
    training = Pretraining(objectives, stream, collate, few, device=device)
    steps = iter(training)
    with kept_bytes(objectives, training.twin) as kept:
        first = next(steps, None)
    timed = [step for step, _ in zip(steps, range(STEPS), strict=False)] or ([first] if first else [])
    rate = sum(step.tokens for step in timed) / sum(step.seconds for step in timed) if timed else 1.0
    parameters = sum(part.numel() for part in objectives.parameters())
    copies = sum(part.nbytes for _, part in training.masters.couples)
    forward = min(settings.max_tokens, settings.batch_tokens)
    tokens = settings.tokens or round(settings.passes * shards.tokens * _grown(stream))
    moments = sum(  # bytes: Muon has one moment, AdamW two
        (4 if isinstance(optimizer, torch.optim.Muon) else 8) * part.numel()
        for optimizer in training.optimizers
        for group in optimizer.param_groups
        for part in group["params"]
    )
    batches = np.linspace(0, 1, 200, endpoint=False)
    return PretrainPlan(
        model=bundle.name,
        parameters=parameters,
        device=str(device),
        precision=str(compute_dtype(settings.precision, device)).removeprefix("torch."),
        corpus={name: getattr(shards, name) for name in ("documents", "sentences", "tokens")},
        held_out=0 if validation is None else validation.tokens,
        tokens=tokens,
        steps=math.ceil(tokens * float(np.mean([1 / settings.at_batch(each) for each in batches]))),
        memory=int(8 * parameters + moments + copies + (sum(kept) / first.tokens * forward if first else 0)),
        rate=rate,
        mfu=rate * cost.flops(objectives, settings).of(settings.length) / cost.peak(device, settings.precision),
        seconds=tokens / rate,
    )


def _grown(stream: Stream) -> float:
    """Tokens read for each one of the corpus: special tokens and the second segments of pairs come on top."""
    length, segments = stream.schedule.length(0.0), stream.segments
    single, pair = stream.specials
    examples = segments.pool(0, 0, (length - single, length - pair))
    share = min(segments.in_pool, segments.shards.sections) / segments.shards.sections
    return float(stream.lengths(examples).sum() / (share * segments.shards.tokens))
