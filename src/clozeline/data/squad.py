"""Questions about passages in SQuAD's JSON (Rajpurkar et al. 2016; 2018 for questions that have no answer).

{"data": [{"title": "...", "paragraphs": [{"context": "...", "qas": [
    {"id": "q1", "question": "...", "answers": [{"text": "...", "answer_start": 42}], "is_impossible": false}]}]}]}

or in rows (JSON lines, Parquet, a hub data set), as the hub has it:

{"id": "q1", "question": "...", "context": "...", "answers": {"text": ["..."], "answer_start": [42]}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clozeline.data.numbers import whole_number
from clozeline.data.readers import Columns, rows
from clozeline.errors import InputError, nearest


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its passage. answers: (text, first character in the passage), none where it has no answer."""

    name: str
    question: str
    passage: str
    answers: tuple[tuple[str, int], ...]
    article: str
    place: str


def questions(path: str | Path, *, labelled: bool = True) -> Iterator[Question]:
    """The questions of a file in order; without their answers where not `labelled`.

    Raises:
        InputError: the file is missing or of another form, an id is used twice, or an answer does not stand in its passage.
    """
    path = Path(path)
    seen: set[str] = set()
    data = _json(path)
    try:
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for entry in paragraph["qas"]:
                    entry = entry if labelled else entry | {"answers": []}
                    found = _question(entry, paragraph["context"], str(article.get("title", "")), path.name)
                    if found.name in seen:
                        raise InputError(f"{found.place} is there twice; each question needs an id of its own.")
                    seen.add(found.name)
                    yield found
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path.name} has not the form of SQuAD ({_reason(error)}): see https://rajpurkar.github.io/SQuAD-explorer."
        ) from None
    if not seen:
        raise InputError(f"{path.name} holds no questions.")


def read(source: str | Path, split: str, columns: Columns) -> list[Question]:
    """The questions of SQuAD's JSON, of a file of rows or of a hub data set.

    Raises:
        InputError: as `questions`; also a row that has no question, context or answers.
    """
    if in_articles(source):
        return list(questions(source))
    found, names = [], set()
    text, passage = columns.text or "question", columns.pair or "context"
    label = columns.label if isinstance(columns.label, str) else "answers"
    for number, row in enumerate(rows(source, columns=columns.names, encoding=columns.encoding, split=split)):
        for option, column in (("text", text), ("pair", passage), ("label", label)):
            if column not in row.values:
                raise InputError(
                    f"{row.place}: there is no column {column!r} ({option}=): {nearest(column, row.values)}"
                )
        entry = {name: row.values.get(column) for name, column in (("question", text), ("context", passage))}
        if missing := next((name for name, value in entry.items() if not isinstance(value, str)), None):
            raise InputError(f"{row.place}: the {missing} is {entry[missing]!r:.40}; it must be a text.")
        answers = row.values.get(label)
        if isinstance(answers, dict) and isinstance(answers.get("text"), list):
            texts, starts = answers["text"], answers.get("answer_start")
            if not isinstance(starts, list) or len(texts) != len(starts):
                raise InputError(
                    f"{row.place}: text and answer_start must be lists of the same length: {answers!r:.80}."
                )
            answers = [{"text": each, "answer_start": start} for each, start in zip(texts, starts, strict=True)]
        name = row.values.get("id")
        entry |= {"id": str(number if name is None else name), "answers": answers}
        entry["is_impossible"] = row.values.get("is_impossible") is True
        try:
            one = _question(entry, str(entry["context"]), str(row.values.get("title", "")), row.place)
        except (KeyError, TypeError, AttributeError) as error:
            wanted = '{"text": ["..."], "answer_start": [42]}, with empty lists where there is no answer'
            raise InputError(f"{row.place}: the answers must be {wanted} ({_reason(error)}).") from None
        if one.name in names:
            raise InputError(f"{one.place} is there twice; each question needs an id of its own.")
        names.add(one.name)
        found.append(one)
    return found


def in_articles(source: str | Path) -> bool:
    """Whether this is SQuAD's JSON, and not a source of rows."""
    return str(source).lower().endswith(".json") and not _is_lines(Path(source))


def _is_lines(path: Path) -> bool:
    """Whether a .json file holds rows, one object a line, and not one object."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
        return isinstance(json.loads(first), dict) and "data" not in json.loads(first)
    except (OSError, ValueError):
        return False


def _question(entry: dict[str, Any], passage: str, article: str, file: str) -> Question:
    place = f"{file} question {entry['id']}"
    for what, value in (("question", entry["question"]), ("passage", passage)):
        if not isinstance(value, str):
            raise InputError(f"{place}: the {what} is {value!r:.40}; it must be a text.")
    answers = []
    given = [] if entry.get("is_impossible") else entry["answers"]
    if not isinstance(given, list):
        raise TypeError(f"they are {given!r:.40}")
    for answer in given:
        text, start = answer["text"], whole_number(answer, "answer_start")
        if not isinstance(text, str):
            raise TypeError(f"an answer's text is {text!r:.40}")
        if not text.strip():
            raise InputError(f"{place}: an answer is {text!r:.40}; give no answers where there is none in the passage.")
        if start < 0 or passage[start : start + len(text)] != text:
            there = passage.find(text)
            hint = f"it stands at {there}" if there >= 0 else "it stands nowhere in the passage"
            raise InputError(f"{place}: the answer {text!r:.60} does not stand at answer_start {start}; {hint}.")
        answers.append((text, start))
    return Question(str(entry["id"]), entry["question"], passage, tuple(answers), article, place)


def predictions(path: str | Path) -> dict[str, str]:
    """Answers by question id: a JSON object, an empty text where a question is said to have none.

    Raises:
        InputError: the file is missing or of another form.
    """
    found = _json(Path(path))
    wrong = next((name for name, text in found.items() if not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(f"{Path(path).name}: the answer to {wrong} is {found[wrong]!r:.40}; it must be a text.")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"{path.name} is not JSON in UTF-8: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path.name} must hold a JSON object, not a {type(found).__name__}.")
    return found


def _reason(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
