"""Vectors written to a NumPy file as they come, however many there will be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from clozeline.files import staged


def write(path: Path, parts: Iterator[np.ndarray]) -> None:
    """Write arrays of one kind, (n, ...) each and at least one, under each other as one .npy file, whole or not at all.

    Raises:
        InputError: the file cannot be written, or the disk is full.
    """
    with staged(path.parent) as stage, (stage / path.name).open("wb") as file:
        first = next(parts)
        header: dict[str, Any] = {"descr": npy.dtype_to_descr(first.dtype), "fortran_order": False}
        npy.write_array_header_1_0(file, header | {"shape": (0, *first.shape[1:])})
        rows = 0
        for part in chain([first], parts):
            file.write(np.ascontiguousarray(part).data)
            rows += len(part)
        file.seek(0)  # NumPy leaves room in a header for the first dimension to grow
        npy.write_array_header_1_0(file, header | {"shape": (rows, *first.shape[1:])})
