"""Fine-tuning: steady-state examples a second.

    python benchmarks/finetune.py --data sst2             # batch 32, 50 steps of 2,105
    python benchmarks/finetune.py --data imdb             # batch 16, cut at 512 tokens, 6 steps of 200

Same checkpoint, batch size, learning rate and dropout (0.1 hidden and attention, as the checkpoint says). A few steps
cannot stand for an epoch by chance: lengths differ too much, and length grouping begins with the longest. So each
contender's own planner plans a whole epoch, the planned batches are sorted by what they cost (tokens, padding included),
and the most average one of each of `--steps` equal shares is timed, in random order. Examples a second are then those of an
epoch; the tokens an example that the table shows must be the same for all. Texts are tokenised before the timed region, and
every batch is trained on once before: an epoch repeats its shapes, and half-precision CPU kernels are compiled for a shape.

    clozeline        as it comes: length grouping, bf16 over fp32 weights where the machine has it, compact token table
    clozeline-fp32   the same in fp32
    trainer          transformers' Trainer as it comes: fp32, random batches padded to their longest
    trainer-tuned    Trainer with bf16=True and train_sampling_strategy="group_by_length"
    trainer-tuned-eager   the same with attn_implementation="eager": SDPA has no fused kernel for dropout on a CPU
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import side_by_side

CONTENDERS = ("clozeline", "clozeline-fp32", "trainer", "trainer-tuned", "trainer-tuned-eager")
BATCH = {"sst2": 32, "imdb": 16}
STEPS = {"sst2": 50, "imdb": 6}
EXAMPLES = {"sst2": None, "imdb": 3200}
"""Of an epoch: all of SST-2; of IMDB four windows of 50 batches, which the length grouping of both sides works in."""
LEARNING_RATE = 2e-5
LONGEST = 512


def chosen_batches(costs: np.ndarray, tokens: np.ndarray, steps: int) -> list[int]:
    """Places of the batches to time: of `steps` equal shares by cost, each one's most average."""
    order = np.lexsort((tokens, costs))
    timed: list[int] = []
    for share in np.array_split(order, min(steps, len(order))):
        off = sum(np.abs(each[share] / each[share].mean() - 1) for each in (costs, tokens))
        timed.append(int(share[np.argmin(off)]))
    return [int(at) for at in np.random.default_rng(0).permutation(timed)]


def summary(took: float, batches: list[np.ndarray], lengths: np.ndarray, padded: int) -> dict[str, Any]:
    """padded: tokens computed on, those that exist included."""
    examples, tokens = sum(map(len, batches)), int(sum(lengths[batch].sum() for batch in batches))
    speed = {"examples_per_second": examples / took, "tokens_per_second": tokens / took}
    return {**speed, "tokens_per_example": tokens / examples, "padding": 1 - tokens / padded}


def clozeline(name: str, folder: Path, data: str, steps: int, count: int | None) -> dict[str, Any]:
    from clozeline import bundle
    from clozeline.data.packing import training_batches
    from clozeline.data.readers import Example
    from clozeline.tasks.text_classification import TextClassification
    from clozeline.train.loop import Training
    from clozeline.train.settings import Settings

    loaded = bundle.load(folder, TextClassification(labels=["negative", "positive"]))
    assert isinstance(loaded.task, TextClassification)
    texts, labels = side_by_side.reviews(data, count)
    examples = [Example(text, None, str(label), "") for text, label in zip(texts, labels, strict=True)]
    samples = loaded.task.samples(loaded.tokenizer, examples)
    precision = "fp32" if name.endswith("fp32") else "auto"
    settings = Settings(batch_size=BATCH[data], learning_rate=LEARNING_RATE, precision=precision)  # type: ignore[arg-type]
    training = Training(loaded.network, loaded.task, samples, settings, used=np.unique(samples.ids))
    batches = training_batches(samples.lengths, settings.batch_size, settings.seed, 0)
    tokens = np.asarray([samples.lengths[batch].sum() for batch in batches])
    timed = chosen_batches(tokens, tokens, steps)
    for at in timed:
        training._step(batches[at])  # the loop's own step, on batches of our choice
    began = time.perf_counter()
    for at in timed:
        training._step(batches[at])
    took = time.perf_counter() - began
    return summary(took, [batches[at] for at in timed], samples.lengths, int(tokens[timed].sum()))


def trainer_rows(folder: Path, data: str, count: int | None) -> list[dict[str, Any]]:
    """Tokenised examples as Trainer takes them."""
    from transformers import AutoTokenizer

    texts, labels = side_by_side.reviews(data, count)
    ids = AutoTokenizer.from_pretrained(folder)(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
    pairs = zip(ids, labels, strict=True)
    return [{"input_ids": row, "attention_mask": [1] * len(row), "labels": label} for row, label in pairs]


def trainer_parts(folder: Path, data: str, seed: int, attention: str = "sdpa", **settings: object) -> dict[str, Any]:
    """Model, arguments and collator for a Trainer that does nothing but train."""
    import transformers as peer

    peer.set_seed(seed)  # of the fresh classifier
    quiet: dict[str, Any] = dict(save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, seed=seed)
    quiet |= dict(use_cpu=True, dataloader_pin_memory=False, learning_rate=LEARNING_RATE, **settings)
    load = peer.AutoModelForSequenceClassification.from_pretrained
    return dict(
        model=load(folder, num_labels=2, dtype="float32", attn_implementation=attention),
        args=peer.TrainingArguments(per_device_train_batch_size=BATCH[data], **quiet),
        data_collator=peer.DataCollatorWithPadding(peer.AutoTokenizer.from_pretrained(folder)),
    )


def trainer(name: str, folder: Path, data: str, steps: int, count: int | None) -> dict[str, Any]:
    import torch
    import transformers as peer
    from transformers.trainer_pt_utils import get_length_grouped_indices

    tuned, size = "tuned" in name, BATCH[data]
    rows = trainer_rows(folder, data, count)
    lengths = np.asarray([len(row["input_ids"]) for row in rows])
    torch.manual_seed(0)
    order = get_length_grouped_indices(lengths.tolist(), size) if tuned else torch.randperm(len(rows)).tolist()
    batches = [np.asarray(order[at : at + size]) for at in range(0, len(order) - size + 1, size)]
    costs = np.asarray([size * lengths[batch].max() for batch in batches])
    timed = chosen_batches(costs, np.asarray([lengths[batch].sum() for batch in batches]), steps)
    chosen = [rows[row] for at in [*timed, *timed] for row in batches[at].tolist()]
    ends: list[float] = []

    class Clock(peer.TrainerCallback):  # type: ignore[misc]  # the peer has no types here
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        # the epoch is planned, so what Trainer gets stands in the order of the plan
        settings: dict[str, Any] = dict(num_train_epochs=1, train_sampling_strategy="sequential", bf16=tuned)
        attention = "eager" if name.endswith("eager") else "sdpa"
        parts = trainer_parts(folder, data, 0, attention, output_dir=out, **settings)
        peer.Trainer(train_dataset=chosen, callbacks=[Clock()], **parts).train()
    assert len(ends) == 2 * len(timed)
    return summary(ends[-1] - ends[len(timed) - 1], [batches[at] for at in timed], lengths, int(costs[timed].sum()))


def main() -> None:
    parser = side_by_side.options(argparse.ArgumentParser(description=__doc__), 5, CONTENDERS)
    parser.add_argument("--data", choices=tuple(BATCH), default="sst2")
    parser.add_argument("--steps", type=int, help=f"timed in each round (default {STEPS})")
    args = parser.parse_args()
    folder, steps = args.model or side_by_side.minilm(), args.steps or (2 if args.tiny else STEPS[args.data])
    if args.worker:
        side_by_side.start_worker(args.threads)
        work = clozeline if args.worker.startswith("clozeline") else trainer
        count = 10 * BATCH[args.data] if args.tiny else EXAMPLES[args.data]
        print(json.dumps(work(args.worker, folder, args.data, steps, count)))
        return
    before = side_by_side.machine()
    common = ["--data", args.data, "--steps", str(steps), "--model", str(folder), *(["--tiny"] if args.tiny else [])]
    names = side_by_side.installed(args.only or CONTENDERS, {"trainer": "accelerate"})
    results = side_by_side.run(__file__, names, args, common)
    body = side_by_side.table(
        results,
        {"examples_per_second": "examples/s", "tokens_per_second": "tokens/s"},
        ("trainer", "trainer-tuned"),
        {
            "tokens an example": lambda rounds: f"{rounds[-1]['tokens_per_example']:.1f}",
            "padding": lambda rounds: f"{rounds[-1]['padding']:.0%}",
        },
    )
    settings = f"{args.data}, batch {BATCH[args.data]}, {steps} steps of a whole epoch's plan, learning rate "
    settings += f"{LEARNING_RATE}, {args.threads} threads, {folder.parent.name}/{folder.name}, "
    settings += f"{1 if args.tiny else args.repeats} rounds; median (range); ratios are medians of the rounds' ratios."
    side_by_side.publish("Fine-tuning", f"Fine-tune {args.data}", settings, body, before, args.append)


if __name__ == "__main__":
    main()
