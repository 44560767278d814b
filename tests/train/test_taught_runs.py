"""Runs with a teacher: exact over forward passes and processes, safe to stop; the teacher is not touched or saved."""

from __future__ import annotations

import csv
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import clozeline as cl
from clozeline import predict
from clozeline.bundle import Bundle
from clozeline.config import EncoderConfig
from clozeline.data import tagged
from clozeline.data.pretraining import Place
from clozeline.data.readers import Example
from clozeline.data.shard_writing import write
from clozeline.data.shards import Shards
from clozeline.distiller import student_model
from clozeline.errors import InputError
from clozeline.families.bert import BERT
from clozeline.model.heads import Network
from clozeline.tasks.distillation import Distillation, DistilledWords, Learner
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tasks.supervised import Supervised
from clozeline.tokenizer import Tokenizer
from clozeline.train.fit import Fitted
from clozeline.train.loop import Step, Training
from clozeline.train.pretrain import Pretrained, made, pretrain, reading
from clozeline.train.pretraining import Pretraining, PretrainStep
from clozeline.train.pretraining_settings import PretrainSettings
from clozeline.train.settings import Settings
from clozeline.train.teaching import FOLDER, answered, lesson
from helpers import PLAIN, VOCABULARY, reviews, write_csv
from processes import environment, port

CPU = torch.device("cpu")
HIDDEN: dict[str, Any] = dict(hidden=0.5, match="layers", relations=0.7, relation_heads=2)
NARROW: dict[str, Any] = dict(layers=1, width=16, heads=2, ffn_width=32)
SETTINGS = Settings(batch_size=8, learning_rate=5e-3, precision="fp32", epochs=2, save_every=2, seed=2, soft=1.0)


class Killed(BaseException):
    """Ends a run where it stands, as kill -9 would: nothing is there to catch it."""


def kill() -> None:
    raise Killed


def copied(network: Network) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


# -- one batch in several forward passes


def shape(layers: int, width: int, dropout: float = 0.0, init_std: float = 0.02) -> EncoderConfig:
    sizes: dict[str, Any] = dict(layers=layers, width=width, heads=4, ffn_width=64, max_length=64, init_std=init_std)
    rates: dict[str, Any] = dict(dropout=dropout, attention_dropout=dropout)
    return EncoderConfig(family="bert", vocab_size=len(VOCABULARY), **sizes, **rates)


def network(layers: int, width: int, classes: int, kind: str = "text_classification", seed: int = 0) -> Network:
    """Without dropout, whose masks would differ; weights so large that the losses are far from 0."""
    return BERT.build(shape(layers, width, init_std=0.1), kind, classes, seed=seed)


def text_samples(tokenizer: Tokenizer) -> tuple[Supervised, Any]:
    task = cl.TextClassification(["negative", "positive"], long="window", max_length=10)  # some in two windows
    return task, task.samples(tokenizer, [Example(text, None, label, "") for text, label in reviews(24)])


def tag_samples(tokenizer: Tokenizer) -> tuple[Supervised, Any]:
    task = cl.TokenClassification(["O", "B-thing", "I-thing"], max_length=10)
    texts = [text.split() for text, _ in reviews(24)]
    tags = [["B-thing" if word < "w2" else "O" for word in words] for words in texts]
    return task, task.samples(tokenizer, [tagged.of_words(*each, "") for each in zip(texts, tags, strict=True)])


@pytest.mark.parametrize("width", [32, 16])
@pytest.mark.parametrize("make", [text_samples, tag_samples])
def test_a_batch_in_several_passes_has_the_steps_of_one(make: Any, width: int, tiny: Path) -> None:
    """Labels, answers, hidden states (of another width: through a projection) and relations, all at once."""
    task, samples = make(Tokenizer.load(tiny, 64))
    classes, kind = len(task.outputs), task.head
    teacher = network(3, 32, classes, kind, seed=1)
    samples = answered(samples, task, teacher, None, CPU)
    passes: list[int] = []

    def run(max_tokens: int) -> tuple[list[Step], list[Tensor], list[Tensor]]:
        settings = SETTINGS.replace(hard=0.5, max_tokens=max_tokens, clip=0.0, learning_rate=1e-3, **HIDDEN)
        student = network(2, width, classes, kind)
        learner, learn = lesson(task, student, teacher, samples, settings, CPU)
        assert isinstance(learner, Learner) and isinstance(learner.project, torch.nn.Linear) == (width == 16)
        count = [0]

        def counted(*given: Any) -> Any:
            count[0] += 1
            return learn(*given)

        training = Training(learner, task, samples, settings, device=CPU, learn=counted)
        steps = iter(training)
        taken = [next(steps)]
        states = training.optimizer.state
        groups = training.optimizer.param_groups
        first = [states[part]["exp_avg"] * 10 for group in groups for part in group["params"]]
        taken += itertools.islice(steps, 3)
        passes.append(count[0])
        return taken, first, [part.detach().clone() for part in learner.parameters()]

    whole, expected, weights = run(16384)
    for max_tokens in (1, 40):
        parts, gradients, others = run(max_tokens)
        assert [step.loss for step in parts] == pytest.approx([step.loss for step in whole], rel=1e-5)
        assert [step.grad_norm for step in parts] == pytest.approx([step.grad_norm for step in whole], rel=1e-4)
        for mine, other in zip(gradients, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
        for mine, other in zip(others, weights, strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)  # keys' biases follow rounding
    assert passes[0] == 4 and passes[1] >= 24 and 4 < passes[2] < passes[1]
    assert max(float(grad.abs().max()) for grad in expected) > 1e-2


@pytest.mark.parametrize(("match", "pairs"), [("last", [(2, 3)]), ("layers", [(1, 2), (2, 1)])])
def test_losses_of_tokens_weigh_as_much_as_answers_over_the_data(
    match: str, pairs: list[tuple[int, int]], tiny: Path
) -> None:
    """The mean of the hidden loss over all tokens, times its weight, is what it adds to the mean loss over all answers.

    pairs: of the student's and the teacher's states that are compared, the embedding's counted as 0.
    """
    task, samples = text_samples(Tokenizer.load(tiny, 64))
    teacher, student = network(3, 32, 2, seed=1), network(2, 32, 2)
    samples = answered(samples, task, teacher, None, CPU)
    batch = samples.take(np.arange(len(samples)))
    found = {}
    for hidden in (0.0, 3.0):
        settings = SETTINGS.replace(hard=0.0, soft=1.0, hidden=hidden, match=match, layer_map=(1, 0))
        learner, learn = lesson(task, student, teacher, samples, settings, CPU)
        with torch.no_grad():
            total, count = learn(learner.eval(), batch, None)
        found[hidden] = float(total / count)
    with torch.no_grad():
        mine, theirs = [*student.encoder.states(batch.packed)], [*teacher.encoder.states(batch.packed)]
    each = [float((1 - torch.cosine_similarity(mine[a], theirs[b], dim=-1)).mean()) for a, b in pairs]
    assert found[3.0] - found[0.0] == pytest.approx(3 * np.mean(each), rel=1e-4)
    assert min(each) > 0.1


def test_the_weights_of_labels_and_answers_are_what_they_say(tiny: Path) -> None:
    task, samples = text_samples(Tokenizer.load(tiny, 64))
    teacher, student = network(3, 32, 2, seed=1), network(2, 32, 2)
    samples = answered(samples, task, teacher, None, CPU)
    batch = samples.take(np.arange(9))

    def of(hard: float, soft: float) -> float:
        _, learn = lesson(task, student, teacher, samples, SETTINGS.replace(hard=hard, soft=soft), CPU)
        assert isinstance(learn, Distillation) and learn.teacher is None, "its answers are there already"
        with torch.no_grad():
            total, count = learn(student, batch, None)
        return float(total / count)

    assert of(0.3, 2.0) == pytest.approx(0.3 * of(1.0, 0.0) + 2 * of(0.0, 1.0), rel=1e-5)
    assert of(1.0, 0.0) > 0.1 and of(0.0, 1.0) > 0.01


def test_class_weights_weigh_labels_beside_a_teacher_as_without_one(tiny: Path) -> None:
    """The labels' loss is a weighted mean, whoever else is learned from."""
    tokenizer = Tokenizer.load(tiny, 64)
    task = cl.TextClassification(["negative", "positive"], class_weights={"negative": 5.0})
    samples = task.samples(tokenizer, [Example(text, None, label, "") for text, label in reviews(24)])
    teacher, student = network(2, 32, 2), network(2, 32, 2)  # the student is its teacher: soft adds nothing
    samples = answered(samples, task, teacher, None, CPU)
    batch, weights = samples.take(np.arange(len(samples))), task.weights(samples)
    _, learn = lesson(task, student, teacher, samples, SETTINGS.replace(hard=1.0), CPU)
    with torch.no_grad():
        beside, alone = learn(student.eval(), batch, weights), task.learn(student, batch, weights)
    assert float(beside[0] / beside[1]) == pytest.approx(float(alone[0] / alone[1]), rel=2e-2)


# -- a task: stopped, gone on with, left alone


class Folder:
    """A teacher, data files, and runs on them beside each other."""

    def __init__(self, trained: Path, at: Path) -> None:
        self.teacher, self.at = trained, at
        self.train = write_csv(at / "train.csv", reviews(45))
        self.check = write_csv(at / "check.csv", reviews(20, seed=1))

    def fit(
        self, name: str, settings: Settings = SETTINGS, sizes: Any = None, **changes: Any
    ) -> tuple[cl.Model, Fitted]:
        teacher = changes.pop("teacher", None) or cl.load(self.teacher)
        student = student_model(teacher, **(sizes or {"layers": 1}))
        given: dict[str, Any] = {"train": self.train, "validation": self.check, "teacher": teacher, **changes}
        return student, student.fit(**given, out=self.at / name, settings=settings, quiet=True)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.at / name / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Folder:
    return Folder(trained, tmp_path)


@pytest.mark.parametrize("sizes", [{"layers": 1}, NARROW], ids=["a layer of its own", "narrow"])
@pytest.mark.parametrize(
    "changes", [{}, HIDDEN, {"soft": 0.0, "hard": 0.0, "hidden": 1.0}], ids=["soft", "all", "hidden"]
)
def test_a_killed_run_ends_with_the_weights_of_a_straight_one(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None], sizes: dict[str, Any], changes: dict[str, Any]
) -> None:
    settings = SETTINGS.replace(**changes)
    straight, _ = folder.fit("straight", settings, sizes)
    for step, resume in ((3, False), (9, True)):
        at_step(step, kill)
        with pytest.raises(Killed):
            folder.fit("killed", settings, sizes, resume=resume)
    at_step(0, kill)
    resumed, run = folder.fit("killed", settings, sizes, resume=True)
    assert run.finished and run.steps == 12
    assert folder.metrics("killed") == folder.metrics("straight")
    assert same(copied(resumed.network), copied(straight.network))


def test_the_teachers_answers_are_reckoned_once_and_kept_while_the_run_lasts(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    plain = predict.logits

    def counting(network: Network, task: Any, samples: Any, device: Any) -> np.ndarray:
        asked.append(len(samples))
        return plain(network, task, samples, device)

    monkeypatch.setattr(predict, "logits", counting)
    at_step(3, kill)
    with pytest.raises(Killed):
        folder.fit("run", validation=None)
    assert asked == [45]
    kept = np.load(folder.at / "run" / FOLDER / "logits.npy")
    assert kept.shape == (45, 2) and kept.dtype == np.float32
    at_step(9, kill)
    with pytest.raises(Killed):
        folder.fit("run", validation=None, resume=True)
    assert asked == [45], "they lie in the folder"
    assert (folder.at / "run" / FOLDER).is_dir()
    at_step(0, kill)
    _, run = folder.fit("run", validation=None, resume=True)
    assert run.finished and asked == [45]
    assert {path.name for path in run.out.iterdir()} == {"model", "metrics.jsonl", "curve.png", "run.json"}


def test_kept_answers_of_another_teacher_or_other_texts_are_not_used(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    at_step(3, kill)
    with pytest.raises(Killed):
        folder.fit("run")
    other = cl.load(folder.teacher)
    with torch.no_grad():
        for part in other.network.parameters():
            part.mul_(1.5)
    with pytest.raises(InputError, match="cannot be resumed"):
        folder.fit("run", teacher=other, resume=True)
    at_step(0, kill)
    resumed, _ = folder.fit("run", resume=True)
    straight, _ = folder.fit("straight")
    assert same(copied(resumed.network), copied(straight.network))


def test_kept_answers_are_not_those_of_other_texts(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    """As many texts as before, which the teacher answers otherwise, in the folder of a run that was stopped."""
    at_step(3, kill)
    with pytest.raises(Killed):
        folder.fit("run")
    at_step(0, kill)
    more = write_csv(folder.at / "more.csv", reviews(46, seed=7)[1:])
    anew, _ = folder.fit("run", overwrite=True, train=more)
    straight, _ = folder.fit("straight", train=more)
    assert same(copied(anew.network), copied(straight.network))


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("changes", [{}, HIDDEN], ids=["soft", "all"])
def test_the_teacher_stays_as_it_is(folder: Folder, changes: dict[str, Any], seeds: int) -> None:
    teacher = cl.load(folder.teacher)
    before, said = copied(teacher.network), teacher.predict(["w1 good w2", "dull w3"])
    student, _ = folder.fit("run", SETTINGS.replace(**changes), NARROW, teacher=teacher, seeds=seeds)
    assert same(copied(teacher.network), before)
    assert teacher.predict(["w1 good w2", "dull w3"]) == said
    assert not teacher.network.training
    assert all(part.grad is None for part in teacher.network.parameters())
    assert all(part.requires_grad for part in teacher.network.parameters()), "it can be trained on afterwards"
    assert all(part.requires_grad for part in student.network.parameters())
    assert not (folder.at / "run" / FOLDER).exists()


def test_what_is_saved_is_a_model_as_any_other(folder: Folder) -> None:
    student, run = folder.fit("taught", SETTINGS.replace(**HIDDEN), NARROW)
    plain = student_model(cl.load(folder.teacher), **NARROW)
    plain.fit(folder.train, folder.check, out=folder.at / "plain", settings=SETTINGS.replace(soft=0.0), quiet=True)
    one, other = (load_file(folder.at / name / "model" / "model.safetensors") for name in ("taught", "plain"))
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in other.items()}
    loaded = cl.load(run.out / "model")
    assert loaded.config.width == 16 and loaded.labels == ("negative", "positive")
    assert same(copied(loaded.network), copied(student.network))
    assert loaded.predict("w1 good w2") == student.predict("w1 good w2")


def test_a_student_learns_what_its_teacher_says_and_not_the_labels(folder: Folder) -> None:
    """All labels are wrong, and weigh nothing."""
    wrong = {"negative": "positive", "positive": "negative"}
    train = write_csv(folder.at / "wrong.csv", [(text, wrong[label]) for text, label in reviews(200)])
    settings = SETTINGS.replace(hard=0.0, epochs=4, batch_size=16, learning_rate=2e-3)
    student, _ = folder.fit("run", settings, train=train, validation=None)
    assert student.evaluate(folder.check).accuracy.value >= 0.8


# -- texts without labels


def unlabelled(path: Path, labels: Callable[[int], str] | None) -> Path:
    """Texts alone, or with labels that nobody could read."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"] if labels is None else ["text", "label"])
        for at, (text, _) in enumerate(reviews(30)):
            writer.writerow([text] if labels is None else [text, labels(at)])
    return path


TASKS: dict[str, Supervised] = {
    "text": cl.TextClassification(["negative", "positive"]),
    "label sets": cl.MultiLabelClassification(["x", "y", "z"]),
    "numbers": cl.Regression(["score"]),
    "tags": cl.TokenClassification(["O", "B-thing", "I-thing"]),
    "plain tags": cl.TokenClassification(["O", "noun", "verb"], scheme="plain"),
}


def made_to_answer(teacher: cl.Model) -> None:
    """Random weights so large that the answers differ, as if they had been trained."""
    draw = torch.Generator().manual_seed(1)
    for part in teacher.network.parameters():
        part.data += 0.3 * torch.randn(part.shape, generator=draw)
    teacher._bundle.fresh = []


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("changes", [{}, {"soft": 0.0, "hidden": 1.0}], ids=["soft", "hidden"])
def test_without_weight_labels_are_not_needed_and_not_read(
    name: str, changes: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    found = []
    for at, labels in enumerate((None, lambda row: ["", "?", "12", "%$"][row % 4])):
        teacher = cl.load(tiny, TASKS[name])
        made_to_answer(teacher)
        before = copied(teacher.network)
        student = student_model(teacher, layers=1)
        data, out = unlabelled(tmp_path / f"{at}.csv", labels), tmp_path / f"run{at}"
        run = student.fit(
            data, teacher=teacher, out=out, quiet=True, settings=SETTINGS.replace(hard=0.0, epochs=1, **changes)
        )
        assert run.finished and same(copied(teacher.network), before)
        found.append(copied(cl.load(out / "model").network))
    assert same(*found)
    assert not same(found[0], copied(student_model(teacher, layers=1).network)), "it learned something"


def test_texts_of_one_label_teach_something_too(folder: Folder, trained: Path) -> None:
    """The teacher finds all of them positive, some more than others."""
    train = write_csv(folder.at / "good.csv", [(text, "") for text, label in reviews(40) if label == "positive"])
    assert {each.label for each in cl.load(trained).predict([text for text, _ in reviews(40) if "good" in text])} == {
        "positive"
    }
    _, run = folder.fit("run", SETTINGS.replace(hard=0.0, epochs=1), train=train, validation=None)
    assert run.finished


# -- masked words


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer.load(tiny, 64)


@pytest.fixture(scope="module")
def shards(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """80 documents of random words."""
    place, draw = tmp_path_factory.mktemp("corpus"), random.Random(0)
    (place / "text.txt").write_text("\n".join(" ".join(draw.choices(PLAIN, k=draw.randint(9, 28))) for _ in range(80)))
    write([place / "text.txt"], tokenizer, place / "shards", split="line", workers=1, quiet=True)
    return Shards.open(place / "shards", tokenizer)


WORDS: dict[str, Any] = dict(
    batch_tokens=400, length=32, precision="fp32", learning_rate=2e-3, save_every=2, log_every=1
)
WORDS |= dict(short=0.0, passes=3, mlm=2.0, soft=5.0, hidden=1.0)


def words(layers: int, width: int, tokenizer: Tokenizer, *, seed: int = 0, dropout: float = 0.0) -> Bundle:
    built = BERT.build(shape(layers, width, dropout), "masked_lm", seed=seed)
    return Bundle("fresh", BERT, built, tokenizer, MaskedLM(), [])


def learn_words(
    out: Path, shards: Shards, tokenizer: Tokenizer, teacher: Network, *, resume: bool = False, **changes: Any
) -> tuple[Bundle, Pretrained]:
    settings = PretrainSettings(**WORDS | changes)
    student = words(2, 16, tokenizer, dropout=0.1)
    how: dict[str, Any] = dict(device=CPU, resume=resume, teacher=teacher, quiet=True)
    return student, pretrain(student, shards, shards, out, settings, **how)


@pytest.mark.parametrize(
    "changes", [{"soft_at": "all"}, dict(match="layers", relations=1.0, relation_heads=4)], ids=str
)
def test_a_killed_run_over_words_ends_with_the_weights_of_a_straight_one(
    changes: dict[str, Any], shards: Shards, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = words(3, 32, tokenizer, seed=1).network
    before = copied(teacher)
    student, straight = learn_words(tmp_path / "straight", shards, tokenizer, teacher, **changes)
    assert straight.steps > 10 and {"mlm", "soft", "hidden"} <= straight.losses.keys()
    plain, left = Pretraining._step, [0]

    def step(self: Pretraining, *given: Any) -> PretrainStep:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return plain(self, *given)

    monkeypatch.setattr(Pretraining, "_step", step)
    for at, steps in enumerate((3, 1, 4)):
        left[0] = steps
        with pytest.raises(Killed):
            learn_words(tmp_path / "killed", shards, tokenizer, teacher, resume=at > 0, **changes)
    left[0] = 10**9
    resumed, run = learn_words(tmp_path / "killed", shards, tokenizer, teacher, resume=True, **changes)
    assert run.losses == straight.losses and run.accuracy == straight.accuracy
    assert same(copied(resumed.network), copied(student.network))
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("straight", "killed"))
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    assert same(copied(teacher), before) and all(part.requires_grad for part in teacher.parameters())
    own = words(2, 16, tokenizer)
    own.save(tmp_path / "own")
    assert one.keys() == load_file(tmp_path / "own" / "model.safetensors").keys(), "the projection is not saved"
    assert len(cl.load(tmp_path / "killed" / "model").fill_mask("w1 [MASK] w3", top=3)[0]) == 3


def test_a_run_over_words_goes_on_with_its_own_teacher_only(
    shards: Shards, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Pretraining._step

    def step(self: Pretraining, *given: Any) -> PretrainStep:
        if self.number == 3:
            raise Killed
        return plain(self, *given)

    monkeypatch.setattr(Pretraining, "_step", step)
    with pytest.raises(Killed):
        learn_words(tmp_path, shards, tokenizer, words(3, 32, tokenizer, seed=1).network)
    with pytest.raises(InputError, match="teacher changed since"):
        learn_words(tmp_path, shards, tokenizer, words(3, 32, tokenizer, seed=2).network, resume=True)


@pytest.mark.parametrize("soft_at", ["masked", "all"])
def test_a_batch_of_words_in_several_passes_has_the_steps_of_one(
    soft_at: str, shards: Shards, tokenizer: Tokenizer
) -> None:
    teacher = words(3, 32, tokenizer, seed=1).network
    found = []
    for max_tokens in (600, 60):
        settings = PretrainSettings(
            **WORDS | dict(soft_at=soft_at, max_tokens=max_tokens, relations=1.0, relation_heads=4)
        )
        student = words(2, 16, tokenizer)
        objectives = made(student, settings, teacher, CPU)
        assert isinstance(objectives, DistilledWords)
        stream, collate = reading(student, shards, settings)
        portion = next(stream(Place()))
        batch = collate(portion.examples, portion.rows)
        with torch.no_grad():
            sums = objectives(batch)
        tokens, masked = batch.packed.layout.tokens, len(batch.chosen)
        counts = {"mlm": masked, "soft": tokens if soft_at == "all" else masked, "hidden": tokens, "relations": tokens}
        training = Pretraining(objectives, stream, collate, settings, device=CPU)
        steps = [*itertools.islice(training, 4)]
        assert steps[0].losses == pytest.approx(
            {name: float(sums[name].loss) / counts[name] for name in sums}, rel=1e-4
        )
        found.append((steps, [part.detach().clone() for part in objectives.parameters()]))
    (whole, expected), (parts, others) = found
    for one, other in zip(parts, whole, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-4)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.loss == pytest.approx(
            2 * one.losses["mlm"] + 5 * one.losses["soft"] + one.losses["hidden"] + one.losses["relations"], rel=1e-6
        )
    for mine, theirs in zip(others, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=5e-5)


# -- two processes


def test_two_processes_distil_as_one_does(trained: Path, tmp_path: Path) -> None:
    """Without dropout, whose masks no two processes could share."""
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    for file in trained.iterdir():
        (teacher / file.name).write_bytes(file.read_bytes())
    config = json.loads((teacher / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (teacher / "config.json").write_text(json.dumps(config))
    train = write_csv(tmp_path / "train.csv", reviews(29))  # the last batch of an epoch has one example
    sizes: dict[str, Any] = dict(layers=1, width=16, heads=2)
    how: dict[str, Any] = dict(hidden=1.0, relations=1.0, relation_heads=2, epochs=2, batch_size=7, learning_rate=2e-3)
    how |= dict(precision="fp32", max_tokens=40)
    flags = [f"{name}={value}" for name, value in {**sizes, **how}.items()]
    command = [sys.executable, "-m", "clozeline", "distill", str(teacher), str(train), *flags, f"out={tmp_path / '2'}"]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port())}  # as torchrun says it
    said: dict[str, Any] = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = [
        subprocess.Popen(command, env={**environment(), **group, "RANK": rank, "LOCAL_RANK": rank}, **said)
        for rank in "01"
    ]
    cl.distill(teacher, train, out=tmp_path / "1", quiet=True, **sizes, **how)
    printed = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    assert printed[0][0].count("The model is in") == 1 and printed[1][0] == ""  # one of them speaks
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in "12"
    )
    assert len(one) == len(two) == 10
    for alone, together in zip(one, two, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], abs=1e-4)
        assert together["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-3)
    assert not (tmp_path / "2" / FOLDER).exists()
