"""Check that the bundled review data set keeps the promises of its data card: the file format, the sizes and the
balance of labels and kinds, the length of the texts, that no texts share a run of words or an opening too often, and
that no text has a near duplicate in another split, so that scores on the test split are honest."""

import csv
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parents[1] / "src/clozeline/examples/reviews"
SIZES = {"train": 1440, "validation": 120, "test": 120}
LABELS = ("negative", "positive")
JUDGED = {"plain": 0.40, "negation": 0.18, "contrast": 0.18, "sarcasm": 0.12, "comparison": 0.12}
LEARNED = {"plain": 0.52, "negation": 0.16, "contrast": 0.14, "sarcasm": 0.08, "comparison": 0.10}
SHARES = {"train": LEARNED, "validation": JUDGED, "test": JUDGED}


class Review(NamedTuple):
    """One row of the data set and the split it is in."""

    split: str
    text: str
    label: str
    kind: str

    @property
    def words(self) -> list[str]:
        """The case-folded words, without punctuation."""
        return re.findall(r"\w+(?:'\w+)*", self.text.casefold())


def read(split: str) -> list[Review]:
    with open(FOLDER / f"{split}.csv", encoding="utf-8", newline="") as file:
        return [Review(split, **row) for row in csv.DictReader(file, strict=True)]


REVIEWS = {split: read(split) for split in SIZES}
ALL = [review for reviews in REVIEWS.values() for review in reviews]


@pytest.mark.parametrize("split", SIZES)
def test_file_format(split: str) -> None:
    raw = (FOLDER / f"{split}.csv").read_bytes()
    assert raw.startswith(b"text,label,kind\n")
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    assert raw.count(b"\n") == SIZES[split] + 1  # no text spans lines


@pytest.mark.parametrize("split", SIZES)
def test_size_and_balance(split: str) -> None:
    half = SIZES[split] // 2
    assert Counter(review.label for review in REVIEWS[split]) == dict.fromkeys(LABELS, half)


@pytest.mark.parametrize("split", SIZES)
def test_kinds(split: str) -> None:
    kinds = Counter(review.kind for review in REVIEWS[split])
    assert kinds.keys() == SHARES[split].keys()
    for kind, share in SHARES[split].items():
        assert kinds[kind] / SIZES[split] == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("split", SIZES)
def test_labels_within_kinds(split: str) -> None:
    counts = Counter((review.kind, review.label) for review in REVIEWS[split])
    for kind in ("negation", "contrast", "comparison"):
        assert counts[kind, "negative"] == counts[kind, "positive"]
    for kind in ("plain", "sarcasm"):  # sarcasm leans negative, and plain makes up for it
        rarer = min(counts[kind, label] for label in LABELS)
        assert rarer >= 0.25 * sum(counts[kind, label] for label in LABELS)


def test_lengths() -> None:
    lengths = [len(review.text.split()) for review in ALL]
    assert min(lengths) >= 5
    assert max(lengths) <= 40
    assert sum(lengths) / len(lengths) == pytest.approx(16, abs=1)


def test_texts_are_clean() -> None:
    for review in ALL:
        assert review.text == " ".join(review.text.split())
        assert review.text.isprintable()


def test_no_shared_run_of_five_words() -> None:
    runs = Counter(
        run for review in ALL for run in {tuple(review.words[i : i + 5]) for i in range(len(review.words) - 4)}
    )
    assert [" ".join(run) for run, count in runs.items() if count > 1] == []


def test_no_near_duplicate_across_splits() -> None:
    bags = [(review, frozenset(review.words)) for review in ALL]
    pairs = [
        (first.text, second.text)
        for (first, a), (second, b) in combinations(bags, 2)
        if first.split != second.split and 2 * len(a & b) >= len(a | b)
    ]
    assert pairs == []


def test_openings_vary() -> None:
    openings = Counter(tuple(review.words[:3]) for review in ALL)
    assert max(openings.values()) <= 3
    assert len(openings) >= 0.95 * len(ALL)


def test_data_card_counts() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    counts = Counter((review.split, review.label, review.kind) for review in ALL)
    for split in SIZES:
        for label in LABELS:
            cells = [counts[split, label, kind] for kind in JUDGED]
            assert f"| {split} | {label} | {' | '.join(map(str, [*cells, sum(cells)]))} |" in card
