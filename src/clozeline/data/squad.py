"""Questions about passages in SQuAD's JSON (Rajpurkar et al. 2016; 2018 for questions that have no answer).

{"data": [{"title": "...", "paragraphs": [{"context": "...", "qas": [
    {"id": "q1", "question": "...", "answers": [{"text": "...", "answer_start": 42}], "is_impossible": false}]}]}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clozeline.errors import InputError


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its passage. answers: (text, first character in the passage), none where it has no answer."""

    name: str
    question: str
    passage: str
    answers: tuple[tuple[str, int], ...]
    article: str
    place: str


def questions(path: str | Path) -> Iterator[Question]:
    """The questions of a file in order.

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


def _question(entry: dict[str, Any], passage: str, article: str, file: str) -> Question:
    place = f"{file} question {entry['id']}"
    answers = []
    for answer in () if entry.get("is_impossible") else entry["answers"]:
        text, start = answer["text"], answer["answer_start"]
        if passage[start : start + len(text)] != text:
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
