"""Numbers in rows, such as the places of characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def whole_number(entry: Mapping[str, Any], key: str) -> int:
    """What an entry has there; 3.0 is 3, for Parquet writes it so where other rows have none. TypeError for all else."""
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise TypeError(f"{key} is {value!r:.40} and no whole number")
    return int(value)
