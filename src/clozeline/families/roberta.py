"""RoBERTa (Liu et al. 2019) and its like: XLM-RoBERTa (Conneau et al. 2020) and CamemBERT (Martin et al. 2020).

BERT with positions that start behind the padding token's id, one segment, and heads of another make. The multilingual forms
of E5, GTE and BGE are XLM-RoBERTa as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clozeline.config import EncoderConfig, Learned
from clozeline.families.bert import CLASSIFIER, EMBEDDINGS, FIELDS, LAYERS, ONLY, POOLER, SPANS
from clozeline.families.family import Family, Names, linear, with_defaults
from clozeline.families.heads import as_encoder, masked, none_dropped, pooler, sequence, standard, tokens
from clozeline.model.heads import Pooler, head_dropout

MASKED_LM: Names = (
    *linear("transform.dense", "lm_head.dense"),
    *linear("transform.norm", "lm_head.layer_norm"),
    ("bias", "lm_head.bias"),
)
TIED = {"lm_head.decoder.weight": "embeddings.word_embeddings.weight", "lm_head.decoder.bias": "lm_head.bias"}
SEQUENCE: Names = (
    *linear("pooler.dense", "classifier.dense"),
    *linear("classifier", "classifier.out_proj"),
)


def read_positions(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The table's first rows, up to that of the padding token's id, are no positions."""
    offset = raw.get("pad_token_id", 1) + 1
    return {"max_length": raw.get("max_position_embeddings", 512) - offset, "positions": Learned(offset)}


def write_positions(config: EncoderConfig) -> dict[str, Any]:
    """The table's rows, those before the first position too."""
    assert isinstance(config.positions, Learned)
    return {"max_position_embeddings": config.max_length + config.positions.offset}


def _family(name: str, stem: str, published: Mapping[str, Mapping[str, Any]]) -> Family:
    return Family(
        name=name,
        prefix="roberta.",
        base=("embeddings.", "encoder.", "pooler."),
        fields=with_defaults(FIELDS, pad_id=1),
        only=ONLY,
        names=(*EMBEDDINGS, *LAYERS),
        heads=standard(
            stem,
            base=(pooler, linear("dense", "pooler.dense")),
            sequence=(sequence(lambda config: Pooler(config, drop=head_dropout(config))), SEQUENCE),
            tokens=(tokens(), CLASSIFIER),
            spans=(tokens(classes=2, drop=none_dropped), SPANS),
            choice=(sequence(classes=1, drop=as_encoder), (*POOLER, *CLASSIFIER)),
            masked_lm=(masked("gelu"), MASKED_LM),
            tied=TIED,
        ),
        published=published,
        ignored=("embeddings.position_ids",),
        prunable=True,
        read_more=read_positions,
        write_more=write_positions,
    )


BASE = {"layer_norm_eps": 1e-5, "max_position_embeddings": 514, "type_vocab_size": 1}
ROBERTA = _family("roberta", "Roberta", {"roberta-base": {**BASE, "vocab_size": 50265}})
XLM_ROBERTA = _family("xlm-roberta", "XLMRoberta", {"xlm-roberta-base": {**BASE, "vocab_size": 250002}})
CAMEMBERT = _family("camembert", "Camembert", {"camembert-base": {**BASE, "vocab_size": 32005}})
