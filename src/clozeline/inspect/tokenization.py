"""What a tokenizer does with a text, step by step; and over a corpus, into how many pieces it breaks words.

Pieces a word, the share of words that stay whole, and characters a token are what tokenizers are compared by (Rust et al.
2021, "How Good is Your Tokenizer?", where the first is called fertility).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from clozeline.errors import InputError
from clozeline.inspect import panels as kinds
from clozeline.inspect.view import View
from clozeline.inspect.words import as_text, lettered, readable
from clozeline.predict import chunked
from clozeline.tokenizer import Tokenizer

if TYPE_CHECKING:
    from clozeline.face import Model

LISTED = 30
"""Words of a corpus that are named."""
MOST = 6
"""Pieces from which words are counted together."""


def normalised(tokenizer: Tokenizer, text: str) -> str:
    """The text as the tokenizer cleans it up before it splits it."""
    cleaner = tokenizer._backend.normalizer
    return text if cleaner is None else cleaner.normalize_str(text)


@dataclass(frozen=True, slots=True)
class Piece:
    """A token. start, end: its characters in the text, and `text` what stands there; of special tokens around it 0, 0, "".

    kind: "special", "unknown", "begins" a word, or "continues" one; what stands between words begins too. shown: the token
    as text, where the vocabulary writes bytes as letters.
    """

    token: str
    shown: str
    id: int
    start: int
    end: int
    text: str
    kind: str


SHADES = {"begins": 0.15, "continues": 0.5, "unknown": 1.0}


@dataclass(frozen=True, eq=False)
class Tokenization(View):
    """A text on its way to ids.

    normalised: the text after clean-up; split: what it is cut into before pieces are looked for; pieces: the tokens, special
    ones included; words: (n,) pieces of each word of `lettered`; cut: tokens that the model would not read.
    """

    text: str
    normalised: str
    split: tuple[str, ...]
    pieces: tuple[Piece, ...]
    words: tuple[tuple[str, int], ...]
    cut: int

    @property
    def title(self) -> str:
        return "From text to token ids"

    @property
    def unknown(self) -> list[str]:
        """What of the text the vocabulary has no pieces for, in order."""
        return [piece.text for piece in self.pieces if piece.kind == "unknown"]

    def panels(self) -> list[kinds.Panel]:
        content = [piece for piece in self.pieces if piece.kind != "special"]
        notes = [
            f"id {piece.id}, characters {piece.start} to {piece.end} {piece.text!r}, {piece.kind}"
            for piece in self.pieces
        ]
        counts = np.array([[count] for _, count in self.words[:40]])
        rows = [list(asdict(piece).values()) for piece in self.pieces]
        found: list[kinds.Panel] = [
            kinds.Table("Step by step", ("step", "gives"), self._steps, self._lost),
            kinds.Words(
                "Tokens",
                [piece.shown for piece in self.pieces],
                [SHADES.get(piece.kind) for piece in self.pieces],
                notes,
                key=SHADES,
            ),
        ]
        if self.words:
            names = [word for word, _ in self.words[:40]]
            found.append(kinds.Bars("Pieces of each word", "pieces", names, ("pieces",), counts))
        columns = ("token", "as text", "id", "from", "to", "characters", "kind")
        return [*found, kinds.Table(f"{len(content)} tokens of the text and the special ones", columns, rows)]

    @property
    def _lost(self) -> str:
        return f"The model does not read the last {self.cut} tokens: the text is longer than it takes." * (self.cut > 0)

    @property
    def _steps(self) -> list[tuple[str, str]]:
        return [
            ("text", self.text),
            ("cleaned up", self.normalised),
            ("split", " | ".join(self.split)),
            ("pieces", " ".join(piece.shown for piece in self.pieces if piece.kind != "special")),
            ("with special tokens", " ".join(piece.shown for piece in self.pieces)),
            ("ids", " ".join(str(piece.id) for piece in self.pieces)),
            ("unknown", ", ".join(self.unknown) or "nothing"),
        ]

    def as_dict(self) -> dict[str, Any]:
        names = ("text", "normalised", "split", "unknown", "cut")
        found = {name: getattr(self, name) for name in names}
        return found | {"split": list(self.split), "pieces": [asdict(piece) for piece in self.pieces]}

    def __str__(self) -> str:
        return "\n".join([*(f"{step:<20} {gives}" for step, gives in self._steps), *[self._lost] * (self.cut > 0)])


def tokenization(model: Model | Tokenizer, text: str) -> Tokenization:
    """What the tokenizer makes of a text: cleaned up, split, pieces, ids, with the characters that each token covers.

    Raises:
        InputError: the text is empty, or no text.
    """
    tokenizer = _tokenizer(model)
    (encoded,) = tokenizer.encode([text], offsets=True)
    if not text.strip():
        raise InputError("The text is empty; give some words to tokenise.")
    (columns,) = tokenizer._split([text], "texts", True, None)
    added, whole = tokenizer._backend.get_added_tokens_decoder(), []
    # a token that was added, such as one spelled out, is taken out of the text before anything is done with it
    clean, split, last = [], [], 0
    for token_id, start, end in [*columns.T.tolist(), (-1, len(text), len(text))]:
        spelled = token_id in added and (token_id != tokenizer.unk_id or text[start:end] == added[token_id].content)
        if spelled or token_id < 0:
            clean.append(part := normalised(tokenizer, text[last:start]))
            split += _split(tokenizer, part)
            last = end
        if spelled:
            clean.append(text[start:end])
            split.append(text[start:end])
            whole.append((start, end))
    (sequence,) = encoded.sequences
    assert sequence.offsets is not None
    words = lettered(text)
    inside = {at for start, end in words for at in range(start + 1, end)}
    pieces, shown = [], iter(readable(tokenizer, sequence.ids))
    for token_id, source, (start, end) in zip(
        sequence.ids.tolist(), sequence.source.tolist(), sequence.offsets.tolist(), strict=True
    ):
        kind = "continues" if start in inside else "begins"
        if source < 0 or ((start, end) in whole and token_id in tokenizer.special_ids):
            kind = "special"
        elif token_id == tokenizer.unk_id:
            kind = "unknown"
        pieces.append(Piece(tokenizer.token(token_id), next(shown), token_id, start, end, text[start:end], kind))
    counts = _pieces_of(columns[1], columns[2], words).tolist()
    named = tuple((text[start:end], count) for (start, end), count in zip(words, counts, strict=True))
    return Tokenization(text, "".join(clean), as_text(tokenizer, split), tuple(pieces), named, encoded.cut)


def _tokenizer(model: Model | Tokenizer) -> Tokenizer:
    return model if isinstance(model, Tokenizer) else model.tokenizer


def _split(tokenizer: Tokenizer, text: str) -> list[str]:
    """What stands between the tokenizer's own cuts, within which pieces are looked for."""
    cutter = tokenizer._backend.pre_tokenizer
    return [text] * bool(text) if cutter is None else [part for part, _ in cutter.pre_tokenize_str(text)]


def _pieces_of(starts: np.ndarray, ends: np.ndarray, words: list[tuple[int, int]]) -> np.ndarray:
    """(n,) how many tokens cover characters of each word."""
    low, high = np.array(words, dtype=np.int64).reshape(-1, 2).T
    return np.searchsorted(starts, high, "left") - np.searchsorted(ends, low, "right")


@dataclass(frozen=True, eq=False)
class CorpusPieces(View):
    """How a tokenizer breaks up the words of a corpus.

    pieces: how many words, counted as often as they occur, have so many pieces; words: by word, (pieces, occurrences).
    unknown: what is read as the unknown token, with counts; vanished: words that clean-up leaves nothing of.
    """

    texts: int
    characters: int
    tokens: int
    pieces: Counter[int]
    words: dict[str, tuple[int, int]]
    unknown: Counter[str]
    vanished: int

    @property
    def title(self) -> str:
        return f"How {self.count:,} words break into pieces"

    @property
    def count(self) -> int:
        """Words, as often as they occur."""
        return self.pieces.total()

    @property
    def pieces_per_word(self) -> float:
        return sum(pieces * count for pieces, count in self.pieces.items()) / max(1, self.count)

    @property
    def whole(self) -> float:
        """The share of words, as often as they occur, that are one known piece."""
        return sum(count for pieces, count in self._known if pieces == 1) / max(1, self.count)

    @property
    def _known(self) -> list[tuple[int, int]]:
        return [found for word, found in self.words.items() if word not in self.unknown]

    @property
    def unknown_share(self) -> float:
        """The share of tokens that are the unknown one."""
        return self.unknown.total() / max(1, self.tokens)

    @property
    def characters_per_token(self) -> float:
        return self.characters / max(1, self.tokens)

    @cached_property
    def broken(self) -> list[tuple[str, int, int]]:
        """The words of most pieces, and of equal ones the most frequent: (word, pieces, occurrences)."""
        return self._first(lambda pieces, count: (-pieces, -count))

    @cached_property
    def costly(self) -> list[tuple[str, int, int]]:
        """The words whose breaking costs most tokens in all: (word, pieces, occurrences)."""
        return self._first(lambda pieces, count: (-(pieces - 1) * count, -pieces))

    def _first(self, key: Any) -> list[tuple[str, int, int]]:
        rows = sorted(self.words.items(), key=lambda item: (*key(*item[1]), item[0]))
        return [(word, pieces, count) for word, (pieces, count) in rows[:LISTED] if pieces > 1]

    @property
    def _facts(self) -> list[tuple[str, float | int]]:
        return [
            ("texts", self.texts),
            ("words", self.count),
            ("different words", len(self.words)),
            ("tokens", self.tokens),
            ("pieces a word", self.pieces_per_word),
            ("share of words whole", self.whole),
            ("share of tokens unknown", self.unknown_share),
            ("characters a token", self.characters_per_token),
            ("words that clean-up removes", self.vanished),
        ]

    def panels(self) -> list[kinds.Panel]:
        shares = [self.pieces[count] for count in range(1, MOST)]
        shares.append(self.count - sum(shares))
        names = [*map(str, range(1, MOST)), f"{MOST} or more"]
        columns = ("word", "pieces", "occurrences")
        return [
            kinds.Bars("Words by their pieces", "share", names, ("words",), np.array(shares)[:, None] / self.count),
            kinds.Table("In numbers", ("what", "value"), self._facts),
            kinds.Table("The most broken up", columns, self.broken),
            kinds.Table("Where breaking up costs most tokens", columns, self.costly),
            kinds.Table("Unknown", ("text", "occurrences"), self.unknown.most_common(LISTED)),
        ]

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {name.replace(" ", "_"): value for name, value in self._facts}
        found["by_pieces"] = {str(pieces): count for pieces, count in sorted(self.pieces.items())}
        found |= {"broken": self.broken, "costly": self.costly}
        return found | {"unknown": dict(self.unknown.most_common(LISTED))}

    def __str__(self) -> str:
        facts = [f"{name:<28} {value:>12,.4g}" if isinstance(value, float) else f"{name:<28} {value:>12,}"
                 for name, value in self._facts]  # fmt: skip
        named = ", ".join(f"{word} ({pieces})" for word, pieces, _ in self.broken[:10])
        unknown = ", ".join(word for word, _ in self.unknown.most_common(10))
        return "\n".join([*facts, f"most broken up: {named or 'none'}", f"unknown: {unknown or 'none'}"])


def corpus_pieces(model: Model | Tokenizer, texts: Iterable[str]) -> CorpusPieces:
    """Into how many pieces the words of a corpus break. Texts are read whole, whatever the model's length.

    Raises:
        InputError: there are no words, or a text is no text.
    """
    tokenizer = _tokenizer(model)
    counts, most, unknown = Counter[str](), dict[str, int](), Counter[str]()
    pieces, seen, characters, tokens = Counter[int](), 0, 0, 0
    if isinstance(texts, str):
        raise InputError("texts must be a list of texts, not one text; put it in a list.")
    for part in chunked(texts):
        names = [f"texts[{at}]" for at in range(seen, seen + len(part))]
        for text, (ids, starts, ends) in zip(part, tokenizer._split(part, "texts", True, names), strict=True):
            words = lettered(text)
            for (start, end), count in zip(words, _pieces_of(starts, ends, words).tolist(), strict=True):
                word = text[start:end]
                counts[word] += 1
                most[word] = max(most.get(word, 0), count)
                pieces[count] += 1
            nothing = np.flatnonzero(ids == tokenizer.unk_id) if tokenizer.unk_id is not None else ()
            unknown.update(text[starts[at] : ends[at]].strip() for at in nothing)
            tokens += len(ids)
            characters += len(text)
        seen += len(part)
    vanished = pieces.pop(0, 0)
    named = {word: (most[word], count) for word, count in counts.items() if most[word]}
    if not named:
        raise InputError("The texts have no words; give texts to tokenise.")
    return CorpusPieces(seen, characters, tokens, pieces, named, unknown, vanished)
