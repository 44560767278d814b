"""Harden: find the capability a classifier is weakest at, mix cases of it into training, train again, and see what changed.

out/run.json         what was asked for; finished when the report is there
out/cases/           kept.jsonl, rejected.jsonl, and answers/ of a generator, which are never asked for twice
out/data/            what each arm is trained on
out/before/ after/ control/    see arms.py
out/report.md report.json report.html
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clozeline.behaviour.checklist import any_suite
from clozeline.behaviour.running import own_names, votes
from clozeline.data.readers import Columns
from clozeline.errors import InputError, nearest
from clozeline.face import Model, load
from clozeline.files import write_whole
from clozeline.harden import arms, mixing
from clozeline.harden.arms import ARMS, Arm, Judged, Judges
from clozeline.harden.asking import Asking, askable
from clozeline.harden.endpoint import Endpoint
from clozeline.harden.filters import Candidate, Rejected, Sifted, sift
from clozeline.harden.mixing import Pair
from clozeline.harden.reading import Data, fingerprint, read, read_cases, shipped_cases, without_leaks
from clozeline.harden.report import Hardened, compared
from clozeline.harden.writing import CaseServer, path_of, read_template
from clozeline.tasks.text_classification import TextClassification
from clozeline.train.folder import refuse
from clozeline.train.settings import Settings

log = logging.getLogger("clozeline")
PROBES = (
    "Great movie, if you enjoy watching paint dry for two hours.",
    "The effects were stunning, but the plot made zero sense.",
    "I wish I knew what beautiful movie I just watched, because it certainly was not this one.",
)
"""Sentences that are looked at one by one, before and after, of a suite about sentiment."""
LEAST = 10
"""Written cases of a capability in the suite, below which it is not picked as the weakest."""


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
    if seeds < 1 or not given:
        raise InputError("Give at least one seed and one test.")
    where = Columns(text=text, label=label, names=columns, encoding=encoding)
    data = read(task, where, train, validation, given, extra)
    judged_by = any_suite(suite, len(data.labels))
    names = [capability] if isinstance(capability, str) else list(dict.fromkeys(capability))
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
    held = {f"test {name}": [text for text, _ in pairs] for name, pairs in data.tests.items()}
    held |= {f"suite {judged_by.name}": judged_by.texts(), "probe sentences": [*probes]}
    held |= {} if data.validation is None else {"validation": [text for text, _ in data.validation]}
    data, notes = without_leaks(data, held)
    judges = Judges(data.tests, judged_by, labels, tuple(probes))
    return Work(
        Path(out), model, task.with_outputs(data.labels), data, cases, settings, judges, tuple(names), share, seeds, device,
        quiet, judge, paraphraser, words, strict, held, tuple(notes),
    )  # fmt: skip


@dataclass(frozen=True)
class Work:
    """One run in its folder."""

    out: Path
    model: str | Path
    task: TextClassification
    data: Data
    cases: str | Path | CaseServer | None
    settings: Settings
    judges: Judges
    capabilities: tuple[str, ...]
    share: float
    seeds: int
    device: str | None
    quiet: bool
    judge: str | Path | None
    paraphraser: str | Path | None
    words: tuple[int, int]
    strict: bool
    held: dict[str, list[str]]
    notes: tuple[str, ...]

    def run(self, *, resume: bool, overwrite: bool) -> Hardened:
        names, notes = own_names(self.base(self.settings.seed), self.judges.suite, self.judges.labels)
        offered = self.offered()
        asking = self.asking(names)
        second = self._second(names, asking)
        encoder = None if self.paraphraser is None else load(self.paraphraser, device=self.device)
        ordinary, reserve = self.divided(offered, names)
        self._begin(resume, overwrite)  # what is given can be used
        validation = None if self.data.validation is None else self._write("validation", self.data.validation)

        def arm(name: Arm, rows: list[Pair]) -> Judged:
            given: tuple[Any, ...] = (self.judges, self.out, self.settings, self.seeds, self.quiet, self.device)
            return arms.train(name, self.base, self._write(name, rows), validation, *given)

        def vectors(texts: Sequence[str]) -> np.ndarray:
            assert encoder is not None
            return np.asarray(encoder.embed(texts, normalize=True))

        prompts = [read_template("cases", path_of(self.cases.prompt))] if isinstance(self.cases, CaseServer) else []

        def sifted_of(raw: Sequence[Candidate | Rejected]) -> Sifted:
            """What the filters leave of cases, labelled as the data are."""
            return sift(
                [
                    replace(one, label=names.get(one.label, one.label)) if isinstance(one, Candidate) else one
                    for one in raw
                ],
                labels=self.data.labels,
                train=[text for text, _ in ordinary],
                held=self.held,
                words=self.words,
                judge=second,
                embed=None if encoder is None else vectors,
                prompts=prompts,
            )

        chosen = self.capabilities or self._weakest(arm("before", ordinary), offered)
        rows = mixing.rows_of(self.share, len(ordinary))
        said: list[str] = []
        if asking is not None:
            about = {name: self.judges.suite.about[name] for name in chosen}
            sifted, said = asking.enough(about, rows, ordinary, sifted_of)
            said.append(f"{asking.server.model} wrote the cases. {asking.endpoint.spent()}")
        else:
            assert offered is not None
            sifted = sifted_of([case for name in chosen for case in offered[name]])
        self._keep(sifted)
        mixture = mixing.mix(ordinary, sifted.kept, reserve, self.share)
        if (left := len(sifted.kept)) < rows:
            times = f"{mixture.repeats} times" if mixture.repeats > 1 else "once"
            said.append(f"{rows:,} cases were wanted, {left:,} are left after the filters; each is trained on {times}.")
            log.warning("%s", said[-1])
        judged = (arm("before", ordinary), arm("after", mixture.after), arm("control", mixture.control))
        every, picked = (*notes, *self.notes, *said), not self.capabilities
        metric = self.settings.metric or self.task.metrics[0]
        found = compared(judged, self.judges, chosen, sifted, mixture, every, picked, metric)
        found = replace(found, spent=None if asking is None else asking.endpoint.spent())
        for ending in (".json", ".html"):
            found.save(self.out / f"report{ending}")
        write_whole(self.out / "report.md", found.markdown())
        write_whole(self.out / "run.json", json.dumps(self._identity() | {"finished": True}, indent=2) + "\n")
        return found

    def _identity(self) -> dict[str, Any]:
        """What a run that goes on must share with the one that was stopped."""
        suite = json.dumps([dataclasses.astuple(case) for case in self.judges.suite.cases])
        found = {
            "model": fingerprint(self.model),
            "task": dataclasses.asdict(self.task),
            "data": self.data.digest,
            "cases": self.cases.asked if isinstance(self.cases, CaseServer) else fingerprint(self.cases),
            "settings": dataclasses.asdict(self.settings),
            "suite": hashlib.sha256(suite.encode()).hexdigest()[:16],
            "labels": self.judges.labels,
            "probes": self.judges.probes,
            "capabilities": self.capabilities,
            "share": self.share,
            "seeds": self.seeds,
            "judge": fingerprint(self.judge),
            "paraphraser": fingerprint(self.paraphraser),
            "words": self.words,
        }
        return json.loads(json.dumps(found, default=str))

    def _begin(self, resume: bool, overwrite: bool) -> None:
        run, now = self.out / "run.json", self._identity()
        if overwrite:  # but what a server was paid for
            for name in (*ARMS, "data"):
                shutil.rmtree(self.out / name, ignore_errors=True)
            for name in ("run.json", "report.md", "report.json", "report.html"):
                (self.out / name).unlink(missing_ok=True)
        elif run.exists():
            if not resume:
                raise InputError(
                    f"{self.out} holds an unfinished run; go on with it (--resume), or start anew (--overwrite)."
                )
            before = json.loads(run.read_text(encoding="utf-8"))
            if changed := [name for name, value in now.items() if before.get(name) != value]:
                raise InputError(
                    f"{self.out} cannot be gone on with: {', '.join(changed)} changed since. Give what it began with, or "
                    "start anew (--overwrite)."
                )
        write_whole(run, json.dumps(now | {"finished": False}, indent=2) + "\n")

    def base(self, seed: int) -> Model:
        return load(self.model, self.task, device=self.device, seed=seed)

    def _write(self, name: str, rows: Sequence[Pair]) -> Path:
        """What an arm is trained on. It stays what it was for all of the arm's models."""
        path, content = self.out / "data" / f"{name}.jsonl", arms.lines_of(rows)
        if any((self.out / name).glob("seed-*")) and path.exists() and path.read_text(encoding="utf-8") != content:
            raise InputError(
                f"{path} was of other data when the first models of it were trained. Give what the run began with, or begin "
                "anew (--overwrite): what a server has written is kept."
            )
        write_whole(path, content)
        return path

    def offered(self) -> dict[str, list[Candidate]] | None:
        """The cases that there are, by capability; None where a server writes what is wanted."""
        if isinstance(self.cases, CaseServer):
            return None
        suite = self.judges.suite
        place = shipped_cases(suite.name) if self.cases is None else self.cases
        found = read_cases(place, [*suite.about], self.capabilities)
        for name in self.capabilities:
            if name not in found:
                raise InputError(f"{place} has no case of {name!r}: {nearest(name, found)}")
        return found

    def most(self, offered: Mapping[str, Sequence[Candidate]] | None) -> int | None:
        """The most cases that there may be; None where a server writes them."""
        if offered is None:
            return None
        return sum(len(offered[name]) for name in self.capabilities) or max(map(len, offered.values()))

    def divided(
        self, offered: Mapping[str, Sequence[Candidate]] | None, names: Mapping[str, str]
    ) -> tuple[list[Pair], list[Pair]]:
        """The ordinary training examples of every arm, and those that only the control gets some of."""
        cases = None if offered is None else mixing.choices(offered, self.capabilities, names)
        return mixing.divided(self.data.train, self.data.extra, self.share, cases, self.settings.seed)

    def _weakest(self, before: Judged, offered: Mapping[str, Sequence[Candidate]] | None) -> tuple[str, ...]:
        """The capability of those with cases that the models before fail at most."""
        suite = self.judges.suite
        rates = {}
        there = askable(suite) if offered is None else offered
        for name in suite.about:
            shares = [votes(suite, failures, name) for failures in before.failures]
            if len(shares[0]) >= LEAST and name in there:
                rates[name] = float(np.mean(shares))
        if not rates:
            raise InputError(
                f"No capability of suite {suite.name} has {LEAST} cases and something to train on; name one (--capability)."
            )
        return (max(rates, key=rates.__getitem__),)

    def asking(self, names: Mapping[str, str]) -> Asking | None:
        if not isinstance(self.cases, CaseServer):
            return None
        endpoint = Endpoint(self.cases, self.out / "cases" / "answers")
        return Asking(self.cases, endpoint, names, [*names] or self.data.labels, self.quiet)

    def _second(
        self, names: Mapping[str, str], asking: Asking | None
    ) -> Callable[[Sequence[str]], list[str | None]] | None:
        """What gives texts their labels again, as the data call them: the judge, or the server; None: nothing does."""
        if self.judge is not None:
            judge = load(self.judge, device=self.device)
            own = {label: label for label in judge.labels}
            if {*own} != {*self.data.labels}:
                known = own_names(judge, self.judges.suite, None)[0]
                own = {output: names[name] for name, output in known.items()}
            return lambda texts: [own.get(each.label) for each in judge.predict([*texts])]
        return asking.again if asking is not None and asking.server.second else None

    def _keep(self, sifted: Sifted) -> None:
        for name, some in (("kept", sifted.kept), ("rejected", sifted.rejected)):
            lines = [json.dumps(dataclasses.asdict(each), ensure_ascii=False) + "\n" for each in some]
            write_whole(self.out / "cases" / f"{name}.jsonl", "".join(lines))
        if sifted.leaked:
            which = ", ".join(f"{count} of {name}" for name, count in sifted.leaked.items())
            place = self.out / "cases" / "rejected.jsonl"
            if self.strict:
                raise InputError(
                    f"Cases repeat held-out texts: {which}. See {place}. Take them out and begin anew (--overwrite), or go "
                    "on without strict (--resume): then they are left out."
                )
            log.warning(
                "Cases that repeat held-out texts were found, and are not trained on: %s. See %s.", which, place
            )
        if not sifted.kept:
            raise InputError(f"No case is left to train on: {sifted}")
