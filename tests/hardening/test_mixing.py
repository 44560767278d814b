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
    kept = [
        Candidate(f"A case of {name}, {at}", ("negative", "positive")[at % 2], name, "")
        for name, count in dict(sarcasm=394, irony=46, slang=4).items()
        for at in range(count)
    ]
    cases = mix(examples(positive=450, negative=450), kept, examples(positive=50, negative=50), 0.1).cases
    assert Counter(text.split()[3].strip(",") for text, _ in cases) == dict(sarcasm=50, irony=46, slang=4)
    assert labels_of(cases) == dict(negative=50, positive=50)


def test_what_there_is_too_little_of_is_filled_up_and_told() -> None:
    mixture = mix(examples(positive=90), written(negative=11), examples(positive=50, negative=4), 0.2)
    assert labels_of(mixture.others) == {"negative": 4, "positive": 7}
    assert mixture.lacking == {"negative": 7}


@pytest.mark.parametrize(
    ("cases", "aside"),
    [
        ([examples(negative=11)], {"negative": 11}),
        ([examples(negative=300, positive=4)], {"negative": 36, "positive": 4}),
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
