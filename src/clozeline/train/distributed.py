"""Several processes train one model, on many GPUs or machines: `torchrun --nproc-per-node N -m clozeline finetune ...`.

Every process holds the whole model and takes its share of each batch; losses and gradients are summed over all of them by
torch.distributed, so that a step is the one a single process would take on the whole batch (data parallelism; Li et al.
2020, "PyTorch Distributed"). torch's DistributedDataParallel averages the gradients of one module; here they are sums in
fp32 beside half-precision copies, over batches whose parts weigh differently, so the summing stands here.
"""

from __future__ import annotations

import atexit
import datetime
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from clozeline.errors import InputError

PATIENCE = datetime.timedelta(hours=12)
"""How long a process waits for the others: the first one validates and saves alone."""
BUCKET = 2**24
"""Numbers summed in one message, 64 MiB in fp32."""


@dataclass(frozen=True)
class Group:
    """The processes that train together. rank: of this one; the first, 0, writes and validates for all."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, chosen: np.ndarray) -> np.ndarray:
        """This process's part of a batch: examples of like length go to all of them in turn."""
        return chosen[self.rank :: self.size]

    def seed(self, seed: int, step: int) -> int:
        """Of a step's dropout: another one in each process."""
        alone = seed * 2**32 + step
        return alone if self.first else int(np.random.SeedSequence([alone, self.rank]).generate_state(1, np.uint64)[0])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into each tensor, in place; all of them must come with the same shapes."""
        if self.size == 1:
            return
        some: list[Tensor] = []
        for at, tensor in enumerate(tensors):
            some.append(tensor)
            if at + 1 == len(tensors) or sum(each.numel() for each in some) >= BUCKET:
                flat = torch.cat([each.reshape(-1) for each in some])
                dist.all_reduce(flat)
                for each, part in zip(some, flat.split([each.numel() for each in some]), strict=True):
                    each.copy_(part.view_as(each))
                some = []

    def total(self, *numbers: float, device: torch.device) -> tuple[float, ...]:
        """The sums of numbers over all processes."""
        if self.size == 1:
            return numbers
        sums = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        return tuple(sums.tolist())

    def told(self, value: Any) -> Any:
        """What the first process has, in all of them; they wait for it."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def agree(self, what: str, value: Any) -> None:
        """InputError in every process where they do not all have the same value."""
        if self.size == 1:
            return
        held: list[Any] = [None] * self.size
        dist.all_gather_object(held, value)
        if any(each != held[0] for each in held):
            raise InputError(
                f"The processes do not have the same {what}; start all of them with the same files and flags."
            )


ALONE = Group()


def join(device: torch.device) -> Group:
    """The group that torchrun started this process in, or this process alone.

    Raises:
        InputError: the processes cannot find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return ALONE
    if not dist.is_initialized():
        importlib.import_module("torch.distributed.nn")  # before there is a group: its functions keep the one they find
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"The {size} processes cannot find each other: {error}. Start them with torchrun."
            ) from error
        if device.type == "cpu":
            atexit.register(_leave)
    return Group(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    """End gloo's threads, unless a divided model still holds them.

    NCCL's group is left to the end of the process: ending it waits for all, and so for ever where one has failed.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def leave(code: int) -> int:
    """End a process of gloo with this exit code here, once its threads and what is to run at exit are done.

    A thread of gloo drops the last tensors in its own time and needs the interpreter for it; one that asks while the
    interpreter is taken apart aborts a process whose work is done (seen once in eight runs of a divided model on a busy
    machine). So it is not taken apart. A process that is no part of a group just gets its code back.
    """
    if not dist.is_initialized() or dist.get_backend() != "gloo":
        return code
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
