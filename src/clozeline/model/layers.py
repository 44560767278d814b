"""Token-wise bricks: linear map, norm, embedding table, feed-forward.

Parameters are fp32 masters or a half-precision copy; every brick computes in the dtype of what it is given, so the dtype is
chosen once, where the tokens are embedded, and there is no autocast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from clozeline.model import onednn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
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
        bias: Tensor = self.bias
        if x.device.type != "cpu":  # which takes fp32 weights beside half-precision values as they are
            weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class Embedding(Unset, nn.Embedding):
    """A table of rows. No row is special: padding does not exist, so no index needs a zero gradient."""


class FeedForward(nn.Module):
    """Widen, activate, narrow: (T, D) -> (T, D) through (T, ffn_width)."""

    def __init__(self, width: int, ffn_width: int, activation: str) -> None:
        super().__init__()
        self.up = Linear(width, ffn_width)
        self.down = Linear(ffn_width, width)
        self.activation = activation
        self.activate = ACTIVATIONS[activation]

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down(self.activate(self.up(x_TD)))


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
