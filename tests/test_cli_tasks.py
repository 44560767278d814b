"""Every task on the command line, from data to predictions; comparison, several seeds, and mistakes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozeline import cli
from helpers import PLAIN, reviews, write_csv

FAST = ("--epochs", "8", "--batch-size", "16", "--learning-rate", "3e-3", "--precision", "fp32")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str | Path) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in argv])
        return code, *capsys.readouterr()

    return run


def fine(done: tuple[int, str, str]) -> str:
    assert done[0] == 0, done[2]
    return done[1]


def refused(done: tuple[int, str, str], *parts: str) -> None:
    assert done[0] == 2
    assert "Traceback" not in done[2]
    for part in parts:
        assert part in done[2]


def tagged(path: Path, count: int, seed: int = 0) -> Path:
    """Sentences in columns, in which w1 and a w2 behind it are a thing."""
    random = np.random.default_rng(seed)
    sentences = []
    for _ in range(count):
        words = random.choice(PLAIN[3:40], size=random.integers(2, 8)).tolist()
        at = int(random.integers(len(words) + 1))
        words[at:at] = ["w1", "w2"] if random.random() < 0.5 else ["w1"]
        tags = ["B-thing" if word == "w1" else "I-thing" if word == "w2" else "O" for word in words]
        sentences.append("\n".join(f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True)))
    path.write_text("\n\n".join(sentences) + "\n")
    return path


def test_entities(run: Run, tiny: Path, tmp_path: Path) -> None:
    train, dev = tagged(tmp_path / "train.conll", 300), tagged(tmp_path / "dev.conll", 60, seed=1)
    out = tmp_path / "run"
    named = ("--task", "token-classification", "--validation", dev, "--out", out)
    shown = fine(run("finetune", tiny, train, *named, *FAST))
    assert "validation f1" in shown
    report = json.loads(fine(run("evaluate", out / "model", dev, "--json")))
    assert report["f1"] > 0.9
    text = "w9 w1 w2 w11"
    label, _, start, end, entity, whole = fine(run("predict", out / "model", text)).rstrip("\n").split("\t")
    assert (label, text[int(start) : int(end)], entity, whole) == ("thing", "w1 w2", "w1 w2", text)
    found = json.loads(fine(run("predict", out / "model", text, "--json")))
    assert [(one["start"], one["end"]) for one in found["entities"]] == [(int(start), int(end))]
    refused(run("evaluate", out / "model", dev, "--figure", tmp_path / "f.png"), "one label a text only")


def test_answers(run: Run, tiny: Path, tmp_path: Path) -> None:
    """The answer is the word behind good; some passages have none."""
    random = np.random.default_rng(0)
    questions = []
    for number in range(300):
        words = random.choice(PLAIN[:40], size=10).tolist()
        at = int(random.integers(1, 9))
        answers = []
        if number % 3:
            words[at] = "good"
            answers = [{"text": words[at + 1], "answer_start": len(" ".join(words[: at + 1])) + 1}]
        qa = {"id": str(number), "question": "w1 w2", "answers": answers}
        questions.append({"context": " ".join(words), "qas": [qa]})
    data = tmp_path / "qa.json"
    data.write_text(json.dumps({"data": [{"title": "all", "paragraphs": questions}]}))
    out = tmp_path / "run"
    longer = ("--epochs", "25", *FAST[2:])
    shown = fine(
        run("finetune", tiny, data, "--validation", data, "--task", "question-answering", "--out", out, *longer)
    )
    assert shown.splitlines()[-1].endswith("'Your question?' 'A passage that answers it.'")
    report = json.loads(fine(run("evaluate", out / "model", data, "--json")))
    assert report["f1"] > 0.8
    assert {"answerable_f1", "unanswerable_f1"} <= report.keys()
    text, _, start, end, _ = fine(run("predict", out / "model", "w1 w2", "w5 w6 good w7 w8")).rstrip("\n").split("\t")
    assert (text, int(start), int(end)) == ("w7", 11, 13)
    refused(run("predict", out / "model", "w1 w2"), "give each question a passage")


def test_choices(run: Run, tiny: Path, tmp_path: Path) -> None:
    """A good word is right, a bad one wrong; without a header, and with three choices in some rows."""
    rows = []
    for number in range(200):
        choices = ["bad w3", "dull w4", "weak w5"]
        choices[number % 3] = "good w6"
        rows.append(["w1 w2", *choices, "ABC"[number % 3]])
    data = tmp_path / "mc.csv"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    out = tmp_path / "run"
    columns = ("--columns", "question,A,B,C,answer")
    named = ("--validation", data, "--task", "multiple-choice", "--out", out)
    fine(run("finetune", tiny, data, *named, *columns, *FAST))
    assert json.loads(fine(run("evaluate", out / "model", data, *columns, "--json")))["accuracy"] > 0.9
    which, _, choice, question = fine(run("predict", out / "model", "w1", "bad w3", "good w6")).rstrip("\n").split("\t")
    assert (which, choice, question) == ("1", "good w6", "w1")
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"question": "w1", "choices": ["bad w3", "dull w4", "good w6"]}) + "\n")
    assert (
        json.loads(fine(run("predict", out / "model", "--file", asked, "--format", "jsonl", "--json")))["number"] == 2
    )
    refused(run("predict", out / "model", "w1", "only one"), "two choices or more")


def test_sets_of_labels_and_numbers(run: Run, tiny: Path, tmp_path: Path) -> None:
    with (tmp_path / "both.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "labels", "score"])
        for text, label in reviews(200):
            table.writerow(
                [text, f"any|{label}" if label == "positive" else "any", 1.0 if label == "positive" else -1.0]
            )
    for task, label, metric in (("multi-label-classification", "labels", "micro_f1"), ("regression", "score", "score")):
        out = tmp_path / task
        named = (
            "--validation",
            tmp_path / "both.csv",
            "--task",
            task,
            "--label",
            label,
            "--text",
            "text",
            "--out",
            out,
        )
        fine(run("finetune", tiny, tmp_path / "both.csv", *named, *FAST))
        report = json.loads(
            fine(run("evaluate", out / "model", tmp_path / "both.csv", "--label", label, "--text", "text", "--json"))
        )
        assert metric in str(report)
    assert "any|positive" in fine(run("predict", tmp_path / "multi-label-classification" / "model", "w1 good w2"))
    value, text = fine(run("predict", tmp_path / "regression" / "model", "w1 good w2")).rstrip("\n").split("\t")
    assert (float(value) > 0, text) == (True, "w1 good w2")


def test_two_models_are_compared_also_by_a_column(run: Run, tiny: Path, trained: Path, tmp_path: Path) -> None:
    weak = tmp_path / "weak"
    train = write_csv(tmp_path / "train.csv", reviews(40))
    fine(run("finetune", tiny, train, "--epochs", "1", "--out", weak))
    with (tmp_path / "test.csv").open("w", newline="") as file:
        rows = [(text, label, "even" if at % 2 else "odd") for at, (text, label) in enumerate(reviews(100, seed=9))]
        csv.writer(file).writerows([("text", "label", "half"), *rows])
    shown = fine(run("compare", weak / "model", trained, tmp_path / "test.csv", "--text", "text", "--by", "half"))
    assert "even" in shown and "odd" in shown
    command = ("compare", weak / "model", trained, tmp_path / "test.csv", "--text", "text", "--json")
    found: dict[str, Any] = json.loads(fine(run(*command)))
    assert found["difference"] > 0.1
    assert found["p"] < 0.01
    refused(run("compare", weak, trained, tmp_path / "test.csv"), "weak")
    refused(run("compare", weak / "model", trained, tmp_path / "test.csv", "--text", "text", "--by", "hafl"), "half")


def test_a_classifier_is_drawn(run: Run, trained: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "test.csv", reviews(30))
    fine(run("evaluate", trained, data, "--figure", tmp_path / "confusion.png"))
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_several_seeds_say_their_spread(run: Run, tiny: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "train.csv", reviews(40))
    named = ("--validation", data, "--seeds", "2", "--learning-rates", "1e-3,2e-3", "--epochs", "1")
    shown = fine(run("finetune", tiny, data, *named, "--out", tmp_path / "run"))
    assert shown.count("2 seeds") == 2
    assert "learning rate 0.001: accuracy" in shown


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--task", "token-classification", "--focal", "2"), "focal is no setting of token-classification"),
        (("--scheme", "BIO"), "scheme is no setting of text-classification, but of token-classification"),
        (("--task", "regression", "--labels", "a,b"), "labels is no setting of regression"),
        (("--metric", "f2"), "metric is 'f2'"),
        (("--track", "tensorbord"), "tensorboard"),
        (("--learning-rates", "fast"), "must be a list of numbers"),
        (("--freeze", "9"), "the model has 2 layers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    run: Run, tiny: Path, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    data = write_csv(tmp_path / "train.csv", reviews(40))
    refused(run("finetune", tiny, data, "--validation", data, *flags, "--out", tmp_path / "run"), said)
