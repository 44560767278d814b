"""Attention kernels: three ways to compute the same thing over packed sequences.

    varlen   CUDA, half precision: torch.nn.attention.varlen reads the packed layout as it is.
    blocks   any device, dtype, window, bias and dropout: sequences of like length form a rectangle for
             scaled_dot_product_attention. The one place in the model where padding can exist.
    eager    one sequence at a time, by the formula. The reference in tests, and what shows attention probabilities.

Each takes q, k, v of shape (T, N, H), a `Layout` and `Scores`, and gives (T, N, H). `choose` picks one, or says why a
kernel asked for cannot serve; nothing falls back unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import Block, Layout
from clozeline.errors import InputError, nearest
from clozeline.model.block_attention import BlockAttention

SHORT = 32
"""Tokens below which torch's CPU attention kernel is slower than plain products: 3.1 ms against 1.7 at 13 tokens."""
SHORT_TRAINED = 256
"""The same in bfloat16 with a backward pass: 34 ms against 51 for 4,096 tokens in sequences of 128, 56 against 47 in 300."""

BANDED = 4
"""Windows that a sequence must be longer than for attention in a band to pay; a piece of the band reads this many."""

ScoreBias = Callable[[Tensor, Tensor], Tensor]
"""(q, k) of a block, each (n, N, L, H) -> what to add to its scores, broadcastable to (n, N, L, L)."""


@dataclass(frozen=True)
class Scores:
    """How scores become weights. scale: factor on q·k; dropout: rate on the weights; window: tokens seen on either side."""

    scale: float
    dropout: float = 0.0
    window: int | None = None
    bias: ScoreBias | None = None


def varlen(q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, layout: Layout, scores: Scores) -> Tensor:
    """Flash attention over the packed tokens themselves."""
    from torch.nn.attention.varlen import varlen_attn

    window = (-1, -1) if scores.window is None else (scores.window, scores.window)
    at, longest = layout.offsets, layout.longest
    out = varlen_attn(q_TNH, k_TNH, v_TNH, at, at, longest, longest, scale=scores.scale, window_size=window)
    assert isinstance(out, Tensor)
    return out


def blocks(q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, layout: Layout, scores: Scores) -> Tensor:
    """Attention over each block of like-long sequences; rectangles without padding wherever lengths are equal."""
    if scores.window is not None and scores.bias is None and layout.longest > BANDED * scores.window:
        return _band(q_TNH, k_TNH, v_TNH, layout, scores, scores.window)
    slow = SHORT_TRAINED if q_TNH.requires_grad and q_TNH.dtype == torch.bfloat16 else SHORT
    ours = q_TNH.device.type == "cpu" and scores.bias is None and (scores.dropout or layout.longest < slow)
    if ours:  # no SDPA here that is as fast, see the class
        masks = tuple(_mask(block, q_TNH, k_TNH, scores) for block in layout.groups)
        how = (layout.groups, masks, scores.scale, scores.dropout)
        return BlockAttention.apply(q_TNH, k_TNH, v_TNH, *how)  # type: ignore[no-untyped-call]
    plan, rows = layout.plan, len(q_TNH)
    q_TNH, k_TNH, v_TNH = (x[: layout.tokens] if plan.gather is None else x[plan.gather] for x in (q_TNH, k_TNH, v_TNH))
    sizes = [block.count * block.longest for block in plan.blocks]
    outs = []
    # split and not slices: its gradient is one concatenation, theirs a sum of tables that are mostly zeros
    for block, *parts in zip(plan.blocks, *(x.split(sizes) for x in (q_TNH, k_TNH, v_TNH)), strict=True):
        q, k, v = (x.view(block.count, block.longest, *x.shape[1:]).transpose(1, 2) for x in parts)
        mask = _mask(block, q, k, scores)
        out = F.scaled_dot_product_attention(q, k, v, mask, scores.dropout, scale=scores.scale)
        outs.append(out.transpose(1, 2).flatten(0, 1))
    out_TNH = outs[0] if len(outs) == 1 else torch.cat(outs)
    return _padded(out_TNH if plan.restore is None else out_TNH[plan.restore], rows)


def _band(q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, layout: Layout, scores: Scores, window: int) -> Tensor:
    """Attention within a window, over pieces of two windows of tokens that see one more on either side.

    The pieces go over the whole row of packed tokens, whatever the sequences; a mask keeps them apart. Work and memory grow
    with T and not with L squared.
    """
    rows, size = len(q_TNH), max(1, 2 * window)
    tail = -layout.tokens % size
    q, k, v = (x[: layout.tokens] for x in (q_TNH, k_TNH, v_TNH))
    mask = layout.once(("band", window, q.dtype), lambda: _band_mask(layout, size, window, q.dtype))
    pieces = F.pad(q, (0, 0, 0, 0, 0, tail)).unflatten(0, (-1, size)).transpose(1, 2)
    around = (0, 0, 0, 0, window, window + tail)
    seen_k, seen_v = (F.pad(x, around).unfold(0, size + 2 * window, size).transpose(2, 3) for x in (k, v))
    out = F.scaled_dot_product_attention(pieces, seen_k, seen_v, mask, scores.dropout, scale=scores.scale)
    return _padded(out.transpose(1, 2).flatten(0, 1)[: layout.tokens], rows)


def _band_mask(layout: Layout, size: int, window: int, dtype: torch.dtype) -> Tensor:
    """(pieces, 1, size, size + 2 windows), what to add to scores: 0 where a token sees another, minus infinity elsewhere."""
    tail = -layout.tokens % size
    owners = F.pad(layout.owners, (window, window + tail), value=-1)
    theirs = owners.unfold(0, size + 2 * window, size)
    own = theirs[:, window : window + size]
    at = torch.arange(size + 2 * window, device=owners.device) - window
    apart = at - at[window : window + size, None]
    # what stands behind the last token sees itself: a row that saw nothing would be NaN
    seen = (own[:, :, None] == theirs[:, None, :]) & (apart.abs() <= window)
    return torch.zeros(seen.shape, dtype=dtype, device=owners.device).masked_fill_(~seen, -torch.inf)[:, None]


def _padded(x_TNH: Tensor, rows: int) -> Tensor:
    """With zeros for rows that belong to no sequence."""
    return x_TNH if len(x_TNH) == rows else F.pad(x_TNH, (0, 0, 0, 0, 0, rows - len(x_TNH)))


def _mask(block: Block, q: Tensor, k: Tensor, scores: Scores) -> Tensor | None:
    """What to add to the scores of a block, (n | 1, N | 1, L, L), or None when every token sees every token."""
    seen = None if block.keep is None else block.keep[:, None, None, :]
    if scores.window is not None and scores.window < block.longest - 1:
        near = _near(block.longest, scores.window, q.device)
        # a token always sees itself, also where it is padding: a row that saw nothing would be NaN and spoil the gradients
        seen = near if seen is None else seen & near | _near(block.longest, 0, q.device)
    if seen is None and scores.bias is None:
        return None
    add = torch.zeros((), dtype=q.dtype, device=q.device) if scores.bias is None else scores.bias(q, k)
    return add if seen is None else torch.where(seen, add, -torch.inf)


def _near(length: int, window: int, device: torch.device) -> Tensor:
    """(L, L), True where two positions are at most `window` apart."""
    at = torch.arange(length, device=device)
    return (at[:, None] - at[None, :]).abs() <= window


def eager(q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, layout: Layout, scores: Scores) -> Tensor:
    """Attention by the formula, one sequence after the other."""
    return _padded(torch.cat([out for out, _ in eager_weights(q_TNH, k_TNH, v_TNH, layout, scores)]), len(q_TNH))


def eager_weights(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, layout: Layout, scores: Scores
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `eager` computes, with the weights that show how the model reads: (L, N, H) and (N, L, L) for each sequence."""
    for q, k, v in zip(*(layout.split(x[: layout.tokens]) for x in (q_TNH, k_TNH, v_TNH)), strict=True):
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        raw = q @ k.transpose(1, 2) * scores.scale
        if scores.bias is not None:
            raw = (raw[None] + scores.bias(q[None], k[None]))[0]
        if scores.window is not None:
            raw = raw.masked_fill(~_near(q.shape[1], scores.window, q.device), -torch.inf)
        weights = torch.softmax(raw, -1)
        yield (F.dropout(weights, scores.dropout) @ v).transpose(0, 1), weights


Kernel = Callable[[Tensor, Tensor, Tensor, Layout, Scores], Tensor]
KERNELS: dict[str, Kernel] = {"varlen": varlen, "blocks": blocks, "eager": eager}


def refusal(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    dropout: float = 0.0,
    bias: bool = False,
    head_width: int = 64,
) -> str | None:
    """Why kernel `name` cannot serve such a call, or None when it can. Only `varlen` ever refuses."""
    if name not in KERNELS:
        raise InputError(f"There is no attention kernel {name!r}: {nearest(name, ['auto', *KERNELS])}")
    if name != "varlen":
        return None
    if device.type != "cuda":
        return f"varlen needs a CUDA device and this model is on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"varlen computes in bfloat16 or float16, not {str(dtype).removeprefix('torch.')}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "varlen needs a GPU of compute capability 8.0 (Ampere) or newer"
    if bias:
        return "varlen takes no score bias, and this position scheme has one"
    if head_width % 8 or head_width > 256:
        return f"varlen takes heads of a multiple of 8 values up to 256, and these have {head_width}"
    return (
        f"varlen has no dropout on attention weights, and the configuration asks for {dropout:g}" if dropout else None
    )


def choose(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    dropout: float = 0.0,
    bias: bool = False,
    head_width: int = 64,
) -> Kernel:
    """The kernel for a call. "auto" is the fastest that serves: varlen, else blocks.

    Raises:
        InputError: the kernel asked for by name cannot serve the call; the message says why.
    """
    if name == "auto":
        refused = refusal("varlen", device, dtype, dropout=dropout, bias=bias, head_width=head_width)
        return blocks if refused else varlen
    if why := refusal(name, device, dtype, dropout=dropout, bias=bias, head_width=head_width):
        raise InputError(f"{why}. Use kernel='auto' or 'blocks'.")
    return KERNELS[name]
