"""What a hardening run reads: labelled data as pairs of text and label, and cases that somebody wrote."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from clozeline.data.checks import Item, check
from clozeline.data.readers import Columns, Example, rows
from clozeline.data.shingles import words
from clozeline.errors import InputError, nearest
from clozeline.hardening.filters import Candidate
from clozeline.hardening.mixing import Pair
from clozeline.tasks.supervised import settled_labels
from clozeline.tasks.text_classification import TextClassification

log = logging.getLogger("clozeline")


@dataclass(frozen=True)
class Data:
    """labels: in order; tests: by name; extra: None where the control's examples are put aside from train."""

    labels: tuple[str, ...]
    train: list[Pair]
    validation: list[Pair] | None
    tests: dict[str, list[Pair]]
    extra: list[Pair] | None

    @property
    def digest(self) -> dict[str, str]:
        """What tells other data apart, for a run that goes on, wherever it is; of extra there may be more."""
        parts = {"train": self.train, "validation": self.validation, "tests": [*self.tests.values()]}
        return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest()[:16] for name, part in parts.items()}


def read(
    task: TextClassification,
    where: Columns,
    train: str | Path,
    validation: str | Path | None,
    tests: Sequence[str | Path],
    extra: str | Path | None,
) -> Data:
    """All labelled data of a run.

    Raises:
        InputError: as the readers; pairs, shares of labels, or a label that training has not.
    """

    def pairs(source: str | Path, split: str) -> list[Pair]:
        return [_pair(each) for each in task.read(source, split, where)]

    own = pairs(train, "train")
    labels = task.outputs or settled_labels({label for _, label in own}, str(train))
    found: dict[str, list[Pair]] = {str(test): pairs(test, "test") for test in tests}
    if len(found) < len(tests):
        raise InputError("A test is given twice; give each once.")
    checks = None if validation is None else pairs(validation, "validation")
    others = None if extra is None else pairs(extra, "train")
    for name, some in (*found.items(), (str(validation), checks), (str(extra), others)):
        for _, label in some or ():
            if label not in labels:
                raise InputError(f"{name} has a label {label!r} that training has not: {nearest(label, labels)}")
    return Data(labels, own, checks, found, others)


def without_leaks(data: Data, held: Mapping[str, Sequence[str]]) -> tuple[Data, list[str]]:
    """The data without training and extra texts that repeat what models are judged by, and what there is to say about it.

    held: texts by the name of what they are of. Texts repeat when their words are the same, or nearly, as in `data.checks`.
    """
    ours = [*data.train, *(data.extra or [])]
    judges = [Item(text, None, name) for name, texts in held.items() for text in texts]
    known = {" ".join(words(item.text)) for item in judges} - {""}
    gone = {at for at, (text, _) in enumerate(ours) if " ".join(words(text)) in known}
    rest = [Item(text, label, str(at)) for at, (text, label) in enumerate(ours) if at not in gone]
    gone |= {int(match.second.place) for match in check(rest, judges).near_leaks}
    if not gone:
        return data, []
    shown = "; ".join(repr(ours[at][0])[:80] for at in sorted(gone)[:3])
    split = len(data.train)
    train = [pair for at, pair in enumerate(data.train) if at not in gone]
    extra = None if data.extra is None else [pair for at, pair in enumerate(data.extra, split) if at not in gone]
    said = (
        f"{sum(at < split for at in gone):,} training texts and {sum(at >= split for at in gone):,} of extra repeat, in the "
        f"same or nearly the same words, a text that the models are judged by. All are left out: {shown}."
    )
    if len({label for _, label in train}) < 2:
        raise InputError(f"{said} {len(train):,} are left, without two labels: train and test need texts of their own.")
    log.warning("%s", said)
    return replace(data, train=train, extra=extra), [said]


def apart(data: Data) -> tuple[Data, list[str]]:
    """The data without texts of extra that stand in train too, for the control needs others, and what to say of it."""
    if data.extra is None:
        return data, []
    known = {_as_words(text) for text, _ in data.train}
    extra = [pair for pair in data.extra if _as_words(pair[0]) not in known]
    if not (gone := len(data.extra) - len(extra)):
        return data, []
    said = (
        f"{gone:,} of the {len(data.extra):,} texts of extra stand in the training data too, and are left out of extra."
    )
    log.warning("%s", said)
    return replace(data, extra=extra), [said]


def _as_words(text: str) -> str:
    """The same for texts with the same words; of a text without any, itself."""
    return " ".join(words(text)) or text


def fingerprint(source: str | Path | None) -> str | None:
    """What tells the content of a file or a model folder from another's; of a hub name the name."""
    if source is None or not Path(source).exists():
        return None if source is None else str(source)
    path, found = Path(source), hashlib.sha256()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in (each for each in files if each.is_file()):
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()[:16]


def _pair(example: Example) -> Pair:
    if not isinstance(example.label, str) or example.pair is not None:
        raise InputError(f"{example.place}: hardening works on single texts with one label each.")
    return example.text, example.label


def shipped_cases(suite: str) -> Path:
    """The training cases that come with a shipped suite, and share nothing with it.

    Raises:
        InputError: the suite is a file of the user's, so there are none.
    """
    path = Path(str(resources.files("clozeline") / "suites" / f"{suite}-training.jsonl"))
    if not path.exists():
        raise InputError(
            f"No cases come with the suite {suite}; give a file of cases, or the url of a server that writes them."
        )
    return path


def read_cases(source: str | Path, capabilities: Sequence[str], named: Sequence[str]) -> dict[str, list[Candidate]]:
    """Cases by capability, from a file with columns text, label and, unless one capability is named, capability.

    capabilities: those of the suite; named: those to harden, where some are.

    Raises:
        InputError: a column is missing, or a capability is none of the suite's.
    """
    found: dict[str, list[Candidate]] = {}
    for row in rows(source):
        values = [row.values.get(column) for column in ("text", "label")]
        if any(value is None for value in values):
            raise InputError(f"{row.place}: a case has columns text and label; there are {', '.join(row.values)}.")
        capability = row.values.get("capability") or (named[0] if len(named) == 1 else None)
        if capability not in capabilities:
            given = "has no capability" if capability is None else f"has the capability {capability!r}"
            raise InputError(
                f"{row.place} {given}; the suite's are: {nearest(str(capability), capabilities)} Or name one to harden."
            )
        case = Candidate(str(values[0]), str(values[1]), str(capability), row.place)
        found.setdefault(str(capability), []).append(case)
    return found
