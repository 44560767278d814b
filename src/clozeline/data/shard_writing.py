"""A corpus to shards of token ids (`shards` says what these are): cleaned of duplicates, tokenised on all cores, resumable.

One process reads documents, in order, and drops those that came before; others tokenise them; the first one puts what they
give, in the same order, into shards. So the result does not depend on how many processes there are. What was stopped goes on
behind the last whole shard: the documents are read again, to know what came before, but not tokenised again.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clozeline.data import corpus
from clozeline.data.coding import Coded, Text, in_order
from clozeline.data.corpus import Counts, Document, Split, documents
from clozeline.data.duplicates import Seen, fingerprint
from clozeline.data.shards import HELD_OUT, MANIFEST, SECTION, Manifest, Shard, broken, sha256, shard_files
from clozeline.errors import InputError
from clozeline.files import staged, write_whole
from clozeline.tokenizer import Tokenizer

TASK = 2**18
"""Characters that a process tokenises at once, or one document of more: some tenths of a second of work."""

REPORT = 10.0  # seconds between two lines about progress

OURS = re.compile(rf"\d{{5,}}\.\w+\.npy|{re.escape(MANIFEST)}")


def write(
    sources: Sequence[str | Path],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    text: str | None = None,
    split: Split = "file",
    encoding: str = "utf-8",
    near_duplicates: bool = False,
    held_out: float = 0.0,
    workers: int | None = None,
    shard_tokens: int = 2**24,
    overwrite: bool = False,
    quiet: bool = False,
) -> Manifest:
    """Tokenise a corpus into shards in the folder `out`, or go on where the same call was stopped before.

    Special tokens that are spelled out in a text are not read as such. Of documents that differ in white space only the
    first is kept.

    Args:
        sources, text, split, encoding: as in `corpus.documents`.
        near_duplicates: whether to drop documents nearly the same as an earlier one, as `shingles` has it and MinHash
            estimates it.
        held_out: share of the documents, chosen by a hash of their text, that go to the folder `held-out` in `out` instead,
            with a manifest of its own.
        workers: processes that tokenise; by default one for each core. 1 does all in this process. More than one need a
            script's own work to stand under `if __name__ == "__main__"`.
        shard_tokens: tokens from which a shard is full.
        overwrite: whether to begin anew where the folder holds another corpus, or another form of this one.
        quiet: whether to say nothing on standard error.

    Returns:
        The manifest of `out`; its `skipped` counts what was left out of the whole corpus.

    Raises:
        InputError: as `corpus.documents`; the folder holds something else, or cannot be written; all was held out.
    """
    if not 0 <= held_out < 1:
        raise InputError(f"held_out={held_out} must be 0, or a share of the documents below 1, such as 0.01.")
    for name, value in (("workers", workers), ("shard_tokens", shard_tokens)):
        if value is not None and value < 1:
            raise InputError(f"{name}={value} must be 1 or more.")
    out = Path(out)
    found = [Path(source) for source in corpus.files(sources) if os.path.exists(source)]
    settings = dict(text=text, split=split, encoding=encoding, near_duplicates=near_duplicates, held_out=held_out)
    settings |= dict(shard_tokens=shard_tokens, section=SECTION, longest_document=corpus.LIMIT)
    wanted = Manifest(
        tokenizer=tokenizer.digest(),
        vocab_size=tokenizer.vocab_size,
        settings=settings,
        sources=[str(source) for source in sources],
        files=len(found),
        size=sum(path.stat().st_size for path in found),
        shards=[],
        skipped={},
        finished=False,
    )
    if overwrite:
        for path in [*out.glob("*"), *(out / HELD_OUT).glob("*")]:
            if OURS.fullmatch(path.name):
                path.unlink()
    parts = [_Part(folder, wanted) for folder in ([out, out / HELD_OUT] if held_out else [out])]
    if not all(part.manifest.finished for part in parts):
        try:
            for part in parts:
                part.folder.mkdir(parents=True, exist_ok=True)
                for left in part.folder.glob(".writing-*"):  # by a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
            with (
                tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as scratch,
                closing(Seen(Path(scratch) / "seen.sqlite")) as seen,
            ):
                reader = _Reader(seen, parts, held_out, near_duplicates, quiet)
                stream = documents(sources, text=text, split=split, encoding=encoding, counts=reader.counts)
                tokenizer.save(Path(scratch))
                reader.run(stream, Path(scratch), workers or _cores())
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"Cannot write to {out}: {error}. Whole shards are kept; the same call goes on."
            ) from error
    return parts[0].manifest


class _Part:
    """A folder of shards that grows. done: documents of the corpus that need no look, as far as this folder goes."""

    def __init__(self, folder: Path, wanted: Manifest) -> None:
        """Go on with what is in the folder, if it was made in the `wanted` way."""
        self.folder, self.manifest = folder, wanted
        if (folder / MANIFEST).is_file():
            held = Manifest.read(folder)
            own, theirs = (asdict(one) | one.settings for one in (wanted, held))
            made = [
                name
                for name in ("tokenizer", "sources", "files", "size", *wanted.settings)
                if own[name] != theirs.get(name)
            ]
            if made:
                shown = "; ".join(f"{name} {theirs.get(name)!s:.60}, not {own[name]!s:.60}" for name in made)
                raise InputError(
                    f"{folder} holds a corpus made in another way ({shown}). Give another folder, or overwrite=True to "
                    "begin anew."
                )
            fault = broken(folder, held.shards)
            self.manifest = held if fault is None else replace(wanted, shards=held.shards[: fault[0]])
        self.done = max((shard.read for shard in self.manifest.shards), default=0)
        self.begin()

    def begin(self) -> None:
        """Begin a shard."""
        self.held: list[Coded] = []
        self.tokens = self.read = self.without_tokens = 0

    def add(self, number: int, coded: Coded) -> None:
        """Add document `number` of the corpus."""
        self.read = number + 1
        if not len(coded.ids):
            self.without_tokens += 1
            return
        self.held.append(coded)
        self.tokens += len(coded.ids)
        if self.tokens >= self.manifest.settings["shard_tokens"]:
            self.close_shard()

    def close_shard(self) -> None:
        """Put what is held on the disk: the arrays first, so that what the manifest names is whole."""
        assert self.tokens < 2**32, "positions are uint32"
        lengths = {
            "sentences": np.concatenate([coded.sentences for coded in self.held]),
            "sections": np.concatenate([coded.sections for coded in self.held]),
            "documents": np.array([len(coded.sections) for coded in self.held]),
        }
        names = shard_files(len(self.manifest.shards))
        with staged(self.folder) as stage:
            np.save(stage / names["tokens"], np.concatenate([coded.ids for coded in self.held]))
            for name, of_each in lengths.items():
                np.save(stage / names[name], np.concatenate([[0], np.cumsum(of_each)]).astype(np.uint32))
            sums = {name: str(sha256(stage / file)) for name, file in names.items()}
        counts = {name: len(of_each) for name, of_each in lengths.items()}
        shard = Shard(**counts, tokens=self.tokens, read=self.read, without_tokens=self.without_tokens, sha256=sums)
        self.manifest = replace(self.manifest, shards=[*self.manifest.shards, shard])
        write_whole(self.folder / MANIFEST, self.manifest.json())
        self.begin()

    def finish(self, skipped: dict[str, int]) -> None:
        """Say that the corpus is all here."""
        self.manifest = replace(self.manifest, skipped=skipped, finished=True)
        write_whole(self.folder / MANIFEST, self.manifest.json())


class _Item(NamedTuple):
    """A document on its way: its number in the corpus, what it is for, and how long it is."""

    number: int
    part: _Part
    characters: int


class _Reader:
    """Reads documents, has them tokenised, and deals them out."""

    def __init__(self, seen: Seen, parts: list[_Part], held_out: float, near: bool, quiet: bool) -> None:
        self.seen, self.parts, self.held_out, self.near = seen, parts, held_out, near
        self.counts, self.same, self.alike = Counts(), 0, 0
        self.quiet, self.began, self.said = quiet, time.monotonic(), time.monotonic()
        self.characters = 0  # tokenised by this call

    def run(self, stream: Iterator[Document], tokenizer: Path, workers: int) -> None:
        """Do all of the work. tokenizer: its folder."""
        with closing(in_order(self.tasks(stream), tokenizer, workers)) as done:
            for items, results in done:
                for item, (coded, signature) in zip(items, results, strict=True):
                    if signature is not None and self.seen.near(signature):
                        self.alike += 1
                    elif coded is not None:
                        item.part.add(item.number, coded)
                        self.characters += item.characters
                if time.monotonic() > self.said + REPORT:
                    self.say("")
        for part in self.parts:
            if part.held:
                part.close_shard()
            if not part.manifest.shards and part is self.parts[0]:
                why = "this tokenizer makes no token of them"
                if self.held_out:
                    why = f"held_out={self.held_out} took all of them; another share may do"
                raise InputError(f"The corpus has {self.counts.documents:,} documents, but {why}.")
        without = (
            part.without_tokens + sum(shard.without_tokens for shard in part.manifest.shards) for part in self.parts
        )
        skipped = {"empty": self.counts.empty, "without_tokens": sum(without), "duplicates": self.same}
        skipped |= {"near_duplicates": self.alike, "cut": self.counts.cut, "ignored_files": self.counts.ignored}
        for part in reversed(self.parts):
            part.finish(skipped)
        left = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in skipped.items() if count)
        self.say(f"; finished; {left or 'nothing left out'}")

    def tasks(self, stream: Iterator[Document]) -> Iterator[tuple[list[_Item], list[Text]]]:
        """What is to be tokenised, a task at a time; duplicates are dropped."""
        items: list[_Item] = []
        texts: list[Text] = []
        size = 0
        for number, document in enumerate(stream):
            mark = fingerprint(document.text)
            if self.seen.same(mark):
                self.same += 1
                continue
            part = self.parts[-1 if int.from_bytes(mark[:8]) < self.held_out * 2**64 else 0]
            fresh = number >= part.done
            if fresh or self.near:
                items.append(_Item(number, part, len(document.text)))
                texts.append(Text(document.text, fresh, self.near))
                size += len(document.text)
            if size >= TASK:
                yield items, texts
                items, texts, size = [], [], 0
        if items:
            yield items, texts

    def say(self, end: str) -> None:
        """A line about what has been done."""
        self.said = time.monotonic()
        if not self.quiet:
            totals = [part.manifest.total() for part in self.parts]
            tokens = sum(total["tokens"] for total in totals) + sum(part.tokens for part in self.parts)
            rate = self.characters / (self.said - self.began) / 1e6
            shards = sum(len(part.manifest.shards) for part in self.parts)
            print(
                f"{self.counts.documents:,} documents read, {tokens:,} tokens in {shards:,} shards, "
                f"{rate:.1f} million characters/s{end}",
                file=sys.stderr,
                flush=True,
            )


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
