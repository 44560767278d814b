"""BERT here is BERT in transformers: hidden states, logits and gradients, tensors on disk, and published weights."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clozeline as cl
from clozeline import checkpoint
from clozeline.batch import Packed
from clozeline.data.readers import examples
from clozeline.families.bert import BERT
from clozeline.model.heads import MaskedLMHead, Network, SequenceHead
from clozeline.tasks.text_classification import TextClassification
from clozeline.tokenizer import Tokenizer
from helpers import pad, random_batch, real

transformers = pytest.importorskip("transformers")

CLOSE = 1e-5  # fp32: some tens of roundings of 6e-8 on values below 10
CLASSES = 3
LENGTHS = (9, 40, 1, 33, 2, 36)
SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,  # so large that every layer bends what it is given
    "num_labels": CLASSES,
}


def random_model(kind: str, activation: str = "gelu") -> Any:
    """transformers' own model with random weights, no weight or bias left at 0 or 1."""
    torch.manual_seed(0)
    model = getattr(transformers, BERT.heads[kind].architecture)(
        transformers.BertConfig(**SIZES, hidden_act=activation)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def padded_inputs(batch: Packed) -> dict[str, Tensor]:
    assert batch.segments is not None
    return {
        "input_ids": pad(batch.ids, batch.layout),
        "token_type_ids": pad(batch.segments, batch.layout),
        "attention_mask": real(batch.layout).long(),
    }


def theirs(model: Any, batch: Packed) -> list[Tensor]:
    """Every layer's hidden states at real tokens, and what the head gives (masked-LM logits at real tokens)."""
    found = model(**padded_inputs(batch), output_hidden_states=True)
    states = [state[real(batch.layout)] for state in found.hidden_states]
    result = found.pooler_output if "pooler_output" in found else found.logits
    return [*states, result[real(batch.layout)] if result.dim() == 3 else result]


def ours(network: Network, batch: Packed) -> list[Tensor]:
    states = list(network.encoder.states(batch))
    where = torch.arange(batch.layout.tokens) if isinstance(network.head, MaskedLMHead) else batch.layout
    assert network.head is not None
    return [*states, network.head(states[-1], where)]


def gradient_of(outputs: list[Tensor]) -> None:
    """Backward from a random mix of all outputs, the same mix for both."""
    random = torch.Generator().manual_seed(3)
    sum((out * torch.randn(out.shape, generator=random)).sum() for out in outputs).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("kind", BERT.heads)
def test_states_results_and_every_gradient_are_those_of_transformers(
    kind: str, activation: str, tmp_path: Path
) -> None:
    model = random_model(kind, activation)
    model.save_pretrained(tmp_path)
    loaded = checkpoint.load(tmp_path, kind, CLASSES)
    assert (loaded.fresh, loaded.unused) == ([], [])
    network = loaded.network.eval()
    batch = random_batch(network.config, LENGTHS)
    mine, other = ours(network, batch), theirs(model, batch)
    for found, expected in zip(mine, other, strict=True):
        torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)
    gradient_of(mine)
    gradient_of(other)
    expected_grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    table = BERT.table(network.config, kind)
    seen: set[str] = set()
    for name, parameter in network.named_parameters():
        full_names = [BERT.written(part, kind) for part in table[name]]
        seen.update(full_names)
        expected = torch.cat([expected_grads[part] for part in full_names])
        assert parameter.grad is not None
        assert expected.abs().max() > 0.01, f"{name} should matter"
        # relative to the largest gradient in the tensor: a small one is a difference of large ones
        error = (parameter.grad - expected).abs().max() / expected.abs().max()
        assert error < CLOSE, f"{name}: {error:.1e}"
    assert seen == set(expected_grads)


@pytest.mark.parametrize("kind", BERT.heads)
def test_what_is_saved_here_transformers_loads_bit_for_bit_without_a_name_left_over(kind: str, tmp_path: Path) -> None:
    config = BERT.read({"model_type": "bert", **SIZES})
    network = BERT.build(config, kind, CLASSES).eval()
    task = TextClassification(labels=["a", "b", "c"]) if kind == "text_classification" else None
    checkpoint.save(tmp_path, BERT, network, kind, {} if task is None else task.raw())
    kind_of_theirs = getattr(transformers, BERT.heads[kind].architecture)
    model, info = kind_of_theirs.from_pretrained(tmp_path, output_loading_info=True)
    assert {what: list(names) for what, names in info.items() if names} == {}
    tensors = model.state_dict()
    parameters = dict(network.named_parameters())
    for name, parts in BERT.table(config, kind).items():
        written = torch.cat([tensors[BERT.written(part, kind)] for part in parts])
        assert torch.equal(written, parameters[name]), name
    batch = random_batch(config, LENGTHS)
    with torch.no_grad():
        for found, expected in zip(ours(network, batch), theirs(model.eval(), batch), strict=True):
            torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)
    if task is not None:
        assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_there_and_back_through_transformers_changes_no_bit(tmp_path: Path) -> None:
    random_model("masked_lm").save_pretrained(tmp_path / "theirs")
    loaded = checkpoint.load(tmp_path / "theirs", "masked_lm")
    (tmp_path / "ours").mkdir()
    checkpoint.save(tmp_path / "ours", BERT, loaded.network, "masked_lm", {})
    back = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours")
    first = transformers.BertForMaskedLM.from_pretrained(tmp_path / "theirs").state_dict()
    assert all(torch.equal(value, first[name]) for name, value in back.state_dict().items())


@pytest.fixture(scope="module")
def real_texts(data: Path) -> list[str]:
    """200 texts, some of five tokens and some of more than the model reads."""
    reviews = (example.text for example in examples(data / "imdb" / "test.parquet", labelled=False, text="text"))
    phrases = (example.text for example in examples(data / "sst2" / "dev.tsv", labelled=False, text="sentence"))
    return [*itertools.islice(reviews, 8), *itertools.islice(phrases, 192)]


def states_of(model: Any, folder: Path, texts: list[str]) -> list[np.ndarray]:
    """transformers' last states of each text, in batches of ten of like length so that padding costs little."""
    ids = [text.sequences[0].ids for text in Tokenizer.load(folder, 512).encode(texts)]
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    assert (len(ids[order[0]]), len(ids[order[-1]])) == (7, 512)
    found: list[np.ndarray] = [np.empty(0)] * len(ids)
    for first in range(0, len(order), 10):
        chosen = order[first : first + 10]
        batch = Packed.of([ids[at] for at in chosen])
        inputs = {"input_ids": pad(batch.ids, batch.layout), "attention_mask": real(batch.layout).long()}
        states = model(**inputs).last_hidden_state.float()[real(batch.layout)]
        for at, rows in zip(chosen, batch.layout.split(states), strict=True):
            found[at] = rows.numpy()
    return found


@torch.inference_mode()
def test_a_real_checkpoint_gives_the_states_of_transformers_on_real_texts(minilm: Path, real_texts: list[str]) -> None:
    """fp32 within 1e-5; in bf16 at most twice transformers' own error, in the root of the mean square and at the worst."""
    truth = np.concatenate(states_of(transformers.BertModel.from_pretrained(minilm).eval(), minilm, real_texts))
    found = np.concatenate(cl.load(minilm).embed(real_texts, pool="tokens"))
    np.testing.assert_allclose(found, truth, rtol=CLOSE, atol=CLOSE)

    half = transformers.BertModel.from_pretrained(minilm, dtype=torch.bfloat16).eval()
    theirs = np.concatenate(states_of(half, minilm, real_texts)) - truth
    ours = np.concatenate(cl.load(minilm, precision="bf16").embed(real_texts, pool="tokens")) - truth
    assert 0 < np.sqrt((ours**2).mean()) <= 2 * np.sqrt((theirs**2).mean())
    assert np.abs(ours).max() <= 2 * np.abs(theirs).max()


def test_the_published_bert_tiny_gives_its_published_logits(data: Path) -> None:
    """The encoder and classifier of the published SST-2 model, fed one sentence's published embeddings."""
    weights = {
        name.removeprefix("bert."): torch.from_numpy(value)
        for name, value in np.load(data / "weights" / "bert-tiny-sst2-encoder.npz").items()
    }
    config = BERT.presets["bert-tiny-uncased"]
    network = BERT.build(config, "text_classification", 2).eval()
    table = BERT.table(config, "text_classification")
    assert {name for names in table.values() for name in names if not name.startswith("embeddings.")} == set(weights)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("encoder.embedding."):
                parameter.copy_(torch.cat([weights[part] for part in table[name]]))
        x_TD = torch.from_numpy(np.load(data / "weights" / "bert-tiny-sst2-parity-case.npz")["embeddings"])
        batch = random_batch(config, [len(x_TD)])
        for layer in network.encoder.layers:
            x_TD = layer(x_TD, batch.layout)
        assert isinstance(network.head, SequenceHead)
        logits = network.head(x_TD, batch.layout)
    # published with four decimals
    torch.testing.assert_close(logits, torch.tensor([[1.1193, -0.6809]]), rtol=0, atol=1e-4)
