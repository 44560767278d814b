"""Classification with soft labels, weights, smoothing and focal loss; sets of labels; numbers; and texts in windows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import clozeline as cl
from clozeline.data.packing import Samples
from clozeline.data.readers import Columns, Example
from clozeline.errors import InputError
from clozeline.tasks.multi_label import MultiLabelClassification
from clozeline.tasks.regression import Regression
from clozeline.tasks.supervised import Supervised
from clozeline.tasks.text_classification import TextClassification
from clozeline.tokenizer import Tokenizer
from helpers import PLAIN, as_trained

ABC = ("a", "b", "c")
HARD = ["a", "c", "b", "a", "a"]
SOFT: list[Any] = [{"a": 0.5, "b": 0.5}, "c", {"b": 0.9, "c": 0.1}, {"a": 1.0}, {"c": 0.25, "a": 0.75}]
SHARES = torch.tensor([[0.5, 0.5, 0], [0, 0, 1], [0, 0.9, 0.1], [1, 0, 0], [0.75, 0, 0.25]])
WEIGHTS = torch.tensor([2.0, 1.0, 0.5])
GIVEN = {"a": 2.0, "c": 0.5}
LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer.load(tiny, 64)


def examples(labels: Sequence[Any], texts: Sequence[str] | None = None) -> list[Example]:
    return [Example(texts[at] if texts else f"w{at}", None, label, f"line {at}") for at, label in enumerate(labels)]


def loss_of(
    task: Supervised, tokenizer: Tokenizer, labels: Sequence[Any], logits: Tensor = LOGITS
) -> tuple[Tensor, Tensor]:
    """The mean loss and its gradient, in one batch; the same summed from batches of two and three."""
    samples = task.samples(tokenizer, examples(labels))
    weights, size = task.weights(samples), len(samples)

    def of(chosen: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        rows = logits[chosen].clone().requires_grad_()
        total, weight = task.loss(rows, samples.take(np.asarray(chosen)), weights)
        (grad,) = torch.autograd.grad(total, rows)
        return total.detach(), weight, grad

    total, weight, grad = of([*range(size)])
    first, second = of([0, 1]), of([*range(2, size)])
    torch.testing.assert_close(first[0] + second[0], total)
    torch.testing.assert_close(first[1] + second[1], weight)
    torch.testing.assert_close(torch.cat([first[2], second[2]]), grad)
    return total / weight, grad / weight


def same(found: tuple[Tensor, Tensor], expected: Tensor, logits: Tensor) -> None:
    (grad,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(found[0], expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], grad, rtol=1e-5, atol=1e-6)


# -- classification


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, GIVEN], ids=["even", "weighted"])
def test_hard_labels_have_torchs_cross_entropy(smoothing: float, weights: Any, tokenizer: Tokenizer) -> None:
    task = TextClassification(ABC, class_weights=weights, label_smoothing=smoothing)
    logits = LOGITS.clone().requires_grad_()
    targets = torch.tensor([ABC.index(label) for label in HARD])
    expected = F.cross_entropy(logits, targets, None if weights is None else WEIGHTS, label_smoothing=smoothing)
    same(loss_of(task, tokenizer, HARD), expected, logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, GIVEN], ids=["even", "weighted"])
def test_soft_labels_have_torchs_cross_entropy(smoothing: float, weights: Any, tokenizer: Tokenizer) -> None:
    task = TextClassification(ABC, class_weights=weights, label_smoothing=smoothing)
    logits = LOGITS.clone().requires_grad_()
    weight = None if weights is None else WEIGHTS
    total = F.cross_entropy(logits, SHARES, weight, label_smoothing=smoothing, reduction="sum")
    # torch divides by the number of rows; here the weight of what each row says, as with hard labels
    same(loss_of(task, tokenizer, SOFT), total / (5 if weight is None else (SHARES * weight).sum()), logits)


def test_a_label_with_the_whole_share_is_a_hard_label(tokenizer: Tokenizer) -> None:
    for settings in ({}, {"focal": 2.0}, {"label_smoothing": 0.2, "class_weights": GIVEN}):
        task = TextClassification(ABC, **settings)
        hard = loss_of(task, tokenizer, HARD)
        soft = loss_of(task, tokenizer, [{label: 1.0} for label in HARD])
        torch.testing.assert_close(hard, soft)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("weights", [None, GIVEN], ids=["even", "weighted"])
def test_the_focal_loss_is_lins(gamma: float, weights: Any, tokenizer: Tokenizer) -> None:
    task = TextClassification(ABC, class_weights=weights, focal=gamma)
    logits = LOGITS.clone().requires_grad_()
    rows, targets = torch.arange(5), torch.tensor([ABC.index(label) for label in HARD])
    weight = torch.ones(3) if weights is None else WEIGHTS
    right = torch.softmax(logits, -1)[rows, targets]
    expected = -(weight[targets] * (1 - right) ** gamma * right.log()).sum() / weight[targets].sum()
    same(loss_of(task, tokenizer, HARD), expected, logits)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_the_focal_loss_of_what_is_certain_has_a_gradient(gamma: float, tokenizer: Tokenizer) -> None:
    sure = torch.tensor([[200.0, 0.0, -200.0]] * 5)
    total, grad = loss_of(
        TextClassification(ABC, focal=gamma), tokenizer, ["a", "b", "c", "a", {"a": 0.5, "b": 0.5}], sure
    )
    assert torch.isfinite(total)
    assert torch.isfinite(grad).all()
    assert (grad[1] != 0).any()


def test_balanced_weights_make_labels_count_alike(tokenizer: Tokenizer) -> None:
    task = TextClassification(ABC, class_weights="balanced")
    hard = task.weights(task.samples(tokenizer, examples(HARD)))
    assert hard is not None
    assert hard.tolist() == pytest.approx([5 / 9, 5 / 3, 5 / 3])
    soft = task.weights(task.samples(tokenizer, examples(SOFT)))
    assert soft is not None
    assert soft.tolist() == pytest.approx([5 / (3 * 2.25), 5 / (3 * 1.4), 5 / (3 * 1.35)])


def test_soft_labels_are_checked_and_counted_by_their_largest_share(tokenizer: Tokenizer) -> None:
    task = TextClassification(ABC)
    samples = task.samples(tokenizer, examples(SOFT))
    assert task.counts(samples) == {"a": 3, "b": 1, "c": 1}
    found = task.check(SHARES.numpy() * 9, samples)
    assert found.scores["accuracy"] == 1
    assert task.report(SHARES.numpy() * 9, samples).accuracy.value == 1
    numbered = task.samples(tokenizer, examples([{"0": 0.5, "a": 0.25, "c": 0.25}]))  # 0 is a
    assert numbered.targets is not None
    assert numbered.targets.tolist() == [[0.75, 0, 0.25]]
    assert TextClassification().settled(examples(SOFT), "x", Columns()).labels == ABC
    with pytest.raises(InputError, match="line 0: unknown label 'd'"):
        task.samples(tokenizer, examples([{"d": 1.0}, "a"]))


def test_the_temperature_divides_the_logits(tokenizer: Tokenizer) -> None:
    task = TextClassification(ABC, temperature=2.5)
    samples = task.samples(tokenizer, examples(HARD))
    expected = torch.softmax(LOGITS / 2.5, -1)
    for row, found in zip(expected, task.decode(LOGITS.numpy(), samples), strict=True):
        assert [*found.scores.values()] == pytest.approx(row.tolist(), rel=1e-5)
    assert TextClassification.from_raw(json.loads(json.dumps(task.raw()))) == task


# -- sets of labels, numbers


@pytest.mark.parametrize("weights", [None, GIVEN], ids=["even", "weighted"])
def test_sets_of_labels_have_torchs_binary_cross_entropy(weights: Any, tokenizer: Tokenizer) -> None:
    task = MultiLabelClassification(ABC, class_weights=weights)
    labels = [("a", "b"), (), ("c",), ("a", "b", "c"), ("b",)]
    marks = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1], [0, 1, 0]])
    logits = LOGITS.clone().requires_grad_()
    expected = F.binary_cross_entropy_with_logits(logits, marks, pos_weight=None if weights is None else WEIGHTS)
    same(loss_of(task, tokenizer, labels), expected, logits)
    samples = task.samples(tokenizer, examples(labels))
    assert task.counts(samples) == {"a": 2, "b": 3, "c": 2}
    found = task.decode(LOGITS.numpy(), samples)
    for row, one in zip(torch.sigmoid(LOGITS), found, strict=True):
        assert [*one.scores.values()] == pytest.approx(row.tolist(), rel=1e-5)
        assert one.labels == tuple(name for name, score in one.scores.items() if score >= 0.5)
    assert any(not one.labels for one in found) or any(len(one.labels) > 1 for one in found)
    assert task.check(marks.numpy() * 9 - 4, samples).scores == {"micro_f1": 1, "macro_f1": 1, "exact": 1}


def test_balanced_weights_of_sets_are_those_without_to_those_with(tokenizer: Tokenizer) -> None:
    task = MultiLabelClassification(ABC, class_weights="balanced")
    weights = task.weights(task.samples(tokenizer, examples([("a", "b"), ("b",), ("b",), ("b",)])))
    assert weights is not None
    assert weights.tolist() == [3, 0.25, 4]  # a label that all or none have still counts


def test_the_threshold_is_where_a_label_begins(tokenizer: Tokenizer) -> None:
    samples = MultiLabelClassification(ABC).samples(tokenizer, examples([()]), targets=False)
    logits = torch.logit(torch.tensor([[0.3, 0.5, 0.7]])).numpy()
    for threshold, wanted in ((0.2, ABC), (0.4, ("b", "c")), (0.6, ("c",)), (0.8, ())):
        task = MultiLabelClassification(ABC, threshold=threshold)
        assert task.decode(logits, samples)[0].labels == wanted
        assert MultiLabelClassification.from_raw(json.loads(json.dumps(task.raw()))) == task


def test_a_column_for_each_label_names_them_all() -> None:
    found = MultiLabelClassification().settled(examples([("b",), ()]), "x", Columns(label=["b", "rare"]))
    assert found.labels == ("b", "rare")
    assert MultiLabelClassification().settled(examples([("b", "a"), ()]), "x", Columns()).labels == ("a", "b")


def test_one_column_of_marks_is_one_label(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,toxic\nw1,1\nw2,0\n")
    (tmp_path / "b.csv").write_text("text,toxic\nw1,0|1\nw2,0\n")
    for given in ("toxic", ["toxic"]):
        columns = Columns(label=given)
        task = MultiLabelClassification()
        found = task.read(tmp_path / "a.csv", "train", columns)
        assert [example.label for example in found] == [("toxic",), ()]
        assert task.settled(found, "a.csv", columns).labels == ("toxic",)
        found = MultiLabelClassification(("toxic", "rude")).read(tmp_path / "a.csv", "test", columns)
        assert [example.label for example in found] == [("toxic",), ()]
        found = MultiLabelClassification(("0", "1", "2")).read(tmp_path / "a.csv", "test", columns)
        assert [example.label for example in found] == [("1",), ("0",)]
        found = task.read(tmp_path / "b.csv", "train", columns)
        assert [example.label for example in found] == [("0", "1"), ("0",)]


def test_a_text_that_is_too_long_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"^line 1 has 150 tokens, but there is room for 62"):
        TextClassification(ABC, long="error").samples(tokenizer, examples(["a", "b"], ["w1", " ".join(PLAIN * 3)]))


def test_what_is_wrong_with_sets_and_soft_labels_is_said(tokenizer: Tokenizer) -> None:
    task = MultiLabelClassification(ABC)
    train = task.samples(tokenizer, examples([("a",)] * 30 + [("a", "b")] * 2))
    said = task.lacks(train, task.samples(tokenizer, examples([("a",), ()])))
    assert len(said) == 3
    assert "Label 'a' has 32 training texts, but 'b' 2. " in said[0]
    assert said[1:] == [
        "No validation text has the label 'b', so validation says nothing about it.",
        "No training text has the label 'c'; the model cannot learn it.",
    ]
    few = task.samples(tokenizer, examples([("a",), ("b",)] * 1 + [()] * 198 + [("c",)] * 3))
    assert "has 3 training texts, but 'a' 1; 'b' 1." in task.lacks(few, None)[0]
    (said_of_sets,) = task.notes(examples([("a", "b"), ("b", "a"), ("a",)], ["w1 w2"] * 3), [])[:1]
    assert "with different labels: 1: line 0 (a b) and line 2 (a)" in said_of_sets
    notes = TextClassification(ABC).notes(examples([{"a": 0.4, "b": 0.6}, "b", {"a": 0.9, "b": 0.1}], ["w1"] * 3), [])
    assert "with different labels: 1: line 0 ('b') and line 2 ('a')" in notes[0]
    assert "with the same label: 1 of 3" in notes[1]


def test_a_set_may_have_one_label_only(tokenizer: Tokenizer) -> None:
    task = MultiLabelClassification().settled(examples([("toxic",), ()]), "x", Columns())
    samples = task.samples(tokenizer, examples([("toxic",), ()]))
    logits = np.asarray([[4.0], [-4.0]], np.float32)
    assert [one.labels for one in task.decode(logits, samples)] == [("toxic",), ()]
    assert task.check(logits, samples).scores["micro_f1"] == 1
    assert str(task.report(logits, samples))
    with pytest.raises(InputError, match="x has no labels"):
        MultiLabelClassification().settled(examples([(), ()]), "x", Columns())


def test_a_column_called_score_is_the_number(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,score\nw1,2.5\n")
    (found,) = Regression().read(tmp_path / "a.csv", "train", Columns())
    assert (found.text, found.label) == ("w1", (2.5,))
    with pytest.raises(InputError, match=r"Which column of a\.csv is the label"):
        TextClassification().read(tmp_path / "a.csv", "train", Columns())


def test_numbers_have_the_squared_error(tokenizer: Tokenizer) -> None:
    task = Regression(("height", "width"))
    values = torch.tensor([[1.5, -2], [0, 0], [3, 1e3], [-7, 2], [0.1, 0.2]])
    logits = LOGITS[:, :2].clone().requires_grad_()
    found = loss_of(task, tokenizer, [tuple(row.tolist()) for row in values], LOGITS[:, :2])
    same(found, F.mse_loss(logits, values), logits)
    samples = task.samples(tokenizer, examples([(1.0, 2.0)]), targets=False)
    (one,) = task.decode(np.asarray([[0.25, -3.0]], np.float32), samples)
    assert one.values == {"height": 0.25, "width": -3.0}
    assert Regression.from_raw(json.loads(json.dumps(task.raw()))) == task


@pytest.mark.parametrize(
    ("columns", "names"), [(None, ("score",)), ("stars", ("stars",)), (["x", "y"], ("x", "y"))], ids=str
)
def test_numbers_are_named_after_their_columns(columns: Any, names: tuple[str, ...]) -> None:
    assert Regression().settled([], "x", Columns(label=columns)).outputs == names
    assert Regression("mine").settled([], "x", Columns(label=columns)).outputs == ("mine",)


def test_numbers_and_names_must_be_as_many(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="line 0: there are 2 numbers; the model has 1, score"):
        Regression("score").samples(tokenizer, examples([(1.0, 2.0)]))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (TextClassification, {"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        (TextClassification, {"focal": -1.0}, "focal is -1.0"),
        (TextClassification, {"class_weights": {"d": 1.0}}, "class_weights names 'd'"),
        (TextClassification, {"class_weights": {"a": 0.0}}, "weights must be above 0"),
        (TextClassification, {"class_weights": "even"}, "class_weights is 'even'"),
        (MultiLabelClassification, {"threshold": 1.0}, "threshold is 1.0"),
        (MultiLabelClassification, {"class_weights": {"d": 1.0}}, "class_weights names 'd'"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(ABC, **settings)
    with pytest.raises(InputError, match="each must have a name"):
        Regression(("x", "x"))


# -- windows


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (TextClassification(ABC, long="window"), ["a", "b", "c"]),
        (TextClassification(ABC, long="window", focal=1.0), [{"a": 0.5, "b": 0.5}, "b", "c"]),
        (MultiLabelClassification(ABC, long="window"), [("a",), (), ("a", "b")]),
        (Regression(ABC, long="window"), [(1.0, 2.0, 3.0)] * 3),
    ],
    ids=["classes", "focal", "sets", "numbers"],
)
def test_a_text_in_windows_has_the_mean_of_their_logits(
    task: Supervised, labels: list[Any], tokenizer: Tokenizer
) -> None:
    texts = ["w1", " ".join(PLAIN * 4), " ".join(PLAIN * 2)]
    samples = task.samples(tokenizer, examples(labels, texts))
    assert np.diff(samples.first).tolist() == [1, 4, 2]
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    means = torch.stack([part.mean(0) for part in logits.split([1, 4, 2])])
    short = task.samples(tokenizer, examples(labels))
    batch, other = samples.take(np.arange(3)), short.take(np.arange(3))
    torch.testing.assert_close(task.loss(logits, batch, None), task.loss(means, other, None))
    turned = samples.take(np.asarray([2, 0, 1]))
    torch.testing.assert_close(
        task.loss(torch.cat([logits[5:], logits[:5]]), turned, None), task.loss(means, other, None)
    )
    assert task.check(logits.numpy(), samples).loss == pytest.approx(task.check(means.numpy(), short).loss, rel=1e-5)
    for one, two in zip(task.decode(logits.numpy(), samples), task.decode(means.numpy(), short), strict=True):
        found = [*getattr(one, "scores", getattr(one, "values", {})).values()]
        assert found == pytest.approx([*getattr(two, "scores", getattr(two, "values", {})).values()], rel=1e-5)
        assert one.truncated == 0


# -- from file to prediction


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def learn(tiny: Path, task: Any, rows: list[dict[str, Any]], folder: Path, **columns: Any) -> cl.Model:
    model = cl.load(tiny, task)
    train, dev = write(folder / "train.jsonl", rows[60:]), write(folder / "dev.jsonl", rows[:60])
    model.fit(train, dev, out=folder / "run", epochs=14, learning_rate=3e-3, batch_size=16, precision="fp32", quiet=True,
              **columns)  # fmt: skip
    again = cl.load(folder / "run" / "model")
    assert again.task == model.task
    assert again.predict(["w1 good", "bad w2"]) == model.predict(["w1 good", "bad w2"])
    return again


def texts_with(random: np.random.Generator, marks: Sequence[str]) -> str:
    words = [*random.choice(PLAIN[:20], random.integers(1, 8)).tolist(), *marks]
    return " ".join(random.permutation(words).tolist())


def test_sets_of_labels_are_learned(tiny: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        marks = [word for word in ("good", "bright", "bad") if random.random() < 0.4]
        rows.append({"text": texts_with(random, marks), "labels": marks})
    model = learn(tiny, MultiLabelClassification(), rows, tmp_path)
    found = model.predict(["w1 good w2 bad", "w1 w2", "bright"])
    assert [set(one.labels) for one in found] == [{"good", "bad"}, set(), {"bright"}]
    assert model.evaluate(tmp_path / "dev.jsonl").as_dict()["micro_f1"] > 0.85


def test_numbers_are_learned(tiny: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        marks = [word for word in ("good", "bright", "bad") if random.random() < 0.4]
        up, down = sum(word != "bad" for word in marks), float("bad" in marks)
        rows.append({"text": texts_with(random, marks), "up": up, "down": -down})
    model = learn(tiny, Regression(), rows, tmp_path, label=["up", "down"])
    assert model.labels == ("up", "down")
    first, second = model.predict(["w1 good w2 bright", "bad"])
    assert first.values["up"] > 1.2 > 0.5 > second.values["up"]
    assert second.values["down"] < -0.5 < -0.3 < first.values["down"]
    targets = model.evaluate(tmp_path / "dev.jsonl", label=["up", "down"]).as_dict()["targets"]
    assert min(targets[name]["pearson"] for name in ("up", "down")) > 0.9


def test_soft_labels_are_learned(tiny: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = []
    for at in range(400):
        word, share = (("good", 0.8), ("bad", 0.3))[at % 2]
        rows.append({"text": texts_with(random, [word]), "label": {"positive": share, "negative": 1 - share}})
    model = learn(tiny, TextClassification(), rows, tmp_path)
    good, bad = model.predict(["w1 good w3", "w1 bad w3"])
    assert good.scores["positive"] == pytest.approx(0.8, abs=0.12)
    assert bad.scores["positive"] == pytest.approx(0.3, abs=0.12)


@pytest.mark.parametrize("task", [MultiLabelClassification(ABC), Regression("x")], ids=["sets", "numbers"])
def test_what_is_no_text_is_refused(task: Any, tiny: Path, tmp_path: Path) -> None:
    model = cl.load(as_trained(cl.load(tiny, task)._bundle, tmp_path / "model"))
    assert len(model.predict(["w1"], ["w2"])) == 1
    for texts, pairs, message in (
        (["w1", 5], None, r"texts\[1\] is 5"),
        (["w1"], [["w2", "w3"]], r"The pair of texts\[0\] is \['w2', 'w3'\]; it must be a text"),
        (["w1", "w2"], ["w2", None], "Some pairs are None"),
        ("w1", 5, r"The pair of texts\[0\] is 5"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict(texts, pairs)


def test_unknown_labels_of_a_set_are_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="line 0: unknown label 'sprot'; did you mean 'sport'"):
        MultiLabelClassification(("sport", "politics")).samples(tokenizer, examples([("sprot",)]))


def test_samples_of_nothing_labelled_have_no_targets(tokenizer: Tokenizer) -> None:
    for task in (TextClassification(ABC), MultiLabelClassification(ABC), Regression("x")):
        found: Samples = task.samples(tokenizer, examples([None]), targets=False)
        assert found.targets is None
