"""What a hardening run would do and cost, before it begins: `clozeline harden --dry-run`.

The data are read as the run reads them, and a few real steps are taken on a copy of the network; nothing is written, and no
server is asked. What the filters will leave of the cases is not known before, so every case counts as one that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clozeline.data.readers import Example
from clozeline.hardening import mixing
from clozeline.hardening.arms import ARMS
from clozeline.hardening.mixing import Pair
from clozeline.hardening.work import Work
from clozeline.hardening.writing import TIMES
from clozeline.train import plan as training
from clozeline.train.report import duration


@dataclass(frozen=True)
class Asked:
    """What a server would be asked for. url: without a query, which may hold a key; wanted: cases of each label for each
    capability; requests: where every answer is good, and at most; second: whether it is asked for their labels again."""

    url: str
    model: str
    labels: tuple[str, ...]
    wanted: int
    per_request: int
    requests: tuple[int, int]
    second: bool


@dataclass(frozen=True)
class HardenPlan:
    """one: what a model of the arm before takes; tests: texts of each; suite: written cases by capability; expanded: with
    templates filled; chosen: the capabilities named; cases: that there are by capability; rows, steps: of a model of each
    arm; models: of all arms; seconds: of training and judging all of them."""

    one: training.Plan
    tests: dict[str, int]
    suite: dict[str, int]
    expanded: int
    probes: int
    chosen: tuple[str, ...]
    cases: dict[str, int]
    asked: Asked | None
    rows: dict[str, int]
    steps: dict[str, int]
    models: int
    seconds: float
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        model, device, train, validation, _, memory, _ = str(self.one).splitlines()
        tests = ", ".join(f"{name} {count:,} texts" for name, count in self.tests.items())
        arms = (f"{arm} {self.rows[arm]:,} rows, {self.steps[arm]:,} steps" for arm in ARMS)
        return "\n".join(
            [
                *(model, device, train, validation),
                f"tests       {tests}",
                f"suite       {sum(self.suite.values()):,} written cases of {len(self.suite)} capabilities, "
                f"{self.expanded:,} with templates filled; {self.probes} probe sentences",
                f"cases       {self._cases()}",
                f"models      {self.models}, {self.models // len(ARMS)} of each arm: {'; '.join(arms)}",
                memory,
                f"time        about {duration(self.seconds)} for all models, at {self.one.rate:,.0f} tokens/s (measured "
                f"over {self.one.measured_steps} real steps){'; the server not counted' if self.asked else ''}",
                *self.notes,
            ]
        )

    def _cases(self) -> str:
        what = ", ".join(self.chosen) or "what the models before will fail at most"
        if (asked := self.asked) is not None:
            least, most = asked.requests
            then = ", then for their labels" if asked.second else ""
            return (
                f"{asked.model} at {asked.url} is asked for {asked.wanted:,} of each of {', '.join(asked.labels)}, at "
                f"{what}: {least} to {most} requests of {asked.per_request}{then}"
            )
        there = f"{sum(self.cases.values()):,}"
        listed = (
            f"{there} of {what}"
            if self.chosen
            else f"those of {what}; there are {there} of {len(self.cases)} capabilities"
        )
        return f"{listed}, before the filters"


def planned(work: Work) -> HardenPlan:
    """What a run would do, and about how long.

    Raises:
        InputError: as the run itself does where what is given cannot be used.
    """
    settings, suite, data = work.settings, work.judges.suite, work.data
    ready = work.ready()
    bundle, device = ready.base._bundle, ready.base._device
    offered, ordinary, asking = ready.offered, ready.ordinary, ready.asking

    def samples(pairs: Sequence[Pair]) -> Any:
        return work.task.samples(bundle.tokenizer, [Example(text, None, label, "") for text, label in pairs])

    checks = None if data.validation is None else samples(data.validation)
    one = training.plan(bundle, samples(ordinary), checks, settings, device)
    judged = [*suite.texts(), *work.judges.probes, *(text for test in data.tests.values() for text, _ in test)]
    reading = (
        int(samples([(text, data.labels[0]) for text in judged]).lengths.sum()) / 3 / one.rate
    )  # as `Plan` reckons

    wanted, most = mixing.rows_of(work.share, len(ordinary)), work.most(offered)
    count = wanted if most is None else min(wanted, most)
    more = len(ordinary) + min(wanted, mixing.REPEATS * count)
    rows: dict[str, int] = {arm: len(ordinary) if arm == "before" else more for arm in ARMS}
    asked = None
    if asking is not None:
        server, capabilities = asking.server, len(work.capabilities) or 1
        each = asking.wanted(wanted, capabilities)
        least = capabilities * len(asking.labels) * -(-each // server.per_request)
        about = (each, server.per_request, (least, TIMES * least), server.second)
        asked = Asked(server.url.split("?")[0], server.model, tuple(asking.labels), *about)
    return HardenPlan(
        one=one,
        tests={name: len(test) for name, test in data.tests.items()},
        suite={name: len({case.written for case in suite.cases if case.capability == name}) for name in suite.about},
        expanded=len(suite.cases),
        probes=len(work.judges.probes),
        chosen=work.capabilities,
        cases={name: len(some) for name, some in (offered or {}).items() if name in (work.capabilities or (name,))},
        asked=asked,
        rows=rows,
        steps={arm: -(-count // settings.batch_size) * settings.epochs for arm, count in rows.items()},
        models=len(ARMS) * work.seeds,
        seconds=work.seeds * sum(one.seconds * count / len(ordinary) + reading for count in rows.values()),
        notes=(*ready.notes, *work.notes),
    )
