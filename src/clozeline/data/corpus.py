"""Documents for pre-training, streamed out of files, folders and data sets of the hub.

Memory does not grow with the corpus: plain text is read in pieces of `PIECE` bytes, and a document of more than `LIMIT`
characters is handed on in parts.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from clozeline.data.readers import ENDINGS, HUB_NAME, examples, rows
from clozeline.errors import InputError, nearest

Split = Literal["file", "blank", "line"]

LIMIT = 4_000_000
"""Characters of a document, a quarter more than War and Peace has; a longer one is cut."""

PIECE = 2**20  # bytes of a plain-text file that are read at once


@dataclass(frozen=True, slots=True)
class Document:
    """A text, never blank, and where it stands ("novels.parquet row 3") for messages."""

    text: str
    place: str


@dataclass(slots=True)
class Counts:
    """What `documents` has read so far.

    documents: handed on, each part of a cut one for itself; characters: in them; empty: blank ones, left out; cut: longer
    than `LIMIT`, handed on in parts; files: read; ignored: files of a folder left out because of their ending.
    """

    documents: int = 0
    characters: int = 0
    empty: int = 0
    cut: int = 0
    files: int = 0
    ignored: int = 0


class _Piece(NamedTuple):
    """Some text of a document, and whether it is the last of it. place: of the document."""

    text: str
    last: bool
    place: str


def documents(
    sources: Sequence[str | Path],
    *,
    text: str | None = None,
    split: Split = "file",
    encoding: str = "utf-8",
    counts: Counts | None = None,
) -> Iterator[Document]:
    """Stream the documents of a corpus, in the order of its sources.

    A row of CSV, TSV, JSON lines, Parquet or a hub data set is a document. So is a plain-text file (.txt), or each
    paragraph or line of it, as `split` says. All but Parquet may end in .gz.

    Args:
        sources: files; folders, of which all files with a known ending are read, sorted by path, hidden ones left out;
            and data sets of the hub, written as in `readers.rows`.
        text: the column of the texts in rows; None guesses it as `readers.examples` does.
        split: what a document of a plain-text file is: the whole "file"; what stands between "blank" lines (the form in
            which BERT's own code takes its corpus); or each "line".
        encoding: of text files.
        counts: is kept up to date; what was left out stands there.

    Raises:
        InputError: a source is missing, damaged or not text in this encoding (the line or row is named), or the corpus has
            no document.
    """
    if split not in get_args(Split):
        raise InputError(f"split={split!r} does not cut plain text into documents: {nearest(split, get_args(Split))}")
    counts = Counts() if counts is None else counts
    for source in files(sources, counts):
        counts.files += 1
        plain = str(source).lower().removesuffix(".gz").endswith(".txt")
        pieces = _plain(Path(source), split, encoding) if plain else _rows(source, text, encoding)
        for document in _whole(pieces, counts):
            counts.documents += 1
            counts.characters += len(document.text)
            yield document
    if not counts.documents:
        raise InputError(f"The corpus has no text: {counts.files:,} sources read, {counts.empty:,} empty documents.")


def files(sources: Sequence[str | Path], counts: Counts | None = None) -> list[str | Path]:
    """The files that sources stand for, folders replaced by what is in them; data sets of the hub stay what they are.

    Raises:
        InputError: there are no sources, a file is missing, or a folder has no file that can be read.
    """
    if isinstance(sources, str | Path) or not sources:
        raise InputError(f"sources={sources!r} must be a list of files, folders or hub data sets, with one at least.")
    found: list[str | Path] = []
    for source in sources:
        if source == "-":
            raise InputError("A corpus is read more than once, so it cannot be standard input; write it to a file.")
        if Path(source).is_dir():
            inside = sorted(_inside(Path(source)))
            known = [path for path in inside if path.name.lower().removesuffix(".gz").endswith(ENDINGS)]
            if not known:
                raise InputError(f"Folder {str(source)!r} has no file to read; known endings: {', '.join(ENDINGS)}.")
            if counts is not None:
                counts.ignored += len(inside) - len(known)
            found += known
        else:
            hub = isinstance(source, str) and HUB_NAME.fullmatch(source)
            if not os.path.exists(source) and (not hub or Path(source).suffix in ENDINGS):
                next(rows(source))  # says what is wrong before hours have gone into other sources
            found.append(source)
    return found


def _inside(folder: Path) -> Iterator[Path]:
    for parent, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _rows(source: str | Path, text: str | None, encoding: str) -> Iterator[_Piece]:
    for row in examples(source, text=text, encoding=encoding):
        yield _Piece(row.text, True, row.place)


def _plain(path: Path, split: Split, encoding: str) -> Iterator[_Piece]:
    """The documents of a plain-text file in pieces."""
    name = path.name
    place, fresh, begun = name, True, False  # fresh: a line begins; begun: the document has text
    try:
        with gzip.GzipFile(path) if name.lower().endswith(".gz") else path.open("rb") as stream:
            for number, piece in _decoded(stream, name, encoding):
                blank = fresh and piece.isspace()
                fresh = piece.endswith("\n")
                if split == "blank" and blank and not begun:
                    continue
                if split != "file" and not begun:
                    place = f"{name} line {number}"
                last = blank if split == "blank" else fresh and split == "line"
                begun = not last
                yield _Piece(piece, last, place)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} cannot be read: {error}.") from error
    if begun:
        yield _Piece("", True, place)


def _decoded(stream: io.BufferedIOBase, name: str, encoding: str) -> Iterator[tuple[int, str]]:
    """The lines of a stream, with their number and end; one longer than `PIECE` comes in several."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)  # refuses what is no encoding of text, such as base64
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise InputError(f"Encoding {encoding!r} is not known; usual ones are utf-8, cp1252 and gb18030.") from None
    number, before, raw = 1, 0, b"\n"  # before: bytes of this line that have been read
    try:
        while raw:
            raw = stream.readline(PIECE)
            if b"\0" in raw:
                raise InputError(
                    f"{name} line {number} has a NUL byte: not a text file, or one in UTF-16; convert it to UTF-8."
                )
            text = decoder.decode(raw, final=not raw)
            if text:
                yield number, text.removeprefix("\ufeff") if number == 1 and not before else text
            number, before = (number + 1, 0) if raw.endswith(b"\n") else (number, before + len(raw))
    except UnicodeDecodeError as error:
        byte = before + len(raw) - len(error.object) + error.start  # the decoder may have kept some bytes
        raise InputError(
            f"{name} line {number} is not {encoding}: byte {byte + 1} of the line is 0x{error.object[error.start]:02X}; "
            "give the file's own encoding, such as encoding='cp1252', or leave it out if it is not text."
        ) from None


def _whole(pieces: Iterator[_Piece], counts: Counts) -> Iterator[Document]:
    """Put pieces together again, up to `LIMIT` characters."""
    held: list[str] = []
    size = part = 0
    for text, last, place in pieces:
        held.append(text)
        size += len(text)
        while size > LIMIT:
            joined = "".join(held)
            at = _cut(joined)
            held, size = [joined[at:]], size - at
            if not joined[:at].isspace():
                part += 1
                counts.cut += part == 1
                yield Document(joined[:at], f"{place} part {part}")
        if last:
            rest = "".join(held)
            held, size = [], 0
            if rest and not rest.isspace():
                yield Document(rest, f"{place} part {part + 1}" if part else place)
            else:
                counts.empty += part == 0
            part = 0


def _cut(text: str) -> int:
    """Where to cut a text that is too long: at a blank line, line end or space in the second half of what may stay."""
    for mark in ("\n\n", "\n", " "):
        if (at := text.rfind(mark, LIMIT // 2, LIMIT)) >= 0:
            return at + len(mark)
    return LIMIT
