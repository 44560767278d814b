"""What a view is drawn from: a few plain kinds of picture, the same for the figure and for the page.

A page reads `as_dict()` of each; figures.py draws them with matplotlib. Text in them is data and never markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from clozeline.inspect.rounding import parts, rounded

DIGITS = 6
"""Significant digits of a number in a page."""
BUDGET = 9_000_000
"""Bytes that the attention of one page may take, so that the page stays under 10 MB."""


@dataclass(frozen=True)
class Lines:
    """Curves over the same axis. series: by name, (x, y); marks: by name, an x to draw an upright line at."""

    kind: ClassVar[str] = "lines"
    title: str
    x: str
    y: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    marks: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        series = [{"name": name, "x": numbers(x), "y": numbers(y)} for name, (x, y) in self.series.items()]
        return _head(self) | {"x": self.x, "y": self.y, "series": series, "marks": dict(self.marks)}


@dataclass(frozen=True)
class Heatmap:
    """Numbers as colours. values: (R, C); rows, columns: what each is called, or None where a number says it.

    diverging: colours for below and above 0; low, high: what the ends of the colours stand for, by default the extremes.
    """

    kind: ClassVar[str] = "heatmap"
    title: str
    x: str
    y: str
    values: np.ndarray
    rows: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    diverging: bool = False
    low: float | None = None
    high: float | None = None
    note: str = ""

    def bounds(self) -> tuple[float, float]:
        """What the ends of the colours stand for."""
        finite = self.values[np.isfinite(self.values)]
        least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if self.diverging:
            most = max(abs(least), abs(most))
            least = -most
        return least if self.low is None else self.low, most if self.high is None else self.high

    def as_dict(self) -> dict[str, Any]:
        low, high = self.bounds()
        rows, columns = (None if names is None else list(names) for names in (self.rows, self.columns))
        found = {"x": self.x, "y": self.y, "values": [numbers(row) for row in self.values], "rows": rows}
        return _head(self) | found | {"columns": columns, "diverging": self.diverging, "low": low, "high": high}


@dataclass(frozen=True)
class Bars:
    """One bar for each name and group. values: (names, groups); ranges: (names, groups, 2) an interval of each."""

    kind: ClassVar[str] = "bars"
    title: str
    y: str
    names: Sequence[str]
    groups: Sequence[str]
    values: np.ndarray
    ranges: np.ndarray | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        ranges = None if self.ranges is None else [[numbers(each) for each in row] for row in self.ranges]
        found = {"y": self.y, "names": list(self.names), "groups": list(self.groups)}
        return _head(self) | found | {"values": [numbers(row) for row in self.values], "ranges": ranges}


@dataclass(frozen=True)
class Scatter:
    """Points on a map. points: (n, 2); names: what each is; groups: what its colour says."""

    kind: ClassVar[str] = "scatter"
    title: str
    x: str
    y: str
    points: np.ndarray
    names: Sequence[str]
    groups: Sequence[str]
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        found = {"x": self.x, "y": self.y, "points": [numbers(row) for row in self.points]}
        return _head(self) | found | {"names": list(self.names), "groups": list(self.groups)}


@dataclass(frozen=True)
class Words:
    """A text with a number under each of its words, as a colour. values: one each, or None for no colour.

    words: in order, with the spaces around them left out; notes: what stands beside each when one looks closer;
    key: what values are called, where they are kinds and not amounts; under: what a figure, which nothing can be asked,
    writes beneath each.
    """

    kind: ClassVar[str] = "words"
    title: str
    words: Sequence[str]
    values: Sequence[float | None]
    notes: Sequence[str] = ()
    diverging: bool = False
    note: str = ""
    key: Mapping[str, float] = field(default_factory=dict)
    under: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        values = [None if value is None else _number(value) for value in self.values]
        found = {"words": list(self.words), "values": values, "notes": list(self.notes)}
        return _head(self) | found | {"diverging": self.diverging, "key": dict(self.key)}


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers."""

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        rows = [[_number(each) if isinstance(each, float) else each for each in row] for row in self.rows]
        return _head(self) | {"columns": list(self.columns), "rows": rows}


@dataclass(frozen=True)
class Attention:
    """Who reads whom, for every layer and head. weights: (layers, heads, L, L), rows sum to 1.

    tokens: the L tokens; words: (L,) which word each belongs to, -1 for special tokens; sources: (L,) 0 the first text, 1
    the second, -1 special tokens; layers, heads: the number of each, from 0; measures: by name, (layers, heads);
    spelled, word_measures: the text of each run of pieces of one word, and the measures between words; unit: "token", or
    "word" where pieces were joined before; budget: bytes that it may take in a page.
    """

    kind: ClassVar[str] = "attention"
    title: str
    tokens: Sequence[str]
    words: Sequence[int]
    sources: Sequence[int]
    layers: Sequence[int]
    heads: Sequence[int]
    weights: np.ndarray
    measures: Mapping[str, np.ndarray]
    spelled: Sequence[str]
    word_measures: Mapping[str, np.ndarray]
    unit: str = "token"
    note: str = ""
    budget: int = BUDGET

    def as_dict(self) -> dict[str, Any]:
        """Weights are rounded as rounding.py says."""
        given = rounded(self.weights, self.budget)
        error, share = given.errors(self.weights)
        found = {"tokens": list(self.tokens), "words": [*map(int, self.words)], "sources": [*map(int, self.sources)]}
        found |= {
            "unit": self.unit,
            "spelled": list(self.spelled),
            "layers": [*map(int, self.layers)],
            "heads": [*map(int, self.heads)],
        }
        for name, measures in (("measures", self.measures), ("word_measures", self.word_measures)):
            found[name] = {measure: [numbers(row) for row in values] for measure, values in measures.items()}
        found |= {"bits": 8 * given.codes.itemsize, "octave": given.octave, "gone": given.gone.tolist()}
        found |= {"cutoff": _number(given.cutoff), "error": _number(error), "share": _number(share)}
        return _head(self) | found | {"weights": given.packed}

    @property
    def parts(self) -> int:
        """In how many parts, each of some layers, it is shown fairly."""
        return min(len(self.layers), parts(self.weights, self.budget))

    def split(self, count: int) -> list[Attention]:
        """So many parts of it."""
        ends = [len(self.layers) * at // count for at in range(count + 1)]
        return [self._of(slice(*ends[at : at + 2])) for at in range(count)]

    def _of(self, which: slice) -> Attention:
        measures = (
            {name: values[which] for name, values in each.items()} for each in (self.measures, self.word_measures)
        )
        chosen: dict[str, Any] = dict(zip(("measures", "word_measures"), measures, strict=True))
        return replace(self, layers=self.layers[which], weights=self.weights[which], **chosen)


Panel = Lines | Heatmap | Bars | Scatter | Words | Table | Attention


def numbers(values: Any) -> list[float | None]:
    """Plain numbers, rounded; None for what is not one."""
    return [_number(value) for value in np.asarray(values, dtype=np.float64).tolist()]


def _number(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


def _head(panel: Panel) -> dict[str, Any]:
    return {"kind": panel.kind, "title": panel.title, "note": panel.note}
