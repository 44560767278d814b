"""The families: each a data file that says how its checkpoints spell what the bricks are called here.

To add one, write its file and add it to `FAMILIES`; CONTRIBUTING.md walks through it.
"""

from __future__ import annotations

from clozeline.errors import InputError, nearest
from clozeline.families.bert import BERT
from clozeline.families.family import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (BERT,)}


def by_name(name: str) -> Family:
    """The family of this `model_type`.

    Raises:
        InputError: no such family here.
    """
    if name not in FAMILIES:
        raise InputError(f"Models of type {name!r} are not supported: {nearest(name, FAMILIES)}")
    return FAMILIES[name]
