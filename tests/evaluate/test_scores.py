"""Scorers of predictions made elsewhere: published figures, other scorers' rules, and files that cannot be scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import clozeline as cl
from clozeline.cli import main
from clozeline.data import conll, squad
from clozeline.data.packing import Samples
from clozeline.data.tags import Span, spans
from clozeline.evaluate import answers, entities


@pytest.mark.parametrize(
    ("version", "name", "exact", "f1"),
    [("v1.1", "v1.1-bert-ensemble", 86.21, 92.20), ("v2.0", "v2.0-bert-single", 78.74, 81.78)],
)
def test_published_answers_score_what_was_published(
    version: str, name: str, exact: float, f1: float, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(data / "squad" / f"dev-{version}.json"), str(data / "squad" / "predictions" / f"{name}.json")]
    assert main(["evaluate", files[0], "--task", "question-answering", "--predictions", files[1], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert round(100 * found["exact"], 2) == exact
    assert round(100 * found["f1"], 2) == f1
    assert found["missing"] == 0
    assert found["f1_interval"][0] < found["f1"] < found["f1_interval"][1]


@pytest.mark.parametrize(("name", "f1"), [("uh_ritual", 41.86), ("spinningbytes.txt", 40.78)])
def test_published_entities_score_what_was_published(
    name: str, f1: float, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(data / "wnut17" / "test.conll"), str(data / "wnut17" / "submissions" / name)]
    assert main(["evaluate", files[0], "--task", "token-classification", "--predictions", files[1], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert round(100 * found["f1"], 2) == f1
    assert sum(score["gold"] for score in found["types"].values()) == 1079
    assert found["sentences"] == 1287


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-a I-a O B-a B-a", [(0, 2, "a"), (3, 4, "a"), (4, 5, "a")]),
        ("I-a I-a I-b O I-b", [(0, 2, "a"), (2, 3, "b"), (4, 5, "b")]),
        ("B-a I-b I-b", [(0, 1, "a"), (1, 3, "b")]),
        ("S-a B-a I-a E-a I-a", [(0, 1, "a"), (1, 4, "a"), (4, 5, "a")]),
        ("U-a B-b L-b O", [(0, 1, "a"), (1, 3, "b")]),
        ("B-geo-loc I-geo-loc", [(0, 2, "geo-loc")]),
        ("O O", []),
        ("", []),
    ],
)
def test_spans_of_every_scheme_and_of_sequences_that_none_allows(tags: str, found: list[Span]) -> None:
    assert spans(tags.split()) == found


def test_entity_scores_are_those_of_seqeval() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    random = np.random.RandomState(0)
    tags = ["O", "O", "B-a", "I-a", "B-b", "I-b"]
    both = [[random.choice(tags, size=random.randint(1, 12)).tolist() for _ in range(200)] for _ in range(2)]
    both[1] = [random.choice(tags, size=len(row)).tolist() for row in both[0]]
    found = entities.report(both[0], both[1])
    assert found.f1.value == pytest.approx(seqeval.f1_score(*both))
    assert found.precision.value == pytest.approx(seqeval.precision_score(*both))
    assert found.recall.value == pytest.approx(seqeval.recall_score(*both))
    assert found.types["a"].f1 == pytest.approx(seqeval.f1_score(*both, average=None)[0])


def test_entity_counts_by_hand() -> None:
    gold = [["B-a", "I-a", "O", "B-b"], ["O", "B-a"]]
    predicted = [["B-a", "I-a", "O", "B-a"], ["B-c", "B-a"]]
    found = entities.report(gold, predicted)
    assert (found.precision.value, found.recall.value) == (2 / 4, 2 / 3)
    assert (found.types["a"].right, found.types["a"].predicted, found.types["b"].recall) == (2, 3, 0.0)
    assert found.unknown == ("c",)
    assert "no gold entity: c" in str(found)


def test_entities_of_many_schemes_and_sentences_score_as_seqeval_has_them() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    for seed in range(40):
        random = np.random.RandomState(seed)
        kinds = ["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in "abc"[: random.randint(1, 4)])]
        lengths = random.randint(1, 9, size=random.randint(1, 30))
        gold, predicted = ([random.choice(kinds, size=length).tolist() for length in lengths] for _ in range(2))
        if seed % 8 == 0:
            predicted = [["O"] * length for length in lengths]
        found = entities.report(gold, predicted)
        assert found.f1.value == pytest.approx(seqeval.f1_score(gold, predicted, zero_division=0))
        assert found.precision.value == pytest.approx(seqeval.precision_score(gold, predicted, zero_division=0))
        assert found.recall.value == pytest.approx(seqeval.recall_score(gold, predicted, zero_division=0))
        if found.types:
            theirs = seqeval.f1_score(gold, predicted, average=None, zero_division=0).tolist()
            assert [each.f1 for each in found.types.values()] == pytest.approx(theirs)
        assert entities.counted(gold, predicted).interval() == found.f1
        quick = {"f1": found.f1.value, "precision": found.precision.value, "recall": found.recall.value}
        assert entities.measures(gold, predicted) == quick


def test_sentences_without_entities_score_nothing() -> None:
    found = entities.report([["O", "O"], []], [["O", "O"], []])
    assert (found.f1.value, found.f1.high, found.types) == (0, 0, {})


def test_what_a_model_did_not_read_is_said_of_entities_and_answers() -> None:
    tags = [["B-a"], ["O"], ["B-a", "O"]]
    golds = {"a": ["x"], "b": ["y"], "c": ["z"]}
    cut, windows = np.array([0, 7, 3]), np.array([3, 1, 2])
    for found in (
        entities.report(tags, tags, cut=cut, windows=windows),
        answers.report(golds, {"a": "x"}, cut=cut, windows=windows),
    ):
        told = found.as_dict()
        assert (told["truncated_texts"], told["truncated_tokens"]) == (2, 10)
        assert (told["windowed_texts"], told["windows"]) == (2, 5)
        assert ", 2 texts truncated by 10 tokens, 2 texts read in 5 windows)" in str(found)
    for whole in (entities.report(tags, tags), answers.report({"a": ["x"]}, {"a": "x"})):
        assert whole.as_dict()["truncated_texts"] == whole.as_dict()["windows"] == 0
        assert "truncated" not in str(whole) and "windows" not in str(whole)


def test_windows_are_of_a_text_or_of_each_of_its_parts() -> None:
    none = np.zeros(0, np.int64)
    texts = Samples(np.zeros(6), None, bounds=np.arange(7), first=np.array([0, 3, 4, 6]), tokens=none, cut=none)
    assert texts.windows.tolist() == [3, 1, 2]
    # of three choices the last one in two windows
    parts = np.array([0, 1, 2, 2, 0, 1])
    asked = replace(texts, first=np.array([0, 4, 6]), parts=parts)
    assert asked.windows.tolist() == [1, 1, 2, 1, 1]
    assert replace(texts, first=np.array([0, 3, 6]), parts=np.zeros(6)).windows.tolist() == [3, 3]


def test_counted_answers_are_the_ones_reported() -> None:
    golds = {"a": ["the x y"], "b": [], "c": ["y"], "d": ["x z"]}
    guessed = {"a": "x", "b": "", "c": "y"}
    found = answers.report(golds, guessed)
    assert answers.counted(golds, guessed).interval() == found.f1
    assert answers.counted(golds, guessed, "exact").interval() == found.exact
    assert answers.measures(golds, guessed) == pytest.approx({"f1": found.f1.value, "exact": found.exact.value})
    assert answers.counted(golds, guessed).rows[:, 0].tolist() == pytest.approx([2 / 3, 1, 1, 0])


@pytest.mark.parametrize(
    ("predicted", "golds", "exact", "f1"),
    [
        ("The Denver Broncos!", ["Denver Broncos"], 1, 1),
        ("Broncos", ["Denver Broncos", "the Broncos"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("", [""], 1, 1),
        ("Denver", [""], 0, 0),
        ("", ["Denver"], 0, 0),
        ("b b a", ["b c"], 0, 2 / 4),
    ],
)
def test_answers_are_compared_as_the_official_scorer_does(
    predicted: str, golds: list[str], exact: float, f1: float
) -> None:
    assert answers.exact(predicted, golds) == exact
    assert answers.overlap(predicted, golds) == pytest.approx(f1)


def test_questions_without_a_prediction_are_wrong_and_counted() -> None:
    found = answers.report({"a": ["x"], "b": [], "c": ["y"]}, {"a": "x", "b": ""})
    assert (found.exact.value, found.missing) == (2 / 3, 1)
    assert found.answerable == (0.5, 0.5)
    assert found.unanswerable == (1.0, 1.0)
    assert "1 questions have no prediction" in str(found)


def squad_file(folder: Path, **changes: object) -> Path:
    entry = {"id": "q", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 4}], **changes}
    path = folder / "data.json"
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "Was Ann.", "qas": [entry]}]}]}))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"answers": [{"text": "Ann", "answer_start": 3}]},
            "question q: the answer 'Ann' does not stand .* it stands at 4",
        ),
        ({"answers": [{"text": "Bob", "answer_start": 4}]}, "stands nowhere in the passage"),
        ({"answers": [{"text": "Ann", "answer_start": 400}]}, "it stands at 4"),
        ({"answers": [{"text": "Ann"}]}, "the key 'answer_start' is missing"),
        ({"answers": None}, "has not the form of SQuAD .they are None"),
        ({"answers": [{"text": "Ann", "answer_start": "4"}]}, "answer_start is '4' and no whole number"),
        ({"answers": [{"text": "Ann", "answer_start": True}]}, "answer_start is True and no whole number"),
    ],
)
def test_broken_questions_are_named(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(cl.InputError, match=message):
        list(squad.questions(squad_file(tmp_path, **changes)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \t\n", "holds no sentences"),
        (b"word\n", "line 1 is 'word'"),
        (b"a\tO\n\tO\n", "line 2"),
        (b"a\tO\nb\t\n", "line 2"),
        (b"a\tO\n\xff\tO\n", "line 2 is not utf-8"),
    ],
)
def test_broken_columns_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes(content)
    with pytest.raises(cl.InputError, match=message):
        list(conll.sentences(tmp_path / "a.conll"))


def test_a_word_may_be_a_space_that_parts_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("\u00a0 O\u00a0\n\u3000\tB-x\n", encoding="utf-8")
    (found,) = conll.sentences(tmp_path / "a.conll")
    assert (found.words, found.tags) == (("\u00a0", "\u3000"), ("O", "B-x"))


def tagged_files(folder: Path, words: str, gold: str, found: str) -> tuple[Path, Path]:
    for name, tags in (("gold.conll", gold), ("found.conll", found)):
        (folder / name).write_text("".join(f"{a} {b}\n" for a, b in zip(words.split(), tags.split(), strict=True)))
    return folder / "gold.conll", folder / "found.conll"


@pytest.mark.parametrize(
    ("gold", "found", "f1"),
    [
        ("DET NOUN VERB", "VERB DET NOUN", 0),  # a word each, and not one entity without a type
        ("DET NOUN VERB", "DET NOUN NOUN", 2 / 3),
        ("B I O", "B I O", 1),
        ("B I O", "B O O", 0),  # entities without a type, as conlleval reads them
        ("B-a I-a x", "B-a I-a O", 2 / 3),
    ],
)
def test_plain_tags_are_scored_word_by_word(gold: str, found: str, f1: float, tmp_path: Path) -> None:
    assert cl.score(*tagged_files(tmp_path, "a b c", gold, found), "token-classification").f1.value == pytest.approx(f1)


def test_predictions_are_scored_against_data_in_rows(tmp_path: Path) -> None:
    _, found = tagged_files(tmp_path, "Ada sang", "B-a O", "B-a O")
    (tmp_path / "gold.jsonl").write_text('{"words": ["Ada", "sang"], "tags": ["B-a", "O"]}\n')
    assert cl.score(tmp_path / "gold.jsonl", found, "token-classification").f1.value == 1
    (tmp_path / "uneven.jsonl").write_text('{"text": "Ada sang", "spans": [{"start": 0, "end": 2, "label": "a"}]}\n')
    with pytest.raises(cl.InputError, match=r"uneven.jsonl line 1: a span begins or ends inside a word"):
        cl.score(tmp_path / "uneven.jsonl", found, "token-classification")
    row = {"id": "q", "question": "Who?", "context": "Ada sang", "answers": {"text": ["Ada"], "answer_start": [0.0]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "answers.json").write_text('{"q": "Ada"}')
    assert cl.score(tmp_path / "rows.jsonl", tmp_path / "answers.json", "question-answering").as_dict()["exact"] == 1


def test_columns_of_many_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes(
        b"\xef\xbb\xbf-DOCSTART- -X- O O\r\n\r\nEU NNP B-NP B-ORG\r\nrejects VBZ B-VP O\r\n\t\r\n\r\nx\ty z\t\tO"
    )
    found = list(conll.sentences(tmp_path / "a.conll"))
    assert [(each.words, each.tags) for each in found] == [(("EU", "rejects"), ("B-ORG", "O")), (("x",), ("O",))]
    assert [each.place for each in found] == ["a.conll line 3", "a.conll line 7"]


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (
            "a O\nc O\n\nd O\n",
            "p.conll line 1: the sentence of g.conll line 1 should stand here, but has 'c' and not 'b'",
        ),
        ("a O\n\nd O\n", "has 1 words and not 2"),
        ("a O\nb O\n", "There are 2 sentences to score, but predictions for 1"),
    ],
)
def test_predictions_for_other_words_are_refused(predicted: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "g.conll").write_text("a O\nb B-x\n\nd O\n")
    (tmp_path / "p.conll").write_text(predicted)
    with pytest.raises(cl.InputError, match=message):
        cl.score(tmp_path / "g.conll", tmp_path / "p.conll", "token-classification")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.json", "--task", "question-answering"], "evaluate DATA --task TASK --predictions FILE"),
        (["data.json", "--predictions", "p.json"], "evaluate DATA --task TASK --predictions FILE"),
        (["m", "data.json", "--task", "question-answering", "--predictions", "p.json"], "and no model"),
        (["data.json"], "evaluate MODEL DATA"),
        (["data.json", "--task", "question-answering", "--predictions", "p.json"], "answers none of the questions"),
        (["absent.json", "--task", "question-answering", "--predictions", "p.json"], "absent.json cannot be read"),
        (
            ["list.json", "--task", "token-classification", "--predictions", "list.json"],
            "list.json line 1: each line must",
        ),
        (["data.json", "--task", "question-answering", "--predictions", "list.json"], "must hold a JSON object"),
        (["data.json", "--task", "question-answering", "--predictions", "wrong.json"], "the answer to q is 3"),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    squad_file(tmp_path)
    Path("p.json").write_text('{"other": "x"}')
    Path("list.json").write_text("[]")
    Path("wrong.json").write_text('{"q": 3}')
    assert main(["evaluate", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
