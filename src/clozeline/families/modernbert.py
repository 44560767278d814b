"""ModernBERT (Warner et al. 2024): rotary positions, windows in two of three layers, norms first, gated, no biases.

`config.json` spells layers and wavelengths in two ways, as numbers or as a list and a table; both are read and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from clozeline.config import Block, EncoderConfig, Rotary
from clozeline.families.bert import CLASSIFIER, FIELDS
from clozeline.families.family import LEFT_OUT, Family, Names, linear, unsupported, with_defaults
from clozeline.families.heads import masked, no_head, sequence, standard, tokens
from clozeline.model.heads import Pooler, Transform

LAYERS: Names = (
    ("embedding.tokens.weight", "embeddings.tok_embeddings.weight"),
    *linear("embedding.norm", "embeddings.norm"),
    *linear("layers.{}.attention.qkv", "layers.{}.attn.Wqkv"),
    *linear("layers.{}.attention.out", "layers.{}.attn.Wo"),
    *linear("layers.{}.attention_norm", "layers.{}.attn_norm"),
    *linear("layers.{}.ffn.up", "layers.{}.mlp.Wi"),
    *linear("layers.{}.ffn.down", "layers.{}.mlp.Wo"),
    *linear("layers.{}.ffn_norm", "layers.{}.mlp_norm"),
    *linear("norm", "final_norm"),
)
POOLED: Names = (*linear("pooler.dense", "head.dense"), *linear("pooler.norm", "head.norm"), *CLASSIFIER)
BEFORE: Names = (*linear("transform.dense", "head.dense"), *linear("transform.norm", "head.norm"))
FULL, LOCAL = "full_attention", "sliding_attention"
POOLER = partial(Pooler, activation="gelu", norm=True)
TRANSFORM = partial(Transform, activation="gelu", norm=True)
FIXED = {
    "segments": 0,
    "block": Block(norm_first=True, gated=True, bias=False),
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
KEYS = ("global_rope_theta", "local_rope_theta")
MOVED = dict.fromkeys(("segments", "activation", "norm_eps", "dropout", "attention_dropout", "head_dropout"), LEFT_OUT)


def _theta(raw: Mapping[str, Any], kind: str, older: str, default: float) -> float:
    found = (raw.get("rope_parameters") or {}).get(kind) or {}
    if (rope := found.get("rope_type", "default")) != "default":
        raise unsupported(f"rope_parameters.{kind}.rope_type", rope, ("default",))
    return float(found.get("rope_theta", raw.get(older, default)))


def _read(raw: Mapping[str, Any]) -> dict[str, Any]:
    layers, every = raw.get("num_hidden_layers", 22), raw.get("global_attn_every_n_layers", 3)
    kinds = raw.get("layer_types") or [LOCAL if number % every else FULL for number in range(layers)]
    if unknown := set(kinds) - {FULL, LOCAL}:
        raise unsupported("layer_types", unknown.pop(), (FULL, LOCAL))
    window = raw.get("local_attention", 128) // 2
    turns = Rotary(_theta(raw, FULL, KEYS[0], 160_000.0), _theta(raw, LOCAL, KEYS[1], 10_000.0))
    pool = "mean" if raw.get("classifier_pooling") == "mean" else "first"
    windows = tuple(window if kind == LOCAL else None for kind in kinds)
    return {**FIXED, "pool": pool, "positions": turns, "windows": windows}


def _write(config: EncoderConfig) -> dict[str, Any]:
    assert isinstance(config.positions, Rotary)
    thetas = {FULL: config.positions.theta, LOCAL: config.positions.local_theta}
    full = [number for number, window in enumerate(config.windows) if window is None]
    every = [*full, config.layers, config.layers][1]
    raw = {
        "layer_types": [FULL if window is None else LOCAL for window in config.windows],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
        "local_attention": 2 * next((window for window in config.windows if window is not None), 64),
        "classifier_pooling": "mean" if config.pool == "mean" else "cls",
    }
    if full == [*range(0, config.layers, every)]:  # what the older spelling can say
        raw |= {"global_attn_every_n_layers": every, **dict(zip(KEYS, thetas.values(), strict=True))}
    return raw


MODERNBERT = Family(
    name="modernbert",
    prefix="model.",
    base=("embeddings.", "layers.", "final_norm."),
    fields=(
        *with_defaults(FIELDS, vocab_size=50368, layers=22, ffn_width=1152, max_length=8192, pad_id=50283, **MOVED),
        ("activation", "hidden_activation", "gelu"),
        ("norm_eps", "norm_eps", 1e-5),
        ("head_dropout", "classifier_dropout", 0.0),
    ),
    only={
        **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "rope_scaling"), (False, None)),
        **dict.fromkeys(("attention_dropout", "embedding_dropout", "mlp_dropout"), (0.0,)),
        "classifier_activation": ("gelu",),
        "classifier_pooling": ("cls", "mean"),
        "decoder_bias": (True,),
    },
    names=LAYERS,
    heads=standard(
        "ModernBert",
        base=(no_head, ()),
        sequence=(sequence(POOLER), POOLED),
        tokens=(tokens(transform=TRANSFORM), (*BEFORE, *CLASSIFIER)),
        spans=(tokens(classes=2, transform=TRANSFORM), (*BEFORE, *CLASSIFIER)),
        choice=(sequence(POOLER, classes=1), POOLED),
        masked_lm=(masked("gelu"), (*BEFORE, ("bias", "decoder.bias"))),
        tied={"decoder.weight": "embeddings.tok_embeddings.weight"},
    ),
    published={"modernbert-base": {}},
    read_more=_read,
    write_more=_write,
)
