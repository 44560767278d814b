"""Regression: one number, or several, for each text or pair of texts, such as how alike two sentences are.

Data: a column of texts, perhaps a second one, and a column for each number.

    sentence1,sentence2,score
    "A plane is taking off.","An air plane is taking off.",5.0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from clozeline.batch import mean_by_owner
from clozeline.data.labels import numbers
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import LABEL_NAMES, Columns, Example
from clozeline.errors import InputError
from clozeline.evaluate import regression
from clozeline.evaluate.intervals import Counted
from clozeline.tasks import supervised
from clozeline.tasks.supervised import Check, Supervised
from clozeline.tokenizer import LongText, Tokenizer


@dataclass(frozen=True, slots=True)
class Estimate:
    """values: each target's number by name; tokens, truncated: content tokens of the text, and how many were not seen."""

    values: dict[str, float]
    tokens: int
    truncated: int

    def rows(self) -> list[tuple[str, ...]]:
        """The prediction as columns of text."""
        return [tuple(f"{value:.4f}" for value in self.values.values())]


CONSTANT = 0.01
"""Of the targets' spread: predictions that spread less than that are all the same."""


@dataclass(frozen=True)
class Regression(Supervised):
    """What to learn from texts with numbers.

    Args:
        targets: names of the numbers in the order of the model's outputs. Empty: the label columns of the training data.
        long, max_length: as in `TextClassification`; of a text in windows, the mean over them.

    Raises:
        InputError: names that repeat.
    """

    targets: Sequence[str] = ()
    long: LongText = "truncate"
    max_length: int | None = None
    name: ClassVar[str] = "regression"
    head: ClassVar[str] = "text_classification"
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    def __post_init__(self) -> None:
        names = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        if len(set(names)) < len(names):
            raise InputError(f"targets are {', '.join(names)}; each must have a name of its own.")
        object.__setattr__(self, "targets", names)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.targets)

    def with_outputs(self, names: Iterable[str]) -> Self:
        return replace(self, targets=tuple(names))

    def settled(self, examples: Sequence[Example], source: str, columns: Columns) -> Self:
        names = [columns.label] if isinstance(columns.label, str) else columns.label or ["score"]
        return self if self.targets else replace(self, targets=names)

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        return cls(supervised.output_names(raw), **supervised.policy(raw, "truncate"))

    def raw(self) -> dict[str, Any]:
        return {**supervised.output_raw(self.outputs), "problem_type": "regression", "clozeline": self.kept()}

    def example(self, text: Any, other: Any, place: str) -> Example:
        return supervised.text_example(text, other, place)

    def read(self, source: str | Path, split: str, columns: Columns) -> list[Example]:
        return supervised.labelled(source, split, columns, numbers, usual=(*LABEL_NAMES, "score"))

    def samples(self, tokenizer: Tokenizer, examples: Sequence[Example], *, targets: bool = True) -> Samples:
        """Targets: (n, K) fp32."""
        if not targets:
            return supervised.text_samples(self, tokenizer, examples, None)
        values = np.asarray([example.label for example in examples], dtype=np.float32)
        if values.shape[1] != len(self.targets):
            names = ", ".join(self.targets)
            raise InputError(
                f"{examples[0].place}: there are {values.shape[1]} numbers; the model has {len(self.targets)}, {names}. "
                "Give a label column for each."
            )
        return supervised.text_samples(self, tokenizer, examples, values)

    def loss(self, logits: Tensor, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """Squared error; the weight is the number of values."""
        values_nK = logits if batch.owners is None else mean_by_owner(logits, batch.owners)
        assert batch.targets is not None
        return (values_nK - batch.targets).square().sum(), values_nK.new_tensor(values_nK.numel())

    def taught(self, logits: Tensor, theirs: Tensor, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """Squared distance from the teacher's values, whatever the temperature."""
        values_nK = theirs if batch.owners is None else mean_by_owner(theirs, batch.owners)
        return self.loss(logits, replace(batch, targets=values_nK), None)

    def answered(self, logits: np.ndarray, samples: Samples) -> Samples:
        return replace(samples, targets=samples.mean(logits).astype(np.float32))

    def answer_count(self, samples: Samples) -> int:
        return len(samples) * len(self.targets)

    def check(self, logits: np.ndarray, samples: Samples) -> Check:
        values, targets = samples.mean(logits), samples.targets
        assert targets is not None
        scores = regression.measures(values, targets)
        constant = values.std(0) < CONSTANT * targets.std(0)
        about = ", ".join(f"{value:.4g}" for value in values.mean(0))
        loss = float(np.square(values - targets).mean())
        return Check(loss, scores, collapsed=f"about {about}" if constant.all() else None)

    def decode(self, logits: np.ndarray, samples: Samples) -> list[Estimate]:
        rows = samples.mean(logits).tolist()
        return [
            Estimate(dict(zip(self.targets, row, strict=True)), int(seen), int(lost))
            for row, seen, lost in zip(rows, samples.tokens, samples.cut, strict=True)
        ]

    def report(self, logits: np.ndarray, samples: Samples) -> regression.RegressionReport:
        assert samples.targets is not None
        values, seen = samples.mean(logits), samples.windows
        return regression.report(values, samples.targets, self.outputs, samples.cut, windows=seen)

    def counted(self, logits: np.ndarray, samples: Samples, metric: str | None = None) -> Counted:
        assert samples.targets is not None
        return regression.counted(samples.mean(logits), samples.targets)
