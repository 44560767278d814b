"""What a reader of single words sees in texts: words that negate or contrast, and a naive Bayes classifier of keywords.

A text that the keywords get wrong is one that has to be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from clozeline.data.shingles import words

NEGATION = (
    "not", "n't", "cannot", "no", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor", "without", "hardly",
    "scarcely", "barely", "rarely", "seldom", "dont", "doesnt", "didnt", "isnt", "wasnt", "arent", "werent", "couldnt",
    "wouldnt", "shouldnt", "hasnt", "havent", "hadnt",
)  # fmt: skip
"""English words that turn what they stand with around; "n't" is found inside words, and apart as in SST-2."""
CONTRAST = (
    "but", "although", "though", "however", "yet", "despite", "in spite of", "nevertheless", "nonetheless", "whereas",
    "albeit", "even so", "then again", "on the other hand", "notwithstanding",
)  # fmt: skip
"""English words by which a text turns from one judgement to another."""


def having(texts: Sequence[str], listed: Sequence[str]) -> np.ndarray:
    """(n,) which texts have one of the listed words or phrases, whole, in whatever case."""
    ends = [("" if word == "n't" else r"(?<!\w)") + re.escape(word).replace(r"\ ", r"\s+") for word in listed]
    pattern = re.compile(f"(?:{'|'.join(ends)})" + r"(?!\w)", re.IGNORECASE)
    return np.array([pattern.search(text.replace("’", "'")) is not None for text in texts], dtype=bool)


class Keywords(NamedTuple):
    """The different words of n texts, H in all.

    word_H, text_H: the number of each, below `many`, and the text it stands in; same: (n,) a number that texts share whose
    words are the same in the same order.
    """

    word_H: np.ndarray
    text_H: np.ndarray
    many: int
    same: np.ndarray


def keywords(texts: Iterable[Sequence[str]]) -> Keywords:
    """texts: each the parts of one, a text or a pair; a word of the second part is another than that of the first.

    Case, punctuation and spacing do not count, as in the check for repeated texts before a training.
    """
    numbers: dict[tuple[int, str], int] = {}
    seen: dict[bytes, int] = {}
    own, same = [], []
    for text in texts:
        found = [
            numbers.setdefault((part, word), len(numbers)) for part, said in enumerate(text) for word in words(said)
        ]
        in_order = np.array(found, dtype=np.int64)
        same.append(seen.setdefault(in_order.tobytes(), len(seen)))
        own.append(np.unique(in_order))
    text_H = np.repeat(np.arange(len(own)), [len(found) for found in own])
    return Keywords(np.concatenate(own), text_H, len(numbers), np.array(same))


def dealt(same: np.ndarray, classes: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """(n,) the fold, from 0, of each text: like shares of each class, and texts with the same words in one.

    same: (n,) as in `Keywords`; classes: (n,).
    """
    first = np.unique(same, return_index=True)[1]
    mixed = np.random.default_rng(seed).permutation(len(first))
    order = mixed[np.argsort(classes[first[mixed]], kind="stable")]  # the texts of each class in turn
    found = np.empty(len(first), dtype=np.int64)
    found[order] = np.arange(len(first)) % folds
    return found[same]


def keyword_classes(found: Keywords, classes: np.ndarray, size: int, fold: np.ndarray) -> np.ndarray:
    """(n,) the class of each text, of `size`, as told by its words alone, learned from the texts of the other folds.

    Multinomial naive Bayes with one added to each count, a word counting once a text however often it stands there, which
    for two classes is a linear classifier by log-odds (Wang and Manning 2012). Words never seen say nothing.

    classes, fold: (n,).
    """
    texts = len(classes)
    guessed = np.zeros(texts, dtype=np.int64)
    for at in np.unique(fold):
        learned_H, tested = fold[found.text_H] != at, fold == at
        cells = found.word_H[learned_H] * size + classes[found.text_H[learned_H]]
        counts_WC = np.bincount(cells, minlength=found.many * size).reshape(-1, size)
        odds_WC = np.log(counts_WC + 1) - np.log(counts_WC.sum(0) + max(1, found.many))
        odds_WC[counts_WC.sum(1) == 0] = 0
        prior_C = np.log(np.bincount(classes[~tested], minlength=size) + 1)
        asked, where = found.word_H[~learned_H], found.text_H[~learned_H]
        sums = [np.bincount(where, odds_WC[asked, label], minlength=texts) for label in range(size)]
        guessed[tested] = (np.stack(sums, 1)[tested] + prior_C).argmax(1)
    return guessed
