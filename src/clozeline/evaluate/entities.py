"""Precision, recall and F1 of entities: spans that must agree in both ends and in type, as conlleval counts them.

Source: conlleval, the scorer of CoNLL-2000 (Tjong Kim Sang and Buchholz 2000); seqeval's default is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozeline.evaluate.intervals import Interval, of_sums

BEGINS, ENDS = frozenset("BSU"), frozenset("ESL")
Span = tuple[int, int, str]


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, (first word, word after the last, type), from BIO, IO, BIOES or BILOU tags.

    A sequence that its scheme does not allow is read as conlleval reads it: an entity begins where the type changes,
    whatever the prefix.
    """
    found: list[Span] = []
    start, before, kind = 0, "O", ""
    for at, tag in enumerate([*tags, "O"]):
        prefix, _, now = tag.partition("-")
        inside = prefix != "O" and bool(tag)
        new = inside and (before == "O" or prefix in BEGINS or before in ENDS or now != kind)
        if before != "O" and (new or not inside):
            found.append((start, at, kind))
        if new:
            start = at
        before, kind = (prefix, now) if inside else ("O", "")
    return found


@dataclass(frozen=True, slots=True)
class Score:
    """Of one type. gold, predicted, right: how many entities."""

    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int
    right: int


@dataclass(frozen=True)
class EntityReport:
    """What scoring found. types: by type, in the order of their names; unknown: predicted types that no gold entity has."""

    sentences: int
    precision: Interval
    recall: Interval
    f1: Interval
    types: dict[str, Score]
    unknown: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        measures = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        flat = {name: each.value for name, each in measures.items()}
        ranges = {f"{name}_interval": [each.low, each.high] for name, each in measures.items()}
        types = {
            name: {key: getattr(score, key) for key in ("precision", "recall", "f1", "gold", "predicted", "right")}
            for name, score in self.types.items()
        }
        return {"sentences": self.sentences, **flat, **ranges, "types": types, "unknown_types": list(self.unknown)}

    def __str__(self) -> str:
        width = max([len(name) for name in self.types], default=0)
        head = f"entity F1 {self.f1}  precision {self.precision}  recall {self.recall}"
        rows = [
            f"  {name:<{width}}  F1 {each.f1:.4f}  precision {each.precision:.4f}  recall {each.recall:.4f}"
            f"  of {each.gold:>5}  predicted {each.predicted:>5}"
            for name, each in self.types.items()
        ]
        odd = [f"predicted but in no gold entity: {', '.join(self.unknown)}"] if self.unknown else []
        return "\n".join([f"{head}  (95 % intervals over {self.sentences} sentences)", *rows, *odd])


def report(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], seed: int = 0) -> EntityReport:
    """Score predicted tags against gold ones, a list of tags for each sentence, as long in both."""
    assert [*map(len, gold)] == [*map(len, predicted)], "both must tag the same words"
    counts = np.zeros((len(gold), 3), dtype=np.int64)
    there: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for at, (one, other) in enumerate(zip(gold, predicted, strict=True)):
        true, found = set(spans(one)), set(spans(other))
        counts[at] = len(true & found), len(found), len(true)
        there.update(kind for *_, kind in true)
        guessed.update(kind for *_, kind in found)
        right.update(kind for *_, kind in true & found)
    kinds = sorted(there | guessed)
    return EntityReport(
        sentences=len(gold),
        precision=of_sums(counts, lambda sums: _ratio(sums[:, 0], sums[:, 1]), seed),
        recall=of_sums(counts, lambda sums: _ratio(sums[:, 0], sums[:, 2]), seed),
        f1=of_sums(counts, lambda sums: _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2]), seed),
        types={kind: _score(there[kind], guessed[kind], right[kind]) for kind in kinds},
        unknown=tuple(kind for kind in kinds if not there[kind]),
    )


def _score(gold: int, predicted: int, right: int) -> Score:
    values = np.array([[right, predicted, gold]])
    return Score(
        float(_ratio(values[:, 0], values[:, 1])[0]),
        float(_ratio(values[:, 0], values[:, 2])[0]),
        float(_ratio(2 * values[:, 0], values[:, 1] + values[:, 2])[0]),
        gold,
        predicted,
        right,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by, as conlleval."""
    return np.divide(part, whole, out=np.zeros(np.shape(part), dtype=np.float64), where=whole > 0)
