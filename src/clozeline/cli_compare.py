"""The verb that puts two models side by side: compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

import clozeline
from clozeline import recipe as recipes
from clozeline.flags import (
    Choices,
    ColumnNames,
    Device,
    Encoding,
    Json,
    ModelName,
    Names,
    OwnLong,
    Pair,
    Precision,
    Text,
)


def compare(
    a: ModelName,
    b: ModelName,
    data: str | None = None,
    /,
    *,
    by: Annotated[str | None, Parameter(help="A column whose values are compared too; of SQuAD, title.")] = None,
    text: Text = None,
    pair: Pair = None,
    label: Names = None,
    choices: Choices = None,
    columns: ColumnNames = None,
    encoding: Encoding = "utf-8",
    metric: Annotated[str | None, Parameter(help="Compare by this one of the task's metrics.")] = None,
    long: OwnLong = None,
    precision: Precision = "fp32",
    device: Device = None,
    sentence: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    runs: Annotated[int, Parameter(validator=Number(gte=0))] = 50,
    figure: Path | None = None,
    as_json: Json = False,
) -> None:
    """Put two models side by side, such as a teacher and its student: size, speed, masked words and scores.

    On labelled data: the difference of their scores with its 95 % interval, and whether it may be chance.

    Args:
        data: As for evaluate; without it there are no scores.
        sentence: With masks for both models to fill; may be repeated; without, a few English ones.
        runs: Timed runs with 1 and with 32 texts at once; 0 times nothing.
        figure: Draw it into this PNG file.
    """
    where = recipes.columns(text=text, pair=pair, label=label, choices=choices, columns=columns, encoding=encoding)
    how: dict[str, Any] = dict(metric=metric, long=long, precision=precision, device=device)
    found = clozeline.compare(a, b, data, by=by, **how, **where, sentences=sentence, runs=runs)
    if figure is not None:
        found.figure(figure)
    print(json.dumps(found.as_dict(), ensure_ascii=False) if as_json else found)


def add(app: App) -> None:
    """Give the command line this verb."""
    app.command(compare)
