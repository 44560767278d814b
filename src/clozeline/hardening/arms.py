"""The models that are compared: trained without the cases, with them, and with as many ordinary examples instead.

out/before/seed-0/        a run, as `fit` writes it
out/before/seed-0.json    what its model was judged to do; a run that has it is not run again

Several processes may work at one folder at once: each takes the seeds that no other has under way.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clozeline.behaviour.running import run_suite
from clozeline.data.readers import Columns, Example
from clozeline.data.suite import Suite
from clozeline.face import Model, load
from clozeline.files import locked, write_whole
from clozeline.hardening.mixing import Pair
from clozeline.train.folder import finished
from clozeline.train.settings import Settings

Arm = Literal["before", "after", "control"]
log = logging.getLogger("clozeline")
ARMS: tuple[Arm, ...] = ("before", "after", "control")


@dataclass(frozen=True)
class Judges:
    """What every model is judged by. tests: as they were read when the run began, by name; labels: as in `run_suite`."""

    tests: Mapping[str, Sequence[Pair]]
    suite: Suite
    labels: Mapping[str, str] | None
    probes: tuple[str, ...]

    def judge(self, model: Model) -> dict[str, Any]:
        """What one model does, as JSON has it."""
        tests = {}
        for name, pairs in self.tests.items():
            examples = [Example(text, None, label, name) for text, label in pairs]
            tests[name] = model.counted(examples, Columns(), "accuracy").rows[:, 0].astype(int).tolist()
        said = model.predict(list(self.probes))
        return {
            "tests": tests,
            "failures": run_suite(model, self.suite, labels=self.labels).failures.astype(int).tolist(),
            "probes": [{"label": each.label, "scores": each.scores} for each in said],
        }


@dataclass(frozen=True, eq=False)
class Judged:
    """What the S models of an arm do, one a seed.

    folders: of their runs; runs: what `Judges.judge` found, with "epochs", a list of what each epoch's validation found, and
    "best", the one that was kept.
    """

    arm: Arm
    folders: tuple[Path, ...]
    runs: tuple[dict[str, Any], ...]

    def right(self, test: int) -> np.ndarray:
        """(S, n) 1 where an answer is right, for each example of a test, the first of which is 0."""
        return np.array([[*run["tests"].values()][test] for run in self.runs], np.float64)

    @cached_property
    def failures(self) -> np.ndarray:
        """(S, n) 1 where a case of the suite fails."""
        return np.array([run["failures"] for run in self.runs], np.float64)

    @property
    def best(self) -> int:
        """The run with the best validation score, the first one of several; of runs without validation the first."""
        scores = [max((epoch["score"] for epoch in run["epochs"]), default=0.0) for run in self.runs]
        return int(np.argmax(scores))


def train(
    arm: Arm,
    base: Callable[[int], Model],
    data: Path,
    validation: Path | None,
    judges: Judges,
    out: Path,
    settings: Settings,
    seeds: int,
    quiet: bool,
    device: str | None,
) -> Judged:
    """Train and judge a model for each seed; what is there is not done again, what another process does is waited for.

    base: gives the model to begin from, with the head that a seed draws. data, validation: with columns text and label.

    Raises:
        KeyboardInterrupt: a run was stopped; its state is saved.
    """
    chosen = [settings.replace(seed=settings.seed + at) for at in range(seeds)]
    folders = tuple(out / arm / f"seed-{one.seed}" for one in chosen)
    files = [folder.with_suffix(".json") for folder in folders]
    for wait, at in product((False, True), range(seeds)):
        if files[at].exists():
            continue
        with locked(out / arm / f".{folders[at].name}.lock", wait) as mine:
            if mine is None or files[at].exists():
                continue
            if not quiet:
                print(f"{arm}: model {at + 1} of {seeds}, seed {chosen[at].seed}", file=sys.stderr)
            found = judges.judge(_trained(base, data, validation, folders[at], chosen[at], quiet, device))
            write_whole(files[at], json.dumps(found | _epochs(folders[at], chosen[at].metric)) + "\n")
    judged = Judged(arm, folders, tuple(json.loads(file.read_text(encoding="utf-8")) for file in files))
    for folder in (each for at, each in enumerate(folders) if at != judged.best):
        shutil.rmtree(folder / "model", ignore_errors=True)  # tens of megabytes each
    return judged


def _trained(
    base: Callable[[int], Model],
    data: Path,
    validation: Path | None,
    folder: Path,
    settings: Settings,
    quiet: bool,
    device: str | None,
) -> Model:
    if finished(folder):
        return load(folder / "model", precision="auto", device=device)
    model = base(settings.seed)
    on = (folder / "state.pt").exists()
    columns: dict[str, Any] = dict(text="text", label="label")
    with _meant():
        run = model.fit(
            data, validation, **columns, out=folder, resume=on, overwrite=not on, quiet=quiet, settings=settings
        )
    if not run.finished:
        raise KeyboardInterrupt
    return load(folder / "model", precision="auto", device=device)


@contextlib.contextmanager
def _meant() -> Iterator[None]:
    """Within this, nothing is said of training texts that repeat: a few cases are repeated on purpose."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Training texts that repeat")

    log.addFilter(other)
    try:
        yield
    finally:
        log.removeFilter(other)


def _epochs(folder: Path, metric: str | None) -> dict[str, Any]:
    """What validation found after each epoch, and the number of the one that was kept; None without validation."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [each for each in map(json.loads, lines) if "validation_loss" in each]
    epochs = [
        {
            "epoch": each["epoch"],
            "train_loss": each["train_loss"],
            "validation_loss": each["validation_loss"],
            "score": each[f"validation_{metric or 'accuracy'}"],
        }
        for each in found
    ]
    best = max(epochs, key=lambda one: (one["score"], -one["validation_loss"]), default=None)
    return {"epochs": epochs, "best": None if best is None else best["epoch"]}


def lines_of(examples: Sequence[tuple[str, str]]) -> str:
    """Texts and labels as JSON lines, with columns of these names."""
    return "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in examples)
