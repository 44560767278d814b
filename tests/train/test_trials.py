"""Several seeds and learning rates: each a run of its own, the best kept, resumable, and told apart by validation only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import clozeline as cl
from clozeline.errors import InputError
from clozeline.train.fit import Trial, fit
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
    losses = {each.best.loss for each in run.trials}
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
