"""Two models side by side: what is counted, how turns are timed, which words they share, and what is said of all that."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline import cli, paired, predict
from clozeline.bundle import Bundle
from clozeline.data.readers import Columns
from clozeline.errors import InputError
from clozeline.evaluate.agreement import MaskedAgreement, clozes
from clozeline.evaluate.compare import compare as compare_counted
from clozeline.evaluate.side_by_side import WARM_UP, SideBySide, Size, in_turns
from clozeline.families import by_name
from clozeline.families.bert import BERT
from clozeline.model.heads import MaskedLMHead
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tokenizer import Tokenizer
from helpers import VOCABULARY, reviews, write_csv

SENTENCE = "w1 [MASK] w2 good [MASK]"


def masked(tiny: Path, folder: Path, seed: int = 0, *, layers: int = 2, rows: int = 0) -> Path:
    """A masked-LM model with large random weights. rows: of the embedding, behind those of the tokens."""
    before = cl.load(tiny)
    config = before.config.replace(layers=layers, vocab_size=len(VOCABULARY) + rows)
    network = BERT.build(config, "masked_lm", seed=seed)
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    assert isinstance(network.head, MaskedLMHead)
    network.head.bias.data[len(VOCABULARY) :] = 50.0  # rows of no token; nobody must ask what they say
    Bundle("made", BERT, network, before.tokenizer, MaskedLM(), []).save(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked(tiny, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def student(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked(tiny, tmp_path_factory.mktemp("student"), seed=1, layers=1, rows=3)


@pytest.fixture(scope="module")
def test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "test.csv", reviews(90, seed=9))


# -- sizes


def test_parameters_are_counted_once_and_tables_apart(teacher: Path, student: Path) -> None:
    a, b = cl.compare(teacher, student, runs=0).sizes
    width, ffn, vocabulary, longest = 32, 64, len(VOCABULARY), 64
    layer = 4 * (width * width + width) + 2 * width * ffn + ffn + width + 4 * width
    head = width * width + width + 2 * width + vocabulary  # its output matrix is the token table
    assert a.without_embeddings == 2 * layer + 2 * width + head
    assert a.parameters == a.without_embeddings + (vocabulary + longest + 2) * width
    assert b.without_embeddings == layer + 2 * width + head + 3
    assert a.bytes == (teacher / "model.safetensors").stat().st_size


def test_tables_of_relative_positions_are_tables(tiny: Path) -> None:
    family = by_name("deberta-v2")
    published = next(iter(family.presets.values()))
    config = published.replace(vocab_size=len(VOCABULARY), width=32, layers=1, heads=4, ffn_width=64)
    network = family.build(config, None)
    model = cl.Model(Bundle("made", family, network, cl.load(tiny).tokenizer, None, []), "fp32", torch.device("cpu"), 0)
    tables = {name: part.numel() for name, part in network.named_parameters() if name.endswith("table.weight")}
    assert tables and sum(tables.values()) > 0
    found = cl.compare(model, model, runs=0).sizes[0]
    assert found.parameters - found.without_embeddings == sum(tables.values()) + len(VOCABULARY) * 32
    assert found.bytes is None


def test_the_bytes_are_of_all_the_files_that_are_loaded(tiny: Path, tmp_path: Path) -> None:
    model = cl.load(tiny, cl.TextClassification())
    model.fit(write_csv(tmp_path / "train.csv", reviews(8)), out=tmp_path / "run", epochs=1, quiet=True)
    found = cl.compare(tiny, model, runs=0).sizes
    kept = tmp_path / "run" / "model" / "model.safetensors"
    assert [each.bytes for each in found] == [(tiny / "model.safetensors").stat().st_size, kept.stat().st_size]
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"12345")
    model.fitted, model._bundle = None, replace(model._bundle, name=str(tmp_path))
    assert cl.compare(tiny, model, runs=0).sizes[1].bytes == 10


# -- speed


class Machine:
    """A clock that stands still but for what a call costs, on a machine that slows down from call to call of the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slower: float) -> None:
        self.now, self.slower, self.calls = 0.0, slower, list[str]()
        monkeypatch.setattr("clozeline.evaluate.side_by_side.time.perf_counter", lambda: self.now)

    def call(self, name: str, cost: float) -> Callable[[], None]:
        def work() -> None:
            self.now += cost * (1 + self.slower * (len(self.calls) // 2))
            self.calls.append(name)

        return work


def test_models_take_turns_so_that_a_slowing_machine_slows_both(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, slower=0.5)
    found = in_turns(machine.call("a", 3), machine.call("b", 1), batch=4, runs=10, what="logits", tokens=(7, 8))
    assert len(machine.calls) == 2 * (10 + WARM_UP)
    turns = ["".join(machine.calls[at : at + 2]) for at in range(2 * WARM_UP, len(machine.calls), 2)]
    assert turns == ["ba", "ab"] * 5
    assert (found.times.median, found.times.low, found.times.high) == pytest.approx((3, 3, 3))
    costs = 3 * (1 + 0.5 * np.arange(WARM_UP, WARM_UP + 10))
    seconds = found.seconds[0]
    assert (seconds.median, seconds.low, seconds.high) == pytest.approx(tuple(np.percentile(costs, [50, 10, 90])))
    texts = found.throughput[0]
    assert (texts.median, texts.low, texts.high) == pytest.approx(
        (4 / seconds.median, 4 / seconds.high, 4 / seconds.low)
    )
    assert texts.low < texts.median < texts.high


def test_the_texts_that_are_timed_are_spread_over_the_lengths_of_all(trained: Path, teacher: Path, test: Path) -> None:
    texts = ["w1 " * length for length in (9, 1, 5, 3, 7)]
    one, many = cl.compare(trained, trained, texts=texts, runs=1).speeds
    assert (one.batch, one.tokens, one.runs, one.what) == (1, (5 + 2, 5 + 2), 1, "logits")
    assert (many.batch, many.tokens[0]) == (32, 9 * 6 + 7 * 6 + 5 * 8 + 3 * 6 + 1 * 6 + 2 * 32)
    of_data = cl.compare(trained, trained, test, runs=1).speeds
    lengths = sorted(len(text.split()) + 2 for text, _ in reviews(90, seed=9))
    assert of_data[0].tokens[0] == lengths[45]
    assert of_data[1].tokens[0] == sum(lengths[(2 * at + 1) * 90 // 64] for at in range(32))
    assert cl.compare(trained, trained, test, texts=["w1"], runs=1).speeds[1].tokens == (96, 96)
    assert [each.what for each in cl.compare(trained, teacher, runs=1).speeds] == ["vectors"] * 2


def test_the_forward_pass_that_is_timed_is_the_one_of_predict(
    trained: Path, test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    logits = predict.logits

    def counted(*given: Any) -> np.ndarray:
        calls.append(len(given[2]))
        return logits(*given)

    monkeypatch.setattr(predict, "logits", counted)
    cl.compare(trained, trained, texts=["w1", "w2 w3"], runs=2)
    assert calls == [*[1] * 2 * (2 + WARM_UP), *[32] * 2 * (2 + WARM_UP)]


def test_what_is_cut_is_said(trained: Path) -> None:
    found = cl.compare(trained, trained, texts=["w1 " * 70], runs=1)
    assert found.notes[0] == f"{trained} did not read 8 tokens of the texts that were timed, 1 at once."
    assert len(found.notes) == 4
    assert cl.compare(trained, trained, texts=["w1 " * 70], runs=1, long="window").notes == []


# -- masked words


def test_agreement_is_the_known_one() -> None:
    p, q = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.07]), np.array([0.2, 0.4, 0.07, 0.08, 0.1, 0.15])
    same, other = clozes("a sentence", list("abcdef"), np.log(np.stack([p, p])) + 3, np.log(np.stack([p, q])) - 7)
    assert [token for token, _ in same.a] == list("abcde")
    for words in (same.a, same.b):
        assert [score for _, score in words] == pytest.approx(p[:5].tolist())
    assert (same.shared, same.kl) == pytest.approx((1, 0), abs=1e-15)
    assert [token for token, _ in other.b] == list("bafed")
    assert other.shared == pytest.approx(4 / 5)
    assert other.kl == pytest.approx(0.4 * np.log(2) + 0.2 * np.log(0.5) + (p * np.log(p / q))[2:].sum())
    both = MaskedAgreement((same, other))
    assert (both.agreement_1, both.agreement_5, both.kl) == pytest.approx((0.5, 0.9, other.kl / 2))
    assert str(both).count("a sentence") == 1


def test_two_models_fill_the_same_masks(teacher: Path, student: Path) -> None:
    found = cl.compare(teacher, student, sentences=[SENTENCE, "[MASK]"], runs=0).masked
    assert found is not None
    assert [each.sentence for each in found.clozes] == [SENTENCE, SENTENCE, "[MASK]"]
    expected = [cl.load(teacher).fill_mask(each) for each in (SENTENCE, "[MASK]")]
    for cloze, filled in zip(found.clozes, [*expected[0], *expected[1]], strict=True):
        assert [token for token, _ in cloze.a] == [one.token for one in filled]
        assert [score for _, score in cloze.a] == pytest.approx([one.score for one in filled], rel=1e-4)
        assert {token for token, _ in cloze.b} <= set(VOCABULARY)  # and none of the rows behind
        assert 0 < cloze.kl < 50
    same = cl.compare(teacher, teacher, runs=0).masked
    assert same is not None
    assert (same.agreement_1, same.agreement_5, same.kl) == (1, 1, 0)
    assert len(same.clozes) == len(paired.SENTENCES) + 1  # the last of them has two


def test_without_a_common_vocabulary_nothing_is_said_of_words(
    tiny: Path, teacher: Path, trained: Path, tmp_path: Path
) -> None:
    other = cl.load(teacher)
    other.add_words(["tocilizumab"])
    assert cl.compare(teacher, other, runs=0).notes == [
        "Masked words are not compared: the models have different vocabularies."
    ]
    words = [word if word != "w49" else "w50" for word in VOCABULARY]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    renamed = cl.load(teacher)
    renamed._bundle.tokenizer = Tokenizer.load(tmp_path, 64)
    assert cl.compare(teacher, renamed, runs=0).masked is None
    with pytest.raises(InputError, match=r"different vocabularies\. Leave the sentences out"):
        cl.compare(teacher, renamed, runs=0, sentences=["[MASK]"])
    fresh = cl.load(tiny, cl.MaskedLM())
    for model, why in ((trained, str(trained)), (fresh, str(tiny))):
        found = cl.compare(teacher, model, runs=0)
        assert found.notes == [f"Masked words are not compared: {why} has no trained masked-LM head."]
        with pytest.raises(InputError, match="no trained masked-LM head"):
            cl.compare(teacher, model, runs=0, sentences=["[MASK]"])
    assert cl.compare(tiny, trained, runs=0).notes == []


# -- scores


def test_the_comparison_on_data_is_the_paired_one(tiny: Path, trained: Path, test: Path, tmp_path: Path) -> None:
    weak = cl.load(tiny, cl.TextClassification())
    weak.fit(write_csv(tmp_path / "train.csv", reviews(20)), out=tmp_path / "run", epochs=1, quiet=True)
    found = cl.compare(trained, weak, test, by="label", runs=0)
    labels = [label for _, label in reviews(90, seed=9)]
    one, other = (model.counted(test, Columns()) for model in (cl.load(trained), weak))
    assert found.task == compare_counted(one, other, found.names, labels)
    assert found.names == (str(trained), str(tiny))
    assert (found.masked, found.notes) == (None, [])
    row = next(line for line in str(found).splitlines() if line.startswith("accuracy of 90"))
    assert row.split()[3:] == [f"{one.value:.4f}", f"{other.value:.4f}", f"{100 * other.value / one.value:.1f}", "%"]
    assert "positive" in str(found) and "(Holm)" in str(found)


def test_models_without_that_task_are_refused_on_data(trained: Path, teacher: Path, test: Path) -> None:
    with pytest.raises(InputError, match="cannot evaluate"):
        cl.compare(trained, teacher, test)
    assert cl.compare(trained, teacher, runs=0).task is None


# -- what is shown


@pytest.fixture(scope="module")
def whole(teacher: Path, student: Path, trained: Path, test: Path) -> SideBySide:
    """With every part: masked words of one pair and a task of another."""
    words = cl.compare(teacher, student, runs=1)
    return replace(words, task=cl.compare(trained, trained, test, by="label", runs=0).task, notes=["A note."])


def test_it_prints_as_an_aligned_table(whole: SideBySide) -> None:
    shown = str(whole)
    assert max(len(line) for line in shown.splitlines() if not line.startswith(("A  ", "B  "))) <= 100
    names, table, *_ = shown.split("\n\n")
    assert names.splitlines() == [f"A  {whole.names[0]}", f"B  {whole.names[1]}"]
    rows = table.splitlines()
    # numbers end where their columns do
    ends = {row.rfind(cell) + len(cell) for row, cell in ((rows[0], "B to A"), (rows[1], "%"), (rows[6], "x"))}
    assert ends == {len(rows[0])}
    assert [row.split("  ")[0] for row in rows if not row.startswith(" ")] == [
        "parameters",
        "weights on the disk, bytes",
        "batch of 1: tokens",
        "batch of 32: tokens",
        f"masked words ({len(paired.SENTENCES) + 1}): same best",
        "accuracy of 90",
    ]
    a, b = whole.sizes
    assert rows[1].split() == ["parameters", f"{a.parameters:,}", f"{b.parameters:,}", *_percent(a, b)]
    assert shown.endswith("A note.")
    bare = replace(whole, speeds=[], masked=None, task=None, notes=[], sizes=(a, replace(b, bytes=None)))
    assert str(bare).splitlines()[-1].split()[-2:] == ["-", "-"]


def _percent(a: Size, b: Size) -> list[str]:
    return [f"{100 * b.parameters / a.parameters:.1f}", "%"]


def test_it_goes_into_json_and_a_figure(whole: SideBySide, tmp_path: Path) -> None:
    found = whole.as_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["share"]["parameters"] == found["sizes"][1]["parameters"] / found["sizes"][0]["parameters"]
    assert [each["batch"] for each in found["speeds"]] == [1, 32]
    assert found["task"]["slices"].keys() == {"negative", "positive"}
    assert found["masked"]["masks"] == len(found["masked"]["clozes"])
    for name, each in (("whole", whole), ("small", replace(whole, speeds=[], masked=None, task=None))):
        each.figure(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        whole.figure(tmp_path / "file" / "figure.png")


def test_on_the_command_line(teacher: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("compare", str(teacher), str(student))
    drawn = ("--sentence", "[MASK] w1", "--sentence", "w2 [MASK]", "--figure", str(tmp_path / "figure.png"))
    assert cli.main([*both, *drawn, "--runs", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["sentence"] for each in found["masked"]["clozes"]] == ["[MASK] w1", "w2 [MASK]"]
    assert [each["runs"] for each in found["speeds"]] == [2, 2]
    assert (tmp_path / "figure.png").is_file()
    assert cli.main([*both, "--runs", "0"]) == 0
    assert "batch of" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(sentences=["w1"]), r"sentences\[0\], 'w1', has no \[MASK\]"),
        (dict(sentences=["[MASK]", "w1 " * 70 + "[MASK]"]), r"sentences\[1\] has 71 tokens"),
        (dict(sentences="[MASK]"), "sentences must be a list of texts"),
        (dict(texts="w1"), "texts must be a list of texts"),
        (dict(texts=["w1", None]), r"texts\[1\] is None"),
        (dict(runs=-1), "runs is -1"),
        (dict(by="kind"), "by is of labelled data, and there is none"),
        (dict(metric="accuracy"), "metric is of labelled data"),
    ],
)
def test_mistakes_are_one_sentence(teacher: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cl.compare(teacher, teacher, **given)
