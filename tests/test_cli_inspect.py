"""The verb inspect, as a newcomer types it: what it prints and writes, and what is said of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import clozeline as cl
from clozeline import bundle
from clozeline.inspect.attribution import METHODS
from helpers import Run, as_trained, reviews, write_csv


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "reviews.csv", reviews(40))


@pytest.fixture(scope="module")
def filler(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_trained(bundle.load(tiny, cl.MaskedLM()), tmp_path_factory.mktemp("filler") / "model")


CASES: dict[str, tuple[str, ...]] = {
    "attention": ("w1 good w2", "bad", "--beside", "w3", "--layers", "0-1", "--heads", "0,2", "--join"),
    "senses": ("w1", "w1 good w2", "w1 bad w1"),
    "positions": (),
    "fill-mask": ("w1 [MASK] w2", "--top", "3"),
    "causal-gap": ("w1 good w2", "w3 w4 bad", "--mask-rate", "0.5"),
    "corruption": ("w1 good w2 bad w3 w4", "--mask-unit", "word", "--seed", "2"),
    "tokenization": ("w1 unheard",),
    "attribution": ("w1 good w2", "--target", "positive", "--method", METHODS[2]),
    "heads": ("DATA", "--limit", "10"),
    "probe": ("DATA", "--folds", "3"),
}


@pytest.mark.parametrize("what", CASES)
def test_each_prints_and_writes_the_same(
    what: str, run: Run, trained: Path, filler: Path, data: Path, tmp_path: Path
) -> None:
    model = trained if what in ("attribution", "heads", "probe") else filler
    given = [str(data) if each == "DATA" else each for each in CASES[what]]
    files = [tmp_path / f"view.{ending}" for ending in ("json", "png", "html")]
    done = run("inspect", what, model, *given, *(part for file in files for part in ("--out", file)))
    assert done.code == 0, done.err
    assert len(done.out) > 20 and all(file.stat().st_size > 200 for file in files)
    again = run("inspect", what, model, *given, "--json")
    assert json.loads(again.out) == json.loads(files[0].read_text(encoding="utf-8"))


def test_a_file_says_which_sense_is_meant(run: Run, tiny: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [("w1 good", "one"), ("w1 bad", "other"), ("dull w1", "one")])
    done = run("inspect", "senses", tiny, "w1", "--file", tmp_path / "a.csv", "--group", "label", "--json")
    assert [each["group"] for each in json.loads(done.out)["occurrences"]] == ["one", "other", "one"], done.err


def test_the_words_of_a_file_are_counted(run: Run, tiny: Path, data: Path) -> None:
    done = run("inspect", "tokenization", tiny, "--file", data, "--json")
    assert json.loads(done.out)["texts"] == 40


def test_a_limit_draws_at_random_and_not_in_step_with_the_labels(run: Run, trained: Path, tmp_path: Path) -> None:
    rows = [(f"w{at} {'good' if at % 2 else 'bad'}", "positive" if at % 2 else "negative") for at in range(40)]
    done = run("inspect", "probe", trained, write_csv(tmp_path / "turns.csv", rows), "--limit", "20", "--folds", "2")
    assert done.code == 0, done.err


def test_relations_of_pruned_heads_are_refused(run: Run, trained: Path, data: Path, tmp_path: Path) -> None:
    run("shrink", trained, "--heads", "1.0", "--out", tmp_path / "small")
    made = run("distill", tmp_path / "small", data, "--out", tmp_path / "out", "relations=1", "--dry-run")
    assert made.code == 2 and "were pruned; leave relations out" in made.err
    other = run(
        "distill", tmp_path / "small", data, "--out", tmp_path / "out", "--width", "16", "--heads", "2", "--dry-run"
    )
    assert other.code == 0, other.err


def test_heads_that_are_worth_nothing_are_taken_out(run: Run, trained: Path, tmp_path: Path) -> None:
    done = run("shrink", trained, "--heads", "0.1,1.0,1.3", "--out", tmp_path / "small")
    assert done.code == 0 and "heads: 8 -> 5" in done.out, done.err
    assert cl.load(tmp_path / "small").config.kept_heads(1) == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("attention", "MODEL", "w1", "--out", "a.gif"), "one of .json, .npz, .png, .svg, .html"),
        (("attention", "MODEL", "w1", "--out", "/proc/self/status/view.html"), "cannot be written"),
        (("attention", "MODEL", "w1", "--layers", "2-1"), "numbers counted from 0, such as 0,3 or 2-5"),
        (("attention", "MODEL", "w1", "--heads", "9"), "the model has heads 0 to 3"),
        (("attention", "MODEL", ""), "The text is empty"),
        (("attention", "no-such-folder/model", "w1"), "no-such-folder"),
        (("senses", "MODEL", "w1", "w1"), "2 to 2000 times"),
        (("senses", "MODEL", "w1", "w1 w1", "--group", "label"), "--group names a column of a file"),
        (("fill-mask", "MODEL", "w1"), "has no [MASK]"),
        (("corruption", "MODEL", "w1", "--mask-rate", "2"), "mask_rate"),
        (("attribution", "MODEL", "w1"), "MaskedLM model and cannot explain an answer"),
        (("heads", "MODEL", "no-such-file.csv"), "no-such-file.csv"),
        (("atention", "MODEL", "w1"), "atention"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: tuple[str, ...], says: str, run: Run, filler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("inspect", *(str(filler) if each == "MODEL" else each for each in arguments))
    assert done.code == 2 and says in done.err and done.out == "", done.err
    assert "Traceback" not in done.err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["3", "0.x", "0,1", "a"])
def test_heads_are_named_by_layer_and_number(given: str, run: Run, trained: Path, tmp_path: Path) -> None:
    done = run("shrink", trained, "--heads", given, "--out", tmp_path / "small")
    assert done.code == 2 and "LAYER.HEAD" in done.err
