"""Several runs of one training: other seeds, to see how much luck there is in a score, and other learning rates.

out/rate-2e-05-seed-0/   a run, as `fit` writes it; only the best one's model is kept
out/model/               the model of the best run
out/trials.json          what is planned, what each run scored, and whose model is kept

A stopped series goes on with `resume`, and a finished one may grow by seeds or rates: what is there is not run again.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from clozeline import bundle as bundles
from clozeline.bundle import Bundle
from clozeline.data.packing import Samples
from clozeline.errors import InputError
from clozeline.files import write_whole
from clozeline.model.heads import Network
from clozeline.train import distributed
from clozeline.train.fit import Card, Fitted, Trial, fit, identity, reload
from clozeline.train.folder import finished, refuse
from clozeline.train.loop import Diverged
from clozeline.train.prepared import planned
from clozeline.train.report import Epoch
from clozeline.train.settings import Settings
from clozeline.train.teaching import forget

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
    card: Card | None = None,
    data: Mapping[str, str] | None = None,
    begun: Callable[[], None] | None = None,
    teacher: Network | None = None,
    quiet: bool = False,
) -> Fitted:
    """Fit once for each learning rate and seed, from the same weights; `bundle` ends as the best run by validation.

    The best learning rate is the one with the highest mean over its seeds; the best run is that rate's best. Seeds count
    up from the settings' own; a head that starts fresh starts anew for each. A run that diverges is left out.

    Raises:
        InputError: as `fit`; several runs without validation data, which could not be told apart; all of them diverged.
    """
    runs = planned(settings, seeds, learning_rates, validation)
    given: dict[str, Any] = dict(device=device, quiet=quiet, card=card, data=data, teacher=teacher)
    if len(runs) == 1:
        return fit(bundle, train, validation, out, runs[0], resume=resume, overwrite=overwrite, begun=begun, **given)
    if distributed.join(device).size > 1:
        raise InputError("Several seeds or learning rates are one process's work; train each in a folder of its own.")
    whole = json.loads(json.dumps(identity(settings, bundle, train, validation, device, teacher)))
    for name in ("learning_rate", "seed"):  # the plan has them
        del whole["settings"][name]
    series = _open(out, whole, runs, resume, overwrite)

    def run_one(number: int, one: Settings, anew: bool) -> Fitted | Diverged:
        if not quiet:
            shown = f"run {number} of {len(runs)}: learning rate {one.learning_rate:g}, seed {one.seed}"
            print(shown, file=sys.stderr)
        trial = copy.deepcopy(bundle)
        if any(name.startswith("head.classifier.") for name in trial.fresh):
            bundles.renew_head(trial, one.seed)
        folder = out / _folder(one)
        anew = anew or finished(folder)  # it ended, but its score was not written down any more
        on = (folder / "run.json").exists() and not anew
        try:
            return fit(trial, train, validation, folder, one, resume=on, overwrite=anew, **given)
        except Diverged as error:
            log.warning("This run is left out: %s", error)
            return error

    for number, one in enumerate(runs, 1):
        folder = _folder(one)
        if any(each.folder == folder for each in series.trials):
            continue
        run = run_one(number, one, overwrite)
        if isinstance(run, Fitted) and not run.finished:
            return dataclasses.replace(run, out=out, trials=series.trials, settings=None)
        key = one.learning_rate, one.seed
        if isinstance(run, Fitted):
            done = Trial(*key, run.best, run.warnings, folder, run.epochs)
        else:
            done = Trial(*key, None, [], folder, failed=str(run))
        order = [_folder(each) for each in runs]
        trials = sorted([*series.trials, done], key=lambda each: order.index(each.folder))
        series = dataclasses.replace(series, trials=trials)
        series.write(out)
        _prune(out, series.trials)
    if all(each.failed for each in series.trials):
        raise InputError(f"All {len(runs)} runs diverged. The first: {series.trials[0].failed}")
    best = best_of(series.trials)
    if not series.holds(out, best):  # it was not the best when its model was given up: the same run again
        number, one = next((at, one) for at, one in enumerate(runs, 1) if _folder(one) == best.folder)
        run = run_one(number, one, True)
        if isinstance(run, Diverged):
            raise run
        if not run.finished:
            return dataclasses.replace(run, out=out, trials=series.trials, settings=None)
    _keep(out, series, best)
    forget(out)
    reload(bundle, out / "model")
    bundle.fresh = []
    if begun is not None:
        begun()
    chosen = settings.replace(learning_rate=best.learning_rate, seed=best.seed)
    kept = Fitted(
        out, 0, 0, best.epochs, best.best, best.warnings, True, series.trials, settings=chosen, data=dict(data or {})
    )
    if card is not None:
        write_whole(out / "model" / "README.md", card(bundle, kept))
    return kept


@dataclass(frozen=True)
class _Series:
    """What trials.json holds. plan: rate and seed of each run; kept: the folder of the run whose model out/model is."""

    identity: dict[str, Any]
    plan: list[list[float]]
    trials: list[Trial]
    kept: str | None = None

    @classmethod
    def read(cls, path: Path) -> _Series:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            trials = [_trial(**each) for each in held["trials"]]
            return cls(dict(held["identity"]), [list(each) for each in held["plan"]], trials, held["kept"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not what trials wrote; choose another folder.") from error

    def write(self, out: Path) -> None:
        write_whole(out / NAME, json.dumps(dataclasses.asdict(self)))

    def holds(self, out: Path, trial: Trial) -> bool:
        """Whether the model of a run is still there."""
        return (out / trial.folder / "model").exists() or (self.kept == trial.folder and (out / "model").exists())


def _trial(best: dict[str, Any] | None, epochs: list[dict[str, Any]], **others: Any) -> Trial:
    return Trial(best=None if best is None else Epoch(**best), epochs=[Epoch(**each) for each in epochs], **others)


def _folder(one: Settings) -> str:
    return f"rate-{one.learning_rate}-seed-{one.seed}"


def _keep(out: Path, series: _Series, best: Trial) -> None:
    """Put the model of the best run into out/model, and give up the others.

    A kill on the way loses nothing: until its folder is renamed the model is in the run's own, where it is looked for first.
    """
    own = out / best.folder / "model"
    if own.exists():
        dataclasses.replace(series, kept=best.folder).write(out)
        shutil.rmtree(out / "model", ignore_errors=True)
        own.rename(out / "model")
    for each in series.trials:
        shutil.rmtree(out / each.folder / "model", ignore_errors=True)


def _prune(out: Path, trials: Sequence[Trial]) -> None:
    """Give up models that cannot become the best any more: all but the best of each rate."""
    for each in trials:
        rivals = [other for other in trials if other.learning_rate == each.learning_rate and not other.failed]
        if each.failed or each is not _first(rivals):
            shutil.rmtree(out / each.folder / "model", ignore_errors=True)


def _open(out: Path, whole: dict[str, Any], runs: Sequence[Settings], resume: bool, overwrite: bool) -> _Series:
    """Make `out` ready; what is done already."""
    refuse_runs(out, True, resume=resume, overwrite=overwrite)
    found = out / NAME
    plan = [[one.learning_rate, one.seed] for one in runs]
    series = _Series(whole, plan, [])
    if not found.exists():
        if resume:
            log.warning("%s holds no trials to go on with, so they begin with the first.", out)
    elif overwrite:
        held = _Series.read(found)
        shutil.rmtree(out / "model", ignore_errors=True)
        for rate, seed in held.plan:
            shutil.rmtree(out / f"rate-{rate}-seed-{seed}", ignore_errors=True)
    else:
        held = _Series.read(found)
        if held.identity != whole:
            changed = ", ".join(key for key in whole if held.identity.get(key) != whole[key])
            raise InputError(
                f"{out} cannot be resumed: {changed} changed since. Give what it began with, or start anew."
            )
        if lost := [f"{rate:g} with seed {seed}" for rate, seed in held.plan if [rate, seed] not in plan]:
            raise InputError(
                f"{out} cannot be resumed: it has runs that are not asked for now, of learning rate {', '.join(lost)}. "
                "A series may grow, not shrink: give these too, or start anew."
            )
        series = dataclasses.replace(held, plan=plan)
    series.write(out)
    return series


def refuse_runs(out: Path, several: bool, *, resume: bool, overwrite: bool) -> None:
    """InputError where a run, or several, must not be in this folder, whatever they are of; writes nothing."""
    if not several:
        refuse(out, resume=resume, overwrite=overwrite)
        return
    if resume and overwrite:
        raise InputError("resume goes on with the trials and overwrite begins them anew; give one of them.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a folder for the trials.")
    if not (out / NAME).exists():
        if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
            raise InputError(f"{out} is not empty and holds no trials; choose another folder.")
    elif not overwrite and not resume:
        held = _Series.read(out / NAME)
        what, ways = "holds trials", "go on with them (--resume)"
        if len(held.trials) == len(held.plan):
            what, ways = "holds finished trials", "add seeds or rates to them (--resume)"
        raise InputError(f"{out} {what}; {ways}, overwrite them (--overwrite), or choose another folder.")


def best_of(trials: Sequence[Trial]) -> Trial:
    """The best run of the learning rate with the highest mean score, of those that did not fail."""
    whole = [each for each in trials if each.failed is None]
    means = {rate: mean(_score(each) for each in whole if each.learning_rate == rate) for rate in _rates(whole)}
    rate = max(means, key=lambda each: means[each])
    return _first([each for each in whole if each.learning_rate == rate])


def summary(trials: Sequence[Trial]) -> str:
    """A line for each learning rate: mean, spread and range over its seeds, and how many failed."""
    lines = []
    name = next(each.best.metric for each in trials if each.best is not None).replace("_", " ")
    for rate in _rates(trials):
        own = [each for each in trials if each.learning_rate == rate]
        scores = [_score(each) for each in own if each.failed is None]
        diverged = f", {len(own) - len(scores)} diverged" if len(scores) < len(own) else ""
        spread = f" sd {stdev(scores):.4f}, {min(scores):.4f} to {max(scores):.4f}," if len(scores) > 1 else ""
        found = f"{name} {mean(scores):.4f},{spread}" if scores else "no score,"
        lines.append(f"learning rate {rate:g}: {found} {len(scores)} seeds{diverged}")
    return "\n".join(lines)


def _score(trial: Trial) -> float:
    assert trial.best is not None
    return trial.best.score


def _first(trials: Sequence[Trial]) -> Trial:
    """The one with the highest score."""
    return max(trials, key=_score)


def _rates(trials: Sequence[Trial]) -> list[float]:
    return list(dict.fromkeys(each.learning_rate for each in trials))
