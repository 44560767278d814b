"""The compact token table trains to what full AdamW makes of the whole table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

import clozeline as cl
from clozeline import bundle
from clozeline.data.packing import Samples
from clozeline.data.readers import Example
from clozeline.tasks.text_classification import TextClassification
from clozeline.train import optim
from clozeline.train.loop import Training
from clozeline.train.settings import Settings
from helpers import reviews, write_csv

LABELS = ("negative", "positive")
FP32 = 2.0**-24  # half a unit in the last place


def trained(
    folder: Path, settings: Settings, *, compact: bool, weights: Literal["balanced"] | Mapping[str, float] | None = None
) -> tuple[Training, Samples, Tensor]:
    """A run to the end; the training, its samples, and the token table it leaves."""
    loaded = bundle.load(folder, TextClassification(LABELS, class_weights=weights))
    assert isinstance(loaded.task, TextClassification)
    rows = [Example(text, None, label, "") for text, label in reviews(31)]
    samples = loaded.task.samples(loaded.tokenizer, rows)
    used = np.unique(samples.ids) if compact else None
    training = Training(loaded.network, loaded.task, samples, settings, used=used)
    for _ in training:
        pass
    training.finish()
    return training, samples, loaded.network.encoder.embedding.tokens.weight.detach()


def start_table(folder: Path) -> Tensor:
    return bundle.load(folder).network.encoder.embedding.tokens.weight.detach()


SETTINGS = Settings(batch_size=8, learning_rate=5e-3, weight_decay=0.1, precision="fp32", clip=0.0, epochs=4)
CASES: dict[str, tuple[dict[str, Any], float]] = {  # changes, and how far a used row may end from full training's
    # a gradient summed in another order is off by 1e-7 of itself, where nothing is left of it by more; a step is 5e-3
    "plain": ({}, 5e-6),
    "accumulated": ({"max_tokens": 20}, 5e-6),
    "clipped": ({"clip": 0.1}, 5e-6),
    "no decay": ({"weight_decay": 0.0}, 5e-6),
    # a last bit of bfloat16 is 4e-3 of a value
    "bf16": ({"precision": "bf16"}, 1e-3),
}


@pytest.mark.parametrize("weights", [None, "balanced", {"negative": 3.0}], ids=str)
@pytest.mark.parametrize(("changes", "noise"), CASES.values(), ids=CASES)
def test_compact_training_equals_training_the_whole_table(
    tiny: Path, changes: dict[str, Any], noise: float, weights: Literal["balanced"] | Mapping[str, float] | None
) -> None:
    """With dropout on, over 16 steps."""
    settings = SETTINGS.replace(**changes)
    _, samples, table = trained(tiny, settings, compact=True, weights=weights)
    _, _, full = trained(tiny, settings, compact=False, weights=weights)
    used = np.unique(samples.ids)
    moved = (full - start_table(tiny)).abs().amax(1)
    assert bool((moved[used] > 1e-3).all())
    torch.testing.assert_close(table[used], full[used], rtol=0, atol=noise)
    unused = np.setdiff1d(np.arange(len(table)), used)
    assert len(unused) > 5
    # full training rounds each of 16 steps to fp32, the closed form once
    torch.testing.assert_close(table[unused], full[unused], rtol=17 * FP32, atol=0)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_rows_that_no_text_uses_are_those_of_adamw_in_float64(tiny: Path, schedule: str) -> None:
    settings = SETTINGS.replace(schedule=schedule)
    training, samples, table = trained(tiny, settings, compact=True)
    unused = np.setdiff1d(np.arange(len(table)), np.unique(samples.ids))
    begin = start_table(tiny)[unused].double()
    rows = torch.nn.Parameter(begin.clone())
    optimizer = torch.optim.AdamW([rows], weight_decay=settings.weight_decay)
    rows.grad = torch.zeros_like(rows)
    decay = 1.0
    for step in range(training.total):
        rate = optim.rate(settings, step, training.total)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        decay *= 1 - rate * settings.weight_decay
    torch.testing.assert_close(rows.detach(), begin * decay, rtol=1e-12, atol=0)
    torch.testing.assert_close(table[unused].double(), rows.detach(), rtol=2 * FP32, atol=0)  # rounded to fp32 once
    assert decay < 0.999


def tensors(held: object) -> Iterator[Tensor]:
    """Every tensor in nested dicts and lists."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict | list):
        for part in held.values() if isinstance(held, dict) else held:
            yield from tensors(part)


def test_an_unused_row_has_no_gradient_and_no_optimiser_state(tiny: Path) -> None:
    loaded = bundle.load(tiny, TextClassification(LABELS))
    assert isinstance(loaded.task, TextClassification)
    rows = [Example(text, None, label, "") for text, label in reviews(31)]
    samples = loaded.task.samples(loaded.tokenizer, rows)
    training = Training(loaded.network, loaded.task, samples, SETTINGS, used=np.unique(samples.ids))
    next(iter(training))
    shapes = {tuple(tensor.shape) for tensor in tensors(training.state())}
    assert (len(np.unique(samples.ids)), loaded.config.width) in shapes
    assert all(loaded.config.vocab_size not in shape for shape in shapes)


def test_after_training_the_model_has_its_whole_table_back_and_reads_every_word(tiny: Path) -> None:
    training, samples, table = trained(tiny, SETTINGS, compact=True)
    assert table.shape == start_table(tiny).shape
    assert training.network.encoder.embedding.tokens.num_embeddings == len(table)
    unused = np.setdiff1d(np.arange(len(table)), np.unique(samples.ids))
    assert torch.equal(training.network.encoder.embedding.tokens(torch.from_numpy(unused)), table[unused])


def test_validation_may_use_words_that_training_does_not(tiny: Path, tmp_path: Path) -> None:
    train = [("w1 good w2", "positive"), ("w1 bad w2", "negative")] * 4
    check = [("w40 good w41", "positive"), ("w42 bad", "negative")]
    model = cl.load(tiny, cl.TextClassification(LABELS), seed=1)
    run = model.fit(
        write_csv(tmp_path / "train.csv", train),
        write_csv(tmp_path / "check.csv", check),
        out=tmp_path / "run",
        settings=SETTINGS,
        quiet=True,
    )
    report = model.evaluate(tmp_path / "check.csv")
    assert run.best is not None
    # what validation saw through the compact table is what the saved model, with its whole table, gives
    assert report.loss == pytest.approx(run.best.loss, abs=1e-6)
    assert report.accuracy.value == run.best.score
