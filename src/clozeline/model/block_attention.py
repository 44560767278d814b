"""Attention over blocks on the CPU with a gradient of its own: torch's CPU kernel has no dropout, and is slow when short.

Works through a few heads at a time so that their weights stay in cache, and keeps none of them for the backward pass, which
computes weights and mask again from q, k and a seed (as Dao et al. 2022, FlashAttention, do on the GPU).

Computes in fp32 whatever the input: these products are small, and in half precision oneDNN would compile a kernel for
every new length (measured 8.5 ms for the first of a shape, 1.2 ms after; fp32 1.5 ms always).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clozeline.batch import Block
from clozeline.model.dropout import draw_mask, fresh_seed, keep_scale

CACHED = 2**19
"""Values of weights that a piece may hold: 2 MB, about the second-level cache of a core."""
NARROW = 16
"""Rows shorter than a vector register: torch's softmax goes through them one value at a time (0.60 ms against 0.09 ms for
384 matrices of 13 x 13)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a block's matrices, from row `start` of (H,) in tensors that lie by head. number: of the piece in the call."""

    number: int
    block: int
    matrices: slice
    start: int
    length: int

    @property
    def count(self) -> int:
        return int(self.matrices.stop - self.matrices.start)

    def of(self, x: Tensor) -> Tensor:
        """(count, L, H) of a tensor that lies by head."""
        return x[self.start : self.start + self.count * self.length].view(self.count, self.length, -1)

    def square(self, scratch: Tensor) -> Tensor:
        """Room for (count, L, L) in flat `scratch`."""
        return scratch[: self.count * self.length**2].view(self.count, self.length, self.length)


class BlockAttention(torch.autograd.Function):
    """q, k, v (T, N, H), the rows of `blocks` one after the other -> (T, N, H), with dropout at `rate` on the weights.

    Rows beyond the blocks' come back as zeros.

    masks: for each block what to add to its scores, broadcastable to (n, N, L, L) and without a gradient, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        blocks: tuple[Block, ...],
        masks: tuple[Tensor | None, ...],
        scale: float,
        rate: float,
    ) -> Tensor:
        ctx.blocks, ctx.scale, ctx.rate, ctx.seed = blocks, scale, rate, fresh_seed() if rate else 0
        ctx.pieces = _pieces(blocks, q.shape[1])
        ctx.masks = [
            None if mask is None else mask.expand(block.count, q.shape[1], block.longest, block.longest).flatten(0, 1)
            for mask, block in zip(masks, blocks, strict=True)
        ]
        q_, k_, v_ = (_by_head(x, blocks) for x in (q, k, v))
        out, scratch = torch.empty_like(q_), _scratch(2, ctx.pieces, q_)
        for piece in ctx.pieces:
            weights, keep = _weights(ctx, piece, q_, k_, scratch)
            _product(weights if keep is None else weights.mul_(keep), piece.of(v_), piece.of(out), keep_scale(rate))
        ctx.save_for_backward(q_, k_, v_)
        return _by_token(out, torch.empty(q.shape, dtype=q.dtype), blocks)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        grad = _by_head(grads[0], ctx.blocks)
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        scratch, kept_scale = _scratch(3, ctx.pieces, grad), keep_scale(ctx.rate)
        for piece in ctx.pieces:
            weights, keep = _weights(ctx, piece, q, k, scratch)
            room, g = piece.square(scratch[2]), piece.of(grad)
            kept = weights if keep is None else torch.mul(weights, keep, out=room)
            _product(kept.transpose(1, 2), g, piece.of(dv), kept_scale)
            d_weights = _product(g, piece.of(v).transpose(1, 2), room, kept_scale)
            if keep is not None:
                d_weights.mul_(keep)
            d_scores = _softmax_backward(d_weights, weights, piece.square(scratch[0]))
            _product(d_scores, piece.of(k), piece.of(dq), ctx.scale)
            _product(d_scores.transpose(1, 2), piece.of(q), piece.of(dk), ctx.scale)
        like = grads[0]
        dq, dk, dv = (_by_token(x, torch.empty(like.shape, dtype=like.dtype), ctx.blocks) for x in (dq, dk, dv))
        return dq, dk, dv, None, None, None, None


def _pieces(blocks: tuple[Block, ...], heads: int) -> list[Piece]:
    """The work in pieces of at most `CACHED` weights, of one matrix at least."""
    pieces: list[Piece] = []
    start = 0
    for at, block in enumerate(blocks):
        matrices, length = block.count * heads, block.longest
        parts = -(-matrices // max(1, CACHED // length**2))
        step = -(-matrices // parts)
        for first in range(0, matrices, step):
            piece = Piece(len(pieces), at, slice(first, min(matrices, first + step)), start, length)
            pieces.append(piece)
            start += piece.count * length
    return pieces


def _scratch(number: int, pieces: list[Piece], like: Tensor) -> Tensor:
    """Buffers for the weights of a piece."""
    return like.new_empty(number, max(piece.count * piece.length**2 for piece in pieces))


def _by_head(x: Tensor, blocks: tuple[Block, ...]) -> Tensor:
    """(T, N, H) of any strides to (places of `blocks` * N, H) in fp32: each block lies as (n, N, L, H), its padding zero."""
    _, heads, width = x.shape
    places = sum(block.count * block.longest for block in blocks) * heads
    out = x.new_empty(places, width, dtype=torch.promote_types(x.dtype, torch.float32))
    if any(block.keep is not None for block in blocks):
        out.zero_()
    for by_head, by_token in zip(_runs(out, heads, blocks), _rows(x, blocks), strict=True):
        by_head.copy_(by_token)
    return out


def _by_token(x: Tensor, out: Tensor, blocks: tuple[Block, ...]) -> Tensor:
    """What `_by_head` did, undone into `out`, (T, N, H)."""
    for by_head, by_token in zip(_runs(x, out.shape[1], blocks), _rows(out, blocks), strict=True):
        by_token.copy_(by_head)
    out[sum(count * length for block in blocks for count, length in block.runs) :] = 0
    return out


def _runs(x: Tensor, heads: int, blocks: tuple[Block, ...]) -> Iterator[Tensor]:
    """(count, N, length, H) for each run of equal lengths in a tensor that lies by head."""
    start = 0
    for block in blocks:
        stop = start + block.count * heads * block.longest
        whole, first = x[start:stop].view(block.count, heads, block.longest, -1), 0
        for count, length in block.runs:
            yield whole[first : first + count, :, :length]
            first += count
        start = stop


def _rows(x: Tensor, blocks: tuple[Block, ...]) -> Iterator[Tensor]:
    """The same of a tensor that lies by token."""
    start = 0
    for count, length in (run for block in blocks for run in block.runs):
        stop = start + count * length
        yield x[start:stop].view(count, length, *x.shape[1:]).transpose(1, 2)
        start = stop


def _weights(ctx: Any, piece: Piece, q: Tensor, k: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor | None]:
    """Attention weights of a piece in the second scratch buffer, and their dropout mask in the first."""
    scores = _product(piece.of(q), piece.of(k).transpose(1, 2), piece.square(scratch[0]), ctx.scale)
    if (mask := ctx.masks[piece.block]) is not None:
        scores.add_(mask[piece.matrices])
    weights = _softmax(scores, piece.square(scratch[1]))
    return weights, draw_mask(scores, ctx.rate, ctx.seed + piece.number) if ctx.rate else None


def _product(a: Tensor, b: Tensor, out: Tensor, factor: float) -> Tensor:
    """factor * a @ b for each matrix, into `out`."""
    return torch.baddbmm(out, a, b, beta=0, alpha=factor, out=out)


def _softmax(scores: Tensor, out: Tensor) -> Tensor:
    """Softmax over the last dimension."""
    if scores.shape[-1] >= NARROW:
        return torch.softmax(scores, -1, out=out)
    torch.sub(scores, scores.amax(-1, keepdim=True), out=out).exp_()
    return out.div_(out.sum(-1, keepdim=True))


def _softmax_backward(grad: Tensor, weights: Tensor, out: Tensor) -> Tensor:
    """The gradient of the scores from that of the weights; `grad` is overwritten."""
    if grad.shape[-1] >= NARROW:
        return torch.ops.aten._softmax_backward_data.out(grad, weights, -1, weights.dtype, grad_input=out)
    grad.mul_(weights)
    return torch.addcmul(grad, weights, grad.sum(-1, keepdim=True), value=-1, out=out)
