"""The verb that looks inside a model: inspect WHAT MODEL. Each prints a summary, and writes numbers, figures and pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

import clozeline
from clozeline.errors import InputError
from clozeline.flags import Device, Json, ModelName, Precision, Switch

if TYPE_CHECKING:
    from clozeline.inspect.view import View

SUFFIXES = (".json", ".png", ".svg", ".html")
Saved = Annotated[
    tuple[Path, ...],
    Parameter(
        name="--out",
        negative=(),
        show_default=False,
        help="Write numbers (.json), a figure (.png, .svg) or an offline page (.html) here; may be repeated.",
    ),
]
Numbers = Annotated[str | None, Parameter(help="Only these, counted from 0: 0,3 or 2-5.")]
inspect = App(name="inspect", help="Look inside a model: as text, as numbers, as a figure or as an offline page.")


@inspect.command
def attention(
    model: ModelName,
    text: str,
    pair: str | None = None,
    /,
    *,
    beside: str | None = None,
    layers: Numbers = None,
    heads: Numbers = None,
    join: Switch = False,
    precision: Precision = "fp32",
    device: Device = None,
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Show which token reads which, in every layer and head.

    Args:
        text: What is read, after -- where it begins with a hyphen.
        pair: A second text, read together with the first.
        beside: Another text to show next to the first one.
        join: Between words instead of their pieces.
    """
    from clozeline.inspect.attention import attention as look

    _check(out)
    chosen = dict(layers=_numbers("--layers", layers), heads=_numbers("--heads", heads))
    loaded = clozeline.load(model, precision=precision, device=device)
    _show(look(loaded, text, pair, beside=beside, join=join, **chosen), out, as_json)


def _check(out: Sequence[Path]) -> None:
    """Refuse what could not be written before the work is done."""
    for path in out:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"--out {path} says by its end what is written; give one of {', '.join(SUFFIXES)}.")


def _show(view: View, out: Sequence[Path], as_json: bool) -> None:
    for path in out:
        view.save(path)
    print(json.dumps(view.as_dict(), ensure_ascii=False) if as_json else view)


def _numbers(flag: str, given: str | None) -> list[int] | None:
    """The numbers of "0,3" or "2-5"."""
    if given is None:
        return None
    found: list[int] = []
    for part in given.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise InputError(f"{flag} is {given!r}; give numbers counted from 0, such as 0,3 or 2-5.")
        found += range(int(low), int(high or low) + 1)
    return found


def add(app: App) -> None:
    """Give the command line this verb."""
    app.command(inspect)
