"""SentencePiece's model file (Kudo and Richardson 2018), read as it is: the few fields of its protocol buffer that count.

Format: sentencepiece_model.proto and the wire format of protocol buffers. The library itself would bring a second tokenizer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clozeline.errors import InputError

UNIGRAM, BPE = 1, 2
CONTROL, USER_DEFINED = 3, 4


@dataclass(frozen=True, slots=True)
class Piece:
    """score: log probability, or minus the rank of a merge; kind: 1 normal, 2 unknown, 3 control, 4 user defined, 6 byte."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, slots=True)
class SentencePieceFile:
    """pieces in the order of their ids; model: 1 unigram, 2 BPE; charsmap: compiled normalisation rules, or empty."""

    pieces: tuple[Piece, ...]
    model: int
    unk_id: int
    charsmap: bytes

    @property
    def vocabulary(self) -> list[tuple[str, float]]:
        """(text, score) of each piece."""
        return [(piece.text, piece.score) for piece in self.pieces]


def read(path: Path) -> SentencePieceFile:
    """Parse a SentencePiece model file.

    Raises:
        InputError: it is none, is damaged, or holds a model of words or characters.
    """
    try:
        fields = list(_fields(path.read_bytes()))
        pieces = tuple(_piece(value) for number, value in fields if number == 1 and isinstance(value, bytes))
        trainer, normaliser = (
            {n: v for m, held in fields if m == at for n, v in _fields(_bytes(held))} for at in (2, 3)
        )
    except (ValueError, IndexError, struct.error) as error:
        raise InputError(f"{path} is damaged or no SentencePiece model ({error}). Download or copy it again.") from None
    model = trainer.get(3, UNIGRAM)
    if not pieces or model not in (UNIGRAM, BPE):
        raise InputError(f"{path} holds no SentencePiece model of unigram or BPE kind; those two are supported.")
    unk = next((at for at, piece in enumerate(pieces) if piece.kind == 2), 0)
    return SentencePieceFile(pieces, int(model), unk, _bytes(normaliser.get(2, b"")))


def _piece(data: bytes) -> Piece:
    found = dict(_fields(data))
    score = struct.unpack("<f", _bytes(found.get(2, bytes(4))))[0]
    return Piece(_bytes(found.get(1, b"")).decode("utf-8"), score, int(found.get(3, 1)))


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where text should")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field in a message: a varint as a number, everything else as its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(data):
            raise ValueError("it ends too early")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
