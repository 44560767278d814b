"""What a server answered, kept in a folder so that nothing is lost and nothing is paid for twice; and what it cost.

NAME.json   a finished answer with what was asked, written whole; NAME is a hash of what was asked
NAME.part   the journal of an answer on its way, a line of JSON a piece; locked while somebody writes it

A journal with text in it that nobody writes is what a killed process left: the answer up to there, cut.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from clozeline.errors import InputError
from clozeline.files import locked, write_whole


@dataclass(frozen=True)
class Answer:
    """An answer.

    cut: it ends before its end, by the server, by max_tokens or by a kill; tokens_in, tokens_out: as the server counts,
    None where it did not say; cached: it was on disk; seconds: from the request to the end; retries: tries that failed
    before; unreadable: events of the stream that could not be read, whose text is missing; loose: the server refuses the
    seed or the temperature and was asked without, so that it would not write the same again.
    """

    text: str
    cut: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None
    cached: bool = False
    seconds: float = 0.0
    retries: int = 0
    unreadable: int = 0
    loose: bool = False


class Store:
    """The answers in a folder, which several processes may share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def name(asked: Mapping[str, Any]) -> str:
        """What the answer to this is called."""
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]

    def find(self, name: str) -> Answer | None:
        """The finished answer, if there is one.

        Raises:
            InputError: its file is damaged or cannot be read.
        """
        path = self.folder / f"{name}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))["answer"]
            return Answer(**kept | {"cached": True})
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"Cannot read {path}: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no answer of an endpoint: delete it, and it is asked for again.") from error

    def keep(self, name: str, asked: Mapping[str, Any], answer: Answer) -> None:
        """Write a finished answer, whole; its journal goes when it is closed."""
        said = json.dumps({"asked": asked, "answer": asdict(answer)}, ensure_ascii=True, indent=1)
        write_whole(self.folder / f"{name}.json", said + "\n")

    @contextlib.contextmanager
    def journal(self, name: str) -> Iterator[Journal]:
        """The journal of an answer, this process's alone until the block ends; waits while another one has it.

        Raises:
            InputError: the folder cannot be written, or the disk is full.
        """
        path = self.folder / f"{name}.part"
        try:
            with locked(path) as file:
                assert file is not None
                yield Journal(file)
                os.fsync(file.fileno())
            if (self.folder / f"{name}.json").exists():
                path.unlink(missing_ok=True)  # whoever waits for it looks for the answer first
        except OSError as error:
            why = error.strerror or str(error)
            raise InputError(f"Cannot write to {self.folder}: {why}. The answers that are there are kept.") from error


class Journal:
    """An answer on its way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def left(self) -> str:
        """The text that a process which is no more wrote; what it had not written to its line's end is not there."""
        self.file.seek(0)
        pieces = []
        for line in self.file:
            with contextlib.suppress(ValueError):
                pieces.append(json.loads(line))
        return whole("".join(piece for piece in pieces if isinstance(piece, str)))

    def begin(self) -> None:
        """Forget what an earlier try left."""
        self.file.truncate(0)

    def add(self, text: str) -> None:
        """Write a piece so that it stays when this process is killed."""
        self.file.write(json.dumps(text).encode() + b"\n")
        self.file.flush()


def whole(text: str) -> str:
    """The text with halves of a character that came in two pieces joined; a half alone becomes a replacement mark."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True)
class Bill:
    """What some answers cost.

    retries: tries that failed before one of these came; uncounted: answers whose tokens the server did not say, which
    is so of most that were cut: their tokens and cost are missing here. rate: tokens out a second, None of no answer;
    cost: in the unit of the prices, None without prices; loose: answers that a server without seed or temperature gave.
    """

    answers: int
    cut: int
    retries: int
    uncounted: int
    unreadable: int
    tokens_in: int
    tokens_out: int
    seconds: float
    rate: float | None
    cost: float | None
    loose: int

    @classmethod
    def of(cls, answers: Collection[Answer], price_in: float | None, price_out: float | None) -> Bill:
        """prices: of a million tokens."""
        counted = [each for each in answers if each.tokens_out is not None]
        tokens_in = sum(each.tokens_in or 0 for each in counted)
        tokens_out = sum(each.tokens_out or 0 for each in counted)
        timed = sum(each.seconds for each in counted)
        priced = price_in is not None or price_out is not None
        return cls(
            len(answers),
            sum(each.cut for each in answers),
            sum(each.retries for each in answers),
            len(answers) - len(counted),
            sum(each.unreadable for each in answers),
            tokens_in,
            tokens_out,
            sum(each.seconds for each in answers),
            tokens_out / timed if timed else None,
            (tokens_in * (price_in or 0.0) + tokens_out * (price_out or 0.0)) / 1e6 if priced else None,
            sum(each.loose for each in answers),
        )

    def __str__(self) -> str:
        parts = [f"{self.answers:,} answer{'s' * (self.answers != 1)}"]
        odd = {"retries": self.retries, "cut": self.cut, "not counted": self.uncounted}
        odd |= {"unreadable events": self.unreadable, "not reproducible": self.loose}
        if aside := ", ".join(f"{count:,} {what}" for what, count in odd.items() if count):
            parts[0] += f" ({aside})"
        parts.append(f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out")
        if self.seconds:
            parts.append(f"{self.seconds:,.0f} s" + (f" ({self.rate:,.0f} tokens/s)" if self.rate else ""))
        if self.cost is not None:
            parts.append(f"cost {'at least ' * bool(self.uncounted)}{self.cost:.4f}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Spent:
    """What a run asked of a server, and what it took from the folder, paid for before."""

    now: Bill
    before: Bill

    def __str__(self) -> str:
        return f"asked: {self.now}" + (f"; from before: {self.before}" if self.before.answers else "")
