"""Linear maps on the CPU by oneDNN's own operators, which torch's compiler uses and its front door does not.

`F.linear` first writes the bias to every row of the result and then adds the product to it: 0.37 ms where the product takes
0.21, at (448, 384) x (384, 1152) in bfloat16. Here the bias is part of the product; and a weight that will not change lies
as the product wants it, with the activation part of the product too.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS = {
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", "none"),
    "silu": ("swish", "none"),
}
"""Our names of activations, and oneDNN's: what can be part of a product."""
ROWS = 2048
"""Rows that a weight is packed for. Without a number oneDNN packs for one and again for each new one: 17 ms against 1.4."""


@functools.cache
def available(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN and the operators used here, and the CPU computes in `dtype`."""
    ops = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(ops, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return hasattr(ops, "_is_mkldnn_bf16_supported") and bool(ops._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def serves(x: Tensor) -> bool:
    """Whether a linear map of `x` goes through `Affine`: in bfloat16. In fp32 the front door's product is as fast."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16 and available(x.dtype)


class Affine(torch.autograd.Function):
    """y = x W^T + b: x (T, in), W (out, in), b (out,) -> (T, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (dy,) = ctx.saved_tensors, grads
        wanted = ctx.needs_input_grad
        return (
            dy @ weight if wanted[0] else None,
            dy.t() @ x if wanted[1] else None,
            dy.sum(0) if wanted[2] else None,
        )


class Frozen(nn.Module):
    """A linear map whose weight will not change, and the activation behind it: (T, in) -> (T, out), without gradients."""

    def __init__(self, linear: nn.Linear, activation: str | None = None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach().clone()  # the packed weight is a copy too
        self.activation = ("none", "none") if activation is None else ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return _product(x, self.packed, self.bias, *self.activation)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none", kind: str = "none") -> Tensor:
    y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], kind)
    assert isinstance(y, Tensor)
    return y
