"""What each task learns from a teacher's answers, against the same written out plainly, in value and gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clozeline as cl
from clozeline.data import tagged
from clozeline.data.choices import Choices
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import Example
from clozeline.data.squad import Question
from clozeline.tasks.supervised import IGNORED, Supervised
from clozeline.tokenizer import Tokenizer
from helpers import PLAIN

ABC = ("a", "b", "c")
SHORT = ["w1", "w2 w3 w4 w5", "w6 w7", "w8 w9 w10 w11 w12", "w13 w14 w15"]
LONG = " ".join(PLAIN[:37])
TEXTS = ["w1", LONG, "w2 w3 w4 w5", LONG[:60], "w6 w7"]
CHOSEN = np.asarray([3, 0, 2, 1])  # not in their order, and not all of them

Reference = Callable[[Sequence[Tensor], Sequence[Tensor], Any, float], Tensor]
"""(student's rows by sequence, the teacher's, what belongs to them, temperature) -> the summed loss of an example."""


def divergence(mine: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Hinton et al. 2015 over the numbers of one vector, T^2 KL(teacher || student), with nothing of torch's own."""
    q = [math.exp(x / temperature) for x in theirs.tolist()]
    q = [x / sum(q) for x in q]
    p = (mine / temperature).exp() / (mine / temperature).exp().sum()
    return temperature**2 * torch.stack([share * (math.log(share) - p[at].log()) for at, share in enumerate(q)]).sum()


def of_classes(mine: Sequence[Tensor], theirs: Sequence[Tensor], _: Any, t: float) -> Tensor:
    """The mean over the windows of a text, one row each."""
    return divergence(torch.stack([*mine]).mean(0)[0], torch.stack([*theirs]).mean(0)[0], t)


def of_label_sets(mine: Sequence[Tensor], theirs: Sequence[Tensor], _: Any, t: float) -> Tensor:
    """Each label is a choice between it and 0."""
    both = [torch.stack([*x]).mean(0)[0] for x in (mine, theirs)]
    zero = torch.zeros(())
    return torch.stack(
        [divergence(torch.stack([a, zero]), torch.stack([b, zero]), t) for a, b in zip(*both, strict=True)]
    ).sum()


def of_numbers(mine: Sequence[Tensor], theirs: Sequence[Tensor], _: Any, t: float) -> Tensor:
    return ((torch.stack([*mine]).mean(0) - torch.stack([*theirs]).mean(0)) ** 2).sum()


def of_tags(mine: Sequence[Tensor], theirs: Sequence[Tensor], targets: Sequence[Sequence[int]], t: float) -> Tensor:
    found = [
        divergence(mine[window][at], theirs[window][at], t)
        for window, some in enumerate(targets)
        for at, target in enumerate(some)
        if target != IGNORED
    ]
    return torch.stack(found).sum()


def of_spans(mine: Sequence[Tensor], theirs: Sequence[Tensor], _: Any, t: float) -> Tensor:
    """Start and end, each over the tokens of a window."""
    pairs = zip(mine, theirs, strict=True)
    return torch.stack([divergence(a[:, side], b[:, side], t) for a, b in pairs for side in (0, 1)]).sum()


def of_choices(mine: Sequence[Tensor], theirs: Sequence[Tensor], parts: Sequence[int], t: float) -> Tensor:
    scores = [
        torch.stack(
            [
                torch.stack([x[at][0, 0] for at, part in enumerate(parts) if part == choice]).mean()
                for choice in range(max(parts) + 1)
            ]
        )
        for x in (mine, theirs)
    ]
    return divergence(scores[0], scores[1], t)


@dataclass(frozen=True)
class Case:
    """A task with examples. width: of its logits; windows: whether some example is read in several."""

    task: Supervised
    examples: Sequence[Any]
    width: int
    plain: Reference
    windows: bool = False


def texts(labels: Sequence[Any], some: Sequence[str] = SHORT) -> list[Example]:
    return [Example(text, None, label, text[:9]) for text, label in zip(some, labels, strict=True)]


def sentences(some: Sequence[str]) -> list[tagged.TaggedText]:
    """Every third word is a place, of two words where there is another one."""
    found = []
    for text in some:
        words = text.split()
        tags = [("B-place", "I-place", "O")[at % 3] for at in range(len(words))]
        found.append(tagged.of_words(words, tags, text[:9]))
    return found


def asked(passage: str, first: str, number: int) -> Question:
    return Question(f"q{number}", "w40 w41", passage, ((first, passage.index(first)),), "", f"q{number}")


WINDOWS: dict[str, Any] = dict(long="window", max_length=16)
HARD, SETS = ["a", "c", "b", "a", "c"], [("a",), (), ("b", "c"), ("a", "b", "c"), ("c",)]
NUMBERS = [(1.0, -2.0), (0.5, 3.0), (0.0, 0.0), (2.0, 1.0), (-1.0, 4.0)]
QUESTIONS = [Choices("w1", ("w2", "w3 w4"), 1, "a"), Choices("w5", ("w7", "w8", "w9", "w10", "w11"), 0, "b"),
             Choices("w1", (LONG, "w3", LONG[:90]), 2, "c"), Choices("w12", ("w13", LONG), 1, "d"),
             Choices("w2", ("w3", "w4"), 0, "e")]  # fmt: skip
CASES: dict[str, Case] = {
    "text": Case(cl.TextClassification(ABC), texts(HARD), 3, of_classes),
    "long text": Case(cl.TextClassification(ABC, **WINDOWS), texts(HARD, TEXTS), 3, of_classes, True),
    "soft labels": Case(cl.TextClassification(ABC), texts([{"a": 0.3, "b": 0.7}, *HARD[1:]]), 3, of_classes),
    "label sets": Case(cl.MultiLabelClassification(ABC), texts(SETS), 3, of_label_sets),
    "label sets, long": Case(cl.MultiLabelClassification(ABC, **WINDOWS), texts(SETS, TEXTS), 3, of_label_sets, True),
    "numbers": Case(cl.Regression(("x", "y")), texts(NUMBERS), 2, of_numbers),
    "numbers, long": Case(cl.Regression(("x", "y"), **WINDOWS), texts(NUMBERS, TEXTS), 2, of_numbers, True),
    "tags": Case(cl.TokenClassification(("O", "B-place", "I-place")), sentences(SHORT), 3, of_tags),
    "tags, long": Case(
        cl.TokenClassification(("O", "B-place", "I-place"), max_length=16), sentences(TEXTS), 3, of_tags, True
    ),
    "answers": Case(
        cl.QuestionAnswering(max_length=16), [asked(text, "w", at) for at, text in enumerate(TEXTS)], 2, of_spans, True
    ),
    "choices": Case(cl.MultipleChoice(), QUESTIONS, 1, of_choices),
    "choices, long": Case(cl.MultipleChoice(**WINDOWS), QUESTIONS, 1, of_choices, True),
}


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer.load(tiny, 64)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def logits_for(case: Case, samples: Samples, seed: int) -> Tensor:
    """Random logits of all samples, a row for each sequence or token."""
    rows = len(samples.ids) if case.task.per_token else len(samples.bounds) - 1
    return 2 * torch.randn(rows, case.width, generator=torch.Generator().manual_seed(seed))


def rows_of(case: Case, samples: Samples, sequence: int) -> list[int]:
    """Which rows of all logits are a sequence's."""
    return [*range(samples.bounds[sequence], samples.bounds[sequence + 1])] if case.task.per_token else [sequence]


def taken(case: Case, samples: Samples, chosen: np.ndarray, logits: Tensor) -> Tensor:
    """The rows of the logits that a batch of these examples has, in its order."""
    sequences = [each for at in chosen for each in range(samples.first[at], samples.first[at + 1])]
    return logits[[row for each in sequences for row in rows_of(case, samples, each)]]


def plainly(case: Case, samples: Samples, chosen: np.ndarray, mine: Tensor, theirs: Tensor, t: float) -> Tensor:
    """The loss of the chosen examples one by one, out of the logits of all."""
    total = torch.zeros(())
    for at in chosen:
        sequences = range(samples.first[at], samples.first[at + 1])
        one, other = ([x[rows_of(case, samples, each)] for each in sequences] for x in (mine, theirs))
        beside: Any = None
        if samples.parts is not None:
            beside = [int(samples.parts[each]) for each in sequences]
        elif samples.targets_of == "token":
            assert samples.targets is not None
            beside = [samples.targets[rows_of(case, samples, each)].tolist() for each in sequences]
        total = total + case.plain(one, other, beside, t)
    return total


def batch_of(samples: Samples, theirs: Tensor, chosen: np.ndarray) -> Batch:
    found = replace(samples, theirs=theirs.numpy()).take(chosen)
    assert found.theirs is not None
    return found


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_what_is_taught_is_the_plain_loss(case: Case, tokenizer: Tokenizer, temperature: float) -> None:
    samples = case.task.samples(tokenizer, case.examples)
    assert case.windows == (len(samples.bounds) - 1 > sum(len(getattr(each, "choices", "x")) for each in case.examples))
    mine, theirs = logits_for(case, samples, 0).requires_grad_(), logits_for(case, samples, 1)
    batch = batch_of(samples, theirs, CHOSEN)
    assert batch.theirs is not None and torch.equal(batch.theirs, taken(case, samples, CHOSEN, theirs))

    found, count = case.task.taught(taken(case, samples, CHOSEN, mine), batch.theirs, batch, temperature)
    expected = plainly(case, samples, CHOSEN, mine, theirs, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    one, other = (torch.autograd.grad(loss, mine)[0] for loss in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert one.abs().max() > 0.01

    _, weight = case.task.loss(taken(case, samples, CHOSEN, mine), batch, None)
    assert float(count) == pytest.approx(float(weight)), "hard and soft losses are divided by the same"


def test_temperature_leaves_no_trace_where_nothing_is_softened(tokenizer: Tokenizer) -> None:
    """Numbers have no probabilities: every temperature gives the same."""
    case = CASES["numbers"]
    samples = case.task.samples(tokenizer, case.examples)
    mine, theirs = logits_for(case, samples, 0), logits_for(case, samples, 1)
    batch = batch_of(samples, theirs, np.arange(5))
    assert torch.equal(case.task.taught(mine, theirs, batch, 1.0)[0], case.task.taught(mine, theirs, batch, 9.0)[0])


def test_who_answers_as_the_teacher_does_has_nothing_to_learn(case: Case, tokenizer: Tokenizer) -> None:
    samples = case.task.samples(tokenizer, case.examples)
    theirs = logits_for(case, samples, 1)
    batch = batch_of(samples, theirs, CHOSEN)
    mine = taken(case, samples, CHOSEN, theirs).requires_grad_()
    assert batch.theirs is not None
    found, _ = case.task.taught(mine, batch.theirs, batch, 2.0)
    assert found.abs() < 1e-5
    assert torch.autograd.grad(found, mine)[0].abs().max() < 1e-5


def test_batches_add_up(case: Case, tokenizer: Tokenizer) -> None:
    """Sums and counts of two batches are those of one; and all loss weights together are the answer count."""
    samples = case.task.samples(tokenizer, case.examples)
    mine, theirs = logits_for(case, samples, 0), logits_for(case, samples, 1)

    def of(chosen: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        at = np.asarray(chosen)
        batch, rows = batch_of(samples, theirs, at), taken(case, samples, at, mine)
        assert batch.theirs is not None
        return *case.task.taught(rows, batch.theirs, batch, 2.0), case.task.loss(rows, batch, None)[1].float()

    whole, parts = of([0, 1, 2, 3, 4]), [of([2, 0]), of([1]), of([4, 3])]
    for number in range(3):
        torch.testing.assert_close(
            torch.stack([part[number].float() for part in parts]).sum(), whole[number].float(), rtol=1e-5, atol=1e-4
        )
    assert case.task.answer_count(samples) == pytest.approx(float(whole[2]))


# -- texts without labels


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.task.from_text and name != "soft labels"]
)
def test_texts_without_labels_take_the_teachers_answers(name: str, tokenizer: Tokenizer) -> None:
    case = CASES[name]
    some = [case.task.example(each.text, None, each.place) for each in case.examples]
    bare = case.task.samples(tokenizer, some, targets=False)
    assert bare.targets is None
    theirs = logits_for(case, bare, 1)
    samples = case.task.answered(theirs.numpy(), bare)

    batch, rows = batch_of(samples, theirs, CHOSEN), taken(case, samples, CHOSEN, theirs)
    assert batch.targets is not None and batch.theirs is not None
    hard, weight = case.task.loss(rows.requires_grad_(), batch, None)
    soft, count = case.task.taught(rows, batch.theirs, batch, 2.0)
    assert hard.isfinite() and float(weight) == float(count) > 0 and soft.abs() < 1e-5
    (towards,) = torch.autograd.grad(hard, rows)
    if isinstance(case.task, cl.Regression):
        assert hard.abs() < 1e-6, "the targets are the teacher's values"
    else:
        assert case.task.loss(rows - 0.1 * towards, batch, None)[0] < hard
    every = np.arange(len(samples))
    weights = case.task.loss(taken(case, samples, every, theirs), batch_of(samples, theirs, every), None)[1]
    assert case.task.answer_count(samples) == pytest.approx(float(weights))
    assert_what_is_predicted(case.task, samples, theirs)


def assert_what_is_predicted(task: Supervised, samples: Samples, theirs: Tensor) -> None:
    """The targets are what the task predicts from the same logits."""
    targets, predicted = samples.targets, task.decode(theirs.numpy(), samples)
    assert targets is not None
    if isinstance(task, cl.TextClassification):
        assert [task.labels[at] for at in targets] == [each.label for each in predicted]
    elif isinstance(task, cl.MultiLabelClassification):
        sets = [tuple(label for label, mark in zip(task.labels, row, strict=True) if mark == 1) for row in targets]
        assert sets == [each.labels for each in predicted] and {*targets.ravel()} <= {0.0, 1.0}
    elif isinstance(task, cl.Regression):
        np.testing.assert_allclose(targets, [[*each.values.values()] for each in predicted], rtol=1e-6)
    else:
        assert samples.source is not None
        special = samples.source < 0
        assert (targets[special] == IGNORED).all() and (targets[~special] == theirs.numpy()[~special].argmax(1)).all()


def test_answers_of_label_sets_obey_the_threshold(tokenizer: Tokenizer) -> None:
    task = cl.MultiLabelClassification(ABC, threshold=0.9)
    bare = task.samples(tokenizer, [task.example("w1", None, "")], targets=False)
    sure, unsure = math.log(0.91 / 0.09), math.log(0.89 / 0.11)
    samples = task.answered(np.asarray([[sure, unsure, -1.0]], dtype=np.float32), bare)
    assert samples.targets is not None and samples.targets.tolist() == [[1.0, 0.0, 0.0]]
