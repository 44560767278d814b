"""Harden: find what a classifier is weakest at, mix cases of it into training, train again, and see what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clozeline.behaviour.checklist import any_suite
from clozeline.data.readers import Columns
from clozeline.errors import InputError, nearest
from clozeline.face import load
from clozeline.hardening.arms import Judges
from clozeline.hardening.asking import askable
from clozeline.hardening.filters import check_range
from clozeline.hardening.reading import apart, read, without_leaks
from clozeline.hardening.report import Hardened
from clozeline.hardening.work import Work
from clozeline.hardening.writing import CaseServer
from clozeline.tasks.text_classification import TextClassification
from clozeline.train.fit import check
from clozeline.train.folder import refuse
from clozeline.train.settings import Settings

PROBES = (
    "Great movie, if you enjoy watching paint dry for two hours.",
    "The effects were stunning, but the plot made zero sense.",
    "I wish I knew what beautiful movie I just watched, because it certainly was not this one.",
)
"""Sentences that are looked at one by one, before and after, of a suite about sentiment."""


def harden(
    model: str | Path,
    train: str | Path,
    test: str | Path | Sequence[str | Path],
    validation: str | Path | None = None,
    *,
    suite: str | Path = "sentiment",
    capability: str | Sequence[str] = (),
    cases: str | Path | CaseServer | None = None,
    extra: str | Path | None = None,
    judge: str | Path | None = None,
    paraphraser: str | Path | None = None,
    words: tuple[int, int] = (3, 60),
    strict: bool = False,
    share: float = 0.1,
    probes: Sequence[str] | None = None,
    task: TextClassification | None = None,
    labels: Mapping[str, str] | None = None,
    text: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    out: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    seeds: int = 5,
    settings: Settings | None = None,
    device: str | None = None,
    **changes: object,
) -> Hardened:
    """Train a classifier without, with, and in place of cases of what it cannot read, and say what that changed.

    Three arms of `seeds` models each begin from `model`: before, on the training data; after, with the cases mixed in;
    control, with as many ordinary examples instead. All are judged on the tests, the suite and the probes.

    Args:
        model: what every arm begins from: an encoder, or a classifier that is trained on.
        train, validation, test: labelled data, as in `Model.fit`; several tests are judged each by itself.
        suite: the name of a shipped suite, or a file; see `clozeline.data.suite`.
        capability: what to harden, one of the suite's or several; the one that fails most where none is named.
        cases: a file with columns text, label and capability, or a server that writes them; those in the package without.
        extra: ordinary examples for the control; without, they are put aside from the training data, for all arms.
        judge: a trained classifier that must agree with the label of each case.
        paraphraser: a sentence encoder that finds held-out texts in other words too, such as all-MiniLM-L6-v2.
        words: the fewest and the most that a case may have.
        strict: end the run where a case repeats a held-out text, instead of leaving the case out.
        share: of cases in the training rows; where there are too few cases each is repeated, ten times at most.
        probes: sentences to look at one by one; those in `PROBES` with the shipped suite without.
        task: settings of the classifier, such as `max_length`.
        labels: what the data call the suite's labels, where that is not clear: {"positive": "1", "negative": "0"}.
        text, label, columns, encoding: as in `Model.fit`, of train, validation, test and extra.
        out: a folder for all of it.
        resume: go on where a stopped run in `out` was; answers of a server and models that are there are not made again.
        seeds: models of each arm, with seeds from the settings' own on. From five on, luck is told from change.
        settings, changes: how to train, as in `Model.fit`.

    Raises:
        InputError: data, suite or model cannot be used, no case is left, `out` holds another run, or a case leaks (strict).
    """
    refuse(Path(out), resume=resume, overwrite=overwrite)
    ready = prepare(
        model, train, test, validation, suite=suite, capability=capability, cases=cases, extra=extra, judge=judge,
        paraphraser=paraphraser, words=words, strict=strict, share=share, probes=probes, task=task, labels=labels, text=text,
        label=label, columns=columns, encoding=encoding, out=out, quiet=quiet, seeds=seeds, device=device,
        settings=(settings or Settings()).replace(**changes),
    )  # fmt: skip
    return ready.run(resume=resume, overwrite=overwrite)


def prepare(
    model: str | Path,
    train: str | Path,
    test: str | Path | Sequence[str | Path],
    validation: str | Path | None,
    *,
    suite: str | Path,
    capability: str | Sequence[str],
    cases: str | Path | CaseServer | None,
    extra: str | Path | None,
    judge: str | Path | None,
    paraphraser: str | Path | None,
    words: tuple[int, int],
    strict: bool,
    share: float,
    probes: Sequence[str] | None,
    task: TextClassification | None,
    labels: Mapping[str, str] | None,
    text: str | None,
    label: str | None,
    columns: Sequence[str] | None,
    encoding: str,
    out: str | Path,
    quiet: bool,
    seeds: int,
    settings: Settings,
    device: str | None,
) -> Work:
    """Read what a run needs, as `harden` is given it; writes nothing."""
    given = [test] if isinstance(test, str | Path) else list(test)
    task = task or TextClassification()
    if not 0 < share < 1:
        raise InputError(f"share is {share}; it is a part of the training rows, such as 0.1.")
    if not isinstance(seeds, int) or seeds < 1 or not given:
        raise InputError(f"Give at least one seed, as a whole number, and one test; seeds is {seeds!r}.")
    for name, source in (("train", train), ("validation", validation), ("extra", extra)):
        if not isinstance(source, str | Path | None):
            raise InputError(f"{name} is {source!r}; give one file or hub data set.")
    check_range(words)
    if Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"{out} is a file; give a folder for the run.")
    check(task, settings, validation is not None)
    where = Columns(text=text, label=label, names=columns, encoding=encoding)
    data = read(task, where, train, validation, given, extra)
    own = () if task.outputs else load(model, device=device).labels
    if {*own} == {*data.labels}:  # a classifier's, in the order of its outputs
        data = replace(data, labels=own)
    judged_by = any_suite(suite, len(data.labels))
    given_names = [capability] if isinstance(capability, str) else capability or ()
    parts = ([name] if name in judged_by.about else name.split(",") for name in given_names)  # CheckList's have commas
    names = list(dict.fromkeys(part.strip() for some in parts for part in some))
    for name in names:
        if name not in judged_by.about:
            raise InputError(f"Suite {judged_by.name} has no capability {name!r}: {nearest(name, judged_by.about)}")
        if isinstance(cases, CaseServer) and name not in (known := askable(judged_by)):
            raise InputError(
                f"No server can be asked for cases of {name}: suite {judged_by.name} has no single texts of it with a right "
                f"label. Those that can be asked for: {', '.join(known)}. For others give cases in a file."
            )
    if probes is None:
        probes = PROBES if str(suite) == "sentiment" else ()
    probes = (probes,) if isinstance(probes, str) else tuple(probes)
    held = {f"test {name}": [text for text, _ in pairs] for name, pairs in data.tests.items()}
    held |= {f"suite {judged_by.name}": judged_by.texts(), "probe sentences": [*probes]}
    held |= {} if data.validation is None else {"validation": [text for text, _ in data.validation]}
    data, repeats = apart(data)
    data, notes = without_leaks(data, held)
    judges = Judges(data.tests, judged_by, labels, probes)
    return Work(
        Path(out), model, task.with_outputs(data.labels), data, cases, settings, judges, tuple(names), share, seeds, device,
        quiet, judge, paraphraser, words, strict, str(suite), held, (*repeats, *notes),
    )  # fmt: skip
