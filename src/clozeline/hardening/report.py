"""What hardening changed: the verdict in words, and the numbers under it, as text, Markdown, JSON and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from typing import Any, Literal

import numpy as np

from clozeline.behaviour.running import votes
from clozeline.evaluate.intervals import Interval
from clozeline.hardening.answers import Spent
from clozeline.hardening.arms import ARMS, Judged, Judges
from clozeline.hardening.filters import Sifted
from clozeline.hardening.mixing import Mixture, Pair, labels_of
from clozeline.hardening.probes import Probe, probed
from clozeline.hardening.verdict import CHANGE, Change, change, corrected, level
from clozeline.inspect import panels as kinds
from clozeline.inspect.view import View

FEW = 5
"""Seeds from which a verdict is one: of equal models of three, 11 to 14 of 100 runs say harmed, where it should be 5."""
SAMPLES = 12
"""Cases that a report shows of those kept, and of those rejected."""
OVERALL = "failure rate over all capabilities"
LEVELS = "Each arm, with 95 % intervals over examples and seeds"
PROBES = "Probe sentences: how many models say what, and a score, its mean over the seeds and (least to greatest)"
BLAME = {
    "harmed": "The cases did it, not merely more data, for it is worse than with as many ordinary examples instead too",
    "unchanged": "It cannot be told from what more data of any kind does. The difference from as many ordinary examples "
    "instead, with its 95 % interval",
    "improved": "More data did it, not the cases, for with as many ordinary examples instead it is worse",
}
"""Who did the harm, by what after against control is."""
TOLD = (
    "Each interval is of one difference by itself. p, and so the verdict, is after Holm's correction for the number of "
    "tests and other capabilities; that of what was hardened, which is what the run asks, is its own."
)
Overall = Literal["improved", "unchanged", "harmed", "improved and harmed"]


@dataclass(frozen=True, eq=False)
class Hardened(View):
    """What `harden` found. Rates are of 1.

    picked: whether what was hardened was picked for failing most. target: its failure rate, after against before; beyond:
    after against control; tests: accuracy; rest: the failure rate over all cases of the other capabilities, where there
    are several; others: that of each of them; each after against before, and with _beyond after against control. The p of
    tests, rest and others are corrected together for their number. levels: what was measured by arm, with intervals;
    rates: by capability and arm, the mean failure rate over seeds. epochs, best: by arm and seed, what validation found
    after each epoch, and the number of the one that was kept; metric: what the score in them is. model: where the best
    model of the after arm is; spent: on the server that wrote the cases.
    """

    suite: str
    capabilities: tuple[str, ...]
    picked: bool
    seeds: int
    target: Change
    beyond: Change
    tests: tuple[Change, ...]
    tests_beyond: tuple[Change, ...]
    rest: tuple[Change, ...]
    rest_beyond: tuple[Change, ...]
    others: tuple[Change, ...]
    others_beyond: tuple[Change, ...]
    levels: dict[str, dict[str, Interval]]
    rates: dict[str, dict[str, float]]
    probes: tuple[Probe, ...]
    epochs: dict[str, list[list[dict[str, float]]]]
    best: dict[str, list[int | None]]
    metric: str
    sifted: Sifted
    mixture: Mixture
    notes: tuple[str, ...]
    model: str
    spent: Spent | None = None

    @property
    def verdict(self) -> Overall:
        """improved: what was hardened fails less than before, and less than with as many ordinary examples; harmed:
        something that was measured is worse than before.

        Each is to come by chance alone in about 5 of 100 runs at most. improved: both must be so, each of which is in 2.5 of
        100. harmed: what was hardened is, in 2.5 of 100, or any of all the others, in as many after Holm's correction. What
        was hardened stands outside of it, for it is what the run asks: its p would grow with each capability of a suite.
        """
        better = self.target.word == self.beyond.word == "improved"
        if self.harmed:
            return "improved and harmed" if better else "harmed"
        return "improved" if better else "unchanged"

    @property
    def harmed(self) -> list[Change]:
        """What is worse than before, beyond chance."""
        return [one for one in self.changes if one.word == "harmed"]

    @property
    def changes(self) -> list[Change]:
        """All of them, after against before."""
        return [self.target, *self.tests, *self.rest, *self.others]

    @property
    def against(self) -> list[Change]:
        """The same, after against control."""
        return [self.beyond, *self.tests_beyond, *self.rest_beyond, *self.others_beyond]

    @property
    def title(self) -> str:
        return f"Hardened at {', '.join(self.capabilities)}: {self.verdict}"

    def sentences(self) -> list[str]:
        """The verdict, and where."""
        lines = [f"{self.verdict.capitalize()}. {self.target.sentence}"]
        than = {
            "improved": "Better than with as many ordinary examples instead",
            "unchanged": "No better than with as many ordinary examples instead, beyond chance",
            "harmed": "Worse than with as many ordinary examples instead",
        }[self.beyond.word]
        lines.append(f"{than}: {self.beyond}.")
        if self.picked:
            lines.append(
                "It was picked for failing most of what there are cases of, so part of the change from before may be bad "
                "luck that has passed; the comparison with the ordinary examples is free of that."
            )
        if self.seeds < FEW:
            lines.append(f"Of fewer than {FEW} seeds luck cannot be told from change: take these verdicts as hints.")
        lines += [one.sentence for one in (*self.tests, *self.rest) if one.word != "harmed"]
        for one, against in zip(self.changes[1:], self.against[1:], strict=True):
            if one.word == "harmed":
                lines.append(f"Harmed: {one}. {BLAME[against.word]}: {against}.")
            elif against.word == "harmed":
                lines.append(f"Worse than with as many ordinary examples instead, though not than before: {against}.")
            elif one.word == "improved" and one in self.others:
                lines.append(f"Improved too: {one}. Against as many ordinary examples instead: {against}.")
        if self.others and all(one.word == "unchanged" for one in self.others):
            lines.append(f"None of the {len(self.others)} other capabilities changed beyond chance by itself.")
        if leaked := self.sifted.leaked:
            said = ", ".join(f"{count} of {name}" for name, count in leaked.items())
            lines.append(
                f"LEAKS: cases that repeat held-out texts were found and left out: {said}. See rejected.jsonl."
            )
        return lines

    def _made(self, fenced: bool = False) -> list[str]:
        """How the arms were made. fenced: for Markdown."""
        mixture = self.mixture
        often = [mixture.often(some) for some in (mixture.cases, mixture.others)]
        times, twice = (f", each {each}" if each != "once" else "" for each in often)
        lacks = [
            f"The control has {count:,} fewer of {label} than there are cases of it, for want of such ordinary examples: "
            "after and control may differ by that too. More examples (--extra) mend it."
            for label, count in mixture.lacking.items()
        ]
        return [
            f"Models of each arm: {self.seeds}. Before: {len(mixture.ordinary):,} ordinary examples "
            f"({_labels(mixture.ordinary)}). After: "
            f"{len(mixture.cases):,} cases of {', '.join(self.capabilities)} ({_labels(mixture.cases)}) with them{times}, "
            f"{mixture.share:.1%} of the rows. Control: {len(mixture.others):,} other ordinary examples instead "
            f"({_labels(mixture.others)}){twice}.",
            *lacks,
            TOLD,
            f"```\n{self.sifted}\n```" if fenced else str(self.sifted),
            *self.notes,
        ]

    def __str__(self) -> str:
        rates = [f"  {name:<{max(map(len, self.rates))}}  {_across(each)}" for name, each in self.rates.items()]
        parts = [*self.sentences(), LEVELS + ":"]
        parts += [
            f"  {name}: {', '.join(f'{arm} {_level(each[arm])}' for arm in ARMS)}" for name, each in self.levels.items()
        ]
        parts += [f"Failure rates: {', '.join(ARMS)}", *rates]
        parts += [PROBES + ":"] if self.probes else []
        for probe in self.probes:
            parts += [f"  {probe.text}", *(f"    {arm:<7}  {probe.said(arm)}" for arm in ARMS)]
        return "\n".join([*parts, *self._made(), *self._turn(), f"The hardened model: {self.model}"])

    def markdown(self) -> str:
        """The report as Markdown."""
        parts = [f"# {self.title}", *self.sentences(), "## How it was made", *self._made(fenced=True)]
        parts += [f"The hardened model: `{self.model}`", "## After against before"]
        parts += [_table(CHANGE, (one.row for one in self.changes))]
        parts += ["## After against control", _table(CHANGE, (one.row for one in self.against))]
        parts += self.tables()
        if turn := self._turn():
            heads = ["epoch", "models", "train loss", "validation loss", self.metric.replace("_", " ")]
            parts += [
                "## Where validation turns",
                *turn,
                "Means over the models before:",
                _table(heads, self._epochs()),
            ]
        parts += ["## Cases that were trained on", _table(["label", "text"], self._kept())]
        if self.sifted.rejected:
            parts += ["## Cases that were rejected", _table(["reason", "text", "like"], self._rejected())]
        return "\n\n".join(parts) + "\n"

    def tables(self) -> list[str]:
        """The arms side by side, as Markdown."""
        rates = ([name, *(f"{each[arm]:.1%}" for arm in ARMS)] for name, each in self.rates.items())
        parts = [f"## {LEVELS}", _table(["what", *ARMS], self._levels())]
        parts += ["## Failure rates by capability", _table(["capability", *ARMS], rates)]
        return parts + ([f"## {PROBES}", _table(["sentence", *ARMS], self._said())] if self.probes else [])

    def _levels(self) -> list[list[str]]:
        return [[name, *(_level(each[arm]) for arm in ARMS)] for name, each in self.levels.items()]

    def _said(self) -> list[list[str]]:
        return [[probe.text, *(probe.said(arm) for arm in ARMS)] for probe in self.probes]

    def _turn(self) -> list[str]:
        """Where the validation loss of the models before is lowest, and which epoch was kept; nothing without validation."""
        runs = [epochs for epochs in self.epochs["before"] if epochs]
        if not runs:
            return []
        lowest = [min(epochs, key=lambda one: one["validation_loss"])["epoch"] for epochs in runs]
        kept = [float(best) for best in self.best["before"] if best is not None]
        last = sum(low == epochs[-1]["epoch"] for low, epochs in zip(lowest, runs, strict=True))
        still = f"; for {last} of them that was the last epoch, and it might have sunk further" if last else ""
        return [
            f"Models before: {len(runs)}. The validation loss is lowest after epoch {_middle(lowest)}{still}. Kept was the "
            f"epoch with the highest {self.metric.replace('_', ' ')} on the validation data: {_middle(kept)}."
        ]

    def _epochs(self) -> list[list[str]]:
        """By epoch, how many of the models before came so far, and their means."""
        every = [one for epochs in self.epochs["before"] for one in epochs]
        found = []
        for number in sorted({one["epoch"] for one in every}):
            there = [one for one in every if one["epoch"] == number]
            means = [np.mean([one[name] for one in there]) for name in ("train_loss", "validation_loss", "score")]
            found.append([f"{number:g}", str(len(there)), *(f"{mean:.4g}" for mean in means)])
        return found

    def _kept(self) -> list[list[str]]:
        some = self.sifted.kept[:: max(1, len(self.sifted.kept) // SAMPLES)]
        return [[case.label, case.text] for case in some[:SAMPLES]]

    def _rejected(self) -> list[list[str]]:
        some = self.sifted.rejected[:: max(1, len(self.sifted.rejected) // SAMPLES)]
        return [[case.reason, case.text, case.like or ""] for case in some[:SAMPLES]]

    def panels(self) -> list[kinds.Panel]:
        rates = np.array([[each[arm] for arm in ARMS] for each in self.rates.values()])
        rows = [("before", *one.row) for one in self.changes] + [("control", *one.row) for one in self.against]
        found: list[kinds.Panel] = [
            kinds.Table(
                "Verdict",
                [self.verdict],
                [[line] for line in "\n".join([*self.sentences(), *self._made(), *self._turn()]).splitlines()],
            ),
            kinds.Table(LEVELS, ["what", *ARMS], self._levels()),
            kinds.Bars("Failure rates by capability", "failure rate", [*self.rates], [*ARMS], rates),
            kinds.Table("After against before, and against the control", ["against", *CHANGE], rows),
        ]
        if self.probes:
            found.append(kinds.Table(PROBES, ["sentence", *ARMS], self._said()))
        for arm in ARMS:
            series = {}
            for number, epochs in enumerate(self.epochs[arm], 1):
                x = [one["epoch"] for one in epochs]
                for name in ("train_loss", "validation_loss") if number == 1 else ("validation_loss",):
                    if x:
                        label = f"{name.replace('_', ' ')}, model {number}"
                        series[label] = (x, [one[name] for one in epochs])
            best = self.best[arm][0]
            if series:
                marks = {} if best is None else {"kept of the first model": float(best)}
                found.append(kinds.Lines(f"Learning curves: {arm}", "epoch", "loss", series, marks))
        found.append(kinds.Table("Cases that were trained on", ["label", "text"], self._kept()))
        if self.sifted.rejected:
            found.append(kinds.Table("Cases that were rejected", ["reason", "text", "like"], self._rejected()))
        return found

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        mixture = self.mixture
        found: dict[str, Any] = {"verdict": self.verdict, "sentences": self.sentences()}
        found |= {
            name: getattr(self, name)
            for name in ("suite", "picked", "seeds", "rates", "epochs", "best", "metric", "model")
        }
        found |= {"capabilities": list(self.capabilities), "notes": list(self.notes)}
        single = ("target", "beyond", "sifted")
        found |= {name: getattr(self, name).as_dict() for name in single}
        found["levels"] = {
            name: {arm: interval.named("value") for arm, interval in each.items()} for name, each in self.levels.items()
        }
        for name in ("tests", "tests_beyond", "rest", "rest_beyond", "others", "others_beyond"):
            found[name] = [one.as_dict() for one in getattr(self, name)]
        rows = {"ordinary": mixture.ordinary, "cases": mixture.cases, "others": mixture.others}
        found["rows"] = {name: len(each) for name, each in rows.items()}
        found["rows"] |= {"added": len(mixture.after) - len(mixture.ordinary), "share": mixture.share}
        found["labels"] = {name: dict(labels_of(each)) for name, each in rows.items()}
        found["spent"] = None if self.spent is None else asdict(self.spent)
        return found | {"probes": [probe.as_dict() for probe in self.probes]}


def _middle(values: Sequence[float]) -> str:
    """The median, and the range where there is one."""
    spread = f" (median; {min(values):g} to {max(values):g})" if min(values) < max(values) else ""
    return f"{np.median(values):g}{spread}"


def _labels(pairs: Sequence[Pair]) -> str:
    """How many there are of each label."""
    return ", ".join(f"{count:,} {label}" for label, count in sorted(labels_of(pairs).items()))


def _across(each: dict[str, float]) -> str:
    return "  ".join(f"{each[arm]:6.1%}" for arm in ARMS)


def _level(each: Interval) -> str:
    return f"{each.value:.1%} [{100 * each.low:.1f}, {100 * each.high:.1f}]"


def _table(heads: Sequence[str], rows: Any) -> str:
    """A Markdown table; bars and line breaks in cells do not end them."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [
        [str(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def compared(
    judged: tuple[Judged, Judged, Judged],
    judges: Judges,
    chosen: tuple[str, ...],
    sifted: Sifted,
    mixture: Mixture,
    notes: tuple[str, ...],
    picked: bool,
    metric: str,
) -> Hardened:
    """Put the arms side by side: before, after, control."""
    suite, (before, after, control) = judges.suite, judged
    shares = {
        (one.arm, name): np.array([votes(suite, row, name) for row in one.failures])
        for one, name in product(judged, suite.about)
    }

    def rates(one: Judged, names: Sequence[str]) -> np.ndarray:
        """(S, w) how much of each written case of these capabilities fails."""
        return np.concatenate([shares[one.arm, name] for name in names], 1)

    def fails(what: str, names: Sequence[str], one: Judged, other: Judged) -> Change:
        return change(what, "less", rates(one, names), rates(other, names))

    def elsewhere(one: Judged, other: Judged) -> Iterator[tuple[Change, ...]]:
        """Of tests, the rest of the suite, and each other capability. They are one family: any of them is a harm."""
        names = [name for name in suite.about if name not in chosen]
        pooled = [(f"failure rate over the other {len(names)} capabilities", names)] if len(names) > 1 else []
        groups = [
            [
                change(f"accuracy on {test}", "more", one.right(at), other.right(at))
                for at, test in enumerate(judges.tests)
            ],
            [fails(what, several, one, other) for what, several in pooled],
            [fails(f"failure rate at {name}", [name], one, other) for name in names],
        ]
        fixed = iter(corrected([each for group in groups for each in group]))
        return (tuple(islice(fixed, len(group))) for group in groups)

    tests, rest, others = elsewhere(before, after)
    tests_beyond, rest_beyond, others_beyond = elsewhere(control, after)
    here, everywhere = (f"failure rate at {', '.join(chosen)}", chosen), (OVERALL, [*suite.about])
    levels: dict[str, dict[str, Interval]] = {}
    for at, test in enumerate(judges.tests):
        levels[f"accuracy on {test}"] = {one.arm: level(one.right(at)) for one in judged}
    for what, names in (here, everywhere):
        levels[what] = {one.arm: level(rates(one, names)) for one in judged}
    return Hardened(
        suite=suite.name,
        capabilities=chosen,
        picked=picked,
        seeds=len(before.runs),
        target=fails(*here, before, after),
        beyond=fails(*here, control, after),
        tests=tests,
        tests_beyond=tests_beyond,
        rest=rest,
        rest_beyond=rest_beyond,
        others=others,
        others_beyond=others_beyond,
        levels=levels,
        rates={name: {one.arm: float(rates(one, [name]).mean()) for one in judged} for name in suite.about},
        probes=tuple(probed(at, text, judged) for at, text in enumerate(judges.probes)),
        epochs={one.arm: [run["epochs"] for run in one.runs] for one in judged},
        best={one.arm: [run["best"] for run in one.runs] for one in judged},
        metric=metric,
        sifted=sifted,
        mixture=mixture,
        notes=notes,
        model=str(after.folders[after.best] / "model"),
    )
