"""Every task on the command line, from data to predictions; comparison, several seeds, and mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import PLAIN, Run, reviews, write_csv

FAST = ("--epochs", "8", "--batch-size", "16", "--learning-rate", "3e-3", "--precision", "fp32")


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
    refused(run("evaluate", out / "model", "no.conll", "--figure", tmp_path / "f.png"), "one label a text only")
    refused(
        run("compare", out / "model", out / "model", dev, "--by", "kind"), "dev.conll has no rows to slice by 'kind'"
    )
    refused(run("compare", out / "model", out / "model", dev, "--metric", "recal"), "did you mean 'recall'")

    untagged = tmp_path / "untagged.conll"
    untagged.write_text("w9\nw1\nw2\nw11\n\nw3\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"words": ["w9", "w1", "w2", "w11"]}\n{"text": "w3"}\n')
    expected = fine(run("predict", out / "model", text, "w3"))
    assert fine(run("predict", out / "model", "--file", untagged)) == expected
    assert fine(run("predict", out / "model", "--file", rows)) == expected
    listed = untagged.rename(tmp_path / "untagged.txt")
    assert fine(run("predict", out / "model", "--file", listed, "--format", "conll")) == expected

    long = tagged(tmp_path / "long.conll", 1)
    long.write_text(long.read_text().rstrip("\n") + "\nw3\tO" * 100 + "\n")
    read = json.loads(fine(run("evaluate", out / "model", long, "--json")))
    assert (read["truncated_texts"], read["windowed_texts"]) == (0, 1)
    assert f"1 texts read in {read['windows']} windows" in fine(run("evaluate", out / "model", long))
    shown = fine(run("evaluate", out / "model", long, "--long", "truncate"))
    assert "1 texts truncated by" in shown


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
        qa = {"id": f"q{number}", "question": "w1 w2", "answers": answers}
        questions.append({"context": " ".join(words), "qas": [qa]})
    articles = [{"title": "first", "paragraphs": questions[:200]}, {"title": "last", "paragraphs": questions[200:]}]
    data = tmp_path / "qa.json"
    data.write_text(json.dumps({"data": articles}))
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

    lines = fine(run("predict", out / "model", "--file", data, "--json")).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"q{number}" for number in range(300)]
    given = tmp_path / "answers.json"
    fine(run("predict", out / "model", "--file", data, "--answers", "--out", given))
    scored = json.loads(fine(run("evaluate", data, "--task", "question-answering", "--predictions", given, "--json")))
    assert scored == report
    asked = tmp_path / "rows.jsonl"
    asked.write_text(json.dumps({"id": 7, "question": "w1 w2", "context": "w5 w6 good w7 w8"}) + "\n")
    assert json.loads(fine(run("predict", out / "model", "--file", asked, "--answers"))) == {"7": "w7"}
    asked.write_text(json.dumps({"question": "w1 w2", "context": "w5 w6 good w7 w8"}) + "\n")
    refused(run("predict", out / "model", "--file", asked, "--answers"), "rows.jsonl line 1 has no id")
    assert "id" not in json.loads(fine(run("predict", out / "model", "--file", asked, "--json")))

    same = ("compare", out / "model", out / "model", data, "--json", "--runs", "1")
    whole = json.loads(fine(run(*same, "--by", "title", "--metric", "exact", "--device", "cpu")))
    assert [each["what"] for each in whole["speeds"]] == ["logits", "logits"]
    found = whole["task"]
    assert {name: each["n"] for name, each in found["slices"].items()} == {"first": 200, "last": 100}
    assert (found["metric"], found["a"]) == ("exact match", pytest.approx(report["exact"]))
    refused(run(*same, "--by", "article"), "qa.json has no column 'article'", "'title'")


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
    refused(run("predict", out / "model", "w1", "bad", "good", "--choices", "A,B"), "--choices and - go with a file")
    with data.open("w", newline="") as file:
        csv.writer(file).writerow(["w1 w2", "bad w3", "good w6", "B"])
    found = ("--columns", "text,one,two,right", "--choices", "one,two")
    assert json.loads(fine(run("predict", out / "model", "--file", data, *found, "--json")))["number"] == 1


def test_sets_of_labels_and_numbers(run: Run, tiny: Path, tmp_path: Path) -> None:
    """Whether a text is positive, as a set of labels and as a number, of texts that were not trained on."""
    for name, rows in (("train", reviews(400)), ("test", reviews(60, seed=1))):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            sets = [(text, "any|positive" if label == "positive" else "any") for text, label in rows]
            table = [(text, labels, 2.0 * labels.count("|") - 1) for text, labels in sets]
            csv.writer(file).writerows([("text", "labels", "score"), *table])
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    reports = {}
    for task, label in (("multi-label-classification", "labels"), ("regression", "score")):
        out, columns = tmp_path / task, ("--label", label, "--text", "text")
        fine(run("finetune", tiny, train, "--validation", train, "--task", task, *columns, "--out", out, *FAST))
        reports[task] = json.loads(fine(run("evaluate", out / "model", test, *columns, "--json")))
    assert reports["multi-label-classification"]["micro_f1"] > 0.9
    assert reports["multi-label-classification"]["exact"] > 0.8
    assert reports["regression"]["targets"]["score"]["pearson"] > 0.8
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
    both = ("compare", weak / "model", trained, tmp_path / "test.csv", "--text", "text", "--runs", "0")
    shown = fine(run(*both, "--by", "half"))
    assert "even" in shown and "odd" in shown
    command = (*both, "--json")
    found: dict[str, Any] = json.loads(fine(run(*command)))["task"]
    assert found["difference"] > 0.1
    assert found["p"] < 0.01
    how = ("--metric", "macro_f1", "--precision", "fp32", "--long", "truncate")
    macro = json.loads(fine(run(*command, *how)))["task"]
    told = json.loads(fine(run("evaluate", trained, tmp_path / "test.csv", "--text", "text", "--json")))
    assert (macro["metric"], macro["b"]) == ("macro F1", pytest.approx(told["macro_f1"]))
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
    trials = json.loads((tmp_path / "run" / "trials.json").read_text())["trials"]
    for rate in (1e-3, 2e-3):
        scores = [trial["best"]["scores"]["accuracy"] for trial in trials if trial["learning_rate"] == rate]
        assert len(scores) == 2
        assert f"learning rate {rate:g}: accuracy {np.mean(scores):.4f}" in shown


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
