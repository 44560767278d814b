"""AdamW (Loshchilov and Hutter 2019) as BERT is trained with it, and the learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clozeline.model.layers import LayerNorm
from clozeline.train.settings import Settings


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices and tables decay, norms and biases do not."""
    norms = {id(part) for module in network.modules() if isinstance(module, LayerNorm) for part in module.parameters()}
    plain = [part for name, part in network.named_parameters() if id(part) in norms or name.endswith("bias")]
    exempt = {id(part) for part in plain}
    decayed = [part for part in network.parameters() if id(part) not in exempt]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def adamw(network: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW with betas 0.9 and 0.999, eps 1e-8, in one fused pass over memory."""
    groups = parameter_groups(network, settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)


def rate(settings: Settings, step: int, total: int) -> float:
    """The learning rate of step number `step` (from 0) of `total`."""
    warm = math.ceil(settings.warmup * total)
    if step < warm:
        return settings.learning_rate * step / warm
    done = (step - warm) / max(1, total - warm)
    factor = {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[settings.schedule]
    return settings.learning_rate * factor


def norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, a scalar. On a CPU as dot products, in half the time of `vector_norm`."""
    if gradients[0].device.type != "cpu":
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    flat = [gradient.reshape(-1) for gradient in gradients]
    return torch.stack([torch.dot(gradient, gradient) for gradient in flat]).sum().sqrt()
