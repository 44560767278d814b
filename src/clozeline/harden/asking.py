"""A server at work for a run: asked for cases, and for their labels again, while stderr shows how far it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clozeline.harden.endpoint import Endpoint
from clozeline.harden.filters import Candidate, Rejected
from clozeline.harden.mixing import Pair
from clozeline.harden.writing import CaseServer, check_labels, path_of, write_cases
from clozeline.train.report import Progress

SHOWN = 6
"""Training texts that a server is shown as examples of the style."""


@dataclass(frozen=True)
class Asking:
    """server: how it is asked; names: what the data call the suite's labels, where it has any; labels: those asked for."""

    server: CaseServer
    endpoint: Endpoint
    names: Mapping[str, str]
    labels: Sequence[str]
    quiet: bool

    def wanted(self, rows: int, capabilities: int) -> int:
        """How many cases of each label each capability is asked for."""
        return -(-rows // (capabilities * len(self.labels)))

    def cases(
        self, capability: str, about: str, wanted: int, ordinary: Sequence[Pair], said: list[str]
    ) -> Iterator[Candidate | Rejected]:
        """What `write_cases` gives, with short training texts as examples; why there are fewer than wanted joins `said`."""
        back = {output: label for label, output in self.names.items()}
        shortest = sorted(ordinary, key=lambda pair: len(pair[0]))[: len(ordinary) // 4 + SHOWN]
        style = [(text, back.get(label, label)) for text, label in shortest[:: max(1, len(shortest) // SHOWN)][:SHOWN]]
        with self._shown(f"cases of {capability}", wanted * len(self.labels)) as tell:
            short = yield from write_cases(
                self.endpoint,
                capability=capability,
                about=about,
                labels=self.labels,
                wanted=wanted,
                per_request=self.server.per_request,
                template=path_of(self.server.prompt),
                examples=style,
                tell=tell,
            )
        said += [] if short is None else [short]

    def again(self, texts: Sequence[str]) -> list[str | None]:
        """The label that the server gives each text without being told it, as the data call it."""
        with self._shown("labels asked for again", len(texts)) as tell:
            found = check_labels(self.endpoint, texts, self.labels, path_of(self.server.check_prompt), tell=tell)
        return [None if label is None else self.names.get(label, label) for label in found]

    @contextlib.contextmanager
    def _shown(self, what: str, wanted: int) -> Iterator[Callable[[int, int], None]]:
        """A function that shows how many there are, and how many were rejected."""
        with contextlib.closing(Progress(not self.quiet, self.server.model)) as progress:

            def tell(there: int, rejected: int) -> None:
                if (spent := self.endpoint.spent()).now.answers:  # what is on disk takes no time
                    aside = f", {rejected:,} rejected" if rejected else ""
                    progress.tell(there / wanted, f"{what}: {there:,} of {wanted:,}{aside}; {spent}")

            yield tell
