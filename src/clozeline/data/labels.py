"""Labels that are not one class a text: several classes, shares of classes, numbers; each read from the columns of a row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from clozeline.data.readers import Label, Row, class_name
from clozeline.errors import InputError

SEPARATORS = re.compile("[|;]")  # a comma stands in names: "Health, Fitness"
MOST = 3.4e38
"""What fp32, in which losses are computed, can hold."""


def class_or_shares(row: Row, columns: Sequence[str]) -> Label:
    """One class; or a soft label, an object of numbers by class such as {"positive": 0.7, "negative": 0.3}."""
    value = row.values.get(columns[0])
    return class_name(row, columns) if not isinstance(value, dict) else _shares(row, columns[0], value)


def _shares(row: Row, column: str, value: dict[str, object]) -> dict[str, float]:
    shares = {name: part for name, part in value.items() if part is not None}  # Parquet gives every row all the names
    numbers = {name: part for name, part in shares.items() if isinstance(part, int | float)}
    total = sum(numbers.values())
    if len(numbers) < len(shares) or not all(part >= 0 for part in numbers.values()) or not abs(total - 1) < 0.01:
        raise InputError(
            f"{row.place}: the soft label in column {column!r} is {value!r:.60}; it must give classes shares that add up "
            'to 1, such as {"positive": 0.7, "negative": 0.3}.'
        )
    return {name: part / total for name, part in numbers.items()}


def classes(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    """Any number of classes: a list of names, or a text with | or ; (never a comma) between them; an empty one is no class.

    Several columns of 0 and 1, each named like a class, are read too.
    """
    if len(columns) > 1:
        marks = {column: class_name(row, [column]) for column in columns}
        if odd := next((column for column, mark in marks.items() if mark not in ("0", "1")), None):
            raise InputError(f"{row.place}: column {odd!r} is {marks[odd]!r:.40}; several label columns hold 0 or 1.")
        return tuple(column for column, mark in marks.items() if mark == "1")
    value = row.values.get(columns[0])
    if isinstance(value, str | int | bool) or (isinstance(value, float) and value == value):
        value = SEPARATORS.split(value) if isinstance(value, str) else [class_name(row, columns)]
    names = [str(name).strip() for name in value] if isinstance(value, list) else None
    if names is None or any(isinstance(name, dict | list) or name is None for name in value or ()):
        raise InputError(
            f"{row.place}: the labels in column {columns[0]!r} are {value!r:.60}; give a list of names, or a text with | "
            "between them."
        )
    return tuple(dict.fromkeys(name for name in names if name))


def numbers(row: Row, columns: Sequence[str]) -> tuple[float, ...]:
    """A number for each column."""
    found = []
    for column in columns:
        value = row.values.get(column)
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not abs(number) < MOST:
            raise InputError(f"{row.place}: column {column!r} is {value!r:.40}; it must be a number.")
        found.append(number)
    return tuple(found)
