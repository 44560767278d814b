"""What hardening changed: the verdict in words, and the numbers under it, as text, Markdown, JSON and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from clozeline.behaviour.running import votes
from clozeline.evaluate.intervals import Interval
from clozeline.harden.answers import Spent
from clozeline.harden.arms import ARMS, Judged, Judges
from clozeline.harden.filters import Sifted
from clozeline.harden.mixing import Mixture
from clozeline.harden.verdict import Change, change, corrected, level
from clozeline.inspect import panels as kinds
from clozeline.inspect.view import View

FEW = 3
"""Seeds from which a verdict is one."""
SAMPLES = 12
"""Cases that a report shows of those kept, and of those rejected."""
OVERALL = "failure rate over all capabilities"
LEVELS = "Each arm, with 95 % intervals over examples and seeds"
PROBES = "Probe sentences: how many models say what, and a score, its mean over the seeds and (least to greatest)"
BLAME = {
    "harmed": "The cases did it, not merely more data, for it is worse than with as many ordinary examples instead too",
    "unchanged": "Merely more data may have done it, for with as many ordinary examples instead it is as bad within chance",
    "improved": "More data did it, not the cases, for with as many ordinary examples instead it is worse",
}
"""Who did the harm, by what after against control is."""
Overall = Literal["improved", "unchanged", "harmed", "improved and harmed"]


@dataclass(frozen=True)
class Probe:
    """A sentence, and what each arm says of it. label: the one that the models before give most often; labels: by arm,
    what each seed's model says; scores: by arm, the probability that each seed's model gives `label`."""

    text: str
    label: str
    labels: dict[str, list[str]]
    scores: dict[str, list[float]]

    def spread(self, arm: str) -> Interval:
        """The mean score over the seeds, and its range: the least and the greatest."""
        scores = self.scores[arm]
        return Interval(float(np.mean(scores)), min(scores), max(scores))

    def said(self, arm: str) -> str:
        """How many models say what, and the score."""
        counts = Counter(self.labels[arm]).most_common()
        said = ", ".join(f"{label} {count} of {len(self.labels[arm])}" for label, count in counts)
        score = self.spread(arm)
        return f"{said}; score of {self.label} {score.value:.2f} ({score.low:.2f} to {score.high:.2f})"

    def as_dict(self) -> dict[str, Any]:
        spreads = {arm: self.spread(arm) for arm in ARMS}
        found = {name: getattr(self, name) for name in ("text", "label", "labels", "scores")}
        found["score"] = {arm: each.value for arm, each in spreads.items()}
        return found | {"score_range": {arm: [each.low, each.high] for arm, each in spreads.items()}}


@dataclass(frozen=True, eq=False)
class Hardened(View):
    """What `harden` found. Rates are of 1.

    picked: whether what was hardened was picked for failing most. target: its failure rate, after against before; beyond:
    after against control; tests: accuracy; others: the failure rates of all other capabilities; whole: that over all
    capabilities; each after against before, and with _beyond after against control. The p of tests and of others are
    corrected for their number. levels: what was measured by arm, with intervals; rates: by capability and arm, the mean
    failure rate over seeds. model: where the best model of the after arm is; spent: on the server that wrote the cases.
    """

    suite: str
    capabilities: tuple[str, ...]
    picked: bool
    seeds: int
    target: Change
    beyond: Change
    tests: tuple[Change, ...]
    tests_beyond: tuple[Change, ...]
    others: tuple[Change, ...]
    others_beyond: tuple[Change, ...]
    whole: Change
    whole_beyond: Change
    levels: dict[str, dict[str, Interval]]
    rates: dict[str, dict[str, float]]
    probes: tuple[Probe, ...]
    epochs: dict[str, list[list[dict[str, float]]]]
    best: dict[str, list[int | None]]
    sifted: Sifted
    mixture: Mixture
    notes: tuple[str, ...]
    model: str
    spent: Spent | None = None

    @property
    def verdict(self) -> Overall:
        """improved: what was hardened fails less than before, and less than with as many ordinary examples; harmed:
        something that was measured is worse than before."""
        better = self.target.word == self.beyond.word == "improved"
        if self.harmed:
            return "improved and harmed" if better else "harmed"
        return "improved" if better else "unchanged"

    @property
    def harmed(self) -> list[Change]:
        """What is worse than before, beyond chance."""
        return [one for one in (self.target, *self.tests, *self.others) if one.word == "harmed"]

    @property
    def title(self) -> str:
        return f"Hardened at {', '.join(self.capabilities)}: {self.verdict}"

    def sentences(self) -> list[str]:
        """The verdict, and where."""
        lines = [f"{self.verdict.capitalize()}: {self.target}."]
        than = {
            "improved": "Better than with as many ordinary examples instead",
            "unchanged": "No better than with as many ordinary examples instead, beyond chance",
            "harmed": "Worse than with as many ordinary examples instead",
        }[self.beyond.word]
        lines.append(f"{than}: {self.beyond}.")
        if self.picked:
            lines.append(
                "It was picked for failing most, so part of the change from before may be bad luck that has passed; the "
                "comparison with the ordinary examples is free of that."
            )
        if self.seeds < FEW:
            lines.append(f"Of fewer than {FEW} seeds luck cannot be told from change: take these verdicts as hints.")
        lines += [f"{str(one)[0].upper()}{str(one)[1:]}." for one in self.tests if one.word != "harmed"]
        lines.append(f"{str(self.whole)[0].upper()}{str(self.whole)[1:]}.")
        elsewhere = zip((*self.tests, *self.others), (*self.tests_beyond, *self.others_beyond), strict=True)
        for one, against in elsewhere:
            if one.word == "harmed":
                lines.append(f"Harmed: {one}. {BLAME[against.word]}: {against}.")
            elif against.word == "harmed":
                lines.append(f"Worse than with as many ordinary examples instead, though not than before: {against}.")
            elif one.word == "improved" and one in self.others:
                lines.append(f"Improved too: {one}. Against as many ordinary examples instead: {against}.")
        if all(one.word == "unchanged" for one in self.others):
            lines.append(f"None of the {len(self.others)} other capabilities changed beyond chance.")
        if leaked := self.sifted.leaked:
            said = ", ".join(f"{count} of {name}" for name, count in leaked.items())
            lines.append(
                f"LEAKS: cases that repeat held-out texts were found and left out: {said}. See rejected.jsonl."
            )
        return lines

    def _made(self, fenced: bool = False) -> list[str]:
        """How the arms were made. fenced: for Markdown."""
        mixture = self.mixture
        times = f", each {mixture.repeats} times" if mixture.repeats > 1 else ""
        return [
            f"Models of each arm: {self.seeds}. Before: {len(mixture.ordinary):,} ordinary examples. After: "
            f"{len(mixture.cases):,} cases of {', '.join(self.capabilities)} with them{times}, {mixture.share:.1%} of the "
            f"rows. Control: {len(mixture.others):,} other ordinary examples instead{times}.",
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
        return "\n".join([*parts, *self._made(), f"The hardened model: {self.model}"])

    def markdown(self) -> str:
        """The report as Markdown."""
        changes = [self.target, *self.tests, self.whole, *self.others]
        against = [self.beyond, *self.tests_beyond, self.whole_beyond, *self.others_beyond]
        parts = [f"# {self.title}", *self.sentences(), "## How it was made", *self._made(fenced=True)]
        parts += [f"The hardened model: `{self.model}`", "## After against before", _table(CHANGE, map(_row, changes))]
        parts += ["## After against control", _table(CHANGE, map(_row, against))]
        parts += self.tables()
        for seed, epochs in enumerate(self.epochs["before"][:1]):
            turn = min(epochs, key=lambda one: one["validation_loss"], default=None)
            if turn is not None:
                parts += ["## Where validation turns", self._turn(seed, turn)]
                parts += [_table([*epochs[0]], ([f"{value:.4g}" for value in each.values()] for each in epochs))]
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

    def _turn(self, seed: int, turn: dict[str, float]) -> str:
        best = self.best["before"][seed]
        return (
            f"Before, first seed: the validation loss is least in epoch {turn['epoch']:g}, and rises from there where more "
            f"follow; epoch {best} had the best accuracy and was kept."
        )

    def _kept(self) -> list[list[str]]:
        some = self.sifted.kept[:: max(1, len(self.sifted.kept) // SAMPLES)]
        return [[case.label, case.text] for case in some[:SAMPLES]]

    def _rejected(self) -> list[list[str]]:
        some = self.sifted.rejected[:: max(1, len(self.sifted.rejected) // SAMPLES)]
        return [[case.reason, case.text, case.like or ""] for case in some[:SAMPLES]]

    def panels(self) -> list[kinds.Panel]:
        changes = [("before", one) for one in (self.target, *self.tests, self.whole, *self.others)]
        against = (self.beyond, *self.tests_beyond, self.whole_beyond, *self.others_beyond)
        changes += [("control", one) for one in against]
        rates = np.array([[each[arm] for arm in ARMS] for each in self.rates.values()])
        rows = [(against, *_row(one)) for against, one in changes]
        found: list[kinds.Panel] = [
            kinds.Table(
                "Verdict",
                [self.verdict],
                [[line] for line in "\n".join([*self.sentences(), *self._made()]).splitlines()],
            ),
            kinds.Table(LEVELS, ["what", *ARMS], self._levels()),
            kinds.Bars("Failure rates by capability", "failure rate", [*self.rates], [*ARMS], rates),
            kinds.Table("After against before, and against the control", ["against", *CHANGE], rows),
        ]
        if self.probes:
            found.append(kinds.Table(PROBES, ["sentence", *ARMS], self._said()))
        for arm in ARMS:
            series = {}
            for epochs, seed in zip(self.epochs[arm], range(self.seeds), strict=True):
                x = [one["epoch"] for one in epochs]
                for name in ("train_loss", "validation_loss") if seed == 0 else ("validation_loss",):
                    if x:
                        label = f"{name.replace('_', ' ')}, seed {seed + 1}"
                        series[label] = (x, [one[name] for one in epochs])
            best = self.best[arm][0]
            if series:
                marks = {} if best is None else {"kept of the first seed": float(best)}
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
            name: getattr(self, name) for name in ("suite", "picked", "seeds", "rates", "epochs", "best", "model")
        }
        found |= {"capabilities": list(self.capabilities), "notes": list(self.notes)}
        single = ("target", "beyond", "whole", "whole_beyond", "sifted")
        found |= {name: getattr(self, name).as_dict() for name in single}
        found["levels"] = {
            name: {arm: interval.named("value") for arm, interval in each.items()} for name, each in self.levels.items()
        }
        for name in ("tests", "tests_beyond", "others", "others_beyond"):
            found[name] = [one.as_dict() for one in getattr(self, name)]
        rows = {"ordinary": mixture.ordinary, "cases": mixture.cases, "others": mixture.others}
        found["rows"] = {name: len(each) for name, each in rows.items()}
        found["rows"] |= {"repeats": mixture.repeats, "share": mixture.share}
        found["spent"] = None if self.spent is None else asdict(self.spent)
        return found | {"probes": [probe.as_dict() for probe in self.probes]}


CHANGE = ("what", "from", "to", "difference", "95 %", "p", "verdict")


def _row(one: Change) -> list[str]:
    low, high = 100 * one.difference.low, 100 * one.difference.high
    numbers = [
        f"{one.before:.1%}",
        f"{one.after:.1%}",
        f"{100 * one.difference.value:+.1f}",
        f"{low:+.1f} to {high:+.1f}",
    ]
    return [one.what, *numbers, f"{one.p:.2g}", one.word]


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
) -> Hardened:
    """Put the arms side by side: before, after, control."""
    suite, (before, after, control) = judges.suite, judged

    def rates(one: Judged, names: Sequence[str]) -> np.ndarray:
        """(S, w) how much of each written case of these capabilities fails."""
        return np.array([np.concatenate([votes(suite, row, name) for name in names]) for row in one.failures])

    def fails(what: str, names: Sequence[str], one: Judged, other: Judged) -> Change:
        return change(what, "less", rates(one, names), rates(other, names))

    def scores(one: Judged, other: Judged) -> tuple[Change, ...]:
        several = (change(f"accuracy on {test}", "more", one.right(test), other.right(test)) for test in judges.tests)
        return tuple(corrected(list(several)))

    def elsewhere(one: Judged, other: Judged) -> tuple[Change, ...]:
        rest = [name for name in suite.about if name not in chosen]
        return tuple(corrected([fails(f"failure rate at {name}", [name], one, other) for name in rest]))

    here, everywhere = (f"failure rate at {', '.join(chosen)}", chosen), (OVERALL, [*suite.about])
    levels: dict[str, dict[str, Interval]] = {}
    levels |= {f"accuracy on {test}": {one.arm: level(one.right(test)) for one in judged} for test in judges.tests}
    for what, names in (here, everywhere):
        levels[what] = {one.arm: level(rates(one, names)) for one in judged}
    return Hardened(
        suite=suite.name,
        capabilities=chosen,
        picked=picked,
        seeds=len(before.runs),
        target=fails(*here, before, after),
        beyond=fails(*here, control, after),
        tests=scores(before, after),
        tests_beyond=scores(control, after),
        others=elsewhere(before, after),
        others_beyond=elsewhere(control, after),
        whole=fails(*everywhere, before, after),
        whole_beyond=fails(*everywhere, control, after),
        levels=levels,
        rates={name: {one.arm: float(rates(one, [name]).mean()) for one in judged} for name in suite.about},
        probes=tuple(_probe(at, text, judged) for at, text in enumerate(judges.probes)),
        epochs={one.arm: [run["epochs"] for run in one.runs] for one in judged},
        best={one.arm: [run["best"] for run in one.runs] for one in judged},
        sifted=sifted,
        mixture=mixture,
        notes=notes,
        model=str(after.folders[after.best] / "model"),
    )


def _probe(at: int, text: str, judged: Sequence[Judged]) -> Probe:
    labels: dict[str, list[str]] = {one.arm: [run["probes"][at]["label"] for run in one.runs] for one in judged}
    usual = max(set(labels["before"]), key=lambda label: (labels["before"].count(label), label))
    scores: dict[str, list[float]] = {
        one.arm: [run["probes"][at]["scores"][usual] for run in one.runs] for one in judged
    }
    return Probe(text, usual, labels, scores)
