"""How far a student is from its teacher: losses of distillation, each a sum over rows or tokens, in fp32.

Probabilities at a temperature (Hinton et al. 2015), vectors by cosine (Sanh et al. 2019, DistilBERT), and what tokens are to
each other by their queries, keys and values (Wang et al. 2021, MiniLMv2).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import Layout


def soft_loss(mine_nC: Tensor, theirs_nC: Tensor, temperature: float) -> Tensor:
    """The summed divergence of softmax(mine / t) from softmax(theirs / t), times t squared so that t leaves its size.

    A score of minus infinity in both is an answer that cannot be.
    """
    log_p, log_q = (F.log_softmax(x.float() / temperature, -1) for x in (mine_nC, theirs_nC))
    possible = theirs_nC > -torch.inf
    apart = torch.where(possible, log_q, 0.0) - torch.where(possible, log_p, 0.0)
    return (log_q.exp() * apart).sum() * temperature**2


def cosine_loss(mine_TD: Tensor, theirs_TD: Tensor) -> Tensor:
    """One minus the cosine between the student's and the teacher's vector, summed over tokens."""
    return (1 - F.cosine_similarity(mine_TD.float(), theirs_TD.float(), dim=-1)).sum()


def relation_loss(mine_T3D: Tensor, theirs_T3D: Tensor, layout: Layout, heads: int) -> Tensor:
    """How far the student's relations between tokens are from the teacher's, summed over tokens.

    Queries, keys and values lie side by side in (T, 3 D), D of either; each is cut into `heads` parts of its own width, and
    softmax(x x^T / sqrt(width)) of a part is what a token is to the others of its sequence. The divergences are averaged
    over heads and added for queries, keys and values.
    """
    total, start = mine_T3D.new_zeros((), dtype=torch.float32), 0
    for count, length in (run for block in layout.groups for run in block.runs):
        stop = start + count * length
        log_p, log_q = (_relations(x[start:stop], count, length, heads) for x in (mine_T3D, theirs_T3D))
        total = total + F.kl_div(log_p, log_q, reduction="sum", log_target=True)
        start = stop
    return total / heads


def _relations(x_T3D: Tensor, count: int, length: int, heads: int) -> Tensor:
    """(n, 3, heads, L, L) logarithms of what tokens are to each other, of n sequences of equal length."""
    x = x_T3D.float().view(count, length, 3, heads, -1).permute(0, 2, 3, 1, 4)
    return F.log_softmax(x @ x.transpose(-1, -2) / math.sqrt(x.shape[-1]), -1)
