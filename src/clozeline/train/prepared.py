"""Labelled data made ready for a model: what `fit` and `plan` begin with, and leaves the model as it is."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clozeline import bundle as bundles
from clozeline.bundle import Bundle
from clozeline.data.packing import Samples
from clozeline.data.readers import Columns, examples
from clozeline.errors import InputError
from clozeline.model.heads import Network
from clozeline.student import check_teacher
from clozeline.tasks.supervised import Supervised
from clozeline.train.distributed import join
from clozeline.train.fit import check
from clozeline.train.plan import Split
from clozeline.train.settings import Settings
from clozeline.train.teaching import answered, match_of

CPU = torch.device("cpu")
DEFAULT = Settings()
log = logging.getLogger("clozeline")


@dataclass(frozen=True)
class Prepared:
    """Both sets as samples, what they are in words, a bundle over the model's weights whose task fits, and who teaches."""

    bundle: Bundle
    train: Samples
    validation: Samples | None
    data: dict[str, str]
    teacher: Network | None = None


def prepare(
    bundle: Bundle,
    train: str | Path,
    validation: str | Path | None,
    columns: Columns,
    seed: int,
    *,
    teacher: Bundle | None = None,
    settings: Settings = DEFAULT,
    out: Path | None = None,
    device: torch.device = CPU,
) -> Prepared:
    """Read both sets. A task that knows no labels takes those of the training data; `bundle` stays as it is.

    teacher: whose answers the training data gets, see `teaching.answered`, on `device` and kept in `out`; settings:
    of the run; where `hard` is 0 the data needs no labels.

    Raises:
        InputError: the data cannot be read or used, or the teacher cannot teach this task.
    """
    assert isinstance(bundle.task, Supervised)
    labelled = teacher is None or settings.hard > 0
    own, task = dataclasses.replace(bundle), bundle.task.untuned()
    if teacher is not None and isinstance(teacher.task, Supervised) and not task.outputs:
        task = task.with_outputs(teacher.task.outputs)
    if labelled:
        read = task.read(train, "train", columns)
        task = task.settled(read, str(train), columns)
    else:
        read = _texts(task, train, columns)
    bundles.settle(own, task, seed)
    samples = task.samples(bundle.tokenizer, read, targets=labelled)
    if teacher is not None:
        check(task, settings, validation is not None)
        check_teacher(teacher, own)
        match_of(settings, own.network, teacher.network)
        most, longest = teacher.config.max_length, int(np.diff(samples.bounds).max())
        if longest > most:
            raise InputError(
                f"{teacher.name} reads {most} tokens at once, and the training data has {longest} in one sequence; give "
                f"max_length {most}."
            )
        how: dict[str, Any] = dict(precision=settings.precision, shape_only=out is None and labelled)
        if settings.soft or not labelled:
            samples = answered(samples, task, teacher.network, out, device, join(device), **how)
    data = {f"training data `{train}`": str(Split.of(samples, task))}
    checks = None
    if validation is not None:
        checks = task.samples(bundle.tokenizer, task.read(validation, "validation", columns))
        data[f"validation data `{validation}`"] = str(Split.of(checks, task))
    for lack in task.lacks(samples, checks) if labelled else ():
        log.warning(lack)
    return Prepared(own, samples, checks, data, None if teacher is None else teacher.network)


def _texts(task: Supervised, source: str | Path, columns: Columns) -> list[Any]:
    """The texts of a file or data set, labels left out."""
    if not task.from_text:
        raise InputError(f"{task.name} learns from examples with answers only; give hard a weight above 0.")
    where: dict[str, Any] = dict(text=columns.text, pair=columns.pair, columns=columns.names, encoding=columns.encoding)
    return [task.example(each.text, each.pair, each.place) for each in examples(source, **where)]


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
