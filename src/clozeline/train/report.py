"""What a run says: metrics.jsonl, the learning curve, progress, and alarms when something is wrong."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from clozeline.files import staged, write_whole
from clozeline.train.loggers import Logger, lines_until
from clozeline.train.loop import Step
from clozeline.train.settings import Settings

RISE = 0.01
"""Of the validation loss over its least that is worth an alarm; less comes and goes by chance."""
FIRST, LAST, ABOVE = 10, 30, 2
"""Steps that say where the training loss began and where it is now, and how far above is worth an alarm."""
log = logging.getLogger("clozeline")


@dataclass(frozen=True, slots=True)
class Epoch:
    """What validation found after a pass over the data.

    metric: which of the scores says what epoch is best; predicted: how often each label was; collapsed: what all
    predictions are, where they are all the same, as `Check` has it.
    """

    epoch: int
    step: int
    train_loss: float
    loss: float
    metric: str
    scores: dict[str, float]
    predicted: dict[str, int]
    collapsed: str | None = None

    @property
    def score(self) -> float:
        return self.scores[self.metric]

    def better_than(self, other: Epoch | None) -> bool:
        return other is None or (self.score, -self.loss) > (other.score, -other.loss)


class Metrics:
    """`metrics.jsonl`: one JSON object a line, a line for each step and one for each validation.

    Opened on a resumed run, it drops the lines after the step that the saved state is from; they will be written again.
    """

    def __init__(self, path: Path | None, after: int = 0, loggers: Sequence[Logger] = ()) -> None:
        """path: None keeps the lines without writing them; after: the step that a saved state is from."""
        self.lines = [] if path is None else list(lines_until(path, after))
        self.loggers = loggers
        self._file: TextIO | None = None
        if path is not None:
            write_whole(path, "".join(json.dumps(line) + "\n" for line in self.lines))
            self._file = path.open("a", encoding="utf-8")

    def step(self, step: Step) -> None:
        self.line(
            step=step.number,
            epoch=round(step.epoch, 4),
            loss=step.loss,
            learning_rate=step.learning_rate,
            grad_norm=step.grad_norm,
            tokens=step.tokens,
            seconds=round(step.seconds, 4),
        )

    def epoch(self, epoch: Epoch) -> None:
        self.line(
            step=epoch.step,
            epoch=epoch.epoch,
            train_loss=epoch.train_loss,
            validation_loss=epoch.loss,
            **{f"validation_{name}": score for name, score in epoch.scores.items()},
        )

    def line(self, **entry: Any) -> None:
        """Write a line; its `step` says whether a resumed run will write it again."""
        self.lines.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        for logger in self.loggers:
            logger.log(entry)

    def close(self, finished: bool = True) -> None:
        if self._file is not None:
            self._file.close()
        for logger in self.loggers:
            logger.close(finished)


class Ticker:
    """Progress with rate and time left: a live bar on a terminal, a line now and then elsewhere, nothing when not shown."""

    def __init__(self, total: int, done: int, show: bool) -> None:
        self.total, self.shown = total, show
        self.every = max(1, total // 10)
        self.recent: list[float] = []
        self.bar: Bars | None = None
        if show and sys.stderr.isatty():
            columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
            self.bar = Bars(
                *columns, TextColumn("{task.fields[note]}"), TimeRemainingColumn(), console=Console(stderr=True)
            )
            self.task = self.bar.add_task("training", total=total, completed=done, note="")
            self.bar.start()

    def step(self, step: Step) -> None:
        self.recent = [*self.recent[-49:], step.seconds / step.examples]
        rate = 1 / float(np.mean(self.recent))
        note = f"loss {step.loss:.4f}  {rate:.0f} examples/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=step.number, note=note)
        elif self.shown and (step.number % self.every == 0 or step.number == self.total):
            left = (self.total - step.number) * step.examples / rate
            print(f"step {step.number}/{self.total}  {note}  {left:.0f} s left", file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


class Progress:
    """How far a run is, where its length is known as a share: a live bar on a terminal, a line every percent elsewhere."""

    def __init__(self, show: bool, name: str = "pre-training") -> None:
        self.shown, self.began, self.first, self.said = show, 0.0, -1.0, -1
        self.bar: Bars | None = None
        if show and sys.stderr.isatty():
            columns = ("[progress.description]{task.description}", BarColumn(), "{task.percentage:>4.1f}%")
            self.bar = Bars(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self.task = self.bar.add_task(name, total=1.0, note="")
            self.bar.start()

    def tell(self, share: float, note: str) -> None:
        if self.first < 0:
            self.first, self.began = share, time.perf_counter()
        gone = share - self.first
        left = (time.perf_counter() - self.began) * (1 - share) / gone if gone > 0 else None
        note = note if left is None else f"{note}  {duration(left)} left"
        if self.bar is not None:
            self.bar.update(self.task, completed=share, note=note)
        elif self.shown and int(100 * share) > self.said:
            self.said = int(100 * share)
            print(f"{100 * share:.0f} %  {note}", file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def duration(seconds: float) -> str:
    """Seconds in words."""
    hours, minutes = divmod(seconds / 60, 60)
    if hours >= 1:
        return f"{hours:.0f} h {minutes:.0f} min"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


COMPACT = 256
"""The greatest width of an encoder that takes higher learning rates."""


@dataclass
class Alarms:
    """Says once what is likely wrong, and what to do about it."""

    said: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    advice: str = "try a lower learning rate or a longer warm-up"
    began: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)

    def settings(self, settings: Settings, width: int) -> None:
        """width: of the encoder. Compact ones are fine-tuned at rates up to 3e-4 (Turc et al. 2019)."""
        rate, warmup = f"{settings.learning_rate:g}", f"{settings.warmup:g}"
        clip = "" if settings.clip else ", and clip=1, since no gradient is clipped now"
        self.advice = f"try a lower learning rate (now {rate}) or more warm-up (now {warmup}){clip}"
        highest, usual = (1e-4, "1e-5 to 5e-5") if width > COMPACT else (3e-4, "3e-5 to 3e-4")
        if settings.learning_rate > highest:
            self._say(
                f"The learning rate {settings.learning_rate:g} is high for pre-trained weights of width {width} and may "
                f"erase what they know; {usual} is usual."
            )
        if settings.warmup == 0:
            self._say(
                "There is no warm-up: the first steps are the largest and can throw a pre-trained model off; 0.1 is usual."
            )

    def data(self, name: str, cut: np.ndarray, policy: str, limit: int) -> None:
        """cut: (n,) tokens of each text that are not read."""
        texts = int((cut > 0).sum())
        if texts:
            self._say(
                f"{name}: {texts} of {len(cut)} texts are longer than {limit} tokens and lose {int(cut.sum())} "
                f"tokens (long={policy!r}). long='window' reads everything."
            )

    def say(self, texts: Iterable[str]) -> None:
        """What was found elsewhere, such as in the data."""
        for text in texts:
            self._say(text)

    def step(self, step: Step) -> None:
        """After each step, with validation data or without: whether the training loss rises instead of falling.

        It does where the median of the last 30 steps is above twice the greatest of the first 10. Both are the run's own, so
        that a loss may have any scale. The greatest has the noise of single batches in it: of a loss that stays as it is,
        whatever its distribution, the first 10 are all below its median in one run of 2^10, and below half of it in fewer. A
        few bad batches do not move a median. Fewer than 40 steps are too few to tell, and what has diverged within the first
        10 shows in validation alone.
        """
        if len(self.began) < FIRST:
            self.began.append(step.loss)
            return
        self.recent = [*self.recent[1 - LAST :], step.loss]
        if len(self.recent) < LAST:
            return
        now, then = float(np.median(self.recent)), max(self.began)
        if now > ABOVE * then:
            self._say(
                f"Step {step.number}: the training loss has risen to {now:.4g} (median of the last {LAST} steps), from at "
                f"most {then:.4g} in the first {FIRST}: training diverges. Stop it and begin anew; {self.advice}.",
                key="diverged",
            )

    def epochs(self, epochs: list[Epoch]) -> None:
        """After each validation."""
        last = epochs[-1]
        if last.collapsed is not None:
            self._say(
                f"Epoch {last.epoch}: the model predicts {last.collapsed} for all of the validation data. It has collapsed "
                "or not begun to learn: try a lower learning rate, more warm-up, another seed or more epochs.",
                key="collapsed",
            )
        best = min(epochs, key=lambda epoch: epoch.loss)
        if last.loss > best.loss * (1 + RISE) and all(
            later.loss > earlier.loss
            for earlier, later in zip(epochs[best.epoch - 1 :], epochs[best.epoch :], strict=False)
        ):
            course = (
                f"Validation loss has been rising since epoch {best.epoch} ({best.loss:.4f} to {last.loss:.4f}), while "
                f"training loss went from {best.train_loss:.4f} to {last.train_loss:.4f}"
            )
            if last.train_loss < best.train_loss:
                what = "the model is overfitting. The best epoch is kept; fewer epochs or more data help."
                self._say(f"{course}: {what}", key="overfit")
            else:
                what = f"training diverges. The best epoch is kept; {self.advice}."
                self._say(f"{course}: {what}", key="diverged")

    def _say(self, text: str, key: str | None = None) -> None:
        if (key or text) not in self.keys:
            self.keys.append(key or text)
            self.said.append(text)
            log.warning(text)


def curve(path: Path, lines: list[dict[str, Any]], epochs: list[Epoch], best: Epoch | None) -> None:
    """A PNG of training loss by step, validation loss and accuracy by epoch, with the best epoch marked."""
    from matplotlib.figure import Figure

    steps = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.subplots()
    left.plot(*zip(*steps, strict=True), color="0.75", linewidth=0.8, label="training loss")
    width = max(1, len(steps) // 50)
    smooth = np.convolve([loss for _, loss in steps], np.ones(width) / width, "valid")
    left.plot([step for step, _ in steps][width - 1 :], smooth, color="C0", label=f"training loss, mean of {width}")
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    if epochs:
        at = [epoch.step for epoch in epochs]
        left.plot(at, [epoch.loss for epoch in epochs], "o-", color="C1", label="validation loss")
        right = left.twinx()
        name = epochs[0].metric.replace("_", " ")
        right.plot(at, [epoch.score for epoch in epochs], "s--", color="C2", label=f"validation {name}")
        right.set(ylabel=name, ylim=(None, 1))
        if best is not None:
            left.axvline(best.step, color="C3", linestyle=":", label=f"best: epoch {best.epoch}, {best.score:.4f}")
        right.legend(loc="lower right")
    left.legend(loc="upper right")
    with staged(path.parent) as stage:
        figure.savefig(stage / path.name, dpi=120)


def pretraining_curve(path: Path, lines: list[dict[str, Any]]) -> None:
    """A PNG of each objective's loss by tokens read, and by step at validation."""
    from matplotlib.figure import Figure

    steps = [line for line in lines if "loss" in line]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    tokens = {line["step"]: line["tokens"] for line in steps}
    names = [name for name in steps[0] if name.endswith("_loss")] if steps else []
    for number, name in enumerate(names):
        values = [line[name] for line in steps]
        width = max(1, len(values) // 50)
        smooth = np.convolve(values, np.ones(width) / width, "valid")
        where = [line["tokens"] for line in steps][width - 1 :]
        axes.plot(where, smooth, color=f"C{number}", label=f"{name.removesuffix('_loss')}, training")
        checked = [line for line in lines if f"validation_{name}" in line]
        at = [max((count for step, count in tokens.items() if step <= line["step"]), default=0) for line in checked]
        held = [line[f"validation_{name}"] for line in checked]
        if held:
            axes.plot(at, held, "o--", color=f"C{number}", label=f"{name.removesuffix('_loss')}, held out")
    axes.set(xlabel="tokens read", ylabel="loss", ylim=(0, None))
    if names:
        axes.legend()
    with staged(path.parent) as stage:
        figure.savefig(stage / path.name, dpi=120)
