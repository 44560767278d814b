"""Dropout, on activations and on attention weights, made fast on the CPU.

torch draws one Mersenne Twister number for each value, which made dropout a third of a training step; and its CPU attention
kernel has no dropout at all, so that attention falls back to whole (n, N, L, L) matrices. `keep_mask` here replaces the
first, `block_attention.py` the second.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORDS = 2**20
"""64-bit words in each of the two tables that masks are drawn from: 8 MB, which a shared cache holds."""
RUN = 2**18
"""Words drawn from one pair of places in the tables."""


def keep_mask(shape: torch.Size | tuple[int, ...], rate: float, seed: int, dtype: torch.dtype) -> Tensor:
    """A dropout mask on the CPU: 0 with probability `rate`, else 1; the same seed gives the same mask.

    Bits are the exclusive or of two tables of random words, read from two random places: simple tabulation hashing (Zobrist
    1970), whose values are independent three by three (Pătraşcu and Thorup 2012). Drawing them with numpy's fastest
    generator took three times as long. Each value has 16 bits, so the rate is rounded to 1/65536: see `keep_scale`.
    """
    return draw_mask(torch.empty(shape, dtype=dtype), rate, seed)


def draw_mask(out: Tensor, rate: float, seed: int) -> Tensor:
    """Fill contiguous `out` as `keep_mask` says, and return it."""
    bits, (left, right) = torch.empty(-(-out.numel() // 4), dtype=torch.int64), _tables()
    for start in range(0, len(bits), RUN):
        part = bits[start : start + RUN]
        a, b = seed % (WORDS - RUN), (seed >> 31) % (WORDS - RUN)
        torch.bitwise_xor(left[a : a + len(part)], right[b : b + len(part)], out=part)
        seed = (seed * 0x2545F4914F6CDD1D + 1) % 2**62  # the next run's places
    torch.ge(bits.view(torch.int16)[: out.numel()].view(out.shape), round(rate * 65536) - 32768, out=out)
    return out


def keep_scale(rate: float) -> float:
    """What makes up for the dropped values: one over the probability with which `keep_mask` keeps a value."""
    return 65536 / (65536 - round(rate * 65536))


@functools.cache
def _tables() -> tuple[Tensor, Tensor]:
    raw = np.random.SFC64(0).random_raw(2 * WORDS).view(np.int64)
    return torch.from_numpy(raw[:WORDS]), torch.from_numpy(raw[WORDS:])


def fresh_seed() -> int:
    """A seed for `keep_mask` from torch's default generator, which so stays the one source of randomness."""
    return int(torch.randint(2**62, ()))


class Dropout(nn.Module):
    """Zero each value with probability `rate` while training and scale the rest up (Srivastava et al. 2014)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """`x` with dropout, added to `onto` when there is one: a residual connection in one pass."""
        if not self.training or self.rate == 0:
            return x if onto is None else onto + x
        if x.device.type != "cpu":
            dropped = F.dropout(x, self.rate)
            return dropped if onto is None else onto + dropped
        keep, scale = keep_mask(x.shape, self.rate, fresh_seed(), x.dtype), keep_scale(self.rate)
        return x * keep.mul_(scale) if onto is None else torch.addcmul(onto, x, keep, value=scale)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
