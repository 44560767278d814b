"""Tags and the entities they stand for: BIO, BIOES (BILOU), IO, or plain tags that mark single words, such as NOUN.

Ada B-person   Lovelace I-person   wrote O        <->        (0, 2, "person")
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

Scheme = Literal["BIO", "BIOES", "IO", "plain"]
SLIP = re.compile("([BIESLUbieslu])[-_](.+)")
BEGINS, ENDS = frozenset("BSU"), frozenset("ESL")
Span = tuple[int, int, str]


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, (first word, word after the last, type), from BIO, IO, BIOES or BILOU tags.

    A sequence that its scheme does not allow is read as conlleval reads it: an entity begins where the type changes,
    whatever the prefix.
    """
    found: list[Span] = []
    start, before, kind = 0, "O", ""
    for at, tag in enumerate([*tags, "O"]):
        prefix, _, now = tag.partition("-")
        inside = prefix != "O" and bool(tag)
        new = inside and (before == "O" or prefix in BEGINS or before in ENDS or now != kind)
        if before != "O" and (new or not inside):
            found.append((start, at, kind))
        if new:
            start = at
        before, kind = (prefix, now) if inside else ("O", "")
    return found


def scheme_of(tags: Iterable[str]) -> Scheme:
    """The scheme that tags are written in. Tags without a hyphen after one of the prefixes are plain."""
    prefixes = set()
    for tag in set(tags) - {"O"}:
        prefix, hyphen, kind = tag.partition("-")
        if not (hyphen and kind and prefix in set("BIESLU")):
            return "plain"
        prefixes.add(prefix)
    if prefixes & set("ESLU"):
        return "BIOES"
    return "BIO" if "B" in prefixes or not prefixes else "IO"


def odd(tags: Collection[str]) -> tuple[str, str] | None:
    """A tag that is likely a slip among these, and what it should look like; None where they agree.

    A tag without a prefix among others that have one; and where all are plain: prefixes without a type, or with a prefix
    that is written otherwise, beside "O".
    """
    used = sorted(set(tags) - {"O"})
    bare = [tag for tag in used if scheme_of([tag]) == "plain"]
    if bare and len(bare) < len(used):
        return bare[0], next(tag for tag in used if tag not in bare)
    if bare and set(bare) <= set("BIESLU"):
        return bare[0], f"{bare[0]}-name"
    slip = next((found for tag in bare if (found := SLIP.fullmatch(tag))), None)
    return (slip[0], f"{slip[1].upper()}-{slip[2]}") if slip and "O" in tags else None


def whole(tags: Iterable[str], scheme: Scheme) -> list[str]:
    """Tags from which `spans` reads entities: a plain tag marks one word."""
    return [f"S-{tag}" if tag != "O" and scheme == "plain" else tag for tag in tags]


def outputs(kinds: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """All tags of a scheme for these types, in order of their names, "O" first; plain tags are the types themselves."""
    prefixes = {"BIO": "BI", "BIOES": "BIES", "IO": "I", "plain": ""}[scheme]
    names = sorted(set(kinds))
    return ("O", *(f"{prefix}-{kind}" for kind in names for prefix in prefixes)) if prefixes else tuple(names)


def written(size: int, entities: Iterable[Span], scheme: Scheme) -> list[str]:
    """`size` tags that stand for these entities, which must not overlap, as the scheme writes them."""
    assert scheme != "plain", "plain tags stand for no spans"
    tags = ["O"] * size
    for start, end, kind in entities:
        assert end > start, "an entity has a word at least"
        tags[start:end] = [f"I-{kind}"] * (end - start)
        if scheme != "IO":
            tags[start] = f"B-{kind}"
        if scheme == "BIOES":
            tags[end - 1] = f"S-{kind}" if end - start == 1 else f"E-{kind}"
    return tags
