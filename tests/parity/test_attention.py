"""Who reads whom is what transformers' eager attention says, for every family, kernel and length."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clozeline import checkpoint
from clozeline.inspect.tracing import record
from conformance import VARIANTS, batch_of, padded_inputs, reference

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("kernel", ["auto", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_of_transformers(variant: str, kernel: str, tmp_path: Path) -> None:
    model = reference(variant, "base")
    model.set_attn_implementation("eager")
    model.save_pretrained(tmp_path)
    network, batch = checkpoint.load(tmp_path, "base").network.eval(), batch_of(variant)
    network.encoder.use_kernel(kernel)
    with record(network.encoder) as seen, torch.no_grad():
        network.encoder(batch)
        expected = model(**padded_inputs(batch), output_attentions=True).attentions
    assert len(seen) == len(batch.layout.lengths)
    for number, reading in enumerate(seen):
        length = len(reading)
        assert length == batch.layout.lengths[number] and reading.layers == len(expected)
        for layer, theirs in enumerate(expected):
            found = torch.from_numpy(reading.weights(layer))
            torch.testing.assert_close(found, theirs[number, :, :length, :length], rtol=0, atol=1e-5)
            torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:2]), rtol=0, atol=1e-5)
            assert reading.gap(layer) < 2e-5, "and they are those that the kernel's output was made with"
