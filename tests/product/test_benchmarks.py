"""The benchmarks that need a machine these tests do not have run here in small form."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> str:
    path = os.pathsep.join([str(BENCHMARKS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, "--tiny", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_gpu_forward_is_ready() -> None:
    shown = run("gpu_forward.py", "--device", "cpu")
    for model in ("bert-base-uncased", "modernbert-base", "deberta-v3-base"):
        assert f"| {model} | 5 to 40 | clozeline |" in shown or f"| {model} | 2 to 16 | clozeline |" in shown


def test_forward_is_ready() -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers, which it compares with, is not installed")
    assert "| albert |" in run("forward.py", "--families", "albert", "--threads", "1", "--only", "clozeline")


def test_tasks_is_ready(data: Path, minilm: Path) -> None:
    names = ("stsb", "wnut17", "squad", "arc-easy")
    shown = run("tasks.py", "--threads", "1", "--only", "clozeline", "--data", *names)
    assert all(f"| {name} | clozeline | 1 |" in shown for name in names)


def test_the_peer_of_tasks_is_ready(data: Path, minilm: Path) -> None:
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate, which transformers' Trainer needs, is not installed")
    assert "| wnut17 | trainer | 1 |" in run("tasks.py", "--threads", "1", "--only", "trainer", "--data", "wnut17")


def test_distill_is_ready(data: Path, minilm: Path, tmp_path: Path) -> None:
    shown = run("distill.py", "--threads", "1", "--only", "teacher", "distilled", "--keep", str(tmp_path))
    assert "| distilled | 1 |" in shown


def test_the_imdb_story_is_ready(data: Path, tmp_path: Path) -> None:
    shown = run("imdb_story.py", "--out", str(tmp_path), "--model", "clozeline/mini", "--max-length", "64")
    assert "failure rate at sarcasm" in shown
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ("senses", "of 1,000 resamples"),
        ("positions", "clozeline/untrained"),
        ("causal-gap", "masked words of"),
        ("attribution", "2 reviews of"),
        ("heads", "seed 1: correlation of"),
    ],
)
def test_the_figures_of_inspections_are_ready(
    data: Path, minilm: Path, tmp_path: Path, figures: str, says: str
) -> None:
    view = tmp_path / "view.json"
    assert says in run("inspect_figures.py", figures, *("--threads", "1", "--keep", str(tmp_path), "--out", str(view)))
    assert view.exists()
