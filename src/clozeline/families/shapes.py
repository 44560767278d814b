"""Configurations of fresh encoders: a published shape, or a model's own, with other sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clozeline.config import EncoderConfig
from clozeline.errors import InputError, nearest
from clozeline.families import FAMILIES
from clozeline.families.family import Family

Sizes = Mapping[str, int | float]
"""Fields of a configuration; "dropout" is both rates."""


def shaped(
    shape: str, sizes: Sizes | None = None, *, vocab_size: int | None = None, pad_id: int | None = None
) -> tuple[Family, EncoderConfig]:
    """The family and configuration of a published model, with other sizes, for a tokenizer's vocabulary.

    Raises:
        InputError: no such shape, or a size that it does not have.
    """
    known = {preset: family for family in FAMILIES.values() for preset in family.published}
    if shape not in known:
        raise InputError(f"There is no shape {shape!r}: {nearest(shape, known)}")
    changes: dict[str, Any] = dict(sizes or {})
    if vocab_size is not None:
        changes |= {"vocab_size": vocab_size, "pad_id": pad_id or 0}
    return known[shape], resized(known[shape], known[shape].published[shape], changes)


def resized(family: Family, raw: Mapping[str, Any], sizes: Sizes) -> EncoderConfig:
    """The configuration that a `config.json` says, with other sizes.

    Raises:
        InputError: a size that the family does not have.
    """
    if "embedding_width" in sizes and "embedding_size" not in family.write(family.read(raw)):
        raise InputError(f"{family.name} has no embedding_width: its token table is as wide as the model.")
    changes = dict(sizes)
    if "dropout" in changes:
        changes["attention_dropout"] = changes["dropout"]
    if "layers" in changes:  # the kinds of layers are those of so many
        raw = {key: value for key, value in raw.items() if key != "layer_types"}
    spelled = {ours: theirs for ours, theirs, _ in family.fields} | {"embedding_width": "embedding_size"}
    later = {name: value for name, value in changes.items() if name == "max_length" or name not in spelled}
    own = {spelled[name]: value for name, value in changes.items() if name not in later}
    return family.read({**raw, **own}).replace(**later)
