"""A teacher in fine-tuning: its answers to the data, reckoned once and kept on the disk, and its states in each step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from clozeline import predict
from clozeline.data.packing import Samples
from clozeline.files import staged
from clozeline.model.heads import Network
from clozeline.model.layers import Linear
from clozeline.precision import Precision, compute_dtype
from clozeline.tasks.distillation import Distillation, Learner, Match, Teacher
from clozeline.tasks.supervised import Supervised
from clozeline.train.distilling import Distilling
from clozeline.train.distributed import ALONE, Group
from clozeline.train.settings import Settings

FOLDER = ".teacher"
"""In the folder of a run, while it lasts: the teacher's logits, and of what."""


def answered(
    samples: Samples,
    task: Supervised,
    teacher: Network,
    out: Path | None,
    device: torch.device,
    group: Group = ALONE,
    *,
    precision: Precision = "auto",
    shape_only: bool = False,
) -> Samples:
    """The samples with the teacher's logits, and with its answers as targets where they have none.

    The first process reckons them, unless an earlier run in `out` has; the others read what it wrote. Without `out`
    nothing is written. shape_only: for a plan, which needs no answers.
    """
    dtype = compute_dtype(precision, device)

    def reckoned() -> np.ndarray:
        return predict.logits(teacher.twin(dtype, device), task, samples, device)

    if out is not None:
        theirs = _kept(out, {"teacher": digest(teacher), "precision": str(dtype)}, samples, group, reckoned)
    elif shape_only:
        rows = len(samples.ids) if task.per_token else len(samples.bounds) - 1
        theirs = np.zeros((rows, _outputs(teacher)), np.float32)
    else:
        theirs = reckoned()
    samples = replace(samples, theirs=theirs)
    return samples if samples.targets is not None else replace(task.answered(theirs, samples), examples=())


def _outputs(network: Network) -> int:
    """How many numbers the head gives a row."""
    return next(part.out_features for part in reversed([*network.modules()]) if isinstance(part, Linear))


def _weight(task: Supervised, samples: Samples) -> float:
    """What the weights of the task's own loss add up to over these samples."""
    weights = task.weights(samples)
    if weights is None or task.per_token:
        return task.answer_count(samples)
    batch = samples.take(np.arange(len(samples)))
    logits = torch.zeros(len(samples.bounds) - 1, len(weights))
    return task.loss(logits, batch, weights)[1].item()


def _kept(
    out: Path, of: dict[str, str], samples: Samples, group: Group, reckoned: Callable[[], np.ndarray]
) -> np.ndarray:
    """The logits that lie in a run's folder, written there before where they are not."""
    held, note = out / FOLDER / "logits.npy", out / FOLDER / "of.json"
    wanted = {**of, "ids": sha256(np.ascontiguousarray(samples.ids).tobytes()).hexdigest()}
    if group.first and not (note.exists() and json.loads(note.read_text(encoding="utf-8")) == wanted):
        found = reckoned()
        held.parent.mkdir(parents=True, exist_ok=True)
        with staged(held.parent) as stage:
            np.save(stage / held.name, found)
            (stage / note.name).write_text(json.dumps(wanted), encoding="utf-8")
    group.told(None)
    kept: np.ndarray = np.load(held, mmap_mode="c")
    return kept


def forget(out: Path) -> None:
    """Remove what a run kept of its teacher."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def digest(network: Network) -> str:
    """The SHA-256 of a network's weights."""
    found = sha256()
    for part in network.parameters():
        found.update(part.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def match_of(settings: Distilling, student: Network, teacher: Network) -> Match:
    """What inside both the settings compare.

    Raises:
        InputError: a layer map or heads that do not fit both.
    """
    hidden = settings.match if settings.hidden else None
    heads = settings.relation_heads if settings.relations else None
    return Match.of(student, teacher, settings.layer_map, hidden, heads)


def lesson(
    task: Supervised, network: Network, teacher: Network, samples: Samples, settings: Settings, device: torch.device
) -> tuple[Network, Distillation]:
    """What is trained in a network's place, over the same weights, and the loss that it is trained by.

    Raises:
        InputError: a layer map or heads that do not fit both.
    """
    match = match_of(settings, network, teacher)
    along = Teacher(teacher.twin(compute_dtype(settings.precision, device), device)) if match.any else None
    learner = Learner(network, teacher, match, settings.seed) if match.any else network
    tokens = int(samples.lengths.sum())
    hard = settings.hard * task.answer_count(samples) / _weight(task, samples)  # a mean over answers, as the others are
    weights = dict(hard=hard, soft=settings.soft, hidden=settings.hidden, relations=settings.relations)
    answers = task.answer_count(samples) / tokens
    return learner, Distillation(
        task, temperature=settings.temperature, match=match, teacher=along, answers_a_token=answers, **weights
    )
