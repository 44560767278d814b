"""What metrics.jsonl gets, sent to TensorBoard, Weights & Biases or MLflow too. Each is an optional package.

out/tensorboard            TensorBoard's files
out/wandb, out/wandb.id    Weights & Biases' files, and its run, for a resumed run to go on in
out/mlflow.id              the same for MLflow, which writes to $MLFLOW_TRACKING_URI, else to out/mlflow.db
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from clozeline.errors import InputError, nearest
from clozeline.files import write_whole

log = logging.getLogger("clozeline")

MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
NAMES = tuple(MODULES)


class Logger(Protocol):
    """Takes the lines of metrics.jsonl as they are written. Neither method raises."""

    def log(self, entry: Mapping[str, Any]) -> None: ...

    def close(self, finished: bool) -> None: ...


def open_loggers(names: Sequence[str], out: Path, settings: Mapping[str, Any], resumed_at: int) -> list[Logger]:
    """Begin a run in each tracker, or go on in the one begun before; call it before anything is trained.

    A tracker that fails later is warned of once and left out from there on: the training does not need it. A resumed
    run has every step once, and what a tracker missed before comes from metrics.jsonl; TensorBoard cannot be asked what
    it has, so there only when it is asked for the first time.

    Args:
        names: of `NAMES`.
        settings: what the trackers show beside the run.
        resumed_at: the step the run goes on from; 0 begins anew and forgets what an earlier run in `out` had.

    Raises:
        InputError: an unknown name, a package that is missing, or a tracker that cannot be opened.
    """
    for name in names:
        if name not in MODULES:
            raise InputError(f"There is no tracker {name!r}: {nearest(name, NAMES)}")
    packages = {name: _package(name) for name in names}
    plain = json.loads(json.dumps(settings, default=str))
    if not resumed_at:
        shutil.rmtree(out / "tensorboard", ignore_errors=True)
        for name in NAMES:
            (out / f"{name}.id").unlink(missing_ok=True)
    opened: list[Logger] = []
    for name, package in packages.items():
        try:
            out.mkdir(parents=True, exist_ok=True)
            opened.append(_TRACKERS[name](package, out, plain, resumed_at))
        except Exception as error:  # each tracker has errors of its own
            for logger in opened:
                logger.close(finished=False)
            why = f"{name} cannot be opened: {str(error).rstrip('. ')}."
            raise InputError(f"{why} Nothing was trained: set it up, or train without it.") from error
    for entry in lines_until(out / "metrics.jsonl", resumed_at):
        for logger in opened:
            logger.log(entry)
    return opened


def _package(name: str) -> Any:
    try:
        return importlib.import_module(MODULES[name])
    except Exception as error:  # also what a package raises that does not fit the others installed
        why = f"Tracking with {name} needs its package, which cannot be imported ({error})"
        raise InputError(f'{why}: pip install "clozeline[{name}]"') from error


def lines_until(path: Path, until: int) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl up to a step; none of an unfinished one, which was being written when a run was killed."""
    if until and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                return
            if entry["step"] > until:
                return
            yield entry


class _Tracker(ABC):
    """Names the values of a line and sends them, unless the tracker has them already or has failed."""

    name: str
    last: dict[str, int]  # the last step of "train" and of "validation" lines that the tracker has
    failed = False

    @abstractmethod
    def send(self, step: int, values: dict[str, float]) -> None:
        """Give the tracker the values of a step."""

    @abstractmethod
    def end(self, finished: bool) -> None:
        """Tell the tracker that the run has ended, or was stopped."""

    def log(self, entry: Mapping[str, Any]) -> None:
        step, kind = entry["step"], "validation" if "validation_loss" in entry else "train"
        if not self.failed and step > self.last[kind]:
            values = {_named(key): float(value) for key, value in entry.items() if _is_number(value) and key != "step"}
            if kind == "validation":
                values.pop("train/epoch", None)  # the step's own line has it
            self._try(lambda: self.send(step, values), f"step {step}")

    def close(self, finished: bool) -> None:
        if not self.failed:
            self._try(lambda: self.end(finished), "its end")

    def _try(self, act: Callable[[], None], at: str) -> None:
        try:
            act()
        except Exception as error:
            self.failed, why = True, f"{type(error).__name__}: {error}"
            log.warning("%s failed at %s and gets nothing more; metrics.jsonl has it all. %s", self.name, at, why)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _named(key: str) -> str:
    """validation_accuracy: validation/accuracy; train_loss, a mean: train/epoch_loss; loss, of one step: train/loss."""
    group, _, rest = key.partition("_")
    return {"validation": f"validation/{rest}", "train": f"train/epoch_{rest}"}.get(group, f"train/{key}")


class _TensorBoard(_Tracker):
    name = "tensorboard"

    def __init__(self, package: Any, out: Path, settings: dict[str, Any], resumed_at: int) -> None:
        known = (out / "tensorboard").is_dir()
        self.last = dict.fromkeys(("train", "validation"), resumed_at if known else 0)
        self.writer = package.SummaryWriter(str(out / "tensorboard"), purge_step=resumed_at + 1 if known else None)
        if not known:
            self.writer.add_text("settings", f"```\n{json.dumps(settings, indent=2)}\n```")

    def send(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # else what a killed run sent last may be lost

    def end(self, finished: bool) -> None:
        self.writer.close()


class _Wandb(_Tracker):
    name = "wandb"

    def __init__(self, package: Any, out: Path, settings: dict[str, Any], resumed_at: int) -> None:
        known = out / "wandb.id"
        self.run = package.init(
            project=os.environ.get("WANDB_PROJECT") or "clozeline",
            name=out.resolve().name,
            dir=str(out),
            config=settings,
            id=known.read_text(encoding="utf-8").strip() if known.exists() else secrets.token_hex(4),
            resume="allow",
            reinit="create_new",  # a run that the caller has open stays theirs
        )
        write_whole(known, f"{self.run.id}\n")
        self.last = dict.fromkeys(("train", "validation"), self.run.starting_step - 1)

    def send(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def end(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class _MLflow(_Tracker):
    """Through a client, so that the caller's active run and tracking server stay theirs."""

    name = "mlflow"

    def __init__(self, package: Any, out: Path, settings: dict[str, Any], resumed_at: int) -> None:
        self.entities, known = package.entities, out / "mlflow.id"
        local = f"sqlite:///{(out / 'mlflow.db').resolve().as_posix()}"  # MLflow 3.17 refuses its old folders of files
        uri = package.get_tracking_uri() if package.is_tracking_uri_set() else local
        self.client = package.MlflowClient(tracking_uri=uri)
        if known.exists():
            self.run = known.read_text(encoding="utf-8").strip()
            self.client.update_run(self.run, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "clozeline"
            found = self.client.get_experiment_by_name(name)
            experiment = self.client.create_experiment(name) if found is None else found.experiment_id
            self.run = self.client.create_run(experiment, run_name=out.resolve().name).info.run_id
            params = [self.entities.Param(key, str(value)) for key, value in settings.items()]
            self.client.log_batch(self.run, params=params)
            write_whole(known, f"{self.run}\n")
        history = {kind: self.client.get_metric_history(self.run, f"{kind}/loss") for kind in ("train", "validation")}
        self.last = {kind: max((metric.step for metric in metrics), default=0) for kind, metrics in history.items()}
        self.waiting: list[Any] = []
        self.sent = time.monotonic()

    def send(self, step: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        self.waiting += [self.entities.Metric(name, value, now, step) for name, value in values.items()]
        if len(self.waiting) > 500 or time.monotonic() - self.sent > 1:  # a request takes 1,000 at most, and its time
            self._flush()

    def _flush(self) -> None:
        self.client.log_batch(self.run, metrics=self.waiting)
        self.waiting, self.sent = [], time.monotonic()

    def end(self, finished: bool) -> None:
        self._flush()
        self.client.set_terminated(self.run, "FINISHED" if finished else "KILLED")


_TRACKERS: dict[str, Callable[[Any, Path, dict[str, Any], int], _Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _MLflow,
}
