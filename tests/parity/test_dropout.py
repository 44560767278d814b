"""Every family drops where transformers drops, at the rates that `config.json` gives, under every head."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from clozeline.families import FAMILIES
from clozeline.model.attention import Attention
from clozeline.model.dropout import Dropout
from conformance import CLASSES, VARIANTS, model_type, sizes

transformers = pytest.importorskip("transformers")

RATES: dict[str, dict[str, float]] = {
    "distilbert": {"dropout": 0.21, "attention_dropout": 0.22, "seq_classif_dropout": 0.23},
    "albert": {"hidden_dropout_prob": 0.21, "attention_probs_dropout_prob": 0.22, "classifier_dropout_prob": 0.23},
    "deberta-v2": {"hidden_dropout_prob": 0.21, "attention_probs_dropout_prob": 0.22, "cls_dropout": 0.23},
    "modernbert": {"classifier_dropout": 0.23},
    "mpnet": {"hidden_dropout_prob": 0.21, "attention_probs_dropout_prob": 0.22},
}
USUAL = {"hidden_dropout_prob": 0.21, "attention_probs_dropout_prob": 0.22, "classifier_dropout": 0.23}
NEVER_CALLED = {"albert": "albert_layers.0.dropout"}  # made there, and not used
CALLED_TWICE = ("RobertaClassificationHead", "ElectraClassificationHead", "MPNetClassificationHead")


def theirs(model: Any, name: str) -> Counter[float]:
    """How often each rate is there, by the modules that have one."""
    found = Counter[float]()
    for path, part in model.named_modules():
        unused = name in NEVER_CALLED and path.endswith(NEVER_CALLED[name])
        if isinstance(part, torch.nn.Dropout) and part.p > 0 and not unused:
            found[round(part.p, 3)] += 1
        if type(part).__name__.removeprefix("XLM").replace("Camembert", "Roberta") in CALLED_TWICE:
            found[round(part.dropout.p, 3)] += 1
    return found


@pytest.mark.parametrize(
    ("variant", "kind"), [(name, kind) for name in VARIANTS for kind in FAMILIES[model_type(name)].heads]
)
def test_rates_are_where_transformers_has_them(variant: str, kind: str) -> None:
    family = FAMILIES[model_type(variant)]
    raw = {**sizes(variant, kind), **RATES.get(family.name, USUAL)}
    config = transformers.AutoConfig.for_model(family.name, **raw)
    expected = theirs(getattr(transformers, family.heads[kind].architecture)(config), family.name)
    network = family.build(family.read(raw), kind, CLASSES)
    found = Counter(round(part.rate, 3) for part in network.modules() if isinstance(part, Dropout) and part.rate > 0)
    found += Counter(
        round(part.dropout, 3) for part in network.modules() if isinstance(part, Attention) and part.dropout > 0
    )
    if family.name == "deberta-v2":
        # there each layer drops the table of relative positions by a module of its own, and so does the convolution
        found[0.21] += network.config.layers - 1 + (network.config.block.convolution is not None)
    assert found == expected
