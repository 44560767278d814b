"""Labels that look wrong: texts whose label a classifier trained on the other texts is sure is another one.

Source: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clozeline import predict as prediction
from clozeline.behaviour.keywords import dealt, keywords
from clozeline.data.packing import Samples
from clozeline.data.readers import Example, examples
from clozeline.errors import InputError
from clozeline.evaluate.cost import Cost, cost_of
from clozeline.evaluate.intervals import Interval
from clozeline.evaluate.proportions import wilson
from clozeline.inspect.probing import fitted
from clozeline.tasks.supervised import settled_labels

if TYPE_CHECKING:
    from clozeline.face import Model

SHOWN = 160
"""Characters of a text that are printed."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label may be wrong. place: of it; pair: its second text, or None; label: as given, with its score;
    suggested: the one it may be, with its score; both out of its fold. margin: how much larger the suggested one's is."""

    place: str
    text: str
    pair: str | None
    label: str
    score: float
    suggested: str
    suggested_score: float
    margin: float


@dataclass(frozen=True)
class LabelErrors(Cost):
    """What `label_errors` found. Print it, or see `as_dict`.

    model: whose vectors were used; labels: of the data; counts: texts with each; accuracy: of the classifiers on the texts
    that they were not fitted to, by the given labels, with Wilson's 95 % interval; thresholds: by label, the score from
    which a text counts as one of it; share: the estimated share of wrong labels; found: candidates in all; suspects: those
    with the largest margins.
    """

    model: str
    examples: int
    folds: int
    labels: tuple[str, ...]
    counts: dict[str, int]
    accuracy: Interval
    thresholds: dict[str, float]
    share: float
    found: int
    suspects: tuple[Suspect, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        names = ("model", "examples", "folds", "counts", "thresholds", "share", "found")
        return {
            **{name: getattr(self, name) for name in names},
            **self.accuracy.named("accuracy"),
            "labels": list(self.labels),
            "suspects": [asdict(each) for each in self.suspects],
            "notes": list(self.notes),
            **self.cost(),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.found:,} of {self.examples:,} texts have a label that looks wrong{self.cost_said()}",
            f"out-of-fold accuracy {self.accuracy}  ({self.folds} folds, a linear classifier on mean vectors)",
            f"estimated share of wrong labels {self.share:.4f}, with the classifier's own confident mistakes",
        ]
        if self.suspects:
            lines += ["", f"The {len(self.suspects)} with the largest margins:"]
        for each in self.suspects:
            text = " | ".join(" ".join(part.split()) for part in (each.text, each.pair) if part is not None)
            text = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
            scores = f"{each.label} {each.score:.4f}, rather {each.suggested} {each.suggested_score:.4f}"
            lines.append(f"  {scores}: {each.place}: {text}")
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])


def label_errors(
    model: Model,
    data: str | Path,
    *,
    folds: int = 5,
    top: int = 20,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    seed: int = 0,
) -> LabelErrors:
    """Find texts whose label may be wrong, by linear classifiers that never saw the text they judge.

    A model that was fine-tuned on these same rows has seen their labels, the wrong ones too, and its vectors repeat them:
    use the encoder it came from. A candidate is a reason to look at a label, not to change it: hard texts are among them.

    A text's vector is the mean over its tokens, long texts cut at their end. Each number is standardised over the texts that
    are fitted to, and vectors are scaled to a length of about 1, so that the classifier, `inspect.probe`'s logistic
    regression, cannot learn single labels by heart. Folds have like shares of each label, and texts with the same words are
    in one. A label's threshold is its mean score over the texts that have it; a text counts as one of the label with the
    largest score among those at or above their threshold, and is a candidate where that is not its own.

    The estimated share of wrong labels is what these counts, scaled to the texts of each given label, have off the diagonal.
    The classifiers' own confident mistakes are in it, so it is too high where their accuracy is low.

    Args:
        model: any, with a task or without: its encoder is used.
        data, text, pair, label, columns, encoding: as in `Model.evaluate`; labels are those of the data.
        folds: how many; top: candidates to give, those with the largest margins; seed: of the folds.

    Raises:
        InputError: the data cannot be read, has no labels or one only, or fewer different texts than folds; fewer than 2
            folds, or a negative top.
    """
    if folds < 2:
        raise InputError(f"folds is {folds}; give at least 2, so that there are texts to fit to and texts to judge.")
    if top < 0:
        raise InputError(f"top is {top}; give the number of candidates to list, 0 or more.")
    how: dict[str, Any] = dict(text=text, pair=pair, label=label, columns=columns, encoding=encoding, labelled=True)
    read = list(examples(data, split="train", **how))
    labels = settled_labels({_label(each) for each in read}, str(data))
    classes = np.array([labels.index(_label(each)) for each in read])
    pairs = None if pair is None else [each.pair or "" for each in read]
    same = keywords((each.text, each.pair or "") for each in read).same
    if (different := len(np.unique(same))) < folds:
        raise InputError(f"{data} has {different} different texts for {folds} folds; give more texts, or fewer folds.")
    places = [each.place for each in read]
    samples = Samples.tokenise(model.tokenizer, [each.text for each in read], pairs, places=places)
    x_nD = prediction.embed(model._network(), samples, model._device, pool="mean")
    assert isinstance(x_nD, np.ndarray)
    scores = out_of_fold(x_nD, classes, len(labels), dealt(same, classes, folds, seed))
    thresholds, counted_as = confident(scores, classes)
    suspects = np.flatnonzero((counted_as >= 0) & (counted_as != classes))
    margins = scores[suspects, counted_as[suspects]] - scores[suspects, classes[suspects]]
    first = suspects[np.argsort(-margins, kind="stable")][:top].tolist()
    counts = np.bincount(classes, minlength=len(labels)).tolist()
    few = [name for name, count in zip(labels, counts, strict=True) if count < folds]
    notes = [f"Labels with fewer texts than folds, hard to judge: {', '.join(map(repr, few))}."] if few else []
    if model.labels:
        notes.append(
            f"{model.name} is fine-tuned: if these texts were among those it learned from, its vectors repeat their labels, "
            "the wrong ones too. The encoder that it came from sees more."
        )
    return LabelErrors(
        model=model.name,
        examples=len(read),
        folds=folds,
        labels=labels,
        counts=dict(zip(labels, counts, strict=True)),
        accuracy=wilson(int((scores.argmax(1) == classes).sum()), len(read)),
        thresholds=dict(zip(labels, thresholds.tolist(), strict=True)),
        share=wrong_share(counted_as, classes, len(labels)),
        found=len(suspects),
        suspects=tuple(_suspect(read[at], labels, scores[at], int(classes[at]), int(counted_as[at])) for at in first),
        notes=tuple(notes),
        **cost_of(samples.cut, samples.windows),
    )


def out_of_fold(x_nD: np.ndarray, classes: np.ndarray, size: int, fold: np.ndarray) -> np.ndarray:
    """(n, C) the scores of each text by the classifier that is fitted to the other folds: see `label_errors`."""
    scores = np.empty((len(classes), size))
    for at in np.unique(fold):
        learned, judged = (torch.from_numpy(x_nD[mask]).double() for mask in (fold != at, fold == at))
        mean, spread = learned.mean(0), learned.std(0, correction=0)
        spread[spread < 1e-9] = 1.0  # a number that is the same for all texts tells nothing
        spread *= x_nD.shape[1] ** 0.5
        weight_CD, bias_C = fitted((learned - mean) / spread, torch.from_numpy(classes[fold != at]), size)
        scores[fold == at] = torch.softmax((judged - mean) / spread @ weight_CD.T + bias_C, 1).numpy()
    return scores


def confident(scores: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (C,) thresholds, and (n,) the label that each text counts as, -1 where none reaches its own.

    scores: (n, C) out of fold; classes: (n,) as given, each label being there.
    """
    size = scores.shape[1]
    thresholds = np.array([scores[classes == label, label].mean() for label in range(size)])
    reached = np.where(scores >= thresholds, scores, -1.0)
    return thresholds, np.where(reached.max(1) >= 0, reached.argmax(1), -1)


def wrong_share(counted_as: np.ndarray, classes: np.ndarray, size: int) -> float:
    """The share of wrong labels: the mean over texts of the share, among those of their label, that count as another."""
    some, share = counted_as >= 0, 0.0
    for label, texts in enumerate(np.bincount(classes, minlength=size)):
        own = counted_as[some & (classes == label)]
        share += texts * float((own != label).mean()) if len(own) else 0.0
    return share / len(classes)


def _suspect(example: Example, labels: Sequence[str], scores: np.ndarray, given: int, suggested: int) -> Suspect:
    own, other = float(scores[given]), float(scores[suggested])
    named = dict(label=labels[given], suggested=labels[suggested])
    return Suspect(
        example.place, example.text, example.pair, **named, score=own, suggested_score=other, margin=other - own
    )


def _label(example: Example) -> str:
    assert isinstance(example.label, str)
    return example.label
