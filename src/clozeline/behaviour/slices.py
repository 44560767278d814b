"""Where a text classifier fails: accuracy by slice of labelled data, the worst slices, and the errors it is surest of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clozeline import predict as prediction
from clozeline.behaviour.keywords import CONTRAST, NEGATION, dealt, having, keyword_classes, keywords
from clozeline.data.readers import Columns, Example, class_name, rows
from clozeline.errors import InputError, nearest
from clozeline.evaluate.calibration import softmax
from clozeline.evaluate.compare import holm
from clozeline.evaluate.cost import Cost, cost_of
from clozeline.evaluate.intervals import Interval
from clozeline.evaluate.proportions import fisher, newcombe, wilson
from clozeline.files import staged
from clozeline.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    from clozeline.face import Model

FEW = 10
"""A value of a column, or a label, that fewer texts have goes into "other"."""
VALUES = 20
"""Values of a column at most, the most frequent ones; the others go into "other"."""
BANDS = (0.6, 0.8, 0.95, 0.99)
"""Between bands of confidence; each holds its lower end."""
CHANCE = 0.05
"""A corrected p below this is no chance."""
FOLDS = 5
"""Of the keyword baseline."""
START = 160
"""Characters of a text that are shown."""
CONFIDENCE = "confidence"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the texts, and how they differ from the rest of them.

    kind: what it is a slice by, such as "length" or "column source"; accuracy: with Wilson's 95 % interval; confidence: the
    mean score of the predicted labels; difference: of the accuracy from that of all other texts, with Newcombe's interval.
    p: of Fisher's exact test that the slice is like the rest; corrected: p among all slices, by Holm's method (1979).
    """

    kind: str
    name: str
    rows: int
    accuracy: Interval
    confidence: float
    difference: Interval
    p: float
    corrected: float

    @property
    def rest(self) -> float:
        """The accuracy of all other texts."""
        return self.accuracy.value - self.difference.value

    @property
    def excess(self) -> float:
        """Errors more than the rest's rate would have made."""
        return -self.rows * self.difference.value

    @property
    def worse(self) -> bool:
        """Whether it is below the rest by more than chance."""
        return self.corrected < CHANCE and self.difference.value < 0

    def as_dict(self) -> dict[str, Any]:
        """The slice as JSON takes it."""
        shares = {**self.accuracy.named("accuracy"), **self.difference.named("difference")}
        return {**asdict(self), **shares, "excess": self.excess, "worse": self.worse}


@dataclass(frozen=True, slots=True)
class ConfidentError:
    """A wrong prediction. place: of the row; text: its start, of a pair those of both; score: of the predicted label."""

    place: str
    text: str
    label: str
    predicted: str
    score: float


@dataclass(frozen=True)
class Slices(Cost):
    """What `slices` found. Print it, or see `as_dict` and `figure`.

    accuracy: with Wilson's 95 % interval; confidence: the mean score of the predicted labels; keywords: the share of texts
    that the keyword baseline gets right; slices: by kind; worst: those of them, but none by confidence, that are worse than
    the rest by more than chance, from the one with most errors in excess; wrong: how many texts are; errors: the surest of
    them; comparisons: how many p is corrected for, a slice and what it leaves being one.
    """

    model: str
    examples: int
    accuracy: Interval
    confidence: float
    keywords: float
    slices: tuple[Slice, ...]
    worst: tuple[Slice, ...]
    wrong: int
    errors: tuple[ConfidentError, ...]
    comparisons: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return {
            "model": self.model,
            "examples": self.examples,
            **self.accuracy.named("accuracy"),
            "confidence": self.confidence,
            "keywords": self.keywords,
            "slices": [each.as_dict() for each in self.slices],
            "worst": [each.name for each in self.worst],
            "wrong": self.wrong,
            "errors": [asdict(each) for each in self.errors],
            "comparisons": self.comparisons,
            "notes": list(self.notes),
            **self.cost(),
        }

    def __str__(self) -> str:
        table = [("slice", "texts", "accuracy", "confidence", "against the rest", "p")]
        for each in self.slices:
            apart = each.difference
            change = f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"
            shares = f"{each.rows:,}", str(each.accuracy), f"{each.confidence:.4f}", change, f"{each.corrected:.4f}"
            table.append((each.name, *shares))
        width, count = (max(len(row[at]) for row in table) for at in (0, 1))
        read = f"(95 % intervals, {self.examples} examples{self.cost_said()})"
        lines = [
            f"accuracy {self.accuracy}  mean confidence {self.confidence:.4f}  {read}",
            f"A keyword baseline, learned from the same texts in {FOLDS} folds, is right for {self.keywords:.4f}.",
            "",
            *(
                f"{row[0]:<{width}}  {row[1]:>{count}}  {row[2]:<23} {row[3]:<11} {row[4]:<26} {row[5]}"
                for row in table
            ),
            f"p is corrected for {self.comparisons} comparisons (Holm).",
            "",
            *self._worst_said(),
        ]
        if self.errors:
            lines += ["", f"The surest {len(self.errors)} of {self.wrong} errors:"]
            lines += [
                f"  {each.score:.4f} {each.predicted}, but {each.label}: {each.place}: {each.text}"
                for each in self.errors
            ]
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])

    def _worst_said(self) -> list[str]:
        if not self.worst:
            return ["No slice is worse than the rest by more than chance; confidence is not looked at here."]
        return ["Worse than the rest by more than chance, from most errors in excess:"] + [
            f"  {each.name}: right for {each.accuracy.value:.4f} of {each.rows:,} texts and for {each.rest:.4f} of the "
            f"rest, {each.excess:.1f} errors more than at that rate (p {each.corrected:.4f})."
            for each in self.worst
        ]

    def figure(self, path: str | Path) -> None:
        """A PNG: the accuracy of each slice with its interval, beside that of all texts; the worst ones in red.

        Raises:
            InputError: the place cannot be written.
        """
        from matplotlib.figure import Figure

        path, every = Path(path), self.slices
        figure = Figure(figsize=(9, 1.3 + 0.28 * len(every)), layout="constrained")
        axes = figure.subplots()
        for at, each in enumerate(every):
            share, color = each.accuracy, "C3" if each in self.worst else "C0"
            ends = [[share.value - share.low], [share.high - share.value]]
            axes.errorbar(share.value, at, xerr=ends, fmt="o", color=color, capsize=3)
            if each.kind == CONFIDENCE:
                axes.plot(each.confidence, at, "|", color="black", markersize=11)
        axes.axvspan(self.accuracy.low, self.accuracy.high, color="0.9")
        axes.axvline(self.accuracy.value, color="0.5", linewidth=1)
        axes.set_yticks(range(len(every)), [f"{each.name}  ({each.rows:,})" for each in every])
        axes.set(ylim=(max(len(every), 1) - 0.5, -0.5), xlabel="accuracy; | is the mean confidence of a band")
        axes.set_title(f"accuracy {self.accuracy} of {self.examples:,} texts", size="medium")
        with staged(path.parent) as stage:
            figure.savefig(stage / path.name, dpi=120, format="png")


class _Part(NamedTuple):
    """holds: (n,) bool."""

    kind: str
    name: str
    holds: np.ndarray


def slices(
    model: Model,
    data: str | Path,
    *,
    by: str | Sequence[str] = (),
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    worst: int = 5,
    examples: int = 10,
) -> Slices:
    """Cut labelled data into slices and find those that a text classifier reads worse than the rest.

    By length in tokens (quarters of the data); by label; by the columns `by`; texts with an English word of negation, of
    contrast; those that a keyword baseline gets right, and wrong, see `keyword_classes`; texts that were cut; by confidence.
    Labels and values that fewer than 10 texts have are one slice, and so are values after the 20 most frequent.

    Each slice is tested against the rest of the texts, and p is corrected for all that was tested. A band of confidence is
    never among the worst: a model that is unsure where it is wrong does what it should, and the band's mean confidence
    beside its accuracy shows whether it does.

    Args:
        data, text, pair, label, columns, encoding: as in `Model.evaluate`.
        by: columns whose values are slices; data on standard input cannot be read for them.
        worst: slices to name at most; examples: errors to list at most.

    Raises:
        InputError: as `Model.evaluate`; a model that is no text classifier, shares for a label, or no such column.
    """
    if worst < 1 or examples < 0:
        raise InputError(f"worst is {worst} and examples {examples}; name 1 slice or more, and list 0 errors or more.")
    task = model._supervised("evaluate")
    if not isinstance(task, TextClassification):
        raise InputError(f"{model.name} is a {task.name} model; slices are of text classification, one label a text.")
    where = Columns(text=text, pair=pair, label=label, names=columns, encoding=encoding)
    read = task.read(data, "test", where)
    if soft := next((each for each in read if not isinstance(each.label, str)), None):
        raise InputError(f"{soft.place}: the label is {soft.label!r:.60}; slices need one class for each text.")
    values = _values(data, [by] if isinstance(by, str) else list(dict.fromkeys(by)), where)
    logits, samples = prediction.judge(model._network(), task, model.tokenizer, read, model._device)
    assert samples.targets is not None
    scores, targets = softmax(samples.mean(logits) / task.temperature), samples.targets
    given, sure, names = scores.argmax(1), scores.max(1), task.outputs
    right, notes = given == targets, list[str]()
    words = keywords(_parts_of(each) for each in read)
    told = keyword_classes(words, targets, len(names), dealt(words.same, targets, FOLDS)) == targets
    texts = [" \n".join(_parts_of(each)) for each in read]
    parts = [
        *_lengths(samples.tokens),
        *_by_value("label", "label", [names[at] for at in targets], None, notes),
        *(
            part
            for column, held in values.items()
            for part in _by_value(f"column {column}", column, held, VALUES, notes)
        ),
        _Part("negation", "a negation word", having(texts, NEGATION)),
        _Part("contrast", "a contrast word", having(texts, CONTRAST)),
        _Part("keywords", "keyword baseline right", told),
        _Part("keywords", "keyword baseline wrong", ~told),
        _Part("cut", "cut to fit", samples.cut > 0),
        *_bands(sure),
    ]
    found, comparisons = _compared(parts, right, sure, notes)
    wrong = np.flatnonzero(~right)
    surest = wrong[np.argsort(-sure[wrong], kind="stable")][:examples].tolist()
    return Slices(
        model=model.name,
        examples=len(read),
        accuracy=wilson(int(right.sum()), len(read)),
        confidence=float(sure.mean()),
        keywords=float(told.mean()),
        slices=tuple(found),
        worst=tuple(_worst(found)[:worst]),
        wrong=len(wrong),
        errors=tuple(
            ConfidentError(read[at].place, _start(read[at]), names[targets[at]], names[given[at]], float(sure[at]))
            for at in surest
        ),
        comparisons=comparisons,
        notes=tuple(notes),
        **cost_of(samples.cut, samples.windows),
    )


def _parts_of(example: Example) -> tuple[str, ...]:
    """A text, or both of a pair."""
    return (example.text,) if example.pair is None else (example.text, example.pair)


def _start(example: Example) -> str:
    """The start of a text on one line."""
    text = " | ".join(" ".join(part.split()) for part in _parts_of(example))
    return text if len(text) <= START else text[: START - 1] + "…"


def _values(data: str | Path, by: Sequence[str], where: Columns) -> dict[str, list[str]]:
    """What each row has in these columns, by column."""
    found: dict[str, list[str]] = {column: [] for column in by}
    if data == "-" and by:
        raise InputError("by= reads the data a second time, which standard input does not allow; give a file.")
    for row in rows(data, columns=where.names, encoding=where.encoding, split="test") if by else ():
        for column, held in found.items():
            if column not in row.values and not held:
                raise InputError(f"{row.place} has no column {column!r} to slice by: {nearest(column, row.values)}")
            value = row.values.get(column)
            missing = value is None or value != value or not str(value).strip()  # only NaN differs from itself
            held.append("-" if missing else class_name(row, [column]))
    return found


def _lengths(tokens: np.ndarray) -> Iterator[_Part]:
    """Quarters by the data's own quantiles; fewer where these are equal."""
    ends = np.unique(np.quantile(tokens, [0.25, 0.5, 0.75, 1], method="inverted_cdf")).tolist()
    low = int(tokens.min())
    for end in map(int, ends):
        name = f"{low} tokens" if low == end else f"{low} to {end} tokens"
        yield _Part("length", name, (tokens >= low) & (tokens <= end))
        low = end + 1


def _by_value(kind: str, column: str, held: Sequence[str], most: int | None, notes: list[str]) -> Iterator[_Part]:
    """The slices of a column's values, the most frequent first; notes gets what "other" stands for."""
    counts, every = Counter(held), np.array(held, dtype=object)
    kept = [value for value, count in counts.most_common(most) if count >= FEW]
    for value in kept:
        yield _Part(kind, f"{column} {value:.40}", every == value)
    if len(kept) < len(counts):
        others = len(counts) - len(kept)
        reason = f"fewer than {FEW} texts" + (f" or come after the {VALUES} most frequent" if len(kept) == most else "")
        notes.append(f'"{column}: other" is {others:,} of {len(counts):,} values, which have {reason}.')
        yield _Part(kind, f"{column}: other", ~np.isin(every, kept))


def _bands(sure: np.ndarray) -> Iterator[_Part]:
    ends = (0.0, *BANDS, np.inf)
    names = [f"below {BANDS[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(BANDS))]
    for (low, high), name in zip(pairwise(ends), [*names, f"{BANDS[-1]:g} and above"], strict=True):
        yield _Part(CONFIDENCE, f"{CONFIDENCE} {name}", (sure >= low) & (sure < high))


def _compared(parts: Sequence[_Part], right: np.ndarray, sure: np.ndarray, notes: list[str]) -> tuple[list[Slice], int]:
    """The slices against the rest, and how many comparisons that took."""
    if whole := [part.name for part in parts if part.holds.all()]:
        notes.append(f"All texts are in {', '.join(map(repr, whole))}: there is no rest to compare with.")
    parts = [part for part in parts if part.holds.any() and not part.holds.all()]
    keys = [(part.holds ^ part.holds[0]).tobytes() for part in parts]  # the same for a slice and what it leaves
    chances = {key: _chance(right, part.holds) for key, part in zip(keys, parts, strict=True)}
    corrected = dict(zip(chances, holm(list(chances.values())), strict=True))
    found = [_slice(part, chances[key], corrected[key], right, sure) for key, part in zip(keys, parts, strict=True)]
    return found, len(chances)


def _worst(found: Sequence[Slice]) -> list[Slice]:
    below = [each for each in found if each.worse and each.kind != CONFIDENCE]
    return sorted(below, key=lambda each: -each.excess)


def _chance(right: np.ndarray, holds: np.ndarray) -> float:
    """Fisher's p that the texts of a slice are as often right as the rest."""
    return fisher(int(right[holds].sum()), int(holds.sum()), int(right.sum()), len(right))


def _slice(part: _Part, p: float, corrected: float, right: np.ndarray, sure: np.ndarray) -> Slice:
    holds, rest = part.holds, ~part.holds
    own = wilson(int(right[holds].sum()), int(holds.sum()))
    apart = newcombe(own, wilson(int(right[rest].sum()), int(rest.sum())))
    return Slice(part.kind, part.name, int(holds.sum()), own, float(sure[holds].mean()), apart, p, corrected)
