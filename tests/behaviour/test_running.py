"""Suites run on models: what counts as a failure, how expansions vote, whose labels are whose, and what is reported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clozeline as cl
from clozeline.behaviour import running
from clozeline.behaviour.running import Behaviour, run_suite, votes
from clozeline.data.suite import Case, Suite, read_suite
from clozeline.errors import InputError
from clozeline.face import Model
from clozeline.tasks.text_classification import Prediction

SHARED: dict[str, Any] = {"capability": "one", "place": "mine.jsonl line 1", "written": 0}


def suite(*cases: Case, about: Mapping[str, str] | None = None, notes: tuple[str, ...] = ()) -> Suite:
    return Suite("mine", cases, dict(about or {}), notes)


def minimum(text: str, label: str | None = "positive", written: int = 0, capability: str = "one") -> Case:
    return Case(capability, "minimum", text, f"mine.jsonl line {written + 1}", written, label, unsure=label is None)


def changed(test: Any, text: str, other: str, **more: Any) -> Case:
    return Case(test=test, text=text, changed=other, **{**SHARED, **more})


@pytest.fixture(scope="module")
def trained_model(trained: Path) -> Model:
    return cl.load(trained)


@pytest.fixture
def say(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model with given labels that gives the positive score a text ends with: "x 0.7"; the rest is the first label's."""

    def say(labels: tuple[str, ...] = ("negative", "positive")) -> Model:
        model = cl.load(trained)
        monkeypatch.setattr(Model, "labels", property(lambda _: labels))

        def predict(_: Model, examples: Any, window: int = 0) -> Iterator[Prediction]:
            for example in examples:
                read.append(example.text)
                score = float(example.text.split()[-1])
                scores = dict.fromkeys(labels, 0.0) | {labels[0]: 1 - score, labels[-1]: score}
                top = max(scores, key=scores.__getitem__)
                yield Prediction(top, scores[top], scores, 2, 3 if example.text.startswith("long") else 0)

        read.clear()
        monkeypatch.setattr(Model, "predict_stream", predict)
        return model

    read: list[str] = []
    say.read = read  # type: ignore[attr-defined]
    return say


@pytest.mark.parametrize(
    ("case", "by"),
    [
        (minimum("a 0.8"), None),
        (minimum("a 0.3"), 0.4),
        (minimum("a 0.3", "negative"), None),
        (minimum("a 0.9", None), None),
        (minimum("a 0.05", None), 0.05),
        (changed("invariance", "a 0.9", "a 0.6"), None),
        (changed("invariance", "a 0.6", "a 0.4"), 0.2),
        (changed("direction", "a 0.5", "a 0.7", label="positive", moves="up", least=0.1), None),
        (changed("direction", "a 0.5", "a 0.55", label="positive", moves="up", least=0.1), 0.05),
        (changed("direction", "a 0.5", "a 0.45", label="positive", moves="up", least=-0.1), None),
        (changed("direction", "a 0.5", "a 0.35", label="positive", moves="up", least=-0.1), 0.05),
        (changed("direction", "a 0.5", "a 0.7", label="positive", moves="down"), 0.2),
        (changed("direction", "a 0.5", "a 0.7", label="negative", moves="down"), None),
        (changed("direction", "a 0.97", "a 0.95", label="positive", moves="up"), None),
        (changed("direction", "a 0.04", "a 0.08", label="positive", moves="down", least=0.1), None),
        (changed("direction", "a 0.2", "a 0.4", label=None, moves="down"), None),
        (changed("direction", "a 0.2", "a 0.1", label=None, moves="down"), 0.1),
    ],
)
def test_what_fails_and_by_how_much(case: Case, by: float | None, say: Any) -> None:
    found = run_suite(say(), suite(case))
    (outcome,) = found.outcomes
    assert found.failures.tolist() == [float(by is not None)]
    assert [failure.by for failure in outcome.worst] == ([] if by is None else [pytest.approx(by)])


def test_failures_are_told_in_the_words_of_the_suite(say: Any) -> None:
    cases = (
        minimum("a 0.3", written=0),
        minimum("a 0.05", None, 1, "two"),
        changed("invariance", "a 0.6", "a 0.4", capability="three", written=2, change="typo"),
        changed(
            "direction", "a\n0.5", "a 0.7", label="positive", moves="down", least=0.1, capability="four", written=3
        ),
    )
    found = run_suite(say(("0", "1")), suite(*cases))
    said = [str(outcome.worst[0]) for outcome in found.outcomes]
    assert said == [
        "expected positive, predicted negative (0.70): a 0.3",
        "expected no label above 0.9, predicted negative (0.95): a 0.05",
        "expected positive, predicted negative (0.40 to 0.60): a 0.6 => a 0.4",
        r"expected positive down by 0.1, predicted positive (0.50 to 0.70): a\n0.5 => a 0.7",
    ]
    assert found.notes == (
        "The model's labels are taken by their usual meaning: '0' for 'negative', '1' for 'positive'.",
    )
    assert all(line in str(found) for line in said)


def test_expansions_share_one_vote_and_texts_are_read_once(say: Any) -> None:
    model = say()
    cases = [
        minimum("a 0.9"),
        minimum("a 0.1"),
        minimum("b 0.2"),
        minimum("c 0.3"),
        minimum("d 0.9", written=1),
        minimum("long a 0.3", written=2, capability="two"),
        changed("invariance", "a 0.9", "d 0.9", written=3, capability="two"),
    ]
    found = run_suite(model, suite(*cases, about={"none": "No case.", "one": "First."}, notes=("Of the suite.",)))
    assert say.read == ["a 0.9", "a 0.1", "b 0.2", "c 0.3", "d 0.9", "long a 0.3"]
    assert found.failures.tolist() == [0, 1, 1, 1, 0, 1, 0]
    one, two = found.outcomes
    assert (one.cases, one.expanded, one.about) == (2, 5, "First.")
    assert one.failure_rate.value == pytest.approx(0.75 / 2)
    assert (two.cases, two.expanded, two.test, two.failure_rate.value) == (2, 2, "minimum and invariance", 0.5)
    assert found.failure_rate.value == pytest.approx(1.75 / 4)
    assert found.failure_rate.low < found.failure_rate.value < found.failure_rate.high
    # one failure of a written case, the worst of its expansions
    assert [failure.text for failure in one.worst] == ["a 0.1"]
    assert (found.truncated_texts, found.truncated_tokens) == (1, 3)
    assert found.notes[0] == "Of the suite."
    assert "1 of 6 texts lost 3 tokens" in found.notes[1]
    whole = suite(*cases)
    assert votes(whole, found.failures).tolist() == [0.75, 0, 1, 0]
    assert votes(whole, found.failures, "two").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "noted"),
    [
        (("negative", "positive"), False),
        (("NEGATIVE", "POSITIVE"), True),
        (("0", "1"), True),
        (("LABEL_0", "LABEL_1"), True),
        (("neg", "pos"), True),
    ],
)
def test_usual_names_of_two_labels_are_known(labels: tuple[str, ...], noted: bool, say: Any) -> None:
    found = run_suite(say(labels), suite(minimum("a 0.8"), minimum("a 0.2", "negative", 1)))
    assert found.failure_rate.value == 0
    assert len(found.notes) == noted
    assert all(repr(label) in found.notes[0] for label in labels if noted)


def test_other_names_are_given_and_wrong_ones_refused(say: Any) -> None:
    cases = suite(minimum("a 0.8"), minimum("a 0.2", "negative", 1))
    model = say(("bad", "good"))
    with pytest.raises(
        InputError,
        match=r"no label 'positive', 'negative' of .* 'bad', 'good'.*labels=\{'positive': ..., 'negative': ...\}",
    ):
        run_suite(model, cases)
    assert run_suite(model, cases, labels={"positive": "good", "negative": "bad"}).failure_rate.value == 0
    with pytest.raises(InputError, match="no label 'negative'"):
        run_suite(model, cases, labels={"positive": "good"})
    with pytest.raises(InputError, match=r"labels names 'postive'.*did you mean 'positive'"):
        run_suite(model, cases, labels={"postive": "good"})
    with pytest.raises(InputError, match=r"maps 'positive' to 'goood'.*did you mean 'good'"):
        run_suite(model, cases, labels={"positive": "goood"})
    for labels in (("0", "1", "2"), ("0", "2")):
        with pytest.raises(InputError, match="There is no label"):
            run_suite(say(labels), cases)
    with pytest.raises(
        InputError, match=r"no label 'positive', 'neutral' .* --suite-labels positive=...,neutral=..., in"
    ):
        run_suite(say(("0", "1")), suite(minimum("a 0.8"), minimum("a 0.5", "neutral")))
    with pytest.raises(
        InputError, match=r"no label 'negative' .*, 'bad', 'good'. .* --suite-labels positive=...,negative="
    ):
        run_suite(
            say(("bad", "good")), suite(minimum("a 0.8"), minimum("a 0.2", "negative")), labels={"positive": "good"}
        )


def test_only_a_trained_text_classifier_can_be_run(tiny: Path) -> None:
    for task, what in [(None, "a bare encoder"), (cl.MultiLabelClassification(["a", "b"]), "a MultiLabel")]:
        with pytest.raises(InputError, match=what):
            run_suite(cl.load(tiny, task), suite(minimum("a")))
    with pytest.raises(InputError, match="random"):
        run_suite(cl.load(tiny, cl.TextClassification(["negative", "positive"])), suite(minimum("a")))


def test_a_real_model_fails_where_its_words_mislead_it(trained_model: Model, tmp_path: Path) -> None:
    long = " ".join(["w1"] * 80)
    cases = [
        minimum("w1 good w2"),
        minimum("w3 dull w4", "negative", 1),
        minimum("w5 good w6", "negative", 2, "sarcasm"),
        changed("invariance", "w1 bright w2", "w1 bright w2 w3", written=3, capability="words"),
        changed(
            "direction",
            "w1 strong",
            "w1 weak",
            label="positive",
            moves="down",
            least=0.3,
            written=4,
            capability="words",
        ),
        minimum(f"good {long}", written=5, capability="long"),
    ]
    found = run_suite(trained_model, suite(*cases))
    assert found.failures[:5].tolist() == [0, 0, 1, 0, 0]
    assert [outcome.capability for outcome in found.outcomes] == ["one", "sarcasm", "words", "long"]
    sarcasm = found.outcomes[1]
    direct = trained_model.predict(["w5 good w6"])[0]
    assert (sarcasm.worst[0].predicted, sarcasm.worst[0].place) == ("positive", "mine.jsonl line 3")
    assert sarcasm.worst[0].score == pytest.approx(direct.score, abs=1e-5)
    assert (found.truncated_texts, found.truncated_tokens) == (1, 81 - 62)
    assert json.loads(json.dumps(found.as_dict()))["capabilities"][1]["failure_rate"] == 1.0
    assert "sarcasm  100.0% [20.7%, 100.0%]  of     1" in str(found)
    found.figure(tmp_path / "suite.png")
    assert (tmp_path / "suite.png").read_bytes().startswith(b"\x89PNG")
    again = run_suite(trained_model, suite(*cases))
    assert (again.failures == found.failures).all()


def test_the_shipped_suite_runs_and_its_report_counts_everything(trained_model: Model) -> None:
    shipped = read_suite("sentiment")
    found = run_suite(trained_model, shipped)
    assert isinstance(found, Behaviour)
    assert (found.cases, len(found.failures), len(found.outcomes)) == (650, 824, 20)
    assert sum(outcome.expanded for outcome in found.outcomes) == 824
    assert all(len(outcome.worst) <= running.WORST for outcome in found.outcomes)
    assert found.failure_rate.value == pytest.approx(float(np.mean(votes(shipped, found.failures))))
    as_json = found.as_dict()
    assert (as_json["cases"], as_json["expanded"], len(as_json["capabilities"])) == (650, 824, 20)
