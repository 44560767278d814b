"""Small data and small batches that several tests share; all of it is a function of a seed."""

from __future__ import annotations

import csv
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from clozeline.batch import Layout, Packed
from clozeline.bundle import Bundle
from clozeline.config import EncoderConfig

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIGNS = {"negative": ["bad", "dull", "weak"], "positive": ["good", "bright", "strong"]}
PLAIN = [f"w{number}" for number in range(50)]
VOCABULARY = [*SPECIAL, *(word for words in SIGNS.values() for word in words), *PLAIN]


class Done(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]
Row = tuple[str, str]
Pieces = Sequence[tuple[str, float, int]]


def reviews(count: int, seed: int = 0, shortest: int = 2, longest: int = 12) -> list[Row]:
    """Texts of uneven length with their labels, half of each; one word of a text tells which. w40 to w49 are not used."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for at in range(count):
        label = list(SIGNS)[at % 2]
        words = random.choice(PLAIN[:40], size=random.integers(shortest, longest + 1)).tolist()
        words[random.integers(len(words))] = str(random.choice(SIGNS[label]))
        rows.append((" ".join(words), label))
    return rows


def write_csv(path: Path, rows: Iterable[Row]) -> Path:
    """A CSV file of texts and labels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def as_trained(loaded: Bundle, folder: Path) -> Path:
    """Save a model whose head is fresh as if it had been trained."""
    replace(loaded, fresh=[]).save(folder)
    return folder


def random_batch(config: EncoderConfig, lengths: Sequence[int], seed: int = 0, *, pairs: bool = True) -> Packed:
    """Random tokens, none of them padding; with `pairs`, the later part of each sequence is in segment 1."""
    random = np.random.default_rng(seed)
    ids = [random.integers(1, config.vocab_size, length) for length in lengths]
    segments = [np.arange(length) >= (2 * length + 2) // 3 for length in lengths]
    return Packed.of(ids, [kind.astype(np.int64) for kind in segments] if pairs and config.segments > 1 else None)


def pad(values_T: torch.Tensor, layout: Layout) -> torch.Tensor:
    """(T, ...) -> (S, longest, ...), zeros where no token is: what padded code works on."""
    return torch.nn.utils.rnn.pad_sequence(list(values_T.split(layout.lengths)), batch_first=True)


def real(layout: Layout) -> torch.Tensor:
    """(S, longest), True where a token is: `pad(x, layout)[real(layout)]` is x again."""
    return torch.arange(layout.longest) < torch.tensor(layout.lengths)[:, None]


def write_sentencepiece(path: Path, pieces: Pieces, model: int = 1, charsmap: bytes = b"") -> Path:
    """A SentencePiece model file of (text, score, kind) pieces; model 1 is unigram, 2 BPE."""

    def number(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)

    def held(field: int, data: bytes) -> bytes:
        return number(field << 3 | 2) + number(len(data)) + data

    parts = [
        held(1, held(1, text.encode()) + number(2 << 3 | 5) + struct.pack("<f", score) + number(3 << 3) + number(kind))
        for text, score, kind in pieces
    ]
    path.write_bytes(b"".join(parts) + held(2, number(3 << 3) + number(model)) + held(3, held(2, charsmap)))
    return path
