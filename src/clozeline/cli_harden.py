"""The verb that hardens a classifier at what it cannot read: harden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from clozeline import harden_recipe
from clozeline.files import write_whole
from clozeline.flags import DATA, FIRST, HardenFlags, Json, Switch
from clozeline.harden_recipe import KEYS


def harden(
    model: str,
    /,
    *changes: str,
    capability: Annotated[
        tuple[str, ...],
        Parameter(negative=(), show_default=False, group=DATA, help=f"{KEYS['capability'].help} May be repeated."),
    ] = (),
    probe: Annotated[
        tuple[str, ...], Parameter(negative=(), show_default=False, help="A sentence to look at; may be repeated.")
    ] = (),
    flags: Annotated[HardenFlags | None, Parameter(name="*")] = None,
    resume: Switch = False,
    overwrite: Switch = False,
    dry_run: Switch = False,
    as_json: Json = False,
) -> None:
    """Find what a classifier reads worst, train on cases of it, and say whether that helped, and what it harmed.

    Three arms of several seeds: without the cases, with them, and with as many ordinary examples instead. All are judged by
    test data, by a suite of behaviour and by single sentences; report.html, .md and .json in the folder say it all.

    Args:
        model: A model folder or hub name; or a recipe, a TOML file with the same keys as the flags.
        changes: KEY=VALUE changes.
        resume: Go on with the unfinished run in the folder; what a server has written is not asked for again.
        overwrite: Begin anew though the folder holds a run.
        dry_run: Print what would be done, with memory and time; write nothing, ask no server.
    """
    from clozeline.hardening.experiment import harden as work
    from clozeline.hardening.experiment import prepare
    from clozeline.hardening.plan import planned
    from clozeline.hardening.writing import CaseServer
    from clozeline.tasks.text_classification import TextClassification
    from clozeline.train.folder import refuse

    given: dict[str, Any] = {} if flags is None else vars(flags)
    repeated = {"probes": probe, "capability": list(capability)}
    recipe = harden_recipe.resolve(model, changes, given | {name: value for name, value in repeated.items() if value})
    cases: Any = recipe.cases
    if recipe.url is not None:
        assert recipe.generator is not None
        asked: dict[str, Any] = {
            name: getattr(recipe, name) for name in ("per_request", "price_in", "price_out", "prompt")
        }
        asked |= {"temperature": recipe.sampling, "check_prompt": recipe.check_prompt, "key_variable": recipe.key}
        asked = {name: value for name, value in asked.items() if value is not None}
        asked |= {"seed": recipe.settings.seed, "second": recipe.second}
        cases = CaseServer(recipe.url, recipe.generator, **asked)
    options = {"long": recipe.long, "max_length": recipe.max_length}
    task = TextClassification(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]
    same = "model train test validation suite capability extra judge paraphraser strict share probes text label encoding out"
    given = {name: getattr(recipe, name) for name in (*same.split(), "seeds", "settings", "device")}
    given |= {"cases": cases, "words": (recipe.case_words[0], recipe.case_words[1]), "task": task}
    given |= {"labels": recipe.labels(), "columns": recipe.columns or None, "quiet": not FIRST}
    if dry_run:
        refuse(Path(recipe.out), resume=resume, overwrite=overwrite)
        plan = planned(prepare(**given))
        if FIRST:
            print(json.dumps(plan.as_dict()) if as_json else plan)
        return
    found = work(**given, resume=resume, overwrite=overwrite)
    write_whole(Path(recipe.out) / "recipe.toml", recipe.to_toml())
    if as_json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        print(found)
        print(f"The report: {Path(recipe.out) / 'report.html'}, and .md and .json beside it.")


def add(app: App) -> None:
    """Give the command line this verb."""
    app.command(
        harden,
        usage="Usage: clozeline harden MODEL --train DATA --test DATA [FLAGS]\n"
        "       clozeline harden RECIPE.toml [KEY=VALUE ...] [FLAGS]",
    )
