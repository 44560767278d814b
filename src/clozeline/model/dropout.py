"""Dropout, on activations and on attention weights, made fast on the CPU.

torch draws one Mersenne Twister number for each value, which made dropout a third of a training step; and its CPU attention
kernel has no dropout at all, so that attention falls back to whole (n, N, L, L) matrices. Both are written here instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_mask(shape: torch.Size | tuple[int, ...], rate: float, seed: int, dtype: torch.dtype) -> Tensor:
    """A dropout mask on the CPU: 0 with probability `rate`, else 1 / (1 - rate); the same seed gives the same mask.

    One 64-bit draw decides four values, with the rate rounded to 1/65536 and the scale fitted to the rounded rate, so that
    the mean stays exact.
    """
    count = math.prod(shape)
    dropped = round(rate * 65536)
    raw = np.random.SFC64(seed).random_raw((count + 3) // 4)
    draws = torch.from_numpy(raw.view(np.int16)[:count]).view(shape)
    keep = torch.empty(shape, dtype=dtype)
    torch.ge(draws, dropped - 32768, out=keep)
    return keep.mul_(65536 / (65536 - dropped))


def fresh_seed() -> int:
    """A seed for `keep_mask` from torch's default generator, which so stays the one source of randomness."""
    return int(torch.randint(2**62, ()))


class Dropout(nn.Module):
    """Zero each value with probability `rate` while training and scale the rest up (Srivastava et al. 2014)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        return x * keep_mask(x.shape, self.rate, fresh_seed(), x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class BlockAttention(torch.autograd.Function):
    """Attention over a block on the CPU: q, k, v (n, N, L, H), a constant mask to add or None -> (n, N, L, H).

    With dropout at `rate` on its weights, which torch's CPU kernel does not have; and faster than that kernel without
    dropout where sequences are short. Works through a few heads at a time so that their weights stay in cache, and keeps
    none of them for the backward pass, which computes weights and mask again from q, k and the seed (as Dao et al. 2022,
    FlashAttention, do on the GPU).

    Computes in fp32 whatever the input: these products are small, and in half precision oneDNN would compile a kernel for
    every new length (measured 8.5 ms for the first of a shape, 1.2 ms after; fp32 1.5 ms always).
    """

    CACHED = 2**19  # values of weights a piece may hold: 2 MB, about the second-level cache of a core

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, rate: float) -> Tensor:
        shape, dtype = q.shape, q.dtype
        ctx.scale, ctx.rate, ctx.seed = scale, rate, fresh_seed() if rate else 0
        ctx.mask = None if mask is None else mask.expand(*shape[:3], shape[2]).flatten(0, 1)
        q, k, v = (x.flatten(0, 1).to(torch.promote_types(dtype, torch.float32)) for x in (q, k, v))
        out = torch.empty_like(q)
        for piece in BlockAttention._pieces(*q.shape[:2]):
            weights, keep = BlockAttention._weights(ctx, piece, q, k)
            torch.bmm(weights if keep is None else weights.mul_(keep), v[piece], out=out[piece])
        ctx.save_for_backward(q, k, v)
        return out.view(shape).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        shape, dtype, grad = grads[0].shape, grads[0].dtype, grads[0].flatten(0, 1).to(q.dtype)
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        for piece in BlockAttention._pieces(*q.shape[:2]):
            weights, keep = BlockAttention._weights(ctx, piece, q, k)
            d_weights = torch.bmm(grad[piece], v[piece].transpose(1, 2))
            d_scores = _softmax_backward(d_weights if keep is None else d_weights.mul_(keep), weights)
            torch.bmm(d_scores, k[piece], out=dq[piece])
            torch.bmm(d_scores.transpose(1, 2), q[piece], out=dk[piece])
            kept = weights if keep is None else weights.mul_(keep)
            torch.bmm(kept.transpose(1, 2), grad[piece], out=dv[piece])
        dq, dk, dv = (x.view(shape).to(dtype) for x in (dq.mul_(ctx.scale), dk.mul_(ctx.scale), dv))
        return dq, dk, dv, None, None, None

    @staticmethod
    def _pieces(heads: int, length: int) -> list[slice]:
        step = max(1, BlockAttention.CACHED // (length * length))
        return [slice(at, min(heads, at + step)) for at in range(0, heads, step)]

    @staticmethod
    def _weights(ctx: Any, piece: slice, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor | None]:
        scores = torch.baddbmm(q.new_zeros(()), q[piece], k[piece].transpose(1, 2), beta=0, alpha=ctx.scale)
        weights = _softmax(scores if ctx.mask is None else scores.add_(ctx.mask[piece]))
        return weights, keep_mask(weights.shape, ctx.rate, ctx.seed + piece.start, weights.dtype) if ctx.rate else None


NARROW = 16
"""Rows shorter than a vector register: torch's softmax goes through them one value at a time (0.60 ms against 0.09 ms for
384 matrices of 13 x 13)."""


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension; `scores` may be overwritten."""
    if scores.shape[-1] >= NARROW:
        return torch.softmax(scores, -1)
    weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))


def _softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    """The gradient of the scores from that of the weights; `grad` may be overwritten."""
    if grad.shape[-1] >= NARROW:
        return torch.ops.aten._softmax_backward_data(grad, weights, -1, weights.dtype)
    grad.mul_(weights)
    return grad.sub_(weights * grad.sum(-1, keepdim=True))
