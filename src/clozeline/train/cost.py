"""What a step of pre-training costs: its floating-point operations, what the machine could do, and how long a run takes."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

import torch
from torch import nn

from clozeline.model.heads import MaskedLMHead, Network
from clozeline.model.layers import Linear
from clozeline.precision import Precision, compute_dtype
from clozeline.train.pretraining_settings import PretrainSettings

PUBLISHED = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 operations a second, by the makers' data sheets."""
SIZE = {"cpu": 1536, "cuda": 8192}
"""Rows and columns of the product that is timed where nothing is published."""
RECENT = 50
"""Steps that a rate is taken over."""


def peak(device: torch.device, precision: Precision) -> float:
    """Floating-point operations a second that the machine reaches at most: as published, or in a large matrix product."""
    dtype = compute_dtype(precision, device)
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, flops in PUBLISHED.items():
            if known in name:
                return flops
    size = SIZE.get(device.type, 1024)
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


class Work(NamedTuple):
    """Floating-point operations for a token, forward and backward: always, and for each place that attention sees."""

    token: float
    seen: float

    def of(self, length: float) -> float:
        """For a token in sequences of this length."""
        return self.token + self.seen * length


def flops(objectives: nn.Module, settings: PretrainSettings) -> Work:
    """What a token costs: two operations for each weight it meets, twice that again in the backward pass.

    Tables are looked up for nothing; the head of masked words reads the masked tokens only. Attention is 4 D for each
    layer and place seen. What is computed twice to save memory is counted once (Chowdhery et al. 2022, PaLM, appendix B).
    """
    token = seen = 0.0
    for network in (part for part in objectives.modules() if isinstance(part, Network)):
        config, encoder = network.config, network.encoder
        repeats = config.layers / config.distinct_layers
        token += sum(repeats * _weights(layer) for layer in encoder.layers) + _weights(encoder.embedding)
        for head in (part for part in network.modules() if isinstance(part, MaskedLMHead)):
            token += settings.mask_rate * (_weights(head) + config.vocab_size * config.table_width)
        if network.kind in (None, "replaced_token") and network.head is not None:
            token += _weights(network.head)
        seen += 2 * config.layers * config.width
    return Work(6 * token, 6 * seen)


def _weights(module: nn.Module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, Linear))


class Speed(NamedTuple):
    """rate: tokens a second; share: of the machine's peak, the model FLOPs utilisation."""

    rate: float
    share: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} tokens/s  {100 * self.share:.0f} % of peak"


class Meter:
    """The speed over the last steps."""

    def __init__(self, work: Work, peak: float) -> None:
        """peak: operations a second."""
        self.work, self.peak = work, peak
        self.recent: deque[tuple[int, float, float]] = deque(maxlen=RECENT)

    def step(self, tokens: int, seconds: float, attended: float) -> Speed:
        """attended: tokens that a token sees on average."""
        self.recent.append((tokens, seconds, tokens * self.work.of(attended)))
        tokens, took, done = (sum(column) for column in zip(*self.recent, strict=True))
        return Speed(tokens / took, done / took / self.peak)
