"""Pre-training losses and their gradients equal transformers' on the same weights and the same, padded, examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clozeline.batch import Packed
from clozeline.bundle import Bundle
from clozeline.checkpoint import names
from clozeline.config import EncoderConfig
from clozeline.data.documents import UNKNOWN
from clozeline.data.pretraining import Corrupted
from clozeline.families import by_name
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tasks.pretraining import MaskedAndPairs
from clozeline.tokenizer import Tokenizer
from helpers import pad, real

peer = pytest.importorskip("transformers")


def corrupted(config: EncoderConfig, lengths: list[int], seed: int) -> Corrupted:
    """Random pairs with some tokens chosen to be predicted."""
    random = np.random.default_rng(seed)
    ids = [random.integers(5, config.vocab_size, length) for length in lengths]
    segments = [(np.arange(length) > length // 2).astype(np.int64) for length in lengths]
    total = sum(lengths)
    chosen = np.sort(random.choice(total, total // 6, replace=False))
    targets = random.integers(5, config.vocab_size, len(chosen))
    pairs = random.integers(0, 2, len(lengths))
    return Corrupted(
        Packed.of(ids, segments), torch.from_numpy(chosen), torch.from_numpy(targets), torch.from_numpy(pairs)
    )


@pytest.mark.parametrize(
    ("family", "architecture"), [("bert", "BertForPreTraining"), ("albert", "AlbertForPreTraining")]
)
def test_masked_words_and_pairs_equal_the_reference_in_value_and_gradient(
    family: str, architecture: str, tiny: Path, tmp_path: Path
) -> None:
    made = by_name(family)
    config = next(iter(made.presets.values())).replace(
        vocab_size=61, width=32, layers=3, heads=4, ffn_width=64, max_length=64, dropout=0.0, attention_dropout=0.0
    )
    network = made.build(config, "pretraining", seed=1)
    Bundle("random", made, network, Tokenizer.load(tiny), MaskedLM(), []).save(tmp_path)
    theirs = getattr(peer, architecture).from_pretrained(tmp_path, attn_implementation="eager").eval()
    batch = corrupted(config, [17, 5, 40, 40, 9], seed=2)
    found = MaskedAndPairs(network.eval(), masked=True, pairs="nsp")(batch)
    ours = found["mlm"].loss / len(batch.targets) + found["nsp"].loss / batch.paired
    ours.backward()

    labels = torch.full_like(batch.packed.ids, UNKNOWN)
    labels[batch.chosen] = batch.targets
    layout = batch.packed.layout
    mask = real(layout)
    assert batch.packed.segments is not None and batch.pairs is not None
    inputs: dict[str, Any] = dict(
        input_ids=pad(batch.packed.ids, layout),
        token_type_ids=pad(batch.packed.segments, layout),
        attention_mask=mask.long(),
        labels=torch.where(mask, pad(labels, layout), UNKNOWN),
    )
    inputs["sentence_order_label" if family == "albert" else "next_sentence_label"] = batch.pairs
    reference = theirs(**inputs).loss
    reference.backward()
    assert ours.item() == pytest.approx(reference.item(), rel=1e-5)
    gradients = {name.removeprefix(made.prefix): part.grad for name, part in theirs.named_parameters()}
    parameters, compared = dict(network.named_parameters()), 0
    for own, their in names(made, network, "pretraining").items():
        expected = torch.cat([gradients[name] for name in their])
        found_here = parameters[own].grad
        assert found_here is not None
        scale = max(1.0, expected.abs().max().item())
        assert (found_here - expected).abs().max().item() <= 1e-5 * scale, own
        compared += 1
    assert compared == len(parameters)
