"""Behavioural test suites: what a classifier must get right, what must not change its answer, what must move its score.

A suite is a JSON lines file, one written case a line (minimum functionality, invariance and directional expectation tests of
Ribeiro et al. 2020, "Beyond Accuracy"):

    {"capability": "negation", "test": "minimum", "text": "I won't come back.", "label": "negative"}
    {"capability": "facts", "test": "minimum", "text": "Open at {time}.", "unsure": true, "lists": {"time": ["six", "ten"]}}
    {"capability": "typos", "test": "invariance", "text": "I love it.", "changed": "I loev it.", "change": "letters swapped"}
    {"capability": "more", "test": "direction", "text": "Good.", "changed": "Very good.", "label": "positive", "moves": "up"}
    {"capability": "negation", "about": "A negated opinion is the opposite one."}

"lists" fill {slots}: every combination is one case. Where the text or the changed text is itself a list, its members are
forms of one case: as many texts as changed texts go together, or one goes with each.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

from clozeline.data.readers import rows
from clozeline.errors import InputError, nearest
from clozeline.files import write_whole

Test = Literal["minimum", "invariance", "direction"]
Moves = Literal["up", "down"]
SHIPPED = ("sentiment",)
ENDINGS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
SHARED = ("capability", "test", "text", "lists")
OWN: dict[Test, tuple[str, ...]] = {
    "minimum": ("label", "unsure"),
    "invariance": ("changed", "change"),
    "direction": ("changed", "change", "label", "moves", "least"),
}
MOST = 10_000
"""Cases that one line may expand to: more is a list too many."""

SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Case:
    """One text to judge, or a text and a changed one.

    place: such as "sentiment.jsonl line 12"; written: the number of the written case it was expanded from, from 0, which its
    expansions share; label: the right one of a minimum case, or the one whose score must move, where None is the label that
    the model gives the text; changed, change: the changed text, and what was changed, in words; moves: where to; least: by
    how much at least, -0.1 where it may go 0.1 the wrong way; unsure: a minimum case without a right label, for which no
    label may get a high score.
    """

    capability: str
    test: Test
    text: str
    place: str
    written: int
    label: str | None = None
    changed: str | None = None
    change: str | None = None
    moves: Moves | None = None
    least: float = 0.0
    unsure: bool = False


@dataclass(frozen=True)
class Suite:
    """Cases in the order of the file. about: a sentence for each capability, or "", in that order; notes: what to know of
    the suite as a whole, such as what was left out of it."""

    name: str
    cases: tuple[Case, ...]
    about: dict[str, str]
    notes: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        """Every text and changed text, once."""
        both = (text for case in self.cases for text in (case.text, case.changed) if text is not None)
        return list(dict.fromkeys(both))


def read_suite(name_or_path: str | Path) -> Suite:
    """Read the shipped suite "sentiment", or one of your own.

    Raises:
        InputError: there is no such suite, or a line of it is no case; file and line are named.
    """
    path = Path(name_or_path)
    if str(name_or_path) in SHIPPED and not path.is_file():
        path = Path(str(resources.files("clozeline") / "suites" / f"{name_or_path}.jsonl"))
    elif not path.name.endswith(ENDINGS):
        known = nearest(str(name_or_path), SHIPPED)
        raise InputError(f"There is no suite {str(name_or_path)!r}: {known} A suite of your own is a .jsonl file.")
    cases: list[Case] = []
    notes: list[str] = []
    described: dict[str, tuple[str, str]] = {}  # the sentence and its place
    places: dict[Case, str] = {}
    written = 0
    for row in rows(path, format="jsonl"):
        given = {key: value for key, value in row.values.items() if value is not None}
        if "note" in given:
            _check_keys(given, ("note",), "a note", row.place)
            notes.append(_said(given, "note", row.place))
        elif "about" in given:
            _check_keys(given, ("capability", "about"), "a line about a capability", row.place)
            name = _said(given, "capability", row.place)
            if name in described:
                raise InputError(f"{row.place} describes {name!r} again; {described[name][1]} does so too. Keep one.")
            described[name] = _said(given, "about", row.place), row.place
        else:
            for case in _cases(given, row.place, written):
                said = replace(case, place="", written=0)
                if said in places:
                    again = "has a case twice" if places[said] == row.place else f"repeats a case of {places[said]}"
                    raise InputError(f"{row.place} {again}: {case.text!r:.100}. Leave one out.")
                places[said] = row.place
                cases.append(case)
            written += 1
    if not cases:
        raise InputError(f"{path.name} has no case, only lines about capabilities.")
    tested = dict.fromkeys(case.capability for case in cases)
    for name, (_, place) in described.items():
        if name not in tested:
            raise InputError(f"{place} describes {name!r}, which no case tests: {nearest(name, tested)}")
    about = {name: described.get(name, ("", ""))[0] for name in {**described, **tested}}
    return Suite(path.name.removesuffix(".gz").rpartition(".")[0], tuple(cases), about, tuple(notes))


def write_suite(suite: Suite, path: str | Path) -> None:
    """Write a suite as `read_suite` reads it, whole or not at all; templates stand there as the cases they expand to.

    Raises:
        InputError: the path does not end in .jsonl, or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise InputError(f"{path} must end in .jsonl, by which a suite is known.")
    lines: list[dict[str, Any]] = [{"note": note} for note in suite.notes]
    lines += [{"capability": name, "about": about} for name, about in suite.about.items() if about]
    lines += [_line(list(forms)) for _, forms in itertools.groupby(suite.cases, lambda case: case.written)]
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _line(forms: Sequence[Case]) -> dict[str, Any]:
    """One written case with its forms as a line of a file."""
    case = forms[0]
    line: dict[str, Any] = {"capability": case.capability, "test": case.test}
    for key in ("text", "changed"):
        said = [getattr(form, key) for form in forms]
        if said[0] is not None:
            line[key] = said[0] if len(set(said)) == 1 else said
    default = {"label": None, "change": None, "moves": None, "least": 0.0, "unsure": False}
    line |= {key: getattr(case, key) for key, usual in default.items() if getattr(case, key) != usual}
    braced = {slot for form in forms for text in (form.text, form.changed or "") for slot in SLOT.findall(text)}
    return line | ({"lists": {slot: [f"{{{slot}}}"] for slot in sorted(braced)}} if braced else {})


def _cases(given: Mapping[str, Any], place: str, written: int) -> Iterator[Case]:
    """The cases of one line.

    Raises:
        InputError: what the line says is no case.
    """
    test = given.get("test")
    if not isinstance(test, str) or test not in OWN:
        raise InputError(f"{place}: test is {test!r:.40}. {nearest(str(test), get_args(Test))}")
    _check_keys(given, (*SHARED, *OWN[test]), f"a case of test {test!r}", place)
    texts = _forms(given, "text", place)
    changes = _forms(given, "changed", place) if test != "minimum" else [None]
    texts = texts * len(changes) if len(texts) == 1 else texts
    changes = changes * len(texts) if len(changes) == 1 else changes
    if len(texts) != len(changes):
        raise InputError(
            f"{place}: there are {len(texts)} texts but {len(changes)} changed ones; give as many, or one."
        )
    lists = _lists(given, " ".join([*texts, *(each or "" for each in changes)]), place)
    case = Case(
        _said(given, "capability", place),
        test,
        "",
        place,
        written,
        label=_said(given, "label", place) if "label" in given else None,
        change=_said(given, "change", place) if "change" in given else None,
        moves=given.get("moves"),
        least=_least(given, place),
        unsure=given.get("unsure", False),
    )
    if test == "minimum" and (case.unsure is not (case.label is None)):
        raise InputError(f'{place}: a minimum case has either a "label", or "unsure": true where no label is right.')
    if test == "direction" and case.moves not in get_args(Moves):
        raise InputError(
            f"{place}: moves is {case.moves!r:.40}; allowed: 'up', 'down', which is where the score must go."
        )
    for text, changed in zip(texts, changes, strict=True):
        for chosen in itertools.product(*lists.values()):
            words = dict(zip(lists, chosen, strict=True))
            found = replace(
                case, text=_filled(text, words), changed=None if changed is None else _filled(changed, words)
            )
            if found.changed == found.text:
                raise InputError(f"{place}: the changed text is the text itself, {found.text!r:.100}.")
            yield found


def _check_keys(given: Mapping[str, Any], allowed: Sequence[str], what: str, place: str) -> None:
    for key in given:
        if key not in allowed:
            raise InputError(f"{place}: {key!r} is no key of {what}: {nearest(key, allowed)}")


def _said(given: Mapping[str, Any], key: str, place: str) -> str:
    value = given.get(key)
    if isinstance(value, str) and value.strip():
        return value
    raise InputError(f"{place}: {key} is {value!r:.40}; it must be a text that is not empty.")


def _forms(given: Mapping[str, Any], key: str, place: str) -> list[Any]:
    """The text or texts under a key."""
    value = given.get(key)
    forms = value if isinstance(value, list) and value else [value]
    return [_said({key: form}, key, place) for form in forms]


def _lists(given: Mapping[str, Any], texts: str, place: str) -> dict[str, list[str]]:
    """What fills the slots that the texts have."""
    lists, slots = given.get("lists", {}), set(SLOT.findall(texts))
    if not isinstance(lists, dict):
        raise InputError(
            f'{place}: lists is {lists!r:.40}; it must be an object such as {{"thing": ["film", "book"]}}.'
        )
    for slot, words in lists.items():
        if slot not in slots:
            raise InputError(
                f"{place}: the list {slot!r} has no slot {{{slot}}} in a text. {nearest(slot, sorted(slots))}"
            )
        if not (isinstance(words, list) and words and all(isinstance(word, str) and word for word in words)):
            raise InputError(
                f"{place}: the list {slot!r} is {words!r:.40}; it must be a list of texts that are not empty."
            )
    for slot in sorted(slots - lists.keys()):
        hint = nearest(slot, lists) if lists else f'Give it one: "lists": {{"{slot}": ["...", "..."]}}.'
        raise InputError(f"{place}: the slot {{{slot}}} has no list. {hint}")
    if (count := math.prod(map(len, lists.values()))) > MOST:
        raise InputError(
            f"{place}: the lists make {count:,} cases of one; at most {MOST:,} are allowed. Shorten a list."
        )
    return cast(dict[str, list[str]], lists)


def _least(given: Mapping[str, Any], place: str) -> float:
    value = given.get("least", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise InputError(f"{place}: least is {value!r:.40}; it must be a number from -1 to 1, by which a score moves.")
    return float(value)


def _filled(text: str, words: Mapping[str, str]) -> str:
    return SLOT.sub(lambda slot: words[slot[1]], text)
