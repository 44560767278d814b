"""Before, around and after a run: what a failed one leaves, what a resumed one may change, alarms of tasks, the card."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline import cli, cli_training
from clozeline.data.tagged import of_words
from clozeline.errors import InputError
from clozeline.tasks.multi_label import MultiLabelClassification
from clozeline.tasks.regression import Regression
from clozeline.tasks.supervised import only
from clozeline.train import fit as fits
from clozeline.train import folder as folders
from clozeline.train.distributed import Group
from clozeline.train.report import Ticker
from helpers import reviews, write_csv

SETTINGS = cl.Settings(batch_size=8, learning_rate=5e-3, precision="fp32", epochs=2, seed=2)
LABELS = ["negative", "positive"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    train, check = write_csv(folder / "train.csv", reviews(40)), write_csv(folder / "dev.csv", reviews(20, seed=1))
    return {"train": train, "validation": check, "settings": SETTINGS, "quiet": True}


@pytest.fixture
def model(tiny: Path) -> cl.Model:
    return cl.load(tiny, cl.TextClassification(LABELS))


def vocabulary(model: cl.Model) -> int:
    return len(model.network.encoder.embedding.tokens.weight)


# -- a run that fails leaves the model as it was


@pytest.mark.parametrize("what", ["tracker", "state", "twin"])
def test_a_run_that_cannot_begin_leaves_the_model_whole(
    tiny: Path, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError

    model = cl.load(tiny, cl.TextClassification())
    before = vocabulary(model)
    with monkeypatch.context() as patched, pytest.raises((InputError, MemoryError)):
        if what == "tracker":
            patched.setitem(sys.modules, "wandb", None)
        elif what == "state":
            patched.setattr(fits, "Ticker", fails)
        else:
            patched.setattr("clozeline.model.heads.Network.twin", fails)
        model.fit(**data, out=tmp_path / "run", track="wandb" if what == "tracker" else ())
    assert vocabulary(model) == before
    if what != "state":
        assert model.labels != tuple(LABELS), "the task changes when training begins"
    model.save(tmp_path / "saved")
    assert vocabulary(cl.load(tmp_path / "saved")) == before
    model.fit(**data, out=tmp_path / "again")
    assert model.predict("w41 good")[0].label in LABELS  # w41 is in no training text


def test_a_plan_leaves_the_labels_open(tiny: Path, data: dict[str, Any], tmp_path: Path) -> None:
    model = cl.load(tiny, cl.TextClassification())
    other = write_csv(tmp_path / "other.csv", [(text, str(at % 3)) for at, (text, _) in enumerate(reviews(12))])
    network, parts = model.network, list(model.network.parameters())
    model.plan(other, settings=SETTINGS)
    assert model.network is network
    assert all(one is two for one, two in zip(parts, model.network.parameters(), strict=True))
    model.fit(**data, out=tmp_path / "run")
    assert model.labels == tuple(LABELS)


def test_a_plan_counts_all_runs(model: cl.Model, data: dict[str, Any]) -> None:
    given = {name: value for name, value in data.items() if name != "quiet"}
    plan = model.plan(**given, seeds=3, learning_rates=[1e-5, 2e-5])
    assert plan.runs == 6
    assert plan.steps == 10
    work = plan.train.tokens + (plan.validation.tokens if plan.validation else 0) / 3
    assert plan.seconds == pytest.approx(6 * SETTINGS.epochs * work / plan.rate)
    assert "in each of 6 runs" in str(plan)
    with pytest.raises(InputError, match="compared by validation"):
        model.plan(data["train"], seeds=2)


def test_a_dry_run_counts_all_runs_and_one_process_says_it(
    tiny: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--validation", str(data["validation"]), "--seeds", "2", "--learning-rates", "1e-5,2e-5", "--dry-run"]
    command = ["finetune", str(tiny), str(data["train"]), *flags, "--json"]
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 4
    monkeypatch.setattr(cli_training, "FIRST", False)
    assert cli.main(command) == 0
    assert capsys.readouterr().out == ""


# -- what a resumed run may change


def test_trackers_and_saving_may_change_on_the_way(
    tiny: Path, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(ticker: Ticker, step: Any) -> None:
        if step.number == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Ticker, "step", stop)
        cl.load(tiny, cl.TextClassification(LABELS)).fit(**data, out=tmp_path / "run", save_every=2)
    model = cl.load(tiny, cl.TextClassification(LABELS))
    run = model.fit(**data, out=tmp_path / "run", save_every=3, resume=True)
    assert run.finished


def test_one_tracker_may_be_given_as_a_text() -> None:
    assert cl.Settings(track="wandb").track == ("wandb",)  # type: ignore[arg-type]
    assert cl.Settings(track=["wandb", "mlflow"]).track == ("wandb", "mlflow")  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_do_not_share_the_folder_stop_at_once(
    model: cl.Model, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """One of two sees no run and no state, because its folder is on another disk."""
    said: dict[str, Any] = {}

    class Fake(Group):
        def told(self, value: Any) -> Any:
            return value

        def agree(self, what: str, value: Any) -> None:
            said[what] = value

    def seen(out: Path, resume: bool) -> Any:
        said.clear()
        folders.open_run(out, {"data": "same"}, resume, False, Fake(rank, 2))
        ((what, value),) = said.items()
        assert "a folder that they must share" in what
        return value

    first, other = tmp_path / "first", tmp_path / "other"
    first.mkdir()
    folders._prepare(first, {"data": "same"}, False, False)
    torch.save({"training": {"number": 4}, "losses": [0.5], "epochs": []}, first / "state.pt")
    with_state = seen(first, True)
    (first / "state.pt").unlink()
    without = seen(first, True)
    assert with_state != without
    if rank:
        assert seen(other, True) != without  # and no run.json either


# -- what all predictions are


def test_one_label_for_all_is_a_collapse() -> None:
    assert only({"a": 0, "b": 5}) == "'b'"
    assert only({"a": 1, "b": 4}) is None
    assert only({"b": 1}) is None


@pytest.mark.parametrize(
    ("logits", "collapsed"),
    [
        ([[-5, -5], [-5, -5]], "no label"),
        ([[5, 5], [5, 5]], "every label"),
        ([[5, -5], [-5, -5]], None),  # one label only is ever predicted
        ([[5, -5], [5, -5]], None),
    ],
)
def test_several_labels_collapse_to_none_or_all(model: cl.Model, logits: Any, collapsed: str | None) -> None:
    found = checked(model, MultiLabelClassification(["a", "b"]), logits, [[1, 0], [0, 1]])
    assert found.collapsed == collapsed


def test_numbers_collapse_to_one(model: cl.Model) -> None:
    assert checked(model, Regression("x"), [[2.0], [2.001]], [[0.0], [4.0]]).collapsed == "about 2"
    assert checked(model, Regression("x"), [[2.0], [2.5]], [[0.0], [4.0]]).collapsed is None


def checked(model: cl.Model, task: Any, logits: Any, targets: Any) -> Any:
    samples = task.samples(model.tokenizer, [task.example("w1", None, ""), task.example("w2", None, "")], targets=False)
    samples = replace(samples, targets=np.asarray(targets, np.float32))
    return task.check(np.asarray(logits, np.float32), samples)


def test_tokens_collapse_to_outside(tiny: Path) -> None:
    model = cl.load(tiny, cl.TokenClassification(["O", "B-X", "I-X"]))
    task = model.task
    assert isinstance(task, cl.TokenClassification)
    samples = task.samples(model.tokenizer, [of_words(["w1", "w2"], ["O", "B-X"], "")])
    outside, right = (np.zeros((len(samples.ids), 3), np.float32) for _ in range(2))
    outside[:, 0] = 9
    assert samples.targets is not None
    right[np.arange(len(right)), np.maximum(samples.targets, 0)] = 9
    assert task.check(outside, samples).collapsed == "nothing but O"
    assert task.check(right, samples).collapsed is None


# -- temperature


def test_a_temperature_is_fitted_anew_or_not_at_all(model: cl.Model, data: dict[str, Any], tmp_path: Path) -> None:
    model._bundle.task = cl.TextClassification(LABELS, temperature=3.0)
    model.fit(**data, out=tmp_path / "run")
    assert isinstance(model.task, cl.TextClassification)
    assert model.task.temperature == 1


def test_calibration_needs_validation_data(
    tiny: Path, data: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = cl.load(tiny, cl.TextClassification(LABELS, calibrate=True))
    with pytest.raises(InputError, match="give validation data, or leave calibrate out"):
        model.fit(**{**data, "validation": None}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    one = write_csv(tmp_path / "one.csv", [(text, "positive") for text, _ in reviews(10)])
    run = model.fit(**{**data, "validation": one}, out=tmp_path / "run")
    assert run.finished
    assert "one label only: no temperature can be fitted" in caplog.text
    assert isinstance(model.task, cl.TextClassification)
    assert model.task.temperature == 1


# -- the card


def test_the_card_says_how_it_was_trained_wherever_the_model_is_saved(
    tiny: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    model = cl.load(tiny, cl.TextClassification(LABELS, label_smoothing=0.1))
    settings = SETTINGS.replace(learning_rate=2e-2, schedule="constant", epochs=6)
    run = model.fit(**{**data, "settings": settings}, out=tmp_path / "run")
    assert run.best != run.epochs[-1], "this run gets worse"
    model.save(tmp_path / "saved")
    cards = [(folder / "README.md").read_text() for folder in (run.out / "model", tmp_path / "saved")]
    assert cards[0] == cards[1]
    for said in ("- epoch 6:", "- learning_rate: 0.02", "20 examples", "- label_smoothing: 0.1", "- long: truncate"):
        assert said in cards[0]
    assert "- focal" not in cards[0]
    assert "- labels" not in cards[0]
    assert run.warnings
    assert all(warning in cards[0] for warning in run.warnings)
