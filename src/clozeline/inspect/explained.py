"""Which number of a model's answer is explained: a logit of a label, of a tag at a word, or of an answer's two ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clozeline.data.packing import Samples
from clozeline.data.tagged import TaggedText
from clozeline.errors import InputError, nearest
from clozeline.tasks.multi_label import MultiLabelClassification
from clozeline.tasks.question_answering import QuestionAnswering
from clozeline.tasks.regression import Regression
from clozeline.tasks.supervised import Supervised
from clozeline.tasks.token_classification import TokenClassification


class Explained(NamedTuple):
    """What is explained. value, chance: of (n, R, C) logits, (n,) each; R is the tokens, or 1 for the text as a whole."""

    output: str
    shown: str
    value: Callable[[Tensor], Tensor]
    chance: Callable[[Tensor], Tensor]


def explain(task: Supervised, samples: Samples, logits: np.ndarray, target: str | None, at: Any) -> Explained:
    """What is explained of the (R, C) logits of one sequence: see `attribution` for target and at.

    Raises:
        InputError: no such output, word or answer, or the task is of another kind.
    """
    if at is not None and not isinstance(task, TokenClassification):
        raise InputError(f"at says which word's tag is explained, and {task.name} has none; leave it out.")
    if isinstance(task, QuestionAnswering):
        return _answer(task, samples, logits, target)
    row, word = _row_of(samples, at) if isinstance(task, TokenClassification) else (0, None)
    if target is not None and target not in task.outputs:
        raise InputError(f"The model has no output {target!r}: {nearest(str(target), task.outputs)}")
    first = 0 if isinstance(task, Regression) else int(logits[row].argmax())
    column = first if target is None else task.outputs.index(target)
    name = task.outputs[column]
    if isinstance(task, Regression):
        return Explained(f"the value {name!r}", name, *[lambda x: x[:, 0, column]] * 2)

    def chance(x_nRC: Tensor) -> Tensor:
        x_nC = x_nRC[:, row]
        if isinstance(task, MultiLabelClassification):
            return torch.sigmoid(x_nC)[:, column]
        return torch.softmax(x_nC / getattr(task, "temperature", 1.0), -1)[:, column]

    what = f"the logit of {name!r}"
    if word is not None:
        what += f" at the word {word!r}"
    return Explained(what, f"the probability of {name!r}", lambda x: x[:, row, column], chance)


def _row_of(samples: Samples, at: int | str | None) -> tuple[int, str]:
    """The row that a word's tag is read off, that of its first piece; and the word."""
    example: TaggedText = samples.examples[0]
    names = [example.text[start:end] for start, end in example.words]
    if isinstance(at, str):
        places = [number for number, name in enumerate(names) if name == at]
        if len(places) != 1:
            shown = f"{len(places)} times, as words {', '.join(map(str, places))}" if places else "not"
            raise InputError(
                f"The word {at!r} stands {shown} in the text; give the index of one of its {len(names)} words."
            )
        (at,) = places
    if not isinstance(at, int) or not 0 <= at < len(names):
        raise InputError(
            f"at (--at) is {at!r}; say which word's tag is explained: the word itself, or 0 to {len(names) - 1}."
        )
    assert samples.offsets is not None and samples.source is not None
    start, end = example.words[at]
    before = example.words[at - 1][1] if at else 0
    starts, ends = samples.offsets.T
    rows = np.flatnonzero((samples.source == 0) & (starts < end) & (ends > start))
    own = rows[starts[rows] >= before]  # the others show the word before too
    if not len(rows):
        raise InputError(f"The tokenizer leaves out the word {names[at]!r}, so it has no tag.")
    return int([*own, *rows][0]), names[at]


def _answer(task: QuestionAnswering, samples: Samples, logits: np.ndarray, target: str | None) -> Explained:
    """An answer: the best, or one that is given; that there is none where that is what the model says."""
    passage: str = samples.examples[0].passage
    (best,) = task.decode(logits, samples)
    text, start, end = best.text, best.start, best.end
    if target is not None:
        text, start = target, passage.find(target)
        end = start + len(target)
        if start < 0 or not target.strip():
            raise InputError(f"The passage does not hold the answer {target!r:.60}; give a part of it.")
    first = last = 0
    if text:
        assert samples.offsets is not None and samples.source is not None
        starts, ends = samples.offsets.T
        rows = np.flatnonzero((samples.source == 1) & (starts < end) & (ends > start))
        if not len(rows):
            raise InputError(f"The tokenizer leaves out {target!r:.60}, so it is no answer.")
        first, last = int(rows[0]), int(rows[-1])
    shown = repr(text) if text else "no answer"

    def chance(x_nR2: Tensor) -> Tensor:
        shares = torch.softmax(x_nR2, 1)
        return shares[:, first, 0] * shares[:, last, 1]

    return Explained(
        f"the logits of {shown}, of its start and its end",
        f"the probability of {shown}",
        lambda x: x[:, first, 0] + x[:, last, 1],
        chance,
    )
