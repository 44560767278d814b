"""Which word each token is a piece of, words being what `data.tagged.words` says: runs of letters and digits, or a sign."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from clozeline.data import tagged


def lettered(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end that have letters, digits or their marks, whatever the tokenizer."""
    spans = tagged.words(text)
    return [span for span in spans if any(unicodedata.category(sign)[0] in "LMN" for sign in text[slice(*span)])]


def word_of(words: Sequence[Sequence[tuple[int, int]]], offsets: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """(L,) the number of the word that each token is of, counted over all texts, -1 for special tokens.

    A token of several words is of the first; one of none (a space, a sign that is not seen) of the next, or of the last.

    words: of each text; offsets: (L, 2) characters of its text that a token covers; sources: (L,) which text, -1 for none.
    """
    ends, before = [[end for _, end in each] for each in words], np.cumsum([0, *(max(1, len(each)) for each in words)])
    found = np.full(len(sources), -1)
    for at, (source, start) in enumerate(zip(sources.tolist(), offsets[:, 0].tolist(), strict=True)):
        if source >= 0:
            found[at] = before[source] + max(0, min(bisect_right(ends[source], start), len(ends[source]) - 1))
    return found
