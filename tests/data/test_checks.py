"""What is wrong with labelled texts is found and said, what only looks like it is not, and nothing depends on chance."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from clozeline.data import checks
from clozeline.data.checks import SEPARATOR, DataReport, Item, check
from clozeline.data.readers import examples

LONG = "the film was long and slow but the cast was good and the end made up for most of what had gone before it"


def items(texts: Sequence[str], label: str | None = "a", name: str = "train.csv") -> list[Item]:
    return [Item(text, label, f"{name} row {row}") for row, text in enumerate(texts, 1)]


def against(text: str, other: str) -> DataReport:
    """The report for one training text with one validation text."""
    return check(items([text]), items([other], name="dev.csv"))


def words(count: int, seed: int = 0) -> list[str]:
    return [f"word{number}" for number in random.Random(seed).sample(range(10**6), count)]


def found(report: DataReport) -> tuple[int, int, int, int]:
    return len(report.conflicts), len(report.near_conflicts), len(report.leaks), len(report.near_leaks)


# the same


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("A good film.", "A good film."),
        ("A good film.", " a GOOD\tfilm !\n"),
        ("“Straße” — 1,000", "STRASSE 1 000"),
        ("ｆｕｌｌ width", "full width"),
        ("soft\u00adhyphen and \u200bnothing", "softhyphen and nothing"),
        ("这部电影很好看。", "这部电影 很好看"),
        (":)", " :) "),
        ("one" + SEPARATOR + "two", "One." + SEPARATOR + "two"),
    ],
)
def test_the_same_words_are_the_same_text(text: str, other: str) -> None:
    report = against(text, other)
    assert found(report) == (0, 0, 1, 0)
    assert report.leaks[0].likeness == 1


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("a good film", "a bad film"),
        (":)", ":("),
        ("great 😀", "great 😡"),
        ("कि", "की"),
        ("learn c++", "learn c"),
        ("one" + SEPARATOR + "two", "one two"),
        ("one" + SEPARATOR + "two", "two" + SEPARATOR + "one"),
        ("it does not follow the stale", "it does follow the stale"),
        (LONG, " ".join(reversed(LONG.split()))),
        (LONG.replace("good", "bad"), LONG),  # 24 words: three of 22 shingles differ
        (LONG + SEPARATOR + "the film was long", LONG + SEPARATOR + "the film was short"),
        ("这部电影很好看我很喜欢", "今天的天气不错我们出去玩"),
    ],
)
def test_other_words_are_another_text(text: str, other: str) -> None:
    assert found(against(text, other)) == (0, 0, 0, 0)


# nearly the same


@pytest.mark.parametrize(
    ("text", "other", "likeness"),
    [
        (LONG, LONG + " all", 22 / 23),
        (LONG, LONG.removesuffix(" before it"), 20 / 22),
        ("a b c d e f g h", "a b c d e f g h i", 6 / 7),
        ("这部电影很好看我很喜欢", "这部电影很好看我很喜欢它", 9 / 10),
        (LONG + SEPARATOR + "yes", LONG + " all" + SEPARATOR + "Yes!", 22 / 23),
        (LONG + SEPARATOR + "a b c d e f g h", LONG + " all" + SEPARATOR + "a b c d e f g h i", 6 / 7),
    ],
)
def test_nearly_the_same(text: str, other: str, likeness: float) -> None:
    report = against(text, other)
    assert found(report) == (0, 0, 0, 1)
    assert report.near_leaks[0].likeness == pytest.approx(likeness)


def test_planted_pairs_are_found_exactly_where_they_reach_the_threshold() -> None:
    train, validation, expected = [], [], []
    for seed in range(600):
        text, cut = words(102, seed), seed % 40  # 100 shingles, of which the other has all but `cut`
        train.append(" ".join(text))
        validation.append(" ".join(text[cut:]))
        expected.append(1 - cut / 100)
    got = {match.first.place: match.likeness for match in check(items(train), items(validation)).near_leaks}
    for row, likeness in enumerate(expected, 1):
        if likeness < 0.8:
            assert f"train.csv row {row}" not in got
        elif likeness < 1 and (likeness > 0.88 or f"train.csv row {row}" in got):  # above 0.88 one in 4,000 is missed
            assert got[f"train.csv row {row}"] == pytest.approx(likeness)
    assert len(got) >= 0.98 * sum(0.8 <= likeness < 1 for likeness in expected)


def test_the_most_alike_training_text_is_named() -> None:
    report = check(items([LONG + " we saw", LONG + " all", "else"]), items([LONG, LONG.upper()], name="dev.csv"))
    assert [(match.first.place, match.second.place) for match in report.near_leaks] == [
        ("dev.csv row 1", "train.csv row 2"),
        ("dev.csv row 2", "train.csv row 2"),
    ]


# labels


def test_conflicts_and_repeats() -> None:
    train = [
        Item("A film.", "good", "row 1"),
        Item("a film", "good", "row 2"),
        Item("a film!", "bad", "row 3"),
        Item(LONG, "good", "row 4"),
        Item(LONG + " all", "bad", "row 5"),
        Item("a b c d e f g h", "good", "row 6"),
        Item("a b c d e f g h not", "bad", "row 7"),  # nearly the same, but so short that the word may decide
    ]
    report = check(train)
    assert [(match.first.place, match.second.place) for match in report.conflicts] == [("row 1", "row 3")]
    assert [(match.first.place, match.second.place) for match in report.near_conflicts] == [("row 4", "row 5")]
    assert report.repeats == 1
    said = report.warnings()
    assert any("row 1 ('good') and row 3 ('bad')" in sentence for sentence in said)
    assert any("row 4 ('good') and row 5 ('bad')" in sentence for sentence in said)
    assert any("1 of 7 (14.29%)" in sentence for sentence in said)


def test_without_classes_nothing_contradicts() -> None:
    report = check(items([LONG, LONG, LONG + " all"], label=None), items([LONG], label=None))
    assert found(report) == (0, 0, 1, 0)
    assert (report.counts, report.repeats) == ({}, 1)


def test_a_validation_text_meets_its_own_label_first() -> None:
    train = [Item("a film", "bad", "row 1"), Item("a film", "good", "row 2"), Item("a book", "bad", "row 3")]
    report = check(train, [Item("a film", "good", "dev 1"), Item("a book", "good", "dev 2")])
    assert [match.second.place for match in report.leaks] == ["row 2", "row 3"]
    unlike = next(sentence for sentence in report.warnings() if "with another label" in sentence)
    assert "another label: 1: dev 2 ('good') and row 3 ('bad')" in unlike


def test_sets_of_labels_and_tags_contradict_too() -> None:
    sets = [frozenset("a"), frozenset("ba"), frozenset("ab"), frozenset[str]()]
    report = check([Item(LONG, label, f"row {at}") for at, label in enumerate(sets)])
    assert (len(report.conflicts), report.repeats, report.counts) == (1, 1, {})
    assert any("row 0 (a) and row 1 (a b)" in sentence for sentence in report.warnings())
    near = [Item(LONG, frozenset("a"), "row 1"), Item(LONG + " all", frozenset("b"), "row 2")]
    assert found(check(near)) == (0, 1, 0, 0)
    tagging = [("O", "B-x"), ("O", "O"), ("O", "B-x")]
    report = check([Item("ada sang", tags, f"row {at}") for at, tags in enumerate(tagging)])
    assert (len(report.conflicts), report.repeats) == (1, 1)
    assert any("row 0 (B-x) and row 1 (none)" in sentence for sentence in report.warnings())
    assert found(check([Item(LONG, ("O",) * 24, "row 1"), Item(LONG + " all", ("O",) * 25, "row 2")])) == (0, 0, 0, 0)


def test_rare_labels() -> None:
    train = [Item(" ".join(words(5, seed)), "c" if seed < 9 else "b" if seed < 19 else "a", "") for seed in range(119)]
    report = check(train)
    assert report.counts == {"a": 100, "b": 10, "c": 9}
    (said,) = report.warnings()
    assert "'a' has 100 training texts, but 'c' 9." in said
    assert 'class_weights="balanced"' in said
    assert "macro F1" in said


# what is said


def test_all_is_well() -> None:
    texts = [" ".join(words(30, seed)) for seed in range(50)]
    assert check(items(texts[:40]), items(texts[40:])).warnings() == []
    assert check(items(texts)).warnings() == []
    assert check([]).warnings() == []


def test_leaks_are_counted_and_weighed() -> None:
    texts = [" ".join(words(30, seed)) for seed in range(401)]
    (said,) = check(items(texts[:5]), items(texts[1:6], name="dev.csv")).warnings()
    assert "4 of 5 (80.00%), 0 of them nearly the same: dev.csv row 1 and train.csv row 2; dev.csv row 2" in said
    assert "; .... The validation score will be too good" in said
    (said,) = check(items(texts[:1]), items(texts)).warnings()
    assert "1 of 401 (0.25%)" in said
    assert "too few to move the score much" in said


def test_texts_without_a_word() -> None:
    report = check(items(["", " \n", LONG, SEPARATOR]), items(["", "else"], label="b", name="dev.csv"))
    assert len(report.empty) == 4
    assert found(report) == (0, 0, 0, 0)
    assert report.warnings() == [
        "Texts without a word: 4: train.csv row 1; train.csv row 2; train.csv row 4; .... Fill them in or leave them out."
    ]


# promises


def template(count: int) -> list[Item]:
    body = " ".join(words(60))
    return [Item(f"{number} {body} {number}", str(number % 2), f"row {number}") for number in range(count)]


def test_a_template_does_not_blow_up(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    near = checks._near

    def counted(rows: Sequence[Item], pairs: np.ndarray) -> Iterator[tuple[int, int, float]]:
        compared.append(len(pairs))
        return near(rows, pairs)

    monkeypatch.setattr(checks, "_near", counted)
    report = check(template(4000), template(5000)[4000:])
    assert compared[0] < 5000 * 5 * checks.LOOK_ALIKES  # of 12.5 million
    assert report.crowded == 5000
    assert len(report.near_leaks) == 1000  # each of them still met one in training
    assert len(report.near_conflicts) > 3500
    assert "not compared with all that look like them: 5,000" in report.warnings()[-1]
    assert check(template(checks.LOOK_ALIKES)).crowded == 0


def test_the_same_data_give_the_same_report() -> None:
    rows = template(300)
    assert check(rows[:200], rows[200:]) == check(rows[:200], rows[200:])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = template(60) + items([LONG, LONG + " all", "", "a film", "A film"], label="b")
    whole = check(rows[:50], rows[50:])
    monkeypatch.setattr(checks, "CHUNK", 7)
    assert check(rows[:50], rows[50:]) == whole


def test_one_text_thousands_of_times() -> None:
    report = check(items(["good"] * 20_000), items(["Good"] * 20_000, label="b"))
    assert (report.repeats, len(report.leaks)) == (19_999, 20_000)


# real data


def test_real_sst2(data: Path) -> None:
    train, validation = (
        [Item(read.text, str(read.label), read.place) for read in examples(data / "sst2" / name, labelled=True)]
        for name in ("train.tsv", "dev.tsv")
    )
    report = check(train, validation)
    assert [match.first.text.strip() for match in report.leaks] == ["bad .", "cool ?"]
    assert (len(report.conflicts), report.repeats) == (153, 8596)
    assert report.near_leaks == [] and report.empty == [] and report.crowded == 0
    assert 90 < len(report.near_conflicts) <= 98  # a few at the threshold hang on the draw of the hash functions
    assert len(report.warnings()) == 4


def test_repeats_without_labels_to_compare_are_not_said_to_have_the_same() -> None:
    (said,) = check(items(["A good film."] * 2, None)).warnings()
    assert "repeat an earlier one: 1 of 2" in said
    assert "repeat an earlier one with the same label: 1 of 2" in check(items(["A good film."] * 2)).warnings()[0]
