"""`clozeline harden` and what `evaluate` says of behaviour, as a user types them: a server, a kill, and every mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozeline import harden_recipe
from helpers import PLAIN, Done, Run, reviews, write_csv
from processes import environment

sys.path.append(str(Path(__file__).parent / "hardening"))
from fake_server import Asked, FakeServer, Reply, good, serving

SLANG = {"negative": "w40", "positive": "w41"}
FAST = ("--epochs", "1", "--batch-size", "16", "--learning-rate", "2e-3", "--precision", "fp32", "--seeds", "1")


def fine(done: Done) -> str:
    assert done.code == 0, done.err
    return done.out


def refused(done: Done, *parts: str) -> None:
    assert done.code == 2
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, count, seed in (("train", 120, 1), ("test", 60, 3), ("dev", 40, 2), ("extra", 60, 4)):
        write_csv(folder / f"{name}.csv", reviews(count, seed))
    lines = [{"capability": "slang", "about": "Other words."}, {"capability": "usual", "about": "Usual ones."}]
    for at, (text, label) in enumerate(reviews(40, 6)):
        name = "slang" if at < 20 else "usual"
        lines.append({"capability": name, "test": "minimum", "text": f"{SLANG[label]} {text}", "label": label})
    (folder / "suite.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def script(asked: Asked, earlier: int) -> Reply:
    """Five texts of the label that is asked for; of labels that are asked for, what the slang says."""
    prompt, seed = asked
    wanted = re.search(r'right label of every text is "(\w+)"', prompt)
    if wanted is None:
        said = re.findall(r'^(\d+)\. "(.*)"$', prompt, re.MULTILINE)
        labels = ({"number": int(at), "label": next(k for k, v in SLANG.items() if v in text)} for at, text in said)
        return good("\n".join(map(json.dumps, labels)))
    random = np.random.default_rng([seed, len(wanted[1])])
    texts = (" ".join([SLANG[wanted[1]], *random.choice(PLAIN[:40], 6)]) for _ in range(5))
    return good("\n".join(json.dumps({"text": text, "label": wanted[1]}) for text in texts))


def command(tiny: Path, files: Path, out: Path, *more: str) -> list[str]:
    named = {
        "train": "train.csv",
        "test": "test.csv",
        "validation": "dev.csv",
        "extra": "extra.csv",
        "suite": "suite.jsonl",
    }
    given = [part for flag, name in named.items() for part in (f"--{flag}", str(files / name))]
    return ["harden", str(tiny), *given, "--capability", "slang", "--share", "0.2", "--out", str(out), *FAST, *more]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(script) as served:
        yield served


def test_a_server_is_paid_once_though_the_loop_is_killed(
    run: Run, tiny: Path, files: Path, tmp_path: Path, server: FakeServer
) -> None:
    asked = (
        "--url",
        server.url,
        "--generator",
        "tiny-llm",
        "--per-request",
        "5",
        "--price-in",
        "1",
        "--price-out",
        "1",
    )
    words = command(tiny, files, tmp_path / "out", *asked)
    server.hold(3)
    child = subprocess.Popen([sys.executable, "-m", "clozeline", *words], env=environment(), stderr=subprocess.DEVNULL)
    assert server.held.wait(300)
    child.kill()
    child.wait()
    server.answered_until = None
    server.release.set()
    before = sum(server.paid.values())
    assert before == 3
    report = json.loads(fine(run(*words, "--resume", "--json")))
    assert set(server.paid.values()) == {1}
    assert sum(server.paid.values()) > before
    assert report["rows"]["cases"] >= 20
    assert any("tiny-llm wrote the cases" in note for note in report["notes"])
    for name in ("report.md", "report.html", "report.json", "recipe.toml", "cases/kept.jsonl", "cases/rejected.jsonl"):
        assert (tmp_path / "out" / name).exists()
    assert fine(run("predict", report["model"], "w40 w1")).count("\t") == 2
    again = fine(run("harden", tmp_path / "out" / "recipe.toml", f"out={tmp_path / 'again'}", "seeds=1"))
    assert "The report:" in again


def test_two_processes_share_a_run_and_a_kill_of_one_loses_no_model(
    run: Run, tiny: Path, files: Path, tmp_path: Path
) -> None:
    """The first is killed in the middle of a model; the second has trained others meanwhile, and goes on with that one."""
    cases = tmp_path / "cases.jsonl"
    lines = (json.dumps({"text": f"{SLANG[label]} {text}", "label": label}) for text, label in reviews(40, 30, 6, 12))
    cases.write_text("\n".join(lines) + "\n")

    def words(out: str) -> list[str]:
        found = command(tiny, files, tmp_path / out, "--cases", str(cases))
        for flag, value in (("--seeds", "2"), ("--epochs", "10")):
            found[found.index(flag) + 1] = value
        return found

    def begun(name: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / name
        given = [sys.executable, "-m", "clozeline", *words("out"), "--resume"]
        with log.open("wb") as said:
            return subprocess.Popen(given, env=environment(), stdout=subprocess.DEVNULL, stderr=said), log

    def models(log: Path) -> list[str]:
        return re.findall(r"^\w+: model \d of 2", log.read_text(), re.MULTILINE)

    whole = json.loads(fine(run(*words("whole"), "--json")))
    (first, killed), (second, other) = begun("first.txt"), begun("second.txt")
    until = time.monotonic() + 200
    while not (models(other) and re.search(r"(?s)model .*model .*step [2-5]\d/80", killed.read_text())):
        assert time.monotonic() < until, killed.read_text()
        time.sleep(0.02)
    first.kill()
    first.wait()
    judged = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/seed-*.json")}
    assert second.wait(300) == 0
    assert {path: path.stat().st_mtime_ns for path in judged} == judged, "no model is judged twice"
    trained = sorted(models(killed) + models(other))
    again = [one for one in trained if trained.count(one) > 1]
    assert len({*trained}) == 6 and again == [models(killed)[-1]] * 2, "only the one under way is gone on with"
    assert "Going on from step" in other.read_text()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report | {"model": ""} == whole | {"model": ""}


def test_a_dry_run_counts_what_the_run_does_and_asks_nobody(
    run: Run, tiny: Path, files: Path, tmp_path: Path, server: FakeServer
) -> None:
    out, cases = tmp_path / "out", tmp_path / "cases.jsonl"
    texts = [(f"{SLANG[label]} {' '.join(f'{letter * 3}{at}' for at in range(6))}", label)
             for label in SLANG for letter in {"negative": "abcdef", "positive": "ghijkl"}[label]]  # fmt: skip
    cases.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in texts) + "\n")
    words = command(tiny, files, out, "--cases", str(cases), "--probe", "w1 w40")
    plan = json.loads(fine(run(*words, "--dry-run", "--json")))
    assert {path.name for path in tmp_path.iterdir()} == {"cases.jsonl"}
    assert (
        plan["one"]["train"]["labels"] == {"negative": 60, "positive": 60}
        and plan["one"]["validation"]["examples"] == 40
    )
    assert (plan["tests"], plan["suite"]) == ({str(files / "test.csv"): 60}, {"slang": 20, "usual": 20})
    assert (plan["probes"], plan["cases"], plan["asked"], plan["models"]) == (1, {"slang": 12}, None, 3)
    assert plan["seconds"] > 3 * plan["one"]["seconds"], "judging takes time too"
    report = json.loads(fine(run(*words, "--json")))
    assert report["rows"]["cases"] == 12, "the filters leave all"
    for arm in ("before", "after", "control"):
        rows = (out / "data" / f"{arm}.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in (out / arm / "seed-0" / "metrics.jsonl").read_text().splitlines()]
        assert (len(rows), max(steps)) == (plan["rows"][arm], plan["steps"][arm]), arm
    refused(run(*words, "--dry-run"), "holds a finished run")
    shown = fine(run(*words, "--overwrite", "--dry-run"))
    assert out.is_dir() and (
        "12 of slang, before the filters" in shown and "models      3, 1 of each arm: before 120 rows, 8 steps" in shown
    )
    asked = ("--url", server.url + "?key=hidden", "--generator", "tiny-llm", "--per-request", "4")
    shown = fine(run(*command(tiny, files, tmp_path / "other", *asked), "--dry-run"))
    assert "tiny-llm at http://127" in shown and "hidden" not in shown
    assert "15 of each of negative, positive, at slang: 8 to 24 requests of 4, then for their labels" in shown
    assert not server.asked and not (tmp_path / "other").exists()


def test_a_leak_ends_a_strict_run_before_anything_is_trained(run: Run, tiny: Path, files: Path, tmp_path: Path) -> None:
    out, cases = tmp_path / "out", tmp_path / "cases.jsonl"
    (leak, label), *_ = reviews(60, 3)
    rows = [*((f"{SLANG[name]} {text}", name) for text, name in reviews(20, 30, 6, 12)), (leak, label)]
    cases.write_text("\n".join(json.dumps({"text": text, "label": name}) for text, name in rows) + "\n")
    words = command(tiny, files, out, "--cases", str(cases))
    refused(
        run(*words, "--strict"),
        "Cases repeat held-out texts:",
        f" of test {files / 'test.csv'}",
        "rejected.jsonl",
        "--resume",
    )
    assert leak in (out / "cases" / "rejected.jsonl").read_text()
    assert not any((out / arm).exists() for arm in ("before", "after", "control"))
    told = json.loads(fine(run(*words, "--resume", "--json")))
    assert leak in {one["text"] for one in told["sifted"]["leaks"]}
    assert leak not in (out / "data" / "after.jsonl").read_text()


def test_a_suite_slices_and_label_errors_are_printed_and_drawn(
    run: Run, trained: Path, files: Path, tmp_path: Path
) -> None:
    assert "slang" in fine(
        run("evaluate", trained, "--suite", files / "suite.jsonl", "--figure", tmp_path / "suite.png")
    )
    found = json.loads(fine(run("evaluate", trained, "--suite", files / "suite.jsonl", "--json")))
    assert [each["capability"] for each in found["capabilities"]] == ["slang", "usual"]
    fine(run("evaluate", trained, files / "test.csv", "--slices", "--figure", tmp_path / "slices.png"))
    assert json.loads(fine(run("evaluate", trained, files / "test.csv", "--by", "label", "--json")))["slices"]
    assert "label" in fine(run("evaluate", trained, files / "test.csv", "--label-errors"))
    assert {path.name for path in tmp_path.iterdir()} == {"suite.png", "slices.png"}


PARTS = ("MODEL", "--train", "train.csv", "--test", "test.csv")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["evaluate", "MODEL", "--suite", "sentimnt"], ["sentiment"]),
        (["evaluate", "MODEL", "test.csv", "--suite", "sentiment"], ["leave the data out"]),
        (["evaluate", "MODEL", "--slices"], ["labelled data"]),
        (["evaluate", "MODEL", "test.csv", "--slices", "--label-errors"], ["at a time"]),
        (["evaluate", "MODEL", "test.csv", "--by", "lable"], ["'label'"]),
        (["harden", "MODEL", "--train", "train.csv"], ["test"]),
        (
            ["harden", "MODEL", "--train", "train.csv", "--test", "test.csv", "--url", "http://localhost:1"],
            ["generator"],
        ),
        (["harden", "MODEL", "--train", "train.csv", "--test", "test.csv", "--prompt", "p.txt"], ["url and generator"]),
        (["harden", "MODEL", "--train", "train.csv", "--test", "test.csv", "--suite-labels", "a"], ["positive=1"]),
        (["harden", "MODEL", "--train", "none.csv", "--test", "test.csv"], ["none.csv"]),
        (["harden", "MODEL", "--train", "train.csv", "--test", "test.csv", "--capability", "sarkasm"], ["sarcasm"]),
        (
            [
                "harden",
                "MODEL",
                "--train",
                "train.csv",
                "--test",
                "test.csv",
                "--capability",
                "negation",
                "--capability",
                "sarcasm,ironie",
            ],
            ["'ironie'", "did you mean 'irony'"],
        ),
        (["harden", "MODEL", "tests=x"], ["'test'"]),
        (["harden", *PARTS, "--case-words", "60,3", "--dry-run"], ["no range"]),
        (["harden", *PARTS, "--judge", "clozeline/mini", "--dry-run"], ["has no labels"]),
        (["harden", *PARTS, "--out", "test.csv", "--dry-run"], ["is a file"]),
        (["harden", *PARTS, "--metric", "f2", "--dry-run"], ["metric is 'f2'"]),
        (["harden", "MODEL", "--train", "test.csv", "--test", "test.csv", "--dry-run"], ["texts of their own"]),
        (["harden", *PARTS, "--suite-labels", "positive=1,positive=0"], ["a label twice"]),
        (["harden", *PARTS, "--suite-labels", "positive="], ["positive=1"]),
        (
            ["evaluate", "MODEL", "test.csv", "--label-errors", "--text", "text", "--label", "label,text"],
            ["give one column"],
        ),
        (["evaluate", "MODEL", "test.csv", "--slices", "--text", "text", "--label", "label,text"], ["give one column"]),
    ],
)
def test_mistakes_get_one_sentence(
    run: Run, trained: Path, files: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(files)
    refused(run(*(str(trained) if word == "MODEL" else word for word in words)), *parts)


def test_every_key_of_a_recipe_reaches_the_work(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that is read and then dropped would be obeyed in silence by nobody."""
    got: dict[str, Any] = {}

    class Stopped(Exception):
        pass

    def work(**given: Any) -> None:
        got.update(given)
        raise Stopped

    monkeypatch.setattr("clozeline.hardening.experiment.harden", work)
    server = {"url": "http://localhost:1", "generator": "g", "key": "K", "sampling": "0.5", "per_request": "3"}
    server |= {"price_in": "1.0", "price_out": "2.0"}
    given = {"train": "a", "test": "b,c", "validation": "d", "suite": "s", "capability": "x,y", "judge": "j"}
    given |= {"paraphraser": "p", "case_words": "4,50", "extra": "e", "share": "0.3", "text": "t", "label": "l"}
    given |= {"columns": "t,l", "suite_labels": "positive=1", "encoding": "latin-1", "long": "head_tail"}
    given |= {"max_length": "64", "out": str(tmp_path), "seeds": "7", "device": "cpu", "epochs": "9"}
    flags = [part for name, value in (given | server).items() for part in ("--" + name.replace("_", "-"), value)]
    flags += ["--capability", "z"]
    with pytest.raises(Stopped):
        run("harden", "m", *flags, "--no-second", "--strict", "--probe", "One.", "--resume")
    told = {name for name in harden_recipe.KEYS if not harden_recipe.KEYS[name].setting}
    assert told == {*given, *server, "model", "second", "strict", "probes", "cases", "prompt", "check_prompt"} - {
        "epochs"
    }
    task, cases = got.pop("task"), got.pop("cases")
    assert (task.long, task.max_length, got.pop("settings").epochs) == ("head_tail", 64, 9)
    asked = (cases.url, cases.model, cases.key_variable, cases.temperature, cases.per_request, cases.second)
    assert asked == ("http://localhost:1", "g", "K", 0.5, 3, False)
    assert (cases.price_in, cases.price_out) == (1.0, 2.0)
    wanted: dict[str, Any] = {
        name: given[name] for name in ("train", "validation", "suite", "judge", "paraphraser", "extra", "text")
    }
    wanted |= {"label": "l", "encoding": "latin-1", "out": str(tmp_path), "device": "cpu", "model": "m", "share": 0.3}
    wanted |= {"test": ("b", "c"), "capability": ("x,y", "z"), "words": (4, 50), "columns": ("t", "l"), "seeds": 7}
    wanted |= {
        "labels": {"positive": "1"},
        "probes": ("One.",),
        "resume": True,
        "overwrite": False,
        "quiet": False,
        "strict": True,
    }
    assert got == wanted


def test_a_recipe_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = {"model": "m", "train": "t", "test": ("a", "b"), "probes": ("One, two.",), "epochs": 15, "share": 0.2}
    found = harden_recipe.HardenRecipe.of(values)
    (tmp_path / "r.toml").write_text(found.to_toml())
    assert harden_recipe.resolve(str(tmp_path / "r.toml"), [], {}) == found


def test_the_recipe_that_is_shipped_is_one() -> None:
    root = Path(__file__).parents[1]
    (path,) = (root / "recipes" / "hardening").glob("*.toml")
    found = harden_recipe.resolve(str(path), ["seeds=2"], {})
    assert found.seeds == 2
    assert all((root / name).exists() for name in (found.train, *found.test))
