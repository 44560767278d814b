"""DeBERTa-v2 and v3 (He et al. 2021, 2023), mDeBERTa: scores between content and relative position, no position table.

Only v2 has the convolution. v1 stacks its projections head by head and has more of them; it is not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clozeline.config import Block, Convolution, Disentangled, EncoderConfig
from clozeline.families import family as files
from clozeline.families.bert import CLASSIFIER, EMBEDDINGS, FIELDS, LAYERS, MASKED_LM, POOLER, SPANS, TIED
from clozeline.families.family import LEFT_OUT, Family, linear, stacked, unsupported, with_defaults
from clozeline.families.heads import as_encoder, masked, no_head, none_dropped, sequence, standard, tokens
from clozeline.model.heads import Pooler

QKV = ("query", "key", "value")
NAMES = (
    *EMBEDDINGS,
    *LAYERS,
    ("embedding.positions.table.weight", "encoder.rel_embeddings.weight"),
    *linear("embedding.positions.norm", "encoder.LayerNorm"),
    *linear("layers.0.convolve", "encoder.conv.conv"),
    *linear("layers.0.convolve_norm", "encoder.conv.LayerNorm"),
    *stacked("layers.{}.attention.qkv", *(f"encoder.layer.{{}}.attention.self.{part}_proj" for part in QKV)),
)
# what a key means where config.json leaves it out, which no published model wants, and what is served
NEEDED: dict[str, tuple[object, tuple[object, ...]]] = {
    "relative_attention": (False, (True,)),
    "position_biased_input": (True, (False,)),
    "share_att_key": (False, (True,)),
    "norm_rel_ebd": ("none", ("none", "layer_norm")),
}
BASE = {"relative_attention": True, "position_biased_input": False, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
BASE |= {"position_buckets": 256, "pos_att_type": "p2c|c2p"}


def _read(raw: Mapping[str, Any]) -> dict[str, Any]:
    for key, (meant, served) in NEEDED.items():
        if (value := raw.get(key, meant)) not in served:
            raise unsupported(key, value, served)
    width = raw.get("hidden_size", 768)
    if other := next((key for key in ("embedding_size", "pooler_hidden_size") if raw.get(key, width) != width), None):
        raise unsupported(other, raw[other], (width,))
    kinds = raw.get("pos_att_type") or ()
    kinds = set(kinds.lower().split("|") if isinstance(kinds, str) else kinds)
    if not kinds or not kinds <= {"c2p", "p2c"}:
        raise unsupported("pos_att_type", raw.get("pos_att_type"), ("c2p", "p2c", "p2c|c2p"))
    reach, size = raw.get("max_relative_positions", -1), raw.get("conv_kernel_size", 0)
    beside = Convolution(size, raw.get("conv_groups", 1), files.activation(raw, "conv_act", "tanh")) if size else None
    scheme = Disentangled(
        buckets=max(0, raw.get("position_buckets", -1)),
        reach=reach if reach > 0 else raw.get("max_position_embeddings", 512),
        content_to_position="c2p" in kinds,
        position_to_content="p2c" in kinds,
        norm=raw.get("norm_rel_ebd", "none") == "layer_norm",
    )
    return {"positions": scheme, "block": Block(convolution=beside)}


def _write(config: EncoderConfig) -> dict[str, Any]:
    scheme, beside = config.positions, config.block.convolution
    assert isinstance(scheme, Disentangled)
    raw: dict[str, Any] = {key: served[0] for key, (_, served) in NEEDED.items()}
    raw |= {"norm_rel_ebd": "layer_norm" if scheme.norm else "none", "max_relative_positions": scheme.reach}
    raw |= {"position_buckets": scheme.buckets or -1, "legacy": True}
    raw["pos_att_type"] = ["p2c"] * scheme.position_to_content + ["c2p"] * scheme.content_to_position
    if beside is not None:
        raw |= {"conv_kernel_size": beside.size, "conv_groups": beside.groups}
        raw["conv_act"] = files.activation_name(beside.activation)
    return raw


DEBERTA = Family(
    name="deberta-v2",
    prefix="deberta.",
    base=("embeddings.", "encoder."),
    fields=(
        *with_defaults(FIELDS, vocab_size=128100, segments=0, norm_eps=1e-7, head_dropout=LEFT_OUT),
        ("head_dropout", "cls_dropout", None),
    ),
    only={"pooler_dropout": (0,), "pooler_hidden_act": ("gelu",)},
    names=NAMES,
    heads=standard(
        "DebertaV2",
        base=(no_head, ()),
        sequence=(sequence(lambda config: Pooler(config, "gelu")), (*POOLER, *CLASSIFIER)),
        tokens=(tokens(drop=as_encoder), CLASSIFIER),
        spans=(tokens(classes=2, drop=none_dropped), SPANS),
        choice=(sequence(lambda config: Pooler(config, "gelu"), classes=1), (*POOLER, *CLASSIFIER)),
        masked_lm=(masked(), MASKED_LM),
        tied=TIED,
    ),
    published={"deberta-v3-base": BASE},
    ignored=("embeddings.position_ids",),
    renamed={
        "lm_predictions.lm_head.dense": "cls.predictions.transform.dense",
        "lm_predictions.lm_head.LayerNorm": "cls.predictions.transform.LayerNorm",
        "lm_predictions.lm_head.bias": "cls.predictions.bias",
    },
    foreign=("embeddings.position_embeddings.", "embeddings.word_embeddings._weight", "mask_predictions."),
    read_more=_read,
    write_more=_write,
)
