"""A newcomer's first minute: fine-tune a real encoder on the reviews in this package, and see what it has learned."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import defaultdict
from functools import partial
from importlib import resources
from pathlib import Path

from clozeline import face
from clozeline.data.readers import rows
from clozeline.tasks.text_classification import TextClassification
from clozeline.train.settings import Settings

OUT = Path("quickstart-model")  # the folder that is the quickstart's own to overwrite
ENCODER = "clozeline/mini"
SETTINGS = Settings(epochs=4, learning_rate=2e-4, batch_size=16)
SENTENCES = (
    "Great movie, if you enjoy watching paint dry for two hours.",
    "I have never slept better in a hotel.",
    "The soup was not bad at all.",
    "It broke on the second day, and nobody answers the phone.",
)


say = partial(print, flush=True)  # in step with the progress on standard error


def run(out: Path) -> None:
    """Train, measure, predict, save into `out`, and say all of it in plain sentences.

    Raises:
        InputError: `out` holds something else.
    """
    data = Path(str(resources.files("clozeline") / "examples" / "reviews"))
    train, validation, test = (str(data / f"{split}.csv") for split in ("train", "validation", "test"))

    say(f"1. Load {ENCODER}, a small BERT that was pre-trained for this package and lies in it")
    model = face.load(ENCODER, TextClassification(labels=["negative", "positive"]), seed=SETTINGS.seed)
    say(f"2. Fine-tune it to tell good reviews from bad ones, {SETTINGS.epochs} times over the texts of {train}")
    fitted = model.fit(
        train, validation, out=out, overwrite=out == OUT and (out / "run.json").exists(), settings=SETTINGS
    )
    if not fitted.finished:
        raise KeyboardInterrupt
    assert fitted.best is not None
    say(f"   Epoch {fitted.best.epoch} did best on {validation} and is kept.")

    say("3. Test it on reviews that it has not seen")
    report = model.evaluate(test)
    say(f"   {report.accuracy.value:.1%} of {report.examples} are right", end="")
    say(f" (95 % interval {report.accuracy.low:.1%} to {report.accuracy.high:.1%}). By kind of review:")
    for kind, right in _by_kind(model, test).items():
        say(f"   {kind:<12} {sum(right):3} of {len(right):3}")

    say("4. Ask it")
    for text, prediction in zip(SENTENCES, model.predict(SENTENCES), strict=True):
        say(f"   {prediction.label}  {prediction.score:.2f}  {text}")

    folder = out / "model"
    own = ["your.csv", "--text", "review", "--label", "sentiment", "--out", "my-model"]
    say(f"\nThe model is in {folder}, a folder that transformers loads too. What to type next:")
    command = _command()
    say(shlex.join([command, "predict", str(folder), "Your own sentence."]))
    say(shlex.join([command, "evaluate", str(folder), test]))
    say(shlex.join([command, "inspect", "attribution", str(folder), SENTENCES[0], "--out", "why.html"]))
    say(shlex.join([command, "finetune", ENCODER, *own]))
    say("A small encoder learns plain reviews from 1,440 texts, but hardly negation, contrast, sarcasm and comparison,")
    say("six in ten of those it was tested on. One that has read more does better: all-MiniLM-L6-v2 gets 76 % right.")


def _command() -> str:
    """How to type this very program: by its name where the shell finds it, else by its place."""
    here = Path(sys.executable).parent / "clozeline"
    found = shutil.which("clozeline")
    if not here.exists() or (found is not None and Path(found).resolve() == here.resolve()):
        return "clozeline"
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)


def _by_kind(model: face.Model, data: str) -> dict[str, list[bool]]:
    """Which predictions are right, by the column that says how a review carries its sentiment."""
    reviews = [row.values for row in rows(data)]
    predictions = model.predict([review["text"] for review in reviews])
    kinds: defaultdict[str, list[bool]] = defaultdict(list)
    for review, prediction in zip(reviews, predictions, strict=True):
        kinds[review["kind"]].append(prediction.label == review["label"])
    return kinds
