"""Sentences that are looked at one by one: what the models of each arm say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozeline.evaluate.intervals import Interval
from clozeline.hardening.arms import ARMS, Judged


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


def probed(at: int, text: str, judged: Sequence[Judged]) -> Probe:
    """What the arms say of one of the probes, by its number and text."""
    labels: dict[str, list[str]] = {one.arm: [run["probes"][at]["label"] for run in one.runs] for one in judged}
    usual = max(set(labels["before"]), key=lambda label: (labels["before"].count(label), label))
    scores: dict[str, list[float]] = {
        one.arm: [run["probes"][at]["scores"][usual] for run in one.runs] for one in judged
    }
    return Probe(text, usual, labels, scores)
