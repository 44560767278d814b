"""Accuracy, F1, Matthews correlation and calibration of a classifier, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clozeline.evaluate.calibration import Reliability, cross_entropy, reliability
from clozeline.evaluate.cost import Cost, cost_of
from clozeline.evaluate.counts import ratio
from clozeline.evaluate.intervals import CELLS, RESAMPLES, Counted, Interval, percentile
from clozeline.files import staged

NAMED = 40
"""Labels that a figure has room to name."""


@dataclass(frozen=True)
class Report(Cost):
    """What `evaluate` found.

    confusion: (C, C), true label by predicted label; f1, precision, recall: by label; mcc: Matthews correlation, -1 to
    1; loss: mean cross-entropy; ece: expected calibration error (Guo et al. 2017, 15 bins). loss, ece and reliability
    are of the logits divided by `temperature`.
    """

    examples: int
    labels: tuple[str, ...]
    accuracy: Interval
    macro_f1: Interval
    mcc: Interval
    f1: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]
    loss: float
    ece: float
    temperature: float
    confusion: np.ndarray
    reliability: Reliability

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "examples": self.examples,
            **self.accuracy.named("accuracy"),
            **self.macro_f1.named("macro_f1"),
            **self.mcc.named("mcc"),
            "f1": self.f1,
            "precision": self.precision,
            "recall": self.recall,
            "loss": self.loss,
            "ece": self.ece,
            "temperature": self.temperature,
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            **self.cost(),
        }

    def __str__(self) -> str:
        width = max(len(label) for label in self.labels)
        rows = [
            f"  {label:<{width}}  F1 {self.f1[label]:.4f}  precision {self.precision[label]:.4f}"
            f"  recall {self.recall[label]:.4f}  of {int(total):>6}  predicted {int(guessed):>6}"
            for label, total, guessed in zip(self.labels, self.confusion.sum(1), self.confusion.sum(0), strict=True)
        ]
        warmth = f"  at temperature {self.temperature:.4g}" if self.temperature != 1 else ""
        read = f"(95 % intervals, {self.examples} examples{self.cost_said()})"
        return "\n".join(
            [
                f"accuracy {self.accuracy}  macro F1 {self.macro_f1}  {read}",
                f"Matthews correlation {self.mcc}  loss {self.loss:.4f}  calibration error {self.ece:.4f}{warmth}",
                *rows,
            ]
        )

    def figure(self, path: str | Path) -> None:
        """A PNG: the confusion matrix, coloured by share of the true label, and how accuracy follows confidence.

        Raises:
            InputError: the place cannot be written.
        """
        from matplotlib.figure import Figure

        path, size = Path(path), len(self.labels)
        figure = Figure(figsize=(11, 5), layout="constrained")
        left, right = figure.subplots(1, 2)
        shares = ratio(self.confusion, np.broadcast_to(self.confusion.sum(1, keepdims=True), self.confusion.shape))
        left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if size <= NAMED:
            left.set_xticks(range(size), self.labels, rotation=45 if size <= 10 else 90, ha="right")
            left.set_yticks(range(size), self.labels)
        for row, column in np.ndindex(size, size) if size <= 12 else ():
            shade = "white" if shares[row, column] > 0.5 else "black"
            left.text(column, row, f"{self.confusion[row, column]}", ha="center", va="center", color=shade)
        left.set(xlabel="predicted", ylabel="true", title=f"accuracy {self.accuracy}")
        bins, filled = self.reliability, self.reliability.counts > 0
        widths = np.diff(bins.edges)
        right.bar(
            bins.edges[:-1], bins.counts / self.examples, widths, align="edge", color="0.85", label="share of texts"
        )
        right.plot([0, 1], [0, 1], ":", color="0.4", label="accuracy equals confidence")
        right.plot(bins.confidence[filled], bins.accuracy[filled], "o-", color="C0", label="accuracy")
        right.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02), title=f"calibration error {self.ece:.4f}")
        right.legend(loc="upper left")
        with staged(path.parent) as stage:
            figure.savefig(stage / path.name, dpi=120, format="png")


def report(
    logits: np.ndarray,
    targets: np.ndarray,
    labels: Sequence[str],
    cut: np.ndarray,
    seed: int = 0,
    *,
    temperature: float = 1.0,
    windows: np.ndarray | None = None,
) -> Report:
    """Metrics of (n, C) logits against (n,) targets. cut, windows: (n,) as in `cost_of`."""
    size, examples = len(labels), len(targets)
    confusion = _confusion(logits, targets)
    # resampling n examples with replacement is a multinomial draw over the cells of the table
    random, some = np.random.default_rng(seed), max(1, CELLS // size**2)
    resampled = np.concatenate(
        [
            _sums(random.multinomial(examples, confusion.ravel() / examples, min(some, RESAMPLES - at)), size)
            for at in range(0, RESAMPLES, some)
        ]
    )
    sums = _sums(confusion[None], size)
    right, there, guessed = sums[0]
    present = there + guessed > 0
    scaled = logits.astype(np.float64) / temperature
    bins = reliability(scaled, targets)
    return Report(
        examples=examples,
        labels=tuple(labels),
        accuracy=percentile(right.sum() / examples, resampled[:, 0].sum(1) / examples),
        macro_f1=percentile(_macro(sums, present)[0], _macro(resampled, present)),
        mcc=percentile(_matthews(sums)[0], _matthews(resampled)),
        f1=dict(zip(labels, _f1(sums)[0].tolist(), strict=True)),
        precision=dict(zip(labels, ratio(right, guessed).tolist(), strict=True)),
        recall=dict(zip(labels, ratio(right, there).tolist(), strict=True)),
        loss=cross_entropy(scaled, targets),
        ece=bins.ece,
        temperature=temperature,
        confusion=confusion,
        reliability=bins,
        **cost_of(cut, windows),
    )


def measures(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews correlation without intervals: quick enough for each epoch."""
    sums = _sums(_confusion(logits, targets), logits.shape[1])
    macro = _macro(sums, sums[0, 1:].sum(0) > 0)[0]
    return {
        "accuracy": float((logits.argmax(1) == targets).mean()),
        "macro_f1": float(macro),
        "mcc": float(_matthews(sums)[0]),
    }


def counted(logits: np.ndarray, targets: np.ndarray, metric: str = "accuracy") -> Counted:
    """The accuracy, macro_f1 or mcc of (n, C) logits against (n,) targets.

    Macro F1 is the mean over the labels that the summed examples have or are given.
    """
    if metric != "accuracy":
        size, given = logits.shape[1], logits.argmax(1)
        there, guessed = np.eye(size)[targets], np.eye(size)[given]
        rows = np.concatenate([there * guessed, there, guessed], 1)
        measure = {"macro_f1": _macro_of_those_there, "mcc": _matthews}[metric]
        name = {"macro_f1": "macro F1", "mcc": "Matthews correlation"}[metric]
        return Counted(name, rows, lambda sums: measure(sums.reshape(-1, 3, size)))
    right = logits.argmax(1) == targets
    return Counted("accuracy", np.stack([right, np.ones(len(right))], 1), lambda sums: ratio(sums[:, 0], sums[:, 1]))


def _confusion(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C, C): how many examples have each label, by the predicted one."""
    size = logits.shape[1]
    return np.bincount(targets * size + logits.argmax(1), minlength=size * size).reshape(size, size)


def _sums(tables: np.ndarray, size: int) -> np.ndarray:
    """k tables of C x C cells -> (k, 3, C): how many of each label are right, there and predicted."""
    tables = tables.reshape(-1, size, size)
    return np.stack([np.diagonal(tables, axis1=1, axis2=2), tables.sum(2), tables.sum(1)], 1).astype(np.float64)


def _f1(sums: np.ndarray) -> np.ndarray:
    """(k, 3, C) -> (k, C): 2 tp / (2 tp + fp + fn), and 0 for a label neither there nor predicted."""
    return ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])


def _macro(sums: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(k, 3, C) -> (k,): mean F1, as scikit-learn without the labels that are neither there nor predicted."""
    return _f1(sums)[:, present].mean(1)


def _macro_of_those_there(sums: np.ndarray) -> np.ndarray:
    """(k, 3, C) -> (k,): as `_macro`, with the labels that are there or predicted in each of the k."""
    return ratio(_f1(sums).sum(1), (sums[:, 1:].sum(1) > 0).sum(1))


def _matthews(sums: np.ndarray) -> np.ndarray:
    """(k, 3, C) -> (k,): the multi-class form of Gorodkin 2004, and 0 where all texts have or are given one label."""
    right, there, guessed = sums[:, 0].sum(1), sums[:, 1], sums[:, 2]
    total = there.sum(1)
    both = (total**2 - (there**2).sum(1)) * (total**2 - (guessed**2).sum(1))
    return ratio(right * total - (there * guessed).sum(1), np.sqrt(both))
