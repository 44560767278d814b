"""Attributions are captum's, token by token, on transformers' own BERT of the same checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.data import tagged
from clozeline.inspect.attribution import Attribution, Baseline, attribution
from clozeline.inspect.words import word_of
from helpers import as_trained

captum = pytest.importorskip("captum.attr")
transformers = pytest.importorskip("transformers")

CLOSE = 1e-5  # of the largest value: fp32 sums over 64 gradients
BASELINES: tuple[Baseline, ...] = ("pad", "mask")
each_text = pytest.mark.parametrize("text", ["w1 good w2 w3", "w4 w5 bad, dull w6 w7 w8 w9 w10 strong"])


class Peer:
    """A checkpoint here and in transformers, and a text. ids, blank: (1, L) the tokens, and with words replaced; content:
    (L,) False where a special token is."""

    def __init__(self, folder: Path, text: str, baseline: Baseline = "pad") -> None:
        self.ours, self.text, self.baseline = cl.load(folder), text, baseline
        self.theirs = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
        self.layer = self.theirs.bert.embeddings.word_embeddings
        tokenizer = self.ours.tokenizer
        (self.sequence,) = tokenizer.encode([text], offsets=True)[0].sequences
        self.ids = torch.from_numpy(self.sequence.ids.astype(np.int64))[None]
        self.content = torch.from_numpy(self.sequence.source >= 0)
        token = tokenizer.pad_id if baseline == "pad" else tokenizer.mask_id
        self.blank = torch.where(self.content, torch.tensor(token), self.ids)

    def __call__(self, ids: torch.Tensor) -> Any:
        return self.theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    def found(self, label: str, **how: Any) -> Attribution:
        return attribution(self.ours, self.text, target=label, baseline=self.baseline, deletion=False, **how)


def compare(found: Attribution, expected: torch.Tensor) -> None:
    error = np.abs([word.value for word in found.words] - expected.detach().numpy()).max()
    assert error < CLOSE * expected.abs().max().item(), f"{error:.1e}"


@each_text
@pytest.mark.parametrize("steps", [8, 64])
def test_integrated_gradients_are_captums(trained: Path, text: str, steps: int) -> None:
    peer = Peer(trained, text)
    method = captum.LayerIntegratedGradients(peer, peer.layer)
    for target, label in enumerate(peer.ours.labels):
        how: dict[str, Any] = dict(baselines=peer.blank, target=target, n_steps=steps)
        values, delta = method.attribute(peer.ids, **how, return_convergence_delta=True)
        expected, found = values.sum(-1)[0], peer.found(label, steps=steps, join=False)
        assert expected[~peer.content].abs().max() == 0
        compare(found, expected[peer.content])
        assert found.gap == pytest.approx(abs(delta.item()), abs=1e-4)


@each_text
@pytest.mark.parametrize("baseline", BASELINES)
def test_gradient_times_input_is_captums(trained: Path, text: str, baseline: Baseline) -> None:
    """Captum's has no baseline, as ours has none where the baseline's row is zero: of another, the same less its share."""
    peer = Peer(trained, text, baseline)
    method = captum.LayerGradientXActivation
    both, slope = (method(peer, peer.layer, multiply_by_inputs=each) for each in (True, False))
    for target, label in enumerate(peer.ours.labels):
        values, slopes = (each.attribute(peer.ids, target=target) for each in (both, slope))
        expected = (values - slopes * peer.layer(peer.blank)).sum(-1)[0]
        compare(peer.found(label, method="gradient_x_input", join=False), expected[peer.content])


@each_text
@pytest.mark.parametrize("baseline", BASELINES)
def test_occlusion_is_captums(trained: Path, text: str, baseline: Baseline) -> None:
    peer = Peer(trained, text, baseline)
    for target, label in enumerate(peer.ours.labels):
        how: dict[str, Any] = dict(baselines=peer.blank, target=target)
        expected = captum.Occlusion(peer).attribute(peer.ids, sliding_window_shapes=(1,), **how)[0]
        compare(peer.found(label, method="occlusion", join=False), expected[peer.content])


def test_occlusion_of_words_of_several_pieces_is_captums_feature_ablation(minilm: Path, tmp_path: Path) -> None:
    fresh = cl.load(minilm, cl.TextClassification(labels=["bad", "good"]))._bundle
    peer = Peer(as_trained(fresh, tmp_path), "An unwatchable, plotless mess of a film")
    assert peer.sequence.offsets is not None
    words = word_of([tagged.words(peer.text)], peer.sequence.offsets, peer.sequence.source)
    first = np.unique(words, return_index=True)[1][1:]
    assert len(first) < peer.content.sum()
    groups = torch.from_numpy(words)[None] + 1  # those of special tokens stay as they are, together
    expected = captum.FeatureAblation(peer).attribute(peer.ids, peer.blank, target=1, feature_mask=groups)[0]
    compare(peer.found("good", method="occlusion"), expected[first])
