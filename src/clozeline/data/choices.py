"""Questions with choices, one of which is right: rows with a column for each choice, or with a list of them.

question,A,B,C,D,answer                 {"question": "...", "choices": ["...", "..."], "answer": 1}

ARC's and SWAG's own forms too, where a choice of SWAG is sent2 with an ending:

{"question": {"stem": "...", "choices": [{"text": "...", "label": "A"}]}, "answerKey": "A"}
sent1,sent2,ending0,ending1,ending2,ending3,label
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from clozeline.data.readers import LABEL_NAMES, Columns, Row, rows
from clozeline.errors import InputError, nearest

QUESTIONS = ("question", "sent1", "ctx", "context", "premise", "startphrase", "stem", "text")
ANSWERS = ("answer", "answerkey", "answer_key", *LABEL_NAMES)
LISTS = ("choices", "options", "endings", "answers")


@dataclass(frozen=True, slots=True)
class Choices:
    """A question with its choices; answer: the number of the right one, from 0, or None where it is not known."""

    question: str
    choices: tuple[str, ...]
    answer: int | None
    place: str


def read(
    source: str | Path, split: str, columns: Columns, *, labelled: bool = True, format: str | None = None
) -> list[Choices]:
    """The questions of a file of rows or of a hub data set.

    The answer is a choice's letter (A, B, ...), its column, its number from 0, or its text. format: as in `readers.rows`.

    Raises:
        InputError: the source cannot be read, a column is missing or not clear, or a row has no two choices or no answer.
    """
    found: list[Choices] = []
    names: tuple[str, str | None, list[str]] | None = None
    ways: dict[str, str] = {}
    for given in rows(source, columns=columns.names, format=format, encoding=columns.encoding, split=split):
        row = _flat(given)
        names = names or _columns(row, columns, labelled)
        one, way = _choices(row, *names)
        ways.setdefault(way, row.place)
        if len(ways.keys() & {"a letter", "a number"}) == 2:
            other = next(place for each, place in ways.items() if each not in (way, ""))
            raise InputError(
                f"{row.place}: the answer is {way}, but not in {other}. Numbers begin at 0 here; write all answers alike."
            )
        found.append(one)
    return found


def _flat(row: Row) -> Row:
    """ARC's own form, where the question holds its choices, as a row with a column of each."""
    held = row.values.get("question")
    if not isinstance(held, dict):
        return row
    return Row({**row.values, "question": held.get("stem"), "choices": held.get("choices")}, row.place)


def _columns(row: Row, columns: Columns, labelled: bool) -> tuple[str, str | None, list[str]]:
    """The columns of question, answer and choices: one column that holds a list, or one a choice."""
    there = list(row.values)
    label = columns.label if isinstance(columns.label, str) else None
    given = [*([columns.text] if columns.text else []), *([label] if label else []), *(columns.choices or [])]
    if missing := next((name for name in given if name not in there), None):
        raise InputError(f"{row.place}: there is no column {missing!r}: {nearest(missing, there)}")
    plain = [name for name in there if not _several(row.values[name])]
    usual = [name for name in there if name.lower() in QUESTIONS]
    text = columns.text or ("sent1" if {"sent1", "sent2"} <= {*there} else next(iter(usual), None))
    label = label if label or not labelled else next((name for name in plain if name.lower() in ANSWERS), None)
    choices = list(columns.choices or [name for name in there if name not in plain and name.lower() in LISTS])
    if not choices:
        stems = ("ending", "choice", "option", "solution", "sol", "answer")
        free = [name for name in there if name not in (text, label) and name.lower() not in ANSWERS]
        choices = [name for name in free if name.lower().rstrip("0123456789_") in stems or name in [*ascii_uppercase]]
    if text is None or (label is None and labelled) or not choices:
        what = "question" if text is None else "choices" if not choices else "answer"
        option = {"question": "text=", "answer": "label=", "choices": "choices="}[what]
        raise InputError(f"{row.place}: which column is the {what} is not clear; give {option}, of {', '.join(there)}.")
    return text, label, choices


def _several(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and isinstance(value.get("text"), list))


def _choices(row: Row, text: str, label: str | None, columns: Sequence[str]) -> tuple[Choices, str]:
    """The question of a row, and how its answer is given."""
    question = row.values.get(text)
    value, marks = [row.values.get(column) for column in columns], list(columns)
    if len(columns) == 1 and _several(value[0]):
        held: Any = value[0]
        if isinstance(held, list) and held and all(isinstance(each, dict) for each in held):
            held = {part: [each.get(part) for each in held] for part in ("text", "label")}
        value = held if isinstance(held, list) else held["text"]
        own = held.get("label") if isinstance(held, dict) else None
        marks = [str(mark) for mark in own] if isinstance(own, list) and len(own) == len(value) else []
    choices = [
        each for each in value if each is not None and str(each).strip()
    ]  # a question may have fewer than others
    if not isinstance(question, str) or not all(isinstance(each, str) for each in choices):
        raise InputError(f"{row.place}: the question and its choices must be texts.")
    if len(choices) < 2:
        there = (
            f"{columns[0]} is {row.values.get(columns[0])!r:.40}" if len(columns) == 1 else f"there are {len(choices)}"
        )
        raise InputError(f"{row.place}: a question needs two choices or more, in a list or in a column each; {there}.")
    if value[: len(choices)] != choices:
        raise InputError(f"{row.place}: an empty choice stands before another one; leave only the last ones empty.")
    answer, way = (None, "") if label is None else _answer(row, label, choices, marks)
    if text == "sent1" and all(column.startswith("ending") for column in columns):  # SWAG's second sentence is begun
        begun = row.values.get("sent2") or ""
        choices = [f"{begun} {ending}".strip() for ending in choices]
    return Choices(question, tuple(choices), answer, row.place), way


def _answer(row: Row, label: str, choices: Sequence[str], marks: Sequence[str]) -> tuple[int, str]:
    """The number of the right choice, and how it is given."""
    given = row.values.get(label)
    number = isinstance(given, int | float) and not isinstance(given, bool)
    name = (
        "" if given is None else str(int(given) if isinstance(given, float) and given.is_integer() else given).strip()
    )
    letters = list(ascii_uppercase[: len(choices)])
    numbers, texts = [str(at) for at in range(len(choices))], [choice.strip() for choice in choices]
    ways = {"a mark": marks[: len(choices)], "a letter": letters, "a number": numbers}
    ways |= {} if number else {"a text": texts}
    found = {way: list(known).index(name) for way, known in ways.items() if list(known).count(name) == 1}
    if "a mark" in found:
        return found["a mark"], "a letter" if name in letters else "a mark"
    if len(set(found.values())) > 1:
        raise InputError(
            f"{row.place}: the answer {name!r:.40} is {' and '.join(found)} of different choices; give letters instead."
        )
    if found:
        way, chosen = next(iter(found.items()))
        return chosen, way
    must = (
        f"it must be a letter from A to {letters[-1]}, a number from 0 to {len(choices) - 1}, or the text of a choice"
    )
    if not name:
        raise InputError(f"{row.place}: there is no answer in the column {label!r}; {must}.")
    if texts.count(name) > 1:
        raise InputError(
            f"{row.place}: {texts.count(name)} choices are {name!r:.40}, the answer; give its letter instead."
        )
    raise InputError(f"{row.place}: the answer is {name!r:.40}; {must}.")
