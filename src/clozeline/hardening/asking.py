"""A server at work for a run: asked for cases, for more where the filters take some, and for their labels again.

Meanwhile stderr shows how far it is.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clozeline.data.suite import Suite
from clozeline.hardening.endpoint import Endpoint
from clozeline.hardening.filters import Candidate, Rejected, Sifted
from clozeline.hardening.mixing import Pair
from clozeline.hardening.writing import CaseServer, Short, check_labels, most_asked, path_of, write_cases
from clozeline.train.report import Progress

log = logging.getLogger("clozeline")
Cases = list[Candidate | Rejected]
SHOWN = 6
"""Training texts that a server is shown as examples of the style."""


def askable(suite: Suite) -> list[str]:
    """The capabilities that a server can be asked for texts of: those with cases of one text that has a right label."""
    there = {case.capability for case in suite.cases if case.test == "minimum" and case.label is not None}
    return [name for name in suite.about if name in there]


@dataclass(frozen=True)
class Asking:
    """server: how it is asked; names: what the data call the suite's labels, where it has any; labels: those asked for."""

    server: CaseServer
    endpoint: Endpoint
    names: Mapping[str, str]
    labels: Sequence[str]
    quiet: bool
    _known: dict[str, str | None] = field(default_factory=dict)  # the labels of texts that were asked for again

    def wanted(self, rows: int, capabilities: int) -> int:
        """How many cases of each label each capability is asked for."""
        return -(-rows // (capabilities * len(self.labels)))

    def enough(
        self, about: Mapping[str, str], rows: int, ordinary: Sequence[Pair], sifted: Callable[[Cases], Sifted]
    ) -> tuple[Sifted, list[str]]:
        """What the filters leave of cases of these capabilities, and what there is to say about them.

        Where they leave fewer than wanted, more are asked for, as many as should do where they take the same part, until
        there are enough, nothing new comes, or the requests are used up that the first cases could have taken. The same
        answers ask for the same again, so a run that is gone on with pays for none twice.
        """
        wanted = self.wanted(rows, len(about))
        most = most_asked([wanted] * len(self.labels), self.server.per_request)
        goals = {name: dict.fromkeys(self.labels, wanted) for name in about}
        came, turn = -1, 0
        while True:
            why: dict[str, Short] = {}
            raw = [case for name in about for case in self.cases(name, about[name], goals[name], ordinary, why, most)]
            found = sifted(raw)
            left = Counter((case.capability, case.label) for case in found.kept)
            unique = {
                (case.capability, case.text.casefold()): case.label for case in raw if isinstance(case, Candidate)
            }
            there = Counter((name, label) for (name, _), label in unique.items())
            short: dict[str, list[str]] = {}
            for name, label in ((name, label) for name in about for label in self.labels):
                kept, had = left[name, self.names.get(label, label)], there[name, label]
                if kept < wanted:
                    goals[name][label] = had + (-(-(wanted - kept) * max(1, had) // max(1, kept)) << turn)
                    short.setdefault(name, []).append(f"{kept:,} of the {had:,} that came for {label!r}")
            if not short or len(raw) == came:
                break
            came, turn = len(raw), turn + 1
        said = []
        for name, some in short.items():
            after = f" {why[name]}," if name in why else ""
            said.append(
                f"{name}: {wanted:,} texts of each label were wanted;{after} the filters left {', '.join(some)}."
            )
            log.warning("%s", said[-1])
        return found, said

    def cases(
        self,
        capability: str,
        about: str,
        wanted: Mapping[str, int],
        ordinary: Sequence[Pair],
        why: dict[str, Short],
        most: int | None = None,
    ) -> Iterator[Candidate | Rejected]:
        """What `write_cases` gives, with short training texts as examples; why there are fewer than wanted joins `why`."""
        back = {output: label for label, output in self.names.items()}
        shortest = sorted(ordinary, key=lambda pair: len(pair[0]))[: len(ordinary) // 4 + SHOWN]
        style = [(text, back.get(label, label)) for text, label in shortest[:: max(1, len(shortest) // SHOWN)][:SHOWN]]
        with self._shown(f"cases of {capability}", sum(wanted.values())) as tell:
            short = yield from write_cases(
                self.endpoint,
                capability=capability,
                about=about,
                labels=self.labels,
                wanted=wanted,
                per_request=self.server.per_request,
                template=path_of(self.server.prompt),
                examples=style,
                most_requests=most,
                tell=tell,
            )
        if short is not None:
            why[capability] = short

    def again(self, texts: Sequence[str]) -> list[str | None]:
        """The label that the server gives each text without being told it, as the data call it."""
        fresh = [text for text in texts if text not in self._known]
        with self._shown("labels asked for again", len(fresh)) as tell:
            found = check_labels(self.endpoint, fresh, self.labels, path_of(self.server.check_prompt), tell=tell)
        self._known.update(zip(fresh, found, strict=True))
        labels = [self._known[text] for text in texts]
        return [None if label is None else self.names.get(label, label) for label in labels]

    @contextlib.contextmanager
    def _shown(self, what: str, wanted: int) -> Iterator[Callable[[int, int], None]]:
        """A function that shows how many there are, and how many were rejected."""
        with contextlib.closing(Progress(not self.quiet, self.server.model)) as progress:
            begun = self.endpoint.spent().now.answers

            def tell(there: int, rejected: int) -> None:
                if (spent := self.endpoint.spent()).now.answers > begun:  # what is there takes no time
                    aside = f", {rejected:,} rejected" if rejected else ""
                    progress.tell(there / wanted, f"{what}: {there:,} of {wanted:,}{aside}; {spent}")

            yield tell
