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
from clozeline.precision import compute_dtype
from clozeline.tasks.distillation import Distillation, Learner, Match, Teacher
from clozeline.tasks.supervised import Supervised
from clozeline.train.distributed import ALONE, Group
from clozeline.train.settings import Settings

FOLDER = ".teacher"
"""In the folder of a run, while it lasts: the teacher's logits, and of what."""


def answered(
    samples: Samples, task: Supervised, teacher: Network, out: Path | None, device: torch.device, group: Group = ALONE
) -> Samples:
    """The samples with the teacher's logits, and with its answers as targets where they have none.

    The first process reckons them, unless an earlier run in `out` has; the others read what it wrote. Without `out`
    nothing is written.
    """

    def reckoned() -> np.ndarray:
        return predict.logits(teacher.twin(compute_dtype("auto", device), device), task, samples, device)

    theirs = reckoned() if out is None else _kept(out, teacher, samples, group, reckoned)
    samples = replace(samples, theirs=theirs)
    return samples if samples.targets is not None else task.answered(theirs, samples)


def _kept(
    out: Path, teacher: Network, samples: Samples, group: Group, reckoned: Callable[[], np.ndarray]
) -> np.ndarray:
    """The logits that lie in a run's folder, written there before where they are not."""
    held, note = out / FOLDER / "logits.npy", out / FOLDER / "of.json"
    wanted = {"teacher": digest(teacher), "ids": sha256(np.ascontiguousarray(samples.ids).tobytes()).hexdigest()}
    if group.first and not (note.exists() and json.loads(note.read_text(encoding="utf-8")) == wanted):
        found = reckoned()
        held.parent.mkdir(parents=True, exist_ok=True)
        with staged(held.parent) as stage:
            np.save(stage / held.name, found)
            (stage / note.name).write_text(json.dumps(wanted), encoding="utf-8")
    group.told(None)
    kept: np.ndarray = np.load(held, mmap_mode="r")
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


def lesson(
    task: Supervised, network: Network, teacher: Network, samples: Samples, settings: Settings, device: torch.device
) -> tuple[Network, Distillation]:
    """What is trained in a network's place, over the same weights, and the loss that it is trained by.

    Raises:
        InputError: a layer map or heads that do not fit both.
    """
    hidden = settings.match if settings.hidden else None
    heads = settings.relation_heads if settings.relations else None
    match = Match.of(network, teacher, settings.layer_map, hidden, heads)
    along = Teacher(teacher.twin(compute_dtype(settings.precision, device), device)) if match.any else None
    learner = Learner(network, teacher, match, settings.seed) if match.any else network
    tokens = int(samples.lengths.sum())
    weights = dict(hard=settings.hard, soft=settings.soft, hidden=settings.hidden, relations=settings.relations)
    answers = task.answer_count(samples) / tokens
    return learner, Distillation(
        task, temperature=settings.temperature, match=match, teacher=along, answers_a_token=answers, **weights
    )
