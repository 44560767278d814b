"""The verbs that train for a task, or make a smaller model out of a trained one: finetune, distill and shrink."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

import clozeline
from clozeline import cli_pretraining, pretraining_recipe
from clozeline import recipe as recipes
from clozeline.errors import InputError
from clozeline.flags import FIRST, DistillFlags, Encoding, Flags, Json, ModelName, Switch, Text, stopped
from clozeline.recipe import Recipe

TRY = {
    "text-classification": ["Your own sentence."],
    "question-answering": ["Your question?", "A passage that answers it."],
    "multiple-choice": ["Your question?", "One choice", "Another choice"],
}
"""What to type after `predict MODEL`."""


def finetune(
    model: str,
    /,
    *data: str,
    flags: Annotated[Flags | None, Parameter(name="*")] = None,
    resume: Switch = False,
    overwrite: Switch = False,
    dry_run: Switch = False,
    as_json: Json = False,
) -> int:
    """Train a model for a task on labelled data, and keep the best.

    Args:
        model: A model folder or hub name; or a recipe, a TOML file with the same keys as the flags.
        data: The training data, where there is no recipe; then KEY=VALUE changes.
        resume: Go on with the unfinished run in the folder, or add seeds and rates to the runs there.
        overwrite: Begin anew though the folder holds a run.
        dry_run: Print what would be done, with memory and time; write nothing.
    """
    recipe = recipes.resolve(model, data, {} if flags is None else vars(flags))
    return _train(recipe, resume=resume, overwrite=overwrite, dry_run=dry_run, as_json=as_json)


def _train(recipe: Recipe, *, resume: bool, overwrite: bool, dry_run: bool, as_json: bool) -> int:
    from clozeline.tasks import known
    from clozeline.tasks.supervised import Supervised
    from clozeline.train.trials import summary

    given: dict[str, Any] = dict(train=recipe.train, validation=recipe.validation, settings=recipe.settings)
    given |= recipe.where()
    seed, device = recipe.settings.seed, recipe.device
    teacher = None if recipe.teacher is None else clozeline.load(recipe.teacher, device=device)
    if teacher is None:
        task = known.made(recipe.task, recipe.task_options())
        loaded = clozeline.load(recipe.model or "", task, device=device, seed=seed)
    else:
        from clozeline.distiller import student_model

        own = teacher.task
        if not isinstance(own, Supervised) or own.name != recipe.task:
            what = "has no task" if own is None else f"is a {type(own).__name__} model"
            raise InputError(f"{recipe.teacher} {what} and cannot teach {recipe.task}.")
        how: dict[str, Any] = dict(layer_map=recipe.settings.layer_map, device=device, seed=seed, quiet=not FIRST)
        loaded = student_model(teacher, recipe.model, options=recipe.task_options(), **recipe.sizes(), **how)
    given["teacher"] = teacher
    several: dict[str, Any] = dict(seeds=recipe.seeds, learning_rates=recipe.learning_rates)
    if dry_run:
        plan = loaded.plan(**given, **several)
        if FIRST:
            print(json.dumps(plan.as_dict()) if as_json else plan)
        return 0
    run = loaded.fit(**given, **several, out=recipe.out, resume=resume, overwrite=overwrite)

    if not FIRST:
        return 0 if run.finished else 130

    from clozeline.files import write_whole

    write_whole(run.out / "recipe.toml", recipe.to_toml())
    folder = run.out / "model"
    if as_json:
        print(json.dumps(dataclasses.asdict(run) | {"out": str(run.out), "model": str(folder)}))
    if not run.finished:
        return stopped(f"step {run.steps} of {run.total_steps}")
    if not as_json:
        if run.trials:
            print(summary(run.trials))
        if run.best is not None:
            name = run.best.metric.replace("_", " ")
            print(f"Kept epoch {run.best.epoch}, validation {name} {run.best.score:.4f}, loss {run.best.loss:.4f}.")
        print(f"The model is in {folder}. Try it:")
        print(shlex.join(["clozeline", "predict", str(folder), *TRY.get(recipe.task, TRY["text-classification"])]))
        if recipe.teacher is not None:
            labelled = [recipe.validation] if recipe.validation else []
            print(shlex.join(["clozeline", "compare", recipe.teacher, str(folder), *labelled]))
    return 0


def distill(
    teacher: str,
    /,
    *data: Annotated[str, Parameter(help="Training data of the teacher's task, or a corpus; then KEY=VALUE changes.")],
    more: Annotated[tuple[str, ...], Parameter(name="--data", negative=(), help="The same as DATA.")] = (),
    student: Annotated[str | None, Parameter(help="A model to train, instead of one made from the teacher.")] = None,
    flags: Annotated[DistillFlags | None, Parameter(name="*")] = None,
    resume: Switch = False,
    overwrite: Switch = False,
    dry_run: Switch = False,
    as_json: Json = False,
) -> int:
    """Train a smaller model to do what a trained one does, such as `distill TEACHER train.csv --layers 3`.

    Args:
        teacher: A model trained for a task teaches that task; one that finds masked words teaches that, on raw text.
        resume: Go on with the unfinished run in the folder.
        overwrite: Begin anew though the folder holds a run.
        dry_run: Print what would be done, with memory and time.
    """
    given = {} if flags is None else {name: value for name, value in vars(flags).items() if value is not None}
    task = _task_of(teacher)
    how: dict[str, Any] = dict(resume=resume, overwrite=overwrite, dry_run=dry_run, as_json=as_json)
    sources, changes = pretraining_recipe.divided([*more, *data])
    own = pretraining_recipe.KEYS if task is None else recipes.KEYS
    for key in given:
        if key not in own:
            other, its = ("a task", "masked words") if task is None else ("masked words", task)
            raise InputError(f"{key} is of learning {other}, but {teacher} teaches {its}; leave it out.")
    values = {key: recipes.checked(key, value, "", own) for key, value in given.items()}
    values |= recipes.assignments(changes, own) | {"teacher": teacher} | ({} if student is None else {"model": student})
    if task is None:
        recipe = pretraining_recipe.PretrainRecipe.of({"out": "distilled"} | values | {"corpus": tuple(sources)})
        return cli_pretraining.train(recipe, **how)
    if len(sources) > 1:
        raise InputError(f"{sources[1]!r} is one argument too many: a task is learned from one file or data set.")
    found = {"train": sources[0]} if sources else {}
    return _train(Recipe.of({"task": task, "out": "distilled"} | values | found), **how)


def _task_of(teacher: str) -> str | None:
    """The task that a model is trained for; None where it finds masked words.

    Raises:
        InputError: it has no head to teach with.
    """
    from clozeline import checkpoint
    from clozeline.tasks import known
    from clozeline.tasks.supervised import Supervised

    folder = checkpoint.find(teacher)
    raw = checkpoint.read_config(folder)
    own = checkpoint.own_head(raw, checkpoint.plain_tensors(folder))
    task = known.own_task(own, raw)
    if isinstance(task, Supervised):
        return task.name
    if own in ("masked_lm", "pretraining"):
        return None
    what = "is a bare encoder" if own in (None, "base") else f"has a head for {own}"
    raise InputError(
        f"{teacher} {what}, so it has nothing to teach; give a fine-tuned model, or one with a masked-LM head."
    )


def shrink(
    model: ModelName,
    /,
    *,
    out: Path,
    layers: Annotated[str | None, Parameter(help="How many layers to keep, or which, such as 0,2,5.")] = None,
    heads: Annotated[str | None, Parameter(help="Heads to take out, as LAYER.HEAD: 0.3,0.5,2.11.")] = None,
    vocabulary: Annotated[tuple[str, ...], Parameter(negative=(), help="Raw text whose tokens to keep.")] = (),
    least: Annotated[int, Parameter(help="How often the text must use a token for it to stay.")] = 1,
    text: Text = None,
    encoding: Encoding = "utf-8",
    as_json: Json = False,
) -> None:
    """Make a model smaller without training: fewer layers or heads, or a vocabulary of what a corpus uses.

    Args:
        out: Folder of the smaller model.
    """
    from clozeline.shrinking import shrink as cut

    which = None if layers is None else [_number(part, layers) for part in layers.split(",")]
    kept = which[0] if which is not None and layers is not None and "," not in layers else which
    gone = None if heads is None else _heads(heads)
    found = cut(
        model, out, layers=kept, heads=gone, vocabulary=vocabulary or None, least=least, text=text, encoding=encoding
    )
    print(json.dumps(dataclasses.asdict(found) | {"out": str(out)}) if as_json else found)


def _heads(given: str) -> dict[int, list[int]]:
    """By layer, the heads of "0.3,0.5,2.11"."""
    found: dict[int, list[int]] = {}
    for part in given.split(","):
        layer, dot, head = part.strip().partition(".")
        if not (dot and layer.isdecimal() and head.isdecimal()):
            raise InputError(f"--heads is {given!r}; give heads as LAYER.HEAD, counted from 0, such as 0.3,0.5,2.11.")
        found.setdefault(int(layer), []).append(int(head))
    return found


def _number(part: str, given: str) -> int:
    if not part.strip().isdecimal():
        raise InputError(f"--layers is {given!r}; give a number of layers, or their numbers, such as 0,2,5.")
    return int(part)


def add(app: App) -> None:
    """Give the command line these verbs."""
    app.command(
        finetune,
        usage="Usage: clozeline finetune MODEL TRAIN [FLAGS]\n       clozeline finetune RECIPE.toml [KEY=VALUE ...] [FLAGS]",
    )
    app.command(shrink)
    app.command(distill, usage="Usage: clozeline distill TEACHER DATA... [KEY=VALUE ...] [FLAGS]")
