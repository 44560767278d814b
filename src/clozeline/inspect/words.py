"""Which word each token is a piece of, words being what `data.tagged.words` says: runs of letters and digits, or a sign."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from clozeline.data import tagged

if TYPE_CHECKING:
    from clozeline.tokenizer import Tokenizer


def readable(tokenizer: Tokenizer, ids: Iterable[int]) -> tuple[str, ...]:
    """Tokens as a reader knows them: see `as_text`."""
    return as_text(tokenizer, [tokenizer.token(int(token_id)) for token_id in ids])


def as_text(tokenizer: Tokenizer, tokens: Sequence[str]) -> tuple[str, ...]:
    """Tokens, or what is split into them: where a vocabulary writes bytes as letters, the text that the bytes are.

    A space before it is ▁, as SentencePiece has it; bytes that are no whole character are \\xf0 and the like.
    """
    if "ByteLevel" not in str(tokenizer._backend.decoder):
        return tuple(tokens)
    byte, added = _bytes(), {each.content for each in tokenizer._backend.get_added_tokens_decoder().values()}
    plain = {token: bytes(byte[sign] for sign in token) for token in {*tokens} - added if byte.keys() >= {*token}}
    return tuple(_spelled(plain[token]) if token in plain else token for token in tokens)


def _spelled(token: bytes) -> str:
    text = token.decode("utf-8", "backslashreplace")
    text = re.sub(r"[\x00-\x1f\x7f]", lambda sign: sign[0].encode("unicode_escape").decode(), text)
    return f"▁{text[1:]}" if text.startswith(" ") else text


@cache
def _bytes() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for (Radford et al. 2019, GPT-2)."""
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(256 + at): byte for at, byte in enumerate(others)}


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
