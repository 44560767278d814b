"""Texts whose words have tags: CoNLL columns, rows of words and tags, or texts with spans of characters.

{"words": ["Ada", "Lovelace", "wrote"], "tags": ["B-person", "I-person", "O"]}
{"text": "Ada Lovelace wrote", "spans": [{"start": 0, "end": 12, "label": "person"}]}
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from clozeline.data import conll, tags
from clozeline.data.numbers import whole_number
from clozeline.data.readers import ENDINGS, Columns, Row, rows
from clozeline.data.tags import Span
from clozeline.errors import InputError

WORDS, TAGS, SPANS = ("words", "tokens"), ("tags", "ner_tags", "pos_tags", "labels"), ("spans", "entities")
COLUMNS = (".txt", ".conll", ".iob", ".iob2", ".bio", ".bioes")  # endings of files of columns
UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF),
            (0x20000, 0x3FFFF))  # fmt: skip
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters: scripts that put no spaces between words."""
JOINERS = frozenset("\u00ad\u200c\u200d\u2060")  # soft hyphen, zero-width non-joiner and joiner, word joiner
HIDDEN = frozenset("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Zero-width space and marks of the direction of writing: between words, as spaces are."""


@dataclass(frozen=True, slots=True)
class TaggedText:
    """A text, the [start, end) characters of its words in order, and a tag for each word; None where none are known.

    place: where it stands ("test.conll line 17"). uneven: the entities of the tags whose spans in the data begin or end
    inside a word, so that no tags can say them exactly.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    tags: tuple[str, ...] | None
    place: str
    uneven: tuple[Span, ...] = ()


def of_words(words: Sequence[str], tags: Sequence[str] | None, place: str) -> TaggedText:
    """Words with a space between them."""
    ends = list(accumulate((len(word) + 1 for word in words), initial=0))
    spans = tuple((start, start + len(word)) for start, word in zip(ends, words, strict=False))
    return TaggedText(" ".join(words), spans, None if tags is None else tuple(tags), place)


def of_text(text: str, place: str) -> TaggedText:
    """A text as it comes, cut into words by `words`."""
    return TaggedText(text, tuple(words(text)), None, place)


def words(text: str) -> list[tuple[int, int]]:
    """The words of a text by their characters: runs of letters, digits and marks; other visible signs one by one.

    A character of a script without spaces is a word. What joins onto a sign (accents, emoji modifiers and joiners, a flag's
    second letter) stays with it. What is not seen is in no word.
    """
    found: list[tuple[int, int]] = []
    before = " "
    for at, sign in enumerate(text):
        kind = _kind(sign)
        joined = kind in ("mark", "joiner") and before != " "
        if (
            joined
            or (kind == "letter" and before in ("letter", "mark after letter"))
            or before == "joiner" != kind != " "
            or before == "half flag" == kind
        ):
            found[-1] = (found[-1][0], at + 1)
            kind = "sign" if kind == "half flag" else kind
            if kind == "mark":  # a letter after it goes on with the word, but not after a sign that is no letter
                kind = "mark after letter" if before in ("letter", "mark after letter") else "sign"
        elif kind != " ":
            found.append((at, at + 1))
            kind = "sign" if kind in ("mark", "joiner") else kind
        before = kind
    return found


def _kind(sign: str) -> str:
    code, category = ord(sign), unicodedata.category(sign)
    if sign.isspace() or sign in HIDDEN or category == "Cc":
        return " "
    if sign in JOINERS:
        return "joiner"
    # accents, skin tones, and the tags of flags such as Scotland's
    if category[0] == "M" or 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F:
        return "mark"
    if 0x1F1E6 <= code <= 0x1F1FF:
        return "half flag"
    if any(first <= code <= last for first, last in UNSPACED):
        return "sign"
    return "letter" if sign.isalnum() or sign == "_" else "sign"


def read(source: str | Path, split: str, columns: Columns) -> list[TaggedText]:
    """The tagged texts of a source: CoNLL columns, unless its name ends like a format of rows or names a hub data set.

    Raises:
        InputError: the source cannot be read, a row has not the form above, spans overlap or lie outside the text.
    """
    if in_columns(source):
        return [
            of_words(sentence.words, sentence.tags, sentence.place)
            for sentence in conll.sentences(source, encoding=columns.encoding)
        ]
    return [_row(row, columns) for row in rows(source, columns=columns.names, encoding=columns.encoding, split=split)]


def in_columns(source: str | Path) -> bool:
    """Whether this is a file of columns, one word a line, and not a source of rows."""
    name = str(source).lower().removesuffix(".gz")
    if name.endswith(COLUMNS):
        return True
    return not name.endswith(ENDINGS) and (Path(source).is_file() or "/" not in name)


def _row(row: Row, columns: Columns) -> TaggedText:
    label = columns.label if isinstance(columns.label, str) else None
    found_words = _one(row, None if columns.text is None else [columns.text], WORDS)
    found_tags = _one(row, None if label is None else [label], TAGS)
    if isinstance(found_words, list) and isinstance(found_tags, list):
        if len(found_words) != len(found_tags):
            raise InputError(f"{row.place}: there are {len(found_words)} words but {len(found_tags)} tags.")
        if not all(isinstance(word, str) and word.strip() for word in found_words):
            raise InputError(f"{row.place}: a word is empty or no text; give a list of words.")
        if not all(isinstance(tag, str) and tag for tag in found_tags):
            raise InputError(f"{row.place}: a tag is {_odd(found_tags)!r:.40}; tags are names such as B-person or O.")
        return of_words(found_words, found_tags, row.place)
    text = row.values.get(columns.text or "text")
    spans = _one(row, None if label is None else [label], SPANS)
    if isinstance(text, str) and isinstance(spans, list):
        return of_spans(text, spans, row.place)
    raise InputError(
        f'{row.place}: a row holds "words" and "tags", two lists of the same length, or "text" and "spans", a list of '
        '{"start": 0, "end": 12, "label": "person"}; this one holds ' + ", ".join(map(repr, row.values)) + "."
    )


def _one(row: Row, given: list[str] | None, usual: Sequence[str]) -> Any:
    return next((row.values[name] for name in given or usual if row.values.get(name) is not None), None)


def _odd(found: list[Any]) -> Any:
    return next(tag for tag in found if not (isinstance(tag, str) and tag))


def of_spans(text: str, spans: Sequence[Any], place: str) -> TaggedText:
    """A text with spans of characters, each with a label, which must not overlap. The tags are those of whole words.

    Raises:
        InputError: a span has not its three entries, lies outside the text, holds no word, or overlaps another one.
    """
    cut = words(text)
    entities: list[Span] = []
    uneven: list[Span] = []
    last = (0, 0)
    try:
        ordered = sorted((whole_number(span, "start"), whole_number(span, "end"), span["label"]) for span in spans)
        if not all(isinstance(label, str) and label.strip() for *_, label in ordered):
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise InputError(
            f'{place}: a span must have "start", "end" and "label", the first two whole numbers; there is {spans!r:.80}.'
        ) from None
    for start, end, label in ordered:
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"{place}: the span {start} to {end} ({label}) lies outside the text, {len(text)} characters."
            )
        if start < last[1]:
            raise InputError(
                f"{place}: the spans {last[0]} to {last[1]} and {start} to {end} overlap; a word can have one tag only."
            )
        inside = [at for at, (first, after) in enumerate(cut) if first < end and after > start]
        if not inside:
            raise InputError(
                f"{place}: the span {start} to {end} ({label}) holds no word, only {text[start:end]!r:.40}."
            )
        if entities and inside[0] < entities[-1][1]:
            shared = text[slice(*cut[inside[0]])]
            raise InputError(f"{place}: two spans share the word {shared!r:.40}; a word can have one tag only.")
        entities.append((inside[0], inside[-1] + 1, label))
        if (cut[inside[0]][0], cut[inside[-1]][1]) != (start, end):
            uneven.append(entities[-1])
        last = (start, end)
    return TaggedText(text, tuple(cut), tuple(tags.written(len(cut), entities, "BIO")), place, tuple(uneven))
