"""What every task with labelled data is to the rest of the package: training, prediction and evaluation know only this.

A task is a frozen value: its labels and settings. It reads its data, tokenises it with targets, says what the loss of a
batch is, and makes predictions and reports of what the head gave. One file a task holds all of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from clozeline.batch import Layout, Packed, mean_by_owner
from clozeline.data import checks
from clozeline.data.checks import SEPARATOR, Item
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import LABEL_NAMES, Columns, Example, Label, Row, examples
from clozeline.errors import InputError, nearest
from clozeline.evaluate.intervals import Counted
from clozeline.model.heads import Network
from clozeline.model.matching import soft_loss
from clozeline.tokenizer import LongText, Tokenizer

IGNORED = -100
"""The target of a token that is not learned from: a special token, or one that another window shows better."""


@dataclass(frozen=True, slots=True)
class Check:
    """What validation found. scores: of the task's `metrics`, by name.

    predicted: how often each label was predicted, empty where a task has no labels; collapsed: what all predictions are,
    in words, where they are all the same and the targets are not; else None.
    """

    loss: float
    scores: Mapping[str, float]
    predicted: Mapping[str, int] = field(default_factory=dict)
    collapsed: str | None = None


class Supervised(ABC):
    """A task that learns from labelled examples.

    name: in commands and recipes; head: of its family's heads; metrics: the scores of `check`, larger is better, the first
    of them chooses the best epoch unless another one is asked for; per_token: the head gives a row a token, not a sequence;
    windows_apart: the windows of a long text are trained on one by one; from_text: a text by itself is an example without
    a label; fitted_later: the fields that `tuned` sets.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    per_token: ClassVar[bool] = False
    windows_apart: ClassVar[bool] = False
    from_text: ClassVar[bool] = True
    fitted_later: ClassVar[tuple[str, ...]] = ()

    long: LongText
    max_length: int | None

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the head's outputs, in order; none until they are known."""

    def with_outputs(self, names: Iterable[str]) -> Self:
        """The task with these names of outputs, where they are free."""
        return self

    def settled(self, examples: Sequence[Any], source: str, columns: Columns) -> Self:
        """The task with what it takes from the training data, such as label names, where it was given none."""
        return self

    def untuned(self) -> Self:
        """The task as a training begins with it: without what an earlier one fitted to weights that are gone then."""
        return self

    @classmethod
    @abstractmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        """The task as a checkpoint's `config.json` has it."""

    @abstractmethod
    def raw(self) -> dict[str, Any]:
        """What `config.json` keeps of the task."""

    @abstractmethod
    def example(self, text: Any, other: Any, place: str) -> Any:
        """An example without a label, out of what a user gives: a text, and perhaps what goes with it."""

    @abstractmethod
    def read(self, source: str | Path, split: str, columns: Columns) -> list[Any]:
        """The labelled examples of a file or hub data set; InputError names what is wrong with it, and where."""

    @abstractmethod
    def samples(self, tokenizer: Tokenizer, examples: Sequence[Any], *, targets: bool = True) -> Samples:
        """Tokenise examples, with their targets unless there is nothing to learn from."""

    def lacks(self, train: Samples, validation: Samples | None) -> list[str]:
        """What the labels of the two sets lack, as warnings; InputError where nothing could be learned from them."""
        return []

    def logits(self, network: Network, packed: Packed) -> Tensor:
        """What the head says, fp32: a row for each sequence, or for each token."""
        return self.rows(network, network.encoder(packed), packed.layout)

    def rows(self, network: Network, states_TD: Tensor, layout: Layout) -> Tensor:
        """The same out of the encoder's states."""
        assert network.head is not None
        found: Tensor = network.head(states_TD, layout)
        return found

    def weights(self, samples: Samples) -> Tensor | None:
        """(C,) the factor of each output in the loss, for training on these samples; None is 1 for all."""
        return None

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """The summed loss, and the weight to divide it by: sums add up exactly over uneven batches."""

    def learn(self, network: Network, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """The loss of a network on a batch, and the weight to divide it by."""
        return self.loss(self.logits(network, batch.packed), batch, weights_C)

    def taught(self, logits: Tensor, theirs: Tensor, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """How far what the head says is from what a teacher's does, summed, and the number of answers, as `loss` counts.

        Here the answers are the rows, one of several classes each; of tokens, those that have a target.
        """
        if self.per_token:
            assert batch.targets is not None
            logits, theirs = logits[batch.targets >= 0], theirs[batch.targets >= 0]
        elif batch.owners is not None:
            logits, theirs = mean_by_owner(logits, batch.owners), mean_by_owner(theirs, batch.owners)
        return soft_loss(logits, theirs, temperature), logits.new_tensor(len(logits))

    def answered(self, logits: np.ndarray, samples: Samples) -> Samples:
        """Samples whose targets are what these logits say, to learn from texts without labels."""
        if self.per_token:
            assert samples.offsets is not None
            content = samples.offsets[:, 0] < samples.offsets[:, 1]
            return replace(samples, targets=np.where(content, logits.argmax(1), IGNORED), targets_of="token")
        return replace(samples, targets=samples.mean(logits).argmax(1))

    def answer_count(self, samples: Samples) -> int:
        """How many answers are learned from samples: what the weights of `loss` add up to, where labels weigh the same."""
        return len(samples) if samples.targets_of == "example" else int(np.sum(np.asarray(samples.targets) >= 0))

    @abstractmethod
    def check(self, logits: np.ndarray, samples: Samples) -> Check:
        """Validate: samples with targets, and their logits as `predict.logits` gives them."""

    def tuned(self, logits: np.ndarray, samples: Samples) -> Self:
        """The task with what is fitted to validation data after the weights, such as a temperature or a threshold."""
        return self

    @abstractmethod
    def decode(self, logits: np.ndarray, samples: Samples) -> list[Any]:
        """A prediction for each example, by names and in the characters of the text."""

    @abstractmethod
    def report(self, logits: np.ndarray, samples: Samples) -> Any:
        """Metrics with intervals; has `as_dict`, and prints as a text."""

    @abstractmethod
    def counted(self, logits: np.ndarray, samples: Samples, metric: str | None = None) -> Counted:
        """One of the task's metrics as sums over examples, to compare two models by; without a name, the first of them."""

    def item(self, example: Any) -> Item:
        """What is looked at to find examples that are there twice: the text with its pair, and its class.

        The class of a soft label is the one with the largest share.
        """
        text = example.text if example.pair is None else f"{example.text}{SEPARATOR}{example.pair}"
        label = example.label
        if isinstance(label, dict):
            label = max(label, key=label.__getitem__)
        return Item(text, label if isinstance(label, str) else None, example.place)

    def notes(self, train: Sequence[Any], validation: Sequence[Any]) -> list[str]:
        """What somebody should know of the data before training on it: rare labels, texts that are there twice, ..."""
        ours, theirs = [self.item(each) for each in train], [self.item(each) for each in validation]
        return checks.check(ours, theirs or None).warnings()

    def counts(self, samples: Samples) -> dict[str, int]:
        """How many examples, or tokens, have each label."""
        return {}

    def kept(self) -> dict[str, Any]:
        """What `config.json` keeps beside the fields that transformers knows."""
        return {"task": self.name, "long": self.long, "max_length": self.max_length}


def ours(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What `kept` wrote into a checkpoint's `config.json`; empty where another tool wrote it."""
    return found if isinstance(found := raw.get("clozeline"), dict) else {}


def policy(raw: Mapping[str, Any], default: LongText) -> dict[str, Any]:
    """The arguments `long` and `max_length` as `config.json` has them."""
    kept = ours(raw)
    return {"long": kept.get("long", default), "max_length": kept.get("max_length")}


def output_names(raw: Mapping[str, Any]) -> list[str]:
    """The names of the outputs in order, from `id2label`.

    Raises:
        InputError: it does not give each output from 0 on a name.
    """
    names = raw.get("id2label") or {str(at): f"LABEL_{at}" for at in range(raw.get("num_labels", 2))}
    if not isinstance(names, dict) or sorted(names) != sorted(str(at) for at in range(len(names))):
        raise InputError("config.json: id2label must give each output from 0 on a name.")
    return [names[str(at)] for at in range(len(names))]


def output_raw(names: Sequence[str]) -> dict[str, Any]:
    """`id2label` and `label2id` of outputs with these names."""
    return {
        "id2label": {str(at): name for at, name in enumerate(names)},
        "label2id": {name: at for at, name in enumerate(names)},
    }


def settled_labels(found: set[str], source: str, least: int = 2) -> tuple[str, ...]:
    """Label names in a lasting order: by number where all are numbers, else by name.

    Raises:
        InputError: there are fewer than `least`.
    """
    if len(found) < least:
        only = f"one label only, {min(found)!r}" if found else "no labels"
        raise InputError(f"{source} has {only}; a classifier needs two or more to tell apart.")
    return tuple(sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found))


def only(predicted: Mapping[str, int]) -> str | None:
    """The label that two predictions or more all are, quoted; None where they differ."""
    seen = [(label, count) for label, count in predicted.items() if count]
    return repr(seen[0][0]) if len(seen) == 1 and seen[0][1] > 1 else None


def check_names(labels: Sequence[str], least: int = 2) -> tuple[str, ...]:
    """Label names as a tuple of different texts.

    Raises:
        InputError: labels that repeat, or fewer than `least`, but some.
    """
    if isinstance(labels, str):
        raise InputError(f"labels is the text {labels!r}; give a list of names.")
    names = tuple(str(label) for label in labels)
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InputError(f"The label {min(repeated)!r} is given more than once; labels must differ.")
    if 0 < len(names) < least:
        raise InputError(f"There is one label only, {names[0]!r}; a classifier needs two or more.")
    return names


def missing(counts: Mapping[str, int], checked: Mapping[str, int] | None) -> list[str]:
    """What to say of labels that training data, or validation data, has none of."""
    said = []
    for label, count in counts.items():
        if not count:
            said.append(f"No training text has the label {label!r}; the model cannot learn it.")
        elif checked is not None and not checked.get(label):
            said.append(f"No validation text has the label {label!r}, so validation says nothing about it.")
    return said


Weights = Literal["balanced"] | Mapping[str, float] | None
"""Of labels in a loss."""


def check_weights(weights: Weights, labels: Sequence[str]) -> None:
    """InputError where weights are not above 0, or for labels that are not there."""
    if isinstance(weights, str) and weights != "balanced":
        raise InputError(f"class_weights is {weights!r}; give 'balanced' or a weight for each label.")
    for label, weight in weights.items() if isinstance(weights, Mapping) else ():
        if not weight > 0:
            raise InputError(f"class_weights gives {label!r} the weight {weight}; weights must be above 0.")
        if labels and label not in labels:
            raise InputError(f"class_weights names {label!r}: {nearest(label, labels)}")


def given_weights(weights: Weights, labels: Sequence[str]) -> Tensor | None:
    """(C,) the weights that were given by label, 1 for the others; None without any."""
    return torch.tensor([float(weights.get(name, 1.0)) for name in labels]) if isinstance(weights, Mapping) else None


def labelled(
    source: str | Path,
    split: str,
    columns: Columns,
    value: Callable[[Row, Sequence[str]], Label],
    usual: Sequence[str] = LABEL_NAMES,
) -> list[Example]:
    """Texts, or pairs of texts, with what `value` makes of the label columns; usual: names of such a column."""
    where: dict[str, Any] = dict(text=columns.text, pair=columns.pair, label=columns.label, columns=columns.names)
    return list(
        examples(source, labelled=True, usual=usual, value=value, encoding=columns.encoding, split=split, **where)
    )


def text_example(text: Any, pair: Any, place: str) -> Example:
    """A text, or a pair of texts."""
    if pair is not None and not isinstance(pair, str):
        raise InputError(f"The pair of {place} is {pair!r:.40}; it must be a text.")
    return Example(text, pair, None, place)


def text_samples(
    task: Supervised, tokenizer: Tokenizer, examples: Sequence[Any], targets: np.ndarray | None
) -> Samples:
    """Texts, or pairs of texts, tokenised as the task says."""
    texts = [example.text for example in examples]
    pairs = None if examples[0].pair is None else [example.pair or "" for example in examples]
    places = [example.place for example in examples]
    samples = Samples.tokenise(tokenizer, texts, pairs, long=task.long, max_length=task.max_length, places=places)
    return replace(samples, targets=targets, examples=examples)
