"""Accuracy and F1 of a classifier, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozeline.evaluate.intervals import Interval, percentile


@dataclass(frozen=True)
class Report:
    """What `evaluate` found. confusion: (C, C), true label by predicted label; f1: by label; loss: mean cross-entropy.

    truncated_texts, truncated_tokens: what the long-text policy cost.
    """

    examples: int
    labels: tuple[str, ...]
    accuracy: Interval
    macro_f1: Interval
    f1: dict[str, float]
    loss: float
    confusion: np.ndarray
    truncated_texts: int
    truncated_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "examples": self.examples,
            "accuracy": self.accuracy.value,
            "accuracy_interval": [self.accuracy.low, self.accuracy.high],
            "macro_f1": self.macro_f1.value,
            "macro_f1_interval": [self.macro_f1.low, self.macro_f1.high],
            "f1": self.f1,
            "loss": self.loss,
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "truncated_texts": self.truncated_texts,
            "truncated_tokens": self.truncated_tokens,
        }

    def __str__(self) -> str:
        width = max(len(label) for label in self.labels)
        rows = [
            f"  {label:<{width}}  F1 {self.f1[label]:.4f}  of {int(total):>6}  predicted {int(guessed):>6}"
            for label, total, guessed in zip(self.labels, self.confusion.sum(1), self.confusion.sum(0), strict=True)
        ]
        cut = (
            f", {self.truncated_texts} texts truncated by {self.truncated_tokens} tokens"
            if self.truncated_texts
            else ""
        )
        return "\n".join(
            [
                f"accuracy {self.accuracy}  macro F1 {self.macro_f1}  (95 % intervals, {self.examples} examples{cut})",
                *rows,
            ]
        )


def report(logits: np.ndarray, targets: np.ndarray, labels: Sequence[str], cut: np.ndarray, seed: int = 0) -> Report:
    """Metrics of (n, C) logits against (n,) targets. `cut`: (n,) tokens of each text that the model did not see."""
    size = len(labels)
    confusion = np.bincount(targets * size + logits.argmax(1), minlength=size * size).reshape(size, size)
    # resampling n examples with replacement is a multinomial draw over the cells of the table
    draws = np.random.default_rng(seed).multinomial(len(targets), confusion.ravel() / len(targets), size=1000)
    resampled = draws.reshape(-1, size, size)
    f1 = _f1(confusion[None])[0]
    present = (
        confusion.sum(0) + confusion.sum(1)
    ) > 0  # as scikit-learn: labels neither there nor predicted do not count
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(targets)), targets]
    return Report(
        examples=len(targets),
        labels=tuple(labels),
        accuracy=percentile(np.trace(confusion) / len(targets), resampled.trace(axis1=1, axis2=2) / len(targets)),
        macro_f1=percentile(f1[present].mean(), _f1(resampled)[:, present].mean(1)),
        f1=dict(zip(labels, f1.tolist(), strict=True)),
        loss=float(losses.mean()),
        confusion=confusion,
        truncated_texts=int((cut > 0).sum()),
        truncated_tokens=int(cut.sum()),
    )


def _f1(tables: np.ndarray) -> np.ndarray:
    """(k, C, C) tables -> (k, C): 2 tp / (2 tp + fp + fn), and 0 for a label neither there nor predicted."""
    right = np.diagonal(tables, axis1=1, axis2=2)
    both = tables.sum(1) + tables.sum(2)
    return np.divide(2 * right, both, out=np.zeros(right.shape), where=both > 0)
