"""Text classification: one label for each text, or for each pair of texts (entailment, paraphrase).

Data: a column of texts, perhaps a second one, and a column of labels.

    text,label                              premise,hypothesis,label
    "A joy from start to end.",positive     "A man sleeps.","He is awake.",contradiction
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import Packed, mean_by_owner
from clozeline.data.packing import Samples
from clozeline.data.readers import Example
from clozeline.errors import InputError, nearest
from clozeline.model.heads import Network, SequenceHead
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


@dataclass(frozen=True)
class TextClassification:
    """What to learn from labelled texts, and how a text becomes a label.

    Args:
        labels: the names in the order of the model's outputs. Empty: those of the checkpoint, or of the training data.
        long: what happens to a text longer than the model: "truncate", "head_tail", "window" (the text's logits are the
            mean over its windows, in training as in prediction) or "error".
        max_length: tokens a sequence may have; None is what the model reads at once.
        class_weights: a label's factor in the training loss; "balanced" makes every label count the same in sum.

    Raises:
        InputError: labels that repeat, or weights for labels that are not there.
    """

    labels: Sequence[str] = ()
    long: LongText = "truncate"
    max_length: int | None = None
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    head: str = field(default="text_classification", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
        if repeated := {label for label in self.labels if self.labels.count(label) > 1}:
            raise InputError(f"The label {min(repeated)!r} is given more than once; labels must differ.")
        if len(self.labels) == 1:
            raise InputError(f"There is one label only, {self.labels[0]!r}; a classifier needs two or more.")
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise InputError(f"class_weights is {self.class_weights!r}; give 'balanced' or a weight for each label.")
        if isinstance(self.class_weights, Mapping):
            for label, weight in self.class_weights.items():
                if not weight > 0:
                    raise InputError(f"class_weights gives {label!r} the weight {weight}; weights must be above 0.")
                if self.labels and label not in self.labels:
                    raise InputError(f"class_weights names {label!r}: {nearest(label, self.labels)}")

    # -- labels and the checkpoint's config.json

    def with_labels(self, labels: Iterable[str]) -> TextClassification:
        return replace(self, labels=tuple(labels))

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> TextClassification:
        """The task as a checkpoint's `config.json` has it."""
        if (kind := raw.get("problem_type")) not in (None, "single_label_classification"):
            raise InputError(f"config.json asks for problem_type = {kind!r}; single_label_classification is supported.")
        names = raw.get("id2label") or {str(at): f"LABEL_{at}" for at in range(raw.get("num_labels", 2))}
        if not isinstance(names, dict) or sorted(names) != sorted(str(at) for at in range(len(names))):
            raise InputError("config.json: id2label must give each output from 0 on a name.")
        kept = ours if isinstance(ours := raw.get("clozeline"), dict) else {}
        return cls(
            labels=[names[str(at)] for at in range(len(names))],
            long=kept.get("long", "truncate"),
            max_length=kept.get("max_length"),
        )

    def raw(self) -> dict[str, Any]:
        """What `config.json` keeps of the task."""
        return {
            "id2label": {str(at): label for at, label in enumerate(self.labels)},
            "label2id": {label: at for at, label in enumerate(self.labels)},
            "problem_type": "single_label_classification",
            "clozeline": {"long": self.long, "max_length": self.max_length},
        }

    def target(self, example: Example) -> int:
        """The output that stands for an example's label, by name; or by number, where the data has 0, 1, ... for names.

        Raises:
            InputError: the label is none of `labels`; the place and the nearest one are named.
        """
        assert example.label is not None
        if example.label in self.labels:
            return self.labels.index(example.label)
        numbered = not any(label.isdecimal() for label in self.labels)
        if numbered and example.label.isdecimal() and int(example.label) < len(self.labels):
            return int(example.label)
        raise InputError(f"{example.place}: unknown label {example.label!r}; {nearest(example.label, self.labels)}")

    # -- examples to batches

    def samples(self, tokenizer: Tokenizer, examples: Sequence[Example], *, targets: bool = True) -> Samples:
        """Tokenise examples, with their targets unless there are no labels to learn from."""
        texts = [example.text for example in examples]
        pairs = None if examples[0].pair is None else [example.pair or "" for example in examples]
        samples = Samples.tokenise(tokenizer, texts, pairs, long=self.long, max_length=self.max_length)
        if not targets:
            return samples
        return replace(samples, targets=np.asarray([self.target(example) for example in examples], dtype=np.int64))

    # -- network to results

    def logits(self, network: Network, batch: Packed, owners: Tensor | None) -> Tensor:
        """(n, C) fp32 logits, one row an example: the mean over its windows where it has several."""
        assert isinstance(network.head, SequenceHead)
        logits_SC: Tensor = network.head(network.encoder(batch), batch.layout)
        return logits_SC if owners is None else mean_by_owner(logits_SC, owners)

    def weights(self, targets: np.ndarray) -> Tensor | None:
        """(C,) the factor of each label in the loss, for training on these targets; None is 1 for all."""
        if self.class_weights is None:
            return None
        if self.class_weights == "balanced":
            counts = np.bincount(targets, minlength=len(self.labels))
            return torch.from_numpy(len(targets) / (len(self.labels) * np.maximum(counts, 1))).float()
        assert isinstance(self.class_weights, Mapping)
        return torch.tensor([float(self.class_weights.get(label, 1.0)) for label in self.labels])

    def loss(self, logits_nC: Tensor, targets_n: Tensor, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy, and the sum of the weights to divide it by: sums add up exactly over uneven batches."""
        total = F.cross_entropy(logits_nC, targets_n, weight=weights_C, reduction="sum")
        count = targets_n.new_tensor(len(targets_n)).float() if weights_C is None else weights_C[targets_n].sum()
        return total, count

    def decode(self, logits_nC: Tensor, tokens: Sequence[int], cut: Sequence[int]) -> list[Prediction]:
        """Predictions by label name."""
        scores = torch.softmax(logits_nC, -1).tolist()
        best = logits_nC.argmax(-1).tolist()
        return [
            Prediction(self.labels[at], row[at], dict(zip(self.labels, row, strict=True)), seen, lost)
            for row, at, seen, lost in zip(scores, best, tokens, cut, strict=True)
        ]
