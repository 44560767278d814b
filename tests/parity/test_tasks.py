"""Every task here is the same task in transformers: its loss, all gradients, predictions, and folders in both directions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clozeline as cl
from clozeline import predict
from clozeline.batch import Packed
from clozeline.data import tagged, tags
from clozeline.data.choices import Choices
from clozeline.data.packing import Samples
from clozeline.data.readers import Example
from clozeline.data.squad import Question
from clozeline.tasks.multi_label import MultiLabelClassification
from clozeline.tasks.multiple_choice import MultipleChoice
from clozeline.tasks.question_answering import QuestionAnswering
from clozeline.tasks.regression import Regression
from clozeline.tasks.supervised import IGNORED, Supervised
from clozeline.tasks.text_classification import TextClassification
from clozeline.tasks.token_classification import TokenClassification
from conformance import gradients, padded_inputs, untied
from helpers import PLAIN, as_trained, pad

transformers = pytest.importorskip("transformers")

CLOSE = 1e-5  # fp32: some tens of roundings of 6e-8 on values below 10
ABC = ("a", "b", "c")
TAGS = ("O", "B-x", "I-x", "B-y", "I-y")
RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice([*PLAIN, "good", "bad"], size).tolist()) for size in (5, 30, 1, 17, 52, 2)]
LONG = " ".join(PLAIN * 3)
TARGETS: dict[str, tuple[Supervised, list[Any]]] = {
    "hard": (TextClassification(ABC), [*"abacab"]),
    "smooth": (TextClassification(ABC, label_smoothing=0.1), [*"abacab"]),
    "sets": (MultiLabelClassification(ABC), [("a",), (), ("b", "c"), ABC, ("b",), ("a", "c")]),
    "number": (Regression("stars"), [(1.0,), (5.0,), (2.5,), (-1.0,), (0.0,), (3.0,)]),
    "numbers": (Regression(ABC), [(1.0, 2.0, float(at)) for at in range(6)]),
}
KINDS: dict[type[Supervised], str] = {
    TextClassification: "SequenceClassification",
    MultiLabelClassification: "SequenceClassification",
    Regression: "SequenceClassification",
    TokenClassification: "TokenClassification",
    QuestionAnswering: "QuestionAnswering",
    MultipleChoice: "MultipleChoice",
}


def both(tiny: Path, task: Supervised, out: Path) -> tuple[cl.Model, Any]:
    """The same loud random weights twice: our model, and transformers' loaded from where ours was saved."""
    model = cl.load(tiny, task)
    random = torch.Generator().manual_seed(0)
    for parameter in model.network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=random)
    as_trained(model._bundle, out)
    return cl.load(out), theirs_of(type(task), out)


def theirs_of(kind: type[Supervised], folder: Path) -> Any:
    """transformers' model, whose head must be there as a whole."""
    found, info = getattr(transformers, f"AutoModelFor{KINDS[kind]}").from_pretrained(folder, output_loading_info=True)
    assert {what: list(names) for what, names in info.items() if names} == {}
    return found.eval()


def same_gradients(model: cl.Model, theirs: Any) -> None:
    family, network = model._bundle.family, model.network
    assert network.kind is not None
    wanted = {name: torch.as_tensor(value.grad) for name, value in untied(theirs, {})}
    for names, found in gradients(family, network, network.kind):
        expected = torch.cat([wanted.pop(name) for name in names])
        # relative to the largest of the tensor; those that only noise reaches, such as keys' biases, to 1e-2
        error = (found - expected).abs().max() / max(expected.abs().max(), torch.tensor(1e-2))
        assert error < 2 * CLOSE, f"{names}: {error:.1e}"
    assert not wanted


def our_loss(model: cl.Model, samples: Samples) -> Tensor:
    """The mean loss over all samples; its gradient is in the network's parameters."""
    task = model.task
    assert isinstance(task, Supervised)
    samples = samples.apart() if task.windows_apart else samples
    batch = samples.take(np.arange(len(samples)))
    assert len(set(batch.packed.layout.lengths)) > 2, "lengths are uneven"
    total, weight = task.loss(task.logits(model.network, batch.packed), batch, task.weights(samples))
    (total / weight).backward()
    return (total / weight).detach()


def batch_of(samples: Samples) -> Packed:
    return samples.apart().take(np.arange(len(samples.bounds) - 1)).packed


def logits_of(model: cl.Model, samples: Samples) -> np.ndarray:
    task = model.task
    assert isinstance(task, Supervised)
    return predict.logits(model.network, task, samples, torch.device("cpu"))


def near(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=CLOSE, atol=CLOSE)


# -- loss, gradients and predictions


@pytest.mark.parametrize("name", TARGETS)
def test_tasks_of_texts_have_the_loss_and_gradients_of_transformers(name: str, tiny: Path, tmp_path: Path) -> None:
    task, labels = TARGETS[name]
    model, theirs = both(tiny, task, tmp_path)
    examples = [Example(text, None, label, "") for text, label in zip(TEXTS, labels, strict=True)]
    samples = task.samples(model.tokenizer, examples)
    loss = our_loss(type_with(model, task), samples)
    assert samples.targets is not None
    targets = torch.from_numpy(samples.targets)
    found = theirs(**padded_inputs(batch_of(samples)), labels=None if name == "smooth" else targets)
    smooth = torch.nn.functional.cross_entropy(found.logits, targets, label_smoothing=0.1) if name == "smooth" else None
    expected = found.loss if smooth is None else smooth
    expected.backward()
    near(loss, expected.detach())
    same_gradients(model, theirs)
    near(logits_of(model, samples), found.logits.detach())
    for one, row in zip(model.predict(TEXTS), found.logits.detach(), strict=True):
        if isinstance(task, Regression):
            near([*one.values.values()], row)
        elif isinstance(task, MultiLabelClassification):
            near([*one.scores.values()], torch.sigmoid(row))
            assert one.labels == tuple(
                label for label, score in zip(ABC, torch.sigmoid(row), strict=True) if score >= 0.5
            )
        else:
            near([*one.scores.values()], torch.softmax(row, -1))
            assert one.label == theirs.config.id2label[int(row.argmax())]


def type_with(model: cl.Model, task: Supervised) -> cl.Model:
    """The model with the whole task: what is only of training is not in the folder."""
    model._bundle.task = task
    return model


@pytest.mark.parametrize("max_length", [None, 20], ids=["whole", "windows"])
def test_token_classification_is_transformers(max_length: int | None, tiny: Path, tmp_path: Path) -> None:
    task = TokenClassification(TAGS, max_length=max_length)
    model, theirs = both(tiny, task, tmp_path)
    random = np.random.default_rng(1)
    examples = [tagged.of_words(text.split(), random.choice(TAGS, len(text.split())).tolist(), "") for text in TEXTS]
    samples = task.samples(model.tokenizer, examples)
    loss, batch = our_loss(model, samples), batch_of(samples)
    assert samples.targets is not None
    labels = torch.from_numpy(samples.targets)
    if max_length is None:  # then each word is one token, and what each should be is plain
        given = [[IGNORED, *(TAGS.index(tag) for tag in example.tags or ()), IGNORED] for example in examples]
        assert [len(each) for each in given] == list(batch.layout.lengths)
        for one, other in zip([tag for each in given for tag in each], labels.tolist(), strict=True):
            assert one == other or (one > 0 and (one + 1) // 2 == (other + 1) // 2)  # I-x may become B-x
    padded = pad(labels - IGNORED, batch.layout) + IGNORED
    found = theirs(**padded_inputs(batch), labels=padded)
    found.loss.backward()
    near(loss, found.loss.detach())
    same_gradients(model, theirs)
    here = padded_inputs(batch)["attention_mask"].bool()
    near(logits_of(model, samples), found.logits.detach()[here])
    if max_length is None:
        best = found.logits.argmax(-1)
        for at, (text, one) in enumerate(zip(TEXTS, model.predict(TEXTS), strict=True)):
            raw = [theirs.config.id2label[int(tag)] for tag in best[at, 1 : 1 + len(text.split())]]
            shares = torch.softmax(found.logits[at].detach(), -1).max(-1).values[1:]
            expected = [
                (*(one.words[first][0], one.words[after - 1][1]), kind, float(shares[first:after].mean()))
                for first, after, kind in tags.spans(raw)
            ]
            assert [(e.start, e.end, e.label) for e in one.entities] == [each[:3] for each in expected]
            near([e.score for e in one.entities], [each[3] for each in expected])


@pytest.mark.parametrize("max_length", [None, 24], ids=["whole", "windows"])
def test_question_answering_is_transformers(max_length: int | None, tiny: Path, tmp_path: Path) -> None:
    """One sequence at a time there: its softmax does not leave padding out."""
    task = QuestionAnswering(max_length=max_length, threshold=0.0)
    model, theirs = both(tiny, task, tmp_path)
    examples = []
    for at, text in enumerate(TEXTS):
        words = text.split()
        answer = " ".join(words[len(words) // 2 : len(words) // 2 + 3])
        answers = ((answer, text.rindex(answer)),) if at % 3 else ()
        examples.append(Question(str(at), "w1 w2", text, answers, "", ""))
    samples = task.samples(model.tokenizer, examples)
    loss = our_loss(model, samples)
    assert samples.targets is not None
    losses, logits = [], []
    for at, (first, last) in enumerate(samples.targets):
        batch = samples.apart().take(np.asarray([at])).packed
        found = theirs(
            **padded_inputs(batch), start_positions=torch.tensor([first]), end_positions=torch.tensor([last])
        )
        (found.loss / len(samples.targets)).backward()
        losses.append(found.loss.item())
        logits.append(torch.stack([found.start_logits[0], found.end_logits[0]], -1).detach())
    assert samples.targets.any()
    near(loss, np.mean(losses))
    same_gradients(model, theirs)
    near(logits_of(model, samples), torch.cat(logits))
    near(task.check(logits_of(model, samples), samples).loss, np.mean(losses))
    if max_length is None:
        for rows, text, one in zip(logits, TEXTS, model.predict(["w1 w2"] * 6, TEXTS), strict=True):
            words = text.split()  # behind [CLS] w1 w2 [SEP]
            scores = {
                (first, last): float(rows[4 + first, 0] + rows[4 + last, 1])
                for first in range(len(words))
                for last in range(first, min(first + 30, len(words)))
            }
            best = max(scores, key=scores.__getitem__)
            none = float(rows[0].sum())
            assert one.best[0].text == " ".join(words[best[0] : best[1] + 1])
            assert one.text == ("" if none > scores[best] else one.best[0].text)


def test_multiple_choice_is_transformers(tiny: Path, tmp_path: Path) -> None:
    """One question at a time there: it wants as many choices for all."""
    task = MultipleChoice()
    model, theirs = both(tiny, task, tmp_path)
    examples = [
        Choices(TEXTS[0], tuple(TEXTS[1:4]), 2, ""),
        Choices(TEXTS[2], tuple(TEXTS[3:5]), 0, ""),
        Choices("w1", ("w2", "w3", "w4", "w5", TEXTS[5]), 4, ""),
    ]
    samples = task.samples(model.tokenizer, examples)
    loss = our_loss(model, samples)
    losses, rows = [], []
    for at, one in enumerate(examples):
        inputs = {name: value[None] for name, value in padded_inputs(samples.take(np.asarray([at])).packed).items()}
        found = theirs(**inputs, labels=torch.tensor([one.answer]))
        (found.loss / 3).backward()
        losses.append(found.loss.item())
        rows.append(found.logits[0].detach())
    near(loss, np.mean(losses))
    same_gradients(model, theirs)
    near(logits_of(model, samples)[:, 0], torch.cat(rows))
    predicted = model.predict([one.question for one in examples], [one.choices for one in examples])
    for row, said, one in zip(rows, predicted, examples, strict=True):
        near(said.scores, torch.softmax(row, -1))
        assert said.text == one.choices[int(row.argmax())]


# -- folders


def write_csv(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    path = path.with_suffix(".csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_json(path: Path, rows: list[Any]) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


MORE = TEXTS * 3
CLASSES = [("text", "label"), *((text, "ab"[at % 2]) for at, text in enumerate(MORE))]
SETS = [("text", "labels"), *((text, ["a|b", "", "b"][at % 3]) for at, text in enumerate(MORE))]
NUMBERS = [("s1", "s2", "score"), *((text, "w1", at) for at, text in enumerate(MORE))]
TAGGED = [{"words": text.split(), "tags": ["O" if w in PLAIN else "B-x" for w in text.split()]} for text in MORE]
ANSWERS = [
    {
        "id": str(at),
        "question": "w1",
        "context": text,
        "answers": {
            "text": [text.split()[-1]] * (at % 2),
            "answer_start": [text.rindex(text.split()[-1])] * (at % 2),
        },
    }
    for at, text in enumerate(MORE)
]
OFFERED = [
    {"question": text, "choices": ["w1", "w2", LONG][: 2 + at % 2], "answer": at % 2} for at, text in enumerate(MORE)
]
FITS: dict[str, tuple[Supervised, list[Any], dict[str, Any], tuple[Any, Any]]] = {
    "classes": (TextClassification(calibrate=True), CLASSES, {}, (TEXTS, None)),
    "sets": (MultiLabelClassification(threshold=0.4), SETS, {}, (TEXTS, None)),
    "numbers": (Regression(), NUMBERS, {"text": "s1", "pair": "s2", "label": "score"}, (TEXTS, ["w1"] * 6)),
    "tags": (TokenClassification(max_length=40), TAGGED, {}, (TEXTS, None)),
    "answers": (QuestionAnswering(longest_answer=5, max_length=50), ANSWERS, {}, (["w1"] * 6, TEXTS)),
    "choices": (MultipleChoice(long="window"), OFFERED, {}, (TEXTS, [("w1", "w2", "w3")] * 6)),
}


@pytest.mark.parametrize("name", FITS)
def test_a_fine_tuned_folder_is_read_by_transformers_and_here(name: str, tiny: Path, tmp_path: Path) -> None:
    task, rows, columns, asked = FITS[name]
    model = cl.load(tiny, task)
    data = (write_json if isinstance(rows[0], dict) else write_csv)(tmp_path / "data", rows)
    model.fit(data, data, out=tmp_path / "run", epochs=2, learning_rate=2e-3, batch_size=6, precision="fp32", quiet=True,
              **columns)  # fmt: skip
    model.save(tmp_path / "saved")
    expected = model.predict(*asked)
    for folder in (tmp_path / "run" / "model", tmp_path / "saved"):
        again = cl.load(folder)
        assert again.predict(*asked) == expected
        assert type(again.task) is type(task)
        assert again.labels == model.labels
        assert isinstance(again.task, Supervised)
        assert again.task.raw() == model.task.raw()  # type: ignore[union-attr]
        theirs = theirs_of(type(task), folder)
        if name not in ("answers", "choices"):
            assert [theirs.config.id2label[at] for at in range(len(model.labels))] == [*model.labels]
            assert theirs.config.label2id == {label: at for at, label in enumerate(model.labels)}
        problems = {
            "classes": "single_label_classification",
            "sets": "multi_label_classification",
            "numbers": "regression",
        }
        assert theirs.config.problem_type == problems.get(name)
        others = [None] * 6 if asked[1] is None else asked[1]
        examples = [again.task.example(text, other, "") for text, other in zip(asked[0], others, strict=True)]
        samples = again.task.samples(again.tokenizer, examples, targets=False)
        logits = logits_of(again, samples)
        inputs = padded_inputs(batch_of(samples))
        with torch.no_grad():
            if name == "choices":
                near(logits[:, 0], theirs(**{key: value[None] for key, value in inputs.items()}).logits[0])
            elif name == "answers":
                found, here = theirs(**inputs), inputs["attention_mask"].bool()
                near(logits, torch.stack([found.start_logits, found.end_logits], -1)[here])
            else:
                found = theirs(**inputs).logits
                near(logits, found[inputs["attention_mask"].bool()] if name == "tags" else found)


CONFIG = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
SAVED: dict[str, tuple[str, dict[str, Any], type[Supervised], tuple[str, ...]]] = {
    "plain": ("SequenceClassification", {}, TextClassification, ("LABEL_0", "LABEL_1")),
    "named": ("SequenceClassification", {"id2label": {0: "x", 1: "y", 2: "z"}}, TextClassification, ("x", "y", "z")),
    "single": ("SequenceClassification", {"num_labels": 3, "problem_type": "single_label_classification"},
               TextClassification, ("LABEL_0", "LABEL_1", "LABEL_2")),
    "one": ("SequenceClassification", {"num_labels": 1}, Regression, ("LABEL_0",)),
    "regression": ("SequenceClassification", {"num_labels": 2, "problem_type": "regression"}, Regression,
                   ("LABEL_0", "LABEL_1")),
    "sets": ("SequenceClassification", {"id2label": {0: "x", 1: "y"}, "problem_type": "multi_label_classification"},
             MultiLabelClassification, ("x", "y")),
    "set": ("SequenceClassification", {"id2label": {0: "x"}, "problem_type": "multi_label_classification"},
            MultiLabelClassification, ("x",)),
    "tags": ("TokenClassification", {"id2label": {0: "O", 1: "B-x", 2: "I-x"}}, TokenClassification, ("O", "B-x", "I-x")),
    "spans": ("QuestionAnswering", {}, QuestionAnswering, ("start", "end")),
    "choices": ("MultipleChoice", {}, MultipleChoice, ("score",)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_a_folder_of_transformers_is_read_as_its_task(name: str, tiny: Path, tmp_path: Path) -> None:
    head, settings, kind, outputs = SAVED[name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    config = transformers.BertConfig(**CONFIG, vocab_size=len(tokenizer), max_position_embeddings=64, **settings)
    theirs = getattr(transformers, f"BertFor{head}")(config).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = cl.load(tmp_path)
    task = model.task
    assert type(task) is kind
    assert isinstance(task, Supervised)
    assert model.labels == outputs
    others: list[Any] = [None] * 6
    if kind is QuestionAnswering:
        others = TEXTS
    elif kind is MultipleChoice:
        others = [("w1", "w2 w3")] * 6
    examples = [task.example(text, other, "") for text, other in zip(TEXTS, others, strict=True)]
    long = "truncate" if kind is not QuestionAnswering else "window"
    samples = type(task)(**{**vars(task), "long": long}).samples(model.tokenizer, examples, targets=False)
    inputs = padded_inputs(batch_of(samples))
    with torch.no_grad():
        if kind is MultipleChoice:
            wanted = theirs(**{key: value[None] for key, value in inputs.items()}).logits.T
        elif kind is QuestionAnswering:
            found, here = theirs(**inputs), inputs["attention_mask"].bool()
            wanted = torch.stack([found.start_logits, found.end_logits], -1)[here]
        else:
            wanted = theirs(**inputs).logits
            wanted = wanted[inputs["attention_mask"].bool()] if kind is TokenClassification else wanted
    near(logits_of(model, samples), wanted)
    assert len(model.predict(TEXTS, None if others[0] is None else others)) == 6  # its head counts as trained
