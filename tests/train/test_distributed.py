"""Two processes on one machine train as one does on the same batches, and go on after a kill, also with another number."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.train.distributed import Group, leave
from helpers import PLAIN, reviews, write_csv
from processes import environment, kill, port

FLAGS = ("--epochs", "3", "--batch-size", "7", "--learning-rate", "2e-3", "--precision", "fp32", "--save-every", "2")


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model without dropout, whose masks no two processes could share."""
    folder = tmp_path_factory.mktemp("plain")
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    train = write_csv(folder / "train.csv", reviews(50))  # the last batch of an epoch has one example, the others seven
    return [str(train), "--validation", str(write_csv(folder / "dev.csv", reviews(20, seed=1)))]


def command(processes: int, *arguments: object) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port())]
    return [*start, "-m", "clozeline", "finetune", *map(str, arguments), *FLAGS]


def run(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(processes, *arguments), env=environment(), capture_output=True, text=True, timeout=240
    )


def lines(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


@pytest.fixture(scope="module")
def pair(plain: Path, data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes."""
    out = tmp_path_factory.mktemp("two") / "run"
    done = run(2, plain, *data, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("The model is in") == 1  # one of them speaks
    return out


def test_two_processes_take_the_steps_of_one(plain: Path, data: list[str], pair: Path, tmp_path: Path) -> None:
    done = run(1, plain, *data, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = lines(tmp_path / "one"), lines(pair)
    assert len(one) == len(two) == 3 * (8 + 1)
    for alone, together in zip(one, two, strict=True):
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            assert together[key] == pytest.approx(value, rel=2e-4, abs=1e-6), (
                key
            )  # fp32 sums in another order, 24 steps
    first, second = cl.load(tmp_path / "one" / "model"), cl.load(pair / "model")
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_two_processes_share_windows_of_long_texts_and_frozen_layers(plain: Path, tmp_path: Path) -> None:
    """Token classification, whose steps are of windows and not of texts, with a lower layer that has no gradient."""
    random, sentences = np.random.default_rng(0), []
    for length in random.integers(20, 27, 8):
        words = random.choice(PLAIN[:40], size=length).tolist()
        sentences.append("\n".join(f"{word}\t{'B-thing' if word < 'w2' else 'O'}" for word in words))
    data = tmp_path / "train.conll"
    data.write_text("\n\n".join(sentences) + "\n")
    named = ("--validation", data, "--task", "token-classification", "--max-length", "16", "--freeze", "1")
    done = run(2, plain, data, *named, "--out", tmp_path / "2")
    assert done.returncode == 0, done.stderr[-3000:]
    how: dict[str, Any] = dict(epochs=3, batch_size=7, learning_rate=2e-3, precision="fp32", save_every=2, freeze=1)
    cl.load(plain, cl.TokenClassification(max_length=16)).fit(data, data, out=tmp_path / "1", quiet=True, **how)
    one, two = lines(tmp_path / "1"), lines(tmp_path / "2")
    assert len(one) == len(two) > 3 * (8 // 7 + 2)  # more steps than texts would give
    for alone, together in zip(one, two, strict=True):
        for key in alone.keys() & {"loss", "validation_loss", "f1"}:
            assert together[key] == pytest.approx(alone[key], rel=2e-4, abs=1e-6), key
    before, after = cl.load(plain), [cl.load(tmp_path / name / "model") for name in "12"]
    for a, b in zip(*(model.network.parameters() for model in after), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    start, end = (dict(model.network.named_parameters()) for model in (before, after[1]))
    frozen = [name for name in start if name in end and torch.equal(start[name], end[name])]
    assert any("layers.0." in name for name in frozen) and not any("layers.1." in name for name in frozen)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes to kill in /proc")
@pytest.mark.parametrize("later", [2, 1])
def test_a_killed_run_goes_on_with_as_many_processes_or_fewer(
    plain: Path, data: list[str], pair: Path, tmp_path: Path, later: int
) -> None:
    out = tmp_path / "run"
    silent: dict[str, Any] = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = subprocess.Popen(command(2, plain, *data, "--out", out), env=environment(), **silent)
    try:
        deadline = time.monotonic() + 200
        while not (out / "state.pt").exists() and started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        kill(out)
        started.wait()
    assert (out / "state.pt").exists(), "killed before the first state, or after the end"
    done = run(later, plain, *data, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    if later == 2:
        assert lines(out) == lines(pair)  # bit for bit
        kept, straight = ((each / "model" / "model.safetensors").read_bytes() for each in (out, pair))
        assert kept == straight
        return
    for alone, together in zip(lines(out), lines(pair), strict=True):
        assert alone["step"] == together["step"]
        for key in alone.keys() & {"loss", "validation_loss"}:
            assert alone[key] == pytest.approx(together[key], rel=2e-4)


def test_several_seeds_are_refused_in_several_processes(plain: Path, data: list[str], tmp_path: Path) -> None:
    done = run(2, plain, *data, "--out", tmp_path / "run", "--seeds", "2")
    assert done.returncode != 0
    assert "one process's work" in done.stderr
    assert not (tmp_path / "run").exists()


def test_shares_of_a_batch_are_disjoint_and_whole() -> None:
    chosen = np.arange(7)
    parts = [Group(rank, 3).share(chosen).tolist() for rank in range(3)]
    assert sorted(itertools.chain(*parts)) == chosen.tolist()
    assert Group().share(chosen).tolist() == chosen.tolist()


def test_each_process_drops_other_units() -> None:
    seeds = {Group(rank, 4).seed(0, step) for rank in range(4) for step in range(100)}
    assert len(seeds) == 400
    assert Group(0, 4).seed(3, 5) == Group().seed(3, 5)


LEAVING = """
import atexit, sys, threading, time
import torch.distributed as dist
from clozeline.train import distributed

class Torn:
    def __del__(self):
        print("the interpreter was taken apart")

torn = Torn()
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
atexit.register(print, "exit function")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
sys.exit(distributed.leave(3))
"""


def test_a_process_of_gloo_ends_without_taking_the_interpreter_apart(tmp_path: Path) -> None:
    """A thread of gloo that still drops a tensor then would abort it; what others registered for the exit is run."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, str(tmp_path / "store")], env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split("\n")) == (3, ["thread", "exit function", ""]), done.stderr


def test_a_process_alone_gets_its_code_back() -> None:
    assert leave(5) == 5
