"""BERT (Devlin et al. 2019), and the models of its shape: MiniLM, BGE, E5 and GTE in their BERT form.

The names are those of Hugging Face's `config.json` and `model.safetensors`; the sizes are the published ones.
"""

from __future__ import annotations

from clozeline.families.family import Family, Head, Names, linear, stacked, within
from clozeline.families.heads import masked, none_dropped, pooler, sequence, standard, tokens
from clozeline.model.heads import Pooler, PretrainingHead, SequenceHead

FIELDS = (
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
)
ONLY = {"position_embedding_type": ("absolute",), "is_decoder": (False,), "add_cross_attention": (False,)}
LAYER = "encoder.layer.{}."
LAYERS: Names = (
    *stacked("layers.{}.attention.qkv", *(LAYER + f"attention.self.{part}" for part in ("query", "key", "value"))),
    *linear("layers.{}.attention.out", LAYER + "attention.output.dense"),
    *linear("layers.{}.attention_norm", LAYER + "attention.output.LayerNorm"),
    *linear("layers.{}.ffn.up", LAYER + "intermediate.dense"),
    *linear("layers.{}.ffn.down", LAYER + "output.dense"),
    *linear("layers.{}.ffn_norm", LAYER + "output.LayerNorm"),
)
EMBEDDINGS: Names = (
    ("embedding.tokens.weight", "embeddings.word_embeddings.weight"),
    ("embedding.positions.table.weight", "embeddings.position_embeddings.weight"),
    ("embedding.segments.weight", "embeddings.token_type_embeddings.weight"),
    *linear("embedding.norm", "embeddings.LayerNorm"),
)
POOLER = linear("pooler.dense", "pooler.dense")
CLASSIFIER = linear("classifier", "classifier")
FOLLOWS: Names = (*POOLER, *linear("classifier", "cls.seq_relationship"))
SPANS = linear("classifier", "qa_outputs")
MASKED_LM: Names = (
    *linear("transform.dense", "cls.predictions.transform.dense"),
    *linear("transform.norm", "cls.predictions.transform.LayerNorm"),
    ("bias", "cls.predictions.bias"),
)
TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def _size(layers: int, width: int, vocab_size: int = 30522) -> dict[str, int]:
    sizes = {"hidden_size": width, "num_attention_heads": width // 64, "intermediate_size": 4 * width}
    return {"vocab_size": vocab_size, "num_hidden_layers": layers, **sizes}


BERT = Family(
    name="bert",
    prefix="bert.",
    base=("embeddings.", "encoder.", "pooler."),
    fields=FIELDS,
    only=ONLY,
    names=(*EMBEDDINGS, *LAYERS),
    heads={
        **standard(
            "Bert",
            base=(pooler, linear("dense", "pooler.dense")),
            sequence=(sequence(), (*POOLER, *CLASSIFIER)),
            tokens=(tokens(), CLASSIFIER),
            spans=(tokens(classes=2, drop=none_dropped), SPANS),
            choice=(sequence(classes=1), (*POOLER, *CLASSIFIER)),
            masked_lm=(masked(), MASKED_LM),
            tied=TIED,
            also=("BertForPreTraining",),
        ),
        "next_sentence": Head("BertForNextSentencePrediction", sequence(classes=2, drop=none_dropped), FOLLOWS),
        "pretraining": Head(
            "BertForPreTraining",
            lambda config, encoder, classes: PretrainingHead(
                masked()(config, encoder, 0), SequenceHead(config, 2, Pooler(config), dropout=0)
            ),
            (*within("masked_lm", MASKED_LM), *within("pair", FOLLOWS)),
            tied=TIED,
        ),
    },
    published={
        "bert-base-uncased": _size(12, 768),
        "bert-base-cased": _size(12, 768, vocab_size=28996),
        "bert-large-uncased": _size(24, 1024),
        "bert-mini-uncased": _size(4, 256),
        "bert-tiny-uncased": _size(2, 128),
    },
    ignored=("embeddings.position_ids",),
    prunable=True,
)
