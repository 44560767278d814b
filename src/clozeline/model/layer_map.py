"""Which of a deeper encoder's layers a shallower one keeps or learns from."""

from __future__ import annotations

import numpy as np

from clozeline.errors import InputError


def spread(layers: int, kept: int) -> tuple[int, ...]:
    """The indices of `kept` of `layers` layers, spread evenly, the first and the last among them (one kept: the first).

    The evenly spaced points from 0 to layers - 1, each rounded to the nearest whole number, halves to the even one.
    Six of twelve are 0, 2, 4, 7, 9, 11, the layers that DistilBERT's weights were started from (Sanh et al. 2019,
    "DistilBERT, a distilled version of BERT", arXiv:1910.01108, and the code published with it).
    InputError where `kept` is less than 1 or more than `layers`.
    """
    if not 1 <= kept <= layers:
        raise InputError(f"{kept} layers cannot be kept of {layers}; give a number from 1 to {layers}.")
    return tuple(int(i) for i in np.rint(np.linspace(0, layers - 1, kept)))
