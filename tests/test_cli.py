"""The command line: what each verb prints, and that a user's mistake costs one sentence and leaves nothing behind."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import clozeline as cl
from clozeline import bundle, cli
from helpers import VOCABULARY, Done, Run, as_trained, reviews, write_csv


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "train.csv", reviews(40))


def refused(done: Done, *parts: str) -> None:
    """The command ended with code 2 and one message, which holds these parts."""
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert (done.code, len(errors)) == (2, 1)
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err


def losses(out: Path) -> list[tuple[int, float]]:
    lines = [line for line in (out / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
    return [(entry["step"], entry["loss"]) for entry in map(json.loads, lines) if "loss" in entry]


# -- finetune


def test_finetune_writes_a_model_and_its_recipe(run: Run, tiny: Path, train: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("finetune", tiny, train, "--validation", train, "--epochs", "1", "--batch-size", "8", "--out", out)
    assert done.code == 0
    assert done.out.splitlines()[-1] == f"clozeline predict {out / 'model'} 'Your own sentence.'"
    assert {"model", "metrics.jsonl", "run.json", "curve.png", "recipe.toml"} == {path.name for path in out.iterdir()}
    again = run("finetune", out / "recipe.toml", f"out={tmp_path / 'again'}", "--json")
    assert json.loads(again.out)["finished"] is True
    assert losses(tmp_path / "again") == losses(out)


def test_a_dry_run_counts_everything_and_writes_nothing(run: Run, tiny: Path, train: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    command = [
        "finetune",
        tiny,
        train,
        "--validation",
        train,
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--max-length",
        "8",
    ]
    done = run(*command, "--dry-run", "--json", "--out", tmp_path / "run")
    plan = json.loads(done.out)
    assert done.code == 0
    assert set(tmp_path.iterdir()) == before
    assert (plan["steps_per_epoch"], plan["steps"]) == (3, 6)
    assert plan["train"] == plan["validation"]
    assert plan["train"]["labels"] == {"negative": 20, "positive": 20}
    texts = [text.split() for text, _ in reviews(40)]
    assert plan["train"]["tokens"] == sum(min(8, len(words) + 2) for words in texts)
    assert plan["train"]["truncated_tokens"] == sum(max(0, len(words) - 6) for words in texts)
    assert all(plan[part] > 0 for part in ("trained", "weights", "gradients", "optimizer", "activations", "seconds"))
    assert plan["trained"] < plan["parameters"]
    shown = run(*command, "--dry-run").out
    assert "kernel blocks (varlen needs a CUDA device" in shown or "kernel varlen" in shown


def test_finetune_refuses_what_a_folder_holds(run: Run, tiny: Path, train: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["finetune", tiny, train, "--epochs", "1", "--out", out]
    assert run(*command).code == 0
    before = (out / "metrics.jsonl").read_bytes()
    refused(run(*command), "finished run", "--overwrite")
    assert (out / "metrics.jsonl").read_bytes() == before
    assert run(*command, "--overwrite").code == 0


LONG_RUN = ("--epochs", "2", "--batch-size", "4", "--save-every", "7", "--precision", "fp32")


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 200 steps that nobody stopped, and its data."""
    folder = tmp_path_factory.mktemp("whole")
    train = write_csv(folder / "train.csv", reviews(400))
    assert cli.main(["finetune", str(tiny), str(train), *LONG_RUN, "--out", str(folder / "run")]) == 0
    return folder


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    run: Run, tiny: Path, whole: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    out = tmp_path / "stopped"
    command = ["finetune", str(tiny), str(whole / "train.csv"), *LONG_RUN, "--out", str(out)]
    with subprocess.Popen([sys.executable, "-m", "clozeline", *command], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (out / "state.pt").exists():
            time.sleep(0.005)
        process.send_signal(stop)
        _, said = process.communicate()
    taken, expected = len(losses(out)), losses(whole / "run")
    assert 0 < taken < len(expected), "it was not stopped on the way"
    assert not (out / "model").exists()

    resume = [*command, "--resume"]
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert f"saved at step {taken} of {len(expected)}" in said
        resume = shlex.split(said.splitlines()[-1])[1:]
    refused(run(*command), "unfinished run", "--resume")
    assert run(*resume).code == 0
    assert losses(out) == expected
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (out, whole / "run"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# -- predict


def test_predict_answers_texts_files_and_standard_input_alike(
    run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("good w1 w2\nbad w3\n")
    table = write_csv(tmp_path / "texts.csv", [("good w1 w2", "?"), ("bad w3", "?")])
    expected = run("predict", trained, "good w1 w2", "bad w3")
    assert [line.split("\t")[::2] for line in expected.out.splitlines()] == [
        ["positive", "good w1 w2"],
        ["negative", "bad w3"],
    ]
    assert run("predict", trained, "--file", lines) == expected
    assert run("predict", trained, "--file", table, "--text", "text") == expected
    for argument in ((), ("-",), ("--file", "-")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.read_bytes())))
        assert run("predict", trained, *argument) == expected
    assert run("predict", trained, "--file", lines, "--out", tmp_path / "results.tsv") == (0, "", "")
    assert (tmp_path / "results.tsv").read_text() == expected.out


def test_predict_as_json_has_every_score(run: Run, trained: Path) -> None:
    found = json.loads(run("predict", trained, "good w1", "--json").out)
    assert list(found) == ["text", "label", "score", "scores", "tokens", "truncated"]
    assert found["scores"].keys() == {"negative", "positive"}
    assert sum(found["scores"].values()) == pytest.approx(1)
    assert (found["text"], found["label"], found["tokens"], found["truncated"]) == ("good w1", "positive", 2, 0)


def test_one_text_is_one_line_of_harmless_characters(run: Run, trained: Path) -> None:
    out = run("predict", trained, "good\tw1\nw2\x1b[2J").out
    assert out.endswith("\tgood\\tw1\\nw2\\x1b[2J\n")
    assert out.count("\t") == 2


def test_cut_texts_are_counted_once_at_the_end(run: Run, trained: Path) -> None:
    long = "good " + "w1 " * 100
    done = run("predict", trained, long, "bad", long)
    assert done.err == "warning: 2 texts were too long and lost 78 tokens (--long window reads all).\n"
    assert run("predict", trained, long, "--long", "window").err == ""


def test_a_terminal_is_answered_line_by_line(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = io.StringIO()
    seen: list[int] = []

    class Typist(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            seen.append(answers.getvalue().count("\n"))
            return super().readline(size)

    stdin = io.TextIOWrapper(Typist(b"good\nbad\ngood\n"))
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stdout", answers)
    assert cli.main(["predict", str(trained)]) == 0
    assert seen == [0, 1, 2, 3]


def test_a_closed_pipe_ends_quietly(trained: Path, tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("good w1 w2\n" * 20_000)
    argv = [sys.executable, "-m", "clozeline", "predict", str(trained), "--file", str(lines), "--window", "16"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("positive\t")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


# -- the other verbs


def test_evaluate_reports(run: Run, trained: Path, train: Path) -> None:
    assert run("evaluate", trained, train).out.startswith("accuracy ")
    found = json.loads(run("evaluate", trained, train, "--json").out)
    assert found["accuracy"] > 0.9
    assert found["examples"] == 40


def test_embed_writes_one_array_or_lines(run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "WINDOW", 7)  # so that the array grows
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(text for text, _ in reviews(20)))
    out = tmp_path / "vectors.npy"
    assert run("embed", tiny, "--file", lines, "--normalize", "--out", out) == (0, "", "")
    array = np.load(out)
    assert (array.shape, array.dtype) == ((20, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, rtol=1e-5)
    shown = [json.loads(line) for line in run("embed", tiny, "--file", lines, "--normalize").out.splitlines()]
    assert [entry["text"] for entry in shown] == lines.read_text().splitlines()
    np.testing.assert_array_equal(np.array([entry["vector"] for entry in shown], dtype=np.float32), array)
    tokens = json.loads(run("embed", tiny, "good w1", "--pool", "tokens", "--layers", "all").out)["vector"]
    assert np.shape(tokens) == (4, 3, 32)
    refused(run("embed", tiny, "good", "--pool", "tokens", "--out", out), "JSON lines")


def test_fill_mask_shows_words_and_compares_candidates(run: Run, tiny: Path, tmp_path: Path) -> None:
    model = as_trained(bundle.load(tiny, cl.MaskedLM()), tmp_path / "masked")
    lines = run("fill-mask", model, "w1 [MASK] w2", "--top", "3").out.splitlines()
    assert len(lines) == 3
    scores = [float(line.split("\t")[1]) for line in lines]
    assert 1 > scores[0] >= scores[1] >= scores[2] > 0
    shown = run("fill-mask", model, "[MASK]", "--candidate", "w3", "--candidate", "w4 w5", "--json").out.splitlines()
    assert {json.loads(line)["token"] for line in shown} == {"w3", "w4 w5"}
    refused(run("fill-mask", model), "Give a text with a mask")
    refused(run("fill-mask", tiny, "[MASK]"), "no trained masked-LM head")


def test_doctor_knows_the_machine_and_the_model(run: Run, tiny: Path, trained: Path, tmp_path: Path) -> None:
    assert run("doctor").out.startswith("clozeline ")
    found = json.loads(run("doctor", trained, "--json").out)
    assert found["labels"] == ["negative", "positive"]
    assert sum(size for part, size in found["parameters"].items() if part != "all") == found["parameters"]["all"]
    assert found["problems"] == []

    ill = copied(trained, tmp_path)
    config = json.loads((ill / "config.json").read_text())
    config |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "pad_token_id": 999}
    (ill / "config.json").write_text(json.dumps(config))
    problems = json.loads(run("doctor", ill, "--json").out)["problems"]
    assert len(problems) == 3
    assert "placeholder" in problems[-1]


def test_doctor_says_what_serves_what_is_tied_and_what_is_not(run: Run, tiny: Path, tmp_path: Path) -> None:
    as_trained(bundle.load(tiny, cl.MaskedLM()), tmp_path / "masked")
    found = json.loads(run("doctor", tmp_path / "masked", "--json").out)
    assert "cls.predictions.decoder.weight to embeddings.word_embeddings.weight" in found["tied"]
    assert found["attention in training, fp32"].startswith("blocks: varlen")
    assert "not on record" in found["tokenizer"]
    assert found["task"] == "masked_lm"

    tensors = load_file(tmp_path / "masked" / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = torch.ones(len(VOCABULARY), 32)
    save_file(tensors, tmp_path / "masked" / "model.safetensors")
    found = json.loads(run("doctor", tmp_path / "masked", "--json").out)
    assert "one tensor, tied" in found["problems"][0]
    assert found["family"] == "bert"


def test_quickstart_ends_with_commands_that_work(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clozeline import quickstart

    monkeypatch.setattr(quickstart, "ENCODER", str(tiny))
    monkeypatch.setattr(quickstart, "SETTINGS", quickstart.SETTINGS.replace(epochs=1))
    monkeypatch.setattr(quickstart, "_command", lambda: "clozeline")
    out = tmp_path / "quick start"
    monkeypatch.setattr(quickstart, "OUT", out)
    for _ in range(2):  # it may be run again
        done = run("quickstart", "--out", out)
        assert done.code == 0
        assert "of 120 are right" in done.out
    commands = [shlex.split(line)[1:] for line in done.out.splitlines() if line.startswith("clozeline ")]
    assert [words[0] for words in commands] == ["predict", "evaluate", "inspect", "finetune"]
    for words in commands[:3]:
        assert run(*(str(tmp_path / word) if word == "why.html" else word for word in words)).code == 0
    assert (tmp_path / "why.html").exists()
    mine = tmp_path / "mine.csv"
    mine.write_text("review,sentiment\ngood,positive\nbad,negative\n")
    assert run(*(str(mine) if word == "your.csv" else word for word in commands[3]), "--dry-run").code == 0


def test_quickstart_leaves_other_folders_alone(run: Run, tiny: Path, train: Path, monkeypatch: Any) -> None:
    from clozeline import quickstart

    monkeypatch.setattr(quickstart, "ENCODER", str(tiny))
    refused(run("quickstart", "--out", train.parent), "not empty")


# -- what users get wrong


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["fintune"], ["finetune"]),
        (["finetune"], ["MODEL"]),
        (["finetune", "m"], ["training data"]),
        (["finetune", "m", "t", "--epoch", "3"], ["--epochs"]),
        (["finetune", "m", "t", "--epochs", "x"], ["--epochs", "x"]),
        (["finetune", "m", "t", "epoch=3"], ["'epochs'"]),
        (["finetune", "m", "t", "u"], ["'u'"]),
        (["finetune", "m", "t", "--warmup", "2"], ["warmup"]),
        (["finetune", "none.toml"], ["none.toml"]),
        (["predict", "m", "--precision", "fp8"], ["fp8", "bf16"]),
        (["predict", "m", "--window", "0"], ["--window", "1"]),
        (["predict", "/no/such/model", "text"], ["/no/such/model"]),
    ],
)
def test_wrong_commands(run: Run, command: list[str], parts: list[str]) -> None:
    refused(run(*command), *parts)


def test_texts_and_a_file_are_one_too_many(run: Run, trained: Path, train: Path) -> None:
    refused(run("predict", trained, "good", "--file", train), "not both")


def test_a_model_that_cannot_classify_is_no_help(run: Run, tiny: Path, train: Path) -> None:
    refused(run("predict", tiny, "good"), "no head trained for a task")
    refused(run("evaluate", tiny, train), "no head trained for a task")


def write_bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def endless_line(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"text,label\n")
        file.truncate(200 * 2**20)  # a hole, which costs no disk


BAD_DATA: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing": (lambda path: path.unlink(), ["There is no file"]),
    "empty": (write_bytes(b""), ["train.csv is empty"]),
    "header only": (write_bytes(b"text,label\n"), ["no rows"]),
    "no such column": (write_bytes(b"texts,label\na,b\nc,d\n"), ["no column 'text'", "did you mean 'texts'"]),
    "one label": (write_bytes(b"text,label\na,good\nb,good\n"), ["one label only, 'good'"]),
    "not UTF-8": (write_bytes(b"text,label\ncaf\xe9,good\n"), ["line 2 is not utf-8", "cp1252"]),
    "endless line": (endless_line, ["line 2 is longer than"]),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_training_data(run: Run, tiny: Path, train: Path, case: str) -> None:
    spoil, parts = BAD_DATA[case]
    spoil(train)
    out = train.parent / "run"
    refused(run("finetune", tiny, train, "--text", "text", "--out", out), *parts)
    assert not out.exists()


def test_a_validation_label_that_training_lacks(run: Run, tiny: Path, train: Path) -> None:
    other = write_csv(train.parent / "validation.csv", [("good", "positive"), ("so so", "neutral")])
    out = train.parent / "run"
    refused(run("finetune", tiny, train, "--validation", other, "--out", out), "validation.csv line 3", "'neutral'")
    assert not out.exists()


def copied(folder: Path, into: Path) -> Path:
    return Path(shutil.copytree(folder, into / "model"))


def nan_weights(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, model / "model.safetensors")


def shortened(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def malicious_pickle(model: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (model / "it-ran",)

    (model / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Touch()}, model / "pytorch_model.bin")


def no_tokenizer(model: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (model / name).unlink()


def larger_vocabulary(model: Path) -> None:
    path = model / "tokenizer.json"
    found = json.loads(path.read_text())
    found["model"]["vocab"]["extra"] = len(found["model"]["vocab"])
    path.write_text(json.dumps(found))


BAD_MODELS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "NaN weights": (nan_weights, ["NaN or infinite"]),
    "truncated safetensors": (shortened, ["damaged or incomplete"]),
    "pickle that runs code": (malicious_pickle, ["would run code", "not opened"]),
    "another vocabulary": (larger_vocabulary, ["62 token ids", "only 61 rows"]),
    "no config.json": (lambda model: (model / "config.json").unlink(), ["no config.json"]),
    "no tokenizer": (no_tokenizer, ["holds no tokenizer"]),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(run: Run, tiny: Path, train: Path, tmp_path: Path, case: str) -> None:
    spoil, parts = BAD_MODELS[case]
    model, out = copied(tiny, tmp_path), tmp_path / "run"
    spoil(model)
    refused(run("finetune", model, train, "--out", out), *parts)
    assert not out.exists()
    assert not (model / "it-ran").exists()


# -- a full disk


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "clozeline.checkpoint.save_file", "torch.save"])
def test_a_full_disk_leaves_nothing_half_written(
    run: Run, tiny: Path, train: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The disk fills up in the second epoch, when a good model and a good state are there already."""
    out = train.parent / "run"
    module, _, name = call.rpartition(".")
    real = getattr(sys.modules[module], name)

    def full(*arguments: Any, **options: Any) -> Any:
        if (out / "state.pt").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    monkeypatch.setattr(sys.modules[module], name, full)
    settings = ["--batch-size", "8", "--learning-rate", "1e-2", "--epochs", "8"]
    command = ["finetune", tiny, train, "--validation", train, *settings]
    refused(run(*command, "--out", out), "the disk is full")
    assert not [path for path in out.rglob("*") if path.name.startswith(".writing-")]
    assert load_file(out / "model" / "model.safetensors")
    monkeypatch.undo()
    assert run(*command, "--out", out, "--resume").code == 0


def test_a_file_that_may_not_grow_is_no_traceback(tiny: Path, train: Path) -> None:
    out = train.parent / "run"
    code = (
        "import resource, sys; from clozeline.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = ["finetune", tiny, train, "--epochs", "1", "--out", out]
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, check=False)
    refused(Done(done.returncode, done.stdout, done.stderr), "Cannot write to")
    assert {path.name for path in out.iterdir()} <= {"run.json", "metrics.jsonl", "model"}
