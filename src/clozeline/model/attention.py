"""Self-attention over packed sequences: one fused projection, a kernel, and the projection back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clozeline.batch import Layout
from clozeline.config import EncoderConfig
from clozeline.model import kernels
from clozeline.model.layers import Linear
from clozeline.model.positions import Positions


def attend(
    q_TNH: Tensor,
    k_TNH: Tensor,
    v_TNH: Tensor,
    layout: Layout,
    *,
    window: int | None = None,
    bias: kernels.ScoreBias | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017) within each sequence of the layout, (T, N, H) -> (T, N, H).

    Rows beyond the layout's tokens belong to no sequence and come back as zeros.

    Args:
        window: a token sees at most this many tokens on either side; None sees the whole sequence.
        bias: added to the scores, see `kernels.ScoreBias`.
        dropout: rate on the attention weights.
        scale: factor on the scores; None is 1 / sqrt(H).
        kernel: "auto" or a name in `kernels.KERNELS`.

    Raises:
        InputError: the kernel asked for cannot serve this call; the message says why.
    """
    scale = 1 / math.sqrt(q_TNH.shape[-1]) if scale is None else scale
    width = q_TNH.shape[-1]
    run = kernels.choose(kernel, q_TNH.device, q_TNH.dtype, dropout=dropout, bias=bias is not None, head_width=width)
    return run(q_TNH, k_TNH, v_TNH, layout, kernels.Scores(scale, dropout, window, bias))


class Attention(nn.Module):
    """Multi-head self-attention, (T, D) -> (T, D). `kernel` may be set at any time: "auto", "varlen", "blocks", "eager"."""

    def __init__(self, config: EncoderConfig, positions: Positions, window: int | None, heads: int) -> None:
        """window: tokens seen on either side; None sees the whole sequence. heads: how many there are, after pruning."""
        super().__init__()
        width = heads * config.head_width
        self.qkv = Linear(config.width, 3 * width, bias=config.block.bias)
        self.out = Linear(width, config.width, bias=config.block.bias)
        self.heads = heads
        self.dropout = config.attention_dropout
        self.window = window
        self.scale = 1 / math.sqrt(config.head_width * positions.products)
        self.kernel = "auto"
        self.positions = (positions,)  # in a tuple, because its parameters belong to the encoder and not to this layer

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        how: dict[str, Any] = dict(window=self.window, bias=self._bias(x_TD, layout), scale=self.scale)
        y_TNH = attend(*self._turned(x_TD, layout), layout, dropout=dropout, kernel=self.kernel, **how)
        return self.out(y_TNH.flatten(1))

    def weights(self, x_TD: Tensor, layout: Layout) -> Iterator[tuple[Tensor, Tensor]]:
        """How much each token reads of each other, (N, L, L) for each sequence, and what the heads give, (L, N, H).

        By the formula and in fp32, one sequence at a time, whatever kernel serves in whatever precision.
        """
        scores = kernels.Scores(self.scale, window=self.window, bias=self._bias(x_TD, layout, fp32=True))
        q_TNH, k_TNH, v_TNH = (part.float() for part in self._turned(x_TD, layout))
        for out_LNH, weights_NLL in kernels.eager_weights(q_TNH, k_TNH, v_TNH, layout, scores):
            yield weights_NLL, out_LNH

    @torch.no_grad()
    def keep(self, heads: Sequence[int]) -> None:
        """Leave only these heads, counted from 0, in place: the others' rows and columns go."""
        width = self.out.in_features
        rows = torch.arange(width).view(self.heads, -1)[list(heads)].flatten()
        all_of = torch.cat([rows, rows + width, rows + 2 * width])
        for part, name, kept, dim in (
            (self.qkv, "weight", all_of, 0),
            (self.qkv, "bias", all_of, 0),
            (self.out, "weight", rows, 1),
        ):
            if (old := getattr(part, name)) is not None:
                setattr(part, name, nn.Parameter(old.index_select(dim, kept.to(old.device)), old.requires_grad))
        self.heads, self.qkv.out_features, self.out.in_features = len(heads), len(all_of), len(rows)

    def _turned(self, x_TD: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values with their positions turned in."""
        q_TNH, k_TNH, v_TNH = self._projected(x_TD)
        return *self.positions[0].turn(q_TNH, k_TNH, layout, local=self.window is not None), v_TNH

    def _bias(self, x_TD: Tensor, layout: Layout, *, fp32: bool = False) -> kernels.ScoreBias | None:
        """What the position scheme adds to the scores. fp32: whatever the layer computes in."""

        def project(rows_RD: Tensor) -> tuple[Tensor, Tensor]:
            q_RNH, k_RNH, _ = self._projected(rows_RD.to(x_TD.dtype))
            return (q_RNH.float(), k_RNH.float()) if fp32 else (q_RNH, k_RNH)

        return self.positions[0].bias(project, layout)

    def _projected(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (T, N, H)."""
        q_TNH, k_TNH, v_TNH = self.qkv(x_TD).view(len(x_TD), 3, self.heads, -1).unbind(1)
        return q_TNH, k_TNH, v_TNH
