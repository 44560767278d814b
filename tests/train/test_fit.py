"""A run in a folder: what it leaves, what it keeps, how it goes on after being stopped, and what it warns of."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.errors import InputError
from clozeline.train.fit import Fitted
from clozeline.train.loop import Diverged, Step, Training
from clozeline.train.report import FIRST, LAST, Alarms, Epoch
from clozeline.train.settings import Settings
from helpers import PLAIN, reviews, write_csv

SETTINGS = Settings(batch_size=8, learning_rate=5e-3, precision="fp32", epochs=4, save_every=3, seed=2)
LABELS = ["negative", "positive"]


class Killed(BaseException):
    """Ends a run where it stands, as kill -9 would: nothing is there to catch it."""


class Folder:
    """Data files, and runs on them beside each other."""

    def __init__(self, tiny: Path, at: Path) -> None:
        self.tiny, self.at = tiny, at
        self.train = write_csv(at / "train.csv", reviews(45))
        self.check = write_csv(at / "check.csv", reviews(20, seed=1))

    def fit(self, name: str, settings: Settings = SETTINGS, **changes: Any) -> tuple[cl.Model, Fitted]:
        task = changes.pop("task", cl.TextClassification(LABELS))
        model = cl.load(self.tiny, task, seed=1)
        given: dict[str, Any] = {"train": self.train, "validation": self.check, **changes}
        return model, model.fit(**given, out=self.at / name, settings=settings, quiet=True)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """Every line, without how long its step took."""
        lines = [json.loads(line) for line in (self.at / name / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Folder:
    return Folder(tiny, tmp_path)


def kill() -> None:
    raise Killed


def weights(model: cl.Model) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.network.named_parameters()}


def same_weights(first: cl.Model, second: cl.Model) -> bool:
    return all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())


def test_a_run_leaves_model_metrics_curve_and_settings_and_no_state(folder: Folder) -> None:
    _, run = folder.fit("run")
    assert run.finished
    assert (run.steps, run.total_steps) == (24, 24)
    assert {path.name for path in run.out.iterdir()} == {"model", "metrics.jsonl", "curve.png", "run.json"}
    assert {path.name for path in (run.out / "model").iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md")
    }
    assert (run.out / "curve.png").read_bytes().startswith(b"\x89PNG")
    lines = folder.metrics("run")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
    assert [line["epoch"] for line in lines if "validation_loss" in line] == [1, 2, 3, 4]
    kept = json.loads((run.out / "run.json").read_text())
    assert kept["finished"] is True
    assert kept["settings"]["learning_rate"] == SETTINGS.learning_rate


def test_a_model_that_can_learn_does(folder: Folder) -> None:
    train = write_csv(folder.at / "more.csv", reviews(200, longest=4))
    model, run = folder.fit("run", SETTINGS.replace(epochs=5), train=train)
    assert run.best is not None
    assert run.best.score >= 0.9
    assert model.predict("w1 good w2")[0].label == "positive"
    assert model.predict("w1 dull w2")[0].label == "negative"


def test_the_best_epoch_is_kept_on_disk_and_in_memory(folder: Folder) -> None:
    model, run = folder.fit("run", SETTINGS.replace(learning_rate=2e-2, schedule="constant", epochs=6))
    scores = [(epoch.score, -epoch.loss) for epoch in run.epochs]
    assert run.best == run.epochs[scores.index(max(scores))]
    assert run.best != run.epochs[-1], "this run gets worse, so that keeping the last would show"
    report = model.evaluate(folder.check)
    assert report.accuracy.value == pytest.approx(run.best.score)
    assert report.loss == pytest.approx(run.best.loss, abs=1e-6)
    assert same_weights(model, cl.load(run.out / "model"))


def test_without_validation_the_last_weights_are_kept(folder: Folder) -> None:
    model, run = folder.fit("run", validation=None)
    assert run.best is None
    assert run.epochs == []
    assert same_weights(model, cl.load(run.out / "model"))


@pytest.mark.parametrize("validated", [True, False])
def test_a_fitted_model_answers_at_once_as_the_saved_one_does(folder: Folder, validated: bool) -> None:
    model, run = folder.fit("run", validation=folder.check if validated else None)
    saved = cl.load(run.out / "model")
    assert model.predict(["w1 good w2", "w3"]) == saved.predict(["w1 good w2", "w3"])


def test_patience_ends_a_run_that_gets_no_better(folder: Folder) -> None:
    settings = SETTINGS.replace(learning_rate=2e-2, schedule="constant", epochs=50, patience=2)
    _, run = folder.fit("run", settings)
    assert run.best is not None
    assert run.finished
    assert run.epochs[-1].epoch == run.best.epoch + 2 < 50
    assert not (run.out / "state.pt").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("step", [2, 4, 6, 17])  # before any state is saved, after one, at an epoch's end, late
def test_a_killed_run_goes_on_to_the_very_same_losses_and_weights(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None], step: int, precision: str
) -> None:
    settings = SETTINGS.replace(precision=precision)
    straight, _ = folder.fit("straight", settings)
    at_step(step, kill)
    with pytest.raises(Killed):
        folder.fit("killed", settings)
    at_step(0, kill)
    resumed, run = folder.fit("killed", settings, resume=True)
    assert run.finished
    assert folder.metrics("killed") == folder.metrics("straight")
    assert same_weights(resumed, straight)


def test_a_run_killed_twice_goes_on_too(folder: Folder, at_step: Callable[[int, Callable[[], object]], None]) -> None:
    folder.fit("straight")
    for step in (5, 14):
        at_step(step, kill)
        with pytest.raises(Killed):
            folder.fit("killed", resume=step == 14)
    at_step(0, kill)
    folder.fit("killed", resume=True)
    assert folder.metrics("killed") == folder.metrics("straight")


def test_ctrl_c_ends_after_the_step_with_its_state_saved(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    folder.fit("straight")
    before = signal.getsignal(signal.SIGINT)
    at_step(5, lambda: os.kill(os.getpid(), signal.SIGINT))
    _, run = folder.fit("stopped")
    assert not run.finished
    assert run.steps == 5
    assert signal.getsignal(signal.SIGINT) is before
    at_step(0, kill)
    folder.fit("stopped", resume=True)
    assert folder.metrics("stopped") == folder.metrics("straight")


def test_a_finished_run_is_not_overwritten_unless_asked(folder: Folder) -> None:
    folder.fit("run")
    first = folder.metrics("run")
    with pytest.raises(InputError, match=r"holds a finished run.*--overwrite"):
        folder.fit("run")
    with pytest.raises(InputError, match="holds a finished run"):
        folder.fit("run", resume=True)
    assert folder.metrics("run") == first
    _, run = folder.fit("run", SETTINGS.replace(epochs=1), overwrite=True)
    assert run.steps == 6
    assert len(folder.metrics("run")) == 7


def test_an_unfinished_run_is_not_overwritten_unless_asked(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    at_step(5, kill)
    with pytest.raises(Killed):
        folder.fit("run")
    with pytest.raises(InputError, match="holds an unfinished run; go on with it"):
        folder.fit("run")
    at_step(0, kill)
    _, run = folder.fit("run", overwrite=True)
    assert run.finished


def test_a_folder_of_something_else_and_a_file_are_refused(folder: Folder) -> None:
    (folder.at / "run").mkdir()
    (folder.at / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        folder.fit("run")
    assert [path.name for path in (folder.at / "run").iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="is a file; choose a folder"):
        folder.fit("train.csv")


CHANGED: dict[str, tuple[str, dict[str, Any]]] = {
    "settings": ("settings", {"settings": SETTINGS.replace(learning_rate=1e-3)}),
    "task": ("task", {"task": cl.TextClassification(LABELS, long="head_tail")}),
    "training texts": ("data", {"train": reviews(45, seed=9)}),
    "validation texts": ("data", {"validation": reviews(20, seed=9)}),
    "training labels": ("data", {"train": [(text, LABELS[at % 3 > 0]) for at, (text, _) in enumerate(reviews(45))]}),
}


@pytest.mark.parametrize(("named", "changes"), CHANGED.values(), ids=CHANGED)
def test_resuming_with_something_else_is_refused_and_says_what_changed(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None], named: str, changes: dict[str, Any]
) -> None:
    at_step(5, kill)
    with pytest.raises(Killed):
        folder.fit("run")
    at_step(0, kill)
    held = {path.name: path.read_bytes() for path in (folder.at / "run").iterdir()}
    for name in ("train", "validation"):
        if name in changes:
            changes = {**changes, name: write_csv(folder.at / "other.csv", changes[name])}
    with pytest.raises(InputError, match=rf"cannot be resumed: {named}( \(.+, now .+\))? changed"):
        folder.fit("run", **changes, resume=True)
    assert {path.name: path.read_bytes() for path in (folder.at / "run").iterdir()} == held


def test_a_run_that_goes_on_with_other_machinery_says_so(
    folder: Folder,
    at_step: Callable[[int, Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    at_step(5, kill)
    with pytest.raises(Killed):
        folder.fit("run")
    monkeypatch.undo()
    folder.fit("run", resume=True)
    assert "began under threads 99" in caplog.text


def test_a_loss_that_is_not_a_number_ends_the_run_and_the_last_good_model_and_state_stay(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    def poison() -> None:
        with torch.no_grad():
            held[0].network.encoder.embedding.norm.weight.fill_(torch.nan)

    held: list[Training] = []
    original = Training.__init__

    def remember(self: Training, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        held.append(self)

    monkeypatch.setattr(Training, "__init__", remember)
    at_step(10, poison)
    with pytest.raises(Diverged, match="Step 11: the loss is not a number"):
        folder.fit("run")
    out = folder.at / "run"
    assert cl.load(out / "model").predict("w1 good")[0].score > 0.5
    assert torch.load(out / "state.pt", weights_only=True)["training"]["number"] == 9
    at_step(0, kill)
    folder.fit("straight")
    folder.fit("run", resume=True)
    assert folder.metrics("run") == folder.metrics("straight")


def test_a_full_disk_ends_the_run_with_the_last_state_untouched(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    at_step(4, lambda: monkeypatch.setattr(torch, "save", full))
    with pytest.raises(InputError, match="disk is full"):
        folder.fit("run")
    state = torch.load(folder.at / "run" / "state.pt", weights_only=True)
    assert state["training"]["number"] == 3
    assert not list((folder.at / "run").glob(".writing-*"))


# -- labels


def test_labels_come_from_the_data_where_none_are_given(folder: Folder) -> None:
    model, _ = folder.fit("run", task=cl.TextClassification())
    assert model.labels == ("negative", "positive")
    assert cl.load(folder.at / "run" / "model").labels == ("negative", "positive")


def test_labels_that_are_numbers_are_in_the_order_of_numbers(folder: Folder) -> None:
    rows = [(text, str(at % 11)) for at, (text, _) in enumerate(reviews(44))]
    model, _ = folder.fit(
        "run",
        SETTINGS.replace(epochs=1),
        task=cl.TextClassification(),
        train=write_csv(folder.at / "n.csv", rows),
        validation=None,
    )
    assert model.labels == tuple(str(number) for number in range(11))


def test_training_data_of_one_label_is_refused(folder: Folder) -> None:
    rows = [(text, "positive") for text, _ in reviews(10)]
    with pytest.raises(InputError, match="one label only, 'positive'"):
        folder.fit("run", train=write_csv(folder.at / "one.csv", rows))


def test_an_unknown_label_is_refused_with_its_place_and_the_nearest(folder: Folder) -> None:
    rows = [*reviews(4), ("w1", "positiv")]
    with pytest.raises(InputError, match=r"one\.csv line 6: unknown label 'positiv'; did you mean 'positive'"):
        folder.fit("run", train=write_csv(folder.at / "one.csv", rows))


# -- alarms


def epoch(number: int, loss: float, collapsed: str | None = None, train_loss: float = 0.5) -> Epoch:
    return Epoch(number, 10 * number, train_loss, loss, "accuracy", {"accuracy": 0.8}, {}, collapsed)


def said(losses: list[float], train_losses: Sequence[float] = (0.5, 0.4, 0.3, 0.2)) -> list[str]:
    """What is said over a run whose validation losses, and mean training losses, are these."""
    alarms = Alarms()
    epochs: list[Epoch] = []
    for number, (loss, train_loss) in enumerate(zip(losses, train_losses, strict=False), 1):
        epochs.append(epoch(number, loss, train_loss=train_loss))
        alarms.epochs(epochs)
    return alarms.said


def take(alarms: Alarms, losses: Iterable[float], after: int = 0) -> list[str]:
    """What is said once steps of these losses were taken."""
    for number, loss in enumerate(losses, after + 1):
        alarms.step(Step(number, 0.1, float(loss), 1e-3, 1.0, 100, 8, 0.1, False))
    return alarms.said


def test_a_high_learning_rate_and_no_warm_up_are_said_and_usual_settings_are_not() -> None:
    alarms = Alarms()
    alarms.settings(Settings(learning_rate=1e-4), 768)
    alarms.settings(Settings(learning_rate=3e-4), 256)
    assert alarms.said == []
    alarms.settings(Settings(learning_rate=1.1e-4, warmup=0), 768)
    rate, warmup = alarms.said
    assert "0.00011 is high" in rate
    assert "no warm-up" in warmup


def test_texts_that_lose_tokens_are_counted() -> None:
    alarms = Alarms()
    alarms.data("training", np.array([0, 7, 0, 3]), "truncate", 64)
    alarms.data("validation", np.zeros(4, np.int64), "truncate", 64)
    (text,) = alarms.said
    assert text.startswith("training: 2 of 4 texts are longer than 64 tokens and lose 10 tokens")


def test_a_run_on_long_texts_says_what_it_cut_of_each_set(folder: Folder) -> None:
    long = " ".join(PLAIN[:40] * 2)  # 80 tokens, of which 62 fit beside [CLS] and [SEP]
    train = write_csv(folder.at / "long.csv", [*reviews(14), (long, "positive"), (long, "negative")])
    _, run = folder.fit("run", SETTINGS.replace(epochs=1), train=train)
    assert any("training: 2 of 16 texts are longer than 64 tokens and lose 36 tokens" in text for text in run.warnings)
    assert not any("validation:" in text for text in run.warnings)
    window = cl.TextClassification(LABELS, long="window")
    _, whole = folder.fit("whole", SETTINGS.replace(epochs=1), train=train, task=window)
    assert not any("tokens" in text for text in whole.warnings)


def test_a_collapse_is_said_once_with_what_is_predicted() -> None:
    alarms = Alarms()
    alarms.epochs([epoch(1, 0.7)])
    assert alarms.said == []
    alarms.epochs([epoch(1, 0.7), epoch(2, 0.6, "'yes'")])
    alarms.epochs([epoch(1, 0.7), epoch(2, 0.6, "'yes'"), epoch(3, 0.5, "'yes'")])
    (text,) = alarms.said
    assert "Epoch 2: the model predicts 'yes' for all of the validation data" in text


@pytest.mark.parametrize(
    ("losses", "alarms"),
    [
        ([0.7, 0.6, 0.5], 0),
        ([0.5, 0.6], 1),
        ([0.7, 0.5, 0.6], 1),
        ([0.5, 0.6, 0.7, 0.8], 1),
        ([0.5, 0.7, 0.6], 1),
        ([0.5, 0.504], 0),
    ],
    ids=str,
)
def test_a_rising_validation_loss_is_said_once(losses: list[float], alarms: int) -> None:
    assert len(said(losses)) == alarms


def test_overfitting_is_said_only_where_the_training_loss_fell() -> None:
    (text,) = said([0.6, 7.0], [0.5, 0.3])
    assert "overfitting" in text
    (text,) = said([0.6, 7.0], [0.5, 5.0])
    assert "training loss went from 0.5000 to 5.0000" in text
    assert "training diverges" in text and "lower learning rate" in text and "overfitting" not in text
    both = said([0.6, 0.7, 7.0, 8.0], [0.5, 0.3, 5.0, 6.0])
    assert ["overfitting" in text for text in both] == [True, False]


def falling(noise: np.random.Generator) -> np.ndarray:
    """The losses of a usual run, with a shape-2 gamma's noise, as of small batches."""
    return (0.1 + 0.6 * np.exp(-np.arange(600) / 100)) * noise.gamma(2, 0.5, 600)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_training_loss_that_rises_is_said_once_whatever_its_scale(scale: float) -> None:
    noise = np.random.default_rng(0)
    rising = np.concatenate([np.full(15, 0.7), np.linspace(0.7, 50, 30), np.full(100, 50.0)]) * noise.gamma(2, 0.5, 145)
    alarms = Alarms()
    alarms.settings(Settings(learning_rate=5e-5, warmup=0.1), 768)
    (text,) = take(alarms, scale * rising)
    assert "training diverges" in text and "learning rate (now 5e-05)" in text and "more warm-up (now 0.1)" in text
    assert "clip" not in text
    alarms = Alarms()
    alarms.settings(Settings(clip=0), 768)
    assert "clip=1" in take(alarms, scale * rising)[0]
    alarms.epochs([epoch(1, 0.5, train_loss=0.5), epoch(2, 7.0, train_loss=5.0)])
    assert len(alarms.said) == 1, "it is said already"


def test_a_training_loss_of_a_usual_run_raises_no_alarm() -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed)
        spikes = np.where(noise.random(600) < 0.05, 100.0, 1.0)  # some batches that a trained model finds hard
        spikes[:FIRST] = 1
        for losses in (
            falling(noise),
            1e4 * falling(noise),
            noise.gamma(2, 0.5, 2000),  # nothing is learned
            spikes * noise.gamma(2, 0.5, 600),
            [0.7] * 100 + [1.3] * 100,  # worse, but less than twice as much
            [0.5] * FIRST + [5.0] * (LAST - 1),  # too short to tell
        ):
            assert take(Alarms(), losses) == []


def test_the_alarm_of_a_rising_loss_reaches_the_run_in_words(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "clozeline"):
        _, run = folder.fit("run", SETTINGS.replace(learning_rate=2e-2, schedule="constant", epochs=6))
    logged = [record.getMessage() for record in caplog.records]
    assert any("Validation loss has been rising since epoch" in text for text in logged)
    assert all(text in logged for text in run.warnings), "what the run reports is what it logged"


def test_alarms_taken_up_again_go_on_as_if_never_left() -> None:
    losses = [0.7] * 12 + [5.0] * 40
    straight, before = Alarms(), Alarms()
    for taken in range(1, len(losses)):
        before = Alarms(**dataclasses.asdict(before))
        take(before, losses[taken - 1 : taken], taken - 1)
    assert before.said == take(straight, losses[:-1]) != []


@pytest.mark.parametrize("validated", [True, False])
def test_a_stopped_and_killed_run_warns_of_what_a_straight_one_does(
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    at_step: Callable[[int, Callable[[], object]], None],
    validated: bool,
) -> None:
    """Both diverge after step 14, by weights that grow; it is said at step 18 with validation data, at step 40 without."""
    held: list[Training] = []
    original = Training.__init__

    def remember(self: Training, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        held.append(self)

    def spoil() -> None:
        with torch.no_grad():
            dict(held[-1].network.named_parameters())["head.classifier.weight"].mul_(1e5)

    def spoil_and_stop() -> None:
        spoil()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Training, "__init__", remember)
    settings = SETTINGS.replace(learning_rate=1e-6, epochs=10)
    given: dict[str, Any] = {} if validated else {"validation": None}
    at_step(14, spoil)
    _, straight = folder.fit("straight", settings, **given)
    assert any("training diverges" in text for text in straight.warnings)
    at_step(14, spoil_and_stop)
    assert not folder.fit("killed", settings, **given)[1].finished
    at_step(50, kill)
    with pytest.raises(Killed):
        folder.fit("killed", settings, resume=True, **given)
    at_step(0, kill)
    _, resumed = folder.fit("killed", settings, resume=True, **given)
    assert resumed.warnings == straight.warnings
    card = (folder.at / "killed" / "model" / "README.md").read_text()
    assert all(text in card for text in straight.warnings)


def test_a_state_without_alarms_as_older_runs_left_it_goes_on(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    at_step(5, kill)
    with pytest.raises(Killed):
        folder.fit("run")
    path = folder.at / "run" / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["alarms"]
    torch.save(state, path)
    at_step(0, kill)
    assert folder.fit("run", resume=True)[1].finished


def test_patience_without_validation_is_refused(folder: Folder) -> None:
    with pytest.raises(InputError, match="give validation data"):
        folder.fit("run", SETTINGS.replace(patience=1), validation=None)


def test_going_on_and_beginning_anew_exclude_each_other(folder: Folder) -> None:
    with pytest.raises(InputError, match="give one of them"):
        folder.fit("run", resume=True, overwrite=True)


def test_other_starting_weights_are_not_resumed(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    at_step(7, kill)
    with pytest.raises(Killed):
        folder.fit("run")
    model = cl.load(folder.tiny, cl.TextClassification(LABELS), seed=2)
    with pytest.raises(InputError, match="model changed since"):
        model.fit(folder.train, folder.check, out=folder.at / "run", settings=SETTINGS, resume=True, quiet=True)


def test_a_run_begun_anew_leaves_no_model_of_the_one_before(
    folder: Folder, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    folder.fit("run")
    at_step(2, kill)
    with pytest.raises(Killed):
        folder.fit("run", overwrite=True)
    assert not (folder.at / "run" / "model").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_on_the_first_gpu_ends_well(folder: Folder, precision: str) -> None:
    _, fitted = folder.fit("run", SETTINGS.replace(precision=precision))
    assert fitted.finished
