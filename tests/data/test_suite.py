"""Behavioural suites: what a line becomes, what is refused, and that the shipped suite and its training set keep apart."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import clozeline
from clozeline.data import checks
from clozeline.data.shingles import Shingler, words
from clozeline.data.suite import Case, Suite, read_suite, write_suite
from clozeline.errors import InputError

TRAINING = Path(clozeline.__file__).parent / "suites" / "sentiment-training.jsonl"
PLAIN = {"capability": "negation", "test": "minimum", "text": "Not bad.", "label": "positive"}
SAME = {"capability": "typo", "test": "invariance", "text": "I like it.", "changed": "I liek it.", "change": "swapped"}
MORE = {
    "capability": "more",
    "test": "direction",
    "text": "Good.",
    "changed": "Very good.",
    "label": "p",
    "moves": "up",
}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def bare(suite: Suite) -> list[Case]:
    """The cases without where they stand."""
    return [replace(case, place="") for case in suite.cases]


def test_each_kind_of_line_becomes_its_case(tmp_path: Path) -> None:
    unsure = {"capability": "facts", "test": "minimum", "text": "It is blue.", "unsure": True, "label": None}
    note, about = {"note": "Made by hand."}, {"capability": "typo", "about": "Typos do not matter."}
    suite = read_suite(write(tmp_path / "mine.jsonl", note, PLAIN, about, SAME, {**MORE, "least": -0.1}, unsure))
    assert suite.name == "mine"
    assert suite.cases == (
        Case("negation", "minimum", "Not bad.", "mine.jsonl line 2", 0, label="positive"),
        Case("typo", "invariance", "I like it.", "mine.jsonl line 4", 1, changed="I liek it.", change="swapped"),
        Case("more", "direction", "Good.", "mine.jsonl line 5", 2, "p", "Very good.", None, "up", -0.1),
        Case("facts", "minimum", "It is blue.", "mine.jsonl line 6", 3, unsure=True),
    )
    assert suite.about == {"typo": "Typos do not matter.", "negation": "", "more": "", "facts": ""}
    assert suite.notes == ("Made by hand.",)
    assert suite.texts() == ["Not bad.", "I like it.", "I liek it.", "Good.", "Very good.", "It is blue."]


def test_lists_and_forms_expand_to_cases_that_share_their_number(tmp_path: Path) -> None:
    lists = {"what": ["soup", "tea"], "how": ["hot", "cold"]}
    filled = {**SAME, "text": "The {what} is {how}.", "changed": "the {what} is {how}", "lists": lists}
    forms = {**SAME, "text": ["a b", "c d"], "changed": ["ab", "cd"]}
    spread = {**SAME, "text": "e f", "changed": ["ef", "e-f"]}
    literal = {**PLAIN, "text": "Write {name}, {other}.", "lists": {"name": ["{name}"], "other": ["{name}"]}}
    suite = read_suite(write(tmp_path / "mine.jsonl", filled, forms, spread, literal))
    assert [(case.text, case.changed, case.written) for case in suite.cases] == [
        ("The soup is hot.", "the soup is hot", 0),
        ("The soup is cold.", "the soup is cold", 0),
        ("The tea is hot.", "the tea is hot", 0),
        ("The tea is cold.", "the tea is cold", 0),
        ("a b", "ab", 1),
        ("c d", "cd", 1),
        ("e f", "ef", 2),
        ("e f", "e-f", 2),
        ("Write {name}, {name}.", None, 3),
    ]
    write_suite(suite, tmp_path / "again.jsonl")
    assert bare(read_suite(tmp_path / "again.jsonl")) == bare(suite)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ({**PLAIN, "lable": "positive"}, ["'lable'", "did you mean 'label'"]),
        ({**PLAIN, "changed": "Bad."}, ["'changed' is no key of a case of test 'minimum'"]),
        ({**PLAIN, "test": "minimal"}, ["test is 'minimal'", "did you mean 'minimum'"]),
        ({**PLAIN, "test": ["minimum"]}, ["test is ['minimum']", "'direction'"]),
        ({**PLAIN, "label": None}, ['"label"', '"unsure": true']),
        ({**PLAIN, "unsure": True}, ['either a "label"']),
        ({**PLAIN, "label": 1}, ["label is 1", "text"]),
        ({**PLAIN, "text": " "}, ["text is ' '", "not empty"]),
        ({**PLAIN, "text": []}, ["text is []"]),
        ({**PLAIN, "capability": None}, ["capability is None"]),
        ({**PLAIN, "text": "A {thing}.", "lists": {"thign": ["x"]}}, ["'thign'", "did you mean 'thing'"]),
        ({**PLAIN, "text": "A {thing}."}, ["{thing} has no list", '"lists": {"thing"']),
        ({**PLAIN, "text": "A {a} {b}.", "lists": {"a": ["x"]}}, ["{b} has no list", "Allowed: 'a'"]),
        ({**PLAIN, "text": "A {a}.", "lists": {"a": []}}, ["the list 'a' is []"]),
        ({**PLAIN, "text": "A {a}.", "lists": {"a": ["x", 2]}}, ["the list 'a' is ['x', 2]"]),
        ({**PLAIN, "text": "A {a}.", "lists": ["a"]}, ["lists is ['a']", "object"]),
        ({**PLAIN, "text": "A {a}.", "lists": {"a": ["x", "x"]}}, ["line 2 has a case twice", "A x."]),
        ({**PLAIN, "text": "{a}{b}", "lists": dict.fromkeys("ab", ["x"] * 101)}, ["10,201", "10,000"]),
        ({**SAME, "changed": "I like it."}, ["the changed text is the text itself", "I like it."]),
        ({**SAME, "changed": None}, ["changed is None"]),
        ({**SAME, "label": "positive"}, ["'label' is no key", "'change'"]),
        ({**SAME, "text": ["a", "b"], "changed": ["c", "d", "e"]}, ["2 texts but 3 changed"]),
        ({**MORE, "moves": "left"}, ["moves is 'left'", "'up', 'down'"]),
        ({**MORE, "least": "0.1"}, ["least is '0.1'", "from -1 to 1"]),
        ({**MORE, "least": True}, ["least is True"]),
        ({"capability": "more", "about": "Strength."}, ["describes 'more', which no case tests", "'first'"]),
        ({"capability": "first", "about": ""}, ["about is ''"]),
        ({"capability": "first", "about": "x", "text": "y"}, ["'text' is no key of a line about a capability"]),
        ({"note": 3}, ["note is 3"]),
        ({**PLAIN, "text": "One.", "capability": "first"}, ["line 2 repeats a case of mine.jsonl line 1", "'One.'"]),
        ([PLAIN], ["one JSON object"]),
    ],
)
def test_a_line_that_is_no_case_is_refused_by_name(line: Any, parts: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", {**PLAIN, "capability": "first", "text": "One."}, line)
    with pytest.raises(InputError) as caught:
        read_suite(path)
    assert all(part in str(caught.value) for part in ["mine.jsonl line 2", *parts]), caught.value


def test_a_suite_that_is_not_there_or_has_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no suite 'sentimant': did you mean 'sentiment'"):
        read_suite("sentimant")
    with pytest.raises(InputError, match="no file"):
        read_suite(tmp_path / "absent.jsonl")
    twice = {"capability": "a", "about": "b"}
    with pytest.raises(InputError, match=r"line 2 describes 'a' again; mine.jsonl line 1 does so too"):
        read_suite(write(tmp_path / "mine.jsonl", twice, twice))
    with pytest.raises(InputError, match="no case"):
        read_suite(write(tmp_path / "mine.jsonl", twice))
    with pytest.raises(InputError, match=r"must end in \.jsonl"):
        write_suite(read_suite("sentiment"), tmp_path / "suite.json")


def test_the_shipped_suite_is_what_its_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sentiment").mkdir()  # a folder of that name is no suite
    monkeypatch.chdir(tmp_path)
    suite = read_suite("sentiment")
    assert (len(suite.cases), suite.cases[-1].written + 1, len(suite.about)) == (824, 650, 20)
    assert all(suite.about.values())
    readme = (TRAINING.parent / "README.md").read_text(encoding="utf-8")
    assert "650 written cases of 20 capabilities, 824 with templates filled" in readme
    assert {case.label for case in suite.cases} == {"negative", "positive", None}
    least = {case.capability: case.least for case in suite.cases if case.test == "direction"}
    assert least == {"added-negation": 0.1, "intensifier": -0.1}
    labels = Counter((case.capability, case.label) for case in suite.cases if case.test == "minimum" and case.label)
    assert all(labels[name, "positive"] == labels[name, "negative"] for name, _ in labels)
    write_suite(suite, tmp_path / "copy.jsonl")
    copy = read_suite(tmp_path / "copy.jsonl")
    assert bare(copy) == bare(suite)
    assert copy.about == suite.about


def test_no_training_text_is_nearly_one_of_the_shipped_suite() -> None:
    suite = read_suite("sentiment")
    rows = [json.loads(line) for line in TRAINING.read_text(encoding="utf-8").splitlines()]
    counts = Counter((row["capability"], row["label"]) for row in rows)
    assert {counts.pop(("sarcasm", label)) for label in ("negative", "positive")} == {197}
    assert set(counts.values()) == {23}
    readme = (TRAINING.parent / "README.md").read_text(encoding="utf-8")
    assert "900 texts, half of them positive: 394 of sarcasm, 46 of each other" in readme
    assert {row["capability"] for row in rows} < suite.about.keys()
    ours = [checks.Item(row["text"], row["label"], f"line {at}") for at, row in enumerate(rows, 1)]
    theirs = [checks.Item(text, None, "suite") for text in suite.texts()]
    found = checks.check(ours, theirs)
    assert (found.leaks, found.near_leaks, found.repeats, found.conflicts, found.crowded) == ([], [], 0, [], 0)
    # MinHash may miss a pair and leaves out texts of fewer than 8 words: here every pair is compared
    hashes, owners, _ = Shingler()([words(text)] for text in [*(item.text for item in ours), *suite.texts()])
    shingles = [set(hashes[owners == at].tolist()) for at in range(len(ours) + len(theirs))]
    by_shingle: dict[int, set[int]] = {}
    for at, one in enumerate(shingles[len(ours) :]):
        for shingle in one:
            by_shingle.setdefault(shingle, set()).add(at)
    for item, one in zip(ours, shingles, strict=False):
        for at in set().union(*(by_shingle.get(shingle, set()) for shingle in one)):
            other = shingles[len(ours) + at]
            assert len(one & other) / len(one | other) < 0.3, (item.text, theirs[at].text)
