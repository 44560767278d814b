"""Token classification: a tag for each word of a text, and the entities that the tags stand for.

Data: CoNLL columns; rows of words and tags; or texts with spans of characters. See `data/tagged.py`.

    Ada B-person          {"text": "Ada Lovelace wrote", "spans": [{"start": 0, "end": 12, "label": "person"}]}
    Lovelace I-person
    wrote O

Every piece of a word is trained on; a word's tag is read off its first piece. Texts longer than the model are read in
overlapping windows, and each word in the window where it has most text around it, in training as in prediction.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from clozeline.data import checks, tagged, tags
from clozeline.data.checks import Item
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import Columns
from clozeline.data.tagged import TaggedText
from clozeline.errors import InputError, nearest
from clozeline.evaluate import entities
from clozeline.evaluate.calibration import cross_entropy, softmax
from clozeline.evaluate.intervals import Counted
from clozeline.tasks import supervised
from clozeline.tasks.supervised import IGNORED, Check, Supervised
from clozeline.tokenizer import LongText, Tokenizer

log = logging.getLogger("clozeline")


@dataclass(frozen=True, slots=True)
class Entity:
    """text: what stands at [start, end) of the characters of the text; score: the mean probability of its words' tags."""

    text: str
    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Tagging:
    """entities: in the order of the text; words: [start, end) of each word; tags: of each word, as the scheme allows them.

    tokens: content tokens of the text; truncated: how many of them the model did not see; words there have the tag O.
    """

    entities: tuple[Entity, ...]
    words: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    tokens: int
    truncated: int

    def rows(self) -> list[tuple[str, ...]]:
        """The entities as columns of text."""
        return [(one.label, f"{one.score:.4f}", str(one.start), str(one.end), one.text) for one in self.entities]


@dataclass(frozen=True)
class TokenClassification(Supervised):
    """What to learn from tagged words.

    Args:
        labels: the tags in the order of the model's outputs. Empty: those of the checkpoint, or of the training data.
        long: what happens to a text longer than the model: "window" reads everything.
        max_length: tokens a sequence may have; None is what the model reads at once.
        scheme: how entities are written as tags, "BIO", "BIOES", "IO", or "plain" for tags of single words; None is as the
            training data has them.

    Raises:
        InputError: labels that repeat, or no such scheme.
    """

    labels: Sequence[str] = ()
    long: LongText = "window"
    max_length: int | None = None
    scheme: tags.Scheme | None = None
    name: ClassVar[str] = "token-classification"
    head: ClassVar[str] = "token_classification"
    metrics: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall")
    per_token: ClassVar[bool] = True
    windows_apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", supervised.check_names(self.labels))
        if self.scheme not in (None, "BIO", "BIOES", "IO", "plain"):
            raise InputError(f"scheme is {self.scheme!r}: {nearest(str(self.scheme), ('BIO', 'BIOES', 'IO', 'plain'))}")
        if self.labels and self.scheme is None:
            object.__setattr__(self, "scheme", tags.scheme_of(self.labels))

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.labels)

    def with_outputs(self, names: Iterable[str]) -> Self:
        return replace(self, labels=tuple(names))

    def settled(self, examples: Sequence[TaggedText], source: str, columns: Columns) -> Self:
        if self.labels:
            return self
        used = {tag for example in examples for tag in example.tags or ()}
        scheme = self.scheme or tags.scheme_of(used)
        slip = tags.odd(used)
        if scheme != "plain" and slip is None and tags.scheme_of(used) == "plain":
            slip = (min(used - {"O"}), f"B-{min(used - {'O'})}")
        if slip and self.scheme != "plain":
            place = next(each.place for each in examples if slip[0] in (each.tags or ()))
            raise InputError(
                f"{place}: the tag {slip[0]!r} is not written like {slip[1]!r}. Correct it, or give "
                'TokenClassification(scheme="plain") where tags are of single words.'
            )
        kinds = used if scheme == "plain" else {tag.partition("-")[2] for tag in used} - {""}
        if not kinds - {"O"}:
            raise InputError(f"{source} has no tag but O, so there is nothing to learn.")
        return replace(self, labels=tags.outputs(kinds, scheme), scheme=scheme)

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        scheme = supervised.ours(raw).get("scheme")
        return cls(supervised.output_names(raw), **supervised.policy(raw, "window"), scheme=scheme)

    def raw(self) -> dict[str, Any]:
        return {**supervised.output_raw(self.outputs), "clozeline": self.kept() | {"scheme": self.scheme}}

    def example(self, text: Any, other: Any, place: str) -> TaggedText:
        if other is not None:
            raise InputError(f"{place} has a second text; tags are of one text.")
        if isinstance(text, str):
            return tagged.of_text(text, place)
        if not isinstance(text, list | tuple) or not all(isinstance(word, str) and word.strip() for word in text):
            raise InputError(f"{place} is {text!r:.40}; give a text, or a list of its words.")
        return tagged.of_words(text, None, place)

    def read(self, source: str | Path, split: str, columns: Columns) -> list[TaggedText]:
        return tagged.read(source, split, columns)

    # -- examples to batches

    def samples(self, tokenizer: Tokenizer, examples: Sequence[TaggedText], *, targets: bool = True) -> Samples:
        """Targets: (T,) int64, the tag of every piece of a word, `IGNORED` elsewhere."""
        texts = [example.text for example in examples]
        places = [example.place for example in examples]
        found = Samples.tokenise(
            tokenizer, texts, long=self.long, max_length=self.max_length, offsets=True, places=places
        )
        found = replace(found, examples=examples)
        if not targets:
            return found
        self._check_types(examples)
        if uneven := [example for example in examples if example.uneven]:
            log.warning(
                "%d spans begin or end inside a word, the first in %s. The whole word is learned; in scores no prediction "
                "is right there, for the data's own characters count.",
                sum(len(each.uneven) for each in uneven),
                uneven[0].place,
            )
        chosen, inexact = np.full(len(found.ids), IGNORED, dtype=np.int64), []
        for at, example in enumerate(examples):
            rows = _first_pieces(found, at, example)
            tag_of, exact = self._tags_of_rows(example, rows, bool(found.cut[at]))
            self._lay_targets(chosen, found, at, rows, tag_of)
            inexact += [] if exact else [example.place]
        if inexact:
            log.warning(
                "%d texts have entities that begin or end inside a token, or with characters that the tokenizer drops; "
                "whole tokens are learned. The first: %s.",
                len(inexact),
                inexact[0],
            )
        return replace(found, targets=chosen, targets_of="token")

    def _check_types(self, examples: Sequence[TaggedText]) -> None:
        known = {self._kind(label) for label in self.labels}
        for example in examples:
            assert example.tags is not None
            for (start, end), tag in zip(example.words, example.tags, strict=True):
                if self._kind(tag) not in known:
                    word = example.text[start:end]
                    raise InputError(
                        f"{example.place}: the word {word!r:.40} has the unknown tag {tag!r}; {nearest(tag, self.outputs)}"
                    )

    def _kind(self, tag: str) -> str:
        return tag if self.scheme == "plain" or tag == "O" else tag.partition("-")[2]

    def _number(self, tag: str) -> int:
        """The output for a tag. A checkpoint may write BIOES as BILOU, or lack a prefix that its data did not have."""
        prefix, _, kind = tag.partition("-")
        others = {"S": "SUBI", "E": "ELI", "B": "BSUI", "I": "IBEL"}.get(prefix, "") if self.scheme != "plain" else ""
        there = next((name for name in (tag, *(f"{other}-{kind}" for other in others)) if name in self.labels), None)
        if there is None:
            there = next(label for label in self.labels if self._kind(label) == self._kind(tag))
        return self.labels.index(there)

    def _tags_of_rows(self, example: TaggedText, rows: np.ndarray, cut: bool) -> tuple[dict[int, str], bool]:
        """The tag to learn of each word's first piece by its row, and whether reading them gives all entities again."""
        assert example.tags is not None and self.scheme is not None
        if self.scheme == "plain":
            pairs = reversed([*zip(rows.tolist(), example.tags, strict=True)])  # of words in one piece, the first
            return {row: tag for row, tag in pairs if row >= 0}, True
        units = _units(rows, cut)
        found, exact = ["O"] * len(units), True
        firsts, afters = [unit.first for unit in units], [unit.after for unit in units]
        free = 0
        for start, end, kind in tags.spans(example.tags):
            inside = range(np.searchsorted(afters, start, side="right"), np.searchsorted(firsts, end, side="left"))
            mine = [at for at in inside if at >= free and units[at].row >= 0]
            if mine:
                free = mine[-1] + 1
                for at, tag in zip(mine, tags.written(len(mine), [(0, len(mine), kind)], self.scheme), strict=True):
                    found[at] = tag
            exact &= cut or (bool(mine) and (firsts[mine[0]], afters[mine[-1]]) == (start, end))
        return {unit.row: tag for unit, tag in zip(units, found, strict=True) if unit.row >= 0}, exact

    def _lay_targets(
        self, targets: np.ndarray, samples: Samples, at: int, rows: np.ndarray, tag_of: Mapping[int, str]
    ) -> None:
        """Write the tags of one example's pieces into (T,) targets."""
        assert samples.offsets is not None
        words = _spans(samples.examples[at])
        for window in range(samples.first[at], samples.first[at + 1]):
            first, after = samples.bounds[window], samples.bounds[window + 1]
            content, pieces, word = _words_of_pieces(samples, window, words)
            here = (rows[word] >= first) & (rows[word] < after)
            pieces, word = pieces[here], word[here]
            last = np.r_[word[1:] != word[:-1], np.ones(min(1, len(word)), bool)]
            # at the edge of a window a word may go on
            ends = last & ((pieces != content[-1:]) | (samples.offsets[pieces, 1] >= words[word, 1]))
            for piece, row, is_last in zip(pieces.tolist(), rows[word].tolist(), ends.tolist(), strict=True):
                tag = tag_of[row]
                if self.scheme != "plain" and tag != "O":
                    begins, closes = tag[0] in "BS" and piece == row, tag[0] in "ES" and is_last
                    prefix = "S" if begins and closes else "B" if begins else "E" if closes else "I"
                    tag = f"{prefix}-{tag[2:]}"
                targets[piece] = self._number(tag)

    # -- network to results

    def loss(self, logits: Tensor, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the pieces that have a tag; the weight is their number."""
        targets = batch.targets
        assert targets is not None
        total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        return total, (targets != IGNORED).sum().float()

    def check(self, logits: np.ndarray, samples: Samples) -> Check:
        assert samples.targets is not None
        real = samples.targets != IGNORED
        gold, found = self._both(logits, samples)
        counts = Counter(kind for each in found for *_, kind in tags.spans(each))
        words = sum(map(len, found)) - sum(counts.values())
        predicted = dict(counts) | ({"O": words} if "O" in self.labels else {})
        loss = cross_entropy(logits[real], samples.targets[real])
        none = "O" in self.labels and not counts and any(tags.spans(each) for each in gold)
        return Check(loss, entities.measures(gold, found), predicted, "nothing but O" if none else None)

    def decode(self, logits: np.ndarray, samples: Samples) -> list[Tagging]:
        return [self._tagging(logits, samples, at) for at in range(len(samples))]

    def _tagging(self, logits: np.ndarray, samples: Samples, at: int) -> Tagging:
        example: TaggedText = samples.examples[at]
        text, words = example.text, example.words
        rows = _first_pieces(samples, at, example)
        units = [_Unit(word, word + 1, row) for word, row in enumerate(rows.tolist())]
        if self.scheme != "plain":
            units = _units(rows, bool(samples.cut[at]))
        scores = softmax(logits[[unit.row for unit in units]]) if units else np.zeros((0, len(self.labels)))
        best, sure = scores.argmax(1).tolist(), scores.max(1, initial=0)
        guessed = ["O" if unit.row < 0 else self.labels[tag] for unit, tag in zip(units, best, strict=True)]
        spans = [
            (units[first].first, units[after - 1].after, kind, float(sure[first:after].mean()))
            for first, after, kind in tags.spans(self._whole(guessed))
        ]
        found = [
            Entity(text[words[first][0] : words[after - 1][1]], kind, words[first][0], words[after - 1][1], score)
            for first, after, kind, score in spans
        ]
        legal = guessed
        if self.scheme != "plain":
            assert self.scheme is not None
            legal = tags.written(len(words), [span[:3] for span in spans], self.scheme)
            bilou = any(label[:2] in ("U-", "L-") for label in self.labels)
            legal = [{"S": "U", "E": "L"}.get(tag[0], tag[0]) + tag[1:] for tag in legal] if bilou else legal
        return Tagging(tuple(found), words, tuple(legal), int(samples.tokens[at]), int(samples.cut[at]))

    def report(self, logits: np.ndarray, samples: Samples) -> entities.EntityReport:
        return entities.report(*self._both(logits, samples), cut=samples.cut, windows=samples.windows)

    def counted(self, logits: np.ndarray, samples: Samples, metric: str | None = None) -> Counted:
        return entities.counted(*self._both(logits, samples), metric or "f1")

    def item(self, example: TaggedText) -> Item:
        """The label is the tags of the words; a sign may be missing in a text that says the same."""
        spans = zip(example.words, example.tags or (), strict=True)
        tagging = [tag for (start, end), tag in spans if any(map(str.isalnum, example.text[start:end]))]
        return Item(example.text, tuple(tagging), example.place)

    def lacks(self, train: Samples, validation: Samples | None) -> list[str]:
        counts = dict.fromkeys(sorted({self._kind(label) for label in self.labels} - {"O"}), 0) | self.counts(train)
        what, advice = ("words", "accuracy") if self.scheme == "plain" else ("entities", "the F1 of all")
        said = checks.rare(counts, f"{what} in training", f"find more of it, and see its own F1, which {advice} hides")
        return said + supervised.missing(counts, None if validation is None else self.counts(validation))

    def counts(self, samples: Samples) -> dict[str, int]:
        found = Counter(kind for example in samples.examples for *_, kind in tags.spans(self._whole(example.tags)))
        return {kind: found[kind] for kind in sorted(found)}

    def _both(self, logits: np.ndarray, samples: Samples) -> tuple[list[list[str]], list[list[str]]]:
        """The gold tags and the predicted ones, of the words of each example.

        An entity whose span in the data is not of whole words stands behind the text, where nothing is predicted.
        """
        found = [self._whole(each.tags) for each in self.decode(logits, samples)]
        gold = [self._whole(example.tags) for example in samples.examples]
        for example, true, guessed in zip(samples.examples, gold, found, strict=True):
            for first, after, _ in example.uneven:
                true += true[first:after]
                true[first:after] = ["O"] * (after - first)
                guessed += ["O"] * (after - first)
        return gold, found

    def _whole(self, given: Sequence[str]) -> list[str]:
        assert self.scheme is not None
        return tags.whole(given, self.scheme)


class _Unit(NamedTuple):
    """Words [first, after) that are read off one row of the logits; row: -1 where the model did not see them."""

    first: int
    after: int
    row: int


def _units(rows: np.ndarray, cut: bool) -> list[_Unit]:
    """Words by the row that they are read off. What the tokenizer drops is in none, and so parts no entity."""
    units: list[_Unit] = []
    for word, row in enumerate(rows.tolist()):
        if row < 0 and not cut:
            continue
        joined = units and units[-1].row == row >= 0
        units.append(_Unit(units.pop().first if joined else word, word + 1, row))
    return units


def _spans(example: TaggedText) -> np.ndarray:
    return np.asarray(example.words, dtype=np.int64).reshape(-1, 2)


def _words_of_pieces(samples: Samples, window: int, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of a window's content tokens; those of them that show a word, and which one: the first they overlap."""
    assert samples.offsets is not None and samples.source is not None
    begins, after = samples.bounds[window], samples.bounds[window + 1]
    rows = np.flatnonzero(samples.source[begins:after] == 0) + begins
    starts, ends = samples.offsets[rows, 0], samples.offsets[rows, 1]
    word = np.searchsorted(words[:, 1], starts, side="right")
    shown = word < len(words)
    shown[shown] = words[word[shown], 0] < ends[shown]
    return rows, rows[shown], word[shown]


def _first_pieces(samples: Samples, at: int, example: TaggedText) -> np.ndarray:
    """(words,) the row of each word's first piece, in the window with most text around it; -1 where no window shows it.

    A word that has no piece of its own, such as the second full stop of "...", has that of the word it shares one with.
    """
    assert samples.offsets is not None
    words = _spans(example)
    best, room = np.full(len(words), -1), np.full(len(words), -1)
    shared: dict[int, int] = {}
    for window in range(samples.first[at], samples.first[at + 1]):
        content, pieces, word = _words_of_pieces(samples, window, words)
        new, first = np.unique(word, return_index=True)
        rows = pieces[first]
        around = np.minimum(rows - content[:1], content[-1:] - rows)
        better = around > room[new]  # not as much: at a window's beginning the word may have begun in the one before
        best[new[better]], room[new[better]] = rows[better], around[better]
        last = np.searchsorted(words[:, 0], samples.offsets[pieces, 1], side="left") - 1
        for several in np.flatnonzero(last > word).tolist():
            shared |= dict.fromkeys(range(word[several] + 1, last[several] + 1), int(word[several]))
    for other, owner in sorted(shared.items()):
        if best[other] < 0:
            best[other] = best[owner]
    return best
