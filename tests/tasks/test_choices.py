"""Multiple choice: questions with different numbers of choices, choices in windows, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline import predict
from clozeline.data.choices import Choices
from clozeline.data.packing import Samples
from clozeline.errors import InputError
from clozeline.tasks.multiple_choice import MultipleChoice
from clozeline.tokenizer import Tokenizer
from helpers import PLAIN, as_trained

LONG = " ".join(PLAIN * 3)
EXAMPLES = [
    Choices("w1", ("w2", "w3 w4"), 1, "a"),
    Choices("w5 w6", ("w7", "w8", "w9", "w10", "w11"), 0, "b"),
    Choices("w1", (LONG, "w3", LONG + " w4"), 2, "c"),
    Choices("w12", ("w13", LONG[:290]), 1, "d"),
]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer.load(tiny, 64)


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose random weights are so large that its choices differ."""
    model = cl.load(tiny, MultipleChoice(long="window"))
    random = torch.Generator().manual_seed(0)
    for parameter in model.network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    return as_trained(model._bundle, tmp_path_factory.mktemp("choices"))


def scores_by_hand(samples: Samples, logits: np.ndarray, tokenizer: Tokenizer) -> list[list[float]]:
    """Sequences stand in the order of questions, choices, windows; a choice's score is the mean over its windows."""
    found, at = [], 0
    for example in samples.examples:
        row = []
        for choice in example.choices:
            encoded = tokenizer.encode([example.question], [choice], long="window")[0]
            size = len(encoded.sequences)
            for number, sequence in enumerate(encoded.sequences):
                begin, end = samples.bounds[at + number : at + number + 2]
                assert samples.ids[begin:end].tolist() == sequence.ids.tolist()
            row.append(float(logits[at : at + size].mean()))
            at += size
        found.append(row)
    assert at == len(logits)
    return found


def test_scores_are_the_means_over_each_choices_windows(tokenizer: Tokenizer) -> None:
    task = MultipleChoice(long="window")
    samples = task.samples(tokenizer, EXAMPLES)
    assert samples.parts is not None
    logits = np.random.default_rng(0).normal(size=(len(samples.bounds) - 1, 1)).astype(np.float32)
    expected = scores_by_hand(samples, logits, tokenizer)
    scores = task._scores(logits, samples)
    assert scores.shape == (4, 5)
    for row, wanted in zip(scores, expected, strict=True):
        np.testing.assert_allclose(row[: len(wanted)], wanted, rtol=1e-5, atol=1e-6)
        assert np.isneginf(row[len(wanted) :]).all()
    for found, wanted, example in zip(task.decode(logits, samples), expected, EXAMPLES, strict=True):
        shares = torch.softmax(torch.tensor(wanted), -1).tolist()
        assert found.scores == pytest.approx(shares, rel=1e-4)
        assert found.number == int(np.argmax(wanted))
        assert found.text == example.choices[found.number]
        assert found.score == max(found.scores)
        assert found.truncated == 0
    sizes = [2 + 3, 5 * 3, 151 + 2 + 152, 2 + 1 + len(LONG[:290].split())]
    assert [found.tokens for found in task.decode(logits, samples)] == sizes


def test_the_loss_is_the_cross_entropy_of_each_question(tokenizer: Tokenizer) -> None:
    """In any order and any batch; its weight is the number of questions, however many choices they have."""
    task = MultipleChoice(long="window")
    samples = task.samples(tokenizer, EXAMPLES)
    assert samples.targets is not None
    logits = np.random.default_rng(0).normal(size=(len(samples.bounds) - 1, 1)).astype(np.float32)
    by_hand = scores_by_hand(samples, logits, tokenizer)
    each = [
        -torch.log_softmax(torch.tensor(row), -1)[one.answer].item() for row, one in zip(by_hand, EXAMPLES, strict=True)
    ]
    for chosen in ([0, 1, 2, 3], [3, 1], [2], [1, 0, 3]):
        rows = np.concatenate([np.arange(samples.first[at], samples.first[at + 1]) for at in chosen])
        some = torch.from_numpy(logits[rows]).requires_grad_()
        total, weight = task.loss(some, samples.take(np.asarray(chosen)), None)
        assert weight.item() == len(chosen)
        assert total.item() == pytest.approx(sum(each[at] for at in chosen), rel=1e-5)
        total.backward()
        assert some.grad is not None
        assert torch.isfinite(some.grad).all()
        assert (some.grad != 0).all()
    found = task.check(logits, samples)
    assert found.loss == pytest.approx(np.mean(each), rel=1e-5)
    right = [int(np.argmax(row)) == one.answer for row, one in zip(by_hand, EXAMPLES, strict=True)]
    assert found.scores == {"accuracy": pytest.approx(np.mean(right))}
    assert task.report(logits, samples).accuracy.value == pytest.approx(np.mean(right))
    assert task.report(logits, samples).chance == pytest.approx(np.mean([1 / 2, 1 / 5, 1 / 3, 1 / 2]))
    assert sum(found.predicted.values()) == 4


def test_what_is_cut_is_counted_over_all_choices(tokenizer: Tokenizer) -> None:
    samples = MultipleChoice().samples(tokenizer, EXAMPLES[:3])
    assert len(samples.bounds) - 1 == 2 + 5 + 3
    assert samples.cut.tolist() == [0, 0, 151 - 61 + 152 - 61]
    report = MultipleChoice().report(np.zeros((10, 1), np.float32), samples)
    assert (report.truncated_texts, report.truncated_tokens) == (1, 181)


def test_a_question_that_is_too_long_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"^c and its pair have 151 tokens"):
        MultipleChoice(long="error").samples(tokenizer, EXAMPLES)


def test_neither_order_nor_neighbours_change_a_choice(folder: Path) -> None:
    model = cl.load(folder)
    questions = [one.question for one in EXAMPLES]
    together = model.predict(questions, [one.choices for one in EXAMPLES])
    for example, found in zip(EXAMPLES, together, strict=True):
        (alone,) = model.predict(example.question, example.choices)
        assert alone.scores == pytest.approx(found.scores, abs=1e-5)
        (turned,) = model.predict([example.question], [list(reversed(example.choices))])
        assert turned.scores == pytest.approx(found.scores[::-1], abs=1e-5)
        assert turned.text == found.text
    assert len({found.number for found in together}) > 1


def test_a_model_learns_to_choose(tiny: Path, tmp_path: Path) -> None:
    """From rows with two to four choices; the word that is right is never at one place."""
    random = np.random.default_rng(0)
    for name, count in (("train", 300), ("dev", 60)):
        rows = []
        for _ in range(count):
            size, right = int(random.integers(2, 5)), 0
            offered = random.choice(PLAIN, size).tolist()
            right = int(random.integers(size))
            offered[right] += " good"
            rows.append({"question": str(random.choice(PLAIN)), "choices": offered, "answer": right})
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = cl.load(tiny, MultipleChoice())
    fitted = model.fit(tmp_path / "train.jsonl", tmp_path / "dev.jsonl", out=tmp_path / "run", epochs=4,
                       learning_rate=2e-3, batch_size=16, precision="fp32", quiet=True)  # fmt: skip
    assert fitted.best is not None
    assert fitted.best.scores["accuracy"] > 0.95
    again = cl.load(tmp_path / "run" / "model")
    assert again.task == MultipleChoice()
    asked = (["w1", "w2"], [["w3", "w4 good"], ["good w1", "w5", "w6"]])
    assert [found.number for found in again.predict(*asked)] == [1, 0]
    assert again.predict(*asked) == model.predict(*asked)


def test_repeated_questions_are_noticed_before_training() -> None:
    notes = MultipleChoice().notes([EXAMPLES[1]] * 3, [EXAMPLES[1]])
    assert any("validation" in note for note in notes)
    other = replace(EXAMPLES[1], answer=1 - (EXAMPLES[1].answer or 0), place="elsewhere")
    (note,) = MultipleChoice().notes([EXAMPLES[1], other], [])
    assert "with different labels: 1" in note and "elsewhere" in note


def test_logits_come_in_the_order_of_the_sequences(folder: Path) -> None:
    model = cl.load(folder)
    task = model.task
    assert isinstance(task, MultipleChoice)
    samples = task.samples(model.tokenizer, EXAMPLES)
    logits = predict.logits(model.network, task, samples, torch.device("cpu"))
    for at in range(len(samples.bounds) - 1):
        batch = samples.apart().take(np.asarray([at]))
        with torch.no_grad():
            np.testing.assert_allclose(task.logits(model.network, batch.packed).numpy()[0], logits[at], atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "pairs"),
    [
        ("w1", None),
        ("w1", "w2"),
        ("w1", ["w2"]),
        ("w1", ["w2", 3]),
        (["w1", "w2"], ["w3", "w4"]),
        (["w1"], [["w2"]]),
        (["w1"], ["w2"]),
        ([None], [["w2", "w3"]]),
    ],
    ids=str,
)
def test_what_is_no_question_with_choices_is_refused(folder: Path, texts: Any, pairs: Any) -> None:
    with pytest.raises(InputError, match=r"texts\[0\] must be a question with a list of two choices or more"):
        cl.load(folder).predict(texts, pairs)
