"""Multi-label classification: any number of labels for each text, none included.

Data: a column of texts and one of labels, a JSON list or a text with | or ; between names; or a column of 0 and 1 for each
label, given by their names.

    text,labels                                   text,toxic,insult
    "They won the cup and the vote.",sport|politics   "Get lost, you fool.",1,1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import mean_by_owner
from clozeline.data import checks
from clozeline.data.checks import Item
from clozeline.data.labels import classes
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import Columns, Example
from clozeline.errors import InputError, nearest
from clozeline.evaluate import multilabel
from clozeline.evaluate.intervals import Counted
from clozeline.tasks import supervised
from clozeline.tasks.supervised import Check, Supervised
from clozeline.tokenizer import LongText, Tokenizer


@dataclass(frozen=True, slots=True)
class LabelSet:
    """labels: those whose probability is at least the threshold; scores: the probability of every label by itself.

    tokens: content tokens of the text; truncated: how many of them the model did not see.
    """

    labels: tuple[str, ...]
    scores: dict[str, float]
    tokens: int
    truncated: int

    def rows(self) -> list[tuple[str, ...]]:
        """The prediction as columns of text."""
        return [("|".join(self.labels), " ".join(f"{self.scores[label]:.4f}" for label in self.labels))]


@dataclass(frozen=True)
class MultiLabelClassification(Supervised):
    """What to learn from texts with sets of labels.

    Args:
        labels, long, max_length: as in `TextClassification`.
        class_weights: a label's factor in the loss of the texts that have it; "balanced" is the ratio of the texts that lack
            it to those that have it.
        threshold: least probability of a label that is predicted.

    Raises:
        InputError: labels that repeat, weights for labels that are not there, or a number that cannot be.
    """

    labels: Sequence[str] = ()
    long: LongText = "truncate"
    max_length: int | None = None
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    threshold: float = 0.5
    name: ClassVar[str] = "multi-label-classification"
    head: ClassVar[str] = "text_classification"
    metrics: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_f1", "exact")

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", supervised.check_names(self.labels, least=1))
        supervised.check_weights(self.class_weights, self.outputs)
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}; it is a probability between 0 and 1.")

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.labels)

    def with_outputs(self, names: Iterable[str]) -> Self:
        return replace(self, labels=tuple(names))

    def settled(self, examples: Sequence[Example], source: str, columns: Columns) -> Self:
        if self.labels:
            return self
        if columns.label is not None and not isinstance(columns.label, str) and len(columns.label) > 1:
            return self.with_outputs(columns.label)  # a column each, some perhaps without a 1
        return self.with_outputs(
            supervised.settled_labels({name for each in examples for name in _names(each)}, source, least=1)
        )

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        threshold = float(supervised.ours(raw).get("threshold", 0.5))
        return cls(supervised.output_names(raw), **supervised.policy(raw, "truncate"), threshold=threshold)

    def raw(self) -> dict[str, Any]:
        return {
            **supervised.output_raw(self.outputs),
            "problem_type": "multi_label_classification",
            "clozeline": self.kept() | {"threshold": self.threshold},
        }

    def example(self, text: Any, other: Any, place: str) -> Example:
        return supervised.text_example(text, other, place)

    def read(self, source: str | Path, split: str, columns: Columns) -> list[Example]:
        found = supervised.labelled(source, split, columns, classes)
        given = (columns.label,) if isinstance(columns.label, str) else tuple(columns.label or ())
        marks = all(example.label in (("0",), ("1",)) for example in found)
        if len(given) > 1 or not marks or not {*given} <= {*(self.labels or given)}:
            return found
        # one column of 0 and 1 that was given by its name is a label, not two
        return [replace(each, label=given if each.label == ("1",) else ()) for each in found] if given else found

    def samples(self, tokenizer: Tokenizer, examples: Sequence[Example], *, targets: bool = True) -> Samples:
        """Targets: (n, C) fp32, 1 where a text has a label."""
        if not targets:
            return supervised.text_samples(self, tokenizer, examples, None)
        marks = np.zeros((len(examples), len(self.labels)), dtype=np.float32)
        for row, example in zip(marks, examples, strict=True):
            for name in _names(example):
                if name not in self.labels:
                    raise InputError(f"{example.place}: unknown label {name!r}; {nearest(name, self.outputs)}")
                row[self.labels.index(name)] = 1
        return supervised.text_samples(self, tokenizer, examples, marks)

    def lacks(self, train: Samples, validation: Samples | None) -> list[str]:
        counts = self.counts(train)
        advice = 'class_weights="balanced" gives it weight, and macro F1 shows what micro F1 hides'
        said = checks.rare(counts, "training texts", advice, least=checks.MATTERS * len(train))
        return said + supervised.missing(counts, None if validation is None else self.counts(validation))

    def weights(self, samples: Samples) -> Tensor | None:
        """(C,) the factor of a label's positive texts."""
        assert samples.targets is not None
        if self.class_weights == "balanced":
            having = samples.targets.sum(0)
            return torch.from_numpy(np.maximum(len(samples) - having, 1) / np.maximum(having, 1)).float()
        return supervised.given_weights(self.class_weights, self.outputs)

    def loss(self, logits: Tensor, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of each label by itself; the weight is their number."""
        logits_nC = logits if batch.owners is None else mean_by_owner(logits, batch.owners)
        assert batch.targets is not None
        total = F.binary_cross_entropy_with_logits(logits_nC, batch.targets, pos_weight=weights_C, reduction="sum")
        return total, logits_nC.new_tensor(logits_nC.numel())

    def taught(self, logits: Tensor, theirs: Tensor, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """The divergence of each label's probability by itself."""
        both = (x if batch.owners is None else mean_by_owner(x, batch.owners) for x in (logits, theirs))
        mine_nC, theirs_nC = (
            torch.stack([F.logsigmoid(x / temperature), F.logsigmoid(-x / temperature)]) for x in both
        )
        total = F.kl_div(mine_nC, theirs_nC, reduction="sum", log_target=True) * temperature**2
        return total, total.new_tensor(mine_nC[0].numel())

    def answered(self, logits: np.ndarray, samples: Samples) -> Samples:
        found = self._probabilities(samples.mean(logits)) >= self.threshold
        return replace(samples, targets=found.astype(np.float32))

    def answer_count(self, samples: Samples) -> int:
        return len(samples) * len(self.labels)

    def check(self, logits: np.ndarray, samples: Samples) -> Check:
        rows, targets = samples.mean(logits), samples.targets
        assert targets is not None
        found = self._probabilities(rows) >= self.threshold
        counts = found.sum(0).tolist()
        loss = F.binary_cross_entropy_with_logits(torch.from_numpy(rows), torch.from_numpy(targets)).item()
        scores = multilabel.measures(rows, targets, self.threshold)
        none = not found.any() and bool(targets.any())
        every = len(found) > 1 and bool(found.all()) and not targets.all()
        collapsed = "no label" if none else "every label" if every else None
        return Check(loss, scores, dict(zip(self.labels, counts, strict=True)), collapsed)

    def decode(self, logits: np.ndarray, samples: Samples) -> list[LabelSet]:
        return [
            LabelSet(
                tuple(label for label, score in zip(self.labels, row, strict=True) if score >= self.threshold),
                dict(zip(self.labels, row, strict=True)),
                int(seen),
                int(lost),
            )
            for row, seen, lost in zip(
                self._probabilities(samples.mean(logits)).tolist(), samples.tokens, samples.cut, strict=True
            )
        ]

    def report(self, logits: np.ndarray, samples: Samples) -> multilabel.MultiLabelReport:
        assert samples.targets is not None
        rows = samples.mean(logits)
        seen: dict[str, Any] = dict(cut=samples.cut, windows=samples.windows)
        return multilabel.report(rows, samples.targets, self.outputs, threshold=self.threshold, **seen)

    def counted(self, logits: np.ndarray, samples: Samples, metric: str | None = None) -> Counted:
        assert samples.targets is not None
        return multilabel.counted(samples.mean(logits), samples.targets, self.threshold, metric or "micro_f1")

    def item(self, example: Example) -> Item:
        return super().item(example)._replace(label=frozenset(_names(example)))

    def counts(self, samples: Samples) -> dict[str, int]:
        assert samples.targets is not None
        return dict(zip(self.labels, samples.targets.sum(0).astype(int).tolist(), strict=True))

    @staticmethod
    def _probabilities(logits: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = torch.sigmoid(torch.from_numpy(logits).double()).numpy()
        return probabilities


def _names(example: Example) -> tuple[str, ...]:
    assert isinstance(example.label, tuple)
    return tuple(str(name) for name in example.label)
