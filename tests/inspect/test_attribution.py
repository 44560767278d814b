"""Attributions add up, say whose they are in the characters of the text, and equal what is known where a model is linear."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import clozeline as cl
from clozeline.batch import Packed
from clozeline.bundle import Bundle
from clozeline.errors import InputError
from clozeline.families import FAMILIES
from clozeline.inspect.attribution import METHODS, attribution
from clozeline.inspect.panels import Words
from clozeline.model.heads import Network
from clozeline.model.layers import Embedding
from clozeline.tasks.supervised import Supervised
from clozeline.tokenizer import Tokenizer
from conformance import VARIANTS, model_type, sizes
from helpers import VOCABULARY

TEXT = "w1 w2, good w3 -- bright w4"
LABELS = ["negative", "positive"]


def made(tiny: Path, task: Supervised, variant: str = "bert") -> cl.Model:
    """A random model of a task, as if it were trained."""
    family = FAMILIES[model_type(variant)]
    config = family.read(sizes(variant) | {"vocab_size": len(VOCABULARY), "initializer_range": 0.2})
    network = family.build(config, task.head, len(task.outputs)).eval()
    model = cl.load(tiny)
    model._bundle = Bundle(variant, family, network, Tokenizer.load(tiny, config.max_length), task, [])
    return model


@pytest.fixture
def model(trained: Path) -> cl.Model:
    return cl.load(trained)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("join", [True, False])
def test_each_part_of_the_text_is_there_once_with_its_characters(model: cl.Model, method: str, join: bool) -> None:
    found = attribution(model, TEXT, method=method, join=join)  # type: ignore[arg-type]
    assert [TEXT[word.start : word.end] for word in found.words] == [word.text for word in found.words]
    assert [word.text for word in found.words] == ["w1", "w2", ",", "good", "w3", "-", "-", "bright", "w4"]
    assert found.output == "the logit of 'positive'"
    assert found.probability == pytest.approx(model.predict(TEXT)[0].scores["positive"], abs=1e-5)


def test_pieces_of_a_word_are_joined(tiny: Path, tmp_path: Path) -> None:
    vocabulary = [*VOCABULARY, "##s", "##er"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    model = made(tiny, cl.TextClassification(labels=LABELS))
    model.network.encoder.embedding.tokens = Embedding(len(vocabulary), 32)
    torch.nn.init.normal_(model.network.encoder.embedding.tokens.weight)
    model._bundle.tokenizer = Tokenizer.load(tmp_path, 40)
    joined, apart = (attribution(model, "bads w1 gooders", join=join) for join in (True, False))
    assert [word.text for word in joined.words] == ["bads", "w1", "gooders"]
    assert [word.text for word in apart.words] == ["bad", "s", "w1", "good", "er", "s"]
    sums = np.add.reduceat([word.value for word in apart.words], [0, 2, 3])
    np.testing.assert_allclose([word.value for word in joined.words], sums, rtol=1e-6, atol=1e-9)


def test_integrated_gradients_add_up_and_more_steps_do_it_better(model: cl.Model) -> None:
    gaps = [attribution(model, TEXT, steps=steps, deletion=False).relative_gap for steps in (2, 64)]
    assert gaps[1] < 0.01 and gaps[1] < gaps[0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("baseline", ["pad", "mask"])
def test_they_add_up_in_every_family(tiny: Path, variant: str, baseline: str) -> None:
    model = made(tiny, cl.TextClassification(labels=LABELS), variant)
    found = attribution(model, "good w1 w2 bad w3", baseline=baseline, deletion=False)  # type: ignore[arg-type]
    assert abs(found.score - found.empty) > 1e-2
    assert found.relative_gap < 0.01


def test_a_pair_of_texts(tiny: Path) -> None:
    found = attribution(made(tiny, cl.TextClassification(labels=LABELS)), "good w1 w2", "bad w3", deletion=False)
    assert [(word.source, word.start, word.end) for word in found.words] == [
        (0, 0, 4), (0, 5, 7), (0, 8, 10), (1, 0, 3), (1, 4, 6),
    ]  # fmt: skip
    assert found.relative_gap < 0.01


@dataclass(frozen=True)
class Linear(cl.TextClassification):
    """A logit that is a sum over the tokens of a product with their rows."""

    def logits(self, network: Network, packed: Packed) -> Tensor:
        rows_TD = network.encoder.embedding.tokens(packed.ids) @ self.directions(network)
        return rows_TD.new_zeros(len(packed.layout.lengths), 2).index_add(0, packed.layout.owners, rows_TD)

    @staticmethod
    def directions(network: Network) -> Tensor:
        first = network.encoder.embedding.segments.weight[0]  # type: ignore[union-attr]
        return torch.stack([first, torch.zeros_like(first)], 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("baseline", ["pad", "mask"])
def test_of_a_linear_model_all_methods_give_what_it_adds_up(tiny: Path, method: str, baseline: str) -> None:
    model = made(tiny, Linear(labels=LABELS))
    found = attribution(model, TEXT, target="negative", method=method, baseline=baseline)  # type: ignore[arg-type]
    tokenizer, table = model.tokenizer, model.network.encoder.embedding.tokens.weight
    blank = tokenizer.pad_id if baseline == "pad" else tokenizer.mask_id
    ids = [tokenizer.id(word.text) or tokenizer.unk_id for word in found.words]
    expected = (table[ids] - table[blank]) @ Linear.directions(model.network)[:, 0]
    np.testing.assert_allclose([word.value for word in found.words], expected.detach(), rtol=1e-4, atol=1e-5)
    assert found.gap < 1e-4  # special tokens add nothing
    assert found.deletion is not None
    assert found.deletion.areas[0] < found.deletion.areas[1]


def test_occlusion_is_what_goes_with_a_word(model: cl.Model) -> None:
    found = attribution(model, "w1 good w2", method="occlusion", baseline="mask", target="positive", deletion=False)
    task, scores = model.task, []
    assert isinstance(task, cl.TextClassification)
    for text in ("w1 good w2", "[MASK] good w2", "w1 [MASK] w2", "w1 good [MASK]"):
        samples = task.samples(model.tokenizer, [task.example(text, None, "")], targets=False)
        scores.append(task.logits(model.network, samples.take(np.arange(1)).packed)[0, 1].item())
    assert [word.value for word in found.words] == pytest.approx([scores[0] - each for each in scores[1:]], abs=1e-5)


def test_curves_begin_with_the_text_and_end_without_it(model: cl.Model) -> None:
    found = attribution(model, TEXT)
    curves = found.deletion
    assert curves is not None
    assert curves.shares[[0, -1]].tolist() == [0, 1] and len(curves.shares) == 10
    for curve in (curves.ranked, curves.random):
        assert curve[0] == pytest.approx(found.probability, abs=1e-6)
    assert curves.ranked[-1] == pytest.approx(curves.random[-1], abs=1e-6)
    assert curves.areas[0] < curves.areas[1], "two words tell, and they go first"
    assert curves.orders.shape == (19, 10) and curves.as_fast == 0 and "in all of 19 random orders" in str(found)
    assert {found.words[at].text for at in np.argsort([-word.value for word in found.words])[:2]} == {"good", "bright"}
    assert len(attribution(model, "w1 " * 50).deletion.shares) == 21  # type: ignore[union-attr]


def test_neither_precision_nor_the_grad_mode_changes_anything_nor_is_the_model_changed(trained: Path) -> None:
    model = cl.load(trained)
    expected = attribution(model, TEXT)
    with torch.inference_mode():
        assert attribution(model, TEXT).words == expected.words
    assert attribution(cl.load(trained, precision="bf16"), TEXT).words == expected.words
    model.network.train()  # dropout is left out
    assert attribution(model, TEXT).words == expected.words
    assert model.network.training and all(part.grad is None for part in model.network.parameters())


def test_several_labels_and_numbers(tiny: Path) -> None:
    labels = made(tiny, cl.MultiLabelClassification(labels=["a", "b", "c"]))
    (scores,) = (each.scores for each in labels.predict(TEXT))
    found = attribution(labels, TEXT)
    assert found.output == f"the logit of {max(scores, key=scores.get)!r}"
    assert attribution(labels, TEXT, target="c").probability == pytest.approx(scores["c"], abs=1e-5)
    numbers = made(tiny, cl.Regression(targets=["warmth", "length"]))
    found = attribution(numbers, TEXT, target="length")
    (values,) = (each.values for each in numbers.predict(TEXT))
    assert found.output == "the value 'length'"
    assert found.score == pytest.approx(values["length"], abs=1e-5)
    assert found.probability == pytest.approx(found.score)
    assert attribution(numbers, TEXT).output == "the value 'warmth'"


TAGS = cl.TokenClassification(labels=["O", "B-x", "I-x"])


@pytest.mark.parametrize("text", ["w1 good, w2 w1", ["w1", "good", ",", "w2", "w1"]])
def test_a_tag_at_a_word(tiny: Path, text: str | Sequence[str]) -> None:
    model = made(tiny, TAGS)
    found = attribution(model, text, at=1)
    assert found.words == attribution(model, text, at="good").words
    assert [word.text for word in found.words] == ["w1", "good", ",", "w2", "w1"]
    assert found.relative_gap < 0.05
    assert found.output.endswith("at the word 'good'")
    samples = TAGS.samples(model.tokenizer, [TAGS.example(text, None, "")], targets=False)
    logits = TAGS.logits(model.network, samples.take(np.arange(1)).packed)
    assert found.score == pytest.approx(logits[2].max().item(), abs=1e-5)  # behind [CLS] and w1
    given = attribution(model, text, at=1, target="I-x")
    assert given.score == pytest.approx(logits[2, 2].item(), abs=1e-5)
    assert given.probability == pytest.approx(torch.softmax(logits[2], 0)[2].item(), abs=1e-5)


def test_an_answer(tiny: Path) -> None:
    model = made(tiny, cl.QuestionAnswering())
    question, passage = "w1 w2", "w3 good w4, bad w5"
    (best,) = model.predict(question, passage)
    found = attribution(model, question, passage)
    assert found.output == f"the logits of {best.text!r}, of its start and its end"
    assert found.relative_gap < 0.05
    assert [word.source for word in found.words] == [0] * 2 + [1] * 6
    assert [(question, passage)[word.source][word.start : word.end] for word in found.words] == [
        word.text for word in found.words
    ]
    assert found.score > attribution(model, question, passage, target="bad").score
    # with a threshold that nothing passes, it is the first token that answers
    model._bundle.task = cl.QuestionAnswering(threshold=-1e9)
    assert attribution(model, question, passage).output.startswith("the logits of no answer")


def test_a_view_of_an_attribution(model: cl.Model, tmp_path: Path) -> None:
    found = attribution(model, TEXT, steps=8)
    for name in ("view.json", "view.png", "view.html"):
        found.save(tmp_path / name)
    kept = json.loads((tmp_path / "view.json").read_text())
    assert kept["words"][3]["text"] == "good" and kept["gap"] == found.gap
    assert len(kept["deletion"]["ranked"]) == len(kept["deletion"]["shares"])
    assert [panel.kind for panel in found.panels()] == ["words", "lines", "table"]
    printed = str(found)
    assert "integrated gradients, 8 steps, baseline pad" in printed and "a gap of" in printed and "bright" in printed
    assert "2 more words" in str(attribution(model, "w1 " * 42, steps=2, deletion=False))
    flat = replace(found, empty=found.score)
    assert flat.relative_gap == np.inf and flat.as_dict()["relative_gap"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(target="postive"), "The model has no output 'postive': did you mean 'positive'?"),
        (dict(method="shap"), "method is 'shap': Allowed: 'integrated_gradients', 'gradient_x_input', 'occlusion'"),
        (dict(baseline="zero"), "baseline is 'zero': Allowed: 'pad', 'mask'"),
        (dict(steps=0), "steps is 0; it must be at least 1"),
        (dict(at=1), "at says which word's tag is explained, and text-classification has none"),
        (dict(text=" "), "The text is empty; give some words"),
        (dict(text="w1 " * 80), "The text has 80 tokens and the model reads 62 at once; shorten it"),
        (dict(text=7), "The text is 7 .int., but must be a text"),
    ],
)
def test_what_a_classifier_refuses(model: cl.Model, given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attribution(model, **{"text": TEXT, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (None, r"at \(--at\) is None; say which word's tag is explained: the word itself, or 0 to 3"),
        (4, r"at \(--at\) is 4; say which word's tag"),
        ("w9", "The word 'w9' stands not in the text; give the index of one of its 4 words"),
        ("w1", "The word 'w1' stands 2 times, as words 0, 3 in the text"),
    ],
)
def test_what_a_tagger_refuses(tiny: Path, at: int | str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attribution(made(tiny, TAGS), "w1 good w2 w1", at=at)


def test_what_other_models_refuse(tiny: Path) -> None:
    with pytest.raises(InputError, match="is a bare encoder and cannot explain an answer"):
        attribution(cl.load(tiny), TEXT)
    with pytest.raises(InputError, match="The passage does not hold the answer 'w9'"):
        attribution(made(tiny, cl.QuestionAnswering()), "w1", "w2 w3", target="w9")
    with pytest.raises(InputError, match="not of multiple-choice"):
        attribution(made(tiny, cl.MultipleChoice()), "w1", ["w2", "w3"])  # type: ignore[arg-type]
    model = made(tiny, cl.TextClassification(labels=LABELS))
    model.tokenizer.mask_id = None
    with pytest.raises(InputError, match="has no mask token for a baseline"):
        attribution(model, TEXT, baseline="mask")


def test_chance_is_not_called_faithful(model: cl.Model) -> None:
    """Nothing is claimed of an order that random ones often beat, whatever its mean."""
    found = attribution(model, TEXT)
    assert found.deletion is not None
    by = replace(found.deletion, ranked=found.deletion.orders[0])
    fast = (np.trapezoid(by.orders, by.shares) <= by.areas[0]).sum()
    assert by.as_fast == fast >= 1
    assert f"in {fast} of 19 random orders it falls as fast, so this cannot be told from chance" in str(
        replace(found, deletion=by)
    )


def test_two_texts_are_seen_to_be_two(tiny: Path) -> None:
    found = attribution(made(tiny, cl.TextClassification(labels=LABELS)), "good w1 w2", "bad w3", deletion=False)
    words = found.panels()[0]
    assert isinstance(words, Words)
    assert [*words.words] == ["good", "w1", "w2", "\u2016", "bad", "w3"]
    assert words.values[3] is None and words.values[4] == found.words[3].value
