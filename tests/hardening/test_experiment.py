"""The whole loop with small models: verdicts on what helps, what is useless and what harms; leaks, stops, mistakes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clozeline as cl
from clozeline.hardening import mixing
from clozeline.hardening.experiment import harden
from helpers import SIGNS, reviews, write_csv

SLANG = {"negative": "w40", "positive": "w41"}
"""Words that no review has, which mean what a sign means."""
HOW: dict[str, Any] = dict(seeds=3, epochs=5, batch_size=16, learning_rate=3e-3, precision="fp32", probes=["w1 w40 w2"])
OTHER = {"negative": "positive", "positive": "negative"}


def slang(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts whose sign is said in the other words."""
    return [
        (" ".join(SLANG[label] if word in SIGNS[label] else word for word in text.split()), label)
        for text, label in reviews(count, seed, 3, 8)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    made = {"train": reviews(200, 1), "validation": reviews(40, 2), "test": reviews(120, 3), "extra": reviews(220, 4)}
    found = {name: write_csv(folder / f"{name}.csv", rows) for name, rows in made.items()}
    lines = [
        {"capability": "slang", "about": "Other words for good and bad."},
        {"capability": "plain", "about": "Ordinary."},
    ]
    for name, rows in (("slang", slang(40, 5)), ("plain", reviews(40, 6))):
        lines += [{"capability": name, "test": "minimum", "text": text, "label": label} for text, label in rows]
    found["suite"] = folder / "suite.jsonl"
    found["suite"].write_text("\n".join(map(json.dumps, lines)) + "\n")
    return found


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[tuple[str, str]]], Path]:
    def written(rows: list[tuple[str, str]], capability: str = "slang") -> Path:
        path = tmp_path_factory.mktemp("cases") / "cases.jsonl"
        lines = (json.dumps({"capability": capability, "text": text, "label": label}) for text, label in rows)
        path.write_text("\n".join(lines) + "\n")
        return path

    return written


def run(tiny: Path, files: dict[str, Path], source: Path, out: Path, **changes: Any) -> Any:
    given = {name: files[name] for name in ("suite", "extra")} | {"quiet": True, "share": 0.3, "capability": "slang"}
    parts = (tiny, files["train"], files["test"], files["validation"])
    return harden(*parts, **{**HOW, **given, **changes}, cases=source, out=out)


def test_cases_that_help_are_called_so_and_everything_is_reported(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    leak, near = slang(40, 5)[0][0], reviews(120, 3)[7][0]
    found = run(
        tiny, files, cases([*slang(120, 7), (leak, "negative"), (near, "positive")]), tmp_path / "out", capability=()
    )
    assert found.capabilities == ("slang",), "it fails most there"
    assert min(found.rates["slang"][arm] for arm in ("before", "control")) > 0.3 > 0.1 > found.rates["slang"]["after"]
    assert found.verdict == "improved", found
    assert len(found.sifted.leaks) >= 2
    trained = (tmp_path / "out" / "data" / "after.jsonl").read_text()
    assert leak not in trained and near not in trained
    for row in map(json.loads, trained.splitlines()):
        assert row["text"] not in {text for text, _ in slang(40, 5)}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["verdict"] == "improved" and report["target"]["verdict"] == "improved"
    markdown, page = ((tmp_path / "out" / f"report{end}").read_text() for end in (".md", ".html"))
    assert "LEAKS" in markdown and "w1 w40 w2" in markdown and "Where validation turns" in markdown
    assert "w1 w40 w2" in page and "http" not in page.split('id="view"')[1][:2000]
    assert set(found.probes[0].labels["after"]) == {"negative"}
    model = cl.load(found.model)
    assert [each.label for each in model.predict(["w1 w40 w2", "w3 good w1"])] == ["negative", "positive"]


def test_models_are_judged_where_they_are_trained(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[object] = []

    def load(name: Path, *, device: object = None, **given: Any) -> cl.Model:
        devices.append(device)
        return cl.load(name, device="cpu", **given)

    monkeypatch.setattr("clozeline.hardening.arms.load", load)
    run(tiny, files, cases(slang(20, 7)), tmp_path / "out", seeds=1, epochs=1, device="cpu")
    assert devices == ["cpu"] * 3


def test_useless_cases_change_nothing(tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path) -> None:
    found = run(tiny, files, cases(reviews(120, 8)), tmp_path / "out")
    assert found.verdict == "unchanged", found


def test_harmful_cases_are_found_out(tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path) -> None:
    found = run(
        tiny, files, cases([(text, OTHER[label]) for text, label in reviews(160, 9)]), tmp_path / "out", share=0.45
    )
    assert found.verdict == "harmed", found
    assert "accuracy" in " ".join(one.what for one in found.harmed)


def test_without_extra_the_control_gets_what_is_put_aside(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    found = run(tiny, files, cases(slang(20, 7)), tmp_path / "out", extra=None, seeds=1, epochs=1, share=0.2)
    mixture = found.mixture
    assert 10 < len(mixture.cases) == len(mixture.others) <= 20
    assert mixture.share == pytest.approx(0.2) and len(mixture.after) == len(mixture.control) == 225
    texts = {text for text, _ in mixture.ordinary}
    assert len(texts) == 180 and not texts & {text for text, _ in mixture.others}


def test_a_case_that_the_control_trains_on_is_none(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    """Copies of training texts, of which some are put aside; with extra, of those."""
    how = dict(seeds=1, epochs=1)
    copies = cases([*slang(60, 7), *reviews(200, 1), *reviews(220, 4)])
    aside = run(tiny, files, copies, tmp_path / "aside", extra=None, **how)
    given = run(tiny, files, copies, tmp_path / "given", **how)
    for found, sources in ((aside, [reviews(200, 1)]), (given, [reviews(200, 1), reviews(220, 4)])):
        trained = {text for rows in sources for text, _ in rows}
        assert found.mixture.cases and not trained & {text for text, _ in found.mixture.cases}
        assert found.sifted.counts["training text"] > 100


def test_what_is_cut_and_what_a_suite_says_of_itself_is_in_the_report(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text('{"note": "Of 3 tests one was left out."}\n' + files["suite"].read_text())
    how = dict(seeds=1, epochs=1, suite=suite, task=cl.TextClassification(max_length=5))
    run(tiny, files, cases(slang(60, 7)), tmp_path / "out", **how)
    said = (tmp_path / "out" / "report.md").read_text()
    assert "Of 3 tests one was left out." in said
    for name, count in (("training data", "\\d+"), (f"test {files['test']}", 120), ("suite suite", "\\d+")):
        assert re.search(rf"\d+ of {count} texts of {re.escape(name)} lose \d+ tokens \(long='truncate'\)", said), name


def test_of_capabilities_that_fail_alike_the_first_is_picked_and_too_few_cases_are_said_before_training(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    lines = [json.dumps({"capability": name, "about": "x"}) for name in ("zz", "slang", "aa", "plain")]
    for name in ("zz", "slang", "aa", "plain"):
        lines += [
            json.dumps({"capability": name, "test": "minimum", "text": f"{name} {at}", "label": label})
            for at, label in enumerate(["negative", "positive"] * 5)
        ]
    suite, source = tmp_path / "suite.jsonl", tmp_path / "cases.jsonl"
    suite.write_text("\n".join(lines) + "\n")
    source.write_text(
        "".join(
            cases(slang(8, at), name).read_text() for at, name in enumerate(("plain", "aa", "slang", "zz"), start=20)
        )
    )
    how = dict(seeds=1, epochs=1, learning_rate=1e-9, capability=(), suite=suite)
    found = run(tiny, files, source, tmp_path / "out", **how)
    top = max(found.rates[name]["before"] for name in found.rates)
    assert found.capabilities == (next(name for name, each in found.rates.items() if each["before"] == top),)
    suite.write_text("\n".join([lines[0], *lines[4:12]]) + "\n")
    source.write_text(cases(slang(8, 23), "zz").read_text())
    with pytest.raises(cl.InputError, match=r"has 10 cases and something to train on; name one \(--capability\)"):
        run(tiny, files, source, tmp_path / "few", **how)
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(words=(3,)), "is no range"),
        (dict(seeds="2"), "seeds is '2'"),
        (dict(seeds=1.5), "seeds is 1.5"),
        (dict(extra=["a"]), "extra is"),
    ],
)
def test_wrong_values_are_told(
    changes: dict[str, Any], said: str, tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    with pytest.raises(cl.InputError, match=said):
        run(tiny, files, cases(slang(20, 7)), tmp_path / "out", **changes)


def test_extra_that_stands_in_training_is_left_out_and_told(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    shouted = [(f"{text.upper()}!", label) for text, label in reviews(200, 1)[:30]]
    extra, how = write_csv(tmp_path / "extra.csv", [*shouted, *reviews(220, 4)]), dict(seeds=1, epochs=1)
    found = run(tiny, files, cases(slang(60, 7)), tmp_path / "out", extra=extra, **how)
    assert any(note.startswith("31 of the 250 texts of extra stand in the training data") for note in found.notes)
    assert not {text for text, _ in shouted} & {text for text, _ in found.mixture.others}
    with pytest.raises(cl.InputError, match="extra has 0, give more"):
        run(tiny, files, cases(slang(60, 7)), tmp_path / "none", extra=files["train"], **how)


def test_what_judges_is_trained_on_nowhere_and_the_control_has_the_labels_of_the_cases(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    """Train and extra hold a text of the test and one of the suite; extra is sorted by label, as files often are."""
    held = [reviews(120, 3)[7], (reviews(40, 6)[4][0].upper() + " !", "negative")]
    train = write_csv(tmp_path / "train.csv", [*reviews(200, 1), *held])
    extra = write_csv(tmp_path / "extra.csv", sorted([*reviews(220, 4), *held], key=lambda row: row[1]))
    found = harden(
        tiny,
        train,
        files["test"],
        files["validation"],
        **{**HOW, "seeds": 1, "epochs": 1},
        suite=files["suite"],
        extra=extra,
        cases=cases(slang(40, 7)),
        capability="slang",
        share=0.3,
        quiet=True,
        out=tmp_path / "out",
    )
    for arm in ("before", "after", "control"):
        trained = (tmp_path / "out" / "data" / f"{arm}.jsonl").read_text()
        assert not any(json.dumps(text)[1:-1] in trained for text, _ in held)
    assert any("are left out" in note for note in found.notes)
    labels = [sorted(label for _, label in some) for some in (found.mixture.others, found.mixture.cases)]
    assert labels[0] == labels[1] and set(labels[0]) == {"negative", "positive"}
    assert "take these verdicts as hints" in str(found), "of one seed"


def test_a_judge_speaks_its_own_labels(
    tiny: Path, trained: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    """Data with labels 0 and 1, cases with names, a judge with names."""
    numbers = {"negative": "0", "positive": "1"}
    numbered = {
        name: write_csv(tmp_path / f"{name}.csv", [(text, numbers[label]) for text, label in reviews(count, seed)])
        for name, count, seed in (("train", 100, 1), ("test", 40, 3))
    }
    wrong = [(text, OTHER[label]) for text, label in reviews(10, 21)]
    found = harden(
        tiny,
        numbered["train"],
        numbered["test"],
        **{**HOW, "seeds": 1, "epochs": 1},
        suite=files["suite"],
        cases=cases([*reviews(20, 20), *wrong]),
        capability="slang",
        judge=trained,
        share=0.5,
        quiet=True,
        out=tmp_path / "out",
    )
    assert found.sifted.counts["label check"] >= 8
    assert len(found.sifted.kept) >= 12
    assert {case.label for case in found.sifted.kept} == {"0", "1"}


def test_other_cases_cannot_join_a_run_under_way(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    source, how = cases(slang(60, 7)), dict(seeds=1, epochs=1)
    run(tiny, files, source, tmp_path / "out", **how)
    state = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps(state | {"finished": False}))
    source.write_text("".join(source.read_text().splitlines(keepends=True)[:30]))
    with pytest.raises(cl.InputError, match="cases changed since"):
        run(tiny, files, source, tmp_path / "out", resume=True, **how)


def test_other_labels_of_the_test_cannot_join_a_run_under_way_and_no_model_reads_them(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels change after the first model: in this process all are judged by what was read, and no other goes on."""
    test, how = tmp_path / "test.csv", dict(seeds=1, epochs=1)
    parts = {name: path for name, path in files.items() if name != "test"}
    shutil.copy(files["test"], test)
    load, out = cl.load, tmp_path / "out"

    def changing(*given: Any, **more: Any) -> cl.Model:
        write_csv(test, [(text, OTHER[label]) for text, label in reviews(120, 3)])
        return load(*given, **more)

    monkeypatch.setattr("clozeline.hardening.arms.load", changing)
    changed = run(tiny, parts | {"test": test}, cases(slang(60, 7)), out, **how)
    monkeypatch.undo()
    whole = run(tiny, files, cases(slang(60, 7)), tmp_path / "whole", **how)
    assert [one.before for one in changed.tests] == [one.before for one in whole.tests]
    assert [one.after for one in changed.tests] == [one.after for one in whole.tests]
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(state | {"finished": False}))
    with pytest.raises(cl.InputError, match="data changed since"):
        run(tiny, parts | {"test": test}, cases(slang(60, 7)), out, resume=True, **how)


def test_what_fails_more_but_has_no_cases_is_named(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    wrong = [dict(text=text, label=OTHER[label]) for text, label in reviews(20, 31)]
    lines = [{"capability": "upside-down", "test": "minimum"} | one for one in wrong]
    suite = tmp_path / "suite.jsonl"
    suite.write_text(files["suite"].read_text() + "\n".join(map(json.dumps, lines)) + "\n")
    found = run(tiny, files | {"suite": suite}, cases(slang(30, 7)), tmp_path / "out", capability=(), seeds=1)
    assert found.capabilities == ("slang",)
    assert found.rates["upside-down"]["before"] > found.rates["slang"]["before"]
    assert any("want of cases" in note and "upside-down" in note for note in found.notes)
    assert "failing most of what there are cases of" in str(found)


def test_what_the_models_before_do_not_know_of_may_still_be_changed(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    source, how, out = cases(slang(60, 7)), dict(seeds=1, epochs=1, capability=()), tmp_path / "out"
    with pytest.raises(cl.InputError, match="No case is left"):
        run(tiny, files, source, out, words=(50, 60), **how)
    kept = (out / "before" / "seed-0.json").stat().st_mtime_ns
    run(tiny, files, source, out, resume=True, **how)
    assert (out / "before" / "seed-0.json").stat().st_mtime_ns == kept, "it is not trained again"
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(state | {"finished": False}))
    with pytest.raises(cl.InputError, match="words changed since"):
        run(tiny, files, source, out, resume=True, words=(4, 60), **how)


def test_a_classifier_keeps_the_order_of_its_labels(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    cl.load(tiny, cl.TextClassification(labels=["positive", "negative"]), seed=0).save(tmp_path / "model")
    found = run(tmp_path / "model", files, cases(slang(60, 7)), tmp_path / "out", seeds=1, epochs=1)
    assert cl.load(found.model).labels == ("positive", "negative")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7])
def test_as_many_are_put_aside_as_the_control_needs(share: float) -> None:
    rows = sorted(reviews(500, 1), key=lambda row: row[1])
    left, aside = mixing.divided(rows, None, share, None, 0)
    assert sorted(left + aside) == sorted(rows)
    assert abs(mixing.rows_of(share, len(left)) - len(aside)) <= 1
    assert abs(sum(label == "negative" for _, label in aside) * 2 - len(aside)) <= 1


def test_a_stopped_run_goes_on_where_it_was(tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path) -> None:
    source, how = cases(slang(60, 7)), dict(seeds=2, epochs=1)
    whole = run(tiny, files, source, tmp_path / "whole", **how)
    judged = json.loads((tmp_path / "whole" / "control" / "seed-1.json").read_text())
    out = tmp_path / "out"
    run(tiny, files, source, out, **how)
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(state | {"finished": False}))
    for name in ("report.json", "control/seed-1.json"):
        (out / name).unlink()
    shutil.rmtree(out / "control" / "seed-1")
    kept = (out / "after" / "seed-0.json").stat().st_mtime_ns
    same = files["test"].parent / ".." / files["test"].parent.name / files["test"].name
    again = run(tiny, files | {"test": same}, source, out, resume=True, **how)
    again_judged = (out / "control" / "seed-1.json").read_text()
    assert json.loads(again_judged.replace(str(same), str(files["test"]))) == judged
    assert (out / "after" / "seed-0.json").stat().st_mtime_ns == kept, "it is not trained again"
    said = json.dumps(again.as_dict() | {"model": ""}).replace(str(same), str(files["test"]))
    assert json.loads(said) == json.loads(json.dumps(whole.as_dict() | {"model": ""}))
    with pytest.raises(cl.InputError, match="finished run"):
        run(tiny, files, source, out, **how)
    (out / "run.json").write_text(json.dumps(state | {"finished": False}))
    with pytest.raises(cl.InputError, match="unfinished run"):
        run(tiny, files, source, out, **how)
    with pytest.raises(cl.InputError, match="share changed since"):
        run(tiny, files, source, out, resume=True, share=0.25, **how)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(capability="slan"), "no capability 'slan': did you mean 'slang'"),
        (dict(share=1.5), "share is 1.5"),
        (dict(seeds=0), "at least one seed"),
        (dict(capability="plain"), "has no case of 'plain'"),
        (dict(suite="sentimental"), "sentiment"),
        (dict(labels={"negative": "bad", "positive": "good"}), "'bad'"),
        (dict(extra="nowhere.csv"), "nowhere.csv"),
        (dict(labels={"negative": "positive", "positive": "positive"}), "calls two labels of suite suite the same"),
        (dict(words=(60, 3)), "is no range"),
        (dict(metric="f2"), "metric is 'f2'"),
        (dict(share=0.001), "of 200 training rows is no case"),
        (dict(judge="clozeline/mini"), "has no labels; give a classifier"),
        (dict(paraphraser="nowhere/at/all"), "nowhere/at/all"),
        (dict(out=__file__), "is a file"),
    ],
)
def test_mistakes_get_one_sentence(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    """Before anything is written."""
    with pytest.raises(cl.InputError, match=says):
        run(tiny, files, cases(slang(20, 7)), **{"out": tmp_path / "out", **changes})
    assert not (tmp_path / "out").exists()


def test_labels_that_the_data_do_not_have_are_told(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    source = cases([(text, label[:3]) for text, label in slang(20, 7)])
    with pytest.raises(
        cl.InputError, match="the labels 'neg', 'pos', none of which the training data have: 'negative'"
    ):
        run(tiny, files, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_texts_that_all_judge_leave_nothing(
    tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path
) -> None:
    with pytest.raises(cl.InputError, match="train and test need texts of their own"):
        run(tiny, files | {"train": files["test"]}, cases(slang(20, 7)), tmp_path / "out", extra=None)


def test_cases_that_all_leak_leave_nothing(tiny: Path, files: dict[str, Path], cases: Any, tmp_path: Path) -> None:
    with pytest.raises(cl.InputError, match="No case is left"):
        run(tiny, files, cases(slang(40, 5)), tmp_path / "out", seeds=1, epochs=1)
