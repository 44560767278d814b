"""Two models side by side: how large each is, how fast, which words it expects, and how well it does its task."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clozeline.evaluate.agreement import MaskedAgreement
from clozeline.evaluate.compare import Comparison
from clozeline.files import staged

COLORS = ("#4c72b0", "#dd8452")
"""Of A and B in a figure."""
WARM_UP = 3
"""Passes before the clock runs: kernels are compiled and memory is taken in the first ones."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of one model. parameters: all of its network, each once, so that a masked-LM head adds what it does not share with
    the token table; without_embeddings: those without the tables of tokens, positions (relative ones too) and segments.

    bytes: of the files of weights on the disk; None of a `Model` that did not come from a folder.
    """

    parameters: int
    without_embeddings: int
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several measurements with their 10th and 90th percentile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        return cls(*np.percentile(values, [50, 10, 90]).tolist())


@dataclass(frozen=True, slots=True)
class Speed:
    """Of two models over the same texts, `batch` of them at once.

    What is timed is the forward pass of `predict` from token ids to logits on the host or, where not both models have a
    task, that of `embed` to vectors; tokenisation is not in it.

    runs: of each model, in turns; tokens: in the batch, as each model reads it; seconds: of a run; times: how many times
    as fast the second model is, run by run.
    """

    batch: int
    runs: int
    what: Literal["logits", "vectors"]
    tokens: tuple[int, int]
    seconds: tuple[Spread, Spread]
    times: Spread

    @property
    def throughput(self) -> tuple[Spread, Spread]:
        """Texts a second; the 10th percentile belongs to the 90th of the seconds."""
        a, b = (Spread(*(self.batch / value for value in (each.median, each.high, each.low))) for each in self.seconds)
        return a, b

    def as_dict(self) -> dict[str, Any]:
        """The speed as JSON takes it."""
        found = {"batch": self.batch, "runs": self.runs, "what": self.what, "tokens": list(self.tokens)}
        both = {"seconds": self.seconds, "texts_per_second": self.throughput}
        spreads = {name: [asdict(each) for each in pair] for name, pair in both.items()}
        return {**found, **spreads, "times": asdict(self.times)}


def in_turns(
    a: Callable[[], object],
    b: Callable[[], object],
    *,
    batch: int,
    runs: int,
    what: Literal["logits", "vectors"],
    tokens: tuple[int, int],
) -> Speed:
    """Time two forward passes that end on the host, run by run in turns, so that a machine that slows down slows both.

    Who goes first changes from run to run; WARM_UP passes of each are not counted.
    """
    calls, seconds = (a, b), np.empty((runs, 2))
    for run in range(-WARM_UP, runs):
        for at in (0, 1) if run % 2 else (1, 0):
            begun = time.perf_counter()
            calls[at]()
            seconds[max(run, 0), at] = time.perf_counter() - begun  # of a warm-up, to be overwritten
    spreads = Spread.of(seconds[:, 0]), Spread.of(seconds[:, 1])
    return Speed(batch, runs, what, tokens, spreads, Spread.of(seconds[:, 0] / seconds[:, 1]))


Panel = tuple[str, Callable[[float], str], float | None, dict[str, tuple[Spread, ...]]]
"""Of a figure: title, how numbers are written, where its axis ends, and by group the bars of A and of B, or one of both."""


@dataclass(frozen=True)
class SideBySide:
    """What `compare` found of models A and B, by name in `names`. Print it, or see `as_dict` and `figure`.

    speeds: one for each batch size, empty where nothing was timed; masked: None where not both fill masks with one
    vocabulary; task: None without labelled data; notes: what was left out or cut, a sentence each.
    """

    names: tuple[str, str]
    sizes: tuple[Size, Size]
    speeds: list[Speed]
    masked: MaskedAgreement | None
    task: Comparison | None
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it; share: what B has of A's size, as a fraction."""
        a, b = map(asdict, self.sizes)
        return {
            "names": list(self.names),
            "sizes": [a, b],
            "share": {name: _ratio(a[name], b[name]) for name in a},
            "speeds": [each.as_dict() for each in self.speeds],
            "masked": None if self.masked is None else self.masked.as_dict(),
            "task": None if self.task is None else self.task.as_dict(),
            "notes": self.notes,
        }

    def __str__(self) -> str:
        rows = [("", "A", "B", "B to A"), *self._size_rows(), *self._speed_rows(), *self._score_rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            f"{row[0]:<{widths[0]}}   {row[1]:>{widths[1]}}   {row[2]:>{widths[2]}}   {row[3]:>{widths[3]}}".rstrip()
            for row in rows
        ]
        parts = [f"A  {self.names[0]}\nB  {self.names[1]}", "\n".join(table)]
        if self.speeds:
            one = self.speeds[0]
            parts.append(
                f"Medians of {one.runs} runs [10th, 90th percentile], models in turns; B to A: of the runs' ratios.\n"
                f"From token ids to {one.what} on the host; tokenisation is not in it."
            )
        if self.masked is not None:
            parts.append(str(self.masked))
        if self.task is not None:
            parts.append(str(dataclasses.replace(self.task, names=("A", "B"))))
        return "\n\n".join([*parts, *(["\n".join(self.notes)] if self.notes else [])])

    def _size_rows(self) -> list[tuple[str, ...]]:
        (a, b), rows = self.sizes, list[tuple[str, ...]]()
        for name, one, other in (
            ("parameters", a.parameters, b.parameters),
            ("  without embedding tables", a.without_embeddings, b.without_embeddings),
            ("weights on the disk, bytes", a.bytes, b.bytes),
        ):
            shown = ["-" if each is None else f"{each:,}" for each in (one, other)]
            rows.append((name, *shown, _share(one, other)))
        return rows

    def _speed_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for each in self.speeds:
            seconds, texts = each.seconds, each.throughput
            rows += [
                (f"batch of {each.batch}: tokens", *(f"{count:,}" for count in each.tokens), ""),
                ("  milliseconds", *(_spread(one, 1000) for one in seconds), ""),
                ("  texts a second", *(_spread(one) for one in texts), f"{each.times.median:.2f} x"),
            ]
        return rows

    def _score_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        if (masked := self.masked) is not None:
            rows += [
                (f"masked words ({len(masked.clozes)}): same best", "", "", f"{100 * masked.agreement_1:.1f} %"),
                ("  A's best five in B's", "", "", f"{100 * masked.agreement_5:.1f} %"),
                ("  KL(A || B), nats", "", "", f"{masked.kl:.4f}"),
            ]
        if self.task is not None:
            found = self.task.overall
            scores = f"{found.a:.4f}", f"{found.b:.4f}", _share(found.a, found.b)
            rows.append((f"{self.task.metric} of {found.n:,}", *scores))
        return rows

    def figure(self, path: str | Path) -> None:
        """A PNG: bars of both models' parameters, texts a second (10th to 90th percentile), masked words and score.

        Raises:
            InputError: the place cannot be written.
        """
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        path, panels = Path(path), self._panels()
        figure = Figure(figsize=(2.8 * max(len(panels), 2), 4.4), layout="constrained")
        every = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, shown, top, groups) in zip(every, panels, strict=True):
            for number, bars in enumerate(groups.values()):
                for at, bar in enumerate(bars):
                    place, color = (number + 0.4 * at - 0.2, COLORS[at]) if len(bars) > 1 else (number, "0.6")
                    apart = [[bar.median - bar.low], [bar.high - bar.median]]
                    error = apart if bar.high > bar.low else None
                    axes.bar(place, bar.median, 0.38, color=color, yerr=error, ecolor="0.2", capsize=4)
                    name, at_end = shown(bar.median), (place, max(bar.high, 0))
                    axes.annotate(name, at_end, (0, 3), textcoords="offset points", ha="center", size="small")
            axes.set_xticks(range(len(groups)), list(groups))
            axes.tick_params(axis="x", length=0)
            axes.set_xlim(-0.6, len(groups) - 0.4)
            axes.margins(y=0.1)
            axes.set_ylim(top=top)
            axes.set_title(title, size="medium")
            axes.spines[["top", "right"]].set_visible(False)
        patches = [Patch(color=color) for color in COLORS]
        names = [f"{letter}  {name}" for letter, name in zip("AB", self.names, strict=True)]
        figure.legend(patches, names, loc="outside lower left", frameon=False)
        with staged(path.parent) as stage:
            figure.savefig(stage / path.name, dpi=120, format="png")

    def _panels(self) -> list[Panel]:
        counts = {"all": [each.parameters for each in self.sizes]}
        counts["no embeddings"] = [each.without_embeddings for each in self.sizes]
        bars: dict[str, tuple[Spread, ...]]
        bars = {name: tuple(_exact(count / 1e6) for count in pair) for name, pair in counts.items()}
        title = f"million parameters\nB to A: {_share(*counts['all'])}"
        panels: list[Panel] = [(title, "{:.3g}".format, None, bars)]
        for each in self.speeds:
            title = f"texts a second, batch of {each.batch}\nB to A: {each.times.median:.2f} x"
            panels.append((title, _number, None, {"": each.throughput}))
        if (masked := self.masked) is not None:
            means = {"same best": masked.agreement_1, "A's five in B's": masked.agreement_5}
            title = f"masked words ({len(masked.clozes)})\nKL(A || B): {masked.kl:.3f} nats"
            panels.append((title, "{:.2f}".format, 1.05, {name: (_exact(mean),) for name, mean in means.items()}))
        if self.task is not None:
            found, change = self.task.overall, self.task.overall.difference
            apart = f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
            bars = {"": (_exact(found.a), _exact(found.b))}
            panels.append((f"{self.task.metric} of {found.n:,}\nB - A: {apart}", "{:.4f}".format, 1.05, bars))
        return panels


def _exact(value: float) -> Spread:
    return Spread(value, value, value)


def _ratio(a: float | None, b: float | None) -> float | None:
    """b / a; None where one is not known, or there is nothing to have a share of."""
    return None if a is None or b is None or a <= 0 else b / a


def _share(a: float | None, b: float | None) -> str:
    return "-" if (found := _ratio(a, b)) is None else f"{100 * found:.1f} %"


def _spread(given: Spread, factor: float = 1) -> str:
    median, low, high = (_number(factor * value) for value in (given.median, given.low, given.high))
    return f"{median} [{low}, {high}]"


def _number(value: float) -> str:
    """With as many digits as the noise of a machine leaves."""
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"
