"""Written cases into training data: how many, how often each, and as many ordinary examples for the control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, zip_longest
from typing import TypeVar

import numpy as np

from clozeline.errors import InputError
from clozeline.hardening.filters import Candidate

T = TypeVar("T")
Pair = tuple[str, str]
"""A text and its label."""
REPEATS = 10
"""How often a case may stand in the training data: a few cases seen a hundred times are learned by heart."""


def rows_of(share: float, ordinary: int) -> int:
    """How many rows beside these ordinary ones are this share of all."""
    return round(share / (1 - share) * ordinary)


@dataclass(frozen=True)
class Mixture:
    """The training data of the three arms. cases, others: what after and control have more; rows: how many rows that is, in
    which each stands again and again, where there are fewer."""

    ordinary: list[Pair]
    cases: list[Pair]
    others: list[Pair]
    rows: int

    @property
    def after(self) -> list[Pair]:
        return self.ordinary + filled(self.cases, self.rows)

    @property
    def control(self) -> list[Pair]:
        return self.ordinary + filled(self.others, self.rows)

    @property
    def lacking(self) -> dict[str, int]:
        """By label, how many more cases there are than others, for want of ordinary examples with it."""
        return dict(labels_of(self.cases) - labels_of(self.others))

    @property
    def share(self) -> float:
        """Of the rows of after that are cases."""
        return 1 - len(self.ordinary) / len(self.after)

    @property
    def times(self) -> str:
        """How often each case stands in the rows of after, in words."""
        return self.often(self.cases)

    def often(self, pairs: Sequence[Pair]) -> str:
        """How often each of the cases, or of the others, stands in the rows of its arm, in words."""
        least, more = divmod(len(filled(pairs, self.rows)), max(1, len(pairs)))
        return "once" if (least, more) == (1, 0) else f"{least} or {least + 1} times" if more else f"{least} times"


def mix(ordinary: Sequence[Pair], kept: Sequence[Candidate], reserve: Sequence[Pair], share: float) -> Mixture:
    """Mix in cases as this share of the rows, evenly over labels and capabilities; few of them stand there several times.

    reserve: ordinary examples that no arm has, of which control gets as many of each label as after gets cases.
    """
    rows = rows_of(share, len(ordinary))
    in_turn = _in_turn(kept, lambda case: (case.capability, case.label))
    cases = _evenly([(case.text, case.label) for case in in_turn], rows)
    return Mixture([*ordinary], cases, _alike(reserve, labels_of(cases)), rows)


def labels_of(pairs: Sequence[Pair]) -> Counter[str]:
    """How many there are of each label."""
    return Counter(label for _, label in pairs)


def filled(pairs: Sequence[Pair], rows: int) -> list[Pair]:
    """So many rows of them, from the first on again and again, `REPEATS` times at most."""
    return [*islice(cycle(pairs), min(rows, REPEATS * len(pairs)))]


def choices(
    offered: Mapping[str, Sequence[Candidate]], named: Sequence[str], names: Mapping[str, str]
) -> list[list[Pair]]:
    """The cases of the capabilities named together, or of each that may be picked; names: of labels, in the data."""
    picks = [named] if named else [[name] for name in offered]
    return [[(one.text, names.get(one.label, one.label)) for name in some for one in offered[name]] for some in picks]


def divided(
    train: Sequence[Pair],
    extra: Sequence[Pair] | None,
    share: float,
    cases: Sequence[Sequence[Pair]] | None,
    seed: int,
) -> tuple[list[Pair], list[Pair]]:
    """The ordinary examples of every arm, and those that only the control gets some of: extra, or what is put aside.

    cases: those that there are, of each of which the run may come to choose; None: as many as the share wants. No label
    loses more than twice its share of rows, nor half where the share is less: what is rare is what models need most.

    Raises:
        InputError: extra has too few.
    """
    if extra is None:
        count, wanted = round(share * len(train)), Counter[str]()
        for some in cases or ():
            wanted |= labels_of(_evenly(some, count))
        return put_aside(train, count if cases is None else wanted, max(share, min(0.5, 2 * share)), seed)
    reserve = shuffled(extra, seed)
    count = rows_of(share, len(train))
    if len(reserve) < (most := count if cases is None else min(count, max(map(len, cases)))):
        raise InputError(
            f"The control needs {most} ordinary examples that no other model has; extra has {len(reserve)}, give more."
        )
    return [*train], reserve


def _in_turn(items: Sequence[T], kind: Callable[[T], Hashable]) -> list[T]:
    """The first of each kind, then the second of each, as long as it lasts."""
    by_kind: dict[Hashable, list[T]] = {}
    for item in items:
        by_kind.setdefault(kind(item), []).append(item)
    return [item for turn in zip_longest(*by_kind.values()) for item in turn if item is not None]


def _evenly(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """So many of them at most, the labels in turn as long as each lasts."""
    return _in_turn(pairs, lambda pair: pair[1])[:most]


def _alike(pairs: Sequence[Pair], wanted: Counter[str]) -> list[Pair]:
    """So many of each label; where there are too few of one, more of the others stand in."""
    left, found, rest = Counter(wanted), list[Pair](), list[Pair]()
    for pair in _evenly(pairs, len(pairs)):
        (found if left[pair[1]] > 0 else rest).append(pair)
        left[pair[1]] -= 1
    return found + rest[: wanted.total() - len(found)]


def shuffled(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Files are often sorted, by label or by what they are about."""
    return [pairs[at] for at in np.random.default_rng(seed).permutation(len(pairs)).tolist()]


def put_aside(
    examples: Sequence[Pair], wanted: int | Counter[str], part: float, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """The examples without those that are wanted, in the order of the data, and those, drawn at random: so many of each
    label, or so many, the labels in turn. part: of the examples with a label, the most that are taken."""
    drawn, free = list[Pair](), {label: int(part * count) for label, count in labels_of(examples).items()}
    for pair in shuffled(examples, seed):
        if free[pair[1]]:
            free[pair[1]] -= 1
            drawn.append(pair)
    aside = _evenly(drawn, wanted) if isinstance(wanted, int) else _alike(drawn, wanted)
    gone = Counter(aside)
    left = []
    for pair in examples:
        if gone[pair]:
            gone[pair] -= 1
        else:
            left.append(pair)
    return left, aside
