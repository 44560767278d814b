"""Sentences of running text, by rules: for segments that begin and end where sentences do, not for linguistics.

A sentence ends at . ! ? or … where a space and something that may begin one follow; at the full stops of Chinese, Japanese,
Arabic, Urdu, Armenian, Amharic, Burmese, Khmer and the scripts with a danda wherever they stand; and where a paragraph ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

WRAPPED = 120
"""Characters that no line of a text wrapped by hand has more of, but for 2 %. Most e-books have lines of 65 to 75, some of
100; in the others a line is a paragraph."""

FILLED = 40
"""Characters that half of the lines of wrapped prose have at least; verse and lists have fewer, and stay lines."""

LONGEST = 2**14
"""Characters of a sentence, some thousand tokens; what has more is no sentence, and is cut at spaces."""

MARKS = ".!?…。！？｡।॥؟۔։።။"
END = re.compile(rf"[{MARKS}]+[\"'”’»)\]}}*_」』】〉》）]*\s*")
BREAKS = re.compile(r"(?:<br ?/?>\s*)+")  # the line ends of web text
BLANK_LINE = re.compile(r"\n\s*\n")
LAST = (*MARKS, '"', "'", "”", "’")
OPENING = "\"'“‘«„([{¿¡*_—–-…."
INITIALS = re.compile(r"(?:\w\.)*\w")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


STARTS = _words("The This That These He She It They We There In On At A An But And However After When As For")
ABBREVIATIONS = _words(
    "mr mrs ms messrs mme mlle dr drs prof hon rev fr sr jr st ste mt ft gen col lt capt cmdr maj sgt cpl adm gov sen rep "
    "pres esq supt insp vs cf viz ca al approx dept univ assn bros ave blvd rd etc inc ltd co corp eds trans ed "
    "jan feb mar apr jun jul aug sept sep oct nov dec"
)
"""Words that a dot mostly does not end a sentence after; "etc." and "Inc." do so where one of `STARTS` follows."""

BEFORE_NUMBERS = _words("no nos vol vols p pp fig figs art arts ch chap sec secs op opp cap v vv pt pts")
"""Words that are abbreviations where a number follows."""


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, without space around them; joined they are the text, but for white space.

    A blank line ends a paragraph. So does every line end, but in a text wrapped by hand, such as a Project Gutenberg book:
    there a line goes on in the next, and line ends become spaces.
    """
    if "<br" in text:
        text = BREAKS.sub("\\g<0>\n\n", text)
    if "\n" not in text:
        paragraphs = [text]
    elif _wrapped(text.split("\n")):
        blocks = (block.split("\n") for block in BLANK_LINE.split(text))
        paragraphs = [" ".join(line.strip() for line in block) for block in blocks]
    else:
        paragraphs = text.split("\n")
    found: list[str] = []
    for paragraph in paragraphs:
        start = 0
        for mark in END.finditer(paragraph):
            if _ends(paragraph, start, *mark.span()):
                found.append(paragraph[start : mark.end()].strip())
                start = mark.end()
        if rest := paragraph[start:].strip():
            found.append(rest)
    return found if max(map(len, found), default=0) <= LONGEST else [piece for long in found for piece in _cut(long)]


def _cut(sentence: str) -> Iterator[str]:
    """Pieces of at most `LONGEST` characters."""
    while len(sentence) > LONGEST:
        at = sentence.rfind(" ", 1, LONGEST + 1)
        at = at if at > 0 else LONGEST
        yield sentence[:at].rstrip()
        sentence = sentence[at:].lstrip()
    yield sentence


def _wrapped(lines: list[str]) -> bool:
    """Whether lines end because they are full: nearly all are short, most are not very short, and few end a sentence."""
    stripped = [line.strip() for line in lines]
    if _part([line for line in stripped if line], 0.98) > WRAPPED:
        return False
    inner = [line for line, after in pairwise(stripped) if line and after]
    return _part(inner, 0.5) >= FILLED and 2 * sum(line.endswith(LAST) for line in inner) < len(inner)


def _part(lines: list[str], part: float) -> int:
    """The length that this part of the lines does not exceed."""
    return sorted(map(len, lines))[int(part * len(lines))] if lines else 0


def _ends(text: str, start: int, at: int, end: int) -> bool:
    """Whether the mark at `at` ends the sentence that begins at `start`; what is behind mark and space begins at `end`."""
    if end == len(text):
        return True
    if text[at] not in ".!?…":
        return text[end] != "と"  # a Japanese sentence goes on behind what it quotes
    if not text[end - 1].isspace():
        return False
    first = text[end]
    if first in OPENING:
        first = text[end : end + 9].lstrip(OPENING)[:1]
    if first.islower():
        return False
    if text[at] != "." or text[at + 1] == ".":
        return True
    word = text[max(start, at - 20) : at].rpartition(" ")[2].lstrip(OPENING)
    if word.lower() in BEFORE_NUMBERS:
        return not first.isdigit()
    if word.isdigit():
        return at - start > len(word)  # "1. " before an item
    if INITIALS.fullmatch(word) or word.lower() in ABBREVIATIONS:
        return len(word) > 2 and text[end : end + 9].partition(" ")[0] in STARTS
    return True
