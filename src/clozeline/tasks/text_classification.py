"""Text classification: one label for each text, or for each pair of texts (entailment, paraphrase).

Data: a column of texts, perhaps a second one, and a column of labels. A soft label is an object of shares (JSON, Parquet).

    text,label                              premise,hypothesis,label
    "A joy from start to end.",positive     "A man sleeps.","He is awake.",contradiction

    {"text": "Could have been worse.", "label": {"positive": 0.7, "negative": 0.3}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import mean_by_owner
from clozeline.data.labels import class_or_shares
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import Columns, Example
from clozeline.errors import InputError, nearest
from clozeline.evaluate import calibration, classification
from clozeline.evaluate.calibration import cross_entropy, softmax
from clozeline.evaluate.intervals import Counted
from clozeline.tasks import supervised
from clozeline.tasks.supervised import Check, Supervised
from clozeline.tokenizer import LongText, Tokenizer


@dataclass(frozen=True, slots=True)
class Prediction:
    """label: the most probable one; score: its probability; scores: the probability of every label.

    tokens: content tokens of the text; truncated: how many of them the model did not see.
    """

    label: str
    score: float
    scores: dict[str, float]
    tokens: int
    truncated: int

    def rows(self) -> list[tuple[str, ...]]:
        """The prediction as columns of text."""
        return [(self.label, f"{self.score:.4f}")]


@dataclass(frozen=True)
class TextClassification(Supervised):
    """What to learn from labelled texts, and how a text becomes a label.

    Args:
        labels: the names in the order of the model's outputs. Empty: those of the checkpoint, or of the training data.
        long: what happens to a text longer than the model: "truncate", "head_tail", "window" (the text's logits are the
            mean over its windows, in training as in prediction) or "error".
        max_length: tokens a sequence may have; None is what the model reads at once.
        class_weights: a label's factor in the training loss; "balanced" makes every label count the same in sum.
        label_smoothing: share of each target spread over all labels (Szegedy et al. 2016), such as 0.1.
        focal: exponent of the focal loss (Lin et al. 2017), which makes easy examples count less; 0 is cross-entropy.
        calibrate: fit a temperature to the validation data at the end of training (Guo et al. 2017), so that scores are
            probabilities to be believed; labels stay as they are.
        temperature: what logits are divided by before scores are made of them; a training begins with 1 again.

    Raises:
        InputError: labels that repeat, weights for labels that are not there, or a number that cannot be.
    """

    labels: Sequence[str] = ()
    long: LongText = "truncate"
    max_length: int | None = None
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    label_smoothing: float = 0.0
    focal: float = 0.0
    calibrate: bool = False
    temperature: float = field(default=1.0, kw_only=True)
    fitted_later: ClassVar[tuple[str, ...]] = ("temperature",)
    name: ClassVar[str] = "text-classification"
    head: ClassVar[str] = "text_classification"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "mcc")

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", supervised.check_names(self.labels))
        supervised.check_weights(self.class_weights, self.outputs)
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}; it is a share from 0 to below 1.")
        if not self.focal >= 0:
            raise InputError(f"focal is {self.focal}; it must not be negative.")

    # -- labels and the checkpoint's config.json

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.labels)

    def with_outputs(self, names: Iterable[str]) -> Self:
        return replace(self, labels=tuple(names))

    def settled(self, examples: Sequence[Example], source: str, columns: Columns) -> Self:
        if self.labels:
            return self
        found: set[str] = set()
        for example in examples:
            assert isinstance(example.label, str | dict)
            found.update([example.label] if isinstance(example.label, str) else example.label)
        return self.with_outputs(supervised.settled_labels(found, source))

    def untuned(self) -> Self:
        return replace(self, temperature=1.0)

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        temperature = float(supervised.ours(raw).get("temperature", 1.0))
        return cls(labels=supervised.output_names(raw), **supervised.policy(raw, "truncate"), temperature=temperature)

    def raw(self) -> dict[str, Any]:
        tuned = {} if self.temperature == 1 else {"temperature": self.temperature}
        return {
            **supervised.output_raw(self.outputs),
            "problem_type": "single_label_classification",
            "clozeline": self.kept() | tuned,
        }

    def target(self, example: Example) -> int:
        """The output that stands for an example's label, by name; or by number, where the data has 0, 1, ... for names.

        Raises:
            InputError: the label is none of `labels`; the place and the nearest one are named.
        """
        assert isinstance(example.label, str)
        return self._output(example.label, example.place)

    def _output(self, label: str, place: str) -> int:
        if label in self.labels:
            return self.labels.index(label)
        numbered = not any(label.isdecimal() for label in self.labels)
        if numbered and label.isdecimal() and int(label) < len(self.labels):
            return int(label)
        raise InputError(f"{place}: unknown label {label!r}; {nearest(label, self.labels)}")

    # -- examples to batches

    def example(self, text: Any, other: Any, place: str) -> Example:
        return supervised.text_example(text, other, place)

    def read(self, source: str | Path, split: str, columns: Columns) -> list[Example]:
        return supervised.labelled(source, split, columns, class_or_shares)

    def samples(self, tokenizer: Tokenizer, examples: Sequence[Example], *, targets: bool = True) -> Samples:
        """Targets: (n,) int64; or where any label is soft (n, C) fp32, each row's sum 1."""
        if not targets:
            return supervised.text_samples(self, tokenizer, examples, None)
        if all(isinstance(example.label, str) for example in examples):
            chosen = np.asarray([self.target(example) for example in examples], dtype=np.int64)
            return supervised.text_samples(self, tokenizer, examples, chosen)
        shares = np.zeros((len(examples), len(self.labels)), dtype=np.float32)
        for row, example in zip(shares, examples, strict=True):
            label = {example.label: 1.0} if isinstance(example.label, str) else example.label
            assert isinstance(label, dict)
            for name, share in label.items():
                row[self._output(name, example.place)] += share
        return supervised.text_samples(self, tokenizer, examples, shares)

    def lacks(self, train: Samples, validation: Samples | None) -> list[str]:
        counts = self.counts(train)
        checked = None if validation is None else self.counts(validation)
        if sum(count > 0 for count in counts.values()) < 2:
            only = next(label for label, count in counts.items() if count)
            raise InputError(f"The training data has one label only, {only!r}; a classifier needs two or more.")
        if self.calibrate and checked is None:
            raise InputError(
                "calibrate fits a temperature to validation data; give validation data, or leave calibrate out."
            )
        said = []
        if self.calibrate and checked is not None and sum(count > 0 for count in checked.values()) < 2:
            said.append("The validation data has one label only: no temperature can be fitted to it, and it stays 1.")
        return said + supervised.missing(counts, checked)

    # -- network to results

    def weights(self, samples: Samples) -> Tensor | None:
        if self.class_weights == "balanced":
            shares = self._shares(samples.targets).sum(0)
            return torch.from_numpy(shares.sum() / (len(self.labels) * np.maximum(shares, 1))).float()
        return supervised.given_weights(self.class_weights, self.outputs)

    def loss(self, logits: Tensor, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cross-entropy, of a text in windows from the mean of its logits; its weight is the sum of the label weights."""
        logits_nC = logits if batch.owners is None else mean_by_owner(logits, batch.owners)
        targets = batch.targets
        assert targets is not None
        if targets.dim() == 1 and not self.focal:
            total = F.cross_entropy(
                logits_nC, targets, weight=weights_C, reduction="sum", label_smoothing=self.label_smoothing
            )
            return total, (targets.new_tensor(len(targets)).float() if weights_C is None else weights_C[targets].sum())
        classes = logits_nC.shape[1]
        shares_nC = F.one_hot(targets, classes).float() if targets.dim() == 1 else targets
        weighed_nC = shares_nC if weights_C is None else shares_nC * weights_C
        spread = self.label_smoothing / classes
        smooth_nC = weighed_nC * (1 - self.label_smoothing) + (spread if weights_C is None else spread * weights_C)
        log_nC = torch.log_softmax(logits_nC, -1)
        others_nC = -log_nC.expm1()  # the probability of all other labels, exact where it is small
        if self.focal:  # whose root has no slope at 0
            others_nC = others_nC.clamp(min=torch.finfo(log_nC.dtype).tiny)
        return -(smooth_nC * others_nC**self.focal * log_nC).sum(), weighed_nC.sum()

    def check(self, logits: np.ndarray, samples: Samples) -> Check:
        scores, targets = samples.mean(logits), self._classes(samples.targets)
        report = classification.measures(scores, targets)
        counts = np.bincount(scores.argmax(1), minlength=len(self.labels)).tolist()
        predicted = dict(zip(self.labels, counts, strict=True))
        collapsed = supervised.only(predicted) if len(np.unique(targets)) > 1 else None
        return Check(cross_entropy(scores, targets), report, predicted, collapsed)

    def tuned(self, logits: np.ndarray, samples: Samples) -> Self:
        scores, targets = samples.mean(logits), self._classes(samples.targets)
        if not self.calibrate or len(np.unique(targets)) < 2:
            return self
        return replace(self, temperature=calibration.fit_temperature(scores, targets))

    def decode(self, logits: np.ndarray, samples: Samples) -> list[Prediction]:
        """Predictions by label name."""
        rows = softmax(samples.mean(logits) / self.temperature)
        return [
            Prediction(
                self.labels[at], float(row[at]), dict(zip(self.labels, row.tolist(), strict=True)), int(seen), int(lost)
            )
            for row, at, seen, lost in zip(rows, rows.argmax(1).tolist(), samples.tokens, samples.cut, strict=True)
        ]

    def report(self, logits: np.ndarray, samples: Samples) -> classification.Report:
        targets = self._classes(samples.targets)
        return classification.report(
            samples.mean(logits),
            targets,
            self.outputs,
            samples.cut,
            temperature=self.temperature,
            windows=samples.windows,
        )

    def counted(self, logits: np.ndarray, samples: Samples, metric: str | None = None) -> Counted:
        return classification.counted(samples.mean(logits), self._classes(samples.targets), metric or "accuracy")

    def counts(self, samples: Samples) -> dict[str, int]:
        found = np.bincount(self._classes(samples.targets), minlength=len(self.labels)).tolist()
        return dict(zip(self.labels, found, strict=True))

    def _shares(self, targets: np.ndarray | None) -> np.ndarray:
        """(n, C) the share of each label."""
        assert targets is not None
        return np.eye(len(self.labels))[targets] if targets.ndim == 1 else targets

    @staticmethod
    def _classes(targets: np.ndarray | None) -> np.ndarray:
        """(n,) the label with the largest share."""
        assert targets is not None
        return targets if targets.ndim == 1 else targets.argmax(1)
