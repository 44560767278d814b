"""What every family must do: the cases, what transformers gives for them, and how it is compared with what is given here.

Weights are a function of their names, so that a golden file holds results only and no weights.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from clozeline import checkpoint
from clozeline.batch import Layout, Packed
from clozeline.families import FAMILIES
from clozeline.families.family import Family
from clozeline.model.heads import MaskedLMHead, Network, PretrainingHead
from helpers import pad, real

CLASSES = 3
LENGTHS = (9, 40, 1, 33, 2, 36)  # 40 is all that the models read
VOCABULARY = 90
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
BEHIND_PADDING = {"max_position_embeddings": 42, "pad_token_id": 1}  # positions that start at 2
DEBERTA = {
    "relative_attention": True,
    "position_biased_input": False,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "max_relative_positions": -1,
}
MODERNBERT = {"num_hidden_layers": 5, "local_attention": 12}  # windows of 6: below, at and above the lengths

VARIANTS: dict[str, dict[str, Any]] = {
    "bert": {},
    "bert-gelu_new": {"hidden_act": "gelu_new"},
    "bert-relu": {"hidden_act": "relu", "type_vocab_size": 1},
    "roberta": {"type_vocab_size": 1, **BEHIND_PADDING},
    "xlm-roberta": {"type_vocab_size": 1, **BEHIND_PADDING},
    "camembert": {"type_vocab_size": 1, **BEHIND_PADDING},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "albert": {"embedding_size": 12, "num_hidden_layers": 3},
    "albert-groups": {"embedding_size": 12, "num_hidden_layers": 5, "num_hidden_groups": 2, "hidden_act": "gelu"},
    "electra": {"embedding_size": 12},
    "electra-equal": {"embedding_size": 32},
    "deberta-v2": DEBERTA,
    "deberta-v2-convolution": {**DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 2},
    "deberta-v2-plain": {**DEBERTA, "position_buckets": -1, "norm_rel_ebd": "none", "pos_att_type": ["c2p"]},
    "deberta-v2-p2c": {**DEBERTA, "max_relative_positions": 20, "pos_att_type": ["p2c"], "type_vocab_size": 2},
    "modernbert": MODERNBERT,
    "modernbert-mean": {**MODERNBERT, "classifier_pooling": "mean", "local_attention": 32},
    "mpnet": BEHIND_PADDING,
}


def model_type(variant: str) -> str:
    """The family of a variant: the longest `model_type` that its name begins with."""
    return max((name for name in FAMILIES if variant.startswith(name)), key=len)


def sizes(variant: str, kind: str = "base") -> dict[str, Any]:
    """The entries of `config.json` that the variant asks for."""
    classes = 2 if kind in ("question_answering", "pretraining") else CLASSES
    return {**SMALL, "num_labels": classes, **VARIANTS[variant]}


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights from a name: none at 0 or 1, and so large that every layer bends what it is given."""
    random = np.random.RandomState(zlib.crc32(name.encode()))  # whose stream numpy will never change
    values = torch.from_numpy(random.standard_normal(shape)).float()
    return 1 + 0.1 * values if "norm" in name.lower() and name.endswith("weight") else 0.2 * values


def batch_of(variant: str) -> Packed:
    """Sequences of uneven length, in two segments where the family tells them apart."""
    random = np.random.RandomState(5)
    ids = [random.randint(2, VOCABULARY, length) for length in LENGTHS]  # 0 and 1 are padding somewhere
    segments = [(np.arange(length) >= (2 * length + 2) // 3).astype(np.int64) for length in LENGTHS]
    two = sizes(variant).get("type_vocab_size", 2 if model_type(variant) in ("bert", "albert", "electra") else 0) > 1
    return Packed.of(ids, segments if two else None)


def padded_inputs(batch: Packed) -> dict[str, Tensor]:
    """The batch as padded code wants it."""
    inputs = {"input_ids": pad(batch.ids, batch.layout), "attention_mask": real(batch.layout).long()}
    return inputs if batch.segments is None else {**inputs, "token_type_ids": pad(batch.segments, batch.layout)}


def mixed(outputs: list[Tensor]) -> Tensor:
    """A random mix of all values, the same for equal shapes."""
    random = np.random.RandomState(3)
    parts = [(out * torch.from_numpy(random.standard_normal(out.shape)).to(out)).sum() for out in outputs]
    return torch.stack(parts).sum()


def theirs(model: Any, kind: str, batch: Packed) -> list[Tensor]:
    """What a transformers model gives at real tokens: each layer's states (T, D), and after them what the head gives."""
    inputs, here = padded_inputs(batch), real(batch.layout)
    if kind == "multiple_choice":
        inputs = {name: value[None] for name, value in inputs.items()}
    found = model(**inputs, output_hidden_states=True)
    states = [state.view(*here.shape, -1)[here] for state in found.hidden_states]
    if kind == "base":
        return states if found.get("pooler_output") is None else [*states, found.pooler_output]
    if kind == "question_answering":
        return [*states, torch.stack([found.start_logits, found.end_logits], -1)[here]]
    if kind == "pretraining":
        pair = found.sop_logits if "sop_logits" in found else found.seq_relationship_logits
        return [*states, found.prediction_logits[here], pair]
    if kind == "multiple_choice":
        return [*states, found.logits.T]
    if kind == "replaced_token":
        return [*states, found.logits[here][:, None]]
    return [*states, found.logits[here] if found.logits.dim() == 3 else found.logits]


def ours(network: Network, batch: Packed) -> list[Tensor]:
    """What a network here gives, in the same order."""
    states = list(network.encoder.states(batch))
    everywhere = torch.arange(batch.layout.tokens)
    if network.head is None:
        return states
    if isinstance(network.head, PretrainingHead):
        return [*states, *network.head(states[-1], batch.layout, everywhere)]
    where: Tensor | Layout = everywhere if isinstance(network.head, MaskedLMHead) else batch.layout
    return [*states, network.head(states[-1], where)]


def gradients(family: Family, network: Network, kind: str) -> Iterator[tuple[list[str], Tensor]]:
    """Each parameter's gradient, and the names of the tensors that hold the parameter in a checkpoint."""
    parameters = dict(network.named_parameters())
    for name, parts in checkpoint.names(family, network, kind).items():
        grad = parameters[name].grad
        assert grad is not None, name
        yield [family.written(part, kind) for part in parts], grad


def sketch(x: Tensor) -> np.ndarray:
    """Two random directions of the last dimension, (..., 2), each as large as one value of x: what a golden file keeps."""
    random = np.random.RandomState(7)
    directions = torch.from_numpy(random.standard_normal((x.shape[-1], 2)) / x.shape[-1] ** 0.5)
    return (x.double() @ directions).float().numpy()


def write_checkpoint(folder: Path, raw: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    """A model folder from a `config.json` and the names and shapes of its tensors."""
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(
        {name: weight(name, tuple(shape)) for name, shape in shapes.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def reference(variant: str, kind: str) -> Any:
    """transformers' own model in its variant, with our weights."""
    import transformers

    family = FAMILIES[model_type(variant)]
    config = transformers.AutoConfig.for_model(family.name, **sizes(variant, kind))
    model = getattr(transformers, family.heads[kind].architecture)(config)
    with torch.no_grad():
        for name, parameter in untied(model, family.heads[kind].tied):
            parameter.copy_(weight(name, tuple(parameter.shape)))
    return model.eval()


def untied(model: Any, tied: Mapping[str, str]) -> list[tuple[str, torch.nn.Parameter]]:
    """A transformers model's parameters under the names that checkpoints have, each once."""
    return [(name, value) for name, value in model.named_parameters(remove_duplicate=False) if name not in tied]
