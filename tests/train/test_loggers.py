"""Trackers beside metrics.jsonl: what each is told, how a resumed run goes on in the same one, and one that fails."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from clozeline.errors import InputError
from clozeline.train import loggers
from clozeline.train.loggers import Logger, open_loggers

SETTINGS = {"learning_rate": 2e-5, "out": Path("runs/a"), "patience": None}


def step(number: int) -> dict[str, Any]:
    sizes = {"learning_rate": 1e-3, "grad_norm": 2.0, "tokens": 90, "seconds": 0.5}
    return {"step": number, "epoch": number / 4, "loss": 1 / number, **sizes}


def check(number: int) -> dict[str, Any]:
    return {
        "step": number,
        "epoch": number // 4,
        "train_loss": 0.75,
        "validation_loss": 0.5,
        "validation_accuracy": 0.9,
    }


LINES = [step(1), step(2), step(3), step(4), check(4), step(5), step(6), step(7), step(8), check(8)]


def write_lines(out: Path, lines: Sequence[Mapping[str, Any]], broken: str = "") -> None:
    """metrics.jsonl as a killed run leaves it."""
    out.mkdir(exist_ok=True)
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + broken, encoding="utf-8")


def tell(opened: Sequence[Logger], lines: Sequence[Mapping[str, Any]]) -> None:
    for line in lines:
        for logger in opened:
            logger.log(line)


class FakeWandb:
    """Keeps a history for each id, as the server does: a resumed run begins after the last step of its own."""

    def __init__(self) -> None:
        self.inits: list[dict[str, Any]] = []
        self.history: dict[str, dict[int, dict[str, float]]] = {}
        self.exits: list[int] = []
        self.error: Exception | None = None

    def init(self, **given: Any) -> SimpleNamespace:
        self.inits.append(given)
        rows = self.history.setdefault(given["id"], {})

        def log(values: dict[str, float], step: int) -> None:
            if self.error is not None:
                raise self.error
            assert step >= max(rows, default=0), "wandb drops a step that is over"
            rows.setdefault(step, {}).update(values)

        def finish(exit_code: int) -> None:
            self.exits.append(exit_code)

        start = max(rows, default=-1) + 1
        return SimpleNamespace(id=given["id"], starting_step=start, log=log, finish=finish)


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class FakeMLflow:
    entities = SimpleNamespace(Metric=Metric, Param=Param)

    def __init__(self) -> None:
        self.uri: str | None = None
        self.opened: list[str] = []
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, str] = {}
        self.names: list[str] = []
        self.params: list[Param] = []
        self.metrics: list[Metric] = []
        self.requests = 0

    def is_tracking_uri_set(self) -> bool:
        return self.uri is not None

    def get_tracking_uri(self) -> str | None:
        return self.uri

    def MlflowClient(self, tracking_uri: str) -> FakeMLflow:
        self.opened.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
        self.names.append(run_name)
        run = f"run{len(self.runs)}"
        self.runs[run] = "RUNNING"
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def update_run(self, run: str, status: str) -> None:
        if run not in self.runs:
            raise RuntimeError(f"Run with id={run} not found")
        self.runs[run] = status

    set_terminated = update_run

    def get_metric_history(self, run: str, key: str) -> list[Metric]:
        return [metric for metric in self.metrics if metric.key == key]

    def log_batch(self, run: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        self.requests += 1
        self.metrics += metrics
        self.params += params


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMLflow:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_no_names_open_nothing(tmp_path: Path) -> None:
    assert open_loggers((), tmp_path / "run", SETTINGS, 0) == []
    assert not (tmp_path / "run").exists()


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tracker 'wandbb': did you mean 'wandb'\?"):
        open_loggers(["wandbb"], tmp_path, SETTINGS, 0)


@pytest.mark.parametrize("name", loggers.NAMES)
def test_a_missing_package_says_what_to_install(
    name: str, tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (name, loggers.MODULES[name]):
        monkeypatch.setitem(sys.modules, module, None)
    before = len(wandb.inits)
    with pytest.raises(InputError, match=rf'pip install "clozeline\[{name}\]"'):
        open_loggers(["wandb", name], tmp_path / "run", SETTINGS, 0)
    assert len(wandb.inits) == before, "a tracker was opened although another is missing"
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_be_opened_is_an_error_and_ends_the_others(
    tmp_path: Path, wandb: FakeWandb, mlflow: FakeMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(tracking_uri: str) -> None:
        raise ConnectionError("the server does not answer.")

    monkeypatch.setattr(mlflow, "MlflowClient", unreachable)
    with pytest.raises(InputError, match=r"mlflow cannot be opened: the server does not answer\. Nothing was trained"):
        open_loggers(["wandb", "mlflow"], tmp_path, SETTINGS, 0)
    assert wandb.exits == [1]


def test_wandb_gets_every_line_under_its_step(tmp_path: Path, wandb: FakeWandb) -> None:
    opened = open_loggers(["wandb", "wandb"], tmp_path / "reviews", SETTINGS, 0)
    tell(opened, [*LINES[:5], {**step(5), "note": "text", "flag": True, "scores": [1, 2], "nothing": None}])
    for logger in opened:
        logger.close(True)
    (given,) = wandb.inits
    assert given["project"] == "clozeline"
    assert given["name"] == "reviews"
    assert given["dir"] == str(tmp_path / "reviews")
    assert given["config"] == {"learning_rate": 2e-5, "out": "runs/a", "patience": None}
    assert given["resume"] == "allow"
    rows = wandb.history[given["id"]]
    trained = {"train/epoch", "train/loss", "train/learning_rate", "train/grad_norm", "train/tokens", "train/seconds"}
    assert set(rows[1]) == set(rows[5]) == trained
    assert set(rows[4]) - trained == {"train/epoch_loss", "validation/loss", "validation/accuracy"}
    assert rows[4]["train/loss"] == 0.25
    assert rows[4]["train/epoch_loss"] == 0.75
    assert rows[4]["validation/accuracy"] == 0.9
    assert wandb.exits == [0]


def test_wandb_project_comes_from_the_environment(
    tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "films")
    open_loggers(["wandb"], tmp_path, SETTINGS, 0)
    assert wandb.inits[0]["project"] == "films"


def test_wandb_goes_on_in_the_same_run_with_every_step_once(tmp_path: Path, wandb: FakeWandb) -> None:
    """Killed after step 7, of which the server has 6; the state is from step 3 or from step 7."""
    for state in (3, 7):
        out = tmp_path / str(state)
        tell(open_loggers(["wandb"], out, SETTINGS, 0), LINES[:7])
        write_lines(out, LINES[:8], broken='{"step": 8, "lo')
        opened = open_loggers(["wandb"], out, SETTINGS, state)
        tell(opened, [line for line in LINES if line["step"] > state])
        opened[0].close(True)
        first, second = (given["id"] for given in wandb.inits[-2:])
        assert first == second
        assert list(wandb.history[first]) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert wandb.history[first][8]["validation/loss"] == 0.5


def test_a_run_begun_anew_is_another_run(tmp_path: Path, wandb: FakeWandb, mlflow: FakeMLflow) -> None:
    for _ in range(2):
        open_loggers(["wandb", "mlflow"], tmp_path, SETTINGS, 0)
    assert len(wandb.history) == len(mlflow.runs) == 2
    write_lines(tmp_path / "tensorboard", [])
    open_loggers([], tmp_path, SETTINGS, 0)
    assert not list(tmp_path.iterdir()), "a later resume would go on in a run that was overwritten"


def test_mlflow_gets_settings_and_every_line(tmp_path: Path, mlflow: FakeMLflow) -> None:
    (logger,) = open_loggers(["mlflow"], tmp_path / "reviews", SETTINGS, 0)
    tell([logger], LINES)
    assert mlflow.requests == 1, "lines of the same second go together"
    logger.close(True)
    assert mlflow.opened == [f"sqlite:///{(tmp_path / 'reviews' / 'mlflow.db').as_posix()}"]
    assert mlflow.experiments == {"clozeline": "0"}
    assert mlflow.names == ["reviews"]
    assert mlflow.params == [("learning_rate", "2e-05"), ("out", "runs/a"), ("patience", "None")]
    assert [metric.step for metric in mlflow.metrics if metric.key == "train/loss"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [(metric.step, metric.value) for metric in mlflow.metrics if metric.key == "validation/accuracy"] == [
        (4, 0.9),
        (8, 0.9),
    ]
    assert mlflow.runs == {"run0": "FINISHED"}


def test_mlflow_server_and_experiment_come_from_the_environment(
    tmp_path: Path, mlflow: FakeMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "films")
    mlflow.uri, mlflow.experiments["films"] = "http://tracking:5000", "17"
    open_loggers(["mlflow"], tmp_path, SETTINGS, 0)
    assert mlflow.opened == ["http://tracking:5000"]
    assert mlflow.experiments == {"films": "17"}


def test_mlflow_goes_on_in_the_same_run_with_every_step_once(tmp_path: Path, mlflow: FakeMLflow) -> None:
    """Killed after step 6 with what the last second brought unsent; the state is from step 4."""
    (killed,) = open_loggers(["mlflow"], tmp_path, SETTINGS, 0)
    tell([killed], LINES[:3])
    killed.close(False)
    assert mlflow.runs == {"run0": "KILLED"}
    write_lines(tmp_path, LINES[:7])
    (logger,) = open_loggers(["mlflow"], tmp_path, SETTINGS, 4)
    assert mlflow.runs == {"run0": "RUNNING"}
    tell([logger], LINES[5:])
    logger.close(True)
    assert mlflow.runs == {"run0": "FINISHED"}
    assert len(mlflow.params) == 3
    assert [metric.step for metric in mlflow.metrics if metric.key == "train/loss"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [metric.step for metric in mlflow.metrics if metric.key == "validation/loss"] == [4, 8]


def test_mlflow_sends_before_a_request_grows_too_large(tmp_path: Path, mlflow: FakeMLflow) -> None:
    (logger,) = open_loggers(["mlflow"], tmp_path, SETTINGS, 0)
    tell([logger], [step(number) for number in range(1, 101)])
    assert mlflow.requests == 2


def test_a_run_that_is_gone_is_an_error_before_training(tmp_path: Path, mlflow: FakeMLflow) -> None:
    (tmp_path / "mlflow.id").write_text("elsewhere\n")
    with pytest.raises(InputError, match=r"mlflow cannot be opened: Run with id=elsewhere not found\."):
        open_loggers(["mlflow"], tmp_path, SETTINGS, 4)


def test_a_tracker_that_fails_is_warned_of_once_and_left_out(
    tmp_path: Path, wandb: FakeWandb, mlflow: FakeMLflow, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_loggers(["wandb", "mlflow"], tmp_path, SETTINGS, 0)
    given = [dict(line) for line in LINES]
    tell(opened, given[:2])
    wandb.error = ConnectionError("the network is down")
    with caplog.at_level(logging.WARNING, "clozeline"):
        tell(opened, given[2:])
        for logger in opened:
            logger.close(True)
    (said,) = caplog.messages
    assert said.startswith("wandb failed at step 3 ")
    assert "ConnectionError: the network is down" in said
    assert given == LINES
    assert wandb.exits == []
    assert len([metric for metric in mlflow.metrics if metric.key == "train/loss"]) == 8


def test_a_tracker_that_fails_at_its_end_only_warns(
    tmp_path: Path, mlflow: FakeMLflow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    (logger,) = open_loggers(["mlflow"], tmp_path, SETTINGS, 0)
    monkeypatch.setattr(mlflow, "log_batch", full)
    with caplog.at_level(logging.WARNING, "clozeline"):
        tell([logger], LINES[:1])
        logger.close(True)
    (said,) = caplog.messages
    assert said.startswith("mlflow failed at its end ")


def test_an_interrupt_is_not_held_back(tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> SimpleNamespace:
        def log(values: object, step: int) -> None:
            raise KeyboardInterrupt

        return SimpleNamespace(id="a", starting_step=0, log=log)

    monkeypatch.setattr(wandb, "init", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tell(open_loggers(["wandb"], tmp_path, SETTINGS, 0), LINES[:1])


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows."""
    accumulator: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(out / "tensorboard"))
    read.Reload()
    return {name: [(one.step, round(one.value, 6)) for one in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_tensorboard_shows_every_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for _ in range(2):  # the second run is begun anew in the same folder
        opened = open_loggers(["tensorboard"], tmp_path, SETTINGS, 0)
        tell(opened, LINES)
        opened[0].close(True)
    seen = scalars(tmp_path)
    assert [number for number, _ in seen["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert seen["train/learning_rate"][0] == (1, 1e-3)
    assert seen["train/epoch"] == [(number, number / 4) for number in range(1, 9)]
    assert seen["train/epoch_loss"] == [(4, 0.75), (8, 0.75)]
    assert seen["validation/accuracy"] == [(4, 0.9), (8, 0.9)]


def test_tensorboard_of_a_resumed_run_shows_every_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    killed = open_loggers(["tensorboard"], tmp_path, SETTINGS, 0)
    tell(killed, LINES[:7])  # and nothing is closed
    assert len(scalars(tmp_path)["train/loss"]) == 6
    write_lines(tmp_path, LINES[:7])
    opened = open_loggers(["tensorboard"], tmp_path, SETTINGS, 3)
    tell(opened, LINES[3:])
    for logger in (*killed, *opened):
        logger.close(True)
    seen = scalars(tmp_path)
    assert [number for number, _ in seen["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [number for number, _ in seen["validation/loss"]] == [4, 8]


def test_tensorboard_asked_for_on_the_way_shows_what_went_before(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write_lines(tmp_path, LINES[:7])
    opened = open_loggers(["tensorboard"], tmp_path, SETTINGS, 5)
    tell(opened, LINES[6:])
    opened[0].close(True)
    assert [number for number, _ in scalars(tmp_path)["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
