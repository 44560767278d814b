"""Two processes pre-train as one does, whole and divided, and go on after a kill."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from processes import environment, kill, port

WORDS = [f"word{number}" for number in range(60)]
SIZES = ("--layers", "2", "--width", "32", "--heads", "2", "--ffn-width", "64", "--dropout", "0", "--max-length", "64")
FLAGS = (
    "--length",
    "32",
    "--batch-tokens",
    "600",
    "--precision",
    "fp32",
    "--learning-rate",
    "2e-3",
    "--held-out",
    "0.1",
)
MORE = ("--split", "line", "--nsp", "1", "--passes", "3", "--save-every", "2", "--log-every", "1")
GROWS = ("--first-length", "16", "--first-share", "0.5")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Documents of random words, and a tokenizer for them."""
    folder, draw = tmp_path_factory.mktemp("corpus"), random.Random(0)
    lines = [" ".join(" ".join(draw.choices(WORDS, k=5)).capitalize() + "." for _ in range(4)) for _ in range(100)]
    (folder / "text.txt").write_text("\n".join(lines))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]))
    return [str(folder / "text.txt"), "--tokenizer", str(folder)]


def command(processes: int, *arguments: object) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port())]
    return [*start, "-m", "clozeline", "pretrain", *map(str, arguments), *SIZES, *FLAGS, *MORE, *GROWS]


def run(processes: int, *arguments: object) -> None:
    done = subprocess.run(
        command(processes, *arguments), env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def straight(corpus: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that nothing stopped: of one process, of two, and of two with a divided model."""
    out = tmp_path_factory.mktemp("straight")
    run(1, *corpus, "--out", out / "one")
    run(2, *corpus, "--out", out / "two")
    run(2, *corpus, "--out", out / "divided", "--sharded", "--max-tokens", "100")  # passes of uneven number
    return out


def test_two_processes_whole_or_divided_take_the_steps_of_one(straight: Path) -> None:
    """The same global batches without dropout: losses within 1e-4 of each other, weights within 1e-3."""
    one = lines(straight / "one")
    assert len(one) > 15 and one[-2]["mlm_loss"] < one[0]["mlm_loss"] - 0.1
    for name in ("two", "divided"):
        other = lines(straight / name)
        assert [line["step"] for line in other] == [line["step"] for line in one]
        for ours, theirs in zip(one, other, strict=True):
            for key in ours.keys() & {"loss", "mlm_loss", "nsp_loss", "grad_norm", "validation_mlm_loss", "tokens"}:
                assert theirs[key] == pytest.approx(ours[key], rel=1e-4, abs=1e-4), (name, key, ours["step"])
        expected, found = weights(straight / "one"), weights(straight / name)
        assert expected.keys() == found.keys()
        assert max((expected[key] - found[key]).abs().max().item() for key in expected) < 1e-3


def test_two_killed_processes_go_on(straight: Path, corpus: list[str], tmp_path: Path) -> None:
    """With a divided model, whose state is gathered to be saved and divided again."""
    how = ["--sharded", "--max-tokens", "100"]
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(2, *corpus, "--out", out, *how), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(2400):
            if (out / "state.pt").exists() or process.poll() is not None:
                break
            time.sleep(0.02)
    finally:
        kill(out)
        process.wait(30)
    assert not (out / "run.json").exists() or not json.loads((out / "run.json").read_text())["finished"]
    run(2, *corpus, "--out", out, "--resume", *how)
    expected, found = weights(straight / "divided"), weights(out)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
