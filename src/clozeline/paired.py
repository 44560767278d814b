"""Two models on the same examples: which is better, by how much, and where (`clozeline compare A B DATA`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clozeline.data.readers import Columns, class_name, rows
from clozeline.errors import InputError, nearest
from clozeline.evaluate.compare import Comparison
from clozeline.evaluate.compare import compare as compare_counted
from clozeline.face import Model, load


def compare(
    a: Model | str | Path,
    b: Model | str | Path,
    data: str | Path,
    *,
    by: str | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | Sequence[str] | None = None,
    choices: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> Comparison:
    """Evaluate both models on labelled data, and test the difference on the pairs of their answers.

    Args:
        a, b: models, or what `load` takes; both of the same task.
        by: a column whose values cut the data into slices, each compared by itself; of data in rows.
        text, pair, label, choices, columns, encoding: as in `Model.evaluate`.

    Raises:
        InputError: as `load` and `Model.evaluate`; also models of different tasks, or data without that column.
    """
    models = [each if isinstance(each, Model) else load(each) for each in (a, b)]
    names = [each.name if isinstance(each, Model) else str(each) for each in (a, b)]
    where = Columns(text=text, pair=pair, label=label, choices=choices, names=columns, encoding=encoding)
    one, other = (model.counted(data, where) for model in models)
    slices = None if by is None else _slices(data, by, where)
    return compare_counted(one, other, (names[0], names[1]), slices)


def _slices(data: str | Path, by: str, where: Columns) -> list[str]:
    """The value of a column in each row."""
    found = []
    for row in rows(data, columns=where.names, encoding=where.encoding, split="test"):
        if by not in row.values:
            raise InputError(f"{row.place}: there is no column {by!r} to slice by: {nearest(by, row.values)}")
        found.append("-" if row.values[by] in (None, "") else class_name(row, [by]))
    return found
