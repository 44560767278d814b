"""Some of many, drawn at random and in their order: what `limit` means in every inspection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def drawn(found: Sequence[T], limit: int | None, seed: int = 0) -> list[T]:
    """At most `limit` of them. A stride would fall in step with data in turns, such as one label after the other."""
    if limit is None or limit >= len(found):
        return list(found)
    return [found[at] for at in np.sort(np.random.default_rng(seed).choice(len(found), limit, replace=False))]
