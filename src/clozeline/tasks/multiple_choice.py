"""Multiple choice: which of several choices answers a question or goes on with a text (SWAG, ARC).

Data: a column of questions, one for each choice or one with lists of them, and one of answers. See `data/choices.py`.

    question,A,B,C,D,answer
    "What do plants breathe in?","carbon dioxide","gold","sand","iron",A

Each choice is read with its question as a pair; questions may have different numbers of choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.data import choices
from clozeline.data.checks import SEPARATOR, Item
from clozeline.data.choices import Choices
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import Columns
from clozeline.errors import InputError
from clozeline.evaluate import choices as scorer
from clozeline.evaluate.calibration import cross_entropy, softmax
from clozeline.evaluate.intervals import Counted
from clozeline.model.matching import soft_loss
from clozeline.tasks import supervised
from clozeline.tasks.supervised import Check, Supervised
from clozeline.tokenizer import LongText, Tokenizer


@dataclass(frozen=True, slots=True)
class Choice:
    """number: of the choice, from 0; text: the choice; score: its probability; scores: that of every choice in order.

    tokens: content tokens of all question-choice pairs; truncated: how many of them the model did not see.
    """

    number: int
    text: str
    score: float
    scores: tuple[float, ...]
    tokens: int
    truncated: int

    def rows(self) -> list[tuple[str, ...]]:
        """The prediction as columns of text."""
        return [(str(self.number), f"{self.score:.4f}", self.text)]


@dataclass(frozen=True)
class MultipleChoice(Supervised):
    """What to learn from questions with choices.

    Args:
        long, max_length: as in `TextClassification`, of each question with one choice.
    """

    long: LongText = "truncate"
    max_length: int | None = None
    name: ClassVar[str] = "multiple-choice"
    head: ClassVar[str] = "multiple_choice"
    from_text: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("score",)

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        return cls(**supervised.policy(raw, "truncate"))

    def raw(self) -> dict[str, Any]:
        return {"clozeline": self.kept()}

    def example(self, text: Any, other: Any, place: str) -> Choices:
        offered = tuple(other) if isinstance(other, list | tuple) else ()
        if not isinstance(text, str) or len(offered) < 2 or not all(isinstance(each, str) for each in offered):
            raise InputError(f"{place} must be a question with a list of two choices or more, all of them texts.")
        return Choices(text, offered, None, place)

    def read(self, source: str | Path, split: str, columns: Columns) -> list[Choices]:
        return choices.read(source, split, columns)

    def samples(self, tokenizer: Tokenizer, examples: Sequence[Choices], *, targets: bool = True) -> Samples:
        """Targets: (n,) int64, the number of the right choice."""
        counts = np.asarray([len(example.choices) for example in examples])
        asked = [example.question for example in examples for _ in example.choices]
        offered = [choice for example in examples for choice in example.choices]
        places = [example.place for example in examples for _ in example.choices]
        found = Samples.tokenise(tokenizer, asked, offered, long=self.long, max_length=self.max_length, places=places)
        starts = np.r_[0, np.cumsum(counts)]  # (n + 1,) the first choice of each example
        numbers = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        answers = [example.answer for example in examples]
        return replace(
            found,
            parts=np.repeat(numbers, np.diff(found.first)).astype(np.int32),
            first=found.first[starts],
            tokens=np.add.reduceat(found.tokens, starts[:-1]),
            cut=np.add.reduceat(found.cut, starts[:-1]),
            targets=np.asarray(answers, dtype=np.int64) if targets else None,
            examples=examples,
        )

    def loss(self, logits: Tensor, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the choices of each question; the weight is the number of questions."""
        assert batch.owners is not None and batch.parts is not None and batch.targets is not None
        scores_nK = self._by_choice(logits, batch.owners, batch.parts, len(batch.targets))
        return F.cross_entropy(scores_nK, batch.targets, reduction="sum"), logits.new_tensor(len(batch.targets))

    def taught(self, logits: Tensor, theirs: Tensor, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        assert batch.owners is not None and batch.parts is not None and batch.targets is not None
        mine, other = (self._by_choice(x, batch.owners, batch.parts, len(batch.targets)) for x in (logits, theirs))
        return soft_loss(mine, other, temperature), logits.new_tensor(len(batch.targets))

    @staticmethod
    def _by_choice(logits_S1: Tensor, owners_S: Tensor, parts_S: Tensor, count: int) -> Tensor:
        """(n, K) the score of each choice, the mean over its windows; -inf where a question has fewer choices."""
        most = int(parts_S.max()) + 1
        place_S = owners_S * most + parts_S
        sums = logits_S1.new_zeros(count * most).index_add(0, place_S, logits_S1.squeeze(1))
        windows = torch.bincount(place_S, minlength=count * most)
        return (sums / windows.clamp(min=1)).masked_fill(windows == 0, -torch.inf).view(count, most)

    def _scores(self, logits: np.ndarray, samples: Samples) -> np.ndarray:
        assert samples.parts is not None
        owners = torch.from_numpy(np.repeat(np.arange(len(samples)), np.diff(samples.first)))
        parts = torch.from_numpy(samples.parts).long()
        scores: np.ndarray = self._by_choice(torch.from_numpy(logits), owners, parts, len(samples)).numpy()
        return scores

    def check(self, logits: np.ndarray, samples: Samples) -> Check:
        assert samples.targets is not None
        scores = self._scores(logits, samples)
        right = float((scores.argmax(1) == samples.targets).mean())
        counts = Counter(f"choice {number}" for number in scores.argmax(1).tolist())
        collapsed = supervised.only(counts) if len(np.unique(samples.targets)) > 1 else None
        return Check(cross_entropy(scores, samples.targets), {"accuracy": right}, dict(counts), collapsed)

    def decode(self, logits: np.ndarray, samples: Samples) -> list[Choice]:
        found = []
        for at, row in enumerate(softmax(self._scores(logits, samples))):
            offered, best = samples.examples[at].choices, int(row.argmax())
            scores = tuple(row[: len(offered)].tolist())
            found.append(
                Choice(best, offered[best], scores[best], scores, int(samples.tokens[at]), int(samples.cut[at]))
            )
        return found

    def item(self, example: Choices) -> Item:
        right = None if example.answer is None else (example.choices[example.answer],)
        return Item(SEPARATOR.join([example.question, *example.choices]), right, example.place)

    def report(self, logits: np.ndarray, samples: Samples) -> scorer.ChoiceReport:
        assert samples.targets is not None
        return scorer.report(self._scores(logits, samples), samples.targets, samples.cut, windows=samples.windows)

    def counted(self, logits: np.ndarray, samples: Samples, metric: str | None = None) -> Counted:
        assert samples.targets is not None
        return scorer.counted(self._scores(logits, samples), samples.targets)
