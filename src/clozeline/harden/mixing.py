"""Written cases into training data: how many, how often each, and as many ordinary examples for the control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clozeline.errors import InputError
from clozeline.harden.filters import Candidate

Pair = tuple[str, str]
"""A text and its label."""
REPEATS = 10
"""How often a case may stand in the training data: a few cases seen a hundred times are learned by heart."""


def rows_of(share: float, ordinary: int) -> int:
    """How many rows beside these ordinary ones are this share of all."""
    return round(share / (1 - share) * ordinary)


@dataclass(frozen=True)
class Mixture:
    """The training data of the three arms. cases, others: what after and control have more, each so often."""

    ordinary: list[Pair]
    cases: list[Pair]
    others: list[Pair]
    repeats: int

    @property
    def after(self) -> list[Pair]:
        return self.ordinary + self.cases * self.repeats

    @property
    def control(self) -> list[Pair]:
        return self.ordinary + self.others * self.repeats

    @property
    def share(self) -> float:
        """Of the rows of after that are cases."""
        return self.repeats * len(self.cases) / len(self.after)


def mix(ordinary: Sequence[Pair], kept: Sequence[Candidate], reserve: Sequence[Pair], share: float) -> Mixture:
    """Mix in at most so many cases as make up this share, evenly over labels, and repeat them where there are too few.

    reserve: ordinary examples that no arm has, of which control gets as many as after gets cases, evenly over labels too.
    """
    wanted = rows_of(share, len(ordinary))
    cases = _evenly([(case.text, case.label) for case in kept], wanted)
    return Mixture([*ordinary], cases, _evenly(reserve, len(cases)), repeated(len(cases), wanted))


def repeated(cases: int, wanted: int) -> int:
    """How often each case stands in the training data, to make up so many rows."""
    return min(REPEATS, max(1, round(wanted / cases))) if cases else 1


def divided(
    train: Sequence[Pair], extra: Sequence[Pair] | None, share: float, most: int | None, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """The ordinary examples of every arm, and those that only the control gets some of: extra, or what is put aside.

    most: cases that there may be; None: as many as the share wants.

    Raises:
        InputError: extra has too few.
    """
    if extra is None:
        count = round(share * len(train))
        return put_aside(train, count if most is None else min(count, most), seed)
    known = {text for text, _ in train}
    reserve = shuffled([pair for pair in extra if pair[0] not in known], seed)
    count = rows_of(share, len(train))
    if len(reserve) < (wanted := count if most is None else min(count, most)):
        raise InputError(
            f"The control needs {wanted} ordinary examples that no other model has; extra has {len(reserve)}, give more."
        )
    return [*train], reserve


def _evenly(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """So many of them at most, the labels in turn as long as each lasts."""
    by_label: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_label.setdefault(pair[1], []).append(pair)
    turns = [(at, number, pair) for number, each in enumerate(by_label.values()) for at, pair in enumerate(each)]
    return [pair for _, _, pair in sorted(turns, key=lambda one: one[:2])[:most]]


def shuffled(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Files are often sorted, by label or by what they are about."""
    return [pairs[at] for at in np.random.default_rng(seed).permutation(len(pairs)).tolist()]


def put_aside(examples: Sequence[Pair], count: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """The examples without `count` of them, in the order of the data, and those, drawn at random, the labels in turn."""
    aside = _evenly(shuffled(examples, seed), count)
    gone = Counter(aside)
    left = []
    for pair in examples:
        if gone[pair]:
            gone[pair] -= 1
        else:
            left.append(pair)
    return left, aside
