"""Question answering: which words of a passage answer a question, or that none do (Devlin et al. 2019, section 4.2 and 4.3).

Data: SQuAD's JSON, or rows with the same entries. See `data/squad.py`.

A passage longer than the model is read in overlapping windows, each with the whole question; the best span over all of them
is the answer. A window without the answer points at its first token, and so does a question that has no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from clozeline.data import checks, squad
from clozeline.data.checks import SEPARATOR, Item
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import Columns
from clozeline.data.squad import Question
from clozeline.errors import InputError
from clozeline.evaluate import answers
from clozeline.evaluate.calibration import softmax
from clozeline.evaluate.intervals import Counted
from clozeline.model.matching import soft_loss
from clozeline.tasks import supervised
from clozeline.tasks.supervised import Check, Supervised
from clozeline.tokenizer import LongText, Tokenizer

BEST = 20
"""Spans kept of each question, as in BERT's own scripts."""


@dataclass(frozen=True, slots=True)
class Span:
    """text: what stands at [start, end) of the characters of the passage; score: its probability among the best spans."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """text: the answer, empty where the passage is said to have none, with its [start, end) and score.

    no_answer: the probability that there is none; None where the model was trained on answerable questions only. best: the
    best spans, most probable first. tokens: content tokens of question and passage; truncated: those that were not seen.
    """

    text: str
    start: int
    end: int
    score: float
    no_answer: float | None
    best: tuple[Span, ...]
    tokens: int
    truncated: int

    def rows(self) -> list[tuple[str, ...]]:
        """The prediction as columns of text."""
        return [(self.text, f"{self.score:.4f}", str(self.start), str(self.end))]


@dataclass(frozen=True)
class QuestionAnswering(Supervised):
    """What to learn from questions about passages.

    Args:
        long: what happens to a passage longer than the model: "window" reads everything.
        max_length: tokens a sequence may have, question included; None is what the model reads at once.
        longest_answer: tokens.
        threshold: there is no answer where the score of none, the sum of the first token's two logits, is so much above that
            of the best span; None always answers. Where None and the training data has questions without an answer, it is 0,
            and fitted to the validation data after training.

    Raises:
        InputError: longest_answer is below 1.
    """

    long: LongText = "window"
    max_length: int | None = None
    longest_answer: int = 30
    threshold: float | None = None
    fitted_later: ClassVar[tuple[str, ...]] = ("threshold",)
    name: ClassVar[str] = "question-answering"
    head: ClassVar[str] = "question_answering"
    from_text: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("f1", "exact")
    per_token: ClassVar[bool] = True
    windows_apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.longest_answer < 1:
            raise InputError(f"longest_answer is {self.longest_answer}; it must be at least 1 token.")

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("start", "end")

    def settled(self, examples: Sequence[Question], source: str, columns: Columns) -> Self:
        some_lack = not all(example.answers for example in examples)
        return replace(self, threshold=0.0) if some_lack and self.threshold is None else self

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        kept = {key: value for key, value in supervised.ours(raw).items() if key in ("longest_answer", "threshold")}
        return cls(**supervised.policy(raw, "window"), **kept)

    def raw(self) -> dict[str, Any]:
        return {"clozeline": self.kept() | {"longest_answer": self.longest_answer, "threshold": self.threshold}}

    def example(self, text: Any, other: Any, place: str) -> Question:
        for what, value in (("question", text), ("passage", other)):
            if not isinstance(value, str):
                raise InputError(f"{place}: the {what} is {value!r:.40}; give each question a passage, both texts.")
        return Question(place, text, other, (), "", place)

    def read(self, source: str | Path, split: str, columns: Columns) -> list[Question]:
        return squad.read(source, split, columns)

    # -- examples to batches

    def samples(self, tokenizer: Tokenizer, examples: Sequence[Question], *, targets: bool = True) -> Samples:
        """Targets: (S, 2) int64, the first and last token of the first answer, 0 in a window that does not hold it."""
        asked, read = [example.question for example in examples], [example.passage for example in examples]
        found = Samples.tokenise(
            tokenizer,
            asked,
            read,
            long=self.long,
            max_length=self.max_length,
            moving="second",
            offsets=True,
            places=[example.place for example in examples],
        )
        found = replace(found, examples=examples)
        if not targets:
            return found
        assert found.offsets is not None
        places = np.zeros((len(found.bounds) - 1, 2), dtype=np.int64)
        for at, example in enumerate(examples):
            if not example.answers:
                continue
            text, start = example.answers[0]
            start, end = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
            for window in range(found.first[at], found.first[at + 1]):
                rows, gap = self._passage(found, at, window)
                starts, ends = found.offsets[rows, 0], found.offsets[rows, 1]
                first = int(np.searchsorted(ends, start, side="right"))
                last = int(np.searchsorted(starts, end, side="left")) - 1
                if not 0 <= first <= last or first <= gap < last:
                    continue
                # at the edges of what is seen here, the answer may begin before or end behind them
                left = first == gap + 1 if gap >= 0 else first == 0 and window > found.first[at]
                right = last == gap or (last == len(rows) - 1 and (found.cut[at] or window + 1 < found.first[at + 1]))
                if (starts[first] <= start or not left) and (ends[last] >= end or not right):
                    places[window] = rows[[first, last]] - found.bounds[window]
        return replace(found, targets=places, targets_of="sequence")

    # -- network to results

    def loss(self, logits: Tensor, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the tokens of each sequence, of the start and of the end; the weight is twice the sequences."""
        layout = batch.packed.layout
        assert batch.targets is not None
        highest_S2 = layout.max(logits.detach())
        sums_S2 = torch.zeros_like(highest_S2).index_add(0, layout.owners, (logits - highest_S2[layout.owners]).exp())
        rows_S2 = layout.offsets[:-1, None] + batch.targets
        chosen_S2 = logits.gather(0, rows_S2)
        return (sums_S2.log() + highest_S2 - chosen_S2).sum(), logits.new_tensor(batch.targets.numel())

    def taught(self, logits: Tensor, theirs: Tensor, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """The divergence over the tokens of each sequence, of the start and of the end."""
        mine, other = (
            pad_sequence([*batch.packed.layout.split(x)], batch_first=True, padding_value=-torch.inf).transpose(1, 2)
            for x in (logits, theirs)
        )
        return soft_loss(mine, other, temperature), logits.new_tensor(2 * len(mine))

    def check(self, logits: np.ndarray, samples: Samples) -> Check:
        assert samples.targets is not None
        starts = samples.bounds[:-1]
        highest = np.maximum.reduceat(logits, starts)
        shifted = logits.astype(np.float64) - np.repeat(highest, np.diff(samples.bounds), axis=0)
        chosen = np.take_along_axis(shifted, starts[:, None] + samples.targets, axis=0)
        loss = float((np.log(np.add.reduceat(np.exp(shifted), starts)) - chosen).mean())
        golds, found = self.tuned(logits, samples)._both(logits, samples)
        empty = sum(not text for text in found.values())
        predicted = {"no answer": empty, "an answer": len(found) - empty} if self.threshold is not None else {}
        none = bool(predicted) and predicted["an answer"] == 0 and bool(samples.targets.any())  # 0 is where none is
        return Check(loss, answers.measures(golds, found), predicted, "no answer" if none else None)

    def tuned(self, logits: np.ndarray, samples: Samples) -> Self:
        """The threshold that gives the highest F1 on these samples, as the official scorer of SQuAD 2.0 finds it."""
        if self.threshold is None:
            return self
        gaps, gains = [], []
        for at, example in enumerate(samples.examples):
            best, none = self._spans(logits, samples, at)
            accepted = [text for text, _ in example.answers if answers.normalise(text)] or [""]
            text = example.passage[best[0][1] : best[0][2]] if best else ""
            gaps.append(none - best[0][0] if best else np.inf)
            gains.append(answers.overlap(text, accepted) - answers.overlap("", accepted))
        order = np.argsort(gaps, kind="stable")  # answer more and more questions, the surest first
        sums = np.r_[0.0, np.cumsum(np.asarray(gains)[order])]
        ordered = np.asarray(gaps)[order]
        edges = np.r_[ordered[:1] - 1, (ordered[:-1] + ordered[1:]) / 2, ordered[-1:] + 1]
        edges[~np.isfinite(edges)] = np.inf
        sums[1:-1][ordered[1:] == ordered[:-1]] = -np.inf  # equal gaps cannot be told apart
        threshold = float(edges[int(sums.argmax())])
        return replace(self, threshold=threshold if np.isfinite(threshold) else 1e9)

    def decode(self, logits: np.ndarray, samples: Samples) -> list[Answer]:
        return [self._answer(logits, samples, at) for at in range(len(samples))]

    def _answer(self, logits: np.ndarray, samples: Samples, at: int) -> Answer:
        spans, none = self._spans(logits, samples, at)
        passage: str = samples.examples[at].passage
        cost = int(samples.tokens[at]), int(samples.cut[at])
        scored = [score for score, *_ in spans] + ([] if self.threshold is None else [none])
        shares = softmax(np.asarray(scored)).tolist() if scored else []
        best = tuple(
            Span(passage[start:end], start, end, share) for (_, start, end), share in zip(spans, shares, strict=False)
        )
        no_answer = None if self.threshold is None else shares[-1]
        if not best or (self.threshold is not None and none - spans[0][0] > self.threshold):
            return Answer("", 0, 0, no_answer or 0.0, no_answer, best, *cost)
        first = best[0]
        return Answer(first.text, first.start, first.end, first.score, no_answer, best, *cost)

    def _spans(self, logits: np.ndarray, samples: Samples, at: int) -> tuple[list[tuple[float, int, int]], float]:
        """The best spans (score, start, end in characters) of an example over its windows, and the score of no answer."""
        assert samples.offsets is not None
        found: dict[tuple[int, int], float] = {}
        none = np.inf
        for window in range(samples.first[at], samples.first[at + 1]):
            none = min(none, float(logits[samples.bounds[window]].sum()))
            rows, gap = self._passage(samples, at, window)
            if not len(rows):
                continue
            starts, ends = samples.offsets[rows, 0], samples.offsets[rows, 1]
            length = min(self.longest_answer, len(rows))
            last = np.arange(len(rows))[:, None] + np.arange(length)  # (start, token of the answer)
            inside = np.minimum(last, len(rows) - 1)
            fits = (last < len(rows)) & (starts[:, None] < ends[inside])
            fits &= ~((np.arange(len(rows))[:, None] <= gap) & (gap < inside))
            scores = np.where(fits, logits[rows, 0][:, None] + logits[rows, 1][inside], -np.inf).ravel()
            least = np.partition(scores, -BEST)[-BEST] if len(scores) > BEST else -np.inf
            chosen = np.flatnonzero((scores >= least) & (scores > -np.inf))
            for place in chosen[np.argsort(-scores[chosen], kind="stable")][:BEST].tolist():
                one, other = divmod(place, length)
                span = int(starts[one]), int(ends[one + other])
                found[span] = max(float(scores[place]), found.get(span, -np.inf))
        best = sorted(((score, *span) for span, score in found.items()), key=lambda one: (-one[0], one[1], one[2]))
        return best[:BEST], none

    def _passage(self, samples: Samples, at: int, window: int) -> tuple[np.ndarray, int]:
        """The rows of a window's tokens of the passage, and after which of them some were cut out; -1 for none."""
        assert samples.source is not None and samples.offsets is not None
        first, after = samples.bounds[window], samples.bounds[window + 1]
        rows = np.flatnonzero(samples.source[first:after] == 1) + first
        if self.long != "head_tail" or not samples.cut[at] or len(rows) < 2:
            return rows, -1
        starts, ends = samples.offsets[rows, 0], samples.offsets[rows, 1]
        gap = int(np.argmax(starts[1:] - ends[:-1]))
        unseen = samples.examples[at].passage[ends[gap] : starts[gap + 1]]
        return rows, gap if unseen.strip() else -1

    def report(self, logits: np.ndarray, samples: Samples) -> answers.AnswerReport:
        return answers.report(*self._both(logits, samples), cut=samples.cut, windows=samples.windows)

    def counted(self, logits: np.ndarray, samples: Samples, metric: str | None = None) -> Counted:
        return answers.counted(*self._both(logits, samples), metric or "f1")

    def item(self, example: Question) -> Item:
        return Item(f"{example.question}{SEPARATOR}{example.passage}", None, example.place)

    def notes(self, train: Sequence[Question], validation: Sequence[Question]) -> list[str]:
        """A question is looked for among those of its own data; a passage of validation among those of training."""
        ours, theirs = (
            [*{each.passage: Item(each.passage, None, each.place) for each in reversed(some)}.values()][::-1]
            for some in (train, validation)
        )
        return super().notes(train, ()) + (checks.passages(checks.check(ours, theirs)) if theirs else [])

    def counts(self, samples: Samples) -> dict[str, int]:
        having = sum(bool(example.answers) for example in samples.examples)
        return {"with an answer": having, "without": len(samples.examples) - having}

    def _both(self, logits: np.ndarray, samples: Samples) -> tuple[dict[str, list[str]], dict[str, str]]:
        """All accepted answers and the predicted one, by question."""
        golds = {example.name: [text for text, _ in example.answers] for example in samples.examples}
        found = {
            example.name: answer.text
            for example, answer in zip(samples.examples, self.decode(logits, samples), strict=True)
        }
        return golds, found
