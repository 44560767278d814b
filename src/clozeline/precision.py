"""Which number format to compute in, said explicitly or chosen by what the machine does fast."""

from __future__ import annotations

import os
from typing import Literal, get_args

import torch

from clozeline.errors import InputError, nearest

Precision = Literal["auto", "fp32", "bf16"]


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of activations and matrix products. Master weights are fp32 whatever it is.

    "auto" is bfloat16 where the machine has instructions for it (AMX or AVX-512 BF16, Arm BF16, Ampere GPUs and newer),
    else float32.

    Raises:
        InputError: no such precision.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision is {precision!r}: {nearest(str(precision), get_args(Precision))}")
    if precision == "auto":
        return torch.bfloat16 if _fast_bf16(device) else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return any(bool(has.get(name)) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return False


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, or the first GPU, or the CPU; of several processes of torchrun each takes a GPU of its own.

    Raises:
        InputError: the machine has no such device.
    """
    try:
        # asked of a tensor, because "cuda" and the "cuda:0" that tensors are on compare unequal
        gpu = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return torch.empty(0, device=name or (gpu if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"This machine has no device {name!r}: {str(error).splitlines()[0]}") from error
