"""CheckList's suites: pickles written here by hand, opcode by opcode, become cases, and nothing in them is ever run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clozeline.behaviour.checklist import read_checklist
from clozeline.behaviour.pickled import Record, inert
from clozeline.data.suite import read_suite, write_suite
from clozeline.errors import InputError

Code = bytes

# -- an assembler


def put(value: Any) -> Code:
    """The opcodes of a plain value; bytes are opcodes already."""
    match value:
        case bytes():
            return value
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            return b"J" + struct.pack("<i", value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(put, value)) + b"t"
        case list():
            return b"](" + b"".join(map(put, value)) + b"e"
        case dict():
            return b"}(" + b"".join(put(key) + put(held) for key, held in value.items()) + b"u"
    raise AssertionError(value)


def raw(value: bytes) -> Code:
    return b"B" + struct.pack("<I", len(value)) + value


def named(module: str, name: str) -> Code:
    return f"c{module}\n{name}\n".encode()


def call(function: Code, *args: Any) -> Code:
    return function + put(args) + b"R"


def made(module: str, name: str, state: Any) -> Code:
    return named(module, name) + b")\x81" + put(state) + b"b"


def function(**held: Any) -> Code:
    """A function that dill saved, with what it holds in cells."""
    code = call(named("dill._dill", "_create_code"), 1, 0, raw(b"\x90"), tuple(held), ())
    cells = tuple(call(named("dill._dill", "_create_cell"), value) for value in held.values())
    return call(named("dill._dill", "_create_function"), code, {}, "expect", None, cells, {}, None)


def array(*numbers: int) -> Code:
    kind = call(named("numpy", "dtype"), "i8", False, True) + put((3, "<", None)) + b"b"
    empty = call(named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), (0,), raw(b"b"))
    return empty + put((1, (len(numbers),), kind, False, raw(struct.pack(f"<{len(numbers)}q", *numbers)))) + b"b"


def scalar(text: str) -> Code:
    kind = call(named("numpy", "dtype"), f"U{len(text)}", False, True) + put((3, "<", None)) + b"b"
    return call(named("numpy.core.multiarray", "scalar"), kind, raw(text.encode("utf-32-le")))


def case(kind: str, data: Any, expect: Code, **more: Any) -> Code:
    state = {"data": data, "expect": expect, "labels": None, "run_idxs": None, "capability": "Thing", **more}
    return made("checklist.test_types", kind, state)


def saved(path: Path, tests: dict[str, Code], info: dict[str, Any] | None = None) -> Path:
    filled = b"(" + b"".join(put(name) + test for name, test in tests.items()) + b"u"
    state = {"tests": call(named("collections", "OrderedDict")) + filled, "info": info or {}}
    path.write_bytes(b"\x80\x03" + made("checklist.test_suite", "TestSuite", state) + b".")
    return path


EQUAL, SAME = function(fn=function(fn=function(val=None))), function(fn=function(tolerance=0.1))
RISES = function(fn=function(increasing=True, keep_label=None, tolerance=0.1), slice_fn=function())


# -- what becomes of a suite


def test_each_kind_of_test_becomes_its_cases_and_the_rest_is_counted(tmp_path: Path) -> None:
    tests = {
        "words": case("MFT", ["good", "bad", "good", " ", "so-so", scalar("fine")], EQUAL, labels=[2, 0, 2, 2, 1, 2]),
        "all bad": case("MFT", ["awful", ["dire", "grim"]], function(fn=function(val=0)), description="Plainly\nbad."),
        "typos": case("INV", [["a b", "ab", "a b", "a  b", "ab"], ["c"], ["d", "e"]], SAME, run_idxs=array(1, 0, 0)),
        "very": case("DIR", [["good", "very good"]], RISES),
        "less": case("DIR", [["x", "y"]], function(increasing=False, keep_label=0, tolerance=0.0), capability=None),
        "add negative phrases": case("DIR", [["it is", "it is. I hate you"]], function()),
        "own": case("DIR", [["p", "q"], ["r", "s"]], function(fn=function())),
        "not bad": case("MFT", ["not bad"], function(fn=function())),
    }
    info = {
        "typos": {"capability": "Robustness", "description": "One typo."},
        "words": {"description": "TODO_DESCRIPTION"},
    }
    suite = read_checklist(saved(tmp_path / "mine.pkl", tests, info))
    told = [
        (case.capability, case.text, case.changed, case.label, case.moves, case.least, case.written)
        for case in suite.cases
    ]
    assert told == [
        ("Thing: words", "good", None, "positive", None, 0, 0),
        ("Thing: words", "bad", None, "negative", None, 0, 1),
        ("Thing: words", "so-so", None, "neutral", None, 0, 2),
        ("Thing: words", "fine", None, "positive", None, 0, 3),
        ("Thing: all bad", "awful", None, "negative", None, 0, 4),
        ("Thing: all bad", "dire", None, "negative", None, 0, 5),
        ("Thing: all bad", "grim", None, "negative", None, 0, 5),
        ("Robustness: typos", "a b", "ab", None, None, 0, 6),
        ("Robustness: typos", "a b", "a  b", None, None, 0, 6),
        ("Thing: very", "good", "very good", None, "up", -0.1, 7),
        ("less", "x", "y", "negative", "down", 0, 8),
        ("Thing: add negative phrases", "it is", "it is. I hate you", "positive", "down", -0.1, 9),
    ]
    assert suite.cases[8].place == "mine.pkl test 'typos' case 0"
    assert list(suite.about.items())[:3] == [
        ("Thing: words", ""),
        ("Thing: all bad", "Plainly bad."),
        ("Robustness: typos", "One typo."),
    ]
    said = "\n".join(suite.notes)
    for count in [
        "are there already: 1 of 'words', 1 of 'typos'",
        "without a text, or without a changed one: 1 of 'words', 1 of 'typos'",
        "the text itself: 1 of 'typos'",
        "draws for a run: 1 of 'typos'",
        "its form does not tell: 2 of 'own', 1 of 'not bad'",
        "forgives a changed label where its score moved by 0.1",
        "'very': CheckList judges only cases",
        "'add negative phrases' is read by its name",
    ]:
        assert count in said, said
    write_suite(suite, tmp_path / "mine.jsonl")
    again = read_suite(tmp_path / "mine.jsonl")
    assert [replace(one, place="") for one in again.cases] == [replace(one, place="") for one in suite.cases]
    assert (again.notes, again.about) == (suite.notes, suite.about)


def test_labels_that_a_model_lacks_are_left_out_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pkl", {"words": case("MFT", ["good", "so-so"], EQUAL, labels=[2, 1])})
    suite = read_checklist(path, ("bad", None, "good"))
    assert [(one.text, one.label) for one in suite.cases] == [("good", "good")]
    assert "labels= leaves out: 1 of 'words'" in suite.notes[0]
    with pytest.raises(InputError, match=r"has the label 2; labels= names 0 to 1"):
        read_checklist(path, ("no", "yes"))
    for labels in (("a",), ("a", "a"), (None, None, "b")):
        with pytest.raises(InputError, match="two or more labels"):
            read_checklist(path, labels)


def test_cells_that_are_filled_later_are_read(tmp_path: Path) -> None:
    code = call(named("dill._dill", "_create_code"), 1, ("val",), ())
    cell = call(named("dill._dill", "_create_cell"), None) + b"q\x01"
    setter = call(named("builtins", "getattr"), named("dill", "_dill"), "_setattr", named("builtins", "setattr"))
    filling = call(setter, b"h\x01", "cell_contents", 0) + b"0"
    expect = call(named("dill._dill", "_create_function"), code, {}, "e", None, (cell,)) + filling
    suite = read_checklist(saved(tmp_path / "mine.pkl", {"words": case("MFT", ["good"], expect, labels=2)}))
    assert [one.label for one in suite.cases] == ["negative"]


def test_a_tar_file_of_one_pickle_is_read_where_it_lies(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pkl", {"words": case("MFT", ["good"], EQUAL, labels=2)})
    with tarfile.open(tmp_path / "mine.tar.gz", "w:gz") as tar:
        tar.add(path, "../../mine.pkl")
        tar.add(Path(__file__), "tests.txt")
    assert read_checklist(tmp_path / "mine.tar.gz").cases[0].text == "good"
    with tarfile.open(tmp_path / "two.tar.gz", "w:gz") as tar:
        tar.add(path, "a.pkl")
        tar.add(path, "b.pkl")
    with pytest.raises(InputError, match=r"one pickle, and holds a\.pkl, b\.pkl"):
        read_checklist(tmp_path / "two.tar.gz")


def test_what_cannot_be_a_suite_is_refused(tmp_path: Path) -> None:
    pairs: list[Any] = [[("a", "b")], [[("a", "b"), ("a", "c")]], [["a", ["b"]]]]
    for data in pairs:
        with pytest.raises(InputError, match="pairs of texts"):
            read_checklist(saved(tmp_path / "mine.pkl", {"same": case("MFT", data, EQUAL, labels=1)}))
    with pytest.raises(InputError, match=r"Nothing in mine\.pkl.*1 of 'own'"):
        read_checklist(saved(tmp_path / "mine.pkl", {"own": case("MFT", ["a"], function())}))
    (tmp_path / "list.pkl").write_bytes(b"\x80\x03" + put(["a"]) + b".")
    with pytest.raises(InputError, match=r"list\.pkl is no suite"):
        read_checklist(tmp_path / "list.pkl")
    (tmp_path / "text.pkl").write_bytes(b"text, label\n")
    with pytest.raises(InputError, match=r"text\.pkl is no pickle, or a damaged one"):
        read_checklist(tmp_path / "text.pkl")
    with pytest.raises(InputError, match=r"absent\.pkl cannot be read"):
        read_checklist(tmp_path / "absent.pkl")


# -- pickles


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_as_pickle_reads_it(protocol: int) -> None:
    shared = ["é😀", b"\x00\xff" if protocol > 2 else "b"]
    data = [
        shared,
        {"a": shared, "b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))},
        None,
        True,
        False,
        -(2**70),
        1.5,
        300,
    ]
    assert inert(pickle.dumps(data, protocol), "mine") == data
    both = inert(pickle.dumps([shared, shared], protocol), "mine")
    assert both[0] is both[1]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_become_records_at_every_protocol(protocol: int) -> None:
    found = inert(pickle.dumps([Path("x"), {1, 2}, slice(1)], protocol), "mine")
    assert all(isinstance(one, Record) for one in found)
    assert found[0].args == ("x",)
    assert "Path" in found[0].name


ATTACKS: dict[str, Callable[[Path], list[Code]]] = {
    "reduce": lambda mark: [call(named("os", "system"), f"touch {mark}")],
    "stack_global": lambda mark: [put("os") + put("system") + b"\x93" + put((f"touch {mark}",)) + b"R"],
    "inst": lambda mark: [b"(" + put(f"touch {mark}") + b"ios\nsystem\n"],
    "obj": lambda mark: [b"(" + named("os", "system") + put(f"touch {mark}") + b"o"],
    "newobj": lambda mark: [named("subprocess", "Popen") + put((["touch", str(mark)],)) + b"\x81"],
    "newobj_ex": lambda mark: [named("subprocess", "Popen") + put((["touch", str(mark)],)) + put({}) + b"\x92"],
    "eval": lambda mark: [call(named("builtins", "eval"), f"open({str(mark)!r}, 'w')")],
    "build": lambda mark: [made("antigravity", "Thing", {"__setstate__": named("os", "system")}), put(str(mark))],
    "setattr": lambda mark: [
        call(named("builtins", "setattr"), named("clozeline.errors", "InputError"), "planted", str(mark))
    ],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_pickle_is_run_or_imported(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("run")

    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    mark = tmp_path / "mark"
    planted = ATTACKS[attack](mark)
    tests = {"words": case("MFT", ["good", *planted], EQUAL, labels=[2, *[2 for _ in planted]], description=planted[0])}
    suite = read_checklist(saved(tmp_path / "mine.pkl", tests))
    assert suite.cases[0].text == "good"
    assert not mark.exists()
    assert "antigravity" not in sys.modules
    assert not hasattr(InputError, "planted")


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80",
        b"\x80\x03",
        b".",
        b"\x80\x03N",
        b"\x80\x03h\x05.",
        b"\x80\x03X\xff\xff\xff\x7fabc.",
        b"\x80\x03X\x03\x00\x00\x00\xed\xa0\x80.",
        b"\x80\x03t.",
        b"\x80\x03]u.",
        b"\x80\x03Na.",
        b"\x80\x03K\x01)R.",
        b"\x80\x03K\x01K\x02\x93.",
        b"\x80\x03\x82\x01.",
        b"\x80\x03Pself\n.",
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x03\x8e" + b"\xff" * 8 + b".",
        b"\xff\xfe",
    ],
)
def test_damaged_pickles_are_refused(pickled: bytes) -> None:
    with pytest.raises(InputError, match=r"mine\.pkl is no pickle, or a damaged one"):
        inert(pickled, "mine.pkl")


def test_parts_that_hold_each_other_without_end_cost_nothing(tmp_path: Path) -> None:
    doubled = b"]" + b"".join(
        b"q" + bytes([at]) + b"]" + b"(h" + bytes([at]) + b"h" + bytes([at]) + b"e" for at in range(60)
    )
    itself = b"]q\xc8(h\xc8e"
    begun = time.monotonic()
    path = saved(tmp_path / "mine.pkl", {"words": case("MFT", ["good"], EQUAL, labels=[doubled], capability=itself)})
    with pytest.raises(InputError, match="has the label <class 'list'>"):
        read_checklist(path)
    assert repr(inert(b"\x80\x03" + call(named("a", "b"), doubled) + b".", "mine")) == "<a b>"
    assert time.monotonic() - begun < 5


def test_a_tar_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        tar.add(saved(tmp_path / "mine.pkl", {"words": case("MFT", ["good"] * 2000, EQUAL, labels=2)}), "mine.pkl")
    (tmp_path / "cut.tar.gz").write_bytes(held.getvalue()[:-60])
    with pytest.raises(InputError, match=r"cut\.tar\.gz"):
        read_checklist(tmp_path / "cut.tar.gz")


def test_the_released_sentiment_suite_is_read_as_it_was_run(data: Path) -> None:
    path = data / "checklist" / "sentiment_suite.pkl"
    if not path.is_file():
        pytest.skip(f"no {path}; it is in release_data.tar.gz of github.com/marcotcr/checklist")
    suite = read_checklist(path)
    assert (len(suite.cases), suite.cases[-1].written + 1, len(suite.about)) == (73_862, 15_333, 34)
    binary = read_checklist(path, ("negative", None, "positive"))
    assert (len(binary.cases), binary.cases[-1].written + 1, len(binary.about)) == (70_849, 12_320, 27)
