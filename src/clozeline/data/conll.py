"""Words with their tags in columns: one word a line, a blank line between sentences (the form of the CoNLL shared tasks).

Seattle B-location
rocks   O

@user   B-person
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from clozeline.data.readers import lines
from clozeline.errors import InputError

SPACES = re.compile(" +")  # a no-break space is part of a word, but of no tag


@dataclass(frozen=True, slots=True)
class Tagged:
    """The words of a sentence and their tags, as many. place: where it begins ("test.conll line 17")."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    place: str


def sentences(path: str | Path, *, encoding: str = "utf-8", labelled: bool = True) -> Iterator[Tagged]:
    """Stream the sentences of a file: the first column is the word, the last its tag; tabs or spaces stand between them.

    Lines of spaces and tabs only are blank; lines that begin with "-DOCSTART-" are left out. All
    others have as many columns: two or more, where not `labelled` also one.

    Raises:
        InputError: the file is missing, empty or not text, or a line has one column only or not as many as the first; the
            line is named.
    """
    words: list[str] = []
    tags: list[str] = []
    start, name, any_found, wanted = 1, Path(path).name, False, 0
    for number, line in enumerate(chain(lines(path, encoding=encoding), [""]), 1):  # the end is blank too
        line = line.strip(" \r\n")
        columns = line.split("\t") if "\t" in line.strip("\t") else SPACES.split(line)
        columns = [column.strip(" \t") for column in columns]
        if not any(columns) or columns[0] == "-DOCSTART-":
            if words:
                any_found = True
                yield Tagged(tuple(words), tuple(tags), f"{name} line {start}")
            words, tags, start = [], [], number + 1
            continue
        if not columns[0] or (labelled and (len(columns) < 2 or not columns[-1])):
            raise InputError(
                f"{name} line {number} is {line.strip()!r:.40}: a line holds a word and its tag, with a tab or a space "
                "between them, or is blank between sentences."
            )
        wanted = wanted or len(columns)
        if len(columns) != wanted:
            raise InputError(
                f"{name} line {number} is {line.strip()!r:.60}: it has {len(columns)} columns, but the first line has "
                f"{wanted}. Each line needs as many."
            )
        words.append(columns[0])
        tags.append(columns[-1].strip())
    if not any_found:
        raise InputError(f"{name} holds no sentences.")


def aligned(gold: list[Tagged], predicted: list[Tagged]) -> list[tuple[str, ...]]:
    """The predicted tags for the gold sentences.

    Raises:
        InputError: the files do not hold the same words in the same sentences; the first place is named.
    """
    for one, other in zip(gold, predicted, strict=False):
        if one.words != other.words:
            at = next((at for at, (a, b) in enumerate(zip(one.words, other.words, strict=False)) if a != b), None)
            found = f"{len(other.words)} words and not {len(one.words)}" if at is None else f"{other.words[at]!r}"
            wanted = "" if at is None else f" and not {one.words[at]!r}"
            raise InputError(f"{other.place}: the sentence of {one.place} should stand here, but has {found}{wanted}.")
    if len(gold) != len(predicted):
        raise InputError(f"There are {len(gold)} sentences to score, but predictions for {len(predicted)}.")
    return [sentence.tags for sentence in predicted]
