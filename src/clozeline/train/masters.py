"""Weights in fp32, and a twin with half-precision copies that computes: gradients go to the one, new values to the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clozeline.train import optim
from clozeline.train.distributed import Group

Twin = TypeVar("Twin", bound=nn.Module)


LARGE = 2**20
"""Numbers in a gradient that keeps its memory."""


class Collect:
    """Moves a half-precision gradient to its master as soon as it is there, while it is in cache, into a buffer that stays.

    Knows nothing of the training: hooks that did would keep it alive for ever.
    """

    adding = False
    """Whether the batch has given gradients before, which these are added to."""

    def __call__(self, master: nn.Parameter, copy: Tensor) -> None:
        assert copy.grad is not None and master.grad is not None
        if self.adding:
            master.grad.add_(copy.grad)
        else:
            master.grad.copy_(copy.grad)
        copy.grad = None


class Masters(Generic[Twin]):
    """The parameters of `network` and those of its `twin`: the same ones, but for copies in half precision.

    `collect.adding` is False in a step's first backward pass and True in the others. What `frozen` names is not trained.
    """

    scale = 1.0
    """What the loss is multiplied by before a backward pass, so that gradients end as sums over the processes."""

    def __init__(
        self, network: nn.Module, twin: Twin, device: torch.device, group: Group, frozen: Collection[str] = ()
    ) -> None:
        self.network, self.twin, self.device, self.group = network, twin, device, group
        _hold(twin, frozen)
        couples = zip(network.named_parameters(), twin.parameters(), strict=True)
        self.couples = [(master, copy) for (name, master), copy in couples if master is not copy and name not in frozen]
        self.collect = Collect()
        for master, copy in self.couples:
            master.grad = torch.zeros_like(master)
            copy.register_post_accumulate_grad_hook(functools.partial(self.collect, master))

    def sum_gradients(self, parts: Sequence[nn.Parameter], any_mine: bool) -> None:
        """Make every gradient the sum over all processes; one that had no examples of the batch adds nothing."""
        if self.group.size == 1:
            return
        having = torch.tensor([float(part.grad is not None) for part in parts], device=self.device)
        self.group.add([having])  # what no loss reads has no gradient in any of them, and must have none
        used = [part for part, count in zip(parts, having.tolist(), strict=True) if count]
        for part in used:
            if part.grad is None:
                part.grad = torch.zeros_like(part)
            elif not any_mine:  # a buffer, with what the step before left in it
                part.grad.zero_()
        self.group.add([part.grad for part in used if part.grad is not None])

    @torch.no_grad()
    def publish(self) -> None:
        """Give the twin its matrices as the masters have them now, and clear the gradients that are not in buffers."""
        for master, copy in self.couples:
            copy.copy_(master)
        kept = {id(master) for master, _ in self.couples}
        for parameter in self.network.parameters():
            if id(parameter) not in kept and parameter.grad is not None:
                if parameter.numel() < LARGE:
                    parameter.grad = None
                else:  # a fresh one would cost more than clearing this one
                    parameter.grad.zero_()

    def norm(self, gradients: list[Tensor]) -> float:
        """The norm of all gradients together."""
        return optim.norm(gradients).item()

    @torch.no_grad()
    def change(self, parameter: Tensor, how: Callable[[Tensor], Tensor]) -> None:
        """Give a parameter other values, made of those that it has."""
        parameter.copy_(how(parameter))

    def whole(self) -> nn.Module:
        """The network with all of its parameters, on the first process."""
        return self.network

    def state(self, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
        """The weights and the optimisers' state, to be saved."""
        return {"network": self.network.state_dict(), "optimizers": [each.state_dict() for each in optimizers]}

    def load_state(self, state: dict[str, Any], optimizers: Sequence[Optimizer]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.publish()
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)


def _hold(twin: nn.Module, names: Collection[str]) -> None:
    """Freeze parameters of the twin, so that autograd records nothing where nothing is trained.

    They become parameters of its own over the same memory, so that the masters stay as they are.
    """
    for name in names:
        module, last = twin.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        setattr(module, last, nn.Parameter(getattr(module, last).detach(), requires_grad=False))
