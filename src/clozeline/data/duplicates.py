"""Which documents of a corpus came before: the same, or nearly the same by `shingles`, in a file instead of in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clozeline.data.shingles import BANDS, NEAR, SHORT, Shingler, bands, minima, words

CANDIDATES = 100
"""Earlier documents that one is compared with; of what a template makes, more may share a band with it."""

CACHE = 64  # MiB of the file that may be in memory

_shingler = Shingler()  # remembers words, nothing else


class Signature(NamedTuple):
    """What two documents are compared by. bands: (BANDS,) int64; least: (BANDS * ROWS,) uint16, the last bits of minima."""

    bands: np.ndarray
    least: np.ndarray


def fingerprint(text: str) -> bytes:
    """16 bytes that are the same for texts that only differ in white space."""
    return blake2b(" ".join(text.split()).encode(errors="surrogatepass"), digest_size=16).digest()


def signatures(texts: Sequence[str]) -> list[Signature | None]:
    """What to compare each text by; None where it has fewer than `SHORT` words, and is only like one with the same."""
    found = [words(text) for text in texts]
    long = [at for at, own in enumerate(found) if len(own) >= SHORT]
    signed: list[Signature | None] = [None] * len(texts)
    if long:
        least = minima(*_shingler([found[at]] for at in long)[:2])
        for at, own, shared in zip(long, least, bands(least), strict=True):
            signed[at] = Signature(shared.view(np.int64), (own >> np.uint64(16)).astype(np.uint16))
    return signed


class Seen:
    """The documents that came before. Errors are sqlite3's own; `close` when done."""

    def __init__(self, path: Path) -> None:
        """path: of a new file, which is of no use when this has gone."""
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            f"PRAGMA cache_size = -{CACHE * 1024};"
            "CREATE TABLE texts (fingerprint BLOB PRIMARY KEY) WITHOUT ROWID;"
            "CREATE TABLE documents (document INTEGER PRIMARY KEY, least BLOB);"
            "CREATE TABLE bands (band INTEGER, document INTEGER, PRIMARY KEY (band, document)) WITHOUT ROWID;"
            "BEGIN"
        )

    def same(self, text: bytes) -> bool:
        """Whether a text with this fingerprint came before; from now on one has."""
        return self._file.execute("INSERT OR IGNORE INTO texts VALUES (?)", [text]).rowcount == 0

    def near(self, signature: Signature) -> bool:
        """Whether a document nearly the same came before, as far as MinHash tells; if not, from now on this one has."""
        own = signature.bands.tolist()
        query = (
            f"SELECT least FROM documents WHERE document IN (SELECT document FROM bands WHERE band IN "
            f"({', '.join('?' * BANDS)}) LIMIT {CANDIDATES})"
        )
        for (least,) in self._file.execute(query, own):
            if np.mean(np.frombuffer(least, np.uint16) == signature.least) >= NEAR:
                return True
        new = self._file.execute("INSERT INTO documents (least) VALUES (?)", [signature.least.tobytes()]).lastrowid
        self._file.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(band, new) for band in own])
        return False

    def close(self) -> None:
        self._file.close()
