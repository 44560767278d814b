"""A tokenizer with fewer tokens: those that are wanted, those that no text can do without, and all under new ids."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from clozeline.errors import InputError
from clozeline.tokenizer import Tokenizer

KINDS = ("WordPiece", "BPE", "Unigram")
BYTE = re.compile("<0x[0-9A-F]{2}>")  # a byte's token, for characters that have none


def trim(tokenizer: Tokenizer, ids: Collection[int]) -> tuple[Tokenizer, list[int]]:
    """A tokenizer with the tokens of these ids and those that must stay, and by new id which id each token had before.

    Added tokens stay, special ones among them, and so does every character's own token: of a byte-level vocabulary the
    256 bytes, of WordPiece with the prefix of word pieces and without. So does a token with a character that has none.
    New ids are in the order of the old ones.

    A text is read as the same pieces as before if all of these stay:
        WordPiece takes the longest token that fits, again and again; a longer one is not there now that was not then.
        BPE (Sennrich et al. 2016) makes of two pieces one, whichever pair stands first in its list. What a kept token is
            made of stays, as do the merges that make it, in their order; so each step has the same first pair as before.
        Unigram (Kudo 2018) takes the pieces with the highest sum of scores; fewer compete with it. An unknown character
            counts as the vocabulary's lowest score less 10, and so the token that has this score stays too. Scores are
            written and read again, as by every save, which may change their last digit and so decide a tie anew.
    Other text may be read as more pieces. None of it is unknown that was not, given that each character of the vocabulary
    has its own token, as in the published ones; where some lack it, a word with such a character may still become so.

    Raises:
        InputError: no token has one of these ids, or the vocabulary is of words only.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        path = Path(folder, "tokenizer.json")
        held = json.loads(path.read_text(encoding="utf-8"))
        before = _cut(held, {int(at) for at in ids})
        path.write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")
        trimmed = Tokenizer.load(folder, tokenizer.max_length)
    moved = [at for at, old in enumerate(before) if trimmed.id(tokenizer.token(old)) != at]
    if moved:  # the library numbers added tokens by itself
        raise InputError(
            f"The tokens cannot be renumbered, {tokenizer.token(before[moved[0]])!r} for one: the ids of the vocabulary "
            "have gaps that added tokens fall into."
        )
    return trimmed, before


def _cut(held: dict[str, Any], ids: set[int]) -> list[int]:
    """Take the other tokens out of a parsed tokenizer.json; by new id the old one of each that stays."""
    model, added = held["model"], held["added_tokens"]
    if model["type"] not in KINDS:
        raise InputError(
            f"A vocabulary of type {model['type']} has no pieces to read a word by that loses its token; those of type "
            f"{', '.join(KINDS)} can be cut."
        )
    listed = model["vocab"]
    vocabulary = listed if isinstance(listed, dict) else {token: at for at, (token, _) in enumerate(listed)}
    known = {*vocabulary.values(), *(token["id"] for token in added)}
    if strange := sorted(ids - known):
        raise InputError(f"No token has id {strange[0]}; the vocabulary has ids 0 to {max(known)}.")
    numbers = list(_numbers(held["post_processor"] or {}))
    kept = ids | {token["id"] for token in added} | {row[at] for row, at in numbers} | _needed(model, vocabulary)
    prefix = model.get("continuing_subword_prefix") or ""
    merges = [(left, right, left + right.removeprefix(prefix)) for left, right in model.get("merges", ())]
    kept |= _parts(merges, vocabulary, kept)
    before = sorted(kept)
    new = {old: at for at, old in enumerate(before)}

    if isinstance(listed, dict):
        model["vocab"] = {token: new[at] for token, at in listed.items() if at in new}
    else:
        model["vocab"] = [row for at, row in enumerate(listed) if at in new]
        model["unk_id"] = new.get(model["unk_id"])
    if merges:
        model["merges"] = [[*merge[:2]] for merge in merges if model["vocab"].keys() >= {*merge}]
    for token in added:
        token["id"] = new[token["id"]]
    for row, at in numbers:
        row[at] = new[row[at]]
    return before


def _numbers(frame: dict[str, Any]) -> Iterator[tuple[list[Any], int]]:
    """Where ids stand in what puts special tokens around a text: lists, and the place in each."""
    yield from ((frame[role], 1) for role in ("cls", "sep") if role in frame)
    for special in frame.get("special_tokens", {}).values():
        yield from ((special["ids"], at) for at in range(len(special["ids"])))
    for part in frame.get("processors", ()):
        yield from _numbers(part)


def _needed(model: dict[str, Any], vocabulary: dict[str, int]) -> set[int]:
    """The ids of what every text may need: the unknown token, each character's own, and tokens of characters without one."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    kept = {vocabulary[token] for token in (model.get("unk_token"),) if token in vocabulary}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        kept |= {scores.index(min(scores)), model["unk_id"]} - {None}
    for token, at in vocabulary.items():
        symbols = _symbols(token, prefix, suffix)
        byte = model.get("byte_fallback") and BYTE.fullmatch(token)
        if len(symbols) < 2 or not vocabulary.keys() >= {*symbols} or byte:
            kept.add(at)
    return kept


def _symbols(token: str, prefix: str, suffix: str) -> list[str]:
    """What the characters of a token are called as tokens, by where they stand: "##ed" is "##e" and "##d"."""
    inside, ending = token.startswith(prefix), token.endswith(suffix)
    chars = token.removeprefix(prefix).removesuffix(suffix)
    symbols = [prefix + char for char in chars]
    if symbols and not inside:
        symbols[0] = chars[0]
    if symbols and ending:
        symbols[-1] += suffix
    return symbols


def _parts(merges: list[tuple[str, str, str]], vocabulary: dict[str, int], kept: set[int]) -> set[int]:
    """The ids of all that kept tokens are merged from, in whatever way. merges: two tokens and what they make."""
    made: dict[str, set[str]] = {}
    for left, right, whole in merges:
        made.setdefault(whole, set()).update((left, right))
    waiting = [token for token, at in vocabulary.items() if at in kept]
    found = set(waiting)
    while waiting:
        new = made.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return {vocabulary[token] for token in found}
