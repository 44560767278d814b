"""Probing: at which layer can a linear classifier read a label off a model's vectors? (Alain and Bengio 2017)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline import predict as prediction
from clozeline.data.packing import Samples
from clozeline.data.readers import Example, examples
from clozeline.errors import InputError, nearest
from clozeline.evaluate.counts import ratio
from clozeline.evaluate.intervals import Interval, of_sums
from clozeline.inspect import panels as kinds
from clozeline.inspect.drawing import drawn
from clozeline.inspect.view import View, called
from clozeline.tasks.supervised import settled_labels

if TYPE_CHECKING:
    from clozeline.face import Model

POOLS = {"cls": "[CLS]", "mean": "mean"}
"""Vectors of a text, and what they are called."""


@dataclass(frozen=True, eq=False)
class Probe(View):
    """How often a linear classifier is right, by what it reads of a text and at which layer.

    right: by "cls" and "mean", (layers + 1,) accuracies with their intervals over the tested texts, the embedding's output
    first; errors: the same, one standard error; control: the same with the labels shuffled over all texts, which chance
    alone should explain: more would be a leak from training to test. majority: the share of the label that is most
    frequent in training. how: such as "5 folds".
    """

    model: str
    labels: tuple[str, ...]
    texts: int
    tested: int
    how: str
    right: dict[str, list[Interval]]
    errors: dict[str, list[float]]
    control: dict[str, list[float]]
    majority: float
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{called(self.model)}: where {len(self.labels)} labels can be read"

    def best(self, pool: str) -> int:
        """The layer where the label is read best, 0 being the embedding's output; of equal ones the first."""
        return int(np.argmax([each.value for each in self.right[pool]]))

    def first(self, pool: str) -> int:
        """The first layer that is within one standard error of the best."""
        best = self.best(pool)
        least = self.right[pool][best].value - self.errors[pool][best]
        return next(layer for layer, each in enumerate(self.right[pool]) if each.value >= least)

    def panels(self) -> list[kinds.Panel]:
        layers = [float(layer) for layer in range(len(self.right["mean"]))]
        series: dict[str, tuple[list[float], list[float]]] = {}
        for pool, name in POOLS.items():
            series[name] = layers, [each.value for each in self.right[pool]]
        for pool, name in POOLS.items():
            series[f"{name}, shuffled labels"] = layers, self.control[pool]
        series["majority"] = layers, [self.majority] * len(layers)
        rows = [
            (layer, POOLS[pool], each.value, each.low, each.high, self.errors[pool][layer], self.control[pool][layer])
            for pool in POOLS
            for layer, each in enumerate(self.right[pool])
        ]
        marks = {f"best of {POOLS[pool]}": float(self.best(pool)) for pool in POOLS}
        columns = ["layer", "vector", "accuracy", "from", "to (95 %)", "standard error", "shuffled labels"]
        return [
            kinds.Lines(
                "Accuracy of a linear probe", "layer (0: embedding)", "accuracy", series, marks, "\n".join(self._said())
            ),
            kinds.Table("By layer", columns, rows),
        ]

    def as_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("model", "labels", "texts", "tested", "how", "majority")}
        for pool in POOLS:
            layers = zip(self.right[pool], self.errors[pool], self.control[pool], strict=True)
            rows = [{**each.named("accuracy"), "error": error, "control": none} for each, error, none in layers]
            found[pool] = {"layers": rows, "best": self.best(pool), "first": self.first(pool)}
        return found | {"labels": list(self.labels), "notes": list(self.notes)}

    def __str__(self) -> str:
        lines = [self._of(), f"{'layer':<6}{'[CLS]':<26}{'mean':<26}shuffled [CLS], mean"]
        for layer, pair in enumerate(zip(self.right["cls"], self.right["mean"], strict=True)):
            none = ", ".join(f"{self.control[pool][layer]:.4f}" for pool in POOLS)
            lines.append(f"{layer:>5} {pair[0]!s:<26}{pair[1]!s:<26}{none}")
        return "\n".join([*lines, *self._said()[1:]])

    def _said(self) -> list[str]:
        """What one sees, in sentences, the data first and what was cut of them last."""
        said = [self._of()]
        for pool, name in POOLS.items():
            best, first = self.best(pool), self.first(pool)
            near = f", and within one standard error of that from layer {first} on" if first < best else ""
            said.append(f"{name:<5} is read best at layer {best}{near}")
        return [*said, *self.notes]

    def _of(self) -> str:
        many = f"{len(self.labels)} labels of {self.texts:,} texts, {self.how}"
        return f"{many}; the most frequent label is right for {self.majority:.4f}"


def probe(
    model: Model,
    data: str | Path,
    test: str | Path | None = None,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    folds: int = 5,
    seed: int = 0,
    limit: int | None = None,
) -> Probe:
    """Fit a linear classifier to each layer's vectors of labelled texts, and see how often it is right on others.

    The vectors are the first token's, [CLS], and the mean over all tokens of a text as `Model.embed` gives them, long texts
    cut at their end; each of their numbers is standardised over the texts that are fitted to. The classifier is multinomial
    logistic regression with half the sum of squared weights added to the summed loss, as scikit-learn's is by default.

    Args:
        data: labelled texts, of any model and any labels. test: others to be tested on; without, each text is tested by a
            classifier of the other folds, which have like shares of each label.
        text, pair, label, columns, encoding: as in `Model.evaluate`.
        folds: how many; seed: of the folds and of the shuffled labels.
        limit: texts to use of either, drawn at random where there are more.

    Raises:
        InputError: the data cannot be read or has no labels, one label only, one that is not in training; fewer texts than
            folds, or fewer than 2 folds.
    """
    if folds < 2:
        raise InputError(f"folds is {folds}; give at least 2, so that there are texts to fit to and texts to test on.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; use at least 1 text, or leave it out for all.")
    how: dict[str, Any] = dict(text=text, pair=pair, label=label, columns=columns, encoding=encoding, labelled=True)
    read = drawn(list(examples(data, split="train", **how)), limit, seed)
    others = [] if test is None else drawn(list(examples(test, split="test", **how)), limit, seed)
    labels = settled_labels({_label(each) for each in read}, str(data))
    for each in others:
        if _label(each) not in labels:
            raise InputError(f"{each.place}: unknown label {_label(each)!r}; {nearest(_label(each), labels)}")
    if test is None and len(read) < folds:
        raise InputError(f"{data} has {len(read)} texts for {folds} folds; give more texts, or fewer folds.")
    every, random = [*read, *others], np.random.default_rng(seed)
    classes = np.asarray([labels.index(_label(each)) for each in every])
    if test is None:
        fold = _folds(classes, folds, random)
        splits = [(np.flatnonzero(fold != at), np.flatnonzero(fold == at)) for at in range(folds)]
    else:
        splits = [(np.arange(len(read)), np.arange(len(read), len(every)))]
    tested = np.concatenate([after for _, after in splits])
    vectors, notes = _vectors(model, every)
    if test is None and (rare := int((np.bincount(classes) < folds).sum())):
        notes += (
            f"{rare} of {len(labels)} labels have fewer than {folds} texts, so not every fold can learn and test them.",
        )
    shuffled = random.permutation(classes)
    right: dict[str, list[Interval]] = {pool: [] for pool in POOLS}
    errors, control = ({pool: list[float]() for pool in POOLS} for _ in range(2))
    for pool, layers in vectors.items():
        for x_nD in layers:
            hits, none = (_hits(x_nD, y, len(labels), splits) for y in (classes, shuffled))
            right[pool].append(of_sums(np.stack([hits, np.ones(len(hits))], 1), lambda sums: ratio(*sums.T)))
            errors[pool].append(float(hits.std() / len(hits) ** 0.5))
            control[pool].append(float(none.mean()))
    most = [classes[after] == np.bincount(classes[before]).argmax() for before, after in splits]
    said = f"{folds} folds" if test is None else f"{len(others):,} of them for the test"
    majority = float(np.concatenate(most).mean())
    return Probe(model.name, labels, len(every), len(tested), said, right, errors, control, majority, notes)


def _label(example: Example) -> str:
    assert isinstance(example.label, str)
    return example.label


def _folds(classes: np.ndarray, folds: int, random: np.random.Generator) -> np.ndarray:
    """(n,) the fold of each text: those of a label are dealt out in turn, going on where the label before ended."""
    order = random.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    found = np.empty(len(classes), dtype=int)
    found[order] = np.arange(len(classes)) % folds
    return found


@torch.inference_mode()
def _vectors(model: Model, every: Sequence[Example]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(layers + 1, n, D) fp32 by pool, and what was cut."""
    pairs = None if every[0].pair is None else [each.pair or "" for each in every]
    places = [each.place for each in every]
    samples = Samples.tokenise(model.tokenizer, [each.text for each in every], pairs, places=places)
    config, encoder = model.config, model._network().encoder
    found = {pool: torch.empty(config.layers + 1, len(every), config.width) for pool in POOLS}
    for chosen in prediction.batches(samples, model._device):
        batch = samples.take(chosen).packed.to(model._device)
        for layer, states in enumerate(encoder.states(batch)):
            for pool, table in found.items():
                combine = batch.layout.first if pool == "cls" else batch.layout.mean
                table[layer, torch.from_numpy(chosen)] = combine(states).float().cpu()
    lost = int((samples.cut > 0).sum())
    said = f"{lost:,} of {len(every):,} texts lost {int(samples.cut.sum()):,} tokens at their end."
    return found, (said,) if lost else ()


def _hits(x_nD: Tensor, y_n: np.ndarray, classes: int, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Whether each tested text is classified right, in the order of the splits."""
    found = []
    for before, after in splits:
        x, targets = x_nD[torch.from_numpy(before)].double(), torch.from_numpy(y_n[before])
        mean, spread = x.mean(0), x.std(0, correction=0)
        spread[spread < 1e-9] = 1.0  # a number that is the same for all texts tells nothing
        weight_CD, bias_C = fitted((x - mean) / spread, targets, classes)
        others = (x_nD[torch.from_numpy(after)].double() - mean) / spread
        found.append((others @ weight_CD.T + bias_C).argmax(1).numpy() == y_n[after])
    return np.concatenate(found)


def fitted(x_nD: Tensor, y_n: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The (C, D) weights and (C,) biases of a multinomial logistic regression by L-BFGS: see `probe`."""
    with torch.inference_mode(False), torch.enable_grad():
        x_nD = x_nD.clone()
        weight_CD, bias_C = (
            x_nD.new_zeros(*shape, requires_grad=True) for shape in ((classes, x_nD.shape[1]), (classes,))
        )
        way = torch.optim.LBFGS(
            [weight_CD, bias_C], max_iter=300, tolerance_grad=1e-5, tolerance_change=1e-9, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            way.zero_grad()
            total = F.cross_entropy(x_nD @ weight_CD.T + bias_C, y_n) + weight_CD.square().sum() / (2 * len(x_nD))
            total.backward()
            return total

        way.step(loss)
    return weight_CD.detach(), bias_C.detach()
