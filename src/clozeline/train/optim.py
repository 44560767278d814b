"""AdamW (Loshchilov and Hutter 2019) as BERT is trained with it: what it trains, at which rates, and the schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clozeline.errors import InputError
from clozeline.model.encoder import Encoder
from clozeline.model.heads import Network
from clozeline.model.layers import LayerNorm, Linear
from clozeline.train.pretraining_settings import PretrainSettings
from clozeline.train.settings import Settings

BETAS = (0.9, 0.999)
EPS = 1e-8


def frozen(network: Network, lower: int) -> set[str]:
    """Names of the parameters that stay as they are: those without `requires_grad`, and `lower` layers and what is below.

    Raises:
        InputError: the model has fewer layers, trained and frozen layers share weights, or nothing is left to train.
    """
    encoder = network.encoder
    order = encoder.order
    if lower > len(order):
        raise InputError(f"freeze is {lower}; the model has {len(order)} layers.")
    below: list[nn.Module] = []
    if lower:
        if order[lower - 1] in order[lower:]:
            ends = [str(at) for at in range(1, len(order) + 1) if order[at - 1] not in order[at:]]
            raise InputError(
                f"freeze is {lower}; layers of this model share their weights, so that it can be {' or '.join(ends)} only."
            )
        below = [encoder.embedding, *list(encoder.layers)[: order[lower - 1] + 1]]
    held = {id(part) for module in below for part in module.parameters()}
    named = dict(network.named_parameters())
    names = {name for name, part in named.items() if id(part) in held or not part.requires_grad}
    if len(names) == len(named):
        raise InputError(
            "Nothing is left to train: every parameter is frozen. Freeze fewer layers, or set requires_grad to True."
        )
    return names


def steps_down(network: Network) -> dict[int, int]:
    """How far below the head each parameter of the encoder is, by id: 1 in the top layer, most in the embeddings."""
    encoder = network.encoder
    downwards: list[nn.Module] = [*reversed(encoder.layers), encoder.embedding]
    return {id(part): steps for steps, module in enumerate(downwards, 1) for part in module.parameters()}


def parameter_groups(network: Network, settings: Settings) -> list[dict[str, object]]:
    """What is trained, by weight decay (matrices and tables decay, norms and biases do not) and learning rate.

    share: of the learning rate, as `settings.layer_decay` has it; decay: the weight decay; `set_rates` reads both.
    """
    norms = {id(part) for module in network.modules() if isinstance(module, LayerNorm) for part in module.parameters()}
    held, down = frozen(network, settings.freeze), steps_down(network)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, part in network.named_parameters():
        if name not in held:
            plain = id(part) in norms or name.endswith("bias")
            groups.setdefault((plain, settings.layer_decay ** down.get(id(part), 0)), []).append(part)
    decays = {False: settings.weight_decay, True: 0.0}
    return [
        {"params": groups[plain, share], "weight_decay": decays[plain], "decay": decays[plain], "share": share}
        for plain, share in sorted(groups)
    ]


def adamw(network: Network, settings: Settings) -> torch.optim.AdamW:
    """AdamW with betas 0.9 and 0.999, eps 1e-8, in one fused pass over memory."""
    groups = parameter_groups(network, settings)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS, eps=EPS, fused=True)


def set_rates(optimizer: torch.optim.AdamW, learning_rate: float, step: int, *, bias_correction: bool) -> None:
    """Give each group its rate in step number `step`, from 1.

    Torch's AdamW divides its moments m and v by a = 1 - b1^t and c = 1 - b2^t:
        w <- w - lr wd w - lr (m / a) / (sqrt(v / c) + eps)
    Without the correction it is m / (sqrt(v) + eps). That is what torch gives for lr a / sqrt(c) and eps / sqrt(c), and
    wd sqrt(c) / a keeps lr wd what it was.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["share"]
        if not bias_correction:
            first, second = (1 - beta**step for beta in BETAS)
            root = math.sqrt(second)
            group["lr"] *= first / root
            group["eps"] = EPS / root
            group["weight_decay"] = group["decay"] * root / first


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


def pretraining_optimizers(network: nn.Module, settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices of the layers beside it; each group keeps its "highest" rate.

    Muon (Jordan et al. 2024) takes the momentum's nearest orthogonal matrix as the step, here scaled to the size of AdamW's
    (Liu et al. 2025). The stacked query, key and value map is one matrix to it.
    """
    norms = {id(part) for module in network.modules() if isinstance(module, LayerNorm) for part in module.parameters()}
    inner = {
        id(part.weight)
        for module in network.modules()
        if isinstance(module, Encoder)
        for part in module.layers.modules()
        if isinstance(part, Linear)
    }
    muon, decayed, plain = [], [], []
    for name, part in ((name, part) for name, part in network.named_parameters() if part.requires_grad):
        if settings.optimizer == "muon" and id(part) in inner:
            muon.append(part)
        elif id(part) in norms or name.endswith("bias"):
            plain.append(part)
        else:
            decayed.append(part)
    rate, decay = settings.learning_rate, settings.weight_decay
    groups = [
        {"params": decayed, "weight_decay": decay, "highest": rate},
        {"params": plain, "weight_decay": 0.0, "highest": rate},
    ]
    groups = [group for group in groups if group["params"]]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=rate, betas=(BETAS[0], settings.beta2), eps=settings.eps, fused=True)
    ]
    if muon:
        group = {"params": muon, "highest": settings.muon_rate}
        found.append(torch.optim.Muon([group], settings.muon_rate, decay, adjust_lr_fn="match_rms_adamw"))
    return found
