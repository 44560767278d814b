"""What a head is worth: it is switched off and nothing else, and a model without it gives what the switched-off one does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import clozeline as cl
from clozeline.bundle import Bundle
from clozeline.data.readers import Columns
from clozeline.errors import InputError
from clozeline.families import FAMILIES
from clozeline.inspect.heads import gated, heads, prune, switched_off
from clozeline.model.encoder import Layer
from clozeline.model.heads import MaskedLMHead
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tokenizer import Tokenizer
from conformance import sizes
from helpers import VOCABULARY, random_batch, reviews, write_csv

Made = Callable[..., cl.Model]


@pytest.fixture
def made(tiny: Path, tmp_path: Path) -> Made:
    """A random classifier of a family, loaded from its folder."""

    def made(variant: str, seed: int = 0) -> cl.Model:
        family = FAMILIES[variant]
        config = family.read(sizes(variant) | {"vocab_size": len(VOCABULARY), "initializer_range": 0.2})
        network = family.build(config, "text_classification", 2, seed=seed)
        task = cl.TextClassification(labels=["negative", "positive"])
        Bundle(variant, family, network, Tokenizer.load(tiny), task, []).save(tmp_path / variant)
        return cl.load(tmp_path / variant)

    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "test.csv", reviews(60, seed=1))


def zeroed(model: cl.Model, layer: int, head: int) -> cl.Model:
    """The model with a head's columns of the projection back at zero."""
    network = copy.deepcopy(model.network)
    part = network.encoder.layers[layer]
    assert isinstance(part, Layer)
    width = model.config.head_width
    with torch.no_grad():
        part.attention.out.weight[:, head * width : (head + 1) * width] = 0
    other = copy.copy(model)
    other._bundle = replace(model._bundle, network=network)
    return other


@torch.inference_mode()
@pytest.mark.parametrize("variant", ["bert", "modernbert", "deberta-v2", "mpnet"])
def test_a_head_that_is_off_is_one_whose_columns_are_zero(made: Made, variant: str) -> None:
    model = made(variant)
    batch = random_batch(model.config, (5, 9, 2), pairs=False)
    expected = zeroed(model, 1, 2).network.encoder(batch)
    before = model.network.encoder(batch)
    with switched_off(model.network.encoder, {1: [2]}):
        found = model.network.encoder(batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found - before).abs().max() > 1e-3
    assert torch.equal(model.network.encoder(batch), before), "it is on again"


@torch.inference_mode()
def test_the_packed_weights_of_prediction_are_switched_off_too(made: Made) -> None:
    model = made("bert")
    batch = random_batch(model.config, (5, 9, 2))
    served = model._network()
    with switched_off(served.encoder, {0: [0], 1: [1, 3]}), switched_off(model.network.encoder, {0: [0], 1: [1, 3]}):
        torch.testing.assert_close(served.encoder(batch), model.network.encoder(batch), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_where_layers_are_shared_a_head_is_off_at_one_depth(made: Made) -> None:
    model = made("albert")
    encoder, batch = model.network.encoder, random_batch(model.config, (5, 9), pairs=False)
    whole = encoder.layers[0]
    x_TD = encoder.embedding(batch)
    without = zeroed(model, 0, 3).network.encoder.layers[0]
    for layer in (whole, without, whole):
        x_TD = layer(x_TD, batch.layout)
    with switched_off(encoder, {1: [3]}):
        for _ in range(2):  # and so in each pass
            torch.testing.assert_close(encoder(batch), x_TD, rtol=1e-5, atol=1e-5)


def test_what_is_lost_is_what_an_evaluation_without_the_head_loses(trained: Path, data: Path) -> None:
    model = cl.load(trained)
    found = heads(model, data)
    assert (found.metric, found.examples, found.data, len(found.heads)) == ("accuracy", 60, 60, 8)
    assert found.whole == model.evaluate(data).accuracy
    for head in found.heads:
        without = zeroed(model, head.layer, head.head).evaluate(data).accuracy.value
        assert head.lost.value == pytest.approx(found.whole.value - without, abs=1e-9)
        assert head.lost.low <= head.lost.value <= head.lost.high
    lost = [head.lost.value for head in found.heads]
    assert lost == sorted(lost, reverse=True)


def test_a_head_that_gives_nothing_is_worth_nothing(trained: Path, data: Path) -> None:
    model = zeroed(cl.load(trained), 1, 2)
    found = heads(model, data, metric="macro_f1", limit=20)
    (head,) = (each for each in found.heads if (each.layer, each.head) == (1, 2))
    assert (head.lost.value, head.lost.low, head.lost.high, head.slope) == (0, 0, 0, 0)
    assert (found.metric, found.examples, found.data) == ("macro F1", 20, 60)
    assert sum(each.slope > 0 for each in found.heads) == 7


def test_the_slope_is_that_of_each_text_by_itself(made: Made, tmp_path: Path) -> None:
    rows = reviews(3, seed=2)
    model = made("bert")
    network, step, expected = model.network, 1e-2, []
    assert isinstance(model.task, cl.TextClassification)
    for at, row in enumerate(rows):
        samples = model.task.samples(
            model.tokenizer, model.task.read(write_csv(tmp_path / f"{at}.csv", [row]), "", Columns())
        )
        batch, ends = samples.take(np.arange(1)), []
        for factor in (1 + step, 1 - step):
            gate = torch.ones(4)
            gate[1] = factor
            with torch.no_grad(), gated(network.encoder, {0: gate}):
                ends.append(model.task.learn(network, batch, None)[0].item())
        expected.append(abs(ends[0] - ends[1]) / (2 * step))
    found = heads(model, write_csv(tmp_path / "all.csv", rows))
    assert found.slope[0, 1] == pytest.approx(np.mean(expected), rel=0.01)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_masked_words_are_a_measure_too(tiny: Path, tmp_path: Path) -> None:
    family = FAMILIES["bert"]
    network = family.build(cl.load(tiny).config, "masked_lm")
    tokenizer = Tokenizer.load(tiny)
    assert isinstance(network.head, MaskedLMHead)
    with torch.no_grad():
        network.head.bias[VOCABULARY.index("w1")] = 9.0
    Bundle("masked", family, network, tokenizer, MaskedLM(), []).save(tmp_path / "model")
    text = tmp_path / "texts.csv"
    write_csv(text, [("w1 " * 20, "-"), ("w1 w1", "-"), ("w2 " * 100, "-")])
    found = heads(cl.load(tmp_path / "model"), text, text="text")
    assert found.metric == "masked accuracy" and 0 < found.whole.value < 1
    assert found.notes == ("1 of 3 texts lost 38 tokens at their end.",)
    assert len(found.heads) == 8 and found.slope.max() > 0


def test_a_view_of_heads(trained: Path, data: Path, tmp_path: Path) -> None:
    model = prune(cl.load(trained), {0: [1]})
    found = heads(model, data, limit=10)
    assert found.lost.shape == (2, 4) and np.isnan(found.lost[0, 1]) and np.isfinite(found.lost).sum() == 7
    for name in ("view.json", "view.png", "view.html"):
        found.save(tmp_path / name)
    kept = json.loads((tmp_path / "view.json").read_text())
    assert kept["value"] == found.whole.value and len(kept["heads"]) == 7
    assert [panel.kind for panel in found.panels()] == ["heatmap", "heatmap", "table"]
    assert "10 of 60 examples" in str(found) and f"layer {found.heads[0].layer:>2} head" in str(found)


@torch.inference_mode()
@pytest.mark.parametrize("variant", [name for name, family in FAMILIES.items() if family.prunable])
def test_a_pruned_model_gives_what_it_gave_with_the_heads_off(made: Made, variant: str, tmp_path: Path) -> None:
    model, gone = made(variant), {0: [3, 0], 1: [1]}
    batch = random_batch(model.config, (5, 9, 2), pairs=False)
    pruned = prune(model, gone)
    with switched_off(model.network.encoder, gone):
        expected = model.network.encoder(batch)
    found = pruned.network.encoder(batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    per_head = 4 * 32 * 8 + 3 * 8
    sizes_of = [sum(part.numel() for part in each.network.parameters()) for each in (model, pruned)]
    assert sizes_of[0] - sizes_of[1] == 3 * per_head

    pruned.save(tmp_path / "pruned")
    raw = json.loads((tmp_path / "pruned" / "config.json").read_text())
    assert raw["pruned_heads"] == {"0": [0, 3], "1": [1]}
    shapes = {tuple(value.shape) for value in load_file(tmp_path / "pruned" / "model.safetensors").values()}
    assert {(16, 32), (24, 32), (32, 16), (32, 24)} <= shapes
    again = cl.load(tmp_path / "pruned")
    assert again.config == pruned.config and again.config.kept_heads(0) == [1, 2]
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, pruned.network.state_dict()[name]), name
    assert torch.equal(again.network.encoder(batch), found)
    assert again.predict("good w1") == pruned.predict("good w1")

    further = prune(again, {0: [2]})  # by the numbers of the whole model
    with switched_off(model.network.encoder, gone | {0: [0, 2, 3]}):
        torch.testing.assert_close(further.network.encoder(batch), model.network.encoder(batch), rtol=1e-5, atol=1e-5)


def test_a_pruned_model_learns(trained: Path, tmp_path: Path) -> None:
    model = prune(cl.load(trained), {1: [0, 1, 2]})
    before = copy.deepcopy(model.network.state_dict())
    train = write_csv(tmp_path / "train.csv", reviews(16))
    model.fit(train, out=tmp_path / "run", epochs=2, learning_rate=1e-2, quiet=True, precision="fp32")
    again = cl.load(tmp_path / "run" / "model")
    name = "encoder.layers.1.attention.qkv.weight"
    assert again.config.kept_heads(1) == [3]
    assert before[name].shape == (24, 32) and not torch.equal(before[name], again.network.state_dict()[name])


@pytest.mark.parametrize("variant", ["albert", "deberta-v2", "modernbert", "mpnet"])
def test_a_family_without_pruned_heads_refuses(made: Made, variant: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"cannot be taken out of {variant}, only out of bert, .*electra"):
        prune(made(variant), {0: [1]})
    path = tmp_path / variant / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pruned_heads": {"0": [1]}}))
    with pytest.raises(InputError, match=r"pruned_heads = .* not supported"):
        cl.load(path.parent)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ({}, "There are no heads to take out"),
        ({0: []}, "There are no heads to take out"),
        ({7: [0]}, "There is no layer 7 .* layers 0 to 1"),
        ({0: [4]}, "Heads 4 cannot be taken out of layer 0: it has heads 0 to 3, and one must stay"),
        ({1: [0, 1, 2, 3]}, "Heads 0, 1, 2, 3 cannot be taken out of layer 1"),
    ],
)
def test_heads_that_cannot_go(trained: Path, gone: dict[int, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune(cl.load(trained), gone)


@pytest.mark.parametrize("said", [{"9": [0]}, {"0": [0, 1, 2, 3]}, {"x": [0]}, [1]])
def test_pruned_heads_that_cannot_be(made: Made, said: object, tmp_path: Path) -> None:
    made("bert")
    path = tmp_path / "bert" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pruned_heads": said}))
    with pytest.raises(InputError, match=r"no layer 9|one must stay|a value that no bert has"):
        cl.load(path.parent)


def test_a_head_goes_once(trained: Path) -> None:
    with pytest.raises(InputError, match="Layer 0 has no head 1 any more; it has 0, 2, 3"):
        prune(prune(cl.load(trained), {0: [1]}), {0: [1, 2]})


def test_what_heads_refuses(trained: Path, tiny: Path, data: Path, tmp_path: Path) -> None:
    model = cl.load(trained)
    with pytest.raises(InputError, match="Heads cannot be weighed by 'acuracy': did you mean 'accuracy'"):
        heads(model, data, metric="acuracy")
    with pytest.raises(InputError, match="limit is 0; use at least 1 example"):
        heads(model, data, limit=0)
    with pytest.raises(InputError, match="is a bare encoder and cannot weigh its heads"):
        heads(cl.load(tiny), data)
    bare = tmp_path / "bare.csv"
    bare.write_text("text\ngood w1\n")
    with pytest.raises(InputError, match="label"):
        heads(model, bare)
