"""A corpus as token ids on the disk, in shards that are mapped into memory: the form that pre-training reads.

A folder has a manifest.json and, for each shard, four arrays:

    NNNNN.tokens.npy     the ids of all its sentences, uint16 where the vocabulary allows it, else uint32
    NNNNN.sentences.npy  (sentences + 1,) uint32, where each sentence begins and ends in the tokens
    NNNNN.sections.npy   (sections + 1,) uint32, where each section begins and ends in the sentences
    NNNNN.documents.npy  (documents + 1,) uint32, where each document begins and ends in the sections

A section is a run of sentences of a document, of at most `SECTION` tokens: the unit that training shuffles. A document lies
in one shard. There are no special tokens. `shard_writing` writes them.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clozeline.errors import InputError
from clozeline.tokenizer import Tokenizer

FORMAT = 1
MANIFEST = "manifest.json"
HELD_OUT = "held-out"
"""The folder, inside that of a corpus, of the documents that were held out for validation."""

SECTION = 4096  # tokens
ARRAYS = ("tokens", "sentences", "sections", "documents")

OPEN = 64
"""Shards that are open at once. Each takes four file descriptors, of which a process may mostly have 1,024."""


@dataclass(frozen=True, slots=True)
class Shard:
    """What one shard holds.

    read: documents of the corpus, kept or not, that had been read when the last of this shard had; without_tokens: documents
    left out of it because the tokenizer makes nothing of them; sha256: of each file, by array.
    """

    documents: int
    sections: int
    sentences: int
    tokens: int
    read: int
    without_tokens: int
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of shards holds, and what it was made from.

    tokenizer: `Tokenizer.digest`; settings: how it was made; sources: as they were given; files, size: how many files these
    are, and their bytes; skipped: how many documents of the whole corpus were left out, by reason, and "cut", how many were
    too long and are several; finished: whether all of the corpus is in it, before which nothing is said to be skipped.
    """

    tokenizer: str
    vocab_size: int
    settings: dict[str, Any]
    sources: list[str]
    files: int
    size: int
    shards: list[Shard]
    skipped: dict[str, int]
    finished: bool
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest in a folder.

        Raises:
            InputError: there is none, or one that cannot be used.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(
                f"{folder} has no {MANIFEST}, so it holds no corpus that training can read; make one of your texts first."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            written = values["format"]
            if written == FORMAT:
                del values["total"]
                return cls(**values | {"shards": [Shard(**shard) for shard in values["shards"]]})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not the manifest of a corpus, or is damaged: {error!r}.") from None
        raise InputError(f"{path} has format {written!r}, but this version reads {FORMAT}; make the corpus again.")

    def total(self) -> dict[str, int]:
        """How many documents, sections, sentences and tokens there are."""
        return {name: sum(getattr(shard, name) for shard in self.shards) for name in reversed(ARRAYS)}

    def json(self) -> str:
        return json.dumps(asdict(self) | {"total": self.total()}, indent=1, ensure_ascii=False) + "\n"


def shard_files(number: int) -> dict[str, str]:
    """The names of a shard's files, by array."""
    return {array: f"{number:05d}.{array}.npy" for array in ARRAYS}


def broken(folder: Path, shards: Sequence[Shard], *, verify: bool = True) -> tuple[int, str] | None:
    """The first shard that is not as it was written, and what is wrong with it.

    verify: whether to compare all bytes, by checksum, and not only whether the files are there.
    """
    paths = [folder / name for number in range(len(shards)) for name in shard_files(number).values()]
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        found = pool.map(sha256 if verify else _there, paths)
        for at, (path, digest) in enumerate(zip(paths, found, strict=True)):
            wanted = shards[at // len(ARRAYS)].sha256[ARRAYS[at % len(ARRAYS)]]
            if digest is None or (verify and digest != wanted):
                pool.shutdown(cancel_futures=True)
                what = "is missing" if digest is None else f"is damaged: its checksum is not the one in {MANIFEST}"
                return at // len(ARRAYS), f"{path.name} {what}"
    return None


def sha256(path: Path) -> str | None:
    """The SHA-256 of a file, None if there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _there(path: Path) -> str | None:
    return "" if path.is_file() else None


class _Arrays(NamedTuple):
    tokens: np.ndarray
    sentences: np.ndarray
    sections: np.ndarray
    documents: np.ndarray


class Shards:
    """The tokens of a corpus. Documents, sections, sentences and tokens are numbered through all shards, from 0.

    Only what is asked for is read from the disk, and memory does not depend on the size of the corpus.

    documents, sections, sentences, tokens: how many there are; vocab_size: of the tokenizer.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest, self.vocab_size = folder, manifest, manifest.vocab_size
        self._first = {
            name: list(accumulate((getattr(shard, name) for shard in manifest.shards), initial=0)) for name in ARRAYS
        }
        self.tokens, self.sentences, self.sections, self.documents = (self._first[name][-1] for name in ARRAYS)
        self._arrays: OrderedDict[int, _Arrays] = OrderedDict()

    @classmethod
    def open(cls, folder: str | Path, tokenizer: Tokenizer | None = None, *, verify: bool = True) -> Shards:
        """Open the shards in a folder.

        tokenizer: the one that the ids must be of; None asks for none. verify: whether to compare the checksums of all files
            first, which reads them once.

        Raises:
            InputError: the folder has no manifest, is not finished, lacks a file or has a damaged one, or was made with
                another tokenizer.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if not manifest.finished:
            raise InputError(
                f"{folder} is not finished: the work was stopped. Begin it again; it goes on where it was."
            )
        if tokenizer is not None and tokenizer.digest() != manifest.tokenizer:
            raise InputError(
                f"{folder} was made with another tokenizer (of {manifest.vocab_size:,} tokens; this one has "
                f"{tokenizer.vocab_size:,}): take that one, or make the corpus again with this one."
            )
        if (found := broken(folder, manifest.shards, verify=verify)) is not None:
            raise InputError(f"{folder}: {found[1]}. Begin the work that made it again; whole shards are kept.")
        return cls(folder, manifest)

    def section_sentences(self, section: int) -> tuple[int, int]:
        """The sentences [first, last) of a section."""
        at, local = self._find("sections", section)
        first, last = self._load(at).sections[local : local + 2].tolist()
        return self._first["sentences"][at] + first, self._first["sentences"][at] + last

    def document_of(self, section: int) -> int:
        """The document that a section is of."""
        at, local = self._find("sections", section)
        # a number of the array's own kind: another would make NumPy convert, and so read, all of it
        return self._first["documents"][at] + int(self._load(at).documents.searchsorted(np.uint32(local), "right")) - 1

    def document_sentences(self, document: int) -> tuple[int, int]:
        """The sentences [first, last) of a document."""
        at, local = self._find("documents", document)
        arrays = self._load(at)
        first, last = arrays.sections[arrays.documents[local : local + 2]].tolist()
        return self._first["sentences"][at] + first, self._first["sentences"][at] + last

    def bounds(self, first: int, last: int) -> np.ndarray:
        """(last - first + 1,) int64, where the sentences [first, last) of a document begin and end in the tokens."""
        at, local = self._find("sentences", first)
        held = self._load(at).sentences[local : local + last - first + 1]
        assert len(held) == last - first + 1, "sentences of one document"
        return held.astype(np.int64) + self._first["tokens"][at]

    def ids(self, start: int, end: int) -> np.ndarray:
        """(end - start,) uint16 or uint32, the tokens [start, end) of a document: a view that cannot be written."""
        at, local = self._find("tokens", start)
        held = self._load(at).tokens[local : local + end - start]
        assert len(held) == end - start, "tokens of one document"
        return held.view(np.ndarray)

    def _find(self, unit: str, number: int) -> tuple[int, int]:
        """The shard that one is in, and its number there."""
        first = self._first[unit]
        assert 0 <= number < first[-1], f"{unit[:-1]} {number} of {first[-1]}"
        at = bisect_right(first, number) - 1
        return at, number - first[at]

    def _load(self, number: int) -> _Arrays:
        arrays = self._arrays.pop(number, None)
        if arrays is None:
            paths = [self.folder / name for name in shard_files(number).values()]
            try:
                arrays = _Arrays(*(np.load(path, mmap_mode="r") for path in paths))
            except (OSError, ValueError) as error:
                raise InputError(f"Shard {number} of {self.folder} cannot be read: {error}.") from error
        self._arrays[number] = arrays
        if len(self._arrays) > OPEN:
            self._arrays.popitem(last=False)
        return arrays

    def __reduce__(self) -> tuple[Callable[..., Shards], tuple[Path, Manifest]]:
        """Copied to another process without what is mapped."""
        return Shards, (self.folder, self.manifest)
