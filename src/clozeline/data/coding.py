"""Documents to token ids, sentence by sentence, on as many processes as wanted and in the order in which they came."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from clozeline.data.duplicates import Signature, signatures
from clozeline.data.sentences import sentences
from clozeline.data.shards import SECTION
from clozeline.errors import InputError
from clozeline.tokenizer import Tokenizer

T = TypeVar("T")

CHUNK = 2**17  # characters that the tokenizer works on at once

AHEAD = 3  # tasks for each process that are begun or wait

UNSPACED = re.compile("[\u2e80-\ua4cf\uf900-\ufaff\ufe30-\uffef\U00020000-\U0003ffff]")
"""What Chinese and Japanese sentences begin with, which follow each other without a space. Before others one stands, and for
some tokenizers it is a part of the first word."""


class Coded(NamedTuple):
    """A document as a shard holds it. ids: (tokens,) uint16 or uint32; sentences: (n,) how many tokens each has; sections:
    (m,) how many sentences each has."""

    ids: np.ndarray
    sentences: np.ndarray
    sections: np.ndarray


class Text(NamedTuple):
    """A document to work on. code: whether ids are wanted; sign: whether a signature is."""

    text: str
    code: bool
    sign: bool


Result = tuple[Coded | None, Signature | None]


def code(tokenizer: Tokenizer, texts: Sequence[Text]) -> list[Result]:
    """The ids and signatures that are wanted of each text. A sentence without tokens is left out; one of more than `SECTION`
    becomes several."""
    split = [_spaced(sentences(each.text)) if each.code else [] for each in texts]
    rows = _rows(tokenizer, [sentence for own in split for sentence in own])
    kind = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    signed = iter(signatures([each.text for each in texts if each.sign]))
    results: list[Result] = []
    for each, own in zip(texts, split, strict=True):
        ids = [next(rows).astype(kind) for _ in own]
        lengths = np.array([min(SECTION, len(row) - at) for row in ids for at in range(0, len(row), SECTION)], np.int64)
        coded = Coded(np.concatenate([*ids, np.zeros(0, kind)]), lengths, sections(lengths)) if each.code else None
        results.append((coded, next(signed) if each.sign else None))
    return results


def _spaced(found: list[str]) -> list[str]:
    """The sentences of a text with the space that stands between them, so that they are tokenised as in the whole text."""
    return [one if not at or UNSPACED.match(one) else f" {one}" for at, one in enumerate(found)]


def _rows(tokenizer: Tokenizer, found: list[str]) -> Iterator[np.ndarray]:
    """The ids of each sentence; not of all at once, since the library takes about 500 bytes a token."""
    begin = size = 0
    for at, sentence in enumerate(found, 1):
        size += len(sentence)
        if size >= CHUNK or at == len(found):
            yield from tokenizer.plain(found[begin:at])
            begin, size = at, 0


def sections(lengths: np.ndarray) -> np.ndarray:
    """(m,) how many sentences each section has, as many as have at most `SECTION` tokens. lengths: (n,) of the sentences."""
    ends, first = np.cumsum(lengths), [0]
    while first[-1] < len(lengths):
        before = ends[first[-1] - 1] if first[-1] else 0
        first.append(int(np.searchsorted(ends, before + SECTION, "right")))
    return np.diff(first)


def in_order(tasks: Iterator[tuple[T, list[Text]]], tokenizer: Path, workers: int) -> Generator[tuple[T, list[Result]]]:
    """Do `code` for each task and give the results, each with what came with its task, in the order of the tasks.

    tokenizer: its folder. A process that cannot begin would never take a whole one from a pipe.

    Raises:
        InputError: a process ended before its work was done.
    """
    if workers == 1:
        own = Tokenizer.load(tokenizer)
        yield from ((kept, code(own, texts)) for kept, texts in tasks)
        return
    waiting: deque[tuple[T, Future[list[Result]]]] = deque()
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (tokenizer,))
    try:
        for kept, texts in tasks:
            waiting.append((kept, pool.submit(_work, texts)))
            if len(waiting) >= AHEAD * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    except BrokenProcessPool:
        raise InputError(
            "A process that tokenises ended too early: memory ran out, or this is a script whose own work does not stand "
            'under `if __name__ == "__main__":`. With workers=1 there are no such processes.'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_tokenizers: list[Tokenizer] = []  # of a process of the pool, its one


def _start(tokenizer: Path) -> None:
    """Get a process of the pool ready: it uses one core, and ends when the process that began it has."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _tokenizers.append(Tokenizer.load(tokenizer))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _work(texts: list[Text]) -> list[Result]:
    return code(_tokenizers[0], texts)
