"""What a report says of arms whose answers are made up: who did a harm, what probes say, and the same numbers everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozeline.data.suite import Case, Suite
from clozeline.harden.arms import ARMS, Judged, Judges
from clozeline.harden.filters import Candidate, Sifted
from clozeline.harden.mixing import Mixture
from clozeline.harden.report import Hardened, compared

EACH = 60
NAMES = ("sarcasm", "negation", "typos")
PROBE = "Great movie, if you enjoy watching paint dry."


def reported(
    rates: dict[str, tuple[float, float, float]],
    right: tuple[float, float, float] = (0.8, 0.8, 0.8),
    chosen: str = "sarcasm",
) -> Hardened:
    """The report of five models an arm that fail these shares of 60 cases: before, after, control; by about two cases."""
    cases = [
        Case(name, "minimum", f"{name} {at}", "", EACH * number + at, "positive")
        for number, name in enumerate(NAMES)
        for at in range(EACH)
    ]
    suite = Suite("made", tuple(cases), dict.fromkeys(NAMES, "About."))

    def judged(arm: int) -> Judged:
        runs: list[dict[str, Any]] = []
        for seed in range(5):
            random = np.random.default_rng([arm, seed])
            failures = [failing(rates.get(name, (0.3, 0.3, 0.3))[arm], EACH, random) for name in NAMES]
            tests = {"test.csv": (1 - failing(1 - right[arm], 200, random)).tolist()}
            score = (0.9, 0.3, 0.7)[arm] - 0.05 * seed
            label = "positive" if score > 0.5 else "negative"
            probes = [{"label": label, "scores": {"positive": score, "negative": 1 - score}}]
            found = {"tests": tests, "failures": np.concatenate(failures).tolist(), "probes": probes}
            runs.append(found | {"epochs": [], "best": None})
        return Judged(ARMS[arm], tuple(Path(f"seed-{seed}") for seed in range(5)), tuple(runs))

    sifted = Sifted((Candidate("A case.", "positive", "sarcasm", ""),), (), {}, None, None)
    judges = Judges({"test.csv": []}, suite, None, (PROBE,))
    mixture = Mixture([("a", "positive")], [("b", "positive")], [("c", "positive")], 1)
    return compared((judged(0), judged(1), judged(2)), judges, (chosen,), sifted, mixture, (), False)


def failing(share: float, count: int, random: np.random.Generator) -> np.ndarray:
    """1 for the first cases, this share of them, but for two that are drawn."""
    found = np.arange(count) < round(share * count)
    found[random.integers(count, size=2)] ^= True
    return found.astype(int)


@pytest.mark.parametrize(
    ("negation", "says"),
    [
        ((0.2, 0.6, 0.2), "The cases did it, not merely more data"),
        ((0.2, 0.6, 0.6), "Merely more data may have done it"),
        ((0.2, 0.6, 0.9), "More data did it, not the cases"),
    ],
)
def test_a_harm_elsewhere_says_who_did_it(negation: tuple[float, float, float], says: str) -> None:
    found = reported({"sarcasm": (0.7, 0.3, 0.7), "negation": negation})
    assert found.verdict == "improved and harmed"
    (line,) = [each for each in found.sentences() if each.startswith("Harmed: ")]
    assert "negation 2" in line and says in line
    word = {"The": "harmed", "Mer": "unchanged", "Mor": "improved"}[says[:3]]
    assert [one.word for one in found.others_beyond] == [word, "unchanged"]
    assert found.as_dict()["others_beyond"][0]["verdict"] == word


def test_a_harm_to_the_test_says_so_too_and_once() -> None:
    found = reported({"sarcasm": (0.7, 0.3, 0.7)}, right=(0.9, 0.6, 0.6))
    assert [each for each in found.sentences() if "accuracy" in each.lower()] == [
        each for each in found.sentences() if each.startswith("Harmed: accuracy") and "Merely more data" in each
    ]


def test_what_is_worse_than_the_control_alone_is_said_and_is_no_harm() -> None:
    found = reported({"sarcasm": (0.7, 0.3, 0.7), "negation": (0.5, 0.5, 0.1)})
    assert found.verdict == "improved"
    assert any("though not than before: failure rate at negation" in each for each in found.sentences())


def test_those_against_the_control_are_corrected_for_their_number() -> None:
    rates = {"negation": (0.3, 0.3, 0.25)}
    alone, of_two = reported(rates, chosen="negation").beyond.p, reported(rates).others_beyond
    assert alone < 0.5 and of_two[0].p == pytest.approx(2 * alone)


def test_probes_say_how_many_models_say_what_and_their_range() -> None:
    (probe,) = reported({}).probes
    assert probe.said("before") == "positive 5 of 5; score of positive 0.80 (0.70 to 0.90)"
    assert probe.said("after") == "negative 5 of 5; score of positive 0.20 (0.10 to 0.30)"
    assert probe.said("control") == "positive 4 of 5, negative 1 of 5; score of positive 0.60 (0.50 to 0.70)"
    assert probe.as_dict()["score_range"]["control"] == pytest.approx([0.5, 0.7])


def test_each_arm_stands_with_its_interval_in_text_markdown_json_and_page(tmp_path: Path) -> None:
    found = reported({"sarcasm": (0.7, 0.3, 0.7)})
    whole = found.levels["failure rate over all capabilities"]
    assert whole["before"].value == pytest.approx(found.whole.before) == pytest.approx((0.7 + 0.3 + 0.3) / 3, abs=0.03)
    assert whole["after"].low < whole["after"].value < whole["before"].low
    for name in ("report.html", "report.json"):
        found.save(tmp_path / name)
    page, told = (tmp_path / "report.html").read_text(), json.loads((tmp_path / "report.json").read_text())
    for one in whole.values():
        shown = f"{one.value:.1%} [{100 * one.low:.1f}, {100 * one.high:.1f}]"
        assert shown in str(found) and shown in found.markdown() and shown in page
    kept = told["levels"]["failure rate over all capabilities"]["after"]
    assert kept == {"value": whole["after"].value, "value_interval": [whole["after"].low, whole["after"].high]}
    assert found.probes[0].said("control") in str(found)
    against = found.markdown().split("## After against control")[1]
    for change in (*found.others_beyond, found.whole_beyond):
        assert f"| {change.what} | {change.before:.1%} | {change.after:.1%} |" in against
