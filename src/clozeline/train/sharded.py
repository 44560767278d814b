"""Weights, gradients and optimiser state divided over the processes, for models too large for one GPU: torch's FSDP2."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from clozeline.errors import InputError
from clozeline.model.encoder import Encoder
from clozeline.train.distributed import Group
from clozeline.train.masters import Collect, Masters

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
GIVEN = StateDictOptions(full_state_dict=True)


class Sharded(Masters[nn.Module]):
    """The same as `Masters`, but each process holds a part of every parameter, and gathers a layer when it computes it.

    Raises:
        InputError: there is one process only, so that there is nothing to divide over.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, device: torch.device, group: Group) -> None:
        if group.size == 1:
            raise InputError("sharded divides the model over processes, and this is one alone; start it with torchrun.")
        self.network, self.twin, self.device, self.group = network, network, device, group
        self.couples, self.collect, self.scale = [], Collect(), float(group.size)  # FSDP averages over processes
        self.spare = copy.deepcopy(network) if group.first else network
        mesh = init_device_mesh(device.type, (group.size,))
        policy = MixedPrecisionPolicy(None if dtype == torch.float32 else dtype, torch.float32)
        for part in network.modules():
            if isinstance(part, Encoder):
                part.compute_dtype = dtype
                for layer in part.layers:
                    fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(network, mesh=mesh, mp_policy=policy)

    def sum_gradients(self, parts: Sequence[nn.Parameter], any_mine: bool) -> None:
        """Nothing: the backward pass has."""

    def publish(self) -> None:
        """Clear the gradients."""
        self.network.zero_grad()

    def norm(self, gradients: list[Tensor]) -> float:
        total = torch.nn.utils.get_total_norm(gradients)
        return (total.full_tensor() if hasattr(total, "full_tensor") else total).item()

    @torch.no_grad()
    def change(self, parameter: Tensor, how: Callable[[Tensor], Tensor]) -> None:
        assert isinstance(parameter, DTensor)
        values = how(parameter.full_tensor())
        parameter.copy_(distribute_tensor(values, parameter.device_mesh, parameter.placements))

    def whole(self) -> nn.Module:
        """All parameters, in a network of the first process; all of them have to ask."""
        kept = get_model_state_dict(self.network, options=WHOLE)
        if self.group.first:
            self.spare.load_state_dict(kept)
        return self.spare

    def state(self, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
        """The whole state, on the first process; all of them have to ask."""
        kept = [get_optimizer_state_dict(self.network, each, options=WHOLE) for each in optimizers]
        return {"network": get_model_state_dict(self.network, options=WHOLE), "optimizers": kept}

    def load_state(self, state: dict[str, Any], optimizers: Sequence[Optimizer]) -> None:
        set_model_state_dict(self.network, state["network"], options=GIVEN)
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            set_optimizer_state_dict(self.network, optimizer, kept, options=GIVEN)
