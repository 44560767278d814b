"""Training here takes the steps that a plain transformers model takes under torch's AdamW, over the same batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clozeline import bundle
from clozeline.data.packing import Samples, training_batches
from clozeline.data.readers import Example
from clozeline.tasks.text_classification import TextClassification
from clozeline.train.loop import Training
from clozeline.train.settings import Settings
from helpers import pad, real, reviews

transformers = pytest.importorskip("transformers")

TASK = TextClassification(labels=["negative", "positive"])


def start(folder: Path, out: Path) -> tuple[bundle.Bundle, Any]:
    """The same weights twice, without dropout: our classifier, and transformers' loaded from where ours was saved."""
    loaded = bundle.load(folder, TASK)
    config = loaded.config.replace(dropout=0.0, attention_dropout=0.0)
    network = loaded.family.build(config, TASK.head, 2)
    network.load_state_dict(loaded.network.state_dict())
    loaded.network = network
    loaded.save(out)
    return loaded, transformers.BertForSequenceClassification.from_pretrained(out)


def plain_loop(model: Any, samples: Samples, settings: Settings) -> Iterator[float]:
    """How one writes it by hand: padded batches, mean loss, clipped gradients, AdamW, linear schedule with warm-up."""
    decayed = {n: p for n, p in model.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n}
    others = [p for n, p in model.named_parameters() if n not in decayed]
    groups = [
        {"params": [*decayed.values()], "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    per_epoch = math.ceil(len(samples) / settings.batch_size)
    total = per_epoch * settings.epochs
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, math.ceil(settings.warmup * total), total)
    model.train()
    for epoch in range(settings.epochs):
        for chosen in training_batches(samples.lengths, settings.batch_size, settings.seed, epoch):
            batch = samples.take(chosen)
            layout = batch.packed.layout
            found = model(
                input_ids=pad(batch.packed.ids, layout), attention_mask=real(layout).long(), labels=batch.targets
            )
            found.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            yield found.loss.item()


@pytest.mark.parametrize(
    ("start_from", "steps", "batch", "rate", "clip"), [("tiny", 30, 8, 1e-3, 0.5), ("minilm", 15, 4, 2e-5, 1.0)]
)
def test_losses_are_those_of_a_plain_transformers_loop(
    start_from: str, steps: int, batch: int, rate: float, clip: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """fp32, the same weights, order, groups and schedule: within 1e-4, and so are the weights after it."""
    ours, model = start(request.getfixturevalue(start_from), tmp_path)
    rows = [Example(text, None, label, "") for text, label in reviews(steps * batch // 3)]
    samples = TASK.samples(ours.tokenizer, rows)
    settings = Settings(batch_size=batch, learning_rate=rate, precision="fp32", clip=clip)
    training = Training(ours.network, TASK, samples, settings, used=np.unique(samples.ids))
    taken = list(training)
    training.finish()
    expected = list(plain_loop(model, samples, settings))
    losses = [step.loss for step in taken]
    assert len(losses) == steps
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)
    assert max(losses) - min(losses) > 0.02, "it learns, so the losses are not all alike"
    assert max(step.grad_norm for step in taken) > clip > min(step.grad_norm for step in taken)

    weights = dict(model.named_parameters())
    trained = dict(ours.network.named_parameters())
    for name, parts in ours.family.table(ours.config, TASK.head).items():
        other = torch.cat([weights[ours.family.written(part, TASK.head)] for part in parts])
        # AdamW divides by the root of the mean square, so where gradients are noise, steps of the rate have random signs
        gap = (trained[name] - other).abs().flatten()
        assert gap.max() <= steps * rate, name
        assert gap.mean() <= 0.05 * rate, name
