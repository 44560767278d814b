"""`clozeline distill` as a user types it: for tasks and for masked words, run again from its recipe, and every mistake."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import clozeline as cl
from clozeline import bundle
from clozeline.families.bert import BERT
from clozeline.tokenizer import Tokenizer
from helpers import PLAIN, VOCABULARY, Done, Run, as_trained, reviews, write_csv

FAST = ("--epochs", "1", "--batch-size", "16", "--learning-rate", "2e-3", "--precision", "fp32")
SLIM = ("--width", "16", "--heads", "2", "--ffn-width", "32")
WORDS = ("--length", "32", "--batch-tokens", "400", "--precision", "fp32", "--split", "line", "--held-out", "0.1")


def fine(done: Done) -> str:
    assert done.code == 0, done.err
    return done.out


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", reviews(40))


@pytest.fixture(scope="module")
def teacher(trained: Path) -> Path:
    """A classifier of two layers."""
    return trained


@pytest.fixture(scope="module")
def filler(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers that finds masked words, with large random weights."""
    loaded = bundle.load(tiny, cl.MaskedLM())
    draw = torch.Generator().manual_seed(0)
    for part in loaded.network.parameters():
        part.data += 0.05 * torch.randn(part.shape, generator=draw)
    return as_trained(loaded, tmp_path_factory.mktemp("filler") / "model")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, draw = tmp_path_factory.mktemp("corpus") / "text.txt", random.Random(0)
    path.write_text("\n".join(" ".join(draw.choices(PLAIN, k=draw.randint(9, 28))) for _ in range(60)))
    return path


def other_words(folder: Path, into: Path) -> Path:
    """The same model over a vocabulary in which two words have changed places."""
    shutil.copytree(folder, into)
    path = into / "tokenizer.json"
    held = json.loads(path.read_text())
    words = held["model"]["vocab"]
    words["w1"], words["w2"] = words["w2"], words["w1"]
    path.write_text(json.dumps(held))
    return into


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def mapped(said: str) -> list[tuple[int, int]]:
    """The layer map as it is printed."""
    return [
        (int(a), int(b)) for a, b in re.findall(r"student layer +(\d+) +begins as the teacher's layer +(\d+)", said)
    ]


# -- a task


def test_fewer_layers_of_the_teacher(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    done = run("distill", teacher, train, "--validation", train, "--layers", 1, *FAST, "--out", out)
    shown = fine(done)
    assert mapped(done.err) == [(0, 0)]
    assert {"model", "metrics.jsonl", "run.json", "curve.png", "recipe.toml"} == {path.name for path in out.iterdir()}
    model, big = cl.load(out / "model"), cl.load(teacher)
    assert (model.config.layers, model.config.width, model.labels) == (1, 32, big.labels)
    assert big.config.layers == 2 and len(model.predict(["w1 good w2"])) == 1
    commands = [shlex.split(line)[1:] for line in shown.splitlines() if line.startswith("clozeline ")]
    assert [words[0] for words in commands] == ["predict", "compare"]
    for words in commands:
        fine(run(*words))


def test_a_run_begins_with_what_the_teacher_knows(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    """Nothing is changed by a rate of 0: the student is its layers, its embeddings and its head."""
    still = ("--epochs", "1", "--learning-rate", "0", "--weight-decay", "0", "--precision", "fp32")
    done = run("distill", teacher, train, "--layer-map", "1", *still, "--out", tmp_path / "run")
    fine(done)
    assert mapped(done.err) == [(0, 1)] and cl.load(tmp_path / "run" / "model").config.layers == 1
    found, theirs = weights(tmp_path / "run" / "model"), weights(teacher)
    for name, value in found.items():
        assert torch.equal(value, theirs[name.replace("encoder.layer.0.", "encoder.layer.1.")]), name


def test_a_recipe_runs_again(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "run", tmp_path / "again"
    how = ["--layers", 1, *SLIM, "--hidden", 1, "--match", "layers", "--temperature", 3, "--hard", "0.5"]
    fine(run("distill", teacher, train, *how, *FAST, "--out", out))
    done = run("finetune", out / "recipe.toml", f"out={again}", "--json")
    found = json.loads(fine(done))
    assert found["finished"] and found["model"] == str(again / "model")
    assert found["settings"]["temperature"] == 3 and found["settings"]["hidden"] == 1
    one, other = weights(out / "model"), weights(again / "model")
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    texts = [(folder / "recipe.toml").read_text() for folder in (out, again)]
    assert texts[0].replace(str(out), "*") == texts[1].replace(str(again), "*")


def test_a_narrow_student_has_fresh_layers_and_says_so(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    done = run("distill", teacher, train, "--layers", 1, *SLIM, *FAST, "--out", tmp_path / "run", "--json")
    found = json.loads(fine(done))
    assert found["finished"] and found["steps"] == 3 and not mapped(done.err)
    assert "fresh layers" in done.err
    model = cl.load(tmp_path / "run" / "model")
    assert (model.config.layers, model.config.width, model.config.heads, model.config.ffn_width) == (1, 16, 2, 32)


def test_a_published_shape(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    sizes = ("--shape", "distilbert-base-uncased", "--layers", 1, "--width", 32, "--heads", 4, "--ffn-width", 64)
    done = run("distill", teacher, train, *sizes, *FAST, "--out", tmp_path / "run")
    fine(done)
    assert mapped(done.err) == [(0, 0)] and "head." in done.err, "the head is another family's, and fresh"
    model = cl.load(tmp_path / "run" / "model")
    assert model.config.family == "distilbert" and model.labels == ("negative", "positive")
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["architectures"] == ["DistilBertForSequenceClassification"]


@pytest.mark.parametrize("hard", [1, 0])
def test_a_student_of_ones_own(run: Run, teacher: Path, tiny: Path, train: Path, tmp_path: Path, hard: int) -> None:
    """A bare encoder takes the teacher's task, labels included."""
    out = tmp_path / "run"
    done = run("distill", teacher, train, "--student", tiny, "--hard", hard, *FAST, "--out", out)
    fine(done)
    model, big = cl.load(out / "model"), cl.load(teacher)
    assert model.labels == big.labels and model.config.layers == 2 and not mapped(done.err)
    assert run("predict", out / "model", "w1 good w2").code == 0


def test_a_student_of_ones_own_has_the_labels_in_the_teachers_order(
    run: Run, tiny: Path, train: Path, tmp_path: Path
) -> None:
    """Alphabetical order, which training data gives, is not the teacher's."""
    backwards = as_trained(bundle.load(tiny, cl.TextClassification(["positive", "negative"])), tmp_path / "teacher")
    fine(run("distill", backwards, train, "--student", tiny, *FAST, "--out", tmp_path / "run"))
    assert cl.load(tmp_path / "run" / "model").labels == ("positive", "negative")


def test_texts_without_labels_and_changes_by_key(run: Run, teacher: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("text\n" + "\n".join(text for text, _ in reviews(40)) + "\n")
    done = run(
        "distill", teacher, texts, "layers=1", "hard=0", "epochs=2", *FAST[2:], f"out={tmp_path / 'run'}", "--json"
    )
    assert json.loads(fine(done))["steps"] == 6
    assert cl.load(tmp_path / "run" / "model").config.layers == 1


def test_a_dry_run_counts_and_writes_nothing(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    command = ["distill", teacher, train, "--layers", 1, "--hidden", 1, *FAST, "--out", tmp_path / "run", "--dry-run"]
    plan = json.loads(fine(run(*command, "--json")))
    assert plan["steps"] == 3 and plan["parameters"] < sum(
        part.numel() for part in cl.load(teacher).network.parameters()
    )
    assert plan["train"]["labels"] == {"negative": 20, "positive": 20}
    shown = fine(run(*command))
    assert "memory      about" in shown and "steps       3" in shown
    assert set(tmp_path.rglob("*")) == before


def test_a_stopped_run_goes_on(
    run: Run, teacher: Path, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the line that it prints."""
    import os
    import signal
    import sys

    from clozeline.train.report import Ticker

    out, plain = tmp_path / "run", Ticker.step
    command = ["distill", teacher, train, "--layers", 1, *FAST, "--out", out]

    def step(ticker: Ticker, done: Any) -> None:
        plain(ticker, done)
        if done.number == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Ticker, "step", step)
    monkeypatch.setattr(sys, "argv", ["clozeline", *map(str, command)])
    done = run(*command)
    assert done.code == 130 and "saved at step 2 of 3" in done.err
    monkeypatch.undo()
    fine(run(*shlex.split(done.err.splitlines()[-1])[1:]))
    assert not (out / ".teacher").exists()


# -- masked words


def test_masked_words(run: Run, filler: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("distill", filler, corpus, "--layers", 1, *WORDS, "--learning-rate", "1e-3", "--passes", 2, "--out", out)
    shown = fine(done)
    assert mapped(done.err) == [(0, 0)]
    assert re.search(r"^mlm: loss [\d.]+", shown, re.MULTILINE) and re.search(r"^soft: loss", shown, re.MULTILINE)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    first = lines[0]
    assert first["loss"] == pytest.approx(
        2 * first["mlm_loss"] + 5 * first["soft_loss"] + first["hidden_loss"], rel=1e-5
    )
    model = cl.load(out / "model")
    assert model.config.layers == 1 and len(model.fill_mask("w1 [MASK] w3", top=3)[0]) == 3
    assert not (out / "tokenizer").exists()
    try_it = next(line for line in shown.splitlines() if line.startswith("clozeline fill-mask"))
    fine(run("fill-mask", shlex.split(try_it)[2], "w1 [MASK]"))


def test_masked_words_again_from_the_recipe(run: Run, filler: Path, corpus: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "run", tmp_path / "again"
    how = [*SLIM, "--layers", 1, "--soft-at", "all", "--relations", 1, "--relation-heads", 2, "--tokens", 2000]
    found = json.loads(fine(run("distill", filler, corpus, *how, *WORDS, "--out", out, "--json")))
    assert found["finished"] and {"mlm", "soft", "hidden", "relations"} == found["losses"].keys()
    fine(run("pretrain", out / "recipe.toml", f"out={again}"))
    one, other = weights(out / "model"), weights(again / "model")
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_masked_words_with_a_student_of_ones_own(
    run: Run, filler: Path, tiny: Path, corpus: Path, tmp_path: Path
) -> None:
    done = run("distill", filler, corpus, "--student", tiny, *WORDS, "--tokens", 1000, "--out", tmp_path / "run")
    fine(done)
    assert cl.load(tmp_path / "run" / "model").config.layers == 2 and not mapped(done.err)


def test_masked_words_in_a_published_shape(run: Run, filler: Path, corpus: Path, tmp_path: Path) -> None:
    sizes = ("--shape", "distilbert-base-uncased", "--layers", 1, "--width", 32, "--heads", 4, "--ffn-width", 64)
    fine(
        run("distill", filler, corpus, *sizes, "--max-length", 64, *WORDS, "--tokens", 1000, "--out", tmp_path / "run")
    )
    model = cl.load(tmp_path / "run" / "model")
    assert model.config.family == "distilbert" and len(model.fill_mask("w1 [MASK] w3", top=3)[0]) == 3


def test_a_shorter_student_reads_as_much_as_it_can(run: Run, filler: Path, corpus: Path, tmp_path: Path) -> None:
    """Its tokenizer cuts at its own length, not at the teacher's."""
    how = ("--layers", 1, "--max-length", 32, "--tokens", 1000)
    fine(run("distill", filler, corpus, *how, *WORDS, "--out", tmp_path / "run"))
    model = cl.load(tmp_path / "run" / "model")
    assert model.config.max_length == 32
    kept = json.loads((tmp_path / "run" / "model" / "tokenizer_config.json").read_text())
    assert kept["model_max_length"] == 32
    model.embed(" ".join(PLAIN))


def test_a_dry_run_over_words(run: Run, filler: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("distill", filler, corpus, "--layers", 1, *WORDS, "--passes", 2, "--out", out, "--dry-run", "--json")
    assert json.loads(fine(done))["steps"] > 1 and not (out / "run.json").exists()


# -- what users get wrong


def mistaken(done: Done, says: str, out: Path) -> None:
    """Code 2, one sentence or two that say this, and no folder of a run."""
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert (done.code, len(errors)) == (2, 1), done.err
    assert re.search(says, errors[0]), errors[0]
    assert errors[0].endswith((".", "?")) and "Traceback" not in done.err and len(errors[0]) < 500
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*")) if out.exists() else []
    assert not left and not out.exists(), left


@pytest.fixture(scope="module")
def models(tiny: Path, teacher: Path, filler: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that cannot teach, or cannot learn from these teachers."""
    folder = tmp_path_factory.mktemp("models")
    bundle.load(tiny, cl.TextClassification(["negative", "positive"])).save(folder / "untrained")
    bundle.load(tiny, cl.MaskedLM()).save(folder / "untrained filler")
    as_trained(bundle.load(tiny, cl.TextClassification(["dull", "bright"])), folder / "other labels")
    as_trained(bundle.load(tiny, cl.Regression(["score"])), folder / "numbers")
    as_trained(bundle.load(tiny, cl.MultipleChoice()), folder / "choices")
    other_words(teacher, folder / "other words")
    other_words(filler, folder / "other filler")
    return {path.name: path for path in folder.iterdir()} | {"tiny": tiny, "teacher": teacher, "filler": filler}


TASK_MISTAKES: dict[str, tuple[list[str], str]] = {
    "no data": (["teacher"], "training data"),
    "two files": (["teacher", "train", "train"], "one argument too many"),
    "no such file": (["teacher", "none.csv"], "There is no file"),
    "bare encoder": (["tiny", "train"], "bare encoder.*nothing to teach"),
    "untrained": (["untrained", "train", "--layers", "1"], "no trained head"),
    "untrained, own student": (["untrained", "train", "--student", "tiny"], "no trained head"),
    "other words": (["teacher", "train", "--student", "other words"], "same tokens.*'w[12]'"),
    "labels given": (["teacher", "train", "--layers", "1", "--labels", "good,bad"], "good|negative"),
    "another task": (["teacher", "figures", "--student", "numbers", "task=regression"], "cannot teach"),
    "map out of range": (["teacher", "train", "--layer-map", "0,2"], "layers 0 to 1"),
    "map below 0": (["teacher", "train", "--layer-map=-1"], "layers 0 to 1"),
    "map of wrong length": (["teacher", "train", "--layers", "1", "--layer-map", "0,1"], "2 layers .* student of 1"),
    "map that is none": (["teacher", "train", "--layer-map", "x"], "layer_map"),
    "map out of range, own student": (["teacher", "train", "--student", "tiny", "--hidden", "1", "--layer-map", "0,2"],
                                      "layer map is 0, 2.*from 0 to 1"),
    "map of wrong length, own student": (["teacher", "train", "--student", "tiny", "--hidden", "1", "--layer-map", "0"],
                                         "layer map is 0;"),
    "relation heads": (["teacher", "train", "--layers", "1", "--relations", "1", "--relation-heads", "5"],
                       "relation_heads is 5"),
    "more layers": (["teacher", "train", "--layers", "3"], "3 layers cannot be kept of 2"),
    "no layers": (["teacher", "train", "--layers", "0"], "0 layers|layers is 0"),
    "heads": (["teacher", "train", "--width", "30"], "30"),
    "no such shape": (["teacher", "train", "--shape", "distilbert-base-uncase"], "did you mean"),
    "student and sizes": (["teacher", "train", "--student", "tiny", "--layers", "1"], "layers .*leave one out"),
    "key of masked words": (["teacher", "train", "--mask-rate", "0.2"], "mask_rate is of learning masked words"),
    "key= of masked words": (["teacher", "train", "mask_rate=0.2"], "no key 'mask_rate'"),
    "unknown key": (["teacher", "train", "temprature=3"], "did you mean 'temperature'"),
    "unknown flag": (["teacher", "train", "--temprature", "3"], "--temperature"),
    "nothing to learn": (["teacher", "train", "--soft", "0"], "nothing to learn from the teacher"),
    "all 0": (["teacher", "train", "--soft", "0", "--hard", "0"], "nothing to learn from the teacher"),
    "negative": (["teacher", "train", "--soft=-1"], "soft is -1"),
    "temperature": (["teacher", "train", "--temperature", "0"], "temperature is 0"),
    "match": (["teacher", "train", "--match", "first"], "match|first"),
    "metric": (["teacher", "train", "--layers", "1", "--validation", "train", "--metric", "acuracy"], "accuracy"),
    "patience": (["teacher", "train", "--layers", "1", "--patience", "2"], "patience"),
    "setting of another task": (["teacher", "train", "--layers", "1", "--scheme", "BIO"], "scheme is no setting of"),
    "no texts alone": (["choices", "train", "--hard", "0", "--layers", "1"], "give hard a weight"),
    "no such teacher": (["/no/such/model", "train"], "/no/such/model"),
}  # fmt: skip


@pytest.mark.parametrize("case", TASK_MISTAKES)
def test_mistakes_with_a_task(run: Run, models: dict[str, Path], train: Path, tmp_path: Path, case: str) -> None:
    given, says = TASK_MISTAKES[case]
    figures = train.parent / "figures.csv"
    if not figures.exists():
        write_csv(figures, [(text, str(at)) for at, (text, _) in enumerate(reviews(9))])
    known = {**models, "train": train, "figures": figures}
    before = {path: path.stat().st_mtime_ns for path in train.parent.rglob("*")}
    out = tmp_path / "run"
    mistaken(run("distill", *(known.get(each, each) for each in given), "--out", out), says, out)
    assert {path: path.stat().st_mtime_ns for path in train.parent.rglob("*")} == before


WORD_MISTAKES: dict[str, tuple[list[str], str]] = {
    "no data": (["filler"], "There is no corpus"),
    "no such file": (["filler", "none.txt"], "none.txt"),
    "untrained": (["untrained filler", "corpus"], "no (trained )?masked-LM head"),
    "other words": (["filler", "corpus", "--student", "other filler"], "same tokens.*'w[12]'"),
    "map out of range": (["filler", "corpus", "--layer-map", "0,2"], "layers 0 to 1"),
    "map of wrong length": (["filler", "corpus", "--layers", "1", "--layer-map", "0,1"], "2 layers .* student of 1"),
    "map out of range, own student": (
        ["filler", "corpus", "--student", "tiny", "--layer-map", "0,2"],
        "layer map is 0, 2",
    ),
    "relation heads": (["filler", "corpus", "--relations", "1", "--relation-heads", "5"], "relation_heads is 5"),
    "more layers": (["filler", "corpus", "--layers", "3"], "3 layers cannot be kept of 2"),
    "key of a task": (["filler", "corpus", "--epochs", "3"], "epochs is of learning a task"),
    "key= of a task": (["filler", "corpus", "epochs=3"], "no key 'epochs'"),
    "pairs": (["filler", "corpus", "nsp=1"], "masked words alone"),
    "nothing to learn": (["filler", "corpus", "--soft", "0", "--hidden", "0"], "nothing to learn from the teacher"),
    "all 0": (["filler", "corpus", "--soft", "0", "--hidden", "0", "--mlm", "0"], "nothing to learn"),
    "student and sizes": (["filler", "corpus", "--student", "tiny", "--layers", "1"], "leave layers out"),
    "longer than the teacher": (["filler", "long", "--shape", "bert-tiny-uncased", "--length", "128"], "64 tokens"),
    "longer than both": (["filler", "corpus", "--layers", "1", "--length", "128"], "64 tokens"),
}


@pytest.mark.parametrize("case", WORD_MISTAKES)
def test_mistakes_with_masked_words(run: Run, models: dict[str, Path], corpus: Path, tmp_path: Path, case: str) -> None:
    given, says = WORD_MISTAKES[case]
    long = corpus.with_name("long.txt")
    long.write_text("\n".join(" ".join(PLAIN * 3) for _ in range(9)))
    known = {**models, "corpus": corpus, "long": long}
    flags = [each for each in WORDS if not (each in ("--length", "32") and "--length" in given)]
    out = tmp_path / "run"
    mistaken(run("distill", *(known.get(each, each) for each in given), *flags, "--out", out), says, out)


def test_a_teacher_of_masked_words_cannot_teach_a_task_and_none_is_learned_from_nobody(
    run: Run, filler: Path, tiny: Path, train: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    mistaken(run("finetune", tiny, train, "--teacher", filler, "--out", out), "MaskedLM.*cannot teach", out)
    for flag in ("--soft", "--hidden", "--relations"):
        mistaken(run("finetune", tiny, train, flag, "1", "--out", out), "learning from a teacher; name one", out)
        mistaken(run("pretrain", train, flag, "1", "--out", out), "learning from a teacher; name one", out)


def test_a_student_that_reads_more_than_its_teacher(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    """Texts of 40 tokens: the student reads 64, the teacher 16."""
    words = Tokenizer.load(teacher, 16)
    big = cl.load(teacher)
    short = BERT.build(big.config.replace(max_length=16), "text_classification", 2)
    as_trained(bundle.Bundle("short", BERT, short, words, big.task, []), tmp_path / "short")
    long = write_csv(tmp_path / "long.csv", [(" ".join([text] * 6), label) for text, label in reviews(20)])
    out = tmp_path / "run"
    done = run("distill", tmp_path / "short", long, "--student", teacher, *FAST, "--out", out)
    assert "Traceback" not in done.err and done.code in (0, 2), done.err
    if done.code == 2:
        mistaken(done, "16", out)


def test_a_folder_of_something_else_is_left_alone(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    done = run("distill", teacher, train, "--layers", 1, *FAST, "--out", out)
    assert done.code == 2 and "is not empty and holds no run" in done.err
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    file = tmp_path / "file"
    file.write_text("precious")
    done = run("distill", teacher, train, "--layers", 1, *FAST, "--out", file)
    assert done.code == 2 and "is a file" in done.err and file.read_text() == "precious"


def test_a_finished_run_is_left_as_it_is(run: Run, teacher: Path, train: Path, tmp_path: Path) -> None:
    command = ["distill", teacher, train, "--layers", 1, *FAST, "--out", tmp_path / "run"]
    fine(run(*command))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for again in (command, [*command, "--resume"]):
        done = run(*again)
        assert done.code == 2 and "finished run" in done.err
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    fine(run(*command, "--overwrite"))


def test_the_vocabulary_of_these_models_is_the_helpers(teacher: Path) -> None:
    assert cl.load(teacher).tokenizer.vocabulary() == VOCABULARY
