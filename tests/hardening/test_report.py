"""What a report says of arms whose answers are made up: who did a harm, what probes say, and the same numbers everywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozeline.data.suite import Case, Suite
from clozeline.hardening.arms import ARMS, Judged, Judges
from clozeline.hardening.filters import Candidate, Sifted
from clozeline.hardening.mixing import Mixture
from clozeline.hardening.report import Hardened, compared

EACH = 60
NAMES = ("sarcasm", "negation", "typos")
PROBE = "Great movie, if you enjoy watching paint dry."


def reported(
    rates: dict[str, tuple[float, float, float]],
    right: tuple[float, float, float] = (0.8, 0.8, 0.8),
    chosen: str = "sarcasm",
) -> Hardened:
    """The report of five models an arm that fail these shares of 60 cases: before, after, control; by about two cases."""
    fails, answers = np.empty((3, 5, EACH * len(NAMES))), np.empty((3, 5, 200))
    for arm, seed in product(range(3), range(5)):
        random = np.random.default_rng([arm, seed])
        some = [failing(rates.get(name, (0.3, 0.3, 0.3))[arm], EACH, random) for name in NAMES]
        fails[arm, seed], answers[arm, seed] = np.concatenate(some), 1 - failing(1 - right[arm], 200, random)
    return put_together(NAMES, fails, answers, chosen)


def put_together(
    names: Sequence[str],
    fails_ASn: np.ndarray,
    right_ASm: np.ndarray,
    chosen: str,
) -> Hardened:
    """The report of three arms that fail these cases of a suite, as many of each capability, and answer these of a test."""
    each = fails_ASn.shape[2] // len(names)
    cases = [
        Case(name, "minimum", f"{name} {at}", "", each * number + at, "positive")
        for number, name in enumerate(names)
        for at in range(each)
    ]
    suite = Suite("made", tuple(cases), dict.fromkeys(names, "About."))

    def judged(arm: int) -> Judged:
        runs: list[dict[str, Any]] = []
        for seed, (fails, right) in enumerate(zip(fails_ASn[arm], right_ASm[arm], strict=True)):
            score = (0.9, 0.3, 0.7)[arm] - 0.05 * seed
            label = "positive" if score > 0.5 else "negative"
            probes = [{"label": label, "scores": {"positive": score, "negative": 1 - score}}]
            found = {"tests": {"test.csv": right}, "failures": fails, "probes": probes}
            runs.append(found | {"epochs": [], "best": None})
        return Judged(ARMS[arm], tuple(Path(f"seed-{seed}") for seed in range(len(runs))), tuple(runs))

    sifted = Sifted((Candidate("A case.", "positive", "sarcasm", ""),), (), {}, None, None)
    judges = Judges({"test.csv": []}, suite, None, (PROBE,))
    mixture = Mixture([("a", "positive")], [("b", "positive")], [("c", "positive")], 1)
    return compared((judged(0), judged(1), judged(2)), judges, (chosen,), sifted, mixture, (), False, "macro_f1")


def failing(share: float, count: int, random: np.random.Generator) -> np.ndarray:
    """1 for the first cases, this share of them, but for two that are drawn."""
    found = np.arange(count) < round(share * count)
    found[random.integers(count, size=2)] ^= True
    return found.astype(int)


@pytest.mark.parametrize(
    ("negation", "says"),
    [
        ((0.2, 0.6, 0.2), "The cases did it, not merely more data"),
        ((0.2, 0.6, 0.6), "It cannot be told from what more data of any kind does"),
        ((0.2, 0.6, 0.9), "More data did it, not the cases"),
    ],
)
def test_a_harm_elsewhere_says_who_did_it(negation: tuple[float, float, float], says: str) -> None:
    found = reported({"sarcasm": (0.7, 0.3, 0.7), "negation": negation})
    assert found.verdict == "improved and harmed"
    (line,) = [each for each in found.sentences() if each.startswith("Harmed: failure rate at ")]
    assert "negation 2" in line and says in line
    word = {"The": "harmed", "It ": "unchanged", "Mor": "improved"}[says[:3]]
    assert [one.word for one in found.others_beyond] == [word, "unchanged"]
    assert found.as_dict()["others_beyond"][0]["verdict"] == word
    low, high = (100 * end for end in (found.others_beyond[0].difference.low, found.others_beyond[0].difference.high))
    assert f"[{low:+.1f}, {high:+.1f}]" in line, "a difference that may be there is said"


def test_a_harm_to_the_test_says_so_too_and_once() -> None:
    found = reported({"sarcasm": (0.7, 0.3, 0.7)}, right=(0.9, 0.6, 0.6))
    assert [each for each in found.sentences() if "accuracy" in each.lower()] == [
        each for each in found.sentences() if each.startswith("Harmed: accuracy") and "It cannot be told" in each
    ]


def test_what_is_worse_than_the_control_alone_is_said_and_is_no_harm() -> None:
    found = reported({"sarcasm": (0.7, 0.3, 0.7), "negation": (0.5, 0.5, 0.1)})
    assert found.verdict == "improved"
    assert any("though not than before: failure rate at negation" in each for each in found.sentences())


def test_those_against_the_control_are_corrected_for_their_number() -> None:
    """With the test, the rest of the suite, and both other capabilities they are four."""
    rates = {"negation": (0.3, 0.3, 0.2)}
    alone, of_four = reported(rates, chosen="negation").beyond.p, reported(rates).others_beyond
    assert alone < 0.25 and of_four[0].p == pytest.approx(4 * alone)


def test_a_little_harm_to_every_capability_is_a_harm_to_the_rest_of_the_suite() -> None:
    """Two of 30 cases of each of 19 capabilities fail anew: too few for each of them, and 38 together."""
    names = ["sarcasm", *(f"capability {at}" for at in range(19))]
    fails = np.zeros((3, 5, 30 * len(names)))
    fails[1].reshape(5, len(names), 30)[:, 1:, :2] = 1
    found = put_together(names, fails, np.ones((3, 5, 200)), "sarcasm")
    assert {one.word for one in found.others} == {"unchanged"} and found.verdict == "harmed"
    (rest,) = found.harmed
    assert (rest.what, rest.examples) == ("failure rate over the other 19 capabilities", 570)
    assert any(each.startswith(f"Harmed: {rest}. The cases did it") for each in found.sentences())
    assert found.as_dict()["rest"] == [rest.as_dict()] and rest.what in found.markdown()


@pytest.mark.parametrize("names", [("sarcasm",), ("sarcasm", "negation")])
def test_one_other_capability_or_none_has_no_rest_beside_it(names: tuple[str, ...]) -> None:
    found = put_together(names, np.zeros((3, 5, 30 * len(names))), np.ones((3, 5, 20)), "sarcasm")
    assert found.rest == found.rest_beyond == () and len(found.others) == len(names) - 1
    assert any("None of the" in each for each in found.sentences()) == (len(names) == 2)


def by_chance(random: np.random.Generator, capabilities: int, seeds: int) -> Hardened:
    """Arms between which there is no difference, of models that have luck, at all of it and at each capability; the one
    that those before fail at most is picked."""
    hardness = random.normal(size=capabilities * 30)
    luck = random.normal(scale=0.3, size=(3, seeds, 1)) + np.repeat(
        random.normal(scale=0.3, size=(3, seeds, capabilities)), 30, axis=2
    )
    fails = (hardness + luck + random.normal(size=(3, seeds, hardness.size)) < -0.8).astype(float)
    right = random.normal(size=400) + luck[:, :, :1] + random.normal(size=(3, seeds, 400)) > -1.5
    names = [f"capability {at}" for at in range(capabilities)]
    weakest = fails[0].reshape(seeds, capabilities, 30).mean((0, 2)).argmax()
    return put_together(names, fails, right.astype(float), names[weakest])


def test_equal_arms_are_seldom_called_improved_or_harmed() -> None:
    """By chance each is so in about 5 of 100 runs at most, however much is looked at."""
    random = np.random.default_rng(0)
    found = [by_chance(random, 8, 5) for _ in range(120)]
    assert sum("harmed" in one.verdict for one in found) <= 120 * 0.08
    assert sum("improved" in one.verdict for one in found) <= 120 * 0.05


def test_probes_say_how_many_models_say_what_and_their_range() -> None:
    (probe,) = reported({}).probes
    assert probe.said("before") == "positive 5 of 5; score of positive 0.80 (0.70 to 0.90)"
    assert probe.said("after") == "negative 5 of 5; score of positive 0.20 (0.10 to 0.30)"
    assert probe.said("control") == "positive 4 of 5, negative 1 of 5; score of positive 0.60 (0.50 to 0.70)"
    assert probe.as_dict()["score_range"]["control"] == pytest.approx([0.5, 0.7])


def test_the_control_s_labels_stand_beside_those_of_the_cases() -> None:
    cases, others = [("b", "negative")] * 3 + [("c", "positive")], [("d", "negative")] * 2 + [("e", "positive")] * 2
    found = replace(reported({}), mixture=Mixture([("a", "positive")], cases, others, 4))
    for told in (str(found), found.markdown()):
        assert "4 cases of sarcasm (3 negative, 1 positive)" in told
        assert "4 other ordinary examples instead (2 negative, 2 positive)" in told
        assert "The control has 1 fewer of negative" in told
    assert found.as_dict()["labels"]["others"] == {"negative": 2, "positive": 2}
    assert "fewer of" not in str(reported({}))


def test_where_validation_turns_is_told_of_all_models_and_by_the_metric_that_chose() -> None:
    losses, scores = [[0.5, 0.3, 0.4], [0.5, 0.4, 0.3], [0.3, 0.4]], [[0.6, 0.7, 0.8], [0.6, 0.7, 0.7], [0.5, 0.9]]
    runs = [
        [dict(epoch=at + 1, train_loss=0.2, validation_loss=loss, score=score) for at, (loss, score) in enumerate(both)]
        for both in (zip(*each, strict=True) for each in zip(losses, scores, strict=True))
    ]
    plain = reported({})
    found = replace(plain, epochs=plain.epochs | {"before": runs}, best=plain.best | {"before": [3, 3, 2]})
    said = (
        "Models before: 3. The validation loss is lowest after epoch 2 (median; 1 to 3); for 1 of them that was the last "
        "epoch, and it might have sunk further. Kept was the epoch with the highest macro f1 on the validation data: "
        "3 (median; 2 to 3)."
    )
    assert said in found.markdown() and said in str(found)
    table = found.markdown().split("## Where validation turns")[1]
    assert "| epoch | models | train loss | validation loss | macro f1 |" in table
    assert "| 1 | 3 | 0.2 | 0.4333 | 0.5667 |" in table and "| 3 | 2 | 0.2 | 0.35 | 0.75 |" in table
    assert "Models before" not in str(plain) and "Where validation" not in plain.markdown(), "without validation"


def test_each_arm_stands_with_its_interval_in_text_markdown_json_and_page(tmp_path: Path) -> None:
    found = reported({"sarcasm": (0.7, 0.3, 0.7)})
    whole = found.levels["failure rate over all capabilities"]
    assert whole["before"].value == pytest.approx((0.7 + 0.3 + 0.3) / 3, abs=0.03)
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
    for change in (*found.others_beyond, *found.rest_beyond):
        assert f"| {change.what} | {change.before:.1%} | {change.after:.1%} |" in against
