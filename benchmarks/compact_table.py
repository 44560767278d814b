"""What training only the used rows of the token table saves: memory and time of a step.

    python benchmarks/compact_table.py

Fine-tuning on SST-2, batch 32, with MiniLM (30,522 words, of which SST-2 uses 11,572) and with a model of MiniLM's shape,
fresh weights and 250,000 words, as multilingual models have; SST-2's ids are spread over them. Each in a process of its
own, with the whole table and with the compact one. Peak memory is that of the process, the 300 MB or so of torch and
the loaded model included: while it trains, and at the end, when the whole table has been written back.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

import side_by_side

CONTENDERS = ("minilm-whole", "minilm-compact", "250k-whole", "250k-compact")
WORDS = 250_000
WARM = 3
MB = 2**20


def peak() -> float:
    """The most memory this process has had, in MB; the system counts KB, or bytes on a Mac."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB


def work(name: str, folder: Path, steps: int, count: int | None) -> dict[str, Any]:
    from clozeline import bundle
    from clozeline.data.readers import Example
    from clozeline.tasks.text_classification import TextClassification
    from clozeline.train.loop import Training
    from clozeline.train.settings import Settings

    loaded = bundle.load(folder, TextClassification(labels=["negative", "positive"]))
    task = loaded.task
    assert isinstance(task, TextClassification)
    texts, labels = side_by_side.reviews("sst2", count)
    examples = [Example(text, None, str(label), "") for text, label in zip(texts, labels, strict=True)]
    samples = task.samples(loaded.tokenizer, examples)
    if name.startswith("250k"):
        config = loaded.config.replace(vocab_size=WORDS)
        loaded.network = loaded.family.build(config, task.head, len(task.labels))
        places = np.random.default_rng(0).permutation(WORDS).astype(np.int32)
        samples = dataclasses.replace(samples, ids=places[samples.ids])
    used = np.unique(samples.ids) if name.endswith("compact") else None
    training = Training(loaded.network, task, samples, Settings(), used=used)
    step_seconds = [step.seconds for step, _ in zip(training, range(WARM + steps), strict=False)][WARM:]
    values = [value for state in training.optimizer.state.values() for value in state.values()]
    held = sum(value.numel() * value.element_size() for value in values)
    rows, while_training = training.network.encoder.embedding.tokens.num_embeddings, peak()
    training.finish()
    return {
        "peak": while_training,
        "peak_at_end": peak(),
        "optimizer": held / MB,
        "rows": rows,
        "milliseconds": 1000 * statistics.median(step_seconds),
    }


def main() -> None:
    parser = side_by_side.options(argparse.ArgumentParser(description=__doc__), 3, CONTENDERS)
    parser.add_argument("--steps", type=int, default=40, help="timed in each round (default %(default)s)")
    args = parser.parse_args()
    folder, steps = args.model or side_by_side.minilm(), 2 if args.tiny else args.steps
    if args.worker:
        side_by_side.start_worker(args.threads)
        print(json.dumps(work(args.worker, folder, steps, 320 if args.tiny else None)))
        return
    before = side_by_side.machine()
    common = ["--steps", str(steps), "--model", str(folder), *(["--tiny"] if args.tiny else [])]
    results = side_by_side.run(__file__, args.only or CONTENDERS, args, common)
    measures = {"milliseconds": "median step, ms", "peak": "peak MB in training", "peak_at_end": "peak MB at the end"}
    measures |= {"optimizer": "optimiser state, MB", "rows": "rows trained"}
    body = side_by_side.table(results, measures, ("minilm-whole", "250k-whole"))
    settings = f"SST-2, batch 32, {steps} steps, {args.threads} threads, "
    settings += f"{1 if args.tiny else args.repeats} rounds; median (range); ratios are of the step's time."
    side_by_side.publish("Compact token table", "Whole and compact table", settings, body, before, args.append)


if __name__ == "__main__":
    main()
