"""Reading from left to right goes through the model's own bricks: nothing behind a token reaches it, in any family.

And what is built on it: words for a mask, the gap between both readings, and a text as pre-training shows it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clozeline as cl
from clozeline.batch import Packed
from clozeline.bundle import Bundle
from clozeline.data.corruption import Corruption, Masking
from clozeline.data.shuffle import mixed
from clozeline.errors import InputError
from clozeline.face import Model
from clozeline.families import FAMILIES
from clozeline.inspect.causal import causal_gap, left_only
from clozeline.inspect.figures import LINE, draw
from clozeline.inspect.masking import corruption, fill_mask
from clozeline.inspect.panels import Words
from clozeline.model.heads import MaskedLMHead, Network
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tokenizer import Tokenizer
from conformance import VARIANTS, model_type, sizes
from helpers import VOCABULARY, random_batch, reviews

NO_TEXT: Any = 3
NO_UNIT: Any = "page"
CPU = torch.device("cpu")
LENGTHS = (9, 40, 1, 33)
EXACT = 1e-12  # in float64


def network_of(variant: str, layers: int | None = None, kind: str = "base") -> Network:
    """In float64, with weights so large that what reaches a token shows."""
    family = FAMILIES[model_type(variant)]
    config = family.read(sizes(variant)).replace(vocab_size=len(VOCABULARY))
    if layers is not None:
        config = config.replace(layers=layers)
    network = family.build(config, kind)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return network.eval()


def model_of(tiny: Path, variant: str = "bert", network: Network | None = None) -> Model:
    network = network or network_of(variant, kind="masked_lm")
    family = FAMILIES[model_type(variant)]
    bundle = Bundle("tiny", family, network, Tokenizer.load(tiny, network.config.max_length), MaskedLM(), [])
    return Model(bundle, "fp32", CPU, 0)


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    return model_of(tiny)


@torch.inference_mode()
def read(network: Network, batch: Packed) -> tuple[Tensor, ...]:
    """The last states of each sequence."""
    return batch.layout.split(network.encoder(batch))


def changed(batch: Packed, sequence: int, place: int) -> Packed:
    """The batch with another token at a place of a sequence."""
    ids = batch.ids.clone()
    at = int(batch.layout.offsets[sequence]) + place
    ids[at] = (ids[at] + 7) % len(VOCABULARY)
    return Packed(ids, batch.layout, batch.segments)


@pytest.mark.parametrize("kernel", ["blocks", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_stands_behind_a_token_does_not_reach_it(variant: str, kernel: str) -> None:
    network = network_of(variant).double()
    batch = random_batch(network.config, LENGTHS)
    twin = left_only(network, torch.float64, CPU)
    twin.encoder.use_kernel(kernel)
    before, place = read(twin, batch), 20
    for sequence in (1, 3):
        after = read(twin, changed(batch, sequence, place))[sequence]
        assert (after[:place] - before[sequence][:place]).abs().max() < EXACT
        assert (after[place:] - before[sequence][place:]).abs().amax(1).min() > 1e-6 or network.config.windows
        both = read(network, batch)[sequence], read(network, changed(batch, sequence, place))[sequence]
        assert (both[1] - both[0])[:place].abs().max() > 1e-6  # the model itself does read it


@pytest.mark.parametrize("variant", ["bert", "deberta-v2-convolution", "modernbert", "mpnet"])
def test_the_model_itself_stays_as_it_is(variant: str) -> None:
    network = network_of(variant)
    batch = random_batch(network.config, LENGTHS)
    before = read(network, batch)
    left = read(left_only(network, torch.float32, CPU), batch)
    assert all(torch.equal(one, other) for one, other in zip(before, read(network, batch), strict=True))
    assert any((one - other).abs().max() > 1e-3 for one, other in zip(before, left, strict=True))
    # a token by itself has nothing behind it
    assert torch.allclose(before[2], left[2], atol=1e-5)


def test_with_one_layer_the_last_token_sees_the_same_either_way_and_no_other_does() -> None:
    network = network_of("bert", layers=1).double()
    batch = random_batch(network.config, LENGTHS)
    sides = read(network, batch), read(left_only(network, torch.float64, CPU), batch)
    for both, left in zip(*sides, strict=True):
        apart = (both - left).abs().amax(1)
        assert apart[-1] < EXACT
        assert len(apart) == 1 or apart[:-1].min() > 1e-6


@pytest.mark.parametrize("variant", ["bert", "albert", "modernbert", "deberta-v2", "mpnet"])
def test_words_behind_a_mask_change_one_reading_only(tiny: Path, variant: str) -> None:
    model = model_of(tiny, variant)
    one, other = (fill_mask(model, f"w1 w2 [MASK] {behind} w4", top=66) for behind in ("good", "w3"))
    scores = [{word.token: (word.both, word.left) for word in view.words[0]} for view in (one, other)]
    for token in VOCABULARY[5:]:
        assert scores[0][token][1] == pytest.approx(scores[1][token][1], abs=1e-6)
    assert any(abs(scores[0][token][0] - scores[1][token][0]) > 1e-4 for token in VOCABULARY[5:])


def test_the_words_are_those_that_the_model_gives(model: Model) -> None:
    text = "w1 [MASK] w2 [MASK]"
    view = fill_mask(model, text, top=3)
    assert [list(row) for row in view.both] == model.fill_mask(text, 3)
    assert len(view.words) == len(view.left) == 2
    for both, left, words in zip(view.both, view.left, view.words, strict=True):
        assert {one.token for one in both} | {one.token for one in left} == {word.token for word in words}
        by_rank = {word.both_rank: word for word in words}
        assert [by_rank[rank].token for rank in (1, 2, 3)] == [one.token for one in both]
        assert [by_rank[rank].both for rank in (1, 2, 3)] == pytest.approx([one.score for one in both], abs=1e-6)
        assert {word.left_rank: word.token for word in words}[1] == left[0].token
    assert view.among == model.config.vocab_size


def test_candidates_are_compared_in_both_readings(model: Model) -> None:
    view = fill_mask(model, "w1 [MASK] w2", candidates=["w3", "good", "w4 w5"])
    assert [one.token for one in view.both[0]] == [word.token for word in view.words[0]]
    assert sum(word.both for word in view.words[0]) == pytest.approx(1)
    assert sum(word.left for word in view.words[0]) == pytest.approx(1)
    assert {word.left_rank for word in view.words[0]} == {1, 2, 3}
    assert view.among == 3


def test_the_gap_is_that_of_the_same_words_masked_one_text_at_a_time(model: Model) -> None:
    texts = [text for text, _ in reviews(30)]
    view = causal_gap(model, texts, mask_rate=0.3, seed=3)
    corrupt = Corruption(Masking(0.3, (1.0, 0.0, 0.0)), model.tokenizer)
    for network, side in ((model.network, view.both), (left_only(model.network, torch.float32, CPU), view.left)):
        losses, right = [], []
        for at, text in enumerate(texts):
            ids = model.tokenizer.encode([text])[0].sequences[0].ids
            content = ~np.isin(ids, [*model.tokenizer.special_ids])
            seen, chosen = corrupt(ids, content, [len(ids)], mixed(3, np.array([at])))
            assert (seen[chosen] == model.tokenizer.mask_id).all()
            with torch.inference_mode():
                logits = MaskedLM().logits(network, Packed.of([seen]), torch.from_numpy(chosen))
            logs = torch.log_softmax(logits, -1).numpy()
            losses += (-logs[np.arange(len(chosen)), ids[chosen]]).tolist()
            right += (logs.argmax(1) == ids[chosen]).tolist()
        assert len(losses) == view.masked
        assert side.loss.value == pytest.approx(np.mean(losses), abs=1e-4)
        assert side.accuracy.value == pytest.approx(np.mean(right), abs=1e-9)
        assert side.loss.low <= side.loss.value <= side.loss.high
    assert view.gap.loss.value == pytest.approx(view.both.loss.value - view.left.loss.value)
    assert view.texts == 30 and view.tokens == sum(len(text.split()) for text in texts)


def test_what_needs_no_context_has_no_gap(tiny: Path) -> None:
    network = network_of("bert", kind="masked_lm")
    assert isinstance(network.head, MaskedLMHead)
    with torch.no_grad():
        network.encoder.embedding.tokens.weight.zero_()
        network.head.bias.zero_()
        network.head.bias[VOCABULARY.index("w1")] = 2.0
    view = causal_gap(model_of(tiny, network=network), ["w1 w1 w1 w1", "w2 w2 w2"] * 20, mask_rate=0.5)
    assert view.gap.accuracy.value == view.gap.accuracy.high == view.gap.loss.value == 0
    total = math.exp(2) + len(VOCABULARY) - 1
    assert view.left.loss.value == pytest.approx(math.log(total) - 2 * view.left.accuracy.value, abs=1e-4)


def test_texts_are_drawn_cut_and_left_out_with_notice(model: Model) -> None:
    texts = ["w1 " * 60, "", "☃", *(f"w{at} w2 good" for at in range(40))]
    view = causal_gap(model, texts)
    assert (view.texts, view.empty, view.cut) == (41, 2, 22)
    assert "2 texts have nothing to mask" in str(view)
    assert "22 tokens are behind what the model reads" in str(view)
    some = causal_gap(model, texts, limit=10, seed=1)
    assert some.texts + some.empty == 10
    assert some.as_dict() == causal_gap(model, texts, limit=10, seed=1).as_dict()


def test_a_corrupted_text_is_that_of_pre_training(model: Model) -> None:
    text = " ".join(f"w{at}" for at in range(30))
    view = corruption(model, text, mask_rate=0.5, seed=4)
    assert [token.token for token in view.tokens] == ["[CLS]", *text.split(), "[SEP]"]
    found = {fate: [token for token in view.tokens if token.fate == fate] for fate in ("masked", "random", "kept", "")}
    assert {fate: len(tokens) for fate, tokens in found.items() if fate} == view.counts
    assert all(token.seen == "[MASK]" != token.token for token in found["masked"])
    assert all(token.seen not in ("[MASK]", token.token) for token in found["random"])
    assert all(token.seen == token.token for token in [*found["kept"], *found[""]])
    assert sum(view.counts.values()) == 15 == view.content // 2
    ids = model.tokenizer.encode([text])[0].sequences[0].ids
    corrupt = Corruption(Masking(0.5), model.tokenizer)
    seen, chosen = corrupt(ids, np.arange(len(ids)) % 31 > 0, [len(ids)], mixed(4, np.arange(1)))
    assert [model.tokenizer.token(at) for at in seen] == [token.seen for token in view.tokens]
    assert [at for at, token in enumerate(view.tokens) if token.fate] == chosen.tolist()
    assert corruption(model, text, seed=5) != corruption(model, text, seed=4)


def test_the_shares_are_kept_over_many_seeds(tiny: Path) -> None:
    counts = [corruption(cl.load(tiny), "w1 w2 w3 w4 " * 10, seed=seed).counts for seed in range(3)]
    assert sum(sum(each.values()) for each in counts) == pytest.approx(18, abs=3)
    all_masked = corruption(cl.load(tiny), "w1 w2 w3", mask_rate=0.9, mask_split=(1.0, 0.0, 0.0))
    assert all_masked.counts["random"] == all_masked.counts["kept"] == 0
    assert "(100% on average)" in str(all_masked)


def test_all_can_be_saved(model: Model, tmp_path: Path) -> None:
    views = {
        "fill": fill_mask(model, "w1 [MASK] w2"),
        "gap": causal_gap(model, ["w1 w2 w3", "w4 good w5"]),
        "corrupted": corruption(model, "w1 w2 w3"),
    }
    for name, view in views.items():
        for suffix in (".png", ".html", ".json"):
            view.save(tmp_path / (name + suffix))
        json.dumps(view.as_dict(), allow_nan=False)
        assert str(view)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: fill_mask(model, "w1 w2"), r"The text has no \[MASK\]"),
        (lambda model: fill_mask(model, "[MASK]", top=0), "top is 0"),
        (lambda model: fill_mask(model, "[MASK] " + "w1 " * 60), "has 61 tokens, but there is room for 38"),
        (lambda model: fill_mask(model, "[MASK]", candidates=[]), "no candidates"),
        (lambda model: fill_mask(model, "[MASK]", candidates="w1"), "must be a list of words"),
        (lambda model: causal_gap(model, []), "no texts with words to mask"),
        (lambda model: causal_gap(model, [" ", ""]), "no texts with words to mask"),
        (lambda model: causal_gap(model, ["☃"]), "no texts with words to mask"),
        (lambda model: causal_gap(model, ["w1"], limit=0), "limit is 0"),
        (lambda model: causal_gap(model, ["w1"], mask_rate=1.0), "mask_rate is 1.0"),
        (lambda model: causal_gap(model, ["w1", NO_TEXT]), r"texts\[1\] is 3"),
        (lambda model: corruption(model, " "), "The text is empty"),
        (lambda model: corruption(model, "w1", mask_split=(1.0,)), "mask_split"),
        (lambda model: corruption(model, "w1", mask_unit=NO_UNIT), "mask_unit is 'page'"),
    ],
)
def test_what_cannot_be_used_is_said(model: Model, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(model)


@pytest.mark.parametrize("call", [lambda model: fill_mask(model, "[MASK]"), lambda model: causal_gap(model, ["w1"])])
def test_a_model_without_a_head_for_masked_words_says_so(tiny: Path, call: Any) -> None:
    for model in (cl.load(tiny), cl.load(tiny, MaskedLM())):
        with pytest.raises(InputError, match="no trained masked-LM head"):
            call(model)


def test_a_figure_of_a_long_text_has_room_for_its_lines(tmp_path: Path) -> None:
    words = Words("w", ["word"] * 500, [None] * 500, key={"masked": 1.0})
    for panel, lines in ((words, 1), (replace(words, under=["was"] * 500), 2)):
        draw("t", [panel], tmp_path / "view.svg")
        height = re.search(r'height="([\d.]+)pt"', (tmp_path / "view.svg").read_text())
        assert height is not None and float(height[1]) > lines * 9 * 1.2 * 500 * len("word ") / LINE  # 9 points a sign
