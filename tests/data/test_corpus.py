"""Documents come out of every kind of source, in order and whole, and what cannot be one is counted or named."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clozeline.data import corpus
from clozeline.data.corpus import Counts, Split, documents, files
from clozeline.errors import InputError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return write


def read(*sources: str | Path, **options: Any) -> list[tuple[str, str]]:
    return [(document.text, document.place) for document in documents(sources, **options)]


def texts(*sources: str | Path, **options: Any) -> list[str]:
    return [text for text, _ in read(*sources, **options)]


def message(*sources: str | Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(*sources, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_are_documents_and_the_column_is_guessed(write: Write, tmp_path: Path) -> None:
    table = pa.table({"id": ["1", "2"], "title": ["A", "B"], "text": ["One.", "Two.\nLines."]})
    pq.write_table(table, tmp_path / "a.parquet")
    line = json.dumps({"content": "Three.", "n": 1}) + "\n"
    sources = [
        tmp_path / "a.parquet",
        write("b.jsonl.gz", line),
        write("c.csv", "text,x\nFour.,1\n"),
        write("d.tsv", "text\tx\nFive.\t1\n"),
    ]
    assert read(*sources) == [
        ("One.", "a.parquet row 1"),
        ("Two.\nLines.", "a.parquet row 2"),
        ("Three.", "b.jsonl.gz line 1"),
        ("Four.", "c.csv line 2"),
        ("Five.", "d.tsv line 2"),
    ]
    assert texts(sources[0], text="title") == ["A", "B"]
    assert "has no column 'titel' for the text: did you mean 'title'?" in message(sources[0], text="titel")


TEXT = "One.\nStill one.\n\n\nTwo.\n \t\r\nThree."


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "A.TXT"])
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("file", [(TEXT, "{}")]),
        ("blank", [("One.\nStill one.\n\n", "{} line 1"), ("Two.\n \t\r\n", "{} line 5"), ("Three.", "{} line 7")]),
        (
            "line",
            [("One.\n", "{} line 1"), ("Still one.\n", "{} line 2"), ("Two.\n", "{} line 5"), ("Three.", "{} line 7")],
        ),
    ],
)
def test_plain_text_is_a_file_paragraphs_or_lines(
    name: str, split: Split, expected: list[tuple[str, str]], write: Write
) -> None:
    assert read(write(name, TEXT), split=split) == [(text, place.format(name)) for text, place in expected]


@pytest.mark.parametrize(("split", "empty"), [("file", 0), ("blank", 0), ("line", 3)])
def test_empty_documents_are_counted(split: Split, empty: int, write: Write) -> None:
    counts = Counts()
    found = texts(write("a.txt", TEXT), split=split, counts=counts)
    assert counts == Counts(documents=len(found), characters=sum(map(len, found)), empty=empty, files=1)


def test_blank_rows_and_files_are_counted(write: Write) -> None:
    counts = Counts()
    sources = [write("a.csv", 'text,x\n" ",1\nb,1\n,1\n'), write("b.txt", "\n \n"), write("c.txt", "")]
    assert texts(*sources, counts=counts) == ["b"]
    assert (counts.empty, counts.files) == (3, 3)  # a file without a byte has no document, not even an empty one


def test_a_folder_is_its_files_sorted_and_others_are_counted(write: Write, tmp_path: Path) -> None:
    for name in ("z.txt", "a/b.txt", "a/b/c.csv", "a.txt.gz", "a/.hidden.txt", ".git/x.txt", "a/notes.md", "README"):
        write(f"corpus/{name}", f"text,x\n{name},1\n" if name.endswith("csv") else name)
    counts = Counts()
    folder = tmp_path / "corpus"
    assert texts(folder, folder / "z.txt", counts=counts) == ["a/b/c.csv", "a/b.txt", "a.txt.gz", "z.txt", "z.txt"]
    assert (counts.files, counts.ignored) == (5, 2)
    assert files([folder])[0] == folder / "a" / "b" / "c.csv"


@pytest.mark.parametrize("split", ["file", "blank", "line"])
def test_long_documents_are_cut_between_words_and_lose_nothing(
    split: Split, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "LIMIT", 1000)
    monkeypatch.setattr(corpus, "PIECE", 64)
    text = "wörd 北京 " * 400
    counts = Counts()
    found = read(write("a.txt", text), split=split, counts=counts)
    assert "".join(part for part, _ in found) == text
    assert all(len(part) <= 1000 and part.endswith(" ") for part, _ in found)
    name = "a.txt" if split == "file" else "a.txt line 1"
    assert [place for _, place in found] == [f"{name} part {at}" for at in range(1, len(found) + 1)]
    assert (counts.cut, counts.documents, counts.empty) == (1, len(found), 0)


def test_long_documents_are_cut_at_paragraphs_first(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LIMIT", 20)
    assert texts(write("a.txt", "aaaa bbbb cc\n\ndd\neee fff ggg")) == ["aaaa bbbb cc\n\n", "dd\neee fff ggg"]
    assert texts(write("a.txt", "aaaa bbbb cc\ndd eee fff ggg")) == ["aaaa bbbb cc\n", "dd eee fff ggg"]
    assert texts(write("a.txt", "a" * 45)) == ["a" * 20, "a" * 20, "a" * 5]
    counts = Counts()
    assert texts(write("a.jsonl", '{"text": "%s"}\n{"text": "b"}' % ("a b " * 10)), counts=counts) == [
        "a b a b a b a b a b ",
        "a b a b a b a b a b ",
        "b",
    ]
    assert counts.cut == 1


def test_a_long_blank_stretch_is_no_document(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LIMIT", 20)
    counts = Counts()
    assert texts(write("a.txt", " " * 100), write("b.txt", "x"), counts=counts) == ["x"]
    assert (counts.cut, counts.empty) == (0, 1)
    assert [text.strip() for text in texts(write("a.txt", "x" + " " * 100 + "y"))] == ["x", "y"]


@pytest.mark.parametrize("split", ["file", "line"])
def test_a_line_without_end_takes_little_memory(split: Split, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LIMIT", 50_000)
    monkeypatch.setattr(corpus, "PIECE", 10_000)
    path = write("a.txt", b"word " * 1_000_000)
    tracemalloc.start()
    try:
        assert sum(len(document.text) for document in documents([path], split=split)) == 5_000_000
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_encodings(write: Write) -> None:
    assert texts(write("a.txt", "Čeština\n".encode("cp1250")), encoding="cp1250") == ["Čeština\n"]
    assert texts(write("a.txt", b"\xef\xbb\xbfBOM\n\xef\xbb\xbf2")) == ["BOM\n\ufeff2"]
    assert "Encoding 'utf8000' is not known" in message(write("a.txt", "a"), encoding="utf8000")
    assert "Encoding 'hex' is not known" in message(write("a.txt", "a"), encoding="hex")


@pytest.mark.parametrize("piece", [3, 4, 5, 1000])
def test_what_is_not_text_is_named_by_line_and_byte(piece: int, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "PIECE", piece)
    assert texts(write("a.txt", "ßß\nßß北ß")) == ["ßß\nßß北ß"]  # characters cut by a piece are whole again
    found = message(write("a.txt", "one\ntwö ".encode() + b"\xff\n"))
    assert found.startswith("a.txt line 2 is not utf-8: byte 6 of the line is 0xFF; give the file's own encoding")
    assert "a.txt line 1 is not utf-8: byte 3 of the line is 0xE5" in message(write("a.txt", "ab北".encode()[:4]))
    assert message(write("a.txt", b"one\n\x00PK")).startswith("a.txt line 2 has a NUL byte: not a text file")
    assert message(write("b.csv", b"text,x\nabc\0,1\n")).startswith("b.csv line 2 has a NUL byte")


def test_a_damaged_archive_is_named(write: Write) -> None:
    path = write("a.txt.gz", "word " * 9999)
    path.write_bytes(path.read_bytes()[:-20])
    assert message(path).startswith("a.txt.gz cannot be read: ")
    path.write_bytes(b"no archive")
    assert message(path).startswith("a.txt.gz cannot be read: ")


def test_sources_that_cannot_be_used(write: Write, tmp_path: Path) -> None:
    good = write("good.txt", "a")
    (tmp_path / "empty").mkdir()
    write("other/a.md", "a")
    assert message().startswith("sources=() must be a list of files")
    with pytest.raises(InputError, match="must be a list of files"):
        list(documents(str(good)))
    assert "cannot be standard input" in message("-")
    assert message(tmp_path / "empty").startswith(f"Folder {str(tmp_path / 'empty')!r} has no file to read")
    assert "has no file to read" in message(tmp_path / "other")
    assert "Format '.md'" in message(tmp_path / "other" / "a.md")
    assert "split='word' does not cut plain text into documents" in message(good, split="word")
    assert message(write("blank.txt", " \n")).startswith("The corpus has no text: 1 sources read, 1 empty documents")


@pytest.mark.parametrize("missing", ["gone.txt", "folder/gone.parquet", "gone"])
def test_a_missing_source_is_said_before_others_are_read(missing: str, write: Write) -> None:
    (write("folder/x.txt", "a"))
    stream = documents([write("good.txt", "a"), write("good.txt", "a").parent / missing])
    with pytest.raises(InputError, match="There is no file"):
        next(stream)


def test_the_real_corpora_are_read(data: Path) -> None:
    counts = Counts()
    folder = data / "pretrain"
    found = sum(
        len(document.text)
        for document in documents(
            [folder / "gutenberg.parquet", folder / "wikitext-2-test.txt"], split="blank", counts=counts
        )
    )
    assert (counts.documents, counts.characters, counts.cut) == (24 + 1320, found, 0)
