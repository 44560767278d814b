"""Words with tags, questions with answers or choices, labels that are not one class: what is read and what is refused."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from clozeline.data import choices, conll, squad, tagged, tags
from clozeline.data.labels import class_or_shares, classes, numbers
from clozeline.data.readers import Columns, Row
from clozeline.data.tagged import TaggedText
from clozeline.errors import InputError
from hostile import HOSTILE

PLAIN = Columns()
FLAG = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def refused(read: Callable[[], Any], *parts: str) -> None:
    """One sentence or two that name the place; no traceback, for it is an InputError."""
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


# -- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada's 3rd note, p. 5!", ["Ada", "'", "s", "3rd", "note", ",", "p", ".", "5", "!"]),
        ("e\u0301tude Z\u0351\u036balgo snake_case", ["e\u0301tude", "Z\u0351\u036balgo", "snake_case"]),
        ("北京大学 東京タワー", [*"北京大学東京タワー"]),
        ("iPhone手机", ["iPhone", "手", "机"]),
        ("ก็ดี", ["ก็", "ดี"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("مُحَمَّد السلام", ["مُحَمَّد", "السلام"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("Donau\u00addampf\u2060er", ["Donau\u00addampf\u2060er"]),
        ("\u200fשלום\u200e (א)", ["שלום", "(", "א", ")"]),
        ("a\u200bb \ufeffc\x00d", ["a", "b", "c", "d"]),
        ("👍🏽👍 👨\u200d👩\u200d👧!", ["👍🏽", "👍", "👨\u200d👩\u200d👧", "!"]),
        ("❤\ufe0f1\ufe0f\u20e3", ["❤\ufe0f", "1\ufe0f\u20e3"]),
        ("🇩🇪🇫🇷🇪 x", ["🇩🇪", "🇫🇷", "🇪", "x"]),
        (f"{FLAG}x", [FLAG, "x"]),
        ("", []),
        (" \t\n\u3000", []),
        ("\u0301\u200d", ["\u0301\u200d"]),
    ],
)
def test_words_are_what_a_reader_would_call_words(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in tagged.words(text)] == expected


def test_words_never_overlap_and_hold_all_that_is_seen() -> None:
    random = np.random.default_rng(0)
    signs = [*"aZ9_.,'\u0301\u200d\u200c\u00ad\u200b 北กदा👍🏽🇩🇪\n\u3000\u200f𝓐", *"".join(HOSTILE[:16])]
    texts = [text[:2000] for text in HOSTILE] + ["".join(random.choice(signs, 60).tolist()) for _ in range(300)]
    for text in texts:
        before = 0
        for start, end in tagged.words(text):
            assert before <= start < end
            between, word = text[before:start], text[start:end]
            assert not any(sign.isspace() for sign in word)
            assert not any(sign.isalnum() or unicodedata.category(sign)[0] in "PS" for sign in between)
            before = end
        assert not any(sign.isalnum() for sign in text[before:])


# -- tags


def test_tags_written_in_a_scheme_stand_for_the_same_entities() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        size, at = int(random.integers(0, 20)), 0
        entities: list[tags.Span] = []
        while at < size:
            end = at + int(random.integers(1, 5))
            if random.random() < 0.5 and end <= size:
                entities.append((at, end, str(random.choice(["a", "b-c"]))))
            at = end
        for scheme in ("BIO", "BIOES"):
            assert tags.spans(tags.written(size, entities, scheme)) == entities
        kinds = {kind for *_, kind in entities}
        if kinds:
            names = tags.outputs(kinds, "BIOES")
            assert {*tags.written(size, entities, "BIOES")} <= {*names}
            assert tags.scheme_of(names) == "BIOES"
            assert tags.scheme_of(tags.outputs(kinds, "BIO")) == "BIO"
            assert tags.scheme_of(tags.outputs(kinds, "IO")) == "IO"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("O I-a I-a I-b", [(1, 3, "a"), (3, 4, "b")]),
        ("B-a B-a I-a", [(0, 1, "a"), (1, 3, "a")]),
        ("S-a I-a E-a O E-b", [(0, 1, "a"), (1, 3, "a"), (4, 5, "b")]),
        ("U-a B-a I-a L-a", [(0, 1, "a"), (1, 4, "a")]),
        ("I-a B-a O", [(0, 1, "a"), (1, 2, "a")]),
        ("", []),
    ],
)
def test_tags_are_read_as_conlleval_reads_them(given: str, expected: list[tags.Span]) -> None:
    assert tags.spans(given.split()) == expected


# -- forms of tagged texts


def test_all_forms_hold_the_same(tmp_path: Path) -> None:
    words, given = ["Ada", "Lovelace", "wrote", "C", "."], ["B-person", "I-person", "O", "B-thing", "O"]
    text = " ".join(words)
    spans = [{"start": 0, "end": 12, "label": "person"}, {"start": 19, "end": 20, "label": "thing"}]
    forms = {
        "a.conll": "-DOCSTART- -X- O\n\n" + "\n".join(f"{w} NN {t}" for w, t in zip(words, given, strict=True)) + "\n",
        "b": "\n".join(f"{w}\t{t}" for w, t in zip(words, given, strict=True)) + "\r\n \t\r\n",
        "c.jsonl": json.dumps({"words": words, "tags": given}),
        "d.json": json.dumps({"tokens": words, "ner_tags": given}),
        "e.jsonl": json.dumps({"text": text, "spans": spans}),
        "f.ndjson": json.dumps({"text": text, "entities": spans[::-1]}),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content.encode())
        (one,) = tagged.read(tmp_path / name, "train", PLAIN)
        assert (one.text, one.tags) == (text, tuple(given))
        assert [one.text[start:end] for start, end in one.words] == words
    (one,) = tagged.read(
        write(tmp_path / "g.jsonl", [{"satz": words, "marken": given, "tags": None}]),
        "train",
        Columns(text="satz", label="marken"),
    )
    assert one.tags == tuple(given)


@pytest.mark.parametrize("name", ["nofolder/test.conll", "nofolder/test.bio.gz", "nofolder/test.TXT"])
def test_a_mistyped_path_of_columns_is_no_data_set_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clozeline.data.readers._hub", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match=name.partition(".")[0]):
        tagged.read(name, "train", PLAIN)


def test_the_words_of_wnut_are_read_with_their_tags(data: Path) -> None:
    sentences = tagged.read(data / "wnut17" / "test.conll", "test", PLAIN)
    assert len(sentences) == 1287
    assert sum(len(tags.spans(one.tags or ())) for one in sentences) == 1079


def test_a_span_inside_a_word_is_widened_and_counted() -> None:
    found = tagged.of_spans("Lovelaces notes", [{"start": 0, "end": 8, "label": "person"}], "a")
    assert (found.tags, found.uneven) == (("B-person", "O"), ((0, 1, "person"),))
    found = tagged.of_spans("Ada  wrote", [{"start": 0, "end": 5, "label": "person"}], "a")
    assert (found.tags, found.uneven) == (("B-person", "O"), ((0, 1, "person"),))
    found = tagged.of_spans("Ada", [{"start": 0, "end": 3.0, "label": "person"}], "a")
    assert (found.tags, found.uneven) == (("B-person",), ())


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 4, "x")], "the span 0 to 4 (x) lies outside the text, 3 characters"),
        ([(-1, 2, "x")], "lies outside the text"),
        ([(2, 2, "x")], "lies outside the text"),
        ([(2, 1, "x")], "lies outside the text"),
        ([(0, 2, "x"), (1, 3, "y")], "the spans 0 to 2 and 1 to 3 overlap"),
        ([(0, 3, "x"), (0, 3, "x")], "overlap"),
        ([(0, 3, None)], 'a span must have "start", "end" and "label"'),
        ([(0, 3, "")], 'a span must have "start"'),
        ([(0, 3, 5)], 'a span must have "start"'),
        ([(None, 3, "x")], 'a span must have "start"'),
        ([("a", 3, "x")], 'a span must have "start"'),
        ([("0", 3, "x")], 'a span must have "start", "end" and "label", the first two whole numbers'),
        ([(0, 2.9, "x")], 'a span must have "start", "end" and "label", the first two whole numbers'),
        ([(False, 3, "x")], 'a span must have "start", "end" and "label", the first two whole numbers'),
        ([(0, float("inf"), "x")], 'a span must have "start"'),
        ([(float("nan"), 3, "x")], 'a span must have "start"'),
    ],
    ids=str,
)
def test_spans_that_cannot_be_are_refused(spans: list[Any], message: str, tmp_path: Path) -> None:
    rows = [{"start": start, "end": end, "label": label} for start, end, label in spans]
    path = write(tmp_path / "train.jsonl", [{"text": "a b", "spans": []}, {"text": "a b", "spans": rows}])
    refused(lambda: tagged.read(path, "train", PLAIN), "train.jsonl line 2", message)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Lovelace", "spans": [{"start": 0, "end": 4, "label": "x"}, {"start": 4, "end": 8, "label": "y"}]},
         "two spans share the word 'Lovelace'"),
        ({"text": "a   b", "spans": [{"start": 2, "end": 3, "label": "x"}]}, "holds no word, only ' '"),
        ({"text": "a b", "spans": [[0, 1, "x"]]}, 'a span must have "start"'),
        ({"text": "a b", "spans": [{"start": 0, "label": "x"}]}, 'a span must have "start"'),
        ({"text": "a b", "spans": "none"}, 'a row holds "words" and "tags"'),
        ({"text": 5, "spans": []}, 'a row holds "words" and "tags"'),
        ({"text": "a b"}, "this one holds 'text'"),
        ({"words": ["a", "b"], "tags": ["O"]}, "there are 2 words but 1 tags"),
        ({"words": ["a", " "], "tags": ["O", "O"]}, "a word is empty or no text"),
        ({"words": ["a", 5], "tags": ["O", "O"]}, "a word is empty or no text"),
        ({"words": ["a", "b"], "tags": ["O", 3]}, "a tag is 3"),
        ({"words": ["a", "b"], "tags": ["O", ""]}, "a tag is ''"),
        ({"words": "a b", "tags": "O O"}, 'a row holds "words" and "tags"'),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_are_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", [{"words": ["a"], "tags": ["O"]}, row])
    refused(lambda: tagged.read(path, "train", PLAIN), "train.jsonl line 2", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb\n", "test.conll line 2 is 'b'"),
        ("a\tO\n\tB-x\n", "test.conll line 2"),
        ("a DT B-NP O\nb NN I-NP\n", "test.conll line 2 is 'b NN I-NP': it has 3 columns, but the first line has 4"),
        (
            "-DOCSTART- -X- O\n\na O\n\nb NN O\n",
            "test.conll line 5 is 'b NN O': it has 3 columns, but the first line has 2",
        ),
        ("a\tO\nb\t\n", "test.conll line 2"),
        ("", "test.conll is empty"),
        ("\n\n \t\n", "test.conll holds no sentences"),
        ("-DOCSTART- O\n", "test.conll holds no sentences"),
        (b"a O\n\xff O\n", "test.conll line 2 is not utf-8"),
        (b"a\0 O\n", "test.conll line 1 has a NUL byte"),
    ],
    ids=str,
)
def test_columns_that_cannot_be_are_refused(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "test.conll"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: tagged.read(path, "test", PLAIN), message)


@pytest.mark.parametrize("name", ["none.conll", "none.jsonl", "none"])
def test_files_that_are_not_there_are_named(name: str, tmp_path: Path) -> None:
    for read in (tagged.read, squad.read, choices.read):
        refused(lambda read=read: read(tmp_path / name, "test", PLAIN), name)  # type: ignore[misc]


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.json", "empty.csv"])
def test_empty_files_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    for read in (tagged.read, squad.read, choices.read):
        refused(lambda read=read: read(tmp_path / name, "test", PLAIN), name)  # type: ignore[misc]


def test_words_are_joined_by_single_spaces() -> None:
    found = tagged.of_words(["a", "bc", "d e"], ["O", "B-x", "O"], "here")
    assert found == TaggedText("a bc d e", ((0, 1), (2, 4), (5, 8)), ("O", "B-x", "O"), "here")
    assert tagged.of_words([], [], "here").words == ()


# -- questions about passages


def of_squad(*entries: dict[str, Any], context: Any = "Ada wrote it.") -> dict[str, Any]:
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": [*entries]}]}]}


def entry(name: str = "q1", start: Any = 4, text: Any = "wrote", **more: Any) -> dict[str, Any]:
    return {"id": name, "question": "What?", "answers": [{"text": text, "answer_start": start}], **more}


def row(name: Any = "q1", start: Any = (4,), text: Any = ("wrote",), **more: Any) -> dict[str, Any]:
    answers = {"text": [*text], "answer_start": [*start]}
    return {"id": name, "question": "What?", "context": "Ada wrote it.", "answers": answers, **more}


def test_squads_json_and_rows_hold_the_same(tmp_path: Path) -> None:
    nested = of_squad(entry(), entry("q2", answers=[]), entry("q3", is_impossible=True))
    (tmp_path / "a.json").write_text(json.dumps(nested))
    (tmp_path / "b.json").write_text(json.dumps(nested, indent=2), encoding="utf-8-sig")
    rows = [row(), row("q2", (), ()), row("q3", is_impossible=True)]
    write(tmp_path / "c.jsonl", rows)
    write(tmp_path / "d.json", rows)
    lists: list[list[Any]] = [[{"text": "wrote", "answer_start": 4}], [], []]
    write(tmp_path / "e.jsonl", [{**one, "answers": each} for one, each in zip(rows, lists, strict=True)])
    for name in ("a.json", "b.json", "c.jsonl", "d.json", "e.jsonl"):
        found = squad.read(tmp_path / name, "train", PLAIN)
        assert [(one.name, one.question, one.passage) for one in found] == [
            (name, "What?", "Ada wrote it.") for name in ("q1", "q2", "q3")
        ]
        assert [one.answers for one in found] == [(("wrote", 4),), (), ()]


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    found = squad.read(write(tmp_path / "a.jsonl", [row(None), row(None)]), "train", PLAIN)
    assert [one.name for one in found] == ["0", "1"]
    renamed = [{"q": "What?", "p": "Ada wrote it.", "a": {"text": ["it"], "answer_start": [10]}}]
    (one,) = squad.read(write(tmp_path / "b.jsonl", renamed), "train", Columns(text="q", pair="p", label="a"))
    assert (one.question, one.passage, one.answers) == ("What?", "Ada wrote it.", (("it", 10),))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (of_squad(entry(start=5)), "question q1: the answer 'wrote' does not stand at answer_start 5; it stands at 4"),
        (of_squad(entry(text="painted")), "it stands nowhere in the passage"),
        (of_squad(entry(start=-9)), "does not stand at answer_start -9"),
        (of_squad(entry(start="4")), "has not the form of SQuAD"),
        (of_squad(entry(start=None)), "has not the form of SQuAD"),
        (of_squad(entry(text="")), "question q1: an answer is ''"),
        (of_squad(entry(text=None)), "has not the form of SQuAD"),
        (of_squad(entry(), entry()), "question q1 is there twice"),
        (of_squad(entry(question=None)), "question q1: the question is None"),
        (of_squad(entry(answers=[]), context=7), "question q1: the passage is 7"),
        (of_squad(entry(answers=None)), "has not the form of SQuAD"),
        (of_squad({"question": "What?"}), "the key 'id' is missing"),
        (of_squad(), "holds no questions"),
        ({"data": []}, "holds no questions"),
        ({"data": ["x"]}, "has not the form of SQuAD"),
        ({"data": None}, "has not the form of SQuAD"),
    ],
)
def test_squads_json_that_cannot_be_is_refused(data: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(json.dumps(data))
    refused(lambda: squad.read(tmp_path / "dev.json", "test", PLAIN), "dev.json", message)


@pytest.mark.parametrize("content", ["[]", "{", "nonsense", "5"])
def test_what_is_no_json_object_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(content)
    refused(lambda: squad.read(tmp_path / "dev.json", "test", PLAIN), "dev.json")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (row(start=(5,)), "the answer 'wrote' does not stand at answer_start 5; it stands at 4"),
        (row(start=(4, 5)), "text and answer_start must be lists of the same length"),
        (row(start=()), "text and answer_start must be lists of the same length"),
        (row(answers={"text": ["wrote"]}), "text and answer_start must be lists of the same length"),
        (row(start=(-9,)), "does not stand at answer_start -9"),
        (row(start=(4.5,)), "the answers must be"),
        (row(text=(5,)), "the answers must be"),
        (row(text=(" ",), start=(3,)), "an answer is ' '"),
        (row(answers=None), "the answers must be"),
        (row(answers="wrote"), "the answers must be"),
        (row(question=None), "the question is None; it must be a text"),
        (row(context=5), "the context is 5; it must be a text"),
        (row("first"), "is there twice"),
        ({"question": "What?", "passage": "a"}, "there is no column 'context' (pair=)"),
        ({"question": "What?", "context": "a"}, "there is no column 'answers' (label=)"),
    ],
    ids=str,
)
def test_rows_of_answers_that_cannot_be_are_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "dev.jsonl", [row("first"), given])
    refused(lambda: squad.read(path, "test", PLAIN), "dev.jsonl line 2", message)


# -- choices


def one_of(tmp_path: Path, *rows: dict[str, Any], **columns: Any) -> list[choices.Choices]:
    return choices.read(write(tmp_path / "some.jsonl", [*rows]), "train", Columns(**columns))


def test_choices_are_read_from_a_column_each_or_from_lists(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,A,B,C,answer\nq,x,y,z,B\nr,x,y,,A\n")
    found = choices.read(tmp_path / "a.csv", "train", PLAIN)
    assert [(one.question, one.choices, one.answer) for one in found] == [
        ("q", ("x", "y", "z"), 1),
        ("r", ("x", "y"), 0),
    ]
    for given in (
        {"question": "q", "choices": ["x", "y", "z"], "answer": 1},
        {"question": "q", "choices": ["x", "y", "z"], "answer": 1.0},
        {"question": "q", "choices": ["x", "y", "z"], "answer": "1"},
        {"question": "q", "choices": ["x", "y", "z"], "label": "B"},
        {"question": "q", "options": ["x", "y", "z"], "answer": " y "},
        {"question": "q", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "2"},
        {"sent1": "q", "ending0": "x", "ending1": "y", "ending2": "z", "label": 1},
        {"sent1": "q", "ending0": "x", "ending1": "y", "ending2": "z", "label": "ending1"},
        {"question": "q", "choices": ["x", "y", "z", None, " "], "answer": "B"},
    ):
        (one,) = one_of(tmp_path, given)
        assert (one.question, one.choices, one.answer) == ("q", ("x", "y", "z"), 1)
    (one,) = one_of(tmp_path, {"f": "q", "u": "x", "v": "y", "w": "v"}, text="f", choices=["u", "v"], label="w")
    assert one.answer == 1
    (one,) = one_of(tmp_path, {"question": "q", "choices": ["1", "2"], "answer": 1})
    assert one.answer == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"choices": ["x"]}, "needs two choices or more, in a list or in a column each; choices is ['x']"),
        ({"choices": []}, "choices is []"),
        ({"choices": ["x", "", "z"]}, "an empty choice stands before another one"),
        ({"choices": ["x", " ", "z"]}, "an empty choice stands before another one"),
        ({"choices": [None, "x", "z"]}, "an empty choice stands before another one"),
        ({"choices": ["x", 5]}, "must be texts"),
        ({"choices": None}, "choices is None"),
        ({"choices": "x|y"}, "choices is 'x|y'"),
        ({"question": None}, "must be texts"),
        ({"answer": "D"}, "the answer is 'D'; it must be a letter from A to C, a number from 0 to 2"),
        ({"answer": 3}, "the answer is '3'"),
        ({"answer": -1}, "the answer is '-1'"),
        ({"answer": None}, "there is no answer in the column 'answer'; it must be a letter"),
        ({"answer": True}, "the answer is 'True'"),
        ({"answer": ""}, "there is no answer"),
        ({"answer": "1", "choices": ["1", "2", "3"]}, "is a number and a text of different choices"),
        ({"answer": "A", "choices": ["B", "A"]}, "is a letter and a text of different choices"),
        ({"answer": "x", "choices": ["x", "x", "y"]}, "2 choices are 'x', the answer; give its letter"),
    ],
    ids=str,
)
def test_choices_that_cannot_be_are_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    first = {"question": "q", "choices": ["x", "y"], "answer": 1 if isinstance(given.get("answer"), int) else "B"}
    second = {"question": "q", "choices": ["x", "y", "z"], "answer": "B", **given}
    refused(lambda: one_of(tmp_path, first, second), "some.jsonl line 2", message)


def test_letters_and_numbers_are_not_mixed(tmp_path: Path) -> None:
    """In ARC some answers are numbers from 1: read from 0 each would be another choice."""
    rows = [{"question": "q", "choices": ["x", "y", "z"], "answer": answer} for answer in ("C", "y", "1")]
    refused(lambda: one_of(tmp_path, *rows), "some.jsonl line 3: the answer is a number, but not in some.jsonl line 1")


def test_arc_is_read_but_for_its_odd_rows(data: Path, tmp_path: Path) -> None:
    columns = Columns(names=["question", "A", "B", "C", "D", "answer"])
    for name in ("arc-easy-validation.csv", "arc-challenge-train.csv"):
        path = data / "multiple_choice" / name
        refused(lambda path=path: choices.read(path, "test", columns), f"{name} line")  # type: ignore[misc]
    lines = (data / "multiple_choice" / "arc-easy-validation.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line[-2:] in (",A", ",B", ",C", ",D")]
    (tmp_path / "kept.csv").write_text("\n".join(kept), encoding="utf-8")
    found = choices.read(tmp_path / "kept.csv", "test", columns)
    assert len(found) > 500
    assert {one.answer for one in found} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"question": "q", "choices": ["x", "y"]}, {}, "which column is the answer is not clear"),
        ({"question": "q", "answer": "A"}, {}, "which column is the choices is not clear"),
        ({"frage": "q", "choices": ["x", "y"], "answer": "A"}, {}, "which column is the question is not clear"),
        ({"question": "q", "choices": ["x", "y"], "answer": "A"}, {"label": "anwser"}, "did you mean 'answer'"),
        ({"question": "q", "choices": ["x", "y"], "answer": "A"}, {"choices": ["choice"]}, "did you mean 'choices'"),
    ],
)
def test_columns_that_are_not_clear_are_asked_for(
    row: dict[str, Any], columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    refused(lambda: one_of(tmp_path, row, **columns), "some.jsonl line 1", message)


# -- labels


def of(value: Any, column: str = "label") -> Row:
    return Row({column: value}, "train.jsonl line 9")


def test_soft_labels_are_shares_of_one() -> None:
    assert class_or_shares(of({"a": 0.7, "b": 0.3, "c": None}), ["label"]) == {"a": 0.7, "b": 0.3}
    thirds = class_or_shares(of({"a": 0.333, "b": 0.333, "c": 0.333}), ["label"])
    assert isinstance(thirds, dict)
    assert sum(thirds.values()) == pytest.approx(1, abs=1e-12)
    assert class_or_shares(of(" a "), ["label"]) == "a"
    for wrong in ({"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}, {"a": "1"}, {}, {"a": None}, {"a": float("nan")},
                  {"a": float("inf")}, {"a": 10**400}):  # fmt: skip
        refused(lambda wrong=wrong: class_or_shares(of(wrong), ["label"]), "train.jsonl line 9", "add up to 1")  # type: ignore[misc]


def test_sets_of_labels_are_lists_texts_or_columns() -> None:
    for value, expected in (
        (["a", "b", "a"], ("a", "b")),
        ([], ()),
        ("", ()),
        ("a|b; c|a", ("a", "b", "c")),
        ("Health, Fitness|Food", ("Health, Fitness", "Food")),
        ("Health, Fitness", ("Health, Fitness",)),
        (5, ("5",)),
        (1.0, ("1",)),
        (True, ("1",)),
        ([1, 2], ("1", "2")),
    ):
        assert classes(of(value), ["label"]) == expected
    row = Row({"a": "1", "b": 0, "c": 1.0, "d": True, "e": "0"}, "x")
    assert classes(row, [*"abcde"]) == ("a", "c", "d")
    for wrong in (None, {"a": 1}, [["a"]], ["a", None], float("nan")):
        refused(lambda wrong=wrong: classes(of(wrong), ["label"]), "train.jsonl line 9", "give a list of names")  # type: ignore[misc]
    refused(lambda: classes(Row({"a": 1, "b": 2}, "line 3"), ["a", "b"]), "line 3: column 'b' is '2'", "hold 0 or 1")
    refused(lambda: classes(Row({"a": 1, "b": None}, "line 3"), ["a", "b"]), "line 3", "'b'")


def test_numbers_are_finite() -> None:
    assert numbers(Row({"x": "-1.5", "y": 2}, "a"), ["x", "y"]) == (-1.5, 2.0)
    for wrong in ("", "five", None, "nan", "inf", float("nan"), [1], 10**400, 1e39, "1e999"):
        refused(lambda wrong=wrong: numbers(of(wrong), ["label"]), "train.jsonl line 9", "must be a number")  # type: ignore[misc]


def test_answers_and_other_columns_are_no_choices(tmp_path: Path) -> None:
    given = {"question": "q", "A": "x", "B": "y", "NO": "17", "AB": "z", "answer": "B"}
    path = write(tmp_path / "some.jsonl", [given])
    for labelled in (True, False):
        (one,) = choices.read(path, "test", PLAIN, labelled=labelled)
        assert (one.choices, one.answer) == (("x", "y"), 1 if labelled else None)


def test_swags_endings_go_on_with_its_second_sentence(tmp_path: Path) -> None:
    given = {"startphrase": "He sits. He", "sent1": "He sits.", "sent2": "He", "ending0": "sings.", "ending1": "runs."}
    for more in ({"label": 1}, {"label": "1", "video-id": "v"}, {"label": "runs."}):
        (one,) = one_of(tmp_path, {**given, **more})
        assert (one.question, one.choices, one.answer) == ("He sits.", ("He sings.", "He runs."), 1)
    bare = {**given, "label": 0, "sent2": ""}
    del bare["startphrase"]
    (one,) = one_of(tmp_path, bare)
    assert one.choices == ("sings.", "runs.")
    (one,) = one_of(tmp_path, {**given, "label": 0}, text="startphrase")
    assert (one.question, one.choices) == ("He sits. He", ("sings.", "runs."))


def test_arcs_own_form_is_read(tmp_path: Path) -> None:
    offered = [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]
    numbered = [{"text": "x", "label": "1"}, {"text": "y", "label": "2"}]
    for held, key in ((offered, "B"), (numbered, "2")):
        (one,) = one_of(tmp_path, {"id": "1", "question": {"stem": "q", "choices": held}, "answerKey": key})
        assert (one.question, one.choices, one.answer) == ("q", ("x", "y"), 1)
    refused(
        lambda: one_of(tmp_path, {"question": {"stem": "q", "choices": [{"label": "A"}] * 2}, "answerKey": "A"}),
        "some.jsonl line 1",
    )
    refused(lambda: one_of(tmp_path, {"question": {"stem": "q"}, "answerKey": "A"}), "some.jsonl line 1", "choices")


def test_class_numbers_in_lists_of_the_hub_are_names(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = datasets.ClassLabel(names=["O", "B-person"])
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(kinds)})
    held = datasets.Dataset.from_dict({"tokens": [["Ada", "wrote"]], "ner_tags": [[1, 0]]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, *, split: held)
    (found,) = tagged.read("owner/entities", "train", Columns())
    assert (found.text, found.tags) == ("Ada wrote", ("B-person", "O"))


def test_a_no_break_space_is_part_of_a_word(tmp_path: Path) -> None:
    path = tmp_path / "words.conll"
    path.write_text("New\N{NO-BREAK SPACE}York   B-place\n is O\n", encoding="utf-8")
    (found,) = conll.sentences(path)
    assert (found.words, found.tags) == (("New\N{NO-BREAK SPACE}York", "is"), ("B-place", "O"))
