"""MPNet (Song et al. 2020), the encoder of all-mpnet-base-v2: BERT with one score for each head and bucket of distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clozeline.config import Bucketed, EncoderConfig
from clozeline.families.bert import CLASSIFIER, EMBEDDINGS, FIELDS, LAYERS, POOLER, SPANS
from clozeline.families.family import LEFT_OUT, Family, linear, stacked, with_defaults
from clozeline.families.heads import masked, none_dropped, pooler, sequence, standard, tokens
from clozeline.families.roberta import MASKED_LM, SEQUENCE, TIED
from clozeline.model.heads import Pooler

OFFSET = 2  # of the first position in the table; the model's own code has it fixed
ATTENTION = (
    ("embedding.positions.scores.weight", "encoder.relative_attention_bias.weight"),
    *stacked("layers.{}.attention.qkv", *(f"encoder.layer.{{}}.attention.attn.{part}" for part in "qkv")),
    *linear("layers.{}.attention.out", "encoder.layer.{}.attention.attn.o"),
    *linear("layers.{}.attention_norm", "encoder.layer.{}.attention.LayerNorm"),
)


def _read(raw: Mapping[str, Any]) -> dict[str, Any]:
    buckets = raw.get("relative_attention_num_buckets", 32)
    return {
        "segments": 0,
        "max_length": raw.get("max_position_embeddings", 512) - OFFSET,
        "positions": Bucketed(OFFSET, buckets),
    }


def _write(config: EncoderConfig) -> dict[str, Any]:
    assert isinstance(config.positions, Bucketed)
    rows = config.max_length + OFFSET
    return {"max_position_embeddings": rows, "relative_attention_num_buckets": config.positions.buckets}


MPNET = Family(
    name="mpnet",
    prefix="mpnet.",
    base=("embeddings.", "encoder.", "pooler."),
    fields=with_defaults(FIELDS, vocab_size=30527, segments=LEFT_OUT, pad_id=1, head_dropout=LEFT_OUT),
    # the published code makes its buckets for 32, whatever the table's size
    only={"relative_attention_num_buckets": (32,)},
    names=(*EMBEDDINGS, *LAYERS, *ATTENTION),
    heads=standard(
        "MPNet",
        base=(pooler, linear("dense", "pooler.dense")),
        sequence=(sequence(lambda config: Pooler(config, drop=config.dropout)), SEQUENCE),
        tokens=(tokens(), CLASSIFIER),
        spans=(tokens(classes=2, drop=none_dropped), SPANS),
        choice=(sequence(classes=1), (*POOLER, *CLASSIFIER)),
        masked_lm=(masked("gelu"), MASKED_LM),
        tied=TIED,
    ),
    published={"mpnet-base": {"layer_norm_eps": 1e-5, "max_position_embeddings": 514}},
    ignored=("embeddings.position_ids",),
    read_more=_read,
    write_more=_write,
)
