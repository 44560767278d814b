"""ALBERT (Lan et al. 2020): one layer used again and again, a narrow token table, sentence order for next sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clozeline.config import Block, EncoderConfig
from clozeline.families.bert import CLASSIFIER, EMBEDDINGS, FIELDS, ONLY, SPANS
from clozeline.families.family import LEFT_OUT, Family, Head, Names, linear, stacked, with_defaults, within
from clozeline.families.heads import masked, none_dropped, pooler, sequence, standard, tokens
from clozeline.model.heads import Pooler, PretrainingHead, SequenceHead

LAYER = "encoder.albert_layer_groups.{}.albert_layers.0."
LAYERS: Names = (
    *linear("embedding.widen", "encoder.embedding_hidden_mapping_in"),
    *stacked("layers.{}.attention.qkv", *(LAYER + f"attention.{part}" for part in ("query", "key", "value"))),
    *linear("layers.{}.attention.out", LAYER + "attention.dense"),
    *linear("layers.{}.attention_norm", LAYER + "attention.LayerNorm"),
    *linear("layers.{}.ffn.up", LAYER + "ffn"),
    *linear("layers.{}.ffn.down", LAYER + "ffn_output"),
    *linear("layers.{}.ffn_norm", LAYER + "full_layer_layer_norm"),
)
POOLED: Names = (*linear("pooler.dense", "pooler"), *CLASSIFIER)
MASKED_LM: Names = (
    *linear("transform.dense", "predictions.dense"),
    *linear("transform.norm", "predictions.LayerNorm"),
    ("bias", "predictions.bias"),
)
ORDER: Names = (*linear("pooler.dense", "pooler"), *linear("classifier", "sop_classifier.classifier"))
TIED = {
    "predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "predictions.decoder.bias": "predictions.bias",
}


def _block(shared: int) -> Block:
    return Block(dropped=("embedding", "attention"), shared=shared)


def _more(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {"embedding_width": raw.get("embedding_size", 128), "block": _block(raw.get("num_hidden_groups", 1))}


def _write(config: EncoderConfig) -> dict[str, Any]:
    return {"embedding_size": config.table_width, "num_hidden_groups": config.distinct_layers, "inner_group_num": 1}


ALBERT = Family(
    name="albert",
    prefix="albert.",
    base=("embeddings.", "encoder.", "pooler."),
    fields=(
        *with_defaults(
            FIELDS,
            vocab_size=30000,
            width=4096,
            heads=64,
            ffn_width=16384,
            activation="gelu_new",
            dropout=0.0,
            attention_dropout=0.0,
            head_dropout=LEFT_OUT,
        ),
        ("head_dropout", "classifier_dropout_prob", 0.1),
    ),
    only={**ONLY, "inner_group_num": (1,)},
    names=(*EMBEDDINGS, *LAYERS),
    heads={
        **standard(
            "Albert",
            base=(pooler, linear("dense", "pooler")),
            sequence=(sequence(), POOLED),
            tokens=(tokens(), CLASSIFIER),
            spans=(tokens(classes=2, drop=none_dropped), SPANS),
            choice=(sequence(classes=1), POOLED),
            masked_lm=(masked(), MASKED_LM),
            tied=TIED,
            also=("AlbertForPreTraining",),
        ),
        "pretraining": Head(
            "AlbertForPreTraining",
            lambda config, encoder, classes: PretrainingHead(
                masked()(config, encoder, 0), SequenceHead(config, 2, Pooler(config))
            ),
            (*within("masked_lm", MASKED_LM), *within("pair", ORDER)),
            tied=TIED,
        ),
    },
    published={
        "albert-base-v2": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
        "albert-xxlarge-v2": {},
    },
    ignored=("embeddings.position_ids",),
    read_more=_more,
    write_more=_write,
)
