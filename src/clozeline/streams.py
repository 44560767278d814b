"""Texts in and results out for the command line, in constant memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.lib import format as npy

from clozeline.data import choices
from clozeline.data.readers import Columns, Example, examples
from clozeline.errors import InputError
from clozeline.files import staged
from clozeline.tasks.multiple_choice import MultipleChoice
from clozeline.tasks.question_answering import QuestionAnswering
from clozeline.tasks.supervised import Supervised

VISIBLE = {code: repr(chr(code))[1:-1] for code in [*range(32), 127]}


def visible(text: str) -> str:
    """The text with its control characters spelled out: one text is one line, and none of it steers a terminal."""
    return text.translate(VISIBLE)


def texts(given: Sequence[str], file: str | None, stdin: bool, **options: Any) -> tuple[Iterator[Example], bool]:
    """The texts given, or those of a file or of standard input as they come; and whether somebody is typing them.

    Raises:
        InputError: there are texts and a file.
    """
    if given:
        if file is not None or stdin or any(options.get(name) is not None for name in ("text", "pair", "format")):
            raise InputError(
                "Texts come as arguments or from a file, not both; --text, --pair, --format and - go with a file."
            )
        return (Example(text, None, None, f"text {number}") for number, text in enumerate(given, 1)), False
    source = file or "-"
    live = source == "-" and sys.stdin.isatty()
    if live:
        print("Type a text and press Enter; Ctrl-D ends.", file=sys.stderr)
    return examples(source, **options), live


def inputs(
    task: Any, given: Sequence[str], file: str | None, stdin: bool, **options: Any
) -> tuple[Iterator[Any], bool]:
    """As `texts`, the examples of a task: of some a question comes with its passage, or its choices.

    Raises:
        InputError: as `texts`; also where a question has no passage or choices.
    """
    if given and isinstance(task, QuestionAnswering | MultipleChoice) and not (file or stdin):
        other = list(given[1:]) if isinstance(task, MultipleChoice) else given[1] if len(given) == 2 else None
        return iter([task.example(given[0], other, "the question")]), False
    if isinstance(task, MultipleChoice):
        where = Columns(text=options["text"], encoding=options["encoding"])
        return iter(choices.read(file or "-", "test", where, labelled=False)), False
    if isinstance(task, QuestionAnswering):
        options |= {"text": options["text"] or "question", "pair": options["pair"] or "context"}
    found, live = texts(given, file, stdin, **options)
    if not isinstance(task, Supervised):
        return found, live
    return (task.example(each.text, each.pair, each.place) for each in found), live


def shown(example: Any) -> dict[str, Any]:
    """What an example is, for a line of results: its text first."""
    names = ("text", "pair", "question", "passage", "choices")
    found = {name: getattr(example, name) for name in names if hasattr(example, name)}
    return {name: value for name, value in found.items() if value is not None}


@contextmanager
def sink(out: Path | None) -> Iterator[TextIO]:
    """Where lines of results go: standard output, or a file that appears when all of them are there."""
    if out is None:
        yield sys.stdout
    else:
        with staged(out.parent) as stage, (stage / out.name).open("w", encoding="utf-8", newline="\n") as file:
            yield file


def write_vectors(path: Path, parts: Iterator[np.ndarray]) -> None:
    """Write arrays of one kind, (n, ...) each and at least one, under each other as one .npy file, whole or not at all.

    Raises:
        InputError: the file cannot be written, or the disk is full.
    """
    with staged(path.parent) as stage, (stage / path.name).open("wb") as file:
        first = next(parts)
        header: dict[str, Any] = {"descr": npy.dtype_to_descr(first.dtype), "fortran_order": False}
        npy.write_array_header_1_0(file, header | {"shape": (0, *first.shape[1:])})
        rows = 0
        for part in chain([first], parts):
            file.write(np.ascontiguousarray(part).data)
            rows += len(part)
        file.seek(0)  # NumPy leaves room in a header for the first dimension to grow
        npy.write_array_header_1_0(file, header | {"shape": (rows, *first.shape[1:])})
