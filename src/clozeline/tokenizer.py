"""Text to token ids and back, for every Hugging Face tokenizer folder, over the `tokenizers` library.

The library splits text into content tokens. Special tokens and long text are ours: every family and every policy takes
the same few lines, and each result says how many tokens it cost. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from clozeline.errors import InputError, nearest
from clozeline.files import staged
from clozeline.tokenizer_classes import ROLES, role_token, token_name
from clozeline.tokenizer_files import EXTRA, add_tokens, read_folder

LongText = Literal["error", "truncate", "head_tail", "window"]

ABSURD_LENGTH = 1_000_000  # transformers writes 1e30 as model_max_length where it knows none
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """What the model reads at once, special tokens included. All arrays have its length.

    ids: (length,) int32.
    segments: (length,) int8, the token types that the model was trained with; RoBERTa has one for both texts of a pair.
    source: (length,) int8, where a token comes from: 0 the first text, 1 the second, -1 a special token around them.
    offsets: (length, 2) int32 or None; the characters [start, end) of the source text, (0, 0) for special tokens.
    """

    ids: np.ndarray
    segments: np.ndarray
    source: np.ndarray
    offsets: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One text, or one pair, as the model reads it.

    sequences: one; under "window" as many as it takes.
    tokens: content tokens of the whole text (of both texts of a pair), special tokens not counted.
    cut: how many of them the model does not see.
    """

    sequences: list[TokenSequence]
    tokens: int
    cut: int


class Tokenizer:
    """A vocabulary, the rules that split text into its tokens, and the special tokens that a model expects around them.

    vocab_size: largest token id + 1, added tokens included.
    max_length: tokens the model reads at once, special tokens included; None where nothing bounds it.
    cls_id, sep_id, pad_id, mask_id, unk_id: ids by role, None where the vocabulary has no such token.
    special_ids: the ids of all special tokens.
    """

    def __init__(self, backend: Backend, settings: dict[str, Any], max_length: int | None = None) -> None:
        """Take over `backend`: its own truncation and padding go, and tokens that the settings name become its own.

        settings: the entries of tokenizer_config.json. max_length: as in `load`.
        """
        backend.no_truncation()
        backend.no_padding()
        decoder = settings.get("added_tokens_decoder") or {}
        extra = {name: tokens for name in EXTRA if isinstance(tokens := settings.get(name), list)}
        add_tokens(backend, [decoder[token_id] for token_id in sorted(decoder, key=int)], special=False)
        add_tokens(backend, [token for tokens in extra.values() for token in tokens], special=True)
        self._backend = backend
        self._templates = _Template(backend, pair=False), _Template(backend, pair=True)

        vocabulary = backend.get_vocab(with_added_tokens=True)
        edges = {"cls": self._templates[0].first, "sep": self._templates[0].last}
        roles = {role: role_token(role, settings, vocabulary, edges.get(role)) for role in ROLES}
        add_tokens(backend, [token for token in roles.values() if token is not None], special=True)
        ids = [None if token is None else vocabulary[token] for token in roles.values()]
        self.cls_id, self.sep_id, self.pad_id, self.mask_id, self.unk_id = ids
        added = backend.get_added_tokens_decoder().items()
        self.special_ids = frozenset(at for at, token in added if token.special or at in ids)
        self.vocab_size = max(vocabulary.values()) + 1
        stated = settings.get("model_max_length")
        bounds = [] if max_length is None else [max_length]
        if isinstance(stated, int | float) and 0 < stated < ABSURD_LENGTH:
            bounds.append(int(stated))
        self.max_length = min(bounds, default=None)

        # how each token is matched is in tokenizer.json; here transformers wants names
        self._settings = {name: value for name, value in settings.items() if name != "added_tokens_decoder"}
        self._settings |= {name: [token_name(token) for token in tokens] for name, tokens in extra.items()}
        self._settings |= {f"{role}_token": token for role, token in roles.items()}
        if self.max_length is not None:
            self._settings["model_max_length"] = self.max_length

    @classmethod
    def load(cls, folder: str | Path, max_length: int | None = None) -> Tokenizer:
        """Read `tokenizer.json`, or an older vocabulary (`tokenizer_classes`), with the settings files beside it.

        max_length: tokens the model can read at once, special tokens included.

        Raises:
            InputError: the folder has no such file, or one that cannot be used.
        """
        backend, settings = read_folder(Path(folder))
        return cls(backend, settings, max_length)

    def limited(self, max_length: int) -> Tokenizer:
        """The same one for a model that reads so many tokens at once, or fewer where this one's does."""
        return Tokenizer(self._backend, dict(self._settings), max_length)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers loads too.

        Raises:
            InputError: the folder cannot be written; what was there is untouched.
        """
        settings = json.dumps(self._settings, indent=2, ensure_ascii=False) + "\n"
        with staged(Path(folder)) as stage:
            (stage / "tokenizer.json").write_text(self._backend.to_str(pretty=True), encoding="utf-8")
            (stage / "tokenizer_config.json").write_text(settings, encoding="utf-8")

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        long: LongText = "truncate",
        max_length: int | None = None,
        overlap: int | None = None,
        moving: Literal["longer", "second"] = "longer",
        offsets: bool = False,
        places: Sequence[str] | None = None,
    ) -> list[Encoded]:
        """Encode each text, or each text with its pair, as sequences of at most `max_length` tokens.

        A special token spelled out in a text, such as "[MASK]", is read as that token, as in transformers.

        long: what to do with a text that has more tokens than there is room for.
            "error" refuses it.
            "truncate" keeps the head; of a pair, the longer text gives way first, as transformers' `truncation=True`.
            "head_tail" keeps as many tokens as "truncate", a quarter from the head and the rest from the tail of each
                shortened text (Sun et al. 2019, "How to Fine-Tune BERT for Text Classification": 128 and 382).
            "window" cuts nothing: overlapping sequences, the last flush with the end. Of a pair, one text moves and the
                other is repeated whole.
        max_length: tokens, special tokens included; the model's own by default, and never more.
        overlap: tokens that neighbouring windows share; by default a quarter of the room for the moving text.
        moving: which text of a pair windows move over: the longer (the second, if equal), or always the second.
        offsets: also say which characters each token covers; slower.
        places: what messages call each text; texts[0], texts[1], ... by default.

        Raises:
            InputError: a text is not text, is too long under "error", or leaves no room for its pair under "window".
        """
        if long not in get_args(LongText):
            raise InputError(f"long={long!r} is not a policy for long text; {nearest(str(long), get_args(LongText))}")
        if pairs is not None and len(pairs) != len(texts):
            raise InputError(f"There are {len(texts)} texts but {len(pairs)} pairs; give each text its pair.")
        columns = [self._split(texts, "texts", offsets, places)]
        if pairs is not None:
            columns.append(self._split(pairs, "pairs", offsets, places))
        template = self._templates[len(columns) - 1]
        room = self._room(max_length, template.specials)

        encoded = []
        for index, contents in enumerate(zip(*columns, strict=True)):
            lengths = [content.shape[1] for content in contents]
            choices = _choose(lengths, room, long, overlap, moving, _called("texts", index, places))
            sequences = [
                template.fill([content[:, keep] for content, keep in zip(contents, choice, strict=True)])
                for choice in choices
            ]
            tokens = sum(lengths)
            encoded.append(Encoded(sequences, tokens, cut=0 if long == "window" else max(0, tokens - room)))
        return encoded

    def dress(self, contents: Sequence[np.ndarray]) -> TokenSequence:
        """The content ids of one text or two, each (n,) int32, with the special tokens that a model expects around them."""
        return self._templates[len(contents) - 1].fill([ids[None] for ids in contents])

    def specials(self, texts: int) -> int:
        """How many special tokens stand around so many texts, 1 or 2."""
        return self._templates[texts - 1].specials

    def plain(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The content ids of each text, (n,) int32; here "[MASK]" in a text is the ids of its characters.

        Raises:
            InputError: a text is not text.
        """
        rows = [columns[0] for columns in self._split(texts, "texts", False, None)]
        special, ends = list(self._spelled), np.cumsum([len(row) for row in rows])
        found = np.flatnonzero(np.isin(np.concatenate(rows), special)) if rows else ends
        for at in set(np.searchsorted(ends, found, "right").tolist()):
            parts = (self._spelled.get(token_id, [token_id]) for token_id in rows[at].tolist())
            rows[at] = np.array([token_id for part in parts for token_id in part], dtype=np.int32)
        return rows

    @cached_property
    def _spelled(self) -> dict[int, list[int]]:
        """By special token, but for the unknown one, the ids of what it is written with; a space in it keeps it apart."""
        tokens = {token_id: self.token(token_id) for token_id in self.special_ids if token_id != self.unk_id}
        return {at: self.pieces(f"{token[:1]} {token[1:]}", after_space=False) for at, token in tokens.items()}

    def digest(self) -> str:
        """The SHA-256 of what splits text and of the vocabulary; the same after saving and loading."""
        # a score, read again, may differ in its last digit
        held = json.loads(self._backend.to_str(), parse_float=lambda number: f"{float(number):.6g}")
        return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these tokens, special tokens left out."""
        return self._backend.decode([int(token_id) for token_id in ids], skip_special_tokens=True)

    def add_words(self, words: Sequence[str]) -> dict[int, list[int]]:
        """Make tokens of whole words, and give for each new id the ids that the word was read as before.

        The embedding needs rows for them: `Model.add_words` does both.

        Raises:
            InputError: a word is empty, has a space at an end, is given twice, or is a token already.
        """
        if not words:
            return {}
        for at, word in enumerate(words):
            if not isinstance(word, str) or not word.strip() or word != word.strip():
                raise InputError(f"words[{at}] is {word!r}; give words without spaces around them.")
            if word in words[:at] or self.id(word) is not None:
                raise InputError(
                    f"words[{at}], {word!r}, is {'given twice' if word in words[:at] else 'a token already'}."
                )
        words, normalizer = list(words), self._backend.normalizer
        plain = [word if normalizer is None else normalizer.normalize_str(word) for word in words]
        for at, word in enumerate(plain):
            if not word.strip() or word in plain[:at]:
                same = f", the same as {words[plain.index(word)]!r}" if word.strip() else ", nothing"
                raise InputError(f"words[{at}], {words[at]!r}, is {word!r} after clean-up{same}; leave it out.")
        marked = any(part in str(self._backend.pre_tokenizer) for part in ("ByteLevel", "Metaspace"))
        before = [self.pieces(word, after_space=marked) for word in words]
        # where a space is a part of the word behind it, it is a part of a new word too
        self._backend.add_tokens([AddedToken(word, single_word=True, lstrip=marked, normalized=True) for word in words])
        ids = [new for word in words if (new := self.id(word)) is not None]
        self.vocab_size = max(self.vocab_size, *(new + 1 for new in ids))
        return dict(zip(ids, before, strict=True))

    def token(self, token_id: int) -> str:
        """The token with this id."""
        token = self._backend.id_to_token(token_id) if token_id >= 0 else None
        if token is None:
            raise InputError(f"No token has id {token_id}; the vocabulary has ids 0 to {self.vocab_size - 1}.")
        return token

    def pieces(self, word: str, *, after_space: bool) -> list[int]:
        """The ids of a word inside a text, without special tokens. Whether a space stands before it may matter."""
        return list(self._backend.encode(f" {word}" if after_space else word, add_special_tokens=False).ids)

    def vocabulary(self) -> list[str]:
        """The tokens in the order of their ids, without those that were added to the vocabulary."""
        found = self._backend.get_vocab(with_added_tokens=False)
        return sorted(found, key=found.__getitem__)

    def id(self, token: str) -> int | None:
        """The id of this token, None if the vocabulary does not have it."""
        return self._backend.token_to_id(token)

    def check(self, vocab_size: int) -> None:
        """Refuse a model whose embedding has fewer rows than there are ids; more rows (padding) are fine."""
        if vocab_size < self.vocab_size:
            raise InputError(
                f"The tokenizer has {self.vocab_size} token ids, but the model's embedding has only {vocab_size} rows. "
                "Use the tokenizer that the model was trained with, or give the embedding a row for each id."
            )

    def _room(self, max_length: int | None, specials: int) -> int:
        """Content tokens that fit into one sequence beside its special tokens."""
        limit = self.max_length if max_length is None else max_length
        if limit is None:
            return sys.maxsize
        if self.max_length is not None and limit > self.max_length:
            raise InputError(f"max_length={limit} is more than the {self.max_length} tokens the model reads at once.")
        if limit <= specials:
            raise InputError(f"max_length={limit} leaves no room for text beside {specials} special tokens.")
        return limit - specials

    def _split(self, texts: Sequence[str], name: str, offsets: bool, places: Sequence[str] | None) -> list[np.ndarray]:
        """The content tokens of each text as columns, (1, n) int32: ids; with offsets (3, n): ids, starts, ends."""
        if isinstance(texts, str):
            raise InputError(f"{name} must be a list of texts, not one text; put it in a list.")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                place = _called(name, index, places)
                raise InputError(f"{place} is {text!r:.40} ({type(text).__name__}), but must be a text (str).")
            if not text.isascii() and SURROGATE.search(text):
                place = _called(name, index, places)
                raise InputError(
                    f"{place} has a lone surrogate, half of a character that was decoded wrongly. Decode it "
                    "again, or replace it: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
                )
        # the fast call is the library's own without offsets
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        encodings = encode(list(texts), add_special_tokens=False)
        columns = [np.array(encoding.ids, dtype=np.int32)[None] for encoding in encodings]
        if not offsets:
            return columns
        spans = [np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2) for encoding in encodings]
        return [np.concatenate([ids, span.T]) for ids, span in zip(columns, spans, strict=True)]


class _Template:
    """Where the special tokens stand, such as [CLS] A [SEP] B [SEP]: parts that are a special token or a whole text.

    Learned by encoding one token, or a pair of them, so that any post-processor will do.
    """

    def __init__(self, backend: Backend, pair: bool) -> None:
        added = backend.get_added_tokens_decoder().values()
        probe = next((token.content for token in added if token.special), "a")  # a special token is always one token
        found = backend.encode(probe, probe if pair else None)
        source = [-1 if text is None else text for text in found.sequence_ids]
        parts = [at for at, text in enumerate(source) if text < 0 or at == 0 or source[at - 1] != text]
        assert sorted(source[at] for at in parts if source[at] >= 0) == [0, 1][: 1 + pair], found.tokens
        self.source = np.array([source[at] for at in parts], dtype=np.int8)
        self.segments = np.array([found.type_ids[at] for at in parts], dtype=np.int8)
        self.columns = [np.array([[found.ids[at]], [0], [0]], dtype=np.int32) for at in parts]
        self.specials = int((self.source < 0).sum())
        self.first, self.last = (found.tokens[at] if source[at] < 0 else None for at in (0, -1))

    def fill(self, contents: Sequence[np.ndarray]) -> TokenSequence:
        """Put the texts' columns, (1, n) or (3, n), in their places."""
        rows = len(contents[0])
        places = zip(self.source.tolist(), self.columns, strict=True)
        parts = [contents[text] if text >= 0 else special[:rows] for text, special in places]
        lengths = [part.shape[1] for part in parts]
        columns = np.concatenate(parts, axis=1)
        offsets = columns[1:].T if rows == 3 else None
        return TokenSequence(columns[0], np.repeat(self.segments, lengths), np.repeat(self.source, lengths), offsets)


def _called(name: str, index: int, places: Sequence[str] | None) -> str:
    """What a message calls a text: by default pairs[3]; else its place, or "The pair of" it."""
    if places is None:
        return f"{name}[{index}]"
    return places[index] if name == "texts" else f"The pair of {places[index]}"


def _choose(
    lengths: list[int], room: int, long: LongText, overlap: int | None, moving: Literal["longer", "second"], name: str
) -> list[list[slice | np.ndarray]]:
    """For each sequence, which tokens of each text it keeps, so that at most `room` remain."""
    total, everything = sum(lengths), [slice(None)] * len(lengths)
    if total <= room:
        return [[*everything]]
    if long == "error":
        others = ", ".join(repr(policy) for policy in get_args(LongText) if policy != "error")
        raise InputError(
            f"{name} {'and its pair have' if len(lengths) > 1 else 'has'} {total} tokens, but there is room for "
            f"{room}. Shorten it, or choose another policy for long text: {others}."
        )
    if long == "window":
        moves = len(lengths) - 1 if moving == "second" else max(range(len(lengths)), key=lambda at: (lengths[at], at))
        room -= total - lengths[moves]
        if room < 1:
            alone, other = ("first", "second") if moving == "second" else ("shorter", "longer")
            raise InputError(
                f"{name} and its pair have {lengths[0]} and {lengths[1]} tokens: the {alone} alone leaves no room for "
                f"windows over the {other}. Shorten it, raise max_length, or choose 'truncate' or 'head_tail'."
            )
        overlap = room // 4 if overlap is None else overlap
        if not 0 <= overlap < room:
            raise InputError(
                f"overlap={overlap} must be 0 to {room - 1}: windows of {name} have room for {room} tokens."
            )
        last = lengths[moves] - room
        starts = [*range(0, last, room - overlap), last]
        return [[*everything[:moves], slice(at, at + room), *everything[moves + 1 :]] for at in starts]
    shares = [room]
    if len(lengths) == 2:
        shorter = min(*lengths, room // 2)
        shares = [shorter, room - shorter] if lengths[0] <= lengths[1] else [room - shorter, shorter]
    if long == "truncate":
        return [[slice(share) for share in shares]]
    kept: list[slice | np.ndarray] = []
    for length, share in zip(lengths, shares, strict=True):
        head, tail = share // 4, share - share // 4
        kept.append(np.r_[:head, length - tail : length] if length > share else slice(None))
    return [kept]
