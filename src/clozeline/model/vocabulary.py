"""The cross-entropy over a vocabulary without its logits: some rows at a time, in the memory that the products need anyway.

Written out, (M, V) logits are turned to fp32, to their logarithms, to gradients and back to half precision, each a pass
over more memory than a cache holds. Here a block of rows goes through all of it while it is in cache, and what is left in
place of the logits is their gradient, ready for the two products of the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 2**20
"""Logits that are worked on at once, 4 MiB in fp32."""


class Space:
    """Memory that the passes of a training share: a fresh (M, V) array costs more, page by page, than what is done in it."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}

    def of(self, name: str, rows: int, like: Tensor) -> Tensor:
        """(rows, columns of `like`), with any values."""
        found = self.held.get(name)
        if found is None or len(found) < rows or found.dtype != like.dtype or found.shape[1] != like.shape[1]:
            with torch.inference_mode(False):  # validation and training use the same
                found = self.held[name] = torch.empty(
                    rows + rows // 8, like.shape[1], dtype=like.dtype, device=like.device
                )
        return found[:rows]

    def single(self, x: Tensor) -> Tensor:
        """The same numbers in fp32; of fp32 themselves."""
        return x if x.dtype == torch.float32 else self.of("single", len(x), x[:1].float()).copy_(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> Space:
        return Space()


class VocabularyLoss(torch.autograd.Function):
    """(M, D) states, (V, D) table, (V,) bias, (M,) targets -> summed cross-entropy and right answers, both fp32 scalars.

    Products are in the dtype of the states, sums and exponentials in fp32. A target below 0 says nothing. With a `space`,
    one backward pass must follow before the next forward pass, and it adds the table's gradient to `table.grad` itself.
    """

    @staticmethod
    def forward(
        ctx: Any, x_MD: Tensor, table_VD: Tensor, bias_V: Tensor, targets_M: Tensor, train: bool, space: Space | None
    ) -> tuple[Tensor, Tensor]:
        rows = len(x_MD)
        if space is None:
            weight = table_VD.to(x_MD.dtype)
            logits_MV = x_MD @ weight.T
        else:
            weight = table_VD
            if table_VD.dtype != x_MD.dtype:
                weight = space.of("table", len(table_VD), x_MD).copy_(table_VD)
            logits_MV = space.of("logits", rows, weight.T[:1])
            torch.mm(x_MD, weight.T, out=logits_MV)
        loss, right = x_MD.new_zeros((), dtype=torch.float32), x_MD.new_zeros((), dtype=torch.float32)
        summed_V = torch.zeros(len(table_VD), device=x_MD.device)
        for some, targets in zip(_blocks(logits_MV), _blocks(targets_M, logits_MV.shape[1]), strict=True):
            counted = targets >= 0
            at = targets.clamp(min=0)[:, None]
            block = some.float() if space is None else space.single(some)
            block.add_(bias_V)  # of fp32 the logits themselves, which are overwritten
            wanted = block.gather(1, at)
            most = block.amax(1, keepdim=True)
            total = block.sub_(most).exp_().sum(1, keepdim=True)
            loss += ((total.log() + most - wanted)[:, 0] * counted).sum()
            right += ((wanted >= most)[:, 0] & counted).sum()
            if train:
                block.div_(total).scatter_add_(1, at, torch.full_like(wanted, -1.0)).mul_(counted[:, None])
                summed_V += block.sum(0)
                if some.data_ptr() != block.data_ptr():
                    some.copy_(block)
        ctx.held, ctx.space, ctx.table, ctx.dtype = (x_MD, weight, logits_MV, summed_V), space, table_VD, bias_V.dtype
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (x_MD, weight, gradient_MV, summed_V), space, table = ctx.held, ctx.space, ctx.table
        x_grad, bias = (gradient_MV @ weight).mul_(scale), (summed_V * scale).to(ctx.dtype)
        if space is None:
            return x_grad, (gradient_MV.T @ x_MD).to(table.dtype).mul_(scale), bias, None, None, None
        found = space.of("gradient", len(table), x_MD)
        torch.mm(gradient_MV.T, x_MD, out=found)
        if table.requires_grad:
            table.grad = torch.zeros_like(table) if table.grad is None else table.grad
            for into, part in zip(_blocks(table.grad), _blocks(found), strict=True):
                into.add_(space.single(part), alpha=scale.item())
        return x_grad, None, bias, None, None, None


class TaughtVocabularyLoss(torch.autograd.Function):
    """The same, beside the divergence of the probabilities from a teacher's at a temperature, whose (M, V) logits are given.

    (M, D), (V, D), (V,), (M,), (M, V), t -> four fp32 scalars: summed cross-entropy, right answers, t^2 times the summed
    KL(teacher || student) of softmax(logits / t) (Hinton et al. 2015), and rows where both find the same word likeliest.
    """

    @staticmethod
    def forward(
        ctx: Any, x_MD: Tensor, table_VD: Tensor, bias_V: Tensor, targets_M: Tensor, theirs_MV: Tensor, t: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weight = table_VD.to(x_MD.dtype)
        logits_MV = x_MD @ weight.T
        words_MV, taught_MV = torch.empty_like(logits_MV), torch.empty_like(logits_MV)  # the gradients of both
        loss, right, soft, agreed = (x_MD.new_zeros((), dtype=torch.float32) for _ in range(4))
        rows = zip(*map(_blocks, (logits_MV, theirs_MV, words_MV, taught_MV)), strict=True)
        for targets, (some, theirs, words, taught) in zip(_blocks(targets_M, len(bias_V)), rows, strict=True):
            counted = targets >= 0
            at = targets.clamp(min=0)[:, None]
            mine = some.float() + bias_V.float()
            log_p = torch.log_softmax(mine, 1)
            loss -= (log_p.gather(1, at)[:, 0] * counted).sum()
            best = mine.argmax(1)
            right += ((best == at[:, 0]) & counted).sum()
            agreed += (best == theirs.argmax(1)).sum()
            words.copy_(log_p.exp_().scatter_add_(1, at, torch.full_like(at, -1.0, dtype=log_p.dtype)))
            words.mul_(counted[:, None])
            log_p, log_q = torch.log_softmax(mine / t, 1), torch.log_softmax(theirs.float() / t, 1)
            q = log_q.exp()
            soft += (q * (log_q - log_p)).sum() * t**2
            taught.copy_(log_p.exp_().sub_(q).mul_(t))
        ctx.save_for_backward(x_MD, weight, words_MV, taught_MV)
        ctx.dtypes = table_VD.dtype, bias_V.dtype
        ctx.mark_non_differentiable(right, agreed)
        return loss, right, soft, agreed

    @staticmethod
    def backward(ctx: Any, words: Tensor, _: Tensor, taught: Tensor, __: Tensor) -> tuple[Tensor | None, ...]:
        x_MD, weight, words_MV, taught_MV = ctx.saved_tensors
        gradient_MV = words_MV * words.to(words_MV.dtype) + taught_MV * taught.to(taught_MV.dtype)
        table, bias = (gradient_MV.T @ x_MD).to(ctx.dtypes[0]), gradient_MV.float().sum(0).to(ctx.dtypes[1])
        return gradient_MV @ weight, table, bias, None, None, None


def _blocks(x: Tensor, width: int | None = None) -> tuple[Tensor, ...]:
    """Some rows at a time."""
    return x.split(max(1, BLOCK // (width or x.shape[1])))
