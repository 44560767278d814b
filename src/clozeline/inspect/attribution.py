"""Attribution: which words a prediction rests on, how well the numbers add up, and whether they are to be believed.

All of it is computed in fp32 and without dropout, whatever the model serves in, over many packed copies of the text at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from clozeline.batch import Packed
from clozeline.data import tagged
from clozeline.data.packing import Samples
from clozeline.data.readers import Example
from clozeline.data.squad import Question
from clozeline.data.tagged import TaggedText
from clozeline.errors import InputError, nearest
from clozeline.inspect import panels as kinds
from clozeline.inspect.explained import Explained, explain
from clozeline.inspect.view import View, called
from clozeline.inspect.words import word_of
from clozeline.model.heads import Network
from clozeline.tasks.supervised import Supervised
from clozeline.tokenizer import TokenSequence

if TYPE_CHECKING:
    from clozeline.face import Model

Method = Literal["integrated_gradients", "gradient_x_input", "occlusion"]
Baseline = Literal["pad", "mask"]
METHODS: tuple[str, ...] = get_args(Method)
BASELINES: tuple[str, ...] = get_args(Baseline)
TOKENS = 1024
"""Tokens in one pass; with gradients one takes about 1 MB in a BERT-base."""
POINTS = 20
"""Steps of a deletion curve; fewer for a text of fewer words."""
ORDERS = 19
"""Random orders beside it: where a curve falls faster than in all of them, chance would do so once in twenty."""
SHOWN = 40
"""Words that are printed."""


class Word(NamedTuple):
    """text: what stands at [start, end) of the characters of the first text, or of the pair where source is 1."""

    text: str
    start: int
    end: int
    source: int
    value: float


@dataclass(frozen=True, eq=False)
class Deletion:
    """What becomes of the answer as words go. shares: (K,) of the words gone, from 0 to 1; ranked: (K,) the probability,
    the most important words first; orders: (19, K) the same in random orders."""

    shares: np.ndarray
    ranked: np.ndarray
    orders: np.ndarray

    @property
    def random(self) -> np.ndarray:
        """(K,) the mean over random orders."""
        mean: np.ndarray = self.orders.mean(0)
        return mean

    @property
    def areas(self) -> tuple[float, float]:
        """Under both curves. A faithful attribution has the smaller one: its words are those that the answer needs."""
        return float(np.trapezoid(self.ranked, self.shares)), float(np.trapezoid(self.random, self.shares))

    @property
    def as_fast(self) -> int:
        """In how many of the random orders the probability falls as fast or faster."""
        return int((np.trapezoid(self.orders, self.shares) <= self.areas[0]).sum())


@dataclass(frozen=True, eq=False)
class Attribution(View):
    """What each word adds to one number that the model gives.

    output: which number, such as "the logit of 'positive'"; score: what it is for the text; empty: with all words replaced
    by the baseline's token; shown: what the deletion curves show; probability: that for the text. steps: 0 where there
    are none.
    """

    model: str
    method: Method
    baseline: Baseline
    steps: int
    output: str
    score: float
    empty: float
    shown: str
    probability: float
    words: tuple[Word, ...]
    deletion: Deletion | None

    @property
    def title(self) -> str:
        return f"{called(self.model)}: what {self.output} rests on"

    @property
    def total(self) -> float:
        """All values together."""
        return float(sum(word.value for word in self.words))

    @property
    def gap(self) -> float:
        """How far the total is from what the words change, score - empty: integrated gradients leave none but by steps."""
        return abs(self.total - (self.score - self.empty))

    @property
    def relative_gap(self) -> float:
        """The gap as a share of |score - empty|; infinite where that is 0 and the gap is not."""
        change = abs(self.score - self.empty)
        return self.gap / change if change else 0.0 if not self.gap else float("inf")

    @property
    def how(self) -> str:
        """The method in words."""
        steps = f", {self.steps} steps" if self.steps else ""
        return f"{self.method.replace('_', ' ')}{steps}, baseline {self.baseline}"

    def panels(self) -> list[kinds.Panel]:
        values: list[float | None] = [word.value for word in self.words]
        notes = [f"{value:+.4f}" for value in values]
        shown = [word.text for word in self.words]
        for at in range(len(self.words) - 1, 0, -1):
            if self.words[at].source != self.words[at - 1].source:  # a second text begins
                for row, mark in ((values, None), (notes, ""), (shown, "\u2016")):
                    row.insert(at, mark)  # type: ignore[arg-type]
        found: list[kinds.Panel] = [
            kinds.Words(
                f"What each word adds to {self.output}",
                shown,
                values,
                notes,
                diverging=True,
                note=f"By {self.how}: {self._sums()}",
            )
        ]
        if self.deletion is not None:
            by = self.deletion
            x = by.shares.tolist()
            curves = {"most important first": (x, by.ranked.tolist()), "in random order": (x, by.random.tolist())}
            found.append(kinds.Lines("As words go", "share of words gone", self.shown, curves, note=self._areas(by)))
        names = ["word", "start", "end", "text", "value"]
        ordered = sorted(self.words, key=lambda word: -abs(word.value))
        return [*found, kinds.Table("Words by weight", names, ordered)]

    def as_dict(self) -> dict[str, Any]:
        """Everything, and the gap; infinite numbers as None."""
        names = ("model", "method", "baseline", "steps", "output", "score", "empty", "probability", "gap")
        relative = self.relative_gap if np.isfinite(self.relative_gap) else None
        found = {name: getattr(self, name) for name in names} | {"relative_gap": relative}
        found["words"] = [word._asdict() for word in self.words]
        if (by := self.deletion) is not None:
            curves = {name: getattr(by, name).tolist() for name in ("shares", "ranked", "random")}
            areas = dict(zip(("ranked_area", "random_area"), by.areas, strict=True))
            found["deletion"] = curves | areas | {"random_orders": ORDERS, "as_fast": by.as_fast}
        return found

    def __str__(self) -> str:
        chosen = sorted(range(len(self.words)), key=lambda at: -abs(self.words[at].value))[:SHOWN]
        width = max(len(self.words[at].text) for at in chosen)
        lines = [f"{self.title}, {self.score:.4f} (by {self.how})"]
        lines += [f"  {word.text:<{width}}  {word.value:+.4f}" for at in sorted(chosen) for word in [self.words[at]]]
        if more := len(self.words) - len(chosen):
            lines.append(f"  and {more} more words of less weight")
        return "\n".join([*lines, self._sums(), *([] if self.deletion is None else [self._areas(self.deletion)])])

    def _sums(self) -> str:
        change = f"{self.score:.4f} with them, {self.empty:.4f} without: {self.score - self.empty:.4f} apart"
        gap = f"a gap of {self.gap:.2g} ({self.relative_gap:.2%})"
        unbound = "" if self.steps else ", which this method does not promise to close"
        return f"the words' sum is {self.total:.4f}; {change}, {gap}{unbound}"

    def _areas(self, by: Deletion) -> str:
        ranked, random = by.areas
        if len(self.words) < 2:
            return "with one word there is no order in which words go, so nothing is tested"
        means = f"mean {ranked:.3f} against {random:.3f}"
        if not by.as_fast:
            return f"as words go, {self.shown} falls faster than in all of {ORDERS} random orders: {means}"
        much = f"in {by.as_fast} of {ORDERS} random orders it falls as fast, so this cannot be told from chance"
        return f"as words go, {self.shown} falls; {much}: {means}"


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads copies of a sequence with other rows in place of those that the token table gives.

    units: the tokens that go together; text_LE, blank_LE: the rows of the text, and with all units replaced.
    """

    network: Network
    task: Supervised
    sequence: TokenSequence
    device: torch.device
    units: Sequence[list[int]]
    text_LE: Tensor
    blank_LE: Tensor

    @classmethod
    def of(cls, model: Model, sequence: TokenSequence, units: Sequence[list[int]], blank: int) -> _Reader:
        assert isinstance(model.task, Supervised)
        network, device = model.network.twin(torch.float32, model._device), model._device
        table, ids = network.encoder.embedding.tokens.weight.detach(), sequence.ids.astype(np.int64)
        both = (torch.from_numpy(each).to(device) for each in (ids, np.where(sequence.source < 0, ids, blank)))
        return cls(network, model.task, sequence, device, units, *(table[each] for each in both))

    def __call__(self, rows_nLE: Tensor) -> Tensor:
        """(n, R, C) logits; R is the tokens, or 1 where the head reads the text as a whole."""
        count = len(rows_nLE)
        packed = Packed.of([self.sequence.ids] * count, [self.sequence.segments] * count).to(self.device)
        tokens = self.network.encoder.embedding.tokens
        handle = tokens.register_forward_hook(lambda module, args, out: rows_nLE.flatten(0, 1))
        try:
            logits = self.task.logits(self.network, packed)
        finally:
            handle.remove()
        return logits.view(count, -1, logits.shape[1])

    def parts(self, count: int) -> Iterator[slice]:
        """Copies 0 to count, as many at a time as one pass takes."""
        size = max(1, TOKENS // len(self.sequence.ids))
        return (slice(at, at + size) for at in range(0, count, size))

    @torch.no_grad()
    def values(self, of: Callable[[Tensor], Tensor], gone: Sequence[Sequence[int]]) -> np.ndarray:
        """(n,) numbers of the text, each without some units."""
        found = [of(self(torch.stack([self._without(each) for each in gone[part]]))) for part in self.parts(len(gone))]
        return torch.cat(found).double().cpu().numpy()

    def _without(self, gone: Sequence[int]) -> Tensor:
        at, rows_LE = [token for unit in gone for token in self.units[unit]], self.text_LE.clone()
        rows_LE[at] = self.blank_LE[at]
        return rows_LE

    def sloped(self, of: Callable[[Tensor], Tensor], points: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """(units,) the way from the blank rows to the text's, times the gradient at these points of it, by their shares."""
        points_n, shares_n = (torch.from_numpy(each).to(self.device) for each in (points, shares))
        way_LE, slope_LE = self.text_LE - self.blank_LE, torch.zeros_like(self.text_LE, dtype=torch.float64)
        for part in self.parts(len(points)):
            rows_nLE = (self.blank_LE + points_n[part, None, None].float() * way_LE).requires_grad_()
            (slopes_nLE,) = torch.autograd.grad(of(self(rows_nLE)).sum(), rows_nLE)
            slope_LE += torch.einsum("n,nle->le", shares_n[part], slopes_nLE.double())
        values_L = (slope_LE * way_LE).sum(1).cpu().numpy()
        return np.asarray([values_L[unit].sum() for unit in self.units])


def attribution(
    model: Model,
    text: Any,
    pair: str | None = None,
    *,
    target: str | None = None,
    at: int | str | None = None,
    method: Method = "integrated_gradients",
    steps: int = 64,
    baseline: Baseline = "pad",
    join: bool = True,
    deletion: bool = True,
) -> Attribution:
    """How much each word of a text adds to one number that the model gives for it.

    The number is a logit: of a label; of a tag at a word; of an answer, its start's and its end's summed; of a regression
    the value itself. What a text without its words gives is the baseline: the same sequence with the row of the pad or mask
    token in place of each word's rows in the token table, and special tokens, segments and positions as they are.

    - "integrated_gradients" (Sundararajan et al. 2017): the mean gradient on the straight way from the baseline's rows to
      the text's, times the way; at Gauss-Legendre points. Values add up to what the words change. Rows are taken where they
      leave the token table, before positions and segments are added and before the norm and any widening: the same place
      as captum's `LayerIntegratedGradients` on a BERT's `word_embeddings`.
    - "gradient_x_input": the gradient at the text, times the way from the baseline; exact where the model is linear.
    - "occlusion": what the number loses where one word's rows are the baseline's.

    The deletion curves replace more and more words by the baseline's token and show the probability: of the label, of the
    tag, of the answer's start and end together, or the value of a regression.

    Args:
        text, pair: as in `Model.predict`: one text, its pair or passage; for tags also a list of words.
        target: a label, a tag, or the text of an answer, where it first stands; None takes what the model predicts (of
            several numbers the first).
        at: for tags, which word: its index among the words, or the word itself.
        steps: points on the way, of integrated gradients.
        baseline: "pad" or "mask".
        join: sum a word's pieces; False gives each piece by itself.
        deletion: also compute the deletion curves, at most 126 forward passes of the text.

    Raises:
        InputError: the model has no trained head of such a task; the text is empty or longer than the model reads; no such
            method, baseline, label, word or answer.
    """
    task, tokenizer = model._supervised("explain an answer"), model.tokenizer
    for name, given, allowed in (("method", method, METHODS), ("baseline", baseline, BASELINES)):
        if given not in allowed:
            raise InputError(f"{name} is {given!r}: {nearest(str(given), allowed)}")
    if steps < 1:
        raise InputError(f"steps is {steps}; it must be at least 1.")
    blank = tokenizer.pad_id if baseline == "pad" else tokenizer.mask_id
    if blank is None:
        raise InputError(f"{model.name} has no {baseline} token for a baseline; choose another: 'pad' or 'mask'.")
    example = task.example(text, pair, "The text")
    texts = _texts(task, example)
    whole = tokenizer.encode(
        texts[:1], texts[1:] or None, max_length=task.max_length, offsets=True, places=["The text"]
    )[0]
    if whole.cut:
        raise InputError(
            f"The text has {whole.tokens} tokens and the model reads {whole.tokens - whole.cut} at once; shorten it, for an "
            "attribution is of one sequence."
        )
    (sequence,) = whole.sequences
    assert sequence.offsets is not None
    units = _units(example, texts, sequence, join)
    if not units:
        raise InputError("The text is empty; give some words to explain.")

    with torch.inference_mode(False), torch.enable_grad():
        reader, every = _Reader.of(model, sequence, units, blank), range(len(units))
        with torch.no_grad():
            logits = reader(reader.text_LE[None])[0].cpu().numpy()
        chosen = explain(task, replace(Samples.of([whole]), examples=[example]), logits, target, at)
        score, empty = reader.values(chosen.value, [[], every]).tolist()
        if method == "occlusion":
            values = score - reader.values(chosen.value, [[unit] for unit in every])
        elif method == "gradient_x_input":
            values = reader.sloped(chosen.value, np.ones(1), np.ones(1))
        else:
            nodes, shares = np.polynomial.legendre.leggauss(steps)
            values = reader.sloped(chosen.value, (nodes + 1) / 2, shares / 2)
        curves = _deletion(reader, chosen, values) if deletion else None
        probability = float(reader.values(chosen.chance, [[]])[0])
    words = (_word(texts, sequence, unit, value) for unit, value in zip(units, values.tolist(), strict=True))
    return Attribution(
        model.name,
        method,
        baseline,
        steps if method == "integrated_gradients" else 0,
        chosen.output,
        score,
        empty,
        chosen.shown,
        probability,
        tuple(words),
        curves,
    )


def _deletion(reader: _Reader, chosen: Explained, values: np.ndarray) -> Deletion:
    count, random = len(values), np.random.default_rng(0)
    steps = np.unique(np.linspace(0, count, min(count, POINTS) + 1).round().astype(int))
    orders = [np.argsort(-values, kind="stable"), *(random.permutation(count) for _ in range(ORDERS))]
    curves = [reader.values(chosen.chance, [order[:gone].tolist() for gone in steps]) for order in orders]
    return Deletion(steps / count, curves[0], np.stack(curves[1:]))


def _texts(task: Supervised, example: Any) -> list[str]:
    if isinstance(example, Question):
        return [example.question, example.passage]
    if not isinstance(example, Example | TaggedText):
        raise InputError(f"Attributions are of labels, numbers, tags and answers, and not of {task.name}.")
    pair = example.pair if isinstance(example, Example) else None
    return [example.text] if pair is None else [example.text, pair]


def _units(example: Any, texts: Sequence[str], sequence: TokenSequence, join: bool) -> list[list[int]]:
    """The content tokens that belong together, each once: those of a word, or each by itself."""
    assert sequence.offsets is not None
    content = np.flatnonzero(sequence.source >= 0).tolist()
    if not join:
        return [[at] for at in content]
    words = [example.words if isinstance(example, TaggedText) else tagged.words(text) for text in texts]
    numbers, found = word_of(words, sequence.offsets, sequence.source), dict[int, list[int]]()
    for at in content:
        found.setdefault(int(numbers[at]), []).append(at)
    return [*found.values()]


def _word(texts: Sequence[str], sequence: TokenSequence, unit: list[int], value: float) -> Word:
    assert sequence.offsets is not None
    source = int(sequence.source[unit[0]])
    low, high = int(sequence.offsets[unit, 0].min()), int(sequence.offsets[unit, 1].max())
    text = texts[source][low:high]
    low, high = low + len(text) - len(text.lstrip()), high - len(text) + len(text.rstrip())
    return Word(text.strip(), low, max(low, high), source, value)
