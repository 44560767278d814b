"""Every case is kept or rejected once, for the first reason that holds, and no held-out text gets through."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from paraphrases import EDITED, REORDERED, RETOLD, REWORDED

from clozeline.data.sentences import sentences
from clozeline.data.shingles import words
from clozeline.data.suite import read_suite
from clozeline.errors import InputError
from clozeline.hardening.filters import REASONS, Candidate, Leak, Rejected, Sifted, sift
from clozeline.hardening.malformed import malformed

LABELS = ("positive", "negative")
OTHER = "The band has six members, two of whom play the drums."
HELD = {
    "test": [
        "I saw it at a matinee with my aunt. " * 9 + "The steak was tough as an old boot, and the waiter laughed."
    ],
    "suite sentiment": ["Great movie, if you enjoy watching paint dry for two hours.", OTHER],
    "probe sentences": ["I wish I knew what beautiful movie I just watched, because it certainly was not this one."],
    "validation": [
        "The tent kept us dry through three nights of storms, and it folds up smaller than a loaf of bread."
    ],
}
TRAIN = [
    "The orchestra sounded tired, and the conductor kept glancing at the clock behind the organ.",
    "A warm, clever comedy about a lighthouse keeper and her very talkative parrot.",
]


def case(text: str, label: str = "negative", place: str = "here", capability: str = "sarcasm") -> Candidate:
    return Candidate(text, label, capability, place)


def sifted(*cases: Candidate | Rejected) -> Sifted:
    return sift(cases, labels=LABELS, train=TRAIN, held=HELD)


def reason(text: str) -> str | None:
    """Why this case alone is rejected."""
    found = sifted(case(text))
    return found.rejected[0].reason if found.rejected else None


# by itself


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "... ?!",
        "The \x07bell rang twice in the last act.",
        "A caf\ufffd with good coffee and better cake.",
        "half a pair \ud83d of it in the text",
        "I loved {name} in the second act of it.",
        "I loved [insert film here] more than I can say.",
        "The [MOVIE TITLE] was a waste of an evening.",
        "I went to <your city> and hated every minute.",
        "The acting of ______ was dreadful to watch.",
        "Sure! Here are 10 sarcastic reviews:",
        "Here's a sarcastic sentence about a hotel:",
        "As an AI language model, I have no taste in films.",
        "I’m sorry, but I can’t write that for you.",
        "Text: The film was a delight from start to end.",
        '{"text": "A delight", "label": "positive"}',
        "3. The film was a delight from start to end.",
        "```json",
    ],
)
def test_malformed(text: str) -> None:
    assert reason(text) == "malformed"


@pytest.mark.parametrize(
    "text",
    [
        "Here are the keys to a happy life: this film and a blanket.",
        "Great 😀 film, 10/10!",
        "The text was small, the label peeled off.",
        "“Sure,” he said, and here is why I laughed [sic] at it.",
        "Sorry, but I can't recommend it.",
        "I'm sorry, but I can't recommend this film to anyone.",
        "La película fue una maravilla — ¡qué final!",
        "3 stars. The rest was for the popcorn.",
        "two\nlines\tand a tab",
    ],
)
def test_well_formed(text: str) -> None:
    assert reason(text) is None


def test_the_words_of_the_prompt() -> None:
    prompts = ["Write ten texts. The right label of every text is negative: a careful reader would give it."]
    echo, own = case("a careful reader WOULD give it!"), case("A careful reader would give it two stars.")
    found = sift([echo, own], labels=LABELS, train=[], held={}, prompts=prompts)
    assert (found.kept, found.rejected) == ((own,), (Rejected(echo.text, "malformed", "here"),))


def test_real_phrases_are_well_formed(data: Path) -> None:
    with (data / "sst2" / "train.tsv").open(encoding="utf-8") as file:
        texts = [line.split("\t")[0].strip() for line in file][1:]
    assert [text for text in texts if malformed(text)] == ["(", ")"]


def test_words_and_labels() -> None:
    assert reason("Not bad.") == "too short"
    assert reason("Not bad really.") is None
    assert reason("word " * 60) is None
    assert reason("word " * 61) == "too long"
    found = sift([case("Not bad.")], labels=LABELS, train=[], held={}, words=(1, 2))
    assert len(found.kept) == 1
    assert sifted(case("It was very bad indeed.", label="Negative")).counts["unknown label"] == 1


# leaks

PLANTED = {
    "test": (
        None,  # the sentence of a long review: nobody writes the review again
        "The steak was tough as an old boot, and the waiter just laughed.",
        "The waiter laughed, and the steak is as tough as old boots.",
    ),
    "suite sentiment": (
        "GREAT MOVIE -- if you enjoy watching paint dry for two hours!",
        "Great movie, if you really enjoy watching paint dry for two hours.",
        "If you enjoyed watching paint dry for three hours, a great film.",
    ),
    "probe sentences": (
        "“I wish I knew what beautiful movie I just watched…” because it certainly was not this one",
        "I wish I knew what beautiful movie we just watched, because it certainly was not this one.",
        "It certainly was not this one; I wish I knew which beautiful film I have just watched.",
    ),
    "validation": (
        "the tent kept us dry through three nights of storms and it folds up smaller than a loaf of bread",
        "The tent kept us dry through four nights of storms, and it folds up smaller than a loaf of bread.",
        "It folds up smaller than a loaf of bread, this tent, and kept us dry during three stormy nights.",
    ),
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("how", ["exactly", "edited", "paraphrased"])
def test_a_planted_leak_is_named(held: str, how: str) -> None:
    text = PLANTED[held][["exactly", "edited", "paraphrased"].index(how)]
    if text is None:
        text = HELD[held][0]
    mine = case("A tram driver with a voice like honey steals every scene he is in.", "positive")
    found = sift([mine, case(text, place="line 2")], labels=LABELS, train=TRAIN, held=HELD, words=(3, 100))
    assert found.kept == (mine,)
    (leak,) = found.leaks
    assert (leak.held, leak.place, leak.text) == (held, "line 2", text)
    assert leak.reason == ("leak" if how == "exactly" else "near leak")
    assert leak.like is not None
    assert leak.like in HELD[held][0]
    assert (leak.likeness == 1) == (how == "exactly")
    assert found.leaked == {held: 1}
    assert found.counts == dict.fromkeys(REASONS, 0) | {leak.reason: 1}
    assert f"LEAKED from {held}: 1" in str(found)
    assert repr(leak.like) in str(found)
    assert found.as_dict()["leaks"][0]["held"] == held


def test_a_held_text_inside_a_case_leaks() -> None:
    hidden = f"My brother chose it. {HELD['suite sentiment'][0]} We left before the end."
    (leak,) = sifted(case(hidden)).leaks
    assert (leak.reason, leak.like) == ("near leak", HELD["suite sentiment"][0])


COMMON = ("the", "movie", "was", "good", "but", "we", "did", "not", "like", "what", "they", "do", "with", "as", "bad")


def common(seed: int, count: int) -> list[list[str]]:
    """Texts of 24 sentences of 3 to 20 words, all of which are common: no words are rare enough to tell them apart."""
    chance = random.Random(seed)
    return [[" ".join(chance.choices(COMMON, k=chance.randint(3, 20))) for _ in range(24)] for _ in range(count)]


def joined(pieces: Sequence[str]) -> str:
    return " ".join(f"{piece.capitalize()}." for piece in pieces).replace(" bad. ", " bad.<br /><br />")


def test_each_sentence_of_common_words_leaks_and_a_short_one_does_not() -> None:
    held = common(0, 150)
    texts = [sentence for pieces in held for sentence in pieces]
    cases = [case(f"{text.upper()}!", place=text) for text in dict.fromkeys(texts)]
    within = [case(f"Well then. {text.capitalize()}. So it goes.", place=text) for text in texts[::50]]
    found = sift([*cases, *within], labels=LABELS, train=[], held={"test": [joined(pieces) for pieces in held]})
    leaked = {leak.place for leak in found.leaks}
    assert leaked == {text for text in texts if len(text.split()) >= 8}
    assert all(leak.reason == "near leak" and leak.likeness == 1 for leak in found.leaks if leak.like)
    assert {one.place for one in within if len(one.place.split()) >= 8} <= leaked


def test_each_sentence_of_real_reviews_leaks(data: Path) -> None:
    """While likeness alone told, 110 of these 2,776 were none, for their words are common."""
    import pyarrow.parquet as pq

    texts = pq.read_table(data / "imdb" / "test.parquet").column("text").to_pylist()
    reviews = random.Random(0).sample(texts, 500)
    cut = [[re.sub(r"<br\s*/>", " ", one).strip() for one in sentences(text)] for text in reviews]
    some = [one for pieces in cut for one in pieces if len(pieces) > 1 and 8 <= len(words(one)) <= 20]
    found = sift([case(one) for one in some], labels=LABELS, train=[], held={"test": reviews})
    assert len(some) > 1500
    assert [one.text for one in found.rejected if not isinstance(one, Leak) and one.reason != "malformed"] == []
    assert found.kept == ()
    short = ["I loved it.", "This movie is terrible.", "Avoid at all costs.", "I wanted to like this movie."]
    assert len(sift(map(case, short), labels=LABELS, train=[], held={"test": reviews}).kept) == len(short)


def test_what_shares_a_subject_or_a_phrase_does_not_leak() -> None:
    texts = [
        "The movie has great colours, and the hours in it feel like real hours.",
        "I enjoy painting the fence more than I enjoyed the second half.",
        "Three nights of storms, and the hotel never once offered a candle.",
        "The waiter dropped the steak and brought another without a word.",
        "The band had six encores in them, and we wanted each one.",
    ]
    assert len(sifted(*map(case, texts)).kept) == len(texts)


def test_a_leak_hides_behind_no_other_repeat() -> None:
    text = HELD["suite sentiment"][0]
    found = sift([case(text), case(text)], labels=LABELS, train=[text], held=HELD)
    assert [(leak.reason, leak.held) for leak in found.leaks] == [("leak", "suite sentiment")] * 2


def test_the_same_words_go_before_nearly_the_same() -> None:
    text = HELD["suite sentiment"][0]
    held = {"first": [text.replace("two", "three")], "second": [text], "third": [text]}
    (leak,) = sift([case(text)], labels=LABELS, train=[], held=held).leaks
    assert (leak.held, leak.reason, leak.likeness) == ("second", "leak", 1)


@pytest.mark.parametrize(("pairs", "least"), [(EDITED, 12), (REORDERED, 8), (RETOLD, 7), (REWORDED, 0)])
def test_paraphrases_by_hand(pairs: list[tuple[str, str]], least: int) -> None:
    suite = [text for text, _ in [*EDITED, *REORDERED, *RETOLD, *REWORDED]]
    found = sift([case(text) for _, text in pairs], labels=LABELS, train=[], held={"suite": suite})
    assert len(found.leaks) >= least
    assert all(leak.like in suite for leak in found.leaks)


def test_the_shipped_training_texts_share_nothing_with_the_shipped_suite() -> None:
    folder = resources.files("clozeline") / "suites"
    rows = [json.loads(line) for line in (folder / "sentiment-training.jsonl").read_text(encoding="utf-8").splitlines()]
    cases = [
        case(row["text"], row["label"], f"line {at}", row["capability"]) for at, row in enumerate(rows) if "text" in row
    ]
    suite = read_suite("sentiment")
    held = {f"suite {suite.name}": suite.texts()}
    found = sift(cases, labels=LABELS, train=[], held=held)
    assert len(cases) > 500
    assert found.rejected == ()
    copies = [dataclasses.replace(cases[0], text=text) for text in suite.texts()]
    copied = sift(copies, labels=LABELS, train=[], held=held, words=(1, 100))
    assert copied.kept == ()
    assert copied.counts["leak"] == len(copied.leaks) == len(copies)


# repeats


def test_training_texts() -> None:
    found = sifted(
        case(TRAIN[0].upper()), case("A warm and clever comedy about lighthouse keepers and a talkative parrot.")
    )
    assert [(one.reason, one.like) for one in found.rejected] == [
        ("training text", TRAIN[0]),
        ("near training text", TRAIN[1]),
    ]
    assert found.leaks == ()


def test_repeats_among_the_cases() -> None:
    first = "The umpire fell asleep in the second set, and I envied him."
    cases = [
        case(first, place="1"),
        case("the umpire fell asleep in the second set and I envied him!", "positive", place="2"),
        case("In the second set the umpire fell asleep; how I envied him.", place="3"),
        case("The umpire fell asleep in the second set, and I pitied him.", "positive", place="4"),  # turns the label
        case("In the second set the umpire fell asleep; how I envied him.", place="5"),
    ]
    found = sifted(*cases)
    assert [one.place for one in found.kept] == ["1", "4"]
    assert [(one.place, one.reason, one.like) for one in found.rejected] == [
        ("2", "duplicate", first),
        ("3", "near duplicate", first),
        ("5", "duplicate", cases[2].text),
    ]


def test_one_of_many_from_a_template_is_kept() -> None:
    texts = [
        f"The {number}th waiter at table nine spilled soup on my new and only silk shirt." for number in range(300)
    ]
    found = sifted(*map(case, texts))
    assert [one.text for one in found.kept] == texts[:1]
    assert found.counts["near duplicate"] == 299


# the label check


def test_the_judge_is_asked_last_and_once() -> None:
    texts = ["A joy from the first frame on.", "I would rather eat the ticket.", "Nobody in it can act at all."]
    asked: list[Sequence[str]] = []

    def judge(texts: Sequence[str]) -> list[str | None]:
        asked.append(texts)
        return ["negative", "positive", None]

    cases = [case(text, place=str(at)) for at, text in enumerate(texts)]
    found = sift([*cases, cases[0], case("Bad.")], labels=LABELS, train=[], held={}, judge=judge)
    assert asked == [texts]
    assert found.kept == (cases[0],)
    assert [(one.place, one.reason) for one in found.rejected] == [
        ("1", "label check"),
        ("2", "label check"),
        ("0", "duplicate"),
        ("here", "too short"),
    ]


def test_a_judge_with_nothing_to_judge_is_not_asked() -> None:
    def judge(texts: Sequence[str]) -> list[str | None]:
        raise AssertionError

    assert sift([], labels=LABELS, train=[], held={}, judge=judge).kept == ()


def test_wrong_use() -> None:
    some = [case("A joy from the first frame on.")]
    with pytest.raises(InputError, match="0 labels for 1 texts"):
        sift(some, labels=LABELS, train=[], held={}, judge=lambda texts: [])
    with pytest.raises(InputError, match="is no range"):
        sift(some, labels=LABELS, train=[], held={}, words=(5, 3))
    near = ["A joy from the very last picture."]
    with pytest.raises(InputError, match=r"embed gave an array \(3,\) for 2 texts"):
        sift(some, labels=LABELS, train=near, held={}, embed=lambda texts: np.ones(3))


# meaning


def test_vectors_find_what_words_do_not() -> None:
    held = "The kettle sings, pours without a drip and looks splendid on the stove."
    retold, other = "A splendid kettle: no drips, a merry whistle.", "No drips from the roof, and a splendid view."
    told: list[str] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        told.extend(texts)
        return np.array([[3.0, 0.0] if "kettle" in text else [0.0, 2.0] for text in texts])

    cases = [case(retold), case(other)]
    assert sift(cases, labels=LABELS, train=[], held={"test": [held]}).leaks == ()
    found = sift(cases, labels=LABELS, train=[], held={"test": [held]}, embed=embed)
    assert [(leak.text, leak.reason, leak.likeness) for leak in found.leaks] == [(retold, "near leak", 1.0)]
    assert len(told) == len(set(told)) <= 3
    assert sift(cases, labels=LABELS, train=[held], held={}, embed=embed).counts["near training text"] == 1
    among = sift([case(held), *cases], labels=LABELS, train=[], held={}, embed=embed)
    assert [(one.text, one.reason, one.like) for one in among.rejected] == [(retold, "near duplicate", held)]


# all together


def test_one_of_each_in_order() -> None:
    wrong = Rejected("A fine day out.", "label", "answer 1, case 2")
    cases: list[Candidate | Rejected] = [
        case("I never knew that a film about bees could sting so much."),
        case("I never knew a film about bees could sting so much."),
        case("I never knew that a film about bees could sting so much!"),
        case("A warm, clever comedy about a lighthouse keeper and a talkative parrot."),
        case(TRAIN[0]),
        case("The band had six members, and two of whom play the drums."),
        case(OTHER),
        case("What a treat it was.", "neutral"),
        case("word " * 80),
        case("Bad."),
        wrong,
        case("[insert]"),
        case("The label of this one is wrong, I say.", "positive"),
    ]
    found = sift(cases, labels=LABELS, train=TRAIN, held=HELD, judge=lambda texts: ["negative"] * len(texts))
    assert list(found.counts) == list(REASONS)
    assert set(found.counts.values()) == {1}
    assert found.kept == (cases[0],)
    assert [one.text for one in found.rejected] == [one.text for one in cases[1:]]
    assert wrong in found.rejected
    assert json.loads(json.dumps(found.as_dict()))["rejected"] == found.counts
    lines = str(found).splitlines()
    assert lines[0] == "13 cases: 1 kept, 12 rejected"
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in lines[1:13]] == list(REASONS)


@pytest.mark.parametrize("seed", range(40))
def test_every_case_is_kept_or_rejected_once(seed: int) -> None:
    chance = random.Random(seed)
    signs = "The a film soup was not bad dull good , . ! {x} \x00 😀 NOT Films"
    pool = [*TRAIN, *HELD["suite sentiment"], *signs.split(" ")]

    def some() -> Candidate | Rejected:
        text = " ".join(chance.choices(pool, k=chance.randrange(12)))
        if chance.random() < 0.1:
            return Rejected(text, "malformed", str(chance.random()))
        return case(text, chance.choice([*LABELS, "other"]), str(chance.random()))

    cases = [some() for _ in range(chance.randrange(60))]
    judged = chance.random() < 0.5
    found = sift(
        iter(cases),
        labels=LABELS,
        train=TRAIN,
        held=HELD,
        judge=(lambda texts: [chance.choice([*LABELS, None]) for _ in texts]) if judged else None,
        embed=(lambda texts: np.array([[len(text), 9.0] for text in texts])) if chance.random() < 0.5 else None,
    )
    kept, rejected = [one.place for one in found.kept], [one.place for one in found.rejected]
    order = [one.place for one in cases]
    assert Counter(kept + rejected) == Counter(order)
    assert [kept, rejected] == [sorted(kept, key=order.index), sorted(rejected, key=order.index)]
    assert set(found.kept) <= set(cases)
    assert sum(found.counts.values()) == len(found.rejected)
    assert Counter(one.reason for one in found.rejected) == {name: n for name, n in found.counts.items() if n}
    assert all(isinstance(one, Leak) == one.reason.endswith("leak") for one in found.rejected)
    assert str(found)


def test_the_same_cases_give_the_same_answer() -> None:
    cases = [case(text) for pair in EDITED + REWORDED for text in pair]
    assert sifted(*cases) == sifted(*cases)
