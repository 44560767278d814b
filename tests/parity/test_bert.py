"""Real BERT weights give here what they give in transformers, or what was published with them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.batch import Packed
from clozeline.data.readers import examples
from clozeline.families.bert import BERT
from clozeline.model.heads import SequenceHead
from clozeline.tokenizer import Tokenizer
from helpers import pad, random_batch, real

transformers = pytest.importorskip("transformers")

CLOSE = 1e-5  # fp32: some tens of roundings of 6e-8 on values below 10


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
