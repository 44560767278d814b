"""Examples out of documents: nothing is lost, pairs are labelled rightly, and every pass is found again."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from clozeline.data.documents import UNKNOWN, Examples, Segments
from clozeline.errors import InputError


class Held:
    """Shards in memory: documents as lists of sentences of so many tokens, in sections of at most `section` tokens."""

    def __init__(self, documents: Sequence[Sequence[int]], section: int = 400) -> None:
        self.ends = np.cumsum([0, *(length for document in documents for length in document)])
        self.tokens, self.documents = int(self.ends[-1]), len(documents)
        self.of_document = np.cumsum([0, *map(len, documents)])
        self.parts: list[tuple[int, int]] = []
        self.owner: list[int] = []
        for number, (first, last) in enumerate(zip(self.of_document[:-1], self.of_document[1:], strict=True)):
            begin = first
            for at in range(first, last):
                if self.ends[at + 1] - self.ends[begin] > section and at > begin:
                    self.parts.append((int(begin), at))
                    begin = at
                    self.owner.append(number)
            self.parts.append((int(begin), int(last)))
            self.owner.append(number)
        self.sections = len(self.parts)

    def section_sentences(self, section: int) -> tuple[int, int]:
        return self.parts[section]

    def document_of(self, section: int) -> int:
        return self.owner[section]

    def document_sentences(self, document: int) -> tuple[int, int]:
        return int(self.of_document[document]), int(self.of_document[document + 1])

    def bounds(self, first: int, last: int) -> np.ndarray:
        return self.ends[first : last + 1]

    def document_at(self, token: int) -> int:
        sentence = int(np.searchsorted(self.ends, token, "right")) - 1
        return int(np.searchsorted(self.of_document, sentence, "right")) - 1


def corpus(documents: int = 60, seed: int = 0, longest: int = 40) -> Held:
    draw = random.Random(seed)
    return Held([[draw.randint(1, longest) for _ in range(draw.randint(1, 60))] for _ in range(documents)])


def everything(segments: Segments, room: tuple[int, int], passed: int = 0) -> Examples:
    pools = [segments.pool(passed, number, room) for number in range(segments.pools)]
    names = ("spans", "labels", "keys", "cut")
    return Examples(*(np.concatenate([getattr(pool, name) for pool in pools]) for name in names))


def made(held: Held, pairs: str | None, **how: object) -> Segments:
    return Segments(held, pairs, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("short", [0.0, 0.1, 1.0])
def test_single_segments_hold_every_token_once_and_end_with_sentences(short: float) -> None:
    held = corpus(longest=90)
    found = everything(made(held, None, short=short), (62, 61))
    begins, ends = found.spans[:, 0], found.spans[:, 1]
    seen = np.concatenate([np.arange(begin, end) for begin, end in zip(begins, ends, strict=True)])
    assert (np.sort(seen) == np.arange(held.tokens)).all() and found.cut.sum() == 0
    assert (found.tokens <= 62).all() and (found.tokens > 0).all()
    assert (found.labels == UNKNOWN).all()
    at_sentence = np.isin(ends, held.ends)
    assert at_sentence[ends - begins < 20].all() or short
    assert all(held.document_at(b) == held.document_at(e - 1) for b, e in zip(begins, ends, strict=True))
    if short == 0:
        assert found.tokens.mean() > 35


@pytest.mark.parametrize("pairs", ["next", "order"])
def test_the_labels_of_pairs_are_right_by_the_documents(pairs: str) -> None:
    held = corpus(200)
    found = everything(made(held, pairs), (126, 125))
    assert (found.tokens <= np.where(found.labels == UNKNOWN, 126, 125)).all()
    counts = {label: int((found.labels == label).sum()) for label in (0, 1, UNKNOWN)}
    assert counts[0] > 100 and counts[1] > 100
    for (begin, end, other, last), label in zip(found.spans.tolist(), found.labels.tolist(), strict=True):
        assert begin < end
        documents = held.document_at(begin), held.document_at(end - 1)
        assert documents[0] == documents[1]
        if label == UNKNOWN:
            assert other == last and pairs == "order"
            continue
        assert other < last
        theirs = held.document_at(other), held.document_at(last - 1)
        assert theirs[0] == theirs[1]
        if label == 0:
            assert theirs == documents and end <= other
            gap = other - end  # what was cut from the end of the first or the beginning of the second
            assert gap == 0 or end - begin + last - other == 125
        elif pairs == "next":
            assert theirs != documents
        else:
            assert theirs == documents and last <= begin
    if pairs == "next":
        assert counts[UNKNOWN] == 0
        assert 0.45 < counts[1] / len(found) < 0.75, "half of the pairs, and all sections' ends of one sentence"
    else:
        assert 0.4 < counts[1] / (counts[0] + counts[1]) < 0.6


def test_one_in_ten_sections_has_shorter_examples() -> None:
    held = Held([[5] * 70] * 400)
    long, short = (everything(made(held, None, short=share), (100, 99)) for share in (0.0, 0.1))
    usual = (long.tokens == 100).mean()
    assert usual > 0.6 and 0.8 * usual < (short.tokens == 100).mean() * len(short) / len(long) < 0.97 * usual


def test_every_token_is_in_some_pair_or_counted_as_cut() -> None:
    held = corpus(80)
    found = everything(made(held, "order"), (126, 125))
    assert int(found.tokens.sum()) + int(found.cut.sum()) == held.tokens


def test_a_giant_sentence_is_divided_and_not_cut_away() -> None:
    held = Held([[5000], [7, 8, 9], [3]], section=6000)
    found = everything(made(held, "order", short=0.0), (126, 125))
    assert int(found.tokens.sum()) + int(found.cut.sum()) == held.tokens
    assert found.cut.sum() < 300


def test_a_pass_is_the_same_when_it_is_asked_for_again_and_another_one_is_not() -> None:
    held = corpus()
    segments = made(held, "next", seed=5)
    first, again, second = (everything(segments, (62, 61), passed) for passed in (0, 0, 1))
    assert (first.spans == again.spans).all() and (first.keys == again.keys).all()
    assert len(first) != len(second) or (first.spans != second.spans).any()


def test_static_copies_repeat_their_examples_and_masks_in_another_order() -> None:
    held = corpus()
    static, dynamic = made(held, "next", copies=1), made(held, "next", copies=0)
    keys = [np.sort(everything(static, (62, 61), passed).keys) for passed in range(3)]
    assert (keys[0] == keys[1]).all() and (keys[0] == keys[2]).all()
    one, two = (everything(static, (62, 61), passed).keys for passed in (0, 1))
    assert (one != two).any(), "the order is another"
    others = [np.sort(everything(dynamic, (62, 61), passed).keys) for passed in range(2)]
    assert len(others[0]) != len(others[1]) or (others[0] != others[1]).any()
    ten = [np.sort(everything(made(held, None, copies=2), (62, 61), passed).keys) for passed in range(4)]
    assert (ten[0] == ten[2]).all() and (ten[1] == ten[3]).all() and set(ten[0]) != set(ten[1])


def test_different_examples_have_different_keys() -> None:
    found = everything(made(corpus(200), "order"), (126, 125))
    assert len(np.unique(found.keys)) == len(found)


def test_next_sentences_need_two_documents() -> None:
    with pytest.raises(InputError, match="at least two documents"):
        made(Held([[4, 5, 6]]), "next")
