"""Labelled data made ready for a model: what `fit` and `plan` begin with, and leaves the model as it is."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clozeline import bundle as bundles
from clozeline.bundle import Bundle
from clozeline.data.packing import Samples
from clozeline.data.readers import Columns
from clozeline.errors import InputError
from clozeline.tasks.supervised import Supervised
from clozeline.train.plan import Split
from clozeline.train.settings import Settings

log = logging.getLogger("clozeline")


@dataclass(frozen=True)
class Prepared:
    """Both sets as samples, what they are in words, and a bundle over the model's weights whose task fits them."""

    bundle: Bundle
    train: Samples
    validation: Samples | None
    data: dict[str, str]


def prepare(bundle: Bundle, train: str | Path, validation: str | Path | None, columns: Columns, seed: int) -> Prepared:
    """Read both sets. A task that knows no labels takes those of the training data; `bundle` stays as it is.

    Raises:
        InputError: the data cannot be read or used.
    """
    assert isinstance(bundle.task, Supervised)
    read = bundle.task.read(train, "train", columns)
    own = dataclasses.replace(bundle)
    task = bundle.task.settled(read, str(train), columns).untuned()
    bundles.settle(own, task, seed)
    samples = task.samples(bundle.tokenizer, read)
    data = {f"training data `{train}`": str(Split.of(samples, task))}
    checks = None
    if validation is not None:
        checks = task.samples(bundle.tokenizer, task.read(validation, "validation", columns))
        data[f"validation data `{validation}`"] = str(Split.of(checks, task))
    for lack in task.lacks(samples, checks):
        log.warning(lack)
    return Prepared(own, samples, checks, data)


def planned(
    settings: Settings, seeds: int, learning_rates: Sequence[float], validation: Samples | None
) -> list[Settings]:
    """The settings of each run: the seeds count up from the settings' own, for each rate.

    Raises:
        InputError: no seeds, a rate that is there twice, or several runs without validation data to tell them apart.
    """
    if seeds < 1:
        raise InputError(f"seeds is {seeds}; it must be at least 1.")
    if len(set(learning_rates)) < len(learning_rates):
        raise InputError("A learning rate is given twice; give each once.")
    runs = [
        settings.replace(learning_rate=rate, seed=settings.seed + at)
        for rate in learning_rates or (settings.learning_rate,)
        for at in range(seeds)
    ]
    if len(runs) > 1 and validation is None:
        raise InputError("Several seeds or learning rates are compared by validation; give validation data.")
    return runs
