"""Vectors written to a NumPy file as they come, however many there will be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from clozeline.files import staged


def write(path: Path, parts: Iterable[Any]) -> None:
    """Write (n, ...) arrays of one kind, one under the other, as one .npy file; whole or not at all.

    Raises:
        InputError: the file cannot be written, or the disk is full.
    """
    with staged(path.parent) as stage, (stage / path.name).open("wb") as file:
        rows, header = 0, {}
        for part in map(np.ascontiguousarray, parts):
            if not rows:
                header = {"descr": npy.dtype_to_descr(part.dtype), "fortran_order": False}
                _write_header(file, header | {"shape": part.shape})
            file.write(part.data)
            rows += len(part)
            shape = (rows, *part.shape[1:])
        # NumPy leaves room in the header for the first dimension to grow
        file.seek(0)
        npy.write_array_header_1_0(file, header | {"shape": shape})
