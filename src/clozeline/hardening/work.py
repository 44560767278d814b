"""A run of `harden` in its folder: the arms in turn, the cases between them, and the report at the end.

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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clozeline.behaviour.running import own_names, votes
from clozeline.data.readers import Example
from clozeline.errors import InputError, nearest
from clozeline.face import Model, load
from clozeline.files import write_whole
from clozeline.hardening import arms, mixing
from clozeline.hardening.arms import ARMS, Arm, Judged, Judges
from clozeline.hardening.asking import Asking, askable
from clozeline.hardening.endpoint import Endpoint
from clozeline.hardening.filters import Candidate, Rejected, Sifted, sift
from clozeline.hardening.mixing import Pair
from clozeline.hardening.reading import Data, fingerprint, read_cases, shipped_cases
from clozeline.hardening.report import Hardened, compared
from clozeline.hardening.writing import CaseServer, path_of, read_template
from clozeline.tasks.text_classification import TextClassification
from clozeline.train.settings import Settings

log = logging.getLogger("clozeline")
LATER = ("cases", "words", "judge", "paraphraser")
"""What may still be changed when only models before are there, which know nothing of it."""
LEAST = 10
"""Written cases of a capability in the suite, below which it is not picked as the weakest."""


class Ready(NamedTuple):
    """What a run begins with. names: what the data call the suite's labels; offered: cases by capability; second, embed: as
    `sift` takes them; ordinary, reserve: as `mixing.divided` gives them; rows: of cases."""

    base: Model
    names: dict[str, str]
    notes: list[str]
    offered: dict[str, list[Candidate]] | None
    asking: Asking | None
    second: Callable[[Sequence[str]], list[str | None]] | None
    embed: Callable[[Sequence[str]], np.ndarray] | None
    prompts: list[str]
    ordinary: list[Pair]
    reserve: list[Pair]
    rows: int


@dataclass(frozen=True)
class Work:
    """One run in its folder. shipped: the name of the suite, whose cases are taken where none are given."""

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
    shipped: str
    held: dict[str, list[str]]
    notes: tuple[str, ...]

    def ready(self) -> Ready:
        """Load and check all that is given; nothing is written, and no server is asked."""
        base = self.base(self.settings.seed)
        names, notes = own_names(base, self.judges.suite, self.judges.labels)
        offered = self.offered()
        if offered is not None:
            self._check_labels(offered, names)
        if not self.capabilities:
            self._choices(offered)
        asking = self.asking(names)
        second = self._second(names, asking)
        encoder = None if self.paraphraser is None else load(self.paraphraser, device=self.device)

        def vectors(texts: Sequence[str]) -> np.ndarray:
            assert encoder is not None
            return np.asarray(encoder.embed(texts, normalize=True))

        prompts = [read_template("cases", path_of(self.cases.prompt))] if isinstance(self.cases, CaseServer) else []
        ordinary, reserve = self.divided(offered, names)
        if not (rows := mixing.rows_of(self.share, len(ordinary))):
            raise InputError(
                f"share={self.share:g} of {len(ordinary):,} training rows is no case; give more of either."
            )
        embed = None if encoder is None else vectors
        notes = [*self.judges.suite.notes, *notes, *self._lost(base)]
        return Ready(base, names, notes, offered, asking, second, embed, prompts, ordinary, reserve, rows)

    def run(self, *, resume: bool, overwrite: bool) -> Hardened:
        _, names, notes, offered, asking, second, embed, prompts, ordinary, reserve, rows = self.ready()
        self._begin(resume, overwrite)  # what is given can be used
        validation = None if self.data.validation is None else self._write("validation", self.data.validation)

        def arm(name: Arm, rows: list[Pair]) -> Judged:
            given: tuple[Any, ...] = (self.judges, self.out, self.settings, self.seeds, self.quiet, self.device)
            return arms.train(name, self.base, self._write(name, rows), validation, *given)

        def sifted_of(raw: Sequence[Candidate | Rejected]) -> Sifted:
            """What the filters leave of cases, labelled as the data are."""
            return sift(
                [
                    replace(one, label=names.get(one.label, one.label)) if isinstance(one, Candidate) else one
                    for one in raw
                ],
                labels=self.data.labels,
                train=[text for text, _ in (*ordinary, *reserve)],
                held=self.held,
                words=self.words,
                judge=second,
                embed=embed,
                prompts=prompts,
            )

        chosen, said = self.capabilities, list[str]()
        if not chosen:
            chosen, said = self._weakest(arm("before", ordinary), offered)
        if asking is not None:
            about = {name: self.judges.suite.about[name] for name in chosen}
            sifted, short = asking.enough(about, rows, ordinary, sifted_of)
            said += short
            said.append(f"{asking.server.model} wrote the cases. {asking.endpoint.spent()}")
        else:
            assert offered is not None
            sifted = sifted_of([case for name in chosen for case in offered[name]])
        self._keep(sifted)
        mixture = mixing.mix(ordinary, sifted.kept, reserve, self.share)
        if (left := len(sifted.kept)) < rows:
            times = mixture.times
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

    def _lost(self, base: Model) -> list[str]:
        """What truncation costs of all that is read, in sentences."""
        said, label = [], self.data.labels[0]
        for name, texts in {"training data": [text for text, _ in self.data.train], **self.held}.items():
            if texts:
                examples = [Example(text, None, label, "") for text in texts]
                cut = self.task.samples(base.tokenizer, examples).cut
                if count := int((cut > 0).sum()):
                    lost = f"lose {int(cut.sum()):,} tokens (long={self.task.long!r})."
                    said.append(f"{count:,} of {len(texts):,} texts of {name} {lost}")
        return said

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
            begun = any(path.is_dir() for arm in ARMS[1:] for path in (self.out / arm).glob("seed-*"))
            keep = [name for name in now if begun or name not in LATER]
            if changed := [name for name in keep if before.get(name) != now[name]]:
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
                f"{path} was of other data when the first models of it were trained. Give what the run began with (without "
                "extra, other cases may put other training texts aside), or begin anew (--overwrite): what a server has "
                "written is kept."
            )
        write_whole(path, content)
        return path

    def offered(self) -> dict[str, list[Candidate]] | None:
        """The cases that there are, by capability; None where a server writes what is wanted."""
        if isinstance(self.cases, CaseServer):
            return None
        suite = self.judges.suite
        place = shipped_cases(self.shipped) if self.cases is None else self.cases
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

    def _check_labels(self, offered: Mapping[str, Sequence[Candidate]], names: Mapping[str, str]) -> None:
        theirs = sorted({case.label for some in offered.values() for case in some})
        if not {names.get(label, label) for label in theirs} & {*self.data.labels}:
            raise InputError(
                f"The cases have the labels {', '.join(map(repr, theirs))}, none of which the training data have: "
                f"{', '.join(map(repr, self.data.labels))}. Write them as the data or the suite do."
            )

    def _choices(self, offered: Mapping[str, Sequence[Candidate]] | None) -> list[str]:
        """What the weakest capability may be: with enough cases to tell that it is, and something to train on."""
        suite = self.judges.suite
        there = askable(suite) if offered is None else offered
        written = Counter(name for name, _ in {(case.capability, case.written) for case in suite.cases})
        found = [name for name in suite.about if written[name] >= LEAST and name in there]
        if not found:
            raise InputError(
                f"No capability of suite {suite.name} has {LEAST} cases and something to train on; name one (--capability)."
            )
        return found

    def _weakest(
        self, before: Judged, offered: Mapping[str, Sequence[Candidate]] | None
    ) -> tuple[tuple[str, ...], list[str]]:
        """The capability of those with cases that the models before fail at most, and what there is to say about it."""
        suite = self.judges.suite
        rates = {}
        for name in suite.about:
            shares = [votes(suite, failures, name) for failures in before.failures]
            if len(shares[0]) >= LEAST:
                rates[name] = float(np.mean(shares))
        chosen = max(self._choices(offered), key=lambda name: rates[name])  # of equal ones the suite's first
        passed = [f"{name} {rate:.1%}" for name, rate in rates.items() if rate > rates[chosen]]
        why = f"Not picked for want of cases, though they fail more than {chosen} ({rates[chosen]:.1%})"
        return (chosen,), [f"{why}: {', '.join(passed)}."] if passed else []

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
