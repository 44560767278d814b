"""Rows and labelled texts out of CSV, TSV, JSON lines, Parquet, plain text and data sets of the Hugging Face hub.

Every reader is a stream: it holds one line, or one small batch of rows, however large the file. Text is read as bytes,
cut at `\\n` and decoded line by line, so an error names line and byte, and a line without end is refused at `MAX_LINE`.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from clozeline.errors import InputError, nearest

T = TypeVar("T")

MAX_LINE = 16 * 2**20  # bytes of a line, characters of a CSV record: ten long novels, or a quote that was never closed
BATCH_ROWS = 256  # of Parquet and hub rows: few enough for rows that are whole books, many enough to be fast
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt", ".parquet")
TEXT_NAMES = ("text", "sentence", "review", "content", "comment", "document", "headline", "tweet")
LABEL_NAMES = ("label", "labels", "class", "sentiment", "category", "target")
HUB_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:/(?P<config>[\w.-]+))?(?::(?P<split>.+))?")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
ARROW_STRINGS = ("string", "large_string", "dictionary<values=string", "dictionary<values=large_string")


class Row(NamedTuple):
    """The values of one row by column, and where it stands ("train.csv line 17") for error messages."""

    values: dict[str, Any]
    place: str


Label = str | tuple[str, ...] | tuple[float, ...] | dict[str, float]
"""A class; or several; or the numbers of a regression; or the share of each class, a soft label."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text, which may be empty, or a pair of texts, with the label; what was not asked for is None."""

    text: str
    pair: str | None
    label: Label | None
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where labelled data has what. None: guessed where the name is a usual one.

    text, pair, label: columns of the text, of the second text, and of the label or labels; choices: columns of the choices
    between answers; names: the columns of a CSV or TSV file without a header; encoding: of a text file.
    """

    text: str | None = None
    pair: str | None = None
    label: str | Sequence[str] | None = None
    choices: Sequence[str] | None = None
    names: Sequence[str] | None = None
    encoding: str = "utf-8"


class _Table(NamedTuple):
    """An open source. `read` yields its rows, once, with at least those of the wanted columns that a row has."""

    name: str
    columns: dict[str, bool]  # in the order of the source; True where the column holds strings
    read: Callable[[Sequence[str]], Iterator[Row]]

    def rows(self, wanted: Sequence[str]) -> Iterator[Row]:
        row = None
        for row in self.read(wanted):
            yield row
        if row is None:
            raise InputError(f"{self.name} has columns but no rows.")


def rows(
    source: str | Path,
    *,
    columns: Sequence[str] | None = None,
    format: str | None = None,
    encoding: str = "utf-8",
    split: str = "train",
) -> Iterator[Row]:
    """Stream the rows of a file, of standard input or of a hub data set, in order; nothing opens before the first one.

    CSV follows RFC 4180; where the first line has no comma, semicolons or tabs delimit. TSV knows no quoting: a quote
    is text. JSON is one object a line. Plain text has one column, "text", and each line is a row, blank or not. CSV and
    TSV skip blank lines, but in a file of one column those are empty values. All but Parquet may end in .gz.

    Args:
        source: a path, "-" for standard input (plain text unless `format` is given), or a data set of the hub, written
            "owner/name", "owner/name:split" or "owner/name/config:split". A path that exists always wins.
        columns: the names of the columns of a CSV or TSV file without a header.
        format: an ending without its dot, such as "jsonl", to go by instead of the file's own.
        encoding: of a text format; a byte order mark is dropped.
        split: of a hub data set that names none.

    Raises:
        InputError: the source is missing, empty, damaged or of an unknown format; the message names the line or row.
    """
    with _open(source, columns, format, encoding, split) as table:
        yield from table.rows(list(table.columns))


def examples(
    source: str | Path,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | Sequence[str] | None = None,
    labelled: bool = False,
    usual: Sequence[str] = LABEL_NAMES,
    value: Callable[[Row, Sequence[str]], Label] | None = None,
    columns: Sequence[str] | None = None,
    format: str | None = None,
    encoding: str = "utf-8",
    split: str = "train",
) -> Iterator[Example]:
    """Stream the texts of a source with their labels; `columns`, `format`, `encoding` and `split` are as in `rows`.

    Labels are strings: 1, 1.0 and true become "1", other numbers what Python prints, class numbers of the hub names.

    Args:
        text: column of the texts. None: the one with a usual name (`TEXT_NAMES`), or else the only one with strings.
        pair: column of the second texts; never guessed.
        label: column of the labels. None: no labels or, where `labelled`, the one with a `usual` name.
        labelled: whether labels are needed.
        value: what makes a label of a row and the label columns; None reads one class name.

    Raises:
        InputError: as `rows`; also a column that is missing or not clear, or a row without a text or a needed label.
    """
    with _open(source, columns, format, encoding, split) as table:
        if pair is not None:
            pair = _column(table, "pair", pair, [])
        labels: list[str] = []
        if labelled or label is not None:
            guesses = [name for name in table.columns if name.lower() in usual]
            labels = [_column(table, "label", each, guesses) for each in _several(label)]
        free = [name for name in table.columns if name not in (pair, *labels)]
        named = [name for name in free if name.lower() in TEXT_NAMES]
        strings = [name for name in free if table.columns[name] and name.lower() not in usual]
        text = _column(table, "text", text, named or strings)
        for row in table.rows([name for name in (text, pair, *labels) if name is not None]):
            second = None if pair is None else _text(row, pair)
            yield Example(_text(row, text), second, (value or class_name)(row, labels) if labels else None, row.place)


def lines(source: str | Path, *, encoding: str = "utf-8") -> Iterator[str]:
    """Stream the lines of a text file, or of one that ends in .gz, without their ends.

    Raises:
        InputError: the file is missing, empty, or not text in this encoding; the line is named.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"There is no file {str(source)!r}.")
    try:
        with gzip.GzipFile(path) if path.name.endswith(".gz") else path.open("rb") as stream:
            _, rest = _peek(_lines(stream, path.name, encoding), path.name)
            yield from (line.rstrip("\r\n") for line in rest)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path.name} cannot be read: {error}.") from error


def _column(table: _Table, option: str, given: str | None, guesses: Sequence[str]) -> str:
    if given is not None and given not in table.columns:
        raise InputError(f"{table.name} has no column {given!r} for the {option}: {nearest(given, table.columns)}")
    if given is None and len(guesses) != 1:
        listed = ", ".join(repr(name) for name in table.columns)
        raise InputError(f"Which column of {table.name} is the {option} is not clear; give {option}=, of {listed}.")
    return guesses[0] if given is None else given


def _text(row: Row, column: str) -> str:
    value = row.values.get(column)
    if not isinstance(value, str):
        raise InputError(f"{row.place}: the text in column {column!r} is {value!r:.40}; it must be a string.")
    return value


def _several(names: str | Sequence[str] | None) -> Sequence[str | None]:
    return [names] if isinstance(names, str) else names or [None]


def class_name(row: Row, columns: Sequence[str]) -> str:
    """The one label of a row."""
    if len(columns) > 1:
        raise InputError(f"{row.place}: a text has one label here; give one column, not {', '.join(columns)}.")
    value = row.values.get(column := columns[0])
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, str | int | float) and value == value and str(value).strip():  # only NaN differs from itself
        return str(value).strip()  # "a, positive" and "a,positive" mean the same class
    raise InputError(f"{row.place}: the label in column {column!r} is {value!r:.40}; it must be a name or a number.")


@contextmanager
def _open(
    source: str | Path, columns: Sequence[str] | None, format: str | None, encoding: str, split: str
) -> Iterator[_Table]:
    """Find out what a source is and open it; on the way out the file is closed and its I/O errors are translated."""
    path, stdin = Path(source), source == "-"
    name = "standard input" if stdin else path.name
    zipped = not stdin and name.lower().endswith(".gz")
    ending = Path(name.lower().removesuffix(".gz")).suffix
    if format or stdin:
        ending = "." + (format or "txt").removeprefix(".")
    found = stdin or os.path.exists(path)  # Path.exists raises where somebody gives a whole text for a path
    hub = HUB_NAME.fullmatch(source) if isinstance(source, str) and not found and ending not in ENDINGS else None
    if columns and ending not in (".csv", ".tsv"):
        raise InputError(f"columns= names the columns of a CSV or TSV file without a header; {name} is neither.")
    try:
        if hub:
            yield _hub(hub["name"], hub["config"], hub["split"] or split)
        elif not found:
            near = sorted(entry for entry in os.listdir(path.parent) if entry.endswith((*ENDINGS, ".gz")))
            hint = "" if ending else " A data set of the hub is written owner/name."
            raise InputError(f"There is no file {str(source)!r}: {nearest(path.name, near)}{hint}")
        elif not stdin and path.is_dir():
            raise InputError(f"{str(source)!r} is a folder; give one file of it.")
        elif ending not in ENDINGS:
            raise InputError(f"Format {ending!r} of {name} is not known (format= sets it): {nearest(ending, ENDINGS)}")
        elif ending != ".parquet":
            stream: Any = sys.stdin.buffer if stdin else gzip.GzipFile(path) if zipped else path.open("rb")
            with nullcontext() if stdin else stream:
                yield _line_table(_lines(stream, name, encoding), name, ending, columns)
        elif stdin or zipped:
            raise InputError(f"Parquet is read from a file that is not zipped; {name} is not one.")
        else:
            with _parquet(path) as table:
                yield table
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} cannot be read: {error}.") from error


def _lines(stream: io.BufferedIOBase, name: str, encoding: str) -> Iterator[str]:
    """The lines of a stream with their ends, decoded; never more than `MAX_LINE` bytes of it in memory."""
    for number in itertools.count(1):
        line = stream.readline(MAX_LINE + 1)
        if not line:
            return
        place = f"{name} line {number}"
        if len(line) > MAX_LINE:
            raise InputError(f"{place} is longer than {MAX_LINE:,} bytes; is this a text file with one row a line?")
        if b"\0" in line:
            raise InputError(f"{place} has a NUL byte: not a text file, or one in UTF-16; convert it to UTF-8.")
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            where = f"{place} is not {encoding}: byte {error.start + 1} of the line is 0x{line[error.start]:02X}"
            raise InputError(f"{where}; give the file's own encoding, such as encoding='cp1252'.") from None
        except LookupError:
            raise InputError(f"Encoding {encoding!r} is not known; usual ones are utf-8, cp1252 and gb18030.") from None
        yield text.removeprefix("\ufeff") if number == 1 else text


def _peek(items: Iterator[T], name: str) -> tuple[T, Iterator[T]]:
    for first in items:
        return first, itertools.chain([first], items)
    raise InputError(f"{name} is empty.")


def _line_table(lines: Iterator[str], name: str, ending: str, columns: Sequence[str] | None) -> _Table:
    first, lines = _peek(lines, name)
    if ending == ".csv":
        return _delimited(_csv_records(lines, name, first), name, columns)
    if ending in (".tsv", ".txt"):
        delimiter = "\t" if ending == ".tsv" else "\n"  # plain text is a table of one column, where nothing delimits
        bare = (line.removesuffix("\n").removesuffix("\r") for line in lines)
        records = ((number, line.split(delimiter)) for number, line in enumerate(bare, 1))
        return _delimited(records, name, ["text"] if ending == ".txt" else columns)
    row, objects = _peek(_json_rows(lines, name), name)
    return _Table(name, {column: isinstance(value, str) for column, value in row.values.items()}, lambda _: objects)


def _delimited(records: Iterator[tuple[int, list[str]]], name: str, columns: Sequence[str] | None) -> _Table:
    """A table of records, each with its line; the first one names the columns if nobody does."""
    named = columns or next(records)[1]
    header = [column or f"column_{place}" for place, column in enumerate(named, 1)]  # spreadsheets leave names empty
    listed = ", ".join(map(repr, header))
    if len(set(header)) < len(header):
        raise InputError(f"Two columns of {name} have the same name: {listed}.")

    def read(_: Sequence[str]) -> Iterator[Row]:
        for line, fields in records:
            if len(fields) == len(header):
                yield Row(dict(zip(header, fields, strict=True)), f"{name} line {line}")
            elif fields != [""]:
                raise InputError(
                    f"{name} line {line} has {len(fields)} fields, but the columns are {len(header)}: {listed}."
                )

    return _Table(name, dict.fromkeys(header, True), read)


def _csv_records(lines: Iterable[str], name: str, first: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the line it starts on."""
    start = size = 0

    def bounded() -> Iterator[str]:
        nonlocal size
        for line in lines:
            size += len(line)
            if size > MAX_LINE:
                raise InputError(f"{name} line {start} starts a record of over {MAX_LINE:,} characters: an open quote?")
            yield line

    reader = csv.reader(bounded(), delimiter=next((mark for mark in ",;\t" if mark in first), ","), strict=True)
    while True:
        start, size = reader.line_num + 1, 0
        # The module's limit of 131,072 characters a field is global state, so it is lifted for one record at a time.
        limit = csv.field_size_limit(MAX_LINE)
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{name} line {start} starts a record with a quote open or astray: {error}.") from None
        finally:
            csv.field_size_limit(limit)
        if fields is None:
            return
        yield start, fields or [""]


def _json_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            values = json.loads(line)
            if SURROGATE.search(line):  # half an emoji is legal in JSON but is no text, and no tokenizer takes it
                json.dumps(values, ensure_ascii=False).encode()
            if not isinstance(values, dict):
                raise ValueError(f"a JSON {type(values).__name__}")
        except (ValueError, RecursionError) as error:
            wanted = f'each line must be one JSON object, such as {{"text": "...", "label": "..."}}, not {error}'
            raise InputError(f"{name} line {number}: {wanted}.") from None
        yield Row(values, f"{name} line {number}")


@contextmanager
def _parquet(path: Path) -> Iterator[_Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield _arrow(path.name, file.schema_arrow, lambda some: file.iter_batches(BATCH_ROWS, columns=some), {})
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read as Parquet: {error}.") from error


def _hub(name: str, config: str | None, split: str) -> _Table:
    import datasets

    shown = f"{name}/{config}:{split}" if config else f"{name}:{split}"
    try:
        data = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # its own, ValueError, OSError, RuntimeError, those of its HTTP library: one to the user
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f"{shown} is no file here, and no data set that the hub gives: {reason}") from error
    # of a list, its entries'
    kinds = {column: getattr(kind, "feature", kind) for column, kind in data.features.items()}
    classes = {column: kind.names for column, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)}
    arrow = data.with_format("arrow")
    return _arrow(shown, data.features.arrow_schema, lambda some: arrow.select_columns(some).iter(BATCH_ROWS), classes)


def _arrow(
    name: str, schema: Iterable[Any], batches: Callable[[list[str]], Iterable[Any]], classes: dict[str, list[str]]
) -> _Table:
    """A table of Arrow batches. Class numbers become names, and -1, by which the hub hides a label, None."""

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        found = (values for batch in batches(list(wanted)) for values in batch.to_pylist())
        for number, values in enumerate(found, 1):
            for column in classes.keys() & values.keys():
                held, names = values[column], classes[column]
                named = [
                    None if at is None or at < 0 else names[at] for at in (held if isinstance(held, list) else [held])
                ]
                values[column] = named if isinstance(held, list) else named[0]
            yield Row(values, f"{name} row {number}")

    return _Table(name, {field.name: str(field.type).startswith(ARROW_STRINGS) for field in schema}, read)
