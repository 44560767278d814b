"""The control differs from the cases in what they are, not in how many there are of each label."""

from __future__ import annotations

from collections import Counter

import pytest

from clozeline.hardening.filters import Candidate
from clozeline.hardening.mixing import Pair, divided, labels_of, mix


def examples(**counts: int) -> list[Pair]:
    return [(f"{label} {at}", label) for label, count in counts.items() for at in range(count)]


def written(**counts: int) -> list[Candidate]:
    return [Candidate(f"A case, {text}", label, "sarcasm", "") for text, label in examples(**counts)]


@pytest.mark.parametrize("kept", [dict(negative=11), dict(negative=9, positive=2), dict(positive=5, negative=6)])
def test_the_control_has_the_labels_of_the_cases(kept: dict[str, int]) -> None:
    mixture = mix(examples(positive=90, negative=10), written(**kept), examples(positive=50, negative=50), 0.2)
    assert labels_of(mixture.others) == labels_of(mixture.cases) == kept
    assert not mixture.lacking


def test_of_several_capabilities_each_has_its_share_of_the_cases() -> None:
    """And of both labels, in whatever order the file has them."""
    kept = [
        Candidate(f"A case of {name}, {at}", label, name, "")
        for name, count in dict(sarcasm=197, irony=23, slang=2).items()
        for label in (("negative", "positive") if name == "sarcasm" else ("positive", "negative"))
        for at in range(count)
    ]
    cases = mix(examples(positive=450, negative=450), kept, examples(positive=50, negative=50), 0.1).cases
    found = Counter((text.split()[3].strip(","), label) for text, label in cases)
    for label in ("negative", "positive"):
        assert [found[name, label] for name in ("sarcasm", "irony", "slang")] == [25, 23, 2]


@pytest.mark.parametrize(("cases", "times"), [(40, "once"), (30, "1 or 2 times"), (20, "2 times"), (3, "10 times")])
def test_the_share_is_kept_by_repeating_as_many_cases_as_it_takes(cases: int, times: str) -> None:
    mixture = mix(examples(positive=360), written(negative=cases), examples(negative=40), 0.1)
    wanted = min(40, 10 * cases)
    assert (len(mixture.after), len(mixture.control), mixture.times) == (360 + wanted, 360 + wanted, times)
    assert mixture.share == pytest.approx(wanted / (360 + wanted))
    assert max(Counter(mixture.after).values()) - min(Counter(mixture.after[360:]).values()) <= 1


def test_what_there_is_too_little_of_is_filled_up_and_told() -> None:
    mixture = mix(examples(positive=90), written(negative=11), examples(positive=50, negative=4), 0.2)
    assert labels_of(mixture.others) == {"negative": 4, "positive": 7}
    assert mixture.lacking == {"negative": 7}


@pytest.mark.parametrize(
    ("cases", "aside"),
    [
        ([examples(negative=11)], {"negative": 11}),
        ([examples(negative=300, positive=4)], {"negative": 20, "positive": 20}),
        ([examples(negative=11), examples(negative=3, positive=5)], {"negative": 11, "positive": 5}),
        (None, {"negative": 20, "positive": 20}),
    ],
)
def test_what_is_put_aside_has_the_labels_of_any_cases_that_may_be_chosen(
    cases: list[list[Pair]] | None, aside: dict[str, int]
) -> None:
    train = examples(positive=150, negative=50)
    ordinary, reserve = divided(train, None, 0.2, cases, 0)
    assert labels_of(reserve) == aside
    assert Counter(ordinary) + Counter(reserve) == Counter(train)


@pytest.mark.parametrize("cases", [None, [examples(negative=300, positive=300)], [examples(negative=300)]])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_a_rare_label_is_not_put_aside_whole(share: float, cases: list[list[Pair]] | None) -> None:
    """Else models before would not know it, and whatever came after would seem better."""
    train = examples(positive=143, neutral=142, negative=15)
    ordinary, reserve = divided(train, None, share, cases, 0)
    for label, count in labels_of(train).items():
        assert labels_of(reserve)[label] <= max(2 * share if share < 0.25 else 0.5, share) * count
    assert len(reserve) == pytest.approx(share * 300, abs=2)
    assert Counter(ordinary) + Counter(reserve) == Counter(train)
