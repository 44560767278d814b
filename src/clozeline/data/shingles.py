"""How alike two texts are: their words, the shingles of these, and MinHash, which compares them by a few numbers.

Two texts are nearly the same when the Jaccard index of their shingles, the runs of `SHINGLE` words, is at least `NEAR`.
Case, punctuation, width and spacing do not count. Pairs worth that look come from MinHash (Broder 1997) cut into bands
(Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

NEAR = 0.8
"""The Jaccard index from which two texts are nearly the same."""

SHINGLE = 3
"""Words of a shingle. A changed word inside a text takes three with it, so texts of 29 words on stay near; a word more at
an end takes one, so texts of 6 would. Single words would make near what only has the same subject."""

SHORT = 8
"""A text, or one text of a pair, of fewer words is only like one with the same words: one word is too much of it."""

BANDS, ROWS = 16, 6
"""Minima of MinHash: pairs at 0.8 are found with a chance of 99.2 %, at 0.9 of 99.999 %; at 0.5 22 % are looked at."""

HASH = 40
"""Bits of a hash, below those that say whose it is: one in a million pairs of texts with 1,000 shingles has one mistaken."""

KNOWN = 2**18  # words whose numbers are kept at hand

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")  # of Thai, Lao, Burmese, Khmer, kana and Han each letter is a word


class _Blank(dict[int, str | None]):
    """A translation table: punctuation and accents that stand alone become spaces, invisible characters nothing."""

    def __missing__(self, code: int) -> str | None:
        kind = unicodedata.category(chr(code))
        self[code] = " " if kind[0] == "P" or kind == "Sk" else None if kind == "Cf" else chr(code)
        return self[code]


BLANK = _Blank()


def words(text: str) -> list[str]:
    """The words of a text without case and marks; of a text of nothing but marks, such as ":)", the marks."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return WORD.findall(plain.translate(BLANK)) or plain.split()


class Shingler:
    """Hashes the shingles of texts; equal words have equal numbers, everywhere and always."""

    def __init__(self) -> None:
        self.numbers = _Numbers()

    def __call__(self, texts: Iterable[list[list[str]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the words of texts, each one or a pair: (H,) the hashes, each once a text; (H,) which text they are of,
        ascending; (H,) which text of a pair."""
        flat: list[int] = []
        runs: list[tuple[int, int, int]] = []
        for text, parts in enumerate(texts):
            for place, found in enumerate(parts):
                taken = found if len(found) >= SHORT else [" ".join(found), *[""] * (SHINGLE - 1)]
                flat.extend(map(self.numbers.__getitem__, taken))
                runs.append((text, place, len(taken)))
        owners, places, lengths = np.asarray(runs).T
        run = np.repeat(np.arange(len(runs)), lengths)
        whole = np.flatnonzero(run[: 1 - SHINGLE] == run[SHINGLE - 1 :])
        run, number = run[whole], np.asarray(flat, np.uint64)
        mixed = places[run].astype(np.uint64)
        for at in range(SHINGLE):
            mixed = mix(mixed + number[whole + at])
        key = np.unique(run.astype(np.uint64) << np.uint64(HASH) | mixed >> np.uint64(64 - HASH))
        run = (key >> np.uint64(HASH)).astype(np.int64)
        return key & np.uint64(2**HASH - 1), owners[run], places[run]


class _Numbers(dict[str, int]):
    """A number of 64 bits for each word, its hash."""

    def __missing__(self, word: str) -> int:
        if len(self) >= KNOWN:
            self.clear()
        self[word] = int.from_bytes(blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest())
        return self[word]


def mix(x: np.ndarray) -> np.ndarray:
    """Spread 64-bit numbers (the finaliser of splitmix64, Steele, Lea and Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def minima(hashes: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """(n, BANDS * ROWS) the least of a text's hashes under as many hash functions. Two texts share about as great a part of
    them as of their shingles. hashes, texts: (H,) as a `Shingler` gives them."""
    starts = np.flatnonzero(np.diff(texts, prepend=-1))
    odd, shift = np.random.default_rng(0).integers(2**63, size=(2, BANDS * ROWS), dtype=np.uint64)
    least = np.zeros((len(starts), BANDS * ROWS), np.uint64)
    for at in range(BANDS * ROWS):
        least[:, at] = np.minimum.reduceat(hashes * (odd[at] | np.uint64(1)) + shift[at], starts)
    return least


def bands(least: np.ndarray) -> np.ndarray:
    """(n, BANDS) what near texts are likely to share one of, each the hash of `ROWS` minima. least: as of `minima`."""
    found = np.zeros((len(least), BANDS), np.uint64)
    for at in range(ROWS):
        found = mix(found + least[:, at::ROWS])
    return found
