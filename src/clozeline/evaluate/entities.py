"""Precision, recall and F1 of entities: spans that must agree in both ends and in type, as conlleval counts them.

Source: conlleval, the scorer of CoNLL-2000 (Tjong Kim Sang and Buchholz 2000); seqeval's default is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozeline.data.tags import Span, spans
from clozeline.evaluate.cost import Cost, cost_of
from clozeline.evaluate.counts import Score, ratio, score
from clozeline.evaluate.intervals import Counted, Interval, of_sums


@dataclass(frozen=True)
class EntityReport(Cost):
    """What scoring found. types: by type, in the order of their names; unknown: predicted types that no gold entity has."""

    sentences: int
    precision: Interval
    recall: Interval
    f1: Interval
    types: dict[str, Score]
    unknown: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "sentences": self.sentences,
            **self.precision.named("precision"),
            **self.recall.named("recall"),
            **self.f1.named("f1"),
            "types": {name: each.as_dict() for name, each in self.types.items()},
            "unknown_types": list(self.unknown),
            **self.cost(),
        }

    def __str__(self) -> str:
        width = max([len(name) for name in self.types], default=0)
        head = f"entity F1 {self.f1}  precision {self.precision}  recall {self.recall}"
        rows = [
            f"  {name:<{width}}  F1 {each.f1:.4f}  precision {each.precision:.4f}  recall {each.recall:.4f}"
            f"  of {each.gold:>5}  predicted {each.predicted:>5}"
            for name, each in self.types.items()
        ]
        odd = [f"predicted but in no gold entity: {', '.join(self.unknown)}"] if self.unknown else []
        return "\n".join([f"{head}  (95 % intervals over {self.sentences} sentences{self.cost_said()})", *rows, *odd])


def report(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    seed: int = 0,
    *,
    cut: np.ndarray | None = None,
    windows: np.ndarray | None = None,
) -> EntityReport:
    """Score predicted tags against gold ones, a list of tags for each sentence, as long in both.

    cut, windows: (n,) as in `cost_of`, where a model read the sentences.
    """
    pairs = _pairs(gold, predicted)
    counts = _counts(pairs)
    there = Counter(kind for true, _ in pairs for *_, kind in true)
    guessed = Counter(kind for _, found in pairs for *_, kind in found)
    right = Counter(kind for true, found in pairs for *_, kind in true & found)
    kinds = sorted(there | guessed)
    return EntityReport(
        sentences=len(gold),
        precision=of_sums(counts, _precision, seed),
        recall=of_sums(counts, _recall, seed),
        f1=of_sums(counts, _f1, seed),
        types={kind: score(there[kind], guessed[kind], right[kind]) for kind in kinds},
        unknown=tuple(kind for kind in kinds if not there[kind]),
        **cost_of(cut, windows),
    )


def measures(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """F1, precision and recall without intervals: quick enough for each epoch."""
    sums = _counts(_pairs(gold, predicted)).sum(0, keepdims=True)
    parts = {"f1": _f1(sums), "precision": _precision(sums), "recall": _recall(sums)}
    return {name: float(part[0]) for name, part in parts.items()}


def counted(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], metric: str = "f1") -> Counted:
    """The f1, precision or recall of entities; an example is a sentence."""
    name, measure = {"f1": ("F1", _f1), "precision": ("precision", _precision), "recall": ("recall", _recall)}[metric]
    return Counted(f"entity {name}", _counts(_pairs(gold, predicted)), measure)


def _pairs(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> list[tuple[set[Span], set[Span]]]:
    """The entities of each sentence, true and found."""
    assert [*map(len, gold)] == [*map(len, predicted)], "both must tag the same words"
    return [(set(spans(one)), set(spans(other))) for one, other in zip(gold, predicted, strict=True)]


def _counts(pairs: list[tuple[set[Span], set[Span]]]) -> np.ndarray:
    """(n, 3): how many entities of each sentence are right, found and true."""
    rows = [(len(true & found), len(found), len(true)) for true, found in pairs]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _precision(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[:, 0], sums[:, 1])


def _recall(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[:, 0], sums[:, 2])


def _f1(sums: np.ndarray) -> np.ndarray:
    """(m, 3) sums of right, found and true -> (m,)."""
    return ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])
