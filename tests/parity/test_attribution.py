"""Integrated gradients are captum's, token by token, on transformers' own BERT of the same checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.inspect.attribution import attribution

captum = pytest.importorskip("captum.attr")
transformers = pytest.importorskip("transformers")

CLOSE = 1e-5  # of the largest value: fp32 sums over 64 gradients


@pytest.mark.parametrize("text", ["w1 good w2 w3", "w4 w5 bad, dull w6 w7 w8 w9 w10 strong"])
@pytest.mark.parametrize("steps", [8, 64])
def test_integrated_gradients_are_captums(trained: Path, text: str, steps: int) -> None:
    ours = cl.load(trained)
    theirs = transformers.BertForSequenceClassification.from_pretrained(trained).eval()
    (sequence,) = ours.tokenizer.encode([text])[0].sequences
    ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
    content = torch.from_numpy(sequence.source >= 0)
    blank = torch.where(content, torch.tensor(ours.tokenizer.pad_id), ids)
    mask = torch.ones_like(ids)

    def forward(ids: torch.Tensor) -> Any:
        return theirs(input_ids=ids, attention_mask=mask.expand_as(ids)).logits

    method = captum.LayerIntegratedGradients(forward, theirs.bert.embeddings.word_embeddings)
    for target, label in enumerate(ours.labels):
        values, delta = method.attribute(
            ids, baselines=blank, target=target, n_steps=steps, return_convergence_delta=True
        )
        expected = values.sum(-1)[0].detach()
        found = attribution(ours, text, target=label, steps=steps, join=False, deletion=False)
        assert expected[~content].abs().max() == 0
        error = np.abs([word.value for word in found.words] - expected[content].numpy()).max()
        assert error < CLOSE * expected.abs().max().item(), f"{error:.1e}"
        assert found.gap == pytest.approx(abs(delta.item()), abs=1e-4)
