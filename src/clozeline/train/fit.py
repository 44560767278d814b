"""A training run in a folder: data in, the best model out, safe to stop at any moment.

out/model/         the best model so far, complete at every moment
out/metrics.jsonl  every step and every validation
out/curve.png      the learning curve, best epoch marked
out/run.json       settings and data, to compare runs and to resume by
out/state.pt       what the next step needs; gone when the run has finished
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clozeline import bundle as bundles
from clozeline import predict
from clozeline.bundle import Bundle
from clozeline.data.packing import Samples
from clozeline.errors import InputError, nearest
from clozeline.files import staged, write_whole
from clozeline.model.heads import Network
from clozeline.precision import compute_dtype
from clozeline.tasks.supervised import Check, Supervised
from clozeline.train import distributed, teaching
from clozeline.train.folder import interruptible, machinery, open_run
from clozeline.train.loggers import open_loggers
from clozeline.train.loop import Training
from clozeline.train.report import Alarms, Epoch, Metrics, Ticker, curve
from clozeline.train.settings import Settings

FREE = ("save_every", "track")
"""Settings that a resumed run may change."""
log = logging.getLogger("clozeline")


@dataclass(frozen=True)
class Trial:
    """One of several runs: with what, what its best epoch was, what it warned of, and its folder inside the others'.

    failed: why it ended without a result, None where it has one; it has no best epoch then.
    """

    learning_rate: float
    seed: int
    best: Epoch | None
    warnings: list[str]
    folder: str
    epochs: list[Epoch] = field(default_factory=list)
    failed: str | None = None


@dataclass(frozen=True)
class Fitted:
    """A run's outcome. best: the epoch whose model was kept, None without validation; finished: False when stopped.

    trials: the runs done so far, where there were several; `epochs`, `best` and `warnings` are then those of the best one.
    settings, data: what it was trained with, and on what, in words; None while several runs are under way.
    """

    out: Path
    steps: int
    total_steps: int
    epochs: list[Epoch]
    best: Epoch | None
    warnings: list[str]
    finished: bool
    trials: list[Trial] = field(default_factory=list)
    settings: Settings | None = None
    data: Mapping[str, str] = field(default_factory=dict)


Card = Callable[[Bundle, Fitted], str]
"""Makes the model card of what a run left."""


def fit(
    bundle: Bundle,
    train: Samples,
    validation: Samples | None,
    out: Path,
    settings: Settings,
    *,
    device: torch.device,
    resume: bool = False,
    overwrite: bool = False,
    card: Card | None = None,
    data: Mapping[str, str] | None = None,
    begun: Callable[[], None] | None = None,
    teacher: Network | None = None,
    quiet: bool = False,
) -> Fitted:
    """Train `bundle` in place; at the end it holds the best model, as `out/model` does.

    Ctrl-C ends the run after the step under way, with its state saved; a second one ends it at once. Processes that train
    together, on several machines too, need `out` to be one folder that all of them share.

    data: what it learns from, in words, for the card; begun: called when the weights are about to change; teacher: whose
    answers `train` has, see `teaching.answered`.

    Raises:
        InputError: `out` holds another run, the data or settings of a resumed run have changed, or the disk is full.
        Diverged: the loss is not a number any more; the last good model and state stay in `out`.
    """
    task = bundle.task
    assert isinstance(task, Supervised)
    check(task, settings, validation is not None)
    group = distributed.join(device)
    whole = identity(settings, bundle, train, validation, device, teacher)
    group.agree("model, data and settings", whole)
    state = open_run(out, whole, resume, overwrite, group)
    alarms = Alarms(**({} if state is None else state.get("alarms", {})))  # states of older runs have none
    alarms.settings(settings, bundle.config.width)
    limit = task.max_length or bundle.config.max_length
    for name, samples in (("training", train), ("validation", validation)):
        if samples is not None:
            alarms.data(name, samples.cut, task.long, limit)
    if group.first and train.examples:
        alarms.say(task.notes(train.examples, () if validation is None else validation.examples))
    train = dataclasses.replace(train, examples=())  # the texts themselves are not needed any more

    used: np.ndarray | None = np.unique(train.ids) if validation is None else np.union1d(train.ids, validation.ids)
    epochs: list[Epoch] = [] if state is None else [Epoch(**entry) for entry in state["epochs"]]
    losses: list[float] = [] if state is None else state["losses"]
    resumed_at = 0 if state is None else state["training"]["number"]
    best = _best(epochs)
    here = machinery(device, group)
    ended = False
    with contextlib.ExitStack() as at_end:  # whatever fails, the caller's network gets its whole table back
        tracked = open_loggers(settings.track, out, dataclasses.asdict(settings), resumed_at) if group.first else []
        held = out / "metrics.jsonl" if group.first else None  # the first process writes for all
        metrics = Metrics(held, resumed_at, tracked)
        at_end.callback(lambda: metrics.close(ended))
        trained, learn = bundle.network, None
        if teacher is not None:
            trained, learn = teaching.lesson(task, bundle.network, teacher, train, settings, device)
            used = None if learn.teacher else used  # which reads the same ids
        training = Training(trained, task, train, settings, used=used, device=device, group=group, learn=learn)
        at_end.callback(training.finish)
        checks = None if validation is None else training.renumber(validation)
        if begun is not None:
            begun()
        if state is not None:
            training.load_state(state["training"])
            if other := [f"{name} {value}" for name, value in state["machinery"].items() if here.get(name) != value]:
                log.warning("The run began under %s: what follows may differ in its last digits.", ", ".join(other))
            log.warning("Going on from step %d of %d.", training.number, training.total)
        ticker = Ticker(training.total, training.number, show=group.first and not quiet)
        at_end.callback(ticker.close)

        def save_state() -> None:
            if not group.first:
                return
            kept = {
                "training": training.state(),
                "losses": losses,
                "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
                "alarms": dataclasses.asdict(alarms),
            }
            with staged(out) as stage:
                torch.save({**kept, "identity": whole, "machinery": here}, stage / "state.pt")

        def outcome(finished: bool) -> Fitted:
            said = list(alarms.said)
            number, total, about = training.number, training.total, dict(data or {})
            return Fitted(out, number, total, epochs, best, said, finished, settings=settings, data=about)

        def validate() -> tuple[Epoch, Supervised]:
            assert checks is not None
            logits = predict.logits(training.twin.eval(), task, checks, device)
            epoch = _epoch(task.check(logits, checks), task, training, float(np.mean(losses)))
            return epoch, task.tuned(logits, checks) if epoch.better_than(best) else task

        def save_model() -> None:
            if group.first:
                with training.full_table():
                    said = None if card is None else card(bundle, outcome(True))
                    dataclasses.replace(bundle, fresh=[]).save(out / "model", said)

        def stale() -> bool:
            patience = settings.patience
            return best is not None and patience is not None and epochs[-1].epoch - best.epoch >= patience

        stopped = stale()
        with interruptible() as interrupted:
            for step in () if stopped else training:
                metrics.step(step)
                ticker.step(step)
                losses.append(step.loss)
                alarms.step(step)
                if step.ends_epoch:
                    if checks is not None:
                        found = validate() if group.first else None
                        epoch, tuned = group.told(found)
                        epochs.append(epoch)
                        metrics.epoch(epoch)
                        alarms.epochs(epochs)
                        if epoch.better_than(best):
                            best, bundle.task = epoch, tuned
                            save_model()
                    losses = []
                stopped = stale()
                (asked,) = group.total(len(interrupted), device=device)
                if step.ends_epoch or step.number % settings.save_every == 0 or asked:
                    save_state()
                if asked or stopped:
                    break
        ended = stopped or training.number == training.total
    if not ended:
        return outcome(False)
    bundle.fresh = []
    if best is None and group.first:
        bundle.save(out / "model")
    group.told(None)  # the model is there
    if best is not None:
        reload(bundle, out / "model")
    if group.first:
        if card is not None:  # with the epochs and warnings after the best
            write_whole(out / "model" / "README.md", card(bundle, outcome(True)))
        curve(out / "curve.png", metrics.lines, epochs, best)
        write_whole(out / "run.json", json.dumps({**whole, "finished": True}, indent=2) + "\n")
        (out / "state.pt").unlink(missing_ok=True)
        teaching.forget(out)
    return outcome(True)


def check(task: Supervised, settings: Settings, validated: bool) -> None:
    """InputError where the settings do not fit the task, or need validation data that is not there."""
    if settings.metric is not None and settings.metric not in task.metrics:
        raise InputError(f"metric is {settings.metric!r}; {nearest(settings.metric, task.metrics)}")
    if settings.patience is not None and not validated:
        raise InputError("patience stops by the validation score; give validation data, or leave patience out.")


def _best(epochs: list[Epoch]) -> Epoch | None:
    best: Epoch | None = None
    for epoch in epochs:
        best = epoch if epoch.better_than(best) else best
    return best


def _epoch(found: Check, task: Supervised, training: Training, train_loss: float) -> Epoch:
    return Epoch(
        epoch=training.number // training.per_epoch,
        step=training.number,
        train_loss=train_loss,
        loss=found.loss,
        metric=training.settings.metric or task.metrics[0],
        scores=dict(found.scores),
        predicted=dict(found.predicted),
        collapsed=found.collapsed,
    )


def identity(
    settings: Settings,
    bundle: Bundle,
    train: Samples,
    validation: Samples | None,
    device: torch.device,
    teacher: Network | None = None,
) -> dict[str, Any]:
    """What must be the same for a run to go on; when it is saved and who is told of it may change."""
    digest, weights = hashlib.sha256(), hashlib.sha256()
    for samples in (train, validation):
        for array in (
            () if samples is None else (samples.ids, samples.segments, samples.bounds, samples.first, samples.targets)
        ):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    assert isinstance(bundle.task, Supervised)
    for parameter in bundle.network.parameters():
        weights.update(str(parameter.detach().double().sum().item()).encode())
        weights.update(b"" if parameter.requires_grad else b"frozen")
    return {
        "settings": {key: value for key, value in dataclasses.asdict(settings).items() if key not in FREE},
        "precision": str(compute_dtype(settings.precision, device)).removeprefix("torch."),
        "task": {"name": bundle.task.name, **dataclasses.asdict(bundle.task)},  # type: ignore[call-overload]
        "model": {**dataclasses.asdict(bundle.config), "weights": weights.hexdigest()},
        "data": digest.hexdigest(),
        **({} if teacher is None else {"teacher": teaching.digest(teacher)}),
    }


def reload(bundle: Bundle, folder: Path) -> None:
    """The kept network and what was fitted to validation beside it."""
    found = bundles.load(folder)
    assert isinstance(bundle.task, Supervised)
    tuned = {name: getattr(found.task, name) for name in bundle.task.fitted_later}
    for old, new in zip(bundle.network.parameters(), found.network.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    bundle.network, bundle.task = found.network, dataclasses.replace(bundle.task, **tuned)  # type: ignore[type-var]
