"""CheckList's released suites (Ribeiro et al. 2020, "Beyond Accuracy", github.com/marcotcr/checklist) as suites of ours.

They are pickles of dill's, which are read without running them.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clozeline.behaviour.pickled import Record, inert
from clozeline.data.suite import Case, Suite, read_suite
from clozeline.errors import InputError

LARGEST = 2**30
"""Bytes of a pickle: 40 times the largest suite that was released."""

TOLERATED = 0.1
"""How far the score may go the wrong way where phrases are added, whose expectation is known by the test's name."""

KINDS = re.compile(r"[iu][1248]|U\d{1,6}")
"""Codes of NumPy's whole numbers and texts."""

HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which no tokenizer takes."""

NOT_DRAWN = "written cases outside the sample that CheckList draws for a run"
OWN_FUNCTION = "written cases whose expectation is a function that its form does not tell"
NO_TEXT = "written cases without a text, or without a changed one"
NO_LABEL = "written cases without a label, or of one that labels= leaves out"
UNCHANGED = "changed texts that are the text itself"
AGAIN = "cases that are there already"


def read_checklist(path: str | Path, labels: Sequence[str | None] = ("negative", "neutral", "positive")) -> Suite:
    """Read a suite that CheckList saved, a pickle or a tar file of one, as a `Suite`; write it once with `write_suite`.

    A minimum functionality test becomes minimum cases, an invariance test the first text against each of the others, and a
    directional test direction cases where what it expects can be told: that a score rises or falls, or that phrases called
    positive or negative are added. A capability is CheckList's with the name of the test. What cannot be expressed is left
    out and counted in the suite's notes; so are the cases that CheckList itself does not draw for a run (it draws 500 of
    each test of its released suites).

    Args:
        labels: the names of CheckList's labels 0, 1, ... from the most negative to the most positive; None leaves out the
            cases of a label that the model to be judged does not have.

    Raises:
        InputError: the file is missing, damaged or no suite of CheckList's, or has pairs of texts.
    """
    path, names = Path(path), [name for name in labels if name is not None]
    if len(set(names)) < max(2, len(names)):
        raise InputError(f"labels is {labels!r}; it must name two or more labels, each once.")
    root = inert(_bytes(path), path.name)
    tests = dict(_pairs(_part(root, "tests")))
    if not tests or not all(isinstance(_part(test, "data"), list) for test in tests.values()):
        raise InputError(f"{path.name} is no suite that CheckList saved: it has no tests with data.")
    described = dict(_pairs(_part(root, "info")))
    about: dict[str, str] = {}
    cases: list[Case] = []
    left: dict[str, Counter[str]] = {}
    notes: list[str] = []
    written = 0
    for name, test in tests.items():
        said = {**test.state, **dict(_pairs(described.get(name)))}
        capability = f"{said['capability']}: {name}" if isinstance(said.get("capability"), str) else name
        before = len(cases)
        for forms in _written(name, test, labels, path.name, left, notes):
            cases += [replace(case, capability=capability, written=written) for case in forms]
            written += 1
        if len(cases) > before:
            told = said.get("description")
            # its authors left "TODO" where a description was to be written
            about[capability] = " ".join(told.split()) if isinstance(told, str) and "TODO" not in told else ""
    for reason, counts in left.items():
        listed = ", ".join(f"{count:,} of {test!r}" for test, count in counts.items())
        notes.append(f"Left out, {reason}: {listed}.")
    if not cases:
        raise InputError(f"Nothing in {path.name} can be expressed as a case. {' '.join(notes)}")
    return Suite(path.name.split(".")[0], tuple(cases), about, tuple(dict.fromkeys(notes)))


def any_suite(name_or_path: str | Path, outputs: int = 3) -> Suite:
    """A shipped suite, a file of ours, or one that CheckList saved, by its ending. outputs: how many labels the model to be
    judged has; where it has two, CheckList's neutral cases are left out."""
    if not str(name_or_path).endswith((".pkl", ".tar", ".tar.gz", ".tgz")):
        return read_suite(name_or_path)
    return read_checklist(name_or_path, ("negative", "neutral" if outputs > 2 else None, "positive"))


def _written(
    name: str, test: Record, labels: Sequence[str | None], file: str, left: dict[str, Counter[str]], notes: list[str]
) -> Iterator[list[Case]]:
    """The written cases of one of CheckList's tests, each as the cases it expands to, without a capability and a number."""

    def leave(reason: str, count: int = 1) -> None:
        if count:
            left.setdefault(reason, Counter())[name] += count

    data, own, cells = _part(test, "data"), _part(test, "labels"), _cells(_part(test, "expect"))
    drawn = _drawn(_part(test, "run_idxs"), len(data))
    leave(NOT_DRAWN, len(data) - len(drawn))
    expected, said = _expected(name, test.name.rpartition(" ")[2], cells, labels)
    if expected is None:
        leave(OWN_FUNCTION, len(drawn))
        return
    notes += said
    seen: set[tuple[str, str | None, str | None]] = set()
    for at in drawn:
        texts = _texts(data[at], file)
        case = replace(expected, place=f"{file} test {name!r} case {at}")
        if case.test == "minimum":
            given = own if cells["val"] is None else cells["val"]
            if isinstance(given, list):
                given = given[at] if at < len(given) else None
            if given is None or (label := _label(given, labels, case.place)) is None:
                leave(NO_LABEL)
                continue
            found = [replace(case, text=text, label=label) for text in texts]
        else:
            found = [replace(case, text=texts[0], changed=text) for text in texts[1:]]
        if not found:
            leave(NO_TEXT)
            continue
        forms = []
        for form in found:
            key = form.text, form.changed, form.label
            if form.text == form.changed:
                leave(UNCHANGED)
            elif key in seen:
                leave(AGAIN)
            else:
                seen.add(key)
                forms.append(form)
        if forms:
            yield forms


def _expected(
    name: str, kind: str, cells: dict[str, Any], labels: Sequence[str | None]
) -> tuple[Case | None, list[str]]:
    """What a test expects, as a case without texts, or None where its form does not tell; and what there is to say of it.

    cells: what its expectation, a function made of functions, holds by name. CheckList's own ones are known by these names.
    """
    said = []
    if "slice_fn" in cells:
        said = [f"{name!r}: CheckList judges only cases that a function chooses by the answer; here all are judged."]
    case = Case("", "minimum", "", "", 0)
    phrases = re.search(r"\b(positive|negative) phrases\b", name)
    tolerance: Any = cells.get("tolerance")
    tolerant = isinstance(tolerance, int | float) and 0 <= tolerance <= 1
    if kind == "MFT" and "val" in cells:
        return case, said
    if kind == "INV" and tolerant:
        if tolerance:
            said.append(
                f"CheckList forgives a changed label where its score moved by {tolerance} or less; here it fails."
            )
        return replace(case, test="invariance"), said
    if kind == "DIR" and tolerant and "keep_label" in cells and isinstance(cells.get("increasing"), bool):
        kept = cells["keep_label"]
        case = replace(case, moves="up" if cells["increasing"] else "down", least=-float(tolerance))
    elif kind == "DIR" and phrases:
        kept = len(labels) - 1
        case = replace(case, moves="up" if phrases[1] == "positive" else "down", least=-TOLERATED)
        said.append(
            f"{name!r} is read by its name: the score of {labels[-1]!r} must go {case.moves}, {TOLERATED} is forgiven."
        )
    else:
        return None, []
    label = None if kept is None else _label(kept, labels, name)
    return (None, []) if label is None and kept is not None else (replace(case, test="direction", label=label), said)


def _label(number: Any, labels: Sequence[str | None], place: str) -> str | None:
    number = _scalar(number)
    if not isinstance(number, int) or not 0 <= number < len(labels):
        shown = number if isinstance(number, int | str) else type(number)  # never what may hold itself
        raise InputError(f"{place} has the label {shown!r:.40}; labels= names 0 to {len(labels) - 1}: {labels!r}.")
    return labels[number]


def _texts(item: Any, file: str) -> list[str]:
    """The texts of one of CheckList's examples; none where there is something else."""
    items = item if isinstance(item, list) else [item]
    if any(isinstance(one, tuple | list) for one in items):
        raise InputError(f"{file} tests pairs of texts, and the cases of a suite have single ones; it cannot be read.")
    texts = [_scalar(one) for one in items]
    good = all(isinstance(text, str) and text.strip() and not HALVES.search(text) for text in texts)
    return texts if good else []


def _drawn(chosen: Any, count: int) -> list[int]:
    """The places of the examples that CheckList draws for a run, ascending; all where it has none drawn."""
    numbers = _array(chosen) if isinstance(chosen, Record) else chosen
    if not isinstance(numbers, list) or not numbers:
        return list(range(count))
    return sorted({at for at in numbers if isinstance(at, int) and 0 <= at < count})


def _scalar(value: Any) -> Any:
    """A NumPy text or number as a plain one, anything else as it is."""
    values = _array(value) if isinstance(value, Record) else []
    return values[0] if len(values) == 1 else value


def _array(record: Record) -> list[Any]:
    """The numbers or texts of a NumPy array or scalar, from its bytes; none where a record is something else."""
    parts = [part for whole in (record.args, record.state) if isinstance(whole, tuple) for part in whole]
    kinds = [part for part in parts if isinstance(part, Record) and part.name.endswith("dtype")]
    raw = [part for part in parts if isinstance(part, bytes | bytearray)]
    code = kinds[0].args[0] if kinds and isinstance(kinds[0].args, tuple) and kinds[0].args else None
    if not raw or not isinstance(code, str) or not KINDS.fullmatch(code):
        return []
    order = ">" if isinstance(kinds[0].state, tuple) and ">" in kinds[0].state[:2] else "<"
    try:
        return list(np.frombuffer(raw[-1], order + code).tolist())
    except ValueError:  # bytes that are no whole number of these
        return []


def _cells(function: Any) -> dict[str, Any]:
    """What a function that dill saved holds by name, and what the functions in it hold."""
    found: dict[str, Any] = {}
    waiting, known = [function], set()
    while waiting:
        match one := waiting.pop():
            case Record(args=(Record(args=(*_, tuple() as names, _)), _, _, _, tuple() as cells, *_)):
                if id(one) in known:
                    continue
                known.add(id(one))
                for name, cell in zip(names, cells, strict=False):
                    match name, cell:
                        case str(), Record(args=(held, *_)):
                            found.setdefault(name, held)
                            waiting.append(held)
    return found


def _part(record: Any, name: str) -> Any:
    state = record.state if isinstance(record, Record) else None
    return state.get(name) if isinstance(state, dict) else None


def _pairs(held: Any) -> list[tuple[str, Any]]:
    """The entries of a dict, or of a record that is a kind of dict, whose keys are text."""
    items = held.items() if isinstance(held, dict) else held.items if isinstance(held, Record) else ()
    return [pair for pair in items if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)]


def _bytes(path: Path) -> bytes:
    """A pickle, or the one in a tar file; the tar file is never unpacked."""
    try:
        if not tarfile.is_tarfile(path):
            pickled = path.read_bytes() if path.stat().st_size <= LARGEST else None
        else:
            with tarfile.open(path) as tar:
                members = [member for member in tar if member.isfile() and member.name.endswith((".pkl", ".pickle"))]
                if len(members) != 1:
                    listed = ", ".join(member.name for member in members) or "none"
                    raise InputError(
                        f"{path.name} must hold one pickle, and holds {listed}; take out the one you want."
                    )
                file = tar.extractfile(members[0]) if members[0].size <= LARGEST else None
                pickled = None if file is None else file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InputError(f"{path.name} cannot be read: {error}.") from error
    if pickled is None:
        raise InputError(f"{path.name} is larger than {LARGEST:,} bytes; no suite of CheckList's is.")
    return pickled
