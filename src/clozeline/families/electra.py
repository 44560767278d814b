"""ELECTRA (Clark et al. 2020): BERT trained to tell which tokens a small generator replaced.

Discriminator and generator are the same encoder in two sizes; the narrow token table is widened where the sizes differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clozeline.config import EncoderConfig
from clozeline.families.bert import CLASSIFIER, EMBEDDINGS, FIELDS, LAYERS, ONLY, SPANS
from clozeline.families.family import Family, Head, Names, linear, with_defaults
from clozeline.families.heads import masked, no_head, none_dropped, sequence, standard, tokens
from clozeline.families.roberta import SEQUENCE
from clozeline.model.heads import Pooler, Transform, head_dropout

MASKED_LM: Names = (
    *linear("transform.dense", "generator_predictions.dense"),
    *linear("transform.norm", "generator_predictions.LayerNorm"),
    ("bias", "generator_lm_head.bias"),
)
SUMMARY_DROPOUT = 0.1


def _read(raw: Mapping[str, Any]) -> dict[str, Any]:
    narrow, width = raw.get("embedding_size", 128), raw.get("hidden_size", 256)
    return {"embedding_width": None if narrow == width else narrow}


def _write(config: EncoderConfig) -> dict[str, Any]:
    return {"embedding_size": config.table_width}


ELECTRA = Family(
    name="electra",
    prefix="electra.",
    base=("embeddings.", "embeddings_project.", "encoder."),
    fields=with_defaults(FIELDS, width=256, heads=4, ffn_width=1024),
    only={
        **ONLY,
        "summary_type": ("first",),
        "summary_use_proj": (True,),
        "summary_activation": ("gelu",),
        "summary_last_dropout": (SUMMARY_DROPOUT,),
    },
    names=(*EMBEDDINGS, *linear("embedding.widen", "embeddings_project"), *LAYERS),
    heads={
        **standard(
            "Electra",
            base=(no_head, ()),
            sequence=(sequence(lambda config: Pooler(config, "gelu", drop=head_dropout(config))), SEQUENCE),
            tokens=(tokens(), CLASSIFIER),
            spans=(tokens(classes=2, drop=none_dropped), SPANS),
            choice=(
                sequence(lambda config: Pooler(config, "gelu"), classes=1, drop=lambda config: SUMMARY_DROPOUT),
                (*linear("pooler.dense", "sequence_summary.summary"), *CLASSIFIER),
            ),
            masked_lm=(masked("gelu"), MASKED_LM),
            tied={"generator_lm_head.weight": "embeddings.word_embeddings.weight"},
        ),
        "replaced_token": Head(
            "ElectraForPreTraining",
            tokens(
                classes=1,
                drop=none_dropped,
                transform=lambda config: Transform(config, config.activation),
            ),
            (
                *linear("transform.dense", "discriminator_predictions.dense"),
                *linear("classifier", "discriminator_predictions.dense_prediction"),
            ),
        ),
    },
    published={
        "electra-small-discriminator": {},
        "electra-base-discriminator": {
            "embedding_size": 768,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    },
    ignored=("embeddings.position_ids",),
    prunable=True,
    read_more=_read,
    write_more=_write,
)
