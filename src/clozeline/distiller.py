"""From a trained model to a smaller one: a student of its layers or of another shape, and a run in which it learns from it.

cl.distill("runs/reviews/model", "train.csv", validation="dev.csv", layers=3, out="runs/small")     # a task
cl.distill("bert-base-uncased", "texts/", shape="distilbert-base-uncased", out="runs/distilbert")     # masked words
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clozeline.bundle import Bundle
from clozeline.errors import InputError, nearest
from clozeline.face import Model, load
from clozeline.precision import pick_device
from clozeline.pretrainer import pretrain
from clozeline.recipe import STUDENT
from clozeline.student import student_of
from clozeline.tasks.supervised import Supervised
from clozeline.train.fit import Fitted
from clozeline.train.pretrain import Pretrained
from clozeline.train.settings import Settings


def distill(
    teacher: Model | str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    student: str | Path | None = None,
    quiet: bool = False,
    **changes: Any,
) -> Fitted | Pretrained:
    """Train a smaller model to do what a trained one does; `out/model` is a folder that `load` and transformers read.

    A teacher that is trained for a task teaches that task on labelled data, or with hard=0 on texts without labels: as `fit`
    with a teacher. One that finds masked words teaches that on raw text: as `pretrain` with a teacher.

    Args:
        data: what to learn from: training data of the task, or a corpus.
        student: a model to train, instead of one made from the teacher's weights.
        changes: what the student is (shape, layers, width, heads, ffn_width, or layer_map, the layers of the teacher that
            its layers begin as), what is learned from the teacher (soft, temperature, hidden, match, relations), and all
            that `Model.fit` or `pretrain` take.

    Raises:
        InputError: the teacher cannot teach, teacher and student do not fit, or as `fit` and `pretrain`.
    """
    loaded = teacher if isinstance(teacher, Model) else load(teacher, device=changes.get("device"))
    if not isinstance(loaded.task, Supervised):
        if isinstance(teacher, Model):
            raise InputError("Masked words are taught by a model on the disk: save it, and give its folder.")
        model = None if student is None else str(student)
        return pretrain(data, out=out, teacher=str(teacher), model=model, quiet=quiet, **changes)
    if not isinstance(data, str | Path):
        raise InputError("A task is learned from one file or data set; give its name.")
    settings = changes.get("settings") or Settings()
    how: dict[str, Any] = {name: changes.get(name, getattr(settings, name)) for name in ("seed", "layer_map")}
    sizes = {name: changes.pop(name) for name in STUDENT if name in changes}
    made = student_model(loaded, student, **sizes, **how, device=changes.pop("device", None), quiet=quiet)
    return made.fit(data, teacher=loaded, out=out, quiet=quiet, **changes)


def student_model(
    teacher: Model,
    student: str | Path | None = None,
    *,
    shape: str | None = None,
    layer_map: Sequence[int] = (),
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    seed: int = 0,
    quiet: bool = True,
    **sizes: int,
) -> Model:
    """A smaller model for the teacher's task, with its vocabulary and what fits of its weights; see `student_of`.

    student: a model to take instead; options: settings of the task that are other than the teacher's.

    Raises:
        InputError: as `student_of`; the teacher is not trained for a task, or its task has no such setting.
    """
    own = teacher._bundle
    if not isinstance(own.task, Supervised) or own.fresh:
        raise InputError(f"{own.name} has no trained head for a task, so it has nothing to teach; fine-tune it first.")
    known = {field.name for field in dataclasses.fields(own.task)}  # type: ignore[arg-type]
    for name in options or {}:
        if name not in known:
            raise InputError(f"{name} is no setting of {own.task.name}: {nearest(name, known)}")
    task = dataclasses.replace(own.task.untuned(), **(options or {}))  # type: ignore[type-var]
    if student is not None:
        if given := ", ".join([*(["shape"] if shape else []), *sizes]):
            raise InputError(f"{given} is of a student made from its teacher; {student} is as it is, leave one out.")
        return load(student, task, device=device, seed=seed)
    made = student_of(own, shape=shape, sizes=sizes, layers=layer_map, seed=seed)
    if not quiet:
        print(made, file=sys.stderr)
    words = own.tokenizer.limited(made.network.config.max_length)
    bundle = Bundle(f"a student of {own.name}", made.family, made.network, words, task, made.fresh)
    return Model(bundle, "fp32", pick_device(device), seed)
