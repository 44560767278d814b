"""Token classification: a tag for each word of a text, and the entities that the tags stand for.

Data: CoNLL columns; rows of words and tags; or texts with spans of characters. See `data/tagged.py`.

    Ada B-person          {"text": "Ada Lovelace wrote", "spans": [{"start": 0, "end": 12, "label": "person"}]}
    Lovelace I-person
    wrote O

Every piece of a word is trained on; a word's tag is read off its first piece. Texts longer than the model are read in
overlapping windows, and each word in the window where it has most text around it, in training as in prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from clozeline.data import tagged, tags
from clozeline.data.checks import Item
from clozeline.data.packing import Batch, Samples
from clozeline.data.readers import Columns
from clozeline.data.tagged import TaggedText
from clozeline.errors import InputError, nearest
from clozeline.evaluate import entities
from clozeline.evaluate.intervals import Counted
from clozeline.tasks import supervised
from clozeline.tasks.supervised import Check, Supervised, cross_entropy, softmax
from clozeline.tokenizer import LongText, Tokenizer

IGNORED = -100
"""The target of a token that is not learned from: a special token, or one that another window shows better."""


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
        kinds = used if scheme == "plain" else {tag.partition("-")[2] for tag in used} - {""}
        if not kinds - {"O"}:
            raise InputError(f"{source} has no tag but O, so there is nothing to learn.")
        return replace(self, labels=tags.outputs(kinds, scheme), scheme=scheme)

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Self:
        return cls(supervised.output_names(raw), **supervised.policy(raw, "window"))

    def raw(self) -> dict[str, Any]:
        return {**supervised.output_raw(self.outputs), "clozeline": self.kept()}

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
        found = Samples.tokenise(tokenizer, texts, long=self.long, max_length=self.max_length, offsets=True)
        found = replace(found, examples=examples)
        if not targets:
            return found
        self._check_types(examples)
        chosen = np.full(len(found.ids), IGNORED, dtype=np.int64)
        for at, example in enumerate(examples):
            if example.words:
                self._lay_targets(chosen, found, at, example)
        return replace(found, targets=chosen, targets_of="token")

    def _check_types(self, examples: Sequence[TaggedText]) -> None:
        known = {self._kind(label) for label in self.labels} | {"O"}
        for example in examples:
            for (start, end), tag in zip(example.words, example.tags or (), strict=True):
                if self._kind(tag) not in known:
                    word = example.text[start:end]
                    raise InputError(
                        f"{example.place}: the word {word!r:.40} has the unknown tag {tag!r}; "
                        + nearest(tag, [*self.labels, *([] if "O" in self.labels else ["O"])])
                    )

    def _kind(self, tag: str) -> str:
        return tag if self.scheme == "plain" or tag == "O" else tag.partition("-")[2]

    def _lay_targets(self, targets: np.ndarray, samples: Samples, at: int, example: TaggedText) -> None:
        """Write the tags of one example's pieces into (T,) targets."""
        assert example.tags is not None and samples.offsets is not None
        words, rows = np.asarray(example.words), _first_pieces(samples, at, example)
        outputs = {label: number for number, label in enumerate(self.labels)}
        wanted = self._word_tags(example.tags)  # of words; their pieces follow
        begins = np.asarray([tag[:2] in ("B-", "S-") for tag in wanted])
        ends = np.asarray([tag[:2] in ("E-", "S-") for tag in wanted])
        for window in range(samples.first[at], samples.first[at + 1]):
            first, after = samples.bounds[window], samples.bounds[window + 1]
            pieces, word = _words_of_pieces(samples, slice(first, after), words)
            here = (rows[word] >= first) & (rows[word] < after)
            pieces, word = pieces[here], word[here]
            if not len(pieces):
                continue
            opens = np.r_[True, word[1:] != word[:-1]] & (samples.offsets[pieces, 0] <= words[word, 0])
            closes = np.r_[word[1:] != word[:-1], True] & (samples.offsets[pieces, 1] >= words[word, 1])
            for piece, number, is_first, is_last in zip(pieces, word, opens, closes, strict=True):
                tag = wanted[number]
                if self.scheme != "plain" and tag != "O":
                    first_of, last_of = begins[number] and is_first, ends[number] and is_last
                    prefix = "S" if first_of and last_of else "B" if first_of else "E" if last_of else "I"
                    tag = f"{prefix}-{tag[2:]}"
                targets[piece] = outputs[tag]

    def _word_tags(self, given: Sequence[str]) -> list[str]:
        """Tags of words, in whatever scheme they came, in the scheme of the model."""
        assert self.scheme is not None
        return list(given) if self.scheme == "plain" else tags.written(len(given), tags.spans(given), self.scheme)

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
        return Check(loss, entities.measures(gold, found), predicted)

    def decode(self, logits: np.ndarray, samples: Samples) -> list[Tagging]:
        return [self._tagging(logits, samples, at) for at in range(len(samples))]

    def _tagging(self, logits: np.ndarray, samples: Samples, at: int) -> Tagging:
        example: TaggedText = samples.examples[at]
        text, words, plain = example.text, example.words, self.scheme == "plain"
        rows = _first_pieces(samples, at, example)
        scores = softmax(logits[rows]) if len(rows) else np.zeros((0, len(self.labels)))
        best = scores.argmax(1)
        guessed = ["O" if row < 0 else self.labels[tag] for row, tag in zip(rows.tolist(), best.tolist(), strict=True)]
        sure = scores.max(1, initial=0)
        spans = tags.spans([f"S-{tag}" if tag != "O" else tag for tag in guessed] if plain else guessed)
        found = []
        for first, after, label in spans:
            start, end = words[first][0], words[after - 1][1]
            found.append(Entity(text[start:end], label, start, end, float(sure[first:after].mean())))
        assert self.scheme is not None
        legal = guessed if plain else tags.written(len(words), spans, self.scheme)
        return Tagging(tuple(found), words, tuple(legal), int(samples.tokens[at]), int(samples.cut[at]))

    def report(self, logits: np.ndarray, samples: Samples) -> entities.EntityReport:
        return entities.report(*self._both(logits, samples))

    def counted(self, logits: np.ndarray, samples: Samples) -> Counted:
        return entities.counted(*self._both(logits, samples))

    def item(self, example: TaggedText) -> Item:
        return Item(example.text, None, example.place)

    def notes(self, train: Sequence[TaggedText], validation: Sequence[TaggedText]) -> list[str]:
        uneven = [example for example in train if example.uneven]
        odd = [
            f"training: {sum(example.uneven for example in uneven)} spans begin or end inside a word, the first in "
            f"{uneven[0].place}; the whole word is learned."
        ]
        return [*(odd if uneven else []), *super().notes(train, validation)]

    def counts(self, samples: Samples) -> dict[str, int]:
        found = Counter(kind for example in samples.examples for *_, kind in tags.spans(self._whole(example.tags)))
        return {kind: found[kind] for kind in sorted(found)}

    def _both(self, logits: np.ndarray, samples: Samples) -> tuple[list[list[str]], list[list[str]]]:
        """The gold tags and the predicted ones, of the words of each example."""
        found = [self._whole(each.tags) for each in self.decode(logits, samples)]
        return [self._whole(example.tags) for example in samples.examples], found

    def _whole(self, given: Sequence[str]) -> list[str]:
        """Tags from which entities can be read: a plain tag marks one word."""
        return [f"S-{tag}" for tag in given] if self.scheme == "plain" else list(given)


def _words_of_pieces(samples: Samples, where: slice, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the tokens in a part of the samples that show a word, and which one: the first that they overlap."""
    assert samples.offsets is not None and samples.source is not None
    rows = np.flatnonzero(samples.source[where] == 0) + where.start
    starts, ends = samples.offsets[rows, 0], samples.offsets[rows, 1]
    word = np.searchsorted(words[:, 1], starts, side="right")
    shown = (word < len(words)) & (words[np.minimum(word, len(words) - 1), 0] < ends)
    return rows[shown], word[shown]


def _first_pieces(samples: Samples, at: int, example: TaggedText) -> np.ndarray:
    """(words,) the row of each word's first piece, in the window with most text around it; -1 where no window shows it."""
    assert samples.offsets is not None and samples.source is not None
    words = np.asarray(example.words).reshape(-1, 2)
    best, room = np.full(len(words), -1), np.full(len(words), -1)
    for window in range(samples.first[at], samples.first[at + 1]):
        first, after = samples.bounds[window], samples.bounds[window + 1]
        rows = np.flatnonzero(samples.source[first:after] == 0) + first
        if not len(rows):
            continue
        starts, ends = samples.offsets[rows, 0], samples.offsets[rows, 1]
        piece = np.searchsorted(ends, words[:, 0], side="right")  # the first that ends behind the word's beginning
        inside = np.minimum(piece, len(rows) - 1)
        shown = (piece < len(rows)) & (starts[inside] < words[:, 1])
        around = np.minimum(inside, len(rows) - 1 - inside)
        better = shown & (around > room)
        best[better], room[better] = rows[inside[better]], around[better]
    return best
