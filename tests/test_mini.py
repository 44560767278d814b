"""The encoder in this package: it loads without a network, reads English, and is what transformers reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import clozeline as cl
from clozeline import checkpoint

NAME = "clozeline/mini"
LARGEST = 20 * 2**20
SENTENCES = ["The capital of France is [MASK].", "She opened the [MASK] and went out.", "It was a very [MASK] film."]


def test_it_is_as_small_and_as_shaped_as_it_says() -> None:
    folder = checkpoint.find(NAME)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST
    config = cl.load(NAME).config
    assert (config.family, config.layers, config.width, config.heads, config.max_length) == ("bert", 4, 256, 4, 512)
    assert 15_000 <= config.vocab_size <= 17_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "WikiText-2" in card and "license:" in card and "not" in card


def test_it_reads_english(data: Path, tmp_path: Path) -> None:
    """Far better than words by their frequency alone, which finds about one masked word in twenty."""
    lines = (data / "pretrain" / "wikitext-2-test.txt").read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if len(line) > 200][:60]
    (tmp_path / "texts.txt").write_text("\n\n".join(texts), encoding="utf-8")
    model = cl.load(NAME)
    assert model.evaluate(tmp_path / "texts.txt").as_dict()["accuracy"] > 0.25
    right, wrong = model.pseudo_log_likelihood(["The man walked into the room.", "The man walk into room the."])
    assert right > wrong


def test_all_of_its_positions_were_trained() -> None:
    assert {region.state for region in cl.inspect.positions(cl.load(NAME)).regions} <= {"trained", "copies"}


def test_transformers_reads_it() -> None:
    transformers = pytest.importorskip("transformers")
    folder = checkpoint.find(NAME)
    peer, words = (
        kind.from_pretrained(folder) for kind in (transformers.BertForPreTraining, transformers.AutoTokenizer)
    )
    model = cl.load(NAME)
    for text in SENTENCES:
        read = words(text, return_tensors="pt")
        with torch.inference_mode():
            scores = peer.float().eval()(**read).prediction_logits[0]
        at = int((read["input_ids"][0] == words.mask_token_id).nonzero())
        best = model.fill_mask(text, top=5)[0]
        found = [
            (words.convert_ids_to_tokens(int(each)), float(scores[at].softmax(-1)[each]))
            for each in scores[at].topk(5)[1]
        ]
        assert [one.token for one in best] == [token for token, _ in found]
        torch.testing.assert_close(
            torch.tensor([one.score for one in best]), torch.tensor([score for _, score in found])
        )
