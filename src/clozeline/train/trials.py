"""Several runs of one training: other seeds, to see how much luck there is in a score, and other learning rates.

out/rate-2e-05-seed-0/   a run, as `fit` writes it; only the best one's model is kept
out/model/               the model of the best run
out/trials.json          what each run scored
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from clozeline import bundle as bundles
from clozeline.bundle import Bundle
from clozeline.data.packing import Samples
from clozeline.errors import InputError
from clozeline.files import write_whole
from clozeline.train import distributed
from clozeline.train.fit import Fitted, Trial, finished, fit, identity, reload
from clozeline.train.report import Epoch
from clozeline.train.settings import Settings

NAME = "trials.json"
log = logging.getLogger("clozeline")


def fit_trials(
    bundle: Bundle,
    train: Samples,
    validation: Samples | None,
    out: Path,
    settings: Settings,
    *,
    seeds: int = 1,
    learning_rates: Sequence[float] = (),
    device: torch.device,
    resume: bool = False,
    overwrite: bool = False,
    card: Callable[..., str] | None = None,
    quiet: bool = False,
) -> Fitted:
    """Fit once for each learning rate and seed, from the same weights; `bundle` ends as the best run by validation.

    The best learning rate is the one with the highest mean over its seeds; the best run is that rate's best. Seeds count
    up from the settings' own; a head that starts fresh starts anew for each.

    Raises:
        InputError: as `fit`; also several runs without validation data, which could not be told apart.
    """
    if seeds < 1:
        raise InputError(f"seeds is {seeds}; it must be at least 1.")
    planned = [
        settings.replace(learning_rate=rate, seed=settings.seed + at)
        for rate in learning_rates or (settings.learning_rate,)
        for at in range(seeds)
    ]
    if len(set(learning_rates)) < len(learning_rates):
        raise InputError("A learning rate is given twice; give each once.")
    given: dict[str, Any] = dict(device=device, quiet=quiet)
    if len(planned) == 1:
        described = None if card is None else partial(card, bundle, settings=planned[0])
        return fit(
            bundle, train, validation, out, planned[0], resume=resume, overwrite=overwrite, card=described, **given
        )
    if distributed.join(device).size > 1:
        raise InputError("Several seeds or learning rates are one process's work; train each in a folder of its own.")
    if validation is None:
        raise InputError("Several seeds or learning rates are compared by validation; give validation data.")
    whole = json.loads(json.dumps(identity(settings, bundle, train, validation, device)))
    trials = _open(out, whole, resume, overwrite)
    best = best_of(trials) if trials else None
    for number, one in enumerate(planned[len(trials) :], len(trials) + 1):
        log.info("Run %d of %d: learning rate %g, seed %d.", number, len(planned), one.learning_rate, one.seed)
        trial = copy.deepcopy(bundle)
        if any(name.startswith("head.classifier.") for name in trial.fresh):
            bundles.renew_head(trial, one.seed)
        folder = out / f"rate-{one.learning_rate:g}-seed-{one.seed}"
        again = overwrite or finished(folder)  # it ended, but its score was not written down any more
        described = None if card is None else partial(card, trial, settings=one)
        on = (folder / "run.json").exists() and not again
        run = fit(trial, train, validation, folder, one, resume=on, overwrite=again, card=described, **given)
        if not run.finished:
            return dataclasses.replace(run, out=out, trials=trials)
        assert run.best is not None
        trials = [*trials, Trial(one.learning_rate, one.seed, run.best, run.warnings, folder.name)]
        best = best_of(trials)
        write_whole(
            out / NAME, json.dumps({"identity": whole, "trials": [dataclasses.asdict(each) for each in trials]})
        )
        for each in trials:
            if each is not best:
                shutil.rmtree(out / each.folder / "model", ignore_errors=True)
    assert best is not None
    if not (out / "model").exists():
        (out / best.folder / "model").rename(out / "model")
    reload(bundle, out / "model")
    bundle.fresh = []
    return Fitted(out, 0, 0, [], best.best, best.warnings, True, trials)


def _open(out: Path, whole: dict[str, Any], resume: bool, overwrite: bool) -> list[Trial]:
    """Make `out` ready; the runs that are done already."""
    found = out / NAME
    if out.is_dir() and not found.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no trials; choose another folder.")
    if overwrite and found.exists():
        for each in _read(found)["trials"]:
            shutil.rmtree(out / each["folder"], ignore_errors=True)
        shutil.rmtree(out / "model", ignore_errors=True)
    elif found.exists():
        held = _read(found)
        if not resume:
            raise InputError(f"{out} holds trials; go on with them (--resume), or overwrite them (--overwrite).")
        if held["identity"] != whole:
            changed = ", ".join(key for key in whole if held["identity"].get(key) != whole[key])
            raise InputError(
                f"{out} cannot be resumed: {changed} changed since. Give what it began with, or start anew."
            )
        return [Trial(**{**each, "best": Epoch(**each["best"])}) for each in held["trials"]]
    write_whole(found, json.dumps({"identity": whole, "trials": []}))
    return []


def _read(path: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"identity": held["identity"], "trials": held["trials"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not what trials wrote; choose another folder.") from error


def best_of(trials: Sequence[Trial]) -> Trial:
    """The best run of the learning rate with the highest mean score."""
    means = {rate: mean(each.best.score for each in trials if each.learning_rate == rate) for rate in _rates(trials)}
    rate = max(means, key=lambda each: means[each])
    return max((each for each in trials if each.learning_rate == rate), key=lambda each: each.best.score)


def summary(trials: Sequence[Trial]) -> str:
    """A line for each learning rate: mean, spread and range over its seeds."""
    lines = []
    for rate in _rates(trials):
        scores = [each.best.score for each in trials if each.learning_rate == rate]
        spread = f" sd {stdev(scores):.4f}, {min(scores):.4f} to {max(scores):.4f}," if len(scores) > 1 else ""
        name = trials[0].best.metric.replace("_", " ")
        lines.append(f"learning rate {rate:g}: {name} {mean(scores):.4f},{spread} {len(scores)} seeds")
    return "\n".join(lines)


def _rates(trials: Sequence[Trial]) -> list[float]:
    return list(dict.fromkeys(each.learning_rate for each in trials))
