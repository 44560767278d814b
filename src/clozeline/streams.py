"""Texts in and results out for the command line, in constant memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.lib import format as npy

from clozeline.data import choices, conll, squad, tagged
from clozeline.data.readers import TEXT_NAMES, Columns, Example, examples, rows
from clozeline.data.squad import Question
from clozeline.data.tagged import TaggedText
from clozeline.errors import InputError, nearest
from clozeline.files import staged
from clozeline.tasks.multiple_choice import MultipleChoice
from clozeline.tasks.question_answering import QuestionAnswering
from clozeline.tasks.supervised import Supervised
from clozeline.tasks.token_classification import TokenClassification

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
        _alone(file is not None or stdin or any(options.get(name) is not None for name in ("text", "pair", "format")))
        return (Example(text, None, None, f"text {number}") for number, text in enumerate(given, 1)), False
    source = file or "-"
    live = source == "-" and sys.stdin.isatty()
    if live:
        print("Type a text and press Enter; Ctrl-D ends.", file=sys.stderr)
    return examples(source, **options), live


def _alone(other: bool) -> None:
    if other:
        raise InputError(
            "Texts come as arguments or from a file, not both; --text, --pair, --format, --columns, --choices and - go "
            "with a file."
        )


def inputs(
    task: Any, given: Sequence[str], file: str | None, stdin: bool, format: str | None, columns: Mapping[str, Any]
) -> tuple[Iterator[Any], bool]:
    """As `texts`, the examples of a task: of some a question comes with its passage, or its choices.

    columns: as `recipe.columns` gives them. What the data says of the right answer is not read.

    Raises:
        InputError: as `texts`; also where a question has no passage or choices.
    """
    where = Columns(**{"names" if name == "columns" else name: value for name, value in columns.items()})
    source = file or "-"
    if given:
        _alone(file is not None or stdin or any((where.text, where.pair, where.choices, where.names, format)))
        if isinstance(task, QuestionAnswering | MultipleChoice):
            other = list(given[1:]) if isinstance(task, MultipleChoice) else given[1] if len(given) == 2 else None
            return iter([task.example(given[0], other, "the question")]), False
    elif isinstance(task, MultipleChoice):
        return iter(choices.read(source, "test", where, labelled=False, format=format)), False
    elif isinstance(task, QuestionAnswering):
        return _questions(task, source, format, where), False
    elif isinstance(task, TokenClassification) and _ending(source, format) not in ("csv", "tsv", "txt"):
        return _words(task, source, format, where), False
    options = dict(text=where.text, pair=where.pair, columns=where.names, format=format, encoding=where.encoding)
    found, live = texts(given, file, stdin, **options)
    if not isinstance(task, Supervised):
        return found, live
    return (task.example(each.text, each.pair, each.place) for each in found), live


def _ending(source: str, format: str | None) -> str:
    return (format or ("txt" if source == "-" else Path(source.removesuffix(".gz")).suffix)).lower().removeprefix(".")


def _questions(task: QuestionAnswering, source: str, format: str | None, where: Columns) -> Iterator[Question]:
    """Questions of SQuAD's JSON, or of rows; those that have an id keep it as their name."""
    if format is None and squad.in_articles(source):
        yield from squad.questions(source, labelled=False)
        return
    names = where.text or "question", where.pair or "context"
    for row in rows(source, columns=where.names, format=format, encoding=where.encoding):
        for option, name in zip(("text", "pair"), names, strict=True):
            if name not in row.values:
                raise InputError(f"{row.place}: there is no column {name!r} (--{option}): {nearest(name, row.values)}")
        found, own = task.example(row.values[names[0]], row.values[names[1]], row.place), row.values.get("id")
        yield found if own is None else replace(found, name=str(own))


def _words(task: TokenClassification, source: str, format: str | None, where: Columns) -> Iterator[TaggedText]:
    """Texts of CoNLL columns, the words in the first of them; or of rows, lists of words or texts as they come."""
    if format == "conll" or (format is None and tagged.in_columns(source)):
        for sentence in conll.sentences(source, encoding=where.encoding, labelled=False):
            yield task.example(sentence.words, None, sentence.place)
        return
    for row in rows(source, columns=where.names, format=format, encoding=where.encoding):
        usual = [name for name in (*tagged.WORDS, *TEXT_NAMES) if row.values.get(name) is not None]
        name = where.text or next(iter(usual), None)
        if name not in row.values:
            listed = ", ".join(map(repr, row.values))
            raise InputError(
                f"{row.place}: which column holds the text or its words is not clear; give --text, of {listed}."
            )
        yield task.example(row.values[name], None, row.place)


def shown(example: Any) -> dict[str, Any]:
    """What an example is, for a line of results: its text first; the id of a question where its data have one."""
    names = ("text", "pair", "question", "passage", "choices")
    found = {name: getattr(example, name) for name in names if hasattr(example, name)}
    if isinstance(example, Question) and example.name != example.place:
        found["id"] = example.name
    return {name: value for name, value in found.items() if value is not None}


def write(results: Iterable[tuple[Any, Any]], sink: TextIO, *, as_json: bool = False) -> tuple[int, int]:
    """Write a line for each example with its prediction; gives how many texts lost tokens, and how many tokens.

    A prediction's own columns stand before the text, or in a JSON object behind it.
    """
    cut = lost = 0
    for example, found in results:
        cut, lost = cut + (found.truncated > 0), lost + found.truncated
        said = shown(example)
        if as_json:
            print(json.dumps(said | asdict(found), ensure_ascii=False), file=sink, flush=True)
            continue
        for row in found.rows():
            print("\t".join(visible(part) for part in (*row, next(iter(said.values())))), file=sink, flush=True)
    return cut, lost


def write_answers(results: Iterable[tuple[Any, Any]], sink: TextIO) -> tuple[int, int]:
    """As `write`, one JSON object of question id to answer, when all are there: what `evaluate --predictions` reads.

    Raises:
        InputError: a question has no id, or the id of another.
    """
    answers: dict[str, str] = {}
    cut = lost = 0
    for example, found in results:
        assert isinstance(example, Question)
        if example.name == example.place or example.name in answers:
            what = "no id" if example.name == example.place else f"the id {example.name!r} of another question"
            raise InputError(
                f"{example.place} has {what}; --answers needs one for each. Use --json for questions without."
            )
        answers[example.name] = found.text
        cut, lost = cut + (found.truncated > 0), lost + found.truncated
    print(json.dumps(answers, ensure_ascii=False), file=sink)
    return cut, lost


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
