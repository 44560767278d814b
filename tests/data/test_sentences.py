"""Sentences end where readers would end them, and nothing of a text is lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from clozeline.data import sentences as module
from clozeline.data.corpus import documents
from clozeline.data.sentences import sentences

PIECES = [
    *"abAB1ß北。！？।؟…?!. ,;:\"'”’»)]}(“«-—_*\n\r\t\u3000\u00a0と",
    ". ", "! ", '?" ', "Mr. ", "U.S. ", "e.g. ", "No. ", "1. ", "\n\n", "\n \n", " word", " Word", "<br />", "<br>", "</p>",
]  # fmt: skip


def squashed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    "expected",
    [
        ["One ends.", "Two ends!", "Does three?", "Yes…", "Four"],
        ['"Stop!"', "He ran."],
        ['"Stop!" he said.', "(It was late.)", "“So?”", "‘No.’", "*Go.*", "On."],
        ["Mr. Smith met Dr. J. R. Ewing, Jr. of St. Louis.", "They talked."],
        ["He lives in the U.S. army base.", "It is at 3 p.m. Monday in the U.S.", "The end."],
        ["It costs 3.5 dollars, i.e. more than .NET costs at example.com."],
        ["See vol. 3, no. 7, p. 12, fig. 2.", "He said no.", "Then yes."],
        ["Apples, pears etc. were sold by Acme Inc. in May.", "Others etc.", "The rest."],
        ["1. First of all.", "2. Second of all.", "It was 1990.", "Then 1991."],
        ["I think... maybe not.", "I think...", "Maybe."],
        ["Who?!", "Me?!?", "¿Qué?", "¡Sí!", "Über all.", "École.", "Non, non."],
        ["Spaces before marks .", "Or after them ?", '" Quoted .'],
    ],
)
def test_sentences_end_where_they_should(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


@pytest.mark.parametrize(
    "expected",
    [
        ["我来了。", "你呢？", "好！", "“对。”", "（是。）", "走"],
        ["「はい。」", "「そうですか？」と彼は言った。", "雨だ。"],
    ],
)
def test_east_asian_sentences_end_without_a_space(expected: list[str]) -> None:
    assert sentences("".join(expected)) == expected


@pytest.mark.parametrize(
    "expected", [["मैं घर गया।", "वह आया॥", "अंत"], ["هل أنت هنا؟", "نعم"], ["یہ ہے۔", "وہ تھا۔"], ["Ես եմ։", "Դու ես։"]]
)
def test_the_full_stops_of_other_scripts(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


def test_a_line_is_a_paragraph_where_lines_are_not_full() -> None:
    article = "Early life.\nShe was born in 1900 in a village by the sea, the third of eight children of a fisherman. "
    article += "She left it at the age of fourteen to work.\nReferences\nNone"
    assert sentences(article) == [*article.replace("fisherman. ", "fisherman.\n").split("\n")]
    verse = "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,"
    assert sentences(verse) == verse.split("\n")


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n  "])
def test_line_ends_of_wrapped_prose_are_spaces(end: str) -> None:
    lines = [
        "CHAPTER I",
        "",
        "You will rejoice to hear that no disaster has accompanied the",
        "commencement of an enterprise which you have regarded with such evil",
        "forebodings. I arrived here yesterday, and my first task is to assure",
        "my dear sister of my welfare.",
        "",
        "I am already far north of London.",
    ]
    prose = " ".join(lines[2:6])
    first, second = prose.split(". ", 1)
    assert sentences(end.join(lines)) == ["CHAPTER I", first + ".", second, lines[7]]


def test_line_breaks_of_web_text_end_sentences_and_stay() -> None:
    text = "A film about nothing<br /><br />Great.<br>See it"
    assert sentences(text) == ["A film about nothing<br /><br />", "Great.<br>", "See it"]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t", "\u3000"])
def test_no_text_has_no_sentences(text: str) -> None:
    assert sentences(text) == []


def test_nothing_is_lost_of_random_texts() -> None:
    draw = random.Random(0)
    for size in range(1, 1500):
        text = "".join(draw.choices(PIECES, k=size % 150 + 1))
        found = sentences(text)
        assert squashed("".join(found)) == squashed(text), text
        assert all(one == one.strip() and one for one in found), text


def test_nothing_is_lost_of_real_texts_and_most_sentences_look_like_one(data: Path) -> None:
    lengths: list[int] = []
    for name, count in (("wikipedia", 500), ("gutenberg", 2), ("novels", 3)):
        for _, document in zip(range(count), documents([data / "pretrain" / f"{name}.parquet"]), strict=False):
            found = sentences(document.text)
            assert squashed("".join(found)) == squashed(document.text)
            lengths += [len(one) for one in found]
    lengths.sort()
    assert 60 < lengths[len(lengths) // 2] < 120
    assert lengths[len(lengths) * 99 // 100] < 700


def test_what_has_no_end_is_cut_at_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 10)
    assert sentences("aaaa bbbb cccc dddd") == ["aaaa bbbb", "cccc dddd"]
    assert sentences("a" * 25 + " b") == ["a" * 10, "a" * 10, "aaaaa b"]
    assert sentences("a" * 10 + " " + "b" * 10) == ["a" * 10, "b" * 10]


@pytest.mark.parametrize(
    "unit", [". ", ".", "a.\t", "<br", "<br /> ", " ", "\n ", '"', "1. ", "A. ", "a.b", "。", " \r"]
)
def test_hostile_texts_take_no_more_than_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = "x" + unit * (size // len(unit)) + "y"
        started = time.process_time()
        assert squashed("".join(sentences(text))) == squashed(text)
        return time.process_time() - started

    assert seconds(200_000) < 8 * seconds(50_000) + 0.2  # quadratic: 16
