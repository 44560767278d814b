"""The families: each a data file that says how its checkpoints spell what the bricks are called here.

To add one, write its file and add it to `FAMILIES`; CONTRIBUTING.md walks through it.
"""

from __future__ import annotations

from clozeline.errors import InputError, nearest
from clozeline.families.albert import ALBERT
from clozeline.families.bert import BERT
from clozeline.families.deberta import DEBERTA
from clozeline.families.distilbert import DISTILBERT
from clozeline.families.electra import ELECTRA
from clozeline.families.family import Family
from clozeline.families.modernbert import MODERNBERT
from clozeline.families.mpnet import MPNET
from clozeline.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        BERT,
        ROBERTA,
        XLM_ROBERTA,
        CAMEMBERT,
        DISTILBERT,
        ALBERT,
        ELECTRA,
        DEBERTA,
        MODERNBERT,
        MPNET,
    )
}


def by_name(name: str) -> Family:
    """The family of this `model_type`.

    Raises:
        InputError: no such family here.
    """
    if name not in FAMILIES:
        raise InputError(f"Models of type {name!r} are not supported: {nearest(name, FAMILIES)}")
    return FAMILIES[name]
