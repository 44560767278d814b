"""Several seeds and learning rates: each a run of its own, the best kept, resumable, and told apart by validation only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.errors import InputError
from clozeline.train.fit import Fitted, Trial, fit
from clozeline.train.loop import Diverged
from clozeline.train.report import Epoch
from clozeline.train.trials import best_of, summary
from helpers import reviews, write_csv

SETTINGS = cl.Settings(epochs=2, batch_size=16, learning_rate=2e-3, precision="fp32", seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    return write_csv(folder / "train.csv", reviews(64)), write_csv(folder / "dev.csv", reviews(40, seed=1))


def load(tiny: Path) -> cl.Model:
    return cl.load(tiny, cl.TextClassification(["negative", "positive"]))


def trial(rate: float, seed: int, score: float) -> Trial:
    best = Epoch(1, 10, 0.5, 0.5, "accuracy", {"accuracy": score}, {})
    return Trial(rate, seed, best, [], f"rate-{rate:g}-seed-{seed}")


def test_each_run_is_what_it_would_be_alone_and_the_best_is_kept(
    tiny: Path, tmp_path: Path, data: tuple[Path, Path]
) -> None:
    model = load(tiny)
    run = model.fit(*data, out=tmp_path / "all", seeds=2, learning_rates=[1e-3, 2e-3], settings=SETTINGS, quiet=True)
    assert [(each.learning_rate, each.seed) for each in run.trials] == [(1e-3, 3), (1e-3, 4), (2e-3, 3), (2e-3, 4)]
    best = best_of(run.trials)
    assert run.best == best.best
    alone = cl.load(tiny, cl.TextClassification(["negative", "positive"]), seed=best.seed)
    alone.fit(
        *data,
        out=tmp_path / "alone",
        settings=SETTINGS.replace(learning_rate=best.learning_rate, seed=best.seed),
        quiet=True,
    )
    kept = cl.load(tmp_path / "all" / "model")
    for one, two, three in zip(
        model.network.parameters(), alone.network.parameters(), kept.network.parameters(), strict=True
    ):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    held = [path.parent.name for path in (tmp_path / "all").glob("*/model")]
    assert held == []  # one model is kept, in out/model
    assert model.predict("w1 good")[0].label in model.labels


def test_seeds_differ_and_their_spread_is_said(tiny: Path, tmp_path: Path, data: tuple[Path, Path]) -> None:
    run = load(tiny).fit(*data, out=tmp_path / "run", seeds=3, settings=SETTINGS.replace(epochs=1), quiet=True)
    losses = {each.best.loss for each in run.trials if each.best is not None}
    assert len(losses) == 3
    assert "3 seeds" in summary(run.trials)


def test_an_interrupted_series_goes_on_where_it_was(
    tiny: Path, tmp_path: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(tiny).fit(*data, out=tmp_path / "whole", seeds=3, settings=SETTINGS, quiet=True)
    calls: list[object] = []

    def dies(*args: object, **named: object) -> object:
        calls.append(named)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("clozeline.train.trials.fit", dies)
    with pytest.raises(KeyboardInterrupt):
        load(tiny).fit(*data, out=tmp_path / "cut", seeds=3, settings=SETTINGS, quiet=True)
    monkeypatch.undo()
    with pytest.raises(InputError, match="holds trials; go on with them"):
        load(tiny).fit(*data, out=tmp_path / "cut", seeds=3, settings=SETTINGS, quiet=True)
    again = load(tiny).fit(*data, out=tmp_path / "cut", seeds=3, settings=SETTINGS, quiet=True, resume=True)
    assert [each.best for each in again.trials] == [each.best for each in whole.trials]
    with pytest.raises(InputError, match="settings changed since"):
        load(tiny).fit(
            *data, out=tmp_path / "cut", seeds=3, settings=SETTINGS.replace(epochs=3), quiet=True, resume=True
        )
    fewer = load(tiny).fit(*data, out=tmp_path / "cut", seeds=2, settings=SETTINGS, quiet=True, overwrite=True)
    assert len(fewer.trials) == len(json.loads((tmp_path / "cut" / "trials.json").read_text())["trials"]) == 2


def models(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("model")}


def same(first: cl.Model, second: cl.Model) -> bool:
    couples = zip(first.network.parameters(), second.network.parameters(), strict=True)
    return all(torch.equal(one, two) for one, two in couples)


def test_a_series_may_grow_and_keeps_the_best_of_all(
    tiny: Path, tmp_path: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, int]] = []

    def noted(*args: Any, **named: Any) -> Fitted:
        asked.append((args[4].learning_rate, args[4].seed))
        return fit(*args, **named)

    monkeypatch.setattr("clozeline.train.trials.fit", noted)
    settings, out = SETTINGS.replace(epochs=4, batch_size=8), tmp_path / "grown"
    given: dict[str, Any] = dict(out=out, settings=settings, quiet=True)
    load(tiny).fit(*data, seeds=2, learning_rates=[1e-5], **given)
    with pytest.raises(InputError, match="holds finished trials"):
        load(tiny).fit(*data, seeds=2, learning_rates=[1e-5], **given)
    with pytest.raises(InputError, match="give one of them"):
        load(tiny).fit(*data, seeds=2, learning_rates=[1e-5], resume=True, overwrite=True, **given)
    asked.clear()
    grown = load(tiny)
    run = grown.fit(*data, seeds=2, learning_rates=[5e-3, 1e-5], resume=True, **given)
    assert asked == [(5e-3, 3), (5e-3, 4)]
    best = best_of(run.trials)
    assert best.learning_rate == 5e-3, "the rates here are such that the later one is better"
    assert models(out) == {"model"}
    alone = cl.load(tiny, cl.TextClassification(["negative", "positive"]), seed=best.seed)
    once = settings.replace(learning_rate=5e-3, seed=best.seed)
    alone.fit(*data, out=tmp_path / "alone", settings=once, quiet=True)
    assert same(grown, alone)
    assert same(cl.load(out / "model"), alone)
    asked.clear()
    again = load(tiny).fit(*data, seeds=2, learning_rates=[1e-5, 5e-3], resume=True, **given)
    assert asked == []
    assert again.best == best.best
    with pytest.raises(InputError, match="may grow, not shrink"):
        load(tiny).fit(*data, seeds=2, learning_rates=[1e-5, 1e-4], resume=True, **given)


class Fakes:
    """Runs without training: each has the score that is asked for, and a model that is its rate and seed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scores: dict[tuple[float, int], float | None]) -> None:
        self.scores, self.asked = scores, list[tuple[float, int]]()
        monkeypatch.setattr("clozeline.train.trials.fit", self.fit)
        monkeypatch.setattr("clozeline.train.trials.reload", lambda bundle, folder: None)

    def fit(self, bundle: Any, train: Any, validation: Any, out: Path, one: cl.Settings, **named: Any) -> Fitted:
        key = one.learning_rate, one.seed
        self.asked.append(key)
        score = self.scores[key]
        if score is None:
            raise Diverged(7, "the loss is not a number", np.arange(3))
        (out / "model").mkdir(parents=True)
        (out / "model" / "which").write_text(str(key))
        best = trial(*key, score).best
        assert best is not None
        return Fitted(out, 1, 1, [best], best, [], True)


def test_a_run_whose_rate_wins_later_is_kept_and_one_given_up_is_run_again(
    tiny: Path, tmp_path: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the lucky first run of the second rate is the best until its second seed is known
    fakes = Fakes(
        monkeypatch, {(1.0, 3): 0.8, (1.0, 4): 0.7, (2.0, 3): 0.9, (2.0, 4): 0.1, (1.0, 5): 0.0, (2.0, 5): 0.8}
    )
    out = tmp_path / "run"
    given: dict[str, Any] = dict(out=out, learning_rates=[1.0, 2.0], settings=SETTINGS, quiet=True)
    load(tiny).fit(*data, seeds=2, **given)
    assert (out / "model" / "which").read_text() == "(1.0, 3)"
    assert models(out) == {"model"}
    fakes.asked.clear()
    load(tiny).fit(*data, seeds=3, resume=True, **given)
    assert fakes.asked == [(1.0, 5), (2.0, 5), (2.0, 3)]
    assert (out / "model" / "which").read_text() == "(2.0, 3)"
    assert models(out) == {"model"}


@pytest.mark.parametrize("at", ["before the old one goes", "before the new one comes", "before the others go"])
def test_a_kill_while_the_best_model_is_put_in_place_loses_nothing(
    tiny: Path, tmp_path: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    fakes = Fakes(monkeypatch, {(1.0, 3): 0.5, (1.0, 4): 0.6, (2.0, 3): 0.8, (2.0, 4): 0.9})
    out = tmp_path / "run"
    given: dict[str, Any] = dict(out=out, seeds=2, settings=SETTINGS, quiet=True)
    load(tiny).fit(*data, learning_rates=[1.0], **given)
    rename, remove = Path.rename, shutil.rmtree

    def renamed(path: Path, target: Path) -> Path:
        if at == "before the new one comes":
            raise KeyboardInterrupt
        done = rename(path, target)
        if at == "before the others go":
            raise KeyboardInterrupt
        return done

    def removed(path: Path, **named: Any) -> None:
        if at == "before the old one goes" and path == out / "model":
            raise KeyboardInterrupt
        remove(path, **named)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", renamed)
        patched.setattr("clozeline.train.trials.shutil.rmtree", removed)
        load(tiny).fit(*data, learning_rates=[1.0, 2.0], resume=True, **given)
    fakes.asked.clear()
    load(tiny).fit(*data, learning_rates=[1.0, 2.0], resume=True, **given)
    assert fakes.asked == []
    assert (out / "model" / "which").read_text() == "(2.0, 4)"
    assert models(out) == {"model"}


def test_a_run_that_diverges_is_left_out_and_the_others_go_on(
    tiny: Path, tmp_path: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fakes = Fakes(monkeypatch, {(1.0, 3): 0.8, (1.0, 4): 0.7, (2.0, 3): None, (2.0, 4): 0.75})
    given: dict[str, Any] = dict(seeds=2, settings=SETTINGS)
    run = load(tiny).fit(*data, out=tmp_path / "run", learning_rates=[1.0, 2.0], **given)
    assert "run 3 of 4: learning rate 2, seed 3" in capsys.readouterr().err
    assert [each.failed is None for each in run.trials] == [True, True, False, True]
    assert "Step 7: the loss is not a number" in str(run.trials[2].failed)
    assert best_of(run.trials).folder == "rate-1.0-seed-3"
    assert "1 seeds, 1 diverged" in summary(run.trials)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "Kept of 4 runs" in card
    assert summary(run.trials).splitlines()[0] in card
    assert "- learning_rate: 1.0" in card
    fakes.scores |= dict.fromkeys(fakes.scores)
    with pytest.raises(InputError, match=r"All 2 runs diverged\. The first: Step 7"):
        load(tiny).fit(*data, out=tmp_path / "none", learning_rates=[1.0], **given)


def test_the_best_rate_has_the_highest_mean_not_the_luckiest_run() -> None:
    lucky = [trial(1e-5, 0, 0.95), trial(1e-5, 1, 0.60), trial(2e-5, 0, 0.85), trial(2e-5, 1, 0.90)]
    assert best_of(lucky).folder == "rate-2e-05-seed-1"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": 2, "validation": None}, "compared by validation"),
        ({"seeds": 0}, "seeds is 0"),
        ({"learning_rates": [1e-3, 1e-3]}, "given twice"),
        ({"learning_rates": [-1.0]}, "must not be negative"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tiny: Path, tmp_path: Path, data: tuple[Path, Path], given: dict[str, object], said: str
) -> None:
    named = {"train": data[0], "validation": data[1], **given}
    with pytest.raises(InputError, match=said):
        load(tiny).fit(out=tmp_path / "run", settings=SETTINGS, quiet=True, **named)  # type: ignore[arg-type]
