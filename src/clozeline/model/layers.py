"""Bricks beside attention: linear map, norm, embedding table, feed-forward; and the one that sees a token's neighbours.

Parameters are fp32 masters or a half-precision copy; every brick computes in the dtype of what it is given, so the dtype is
chosen once, where the tokens are embedded, and there is no autocast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeline.batch import Layout
from clozeline.model import onednn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Unset:
    """Leaves weights as they come from memory: `encoder.initialise` or a checkpoint sets them.

    torch's own initialisation would take longer than reading a checkpoint.
    """

    def reset_parameters(self) -> None:
        """Nothing: see the class."""


class Linear(Unset, nn.Linear):
    """y = x W^T + b in the dtype of x. Weight (out, in), bias (out,)."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        if bias is not None and onednn.serves(x):
            return onednn.Affine.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return F.linear(x, weight, bias)


class LayerNorm(Unset, nn.LayerNorm):
    """Normalise the last dimension (Ba et al. 2016), in the dtype of x with fp32 statistics."""

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        # a CPU takes fp32 weights beside half-precision values as they are, if it is given both
        if x.device.type != "cpu" or bias is None:
            weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class Embedding(Unset, nn.Embedding):
    """A table of rows. No row is special: padding does not exist, so no index needs a zero gradient."""


class FeedForward(nn.Module):
    """Widen, activate, narrow: (T, D) -> (T, D) through (T, ffn_width)."""

    def __init__(self, width: int, ffn_width: int, activation: str, *, bias: bool = True) -> None:
        super().__init__()
        self.up = Linear(width, ffn_width, bias=bias)
        self.down = Linear(ffn_width, width, bias=bias)
        self.activation = activation
        self.activate = ACTIVATIONS[activation]

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down(self.activate(self.up(x_TD)))


class GatedFeedForward(nn.Module):
    """Widen twice, activate one half and multiply by the other, narrow (Shazeer 2020): (T, D) -> (T, D)."""

    def __init__(self, width: int, ffn_width: int, activation: str, *, bias: bool = True) -> None:
        super().__init__()
        self.up = Linear(width, 2 * ffn_width, bias=bias)
        self.down = Linear(ffn_width, width, bias=bias)
        self.activate = ACTIVATIONS[activation]

    def forward(self, x_TD: Tensor) -> Tensor:
        value, gate = self.up(x_TD).chunk(2, -1)
        return self.down(self.activate(value) * gate)


class Convolve(nn.Module):
    """A convolution along each sequence, zeros beyond its ends: (T, D) -> (T, D). Spare rows come back as zeros."""

    def __init__(self, width: int, size: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width // groups, size))
        self.bias = nn.Parameter(torch.zeros(width))
        self.groups = groups
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as torch begins a convolution

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        around = self.weight.shape[2] // 2
        # all sequences in a row with zeros between them, so that none sees another
        at = torch.arange(layout.tokens, device=x_TD.device) + around * layout.owners
        row_TD = x_TD.new_zeros(layout.tokens + around * (len(layout.lengths) - 1), x_TD.shape[1])
        row_TD = row_TD.index_copy(0, at, x_TD[: layout.tokens])
        weight, bias = self.weight.to(x_TD.dtype), self.bias.to(x_TD.dtype)
        out_TD = F.conv1d(row_TD.T[None], weight, bias, padding=around, groups=self.groups)[0].T[at]
        return F.pad(out_TD, (0, 0, 0, len(x_TD) - layout.tokens))


def freeze(network: nn.Module) -> None:
    """Swap linear maps, in place, for ones with packed weights and the activation inside: see `onednn.Frozen`."""
    for part in list(network.modules()):
        if isinstance(part, FeedForward) and part.activation in onednn.ACTIVATIONS:
            part.up, part.activate = onednn.Frozen(part.up, part.activation), _same  # type: ignore[assignment]
        for name, child in list(part.named_children()):
            if isinstance(child, Linear):
                setattr(part, name, onednn.Frozen(child))


def _same(x: Tensor) -> Tensor:
    return x
