"""BERT (Devlin et al. 2019), and the models of its shape: MiniLM, BGE, E5 and GTE in their BERT form.

The names are those of Hugging Face's `config.json` and `model.safetensors`; the sizes are the published ones.
"""

from __future__ import annotations

from clozeline.config import EncoderConfig
from clozeline.families.family import Family, Head, Names
from clozeline.model.heads import MaskedLMHead, NextSentenceHead, Pooler, SequenceHead


def _linear(ours: str, theirs: str) -> Names:
    return tuple((f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias"))


def _qkv(part: str) -> tuple[str, ...]:
    return tuple(f"encoder.layer.{{}}.attention.self.{name}.{part}" for name in ("query", "key", "value"))


NAMES: Names = (
    ("embedding.tokens.weight", "embeddings.word_embeddings.weight"),
    ("embedding.positions.table.weight", "embeddings.position_embeddings.weight"),
    ("embedding.segments.weight", "embeddings.token_type_embeddings.weight"),
    *_linear("embedding.norm", "embeddings.LayerNorm"),
    ("layers.{}.attention.qkv.weight", _qkv("weight")),
    ("layers.{}.attention.qkv.bias", _qkv("bias")),
    *_linear("layers.{}.attention.out", "encoder.layer.{}.attention.output.dense"),
    *_linear("layers.{}.attention_norm", "encoder.layer.{}.attention.output.LayerNorm"),
    *_linear("layers.{}.ffn.up", "encoder.layer.{}.intermediate.dense"),
    *_linear("layers.{}.ffn.down", "encoder.layer.{}.output.dense"),
    *_linear("layers.{}.ffn_norm", "encoder.layer.{}.output.LayerNorm"),
)
POOLER = _linear("pooler.dense", "pooler.dense")
MASKED_LM: Names = (
    *_linear("dense", "cls.predictions.transform.dense"),
    *_linear("norm", "cls.predictions.transform.LayerNorm"),
    ("bias", "cls.predictions.bias"),
)
TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def _size(layers: int, width: int, vocab_size: int = 30522) -> EncoderConfig:
    return EncoderConfig(
        family="bert",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        heads=width // 64,
        ffn_width=4 * width,
        max_length=512,
    )


BERT = Family(
    name="bert",
    prefix="bert.",
    base=("embeddings.", "encoder.", "pooler."),
    fields=(
        ("vocab_size", "vocab_size", 30522),
        ("width", "hidden_size", 768),
        ("layers", "num_hidden_layers", 12),
        ("heads", "num_attention_heads", 12),
        ("ffn_width", "intermediate_size", 3072),
        ("max_length", "max_position_embeddings", 512),
        ("segments", "type_vocab_size", 2),
        ("activation", "hidden_act", "gelu"),
        ("norm_eps", "layer_norm_eps", 1e-12),
        ("dropout", "hidden_dropout_prob", 0.1),
        ("attention_dropout", "attention_probs_dropout_prob", 0.1),
        ("head_dropout", "classifier_dropout", None),
        ("init_std", "initializer_range", 0.02),
        ("pad_id", "pad_token_id", 0),
    ),
    only={"position_embedding_type": ("absolute",), "is_decoder": (False,), "add_cross_attention": (False,)},
    names=NAMES,
    heads={
        "base": Head("BertModel", lambda config, encoder, classes: Pooler(config), _linear("dense", "pooler.dense")),
        "text_classification": Head(
            "BertForSequenceClassification",
            lambda config, encoder, classes: SequenceHead(config, classes),
            (*POOLER, *_linear("classifier", "classifier")),
        ),
        "masked_lm": Head(
            "BertForMaskedLM",
            lambda config, encoder, classes: MaskedLMHead(config, encoder.embedding.tokens),
            MASKED_LM,
            also=("BertForPreTraining",),
            tied=TIED,
        ),
        "next_sentence": Head(
            "BertForNextSentencePrediction",
            lambda config, encoder, classes: NextSentenceHead(config),
            (*POOLER, *_linear("classifier", "cls.seq_relationship")),
        ),
    },
    presets={
        "bert-base-uncased": _size(12, 768),
        "bert-base-cased": _size(12, 768, vocab_size=28996),
        "bert-large-uncased": _size(24, 1024),
        "bert-mini-uncased": _size(4, 256),
        "bert-tiny-uncased": _size(2, 128),
    },
    ignored=("embeddings.position_ids",),
)
