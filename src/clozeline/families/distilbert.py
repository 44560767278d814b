"""DistilBERT (Sanh et al. 2019): BERT with half the layers, no segments and no pooler; its heads have a ReLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clozeline.config import Block
from clozeline.families.bert import CLASSIFIER, EMBEDDINGS, SPANS
from clozeline.families.family import Family, Names, linear, stacked
from clozeline.families.heads import as_encoder, masked, no_head, sequence, standard, tokens
from clozeline.model.heads import Pooler

LAYER = "transformer.layer.{}."
LAYERS: Names = (
    *stacked("layers.{}.attention.qkv", *(LAYER + f"attention.{part}_lin" for part in "qkv")),
    *linear("layers.{}.attention.out", LAYER + "attention.out_lin"),
    *linear("layers.{}.attention_norm", LAYER + "sa_layer_norm"),
    *linear("layers.{}.ffn.up", LAYER + "ffn.lin1"),
    *linear("layers.{}.ffn.down", LAYER + "ffn.lin2"),
    *linear("layers.{}.ffn_norm", LAYER + "output_layer_norm"),
)
POOLED: Names = (*linear("pooler.dense", "pre_classifier"), *CLASSIFIER)
MASKED_LM: Names = (
    *linear("transform.dense", "vocab_transform"),
    *linear("transform.norm", "vocab_layer_norm"),
    ("bias", "vocab_projector.bias"),
)
SPANS_DROPOUT = 0.1
BLOCK = Block(dropped=("embedding", "ffn"))


def _more(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {"segments": 0, "norm_eps": 1e-12, "block": BLOCK}


DISTILBERT = Family(
    name="distilbert",
    prefix="distilbert.",
    base=("embeddings.", "transformer."),
    fields=(
        ("vocab_size", "vocab_size", 30522),
        ("width", "dim", 768),
        ("layers", "n_layers", 6),
        ("heads", "n_heads", 12),
        ("ffn_width", "hidden_dim", 3072),
        ("max_length", "max_position_embeddings", 512),
        ("activation", "activation", "gelu"),
        ("dropout", "dropout", 0.1),
        ("attention_dropout", "attention_dropout", 0.1),
        ("head_dropout", "seq_classif_dropout", 0.2),
        ("init_std", "initializer_range", 0.02),
        ("pad_id", "pad_token_id", 0),
    ),
    only={"qa_dropout": (SPANS_DROPOUT,)},
    names=(*EMBEDDINGS, *LAYERS),
    heads=standard(
        "DistilBert",
        base=(no_head, ()),
        sequence=(sequence(lambda config: Pooler(config, "relu")), POOLED),
        tokens=(tokens(drop=as_encoder), CLASSIFIER),
        spans=(tokens(classes=2, drop=lambda config: SPANS_DROPOUT), SPANS),
        choice=(sequence(lambda config: Pooler(config, "relu"), classes=1), POOLED),
        masked_lm=(masked(), MASKED_LM),
        tied={"vocab_projector.weight": "embeddings.word_embeddings.weight"},
    ),
    published={"distilbert-base-uncased": {}},
    ignored=("embeddings.position_ids",),
    prunable=True,
    read_more=_more,
)
