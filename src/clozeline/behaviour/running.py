"""Run a text classifier over a behavioural suite: how often it fails at each capability, and where it fails worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clozeline.data.suite import Case, Suite
from clozeline.errors import InputError, nearest
from clozeline.evaluate.counts import ratio
from clozeline.evaluate.intervals import Counted, Interval
from clozeline.evaluate.proportions import wilson
from clozeline.face import Model
from clozeline.files import staged
from clozeline.streams import visible
from clozeline.tasks.text_classification import TextClassification

SURE = 0.9
"""The score above which a model is sure: an unsure case fails there."""

FAR = 0.1
"""A score nearer than this to 0 or 1 is at its end and need not move on."""

NOISE = 1e-5
"""By so much a score may differ between two batches."""

WORST = 5
"""Failures that an outcome names."""

SHOWN = 5
"""Capabilities of which a printed report shows the worst failure."""

NAME = 60
"""Letters of a capability's name that the printed table has room for."""

PAIRS = ({"negative": "0", "positive": "1"}, {"negative": "label_0", "positive": "label_1"},
         {"negative": "neg", "positive": "pos"})  # fmt: skip
"""Other names that models have for these two labels, in small letters."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that the model fails.

    expected: in words; predicted: the label of the text, or of the changed text where there is one; score: that label's, or
    of a direction case that of the label whose score must move; before: the same label's score for the unchanged text; by:
    what the score of the right label lacks to the predicted one's, what a score has above `SURE`, how far the score of the
    first label fell, or what a move lacks.
    """

    place: str
    text: str
    changed: str | None
    change: str | None
    expected: str
    predicted: str
    score: float
    before: float | None
    by: float

    def __str__(self) -> str:
        text = self.text if self.changed is None else f"{self.text} => {self.changed}"
        scores = f"{self.score:.2f}" if self.before is None else f"{self.before:.2f} to {self.score:.2f}"
        return visible(f"expected {self.expected}, predicted {self.predicted} ({scores}): {text}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the model fares at one capability. test: the kind, or kinds, of its cases; cases: the written ones, which have one
    vote each; expanded: those judged; failure_rate: with its interval over written cases; worst: at most `WORST` failures,
    one of a written case, greatest miss first."""

    capability: str
    about: str
    test: str
    cases: int
    expanded: int
    failure_rate: Interval
    worst: tuple[Failure, ...]

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON takes it."""
        return asdict(self) | self.failure_rate.named("failure_rate")


@dataclass(frozen=True, eq=False)
class Behaviour:
    """What `run_suite` found. failure_rate: of all written cases; failures: (n,) 1.0 where the model fails a case of the
    suite, in its order, else 0.0, so that two models can be compared case by case; truncated_texts, truncated_tokens: what
    of the texts the model did not see."""

    model: str
    suite: str
    outcomes: tuple[Outcome, ...]
    failure_rate: Interval
    failures: np.ndarray
    truncated_texts: int
    truncated_tokens: int
    notes: tuple[str, ...]

    @property
    def cases(self) -> int:
        """Written cases."""
        return sum(outcome.cases for outcome in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it, without `failures`."""
        return {
            "model": self.model,
            "suite": self.suite,
            "cases": self.cases,
            "expanded": len(self.failures),
            **self.failure_rate.named("failure_rate"),
            "truncated_texts": self.truncated_texts,
            "truncated_tokens": self.truncated_tokens,
            "notes": list(self.notes),
            "capabilities": [outcome.as_dict() for outcome in self.outcomes],
        }

    def __str__(self) -> str:
        width = min(NAME, max(len(outcome.capability) for outcome in self.outcomes))
        rows = [
            f"  {outcome.capability:<{width}.{width}}  {_percent(outcome.failure_rate)}  of {outcome.cases:>5}"
            for outcome in self.outcomes
        ]
        weakest = sorted(self.outcomes, key=lambda outcome: -outcome.failure_rate.value)
        worst = [f"  {each.capability}: {each.worst[0]}" for each in weakest[:SHOWN] if each.worst]
        return "\n".join(
            [
                f"{visible(self.model)} fails {_percent(self.failure_rate).strip()} of the suite {self.suite} "
                f"(95 % intervals, {self.cases} written cases, {len(self.failures)} with templates filled)",
                *rows,
                *(["Its worst failures at what it fails most:", *worst] if worst else []),
                *self.notes,
            ]
        )

    def figure(self, path: str | Path) -> None:
        """A PNG: the failure rate at each capability as a bar, with its interval.

        Raises:
            InputError: the place cannot be written.
        """
        from matplotlib.figure import Figure

        path, rates = Path(path), [outcome.failure_rate for outcome in self.outcomes]
        figure = Figure(figsize=(8, 1.5 + 0.3 * len(rates)), layout="constrained")
        axes = figure.subplots()
        values = np.array([rate.value for rate in rates])
        # a bootstrap interval of something rare may lie a hair beside its value
        spread = np.array([[rate.value - rate.low, rate.high - rate.value] for rate in rates]).T.clip(min=0)
        axes.barh(range(len(rates)), values, xerr=spread, color="C0", ecolor="0.3", capsize=2)
        axes.set_yticks(range(len(rates)), [outcome.capability for outcome in self.outcomes])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="failure rate, with 95 % interval", title=f"{self.suite}: {self.model}")
        with staged(path.parent) as stage:
            figure.savefig(stage / path.name, dpi=120, format="png")


def run_suite(model: Model, suite: Suite, *, labels: Mapping[str, str] | None = None) -> Behaviour:
    """Judge a text classifier by every case of a suite. Each text is read once, however many cases have it.

    A minimum case fails where its label is not the predicted one, or, of an unsure one, where a score is above `SURE`; an
    invariance case where the predicted label changes; a direction case where the score moves by less than it must and is
    not at its end already (see `FAR`).

    Args:
        labels: what the model calls the suite's labels, where it has other names: {"negative": "0", "positive": "1"}. Where
            the suite's are negative and positive, other spellings, 0 and 1, LABEL_0 and LABEL_1, and neg and pos are known.

    Raises:
        InputError: the model is no trained classifier of texts, or lacks a label of the suite.
    """
    if not isinstance(model.task, TextClassification):
        what = "a bare encoder" if model.task is None else f"a {type(model.task).__name__} model"
        raise InputError(f"{model.name} is {what}; a suite is run on a text classifier, with one label for each text.")
    own, notes = own_names(model, suite, labels)
    places: dict[str, str] = {}
    for case in suite.cases:
        for text in (case.text, case.changed):
            if text is not None:
                places.setdefault(text, case.place)
    examples = (model.task.example(text, None, place) for text, place in places.items())
    predictions = list(model.predict_stream(examples))
    scores_nC = np.array([[each.scores[label] for label in model.labels] for each in predictions])
    row = {text: at for at, text in enumerate(places)}
    outputs = {name: model.labels.index(output) for name, output in own.items()}
    shown = list(model.labels)
    for name, at in outputs.items():
        shown[at] = name

    tested = dict.fromkeys(case.capability for case in suite.cases)
    named = [name for name in {**dict.fromkeys(suite.about), **tested} if name in tested]
    found: list[Failure | None] = []
    for case in suite.cases:
        after = None if case.changed is None else scores_nC[row[case.changed]]
        found.append(_judged(case, scores_nC[row[case.text]], after, outputs, shown))
    failures = np.array([failure is not None for failure in found], np.float64)
    cut = np.array([each.truncated for each in predictions])
    if cut.any():
        notes.append(
            f"{int((cut > 0).sum())} of {len(cut)} texts lost {int(cut.sum())} tokens (long={model.task.long!r}): "
            "the model was judged by what was left."
        )
    return Behaviour(
        model=model.name,
        suite=suite.name,
        outcomes=tuple(_outcome(name, suite, failures, found) for name in named),
        failure_rate=_rate(votes(suite, failures)),
        failures=failures,
        truncated_texts=int((cut > 0).sum()),
        truncated_tokens=int(cut.sum()),
        notes=(*suite.notes, *notes),
    )


def votes(suite: Suite, failures: np.ndarray, capability: str | None = None) -> np.ndarray:
    """(w,) how much of each written case, of all or of one capability, fails: the mean over what it expands to.

    failures: (n,) as in `Behaviour`, for each case of the suite.
    """
    chosen = [capability in (None, case.capability) for case in suite.cases]
    written = np.array([case.written for case in suite.cases])[chosen]
    _, whose = np.unique(written, return_inverse=True)
    return np.bincount(whose, failures[chosen]) / np.bincount(whose)


def _rate(shares: np.ndarray) -> Interval:
    if shares.min() == shares.max() in (0.0, 1.0):  # a bootstrap would be certain
        return wilson(int(shares.sum()), len(shares))
    rows = np.stack([shares, np.ones(len(shares))], 1)
    return Counted("failure rate", rows, lambda sums: ratio(sums[:, 0], sums[:, 1])).interval()


def own_names(model: Model, suite: Suite, labels: Mapping[str, str] | None) -> tuple[dict[str, str], list[str]]:
    """What the model calls each label of the suite, and what there is to say about it. labels: as in `run_suite`.

    Raises:
        InputError: the model lacks one of them, or a name in `labels` is not known.
    """
    if not model.labels:
        raise InputError(f"{model.name} has no labels; give a classifier, such as one that finetune made.")
    wanted = list(dict.fromkeys(case.label for case in suite.cases if case.label is not None))
    for name, output in (labels or {}).items():
        if name not in wanted:
            raise InputError(f"labels names {name!r}, which no case of suite {suite.name} has: {nearest(name, wanted)}")
        if output not in model.labels:
            known = nearest(str(output), model.labels)
            raise InputError(f"labels maps {name!r} to {output!r}, which is no label of {model.name}: {known}")
    own = {name: (labels or {}).get(name, name) for name in wanted}
    if labels and len({*own.values()}) < len(own):
        said = ", ".join(f"{name!r} is {output!r}" for name, output in own.items())
        raise InputError(f"labels calls two labels of suite {suite.name} the same: {said}. Give each its own.")
    lacking = [name for name in wanted if own[name] not in model.labels]
    if not lacking:
        return own, []
    spelt = {label.lower(): label for label in model.labels}
    usual = [{name: name.lower() for name in wanted}]
    if {"negative", "positive"}.issuperset(wanted):
        usual += [pair for pair in PAIRS if set(pair.values()) == spelt.keys()]
    for pair in usual if labels is None else ():
        if all(pair[name] in spelt for name in wanted):
            own = {name: spelt[output] for name, output in pair.items()}
            said = ", ".join(f"{output!r} for {name!r}" for name, output in own.items())
            return own, [f"The model's labels are taken by their usual meaning: {said}."]
    raise InputError(
        f"There is no label {', '.join(map(repr, lacking))} of the suite {suite.name} among those of {model.name} or the "
        f"data, {', '.join(map(repr, model.labels))}. Say what each of {', '.join(wanted)} is called there: "
        f"--suite-labels {','.join(f'{name}=...' for name in wanted)}, in Python "
        f"labels={{{', '.join(f'{name!r}: ...' for name in wanted)}}}. Leave the cases of one that is not there out of the "
        "suite."
    )


def _judged(
    case: Case, before: np.ndarray, after: np.ndarray | None, outputs: Mapping[str, int], shown: Sequence[str]
) -> Failure | None:
    """The failure, if it is one. before, after: (C,) the scores of the text and of the changed one."""

    def failure(expected: str, predicted: int, score: float, by: float, first: float | None = None) -> Failure:
        about = case.place, case.text, case.changed, case.change, expected, shown[predicted]
        return Failure(*about, float(score), None if first is None else float(first), float(by))

    top = int(before.argmax())
    if case.unsure:
        over = before[top] - SURE
        return failure(f"no label above {SURE}", top, before[top], over) if over > 0 else None
    if after is None:
        assert case.label is not None
        right = outputs[case.label]
        return None if top == right else failure(case.label, top, before[top], before[top] - before[right])
    now = int(after.argmax())
    if case.test == "invariance":
        if now == top:
            return None
        return failure(shown[top], now, after[now], before[top] - after[top], before[now])
    at = top if case.label is None else outputs[case.label]
    up = case.moves == "up"
    lacks = case.least - (after[at] - before[at] if up else before[at] - after[at])
    if lacks <= NOISE or (after[at] > 1 - FAR if up else after[at] < FAR):
        return None
    least = f" by {case.least:g}" if case.least > 0 else f", {-case.least:g} forgiven" if case.least < 0 else ""
    return failure(f"{shown[at]} {case.moves}{least}", now, after[at], lacks, before[at])


def _outcome(name: str, suite: Suite, failures: np.ndarray, found: Sequence[Failure | None]) -> Outcome:
    mine = [(case, failure) for case, failure in zip(suite.cases, found, strict=True) if case.capability == name]
    worst: dict[int, Failure] = {}
    for case, failure in mine:
        if failure is not None and (case.written not in worst or failure.by > worst[case.written].by):
            worst[case.written] = failure
    shares = votes(suite, failures, name)
    return Outcome(
        capability=name,
        about=suite.about.get(name, ""),
        test=" and ".join(dict.fromkeys(case.test for case, _ in mine)),
        cases=len(shares),
        expanded=len(mine),
        failure_rate=_rate(shares),
        worst=tuple(sorted(worst.values(), key=lambda failure: -failure.by)[:WORST]),
    )


def _percent(rate: Interval) -> str:
    return f"{rate.value:6.1%} [{rate.low:.1%}, {rate.high:.1%}]"
