"""Every format reads as it was written, bad input is one clear sentence, and memory does not grow with the file."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clozeline.data import readers
from clozeline.data.readers import ENDINGS, Example, examples, rows
from clozeline.errors import InputError

Write = Callable[..., Path]
TWO = [{"text": "good film", "label": "pos"}, {"text": "", "label": "neg"}]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        raw = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return write


def values(source: str | Path, **options: Any) -> list[dict[str, Any]]:
    return [row.values for row in rows(source, **options)]


def message(source: str | Path, read: Callable[..., Any] = rows, **options: Any) -> str:
    """The one sentence that reading the whole source raises."""
    with pytest.raises(InputError) as caught:
        list(read(source, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


# formats


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\ngood film,pos\n,neg\n"),
        ("a.CSV", 'text,label\r\n"good film",pos\r\n"",neg'),
        ("semicolons.csv", "text;label\ngood film;pos\n;neg\n"),
        ("tabs.csv", "text\tlabel\ngood film\tpos\n\tneg\n"),
        ("blank.csv", "text,label\n\ngood film,pos\n,neg\n\n\n"),
        ("bom.csv", "\ufefftext,label\ngood film,pos\n,neg\n"),
        ("a.tsv", "text\tlabel\ngood film\tpos\n\tneg\n"),
        ("crlf.tsv", "\ufefftext\tlabel\r\ngood film\tpos\r\n\r\n\tneg"),
        ("a.jsonl", '{"text": "good film", "label": "pos"}\r\n\n{"text": "", "label": "neg"}'),
        ("a.ndjson", '\ufeff{"text": "good film", "label": "pos"}\n{"text": "", "label": "neg"}\n'),
        ("a.json", '{"text": "good film", "label": "pos"}\n{"text": "", "label": "neg"}\n'),
        ("a.csv.gz", "text,label\ngood film,pos\n,neg\n"),
        ("a.tsv.gz", "text\tlabel\ngood film\tpos\n\tneg\n"),
        ("a.jsonl.gz", '{"text": "good film", "label": "pos"}\n{"text": "", "label": "neg"}\n'),
    ],
)
def test_formats_agree(write: Write, name: str, content: str) -> None:
    assert values(write(name, content)) == TWO
    read = list(examples(write(name, content), labelled=True))
    assert [(example.text, example.pair, example.label) for example in read] == [
        ("good film", None, "pos"),
        ("", None, "neg"),
    ]


def test_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {key: [row[key] for row in TWO] for key in ("text", "label")})
    assert [(row.values, row.place) for row in rows(path)] == [
        (TWO[0], "a.parquet row 1"),
        (TWO[1], "a.parquet row 2"),
    ]


def test_parquet_reads_only_the_columns_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["a"], "image": [b"large"], "label": [1]})
    asked: list[list[str]] = []
    whole = pq.ParquetFile.iter_batches

    def spy(self: Any, size: int, columns: list[str]) -> Any:
        asked.append(columns)
        return whole(self, size, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    assert list(examples(path)) == [Example("a", None, None, "a.parquet row 1")]
    assert list(examples(path, labelled=True)) == [Example("a", None, "1", "a.parquet row 1")]
    assert asked == [["text"], ["text", "label"]]


def test_parquet_beyond_a_batch(tmp_path: Path) -> None:
    count = 2 * readers.BATCH_ROWS + 3
    path = parquet(tmp_path / "a.parquet", {"text": [str(n) for n in range(count)]}, row_group_size=100)
    assert [row.place for row in rows(path)] == [f"a.parquet row {n + 1}" for n in range(count)]
    assert [row.values["text"] for row in rows(path)] == [str(n) for n in range(count)]


def test_parquet_categories_hold_strings(tmp_path: Path) -> None:
    column = pa.array(["good", "bad", "good"]).dictionary_encode()
    path = parquet(tmp_path / "a.parquet", {"words": column, "n": [1, 2, 3]})
    assert [example.text for example in examples(path)] == ["good", "bad", "good"]


def test_plain_text_keeps_every_line(write: Write) -> None:
    path = write("a.txt", '\ufefffirst\r\n\n  "a, b"\ttab \n\r\nlast')
    assert [row.values["text"] for row in rows(path)] == ["first", "", '  "a, b"\ttab ', "", "last"]
    assert [example.place for example in examples(path)] == [f"a.txt line {n}" for n in range(1, 6)]


def test_only_line_feeds_end_lines(write: Write) -> None:
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f"  # str.splitlines would make six lines of it
    assert values(write("a.txt", text + "\n")) == [{"text": text}]
    assert values(write("a.tsv", f"text\tlabel\n{text}\t1\n"))[0]["text"] == text
    assert values(write("a.csv", f"text,label\n{text},1\n"))[0]["text"] == text


def test_csv_quoting_follows_rfc_4180(write: Write) -> None:
    path = write("a.csv", 'text,label\n"one, ""two""\r\nthree\n\nfour",1\n5" pipe,2\n')
    assert [(row.values["text"], row.place) for row in rows(path)] == [
        ('one, "two"\r\nthree\n\nfour', "a.csv line 2"),
        ('5" pipe', "a.csv line 6"),
    ]


def test_csv_round_trip(tmp_path: Path) -> None:
    texts = ["", " ", '"', '""', ",", ";", "\n", "\r\n", "\r", "a\r\nb", "'", "é😀", '"a"', "a,b\t"]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *([text, "x"] for text in texts)])
    assert [example.text for example in examples(tmp_path / "a.csv", labelled=True)] == texts


def test_csv_of_one_column_keeps_blank_lines(write: Write) -> None:
    assert values(write("a.csv", "review\ngood\n\nbad\n")) == [{"review": "good"}, {"review": ""}, {"review": "bad"}]
    assert values(write("a.tsv", "review\ngood\n\nbad\n")) == [{"review": "good"}, {"review": ""}, {"review": "bad"}]


def test_csv_field_beyond_the_modules_limit(write: Write) -> None:
    limit = csv.field_size_limit()
    book = "word " * 100_000
    path = write("a.csv", f'text,label\n{book},1\n"{book}\n{book}",2\n')
    read = rows(path)
    assert next(read).values["text"] == book
    assert csv.field_size_limit() == limit
    assert next(read).values["text"] == f"{book}\n{book}"
    assert csv.field_size_limit() == limit


def test_csv_names_empty_columns(write: Write) -> None:
    assert values(write("a.csv", ",v1,,\n0,ham,hi,\n")) == [
        {"column_1": "0", "v1": "ham", "column_3": "hi", "column_4": ""}
    ]


def test_tsv_quotes_are_text(write: Write) -> None:
    path = write("a.tsv", 'text\tlabel\n"lone\t1\n"a"\t2\na "" b\t3\n')
    assert [row.values["text"] for row in rows(path)] == ['"lone', '"a"', 'a "" b']


@pytest.mark.parametrize(("name", "line"), [("a.csv", "gj04,1,,A sentence.\n"), ("a.tsv", "gj04\t1\t\tA sentence.\n")])
def test_columns_name_a_file_without_header(write: Write, name: str, line: str) -> None:
    read = list(examples(write(name, line * 2), columns=["id", "label", "mark", "text"], labelled=True))
    assert read == [Example("A sentence.", None, "1", f"{name} line {n}") for n in (1, 2)]


def test_json_rows_keep_what_later_lines_add(write: Write) -> None:
    path = write("a.jsonl", '{"text": "a"}\n{"text": "b", "spans": [{"start": 1}], "n": null}\n')
    assert values(path) == [{"text": "a"}, {"text": "b", "spans": [{"start": 1}], "n": None}]


def test_json_escapes(write: Write) -> None:
    path = write("a.jsonl", json.dumps({"text": "é😀\u2028\n"}) + "\n")
    assert values(path) == [{"text": "é😀\u2028\n"}]


def test_encoding(write: Write) -> None:
    path = write("a.csv", "text,label\ncafé,1\n".encode("cp1252"))
    assert [example.text for example in examples(path, encoding="cp1252", labelled=True)] == ["café"]


def test_format_overrides_the_ending(write: Write) -> None:
    assert values(write("a.data", "text\tlabel\ngood film\tpos\n\tneg\n"), format="tsv") == TWO
    assert values(write("a.csv", '{"a": 1}\n'), format="jsonl") == [{"a": 1}]
    assert values(write("no_ending", "a,b\n"), format="txt") == [{"text": "a,b"}]


def test_a_string_and_a_path_are_the_same_source(write: Write) -> None:
    path = write("a.txt", "one\n")
    assert values(str(path)) == values(path) == [{"text": "one"}]


def test_a_file_is_open_from_the_first_row_to_the_last(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Any] = []
    really_open = Path.open

    def spy(path: Path, mode: str) -> Any:
        files.append(really_open(path, mode))
        return files[-1]

    stopped, finished = rows(write("a.txt", "one\ntwo\n")), rows(write("b.txt", "one\n"))
    monkeypatch.setattr(Path, "open", spy)
    assert files == []
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    list(finished)
    assert [file.closed for file in files] == [True, True]


# standard input


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def typed(content: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))

    return typed


def test_standard_input_is_plain_text(typed: Callable[[str], None]) -> None:
    typed("one\n\nthree\n")
    assert list(examples("-")) == [
        Example(text, None, None, f"standard input line {n}") for n, text in enumerate(["one", "", "three"], 1)
    ]
    assert not sys.stdin.closed
    assert message("-") == "standard input is empty."


def test_standard_input_takes_a_format(typed: Callable[[str], None]) -> None:
    typed('{"review": "one", "stars": 5}\n')
    assert [example.text for example in examples("-", format="jsonl")] == ["one"]
    typed("text,label\none,1\n")
    assert [example.label for example in examples("-", format="csv", labelled=True)] == ["1"]
    assert "not zipped" in message("-", format="parquet")


@pytest.mark.parametrize(
    ("format", "header", "line"),
    [("txt", "", "one\n"), ("csv", "text,n\n", "one,1\n"), ("jsonl", "", '{"text": "one"}\n')],
)
def test_standard_input_streams(monkeypatch: pytest.MonkeyPatch, format: str, header: str, line: str) -> None:
    reading, writing = os.pipe()
    with open(reading) as stdin, open(writing, "wb", buffering=0) as keyboard:
        monkeypatch.setattr(sys, "stdin", stdin)
        read = examples("-", format=format)
        keyboard.write((header + line).encode())
        for _ in range(3):  # each comes while the other end is still open; a reader that waits for more hangs here
            assert next(read).text == "one"
            keyboard.write(line.encode())


# which column


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("id,text,label", "text", "label"),
        ("Sentence,Class", "Sentence", "Class"),
        ("review,sentiment", "review", "sentiment"),
        ("target,content,other", "content", "target"),
        ("body,category", "body", "category"),
    ],
)
def test_columns_are_guessed(write: Write, header: str, text: str, label: str) -> None:
    path = write("a.csv", f"{header}\n{header}\n")
    assert list(examples(path, labelled=True)) == [Example(text, None, label, "a.csv line 2")]
    assert list(examples(path)) == [Example(text, None, None, "a.csv line 2")]


def test_text_is_the_only_column_of_strings(write: Write) -> None:
    assert [example.text for example in examples(write("a.jsonl", '{"id": 7, "words": "a", "ok": true}\n'))] == ["a"]


def test_named_columns_are_not_guessed_again(write: Write) -> None:
    path = write("a.csv", "text,sentence,gold\na,b,c\n")
    assert list(examples(path, pair="sentence", label="gold")) == [Example("a", "b", "c", "a.csv line 2")]
    path = write("b.csv", "premise,hypothesis,label\na,b,c\n")
    assert list(examples(path, pair="hypothesis")) == [Example("a", "b", None, "b.csv line 2")]


def test_ambiguous_columns_are_listed(write: Write) -> None:
    path = write("a.csv", "sentence1,sentence2,gold\na,b,c\n")
    assert message(path, examples) == (
        "Which column of a.csv is the text is not clear; give text=, of 'sentence1', 'sentence2', 'gold'."
    )
    assert "is the label is not clear; give label=" in message(path, examples, text="sentence1", labelled=True)
    assert "give text=" in message(write("b.csv", "text,review\na,b\n"), examples)
    assert "give label=" in message(write("c.csv", "text,label,class\na,b,c\n"), examples, labelled=True)
    assert "give text=" in message(write("d.jsonl", '{"id": 1}\n'), examples)
    assert "give label=" in message(write("e.txt", "a\n"), examples, labelled=True)


@pytest.mark.parametrize("option", ["text", "pair", "label"])
def test_missing_column_names_the_nearest(write: Write, option: str) -> None:
    path = write("a.csv", "text,sentence2,sentiment\na,b,c\n")
    said = message(path, examples, **{option: "sentimet"})
    assert said == (
        f"a.csv has no column 'sentimet' for the {option}: did you mean 'sentiment'? "
        "Allowed: 'text', 'sentence2', 'sentiment'."
    )


# labels and texts


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("1", "1"),
        ('"1"', "1"),
        ("1.0", "1"),
        ("true", "1"),
        ("false", "0"),
        ("-3", "-3"),
        ("4.75", "4.75"),
        ('" a "', "a"),
    ],
)
def test_labels_become_strings(write: Write, given: str, label: str) -> None:
    assert [
        example.label for example in examples(write("a.jsonl", f'{{"text": "a", "label": {given}}}'), labelled=True)
    ] == [label]


@pytest.mark.parametrize("given", ["null", '""', '" "', "NaN", "[1]", "{}"])
def test_labels_that_are_none(write: Write, given: str) -> None:
    path = write("a.jsonl", f'{{"text": "a", "label": 1}}\n{{"text": "a", "label": {given}}}')
    assert message(path, examples, labelled=True).startswith("a.jsonl line 2: the label in column 'label' is ")
    assert len(list(examples(path))) == 2  # labels nobody asked for are not looked at


def test_label_absent_from_a_line(write: Write) -> None:
    assert "line 2: the label in column 'label' is None" in message(
        write("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n'), examples, labelled=True
    )
    assert "line 3: the label in column 'label' is ''" in message(
        write("a.csv", "text,label\na,1\nb,\n"), examples, labelled=True
    )


def test_labels_of_parquet(tmp_path: Path) -> None:
    for kind, given in (
        (pa.int8(), [0, 1]),
        (pa.bool_(), [False, True]),
        (pa.float64(), [0.0, 1.0]),
        (pa.string(), ["0", "1"]),
    ):
        path = parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": pa.array(given, kind)})
        assert [example.label for example in examples(path, labelled=True)] == ["0", "1"]
    path = parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": ["x", None]})
    assert "a.parquet row 2" in message(path, examples, labelled=True)


@pytest.mark.parametrize("given", ["null", "7", '["a"]'])
def test_texts_that_are_none(write: Write, given: str) -> None:
    path = write("a.jsonl", f'{{"text": "a", "b": "b"}}\n{{"text": {given}, "b": "b"}}\n')
    assert message(path, examples).startswith("a.jsonl line 2: the text in column 'text' is ")
    assert message(path, examples, text="b", pair="text").startswith("a.jsonl line 2: the text in column 'text' is ")


# bad input


def test_missing_file_names_the_nearest(write: Write, tmp_path: Path) -> None:
    write("train.csv", "x")
    write("notes.docx", "x")
    said = message(tmp_path / "trian.csv")
    assert said.endswith("trian.csv': did you mean 'train.csv'? Allowed: 'train.csv'.")
    assert "owner/name" in message(str(tmp_path / "imdb"))
    assert "No such file or directory" in message(tmp_path / "nowhere" / "train.csv")
    assert "There is no file" in message("Not a path at all but a long text. " * 200)


def test_a_path_object_is_never_a_hub_name() -> None:
    assert "cannot be read" in message(Path("owner/name"))


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "data.csv").mkdir()
    assert message(tmp_path) == f"{str(tmp_path)!r} is a folder; give one file of it."
    assert "is a folder" in message(tmp_path / "data.csv")


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != ".parquet"] + [".csv.gz"])
def test_empty_file(write: Write, ending: str) -> None:
    assert message(write(f"a{ending}", "")) == f"a{ending} is empty."


def test_no_rows(write: Write, tmp_path: Path) -> None:
    assert message(write("a.csv", "text,label\n")) == "a.csv has columns but no rows."
    assert message(write("a.tsv", "text\tlabel"), examples) == "a.tsv has columns but no rows."
    assert message(write("a.jsonl", "\n \n")) == "a.jsonl is empty."
    assert (
        message(parquet(tmp_path / "a.parquet", {"text": pa.array([], pa.string())}))
        == "a.parquet has columns but no rows."
    )


def test_wrong_field_count(write: Write) -> None:
    said = "line 3 has {} fields, but the columns are 2: 'text', 'label'."
    assert message(write("a.csv", "text,label\na,b\na,b,c\n")) == "a.csv " + said.format(3)
    assert message(write("a.csv", "text,label\na,b\na\n")) == "a.csv " + said.format(1)
    assert message(write("a.tsv", "text\tlabel\na\tb\na\tb\tc\n")) == "a.tsv " + said.format(3)
    assert message(write("a.tsv", "a\tb\n"), columns=["a", "b", "c"]).startswith("a.tsv line 1 has 2 fields")


def test_two_columns_of_one_name(write: Write) -> None:
    assert message(write("a.csv", "text,label,text\na,b,c\n")) == (
        "Two columns of a.csv have the same name: 'text', 'label', 'text'."
    )


def test_bytes_that_are_no_utf8(write: Write) -> None:
    for name in ("a.csv", "a.tsv", "a.txt", "a.csv.gz"):
        said = message(write(name, "text\tlabel\nfine\t1\ncafé\t2\n".encode("latin-1")))
        assert said == (
            f"{name} line 3 is not utf-8: byte 4 of the line is 0xE9; "
            "give the file's own encoding, such as encoding='cp1252'."
        )


def test_unknown_encoding(write: Write) -> None:
    assert "Encoding 'utf8000' is not known" in message(write("a.txt", "a"), encoding="utf8000")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_utf16_is_refused(write: Write, encoding: str) -> None:
    said = message(write("a.csv", "text,label\na,b\n".encode("utf-16")), encoding=encoding)
    assert said == "a.csv line 1 has a NUL byte: not a text file, or one in UTF-16; convert it to UTF-8."


def test_nul_byte(write: Write) -> None:
    for name in ("a.csv", "a.tsv", "a.txt", "a.jsonl"):
        assert f"{name} line 2 has a NUL byte" in message(write(name, b'{"text": 1}\n{"text": "\0"}\n'))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_a_line_of_200_megabytes_is_refused_unread(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b'{"text": "a"}\n')
        file.truncate(200 * 2**20)  # sparse: one long line of NUL bytes that takes no disk
    tracemalloc.start()
    try:
        assert f"{name} line 2 is longer than 16,777,216 bytes" in message(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * readers.MAX_LINE
    finally:
        tracemalloc.stop()


def test_an_open_quote_does_not_swallow_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert message(write("a.csv", 'text,label\na,b\n"a,b\na,b\n')).startswith(
        "a.csv line 3 starts a record with a quote"
    )
    assert message(write("a.csv", 'text,label\n"a"b,c\n')).startswith("a.csv line 2 starts a record with a quote")
    monkeypatch.setattr(readers, "MAX_LINE", 1000)
    path = write("a.csv", 'text,label\na,b\n"a,b\n' + "a,b\n" * 1000)
    assert message(path) == "a.csv line 3 starts a record of over 1,000 characters: an open quote?"
    assert len(list(rows(write("b.csv", "text,label\n" + "a,b\n" * 1000)))) == 1000  # the bound is on a record


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"', "Expecting"),
        ("text,label", "Expecting"),
        ("[1, 2]", "a JSON list"),
        ('"a"', "a JSON str"),
        ("null", "a JSON NoneType"),
        ('[{"text": "a"}]', "a JSON list"),
        ("[", "Expecting"),
        ("[" * 100_000, "while decoding a JSON array"),
        ('{"n": ' + "1" * 5000 + "}", "digits"),
        ('{"text": "half \\ud83d"}', "surrogates"),
    ],
)
def test_bad_json(write: Write, line: str, reason: str) -> None:
    said = message(write("a.jsonl", f'{{"text": "a"}}\n{line}\n'))
    assert said.startswith("a.jsonl line 2: each line must be one JSON object, such as {")
    assert reason in said


def test_damaged_files(write: Write, tmp_path: Path) -> None:
    assert "a.parquet cannot be read as Parquet" in message(write("a.parquet", b""))
    assert "a.parquet cannot be read as Parquet" in message(write("a.parquet", "text,label\n"))
    path = parquet(tmp_path / "a.parquet", {"text": [str(n) * 9 for n in range(1000)]})
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes(400) + whole[600:])
    assert "a.parquet cannot be read" in message(path)
    path = write("a.csv.gz", "text,label\n" + "a,b\n" * 1000)
    path.write_bytes(path.read_bytes()[:-12])
    assert "a.csv.gz cannot be read" in message(path)
    path.write_bytes(b"text,label\n")
    assert "a.csv.gz cannot be read" in message(path)


def test_unknown_format(write: Write) -> None:
    said = message(write("a.xlsx", "x"))
    assert said.startswith("Format '.xlsx' of a.xlsx is not known (format= sets it): ")
    assert all(repr(ending) in said for ending in ENDINGS)
    assert "did you mean '.jsonl'" in message(write("a.txt", "x"), format="jsonll")
    assert "not zipped" in message(write("a.parquet.gz", "x"))


def test_columns_belong_to_csv_and_tsv(write: Write) -> None:
    assert "without a header; a.jsonl is neither" in message(write("a.jsonl", '{"text": "a"}'), columns=["text"])


# data sets of the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, str]]:
    """A hub with one data set; what was asked of it is listed."""
    asked: list[tuple[str, str | None, str]] = []
    features = datasets.Features(
        {
            "id": datasets.Value("int32"),
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
        }
    )
    columns = {"id": [1, 2, 3], "sentence": ["good", "bad", "hidden"], "label": [1, 0, -1]}

    def load_dataset(name: str, config: str | None, *, split: str) -> Any:
        asked.append((name, config, split))
        return datasets.Dataset.from_dict(columns, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_hub_labels_are_names(hub: list[tuple[str, str | None, str]]) -> None:
    read = examples("stanfordnlp/sst2", labelled=True)
    assert list(itertools.islice(read, 2)) == [
        Example("good", None, "positive", "stanfordnlp/sst2:train row 1"),
        Example("bad", None, "negative", "stanfordnlp/sst2:train row 2"),
    ]
    with pytest.raises(InputError, match=r"row 3: the label in column 'label' is None"):
        next(read)
    assert values("stanfordnlp/sst2")[2] == {"id": 3, "sentence": "hidden", "label": None}


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("stanfordnlp/sst2", ("stanfordnlp/sst2", None, "validation")),
        ("stanfordnlp/sst2:test", ("stanfordnlp/sst2", None, "test")),
        ("nyu-mll/glue/sst2", ("nyu-mll/glue", "sst2", "validation")),
        ("nyu-mll/glue/sst2:train[:10%]", ("nyu-mll/glue", "sst2", "train[:10%]")),
        ("a/b.v1_2:train+test", ("a/b.v1_2", None, "train+test")),
    ],
)
def test_hub_names(hub: list[tuple[str, str | None, str]], source: str, asked: tuple[str, str | None, str]) -> None:
    assert len(list(examples(source, split="validation"))) == 3
    assert hub == [asked]


def test_an_existing_path_wins_over_the_hub(
    hub: list[tuple[str, str | None, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    Path("owner/name").write_text("one\n")
    assert values("owner/name", format="txt") == [{"text": "one"}]
    assert "is not known (format= sets it)" in message("owner/name")
    assert "There is no file" in message("owner/train.csv")
    assert "There is no file" in message("./owner/nothing")
    assert hub == []


@pytest.mark.parametrize(
    "error",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."),
        ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)\nsecond line"),
        ValueError("Unknown split 'train'. Should be one of ['test']."),
        RuntimeError("Dataset scripts are no longer supported, but found b.py"),
    ],
)
def test_hub_errors_are_one_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load_dataset(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    said = message("a/b")
    assert said.startswith(f"a/b:train is no file here, and no data set that the hub gives: {type(error).__name__}: ")


# promises


def test_memory_is_constant(tmp_path: Path) -> None:
    line = "x" * 999 + "\t1\n"
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + line * 5_000)  # 5 MB
    with gzip.open(tmp_path / "b.csv.gz", "wt", compresslevel=1) as file:
        file.write("text,label\n" + line.replace("\t", ",") * 5_000)
    (tmp_path / "c.jsonl").write_text((json.dumps({"text": "x" * 999, "label": 1}) + "\n") * 5_000)
    for name in ("a.tsv", "b.csv.gz", "c.jsonl"):
        tracemalloc.start()
        try:
            assert sum(len(example.text) for example in examples(tmp_path / name, labelled=True)) == 5_000 * 999
            assert tracemalloc.get_traced_memory()[1] < 300_000
        finally:
            tracemalloc.stop()


def test_reading_text_imports_no_heavy_library(write: Write) -> None:
    code = (
        "import sys, clozeline.data.readers as readers; next(readers.rows(sys.argv[1]))\n"
        "sys.exit(', '.join({'torch', 'datasets', 'pyarrow', 'numpy'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, write("a.txt", "one")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# real data


def test_real_sst2(data: Path) -> None:
    read = list(examples(data / "sst2" / "train.tsv", labelled=True))
    assert len(read) == 67_349
    assert {example.label for example in read} == {"0", "1"}
    assert read[0] == Example("hide new secretions from the parental units ", None, "0", "train.tsv line 2")


def test_real_imdb(data: Path) -> None:
    labels = [example.label for example in examples(data / "imdb" / "train.parquet", labelled=True)]
    assert len(labels) == 25_000
    assert labels.count("1") == labels.count("0") == 12_500


def test_real_headlines(data: Path) -> None:
    path = data / "sarcasm" / "news_headlines.jsonl"
    labels = [example.label for example in examples(path, text="headline", label="is_sarcastic")]
    assert (len(labels), labels.count("1")) == (26_709, 11_724)


def test_real_mrpc_has_a_byte_order_mark_and_lone_quotes(data: Path) -> None:
    path = data / "glue" / "MRPC" / "msr-para-train.tsv"
    assert list(values(path)[0]) == ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    read = list(examples(path, text="#1 String", pair="#2 String", label="Quality"))
    assert len(read) == 3_576
    assert read[0].text.startswith('Amrozi accused his brother, whom he called "the witness"')
    assert not any(example.pair is None or example.pair.endswith("\r") for example in read)


def test_real_files_without_header(data: Path) -> None:
    cola = data / "glue" / "CoLA" / "train_full.tsv"
    assert len(list(examples(cola, columns=["source", "label", "mark", "text"], labelled=True))) == 8_551
    stsb = data / "glue" / "STS-B" / "stsb-en-train.csv"
    scores = [
        float(str(example.label)) for example in examples(stsb, columns=["a", "b", "score"], text="a", label="score")
    ]
    assert len(scores) == 5_749
    assert max(scores) == 5.0


def test_real_parquet_streams(data: Path) -> None:
    before = pa.total_allocated_bytes()
    read = examples(data / "imdb" / "unsup.parquet")
    assert len(list(itertools.islice(read, 1000))) == 1000
    assert pa.total_allocated_bytes() - before < 64 * 2**20  # the file holds 50,000 reviews
