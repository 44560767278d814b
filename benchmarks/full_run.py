"""A whole fine-tuning on SST-2: three epochs, batch 32, learning rate 2e-5; accuracy on dev and seconds, all included.

    python benchmarks/full_run.py --seeds 0 1 2      # hours

Each side keeps its other defaults. Ours: 10 % warm-up, weight decay 0.01, length grouping, bf16 where the machine has it,
the best epoch kept. Trainer: fp32, random batches, no warm-up, no weight decay; `trainer-tuned` adds bf16 and length
grouping. Both validate after each epoch, and the table shows the last epoch and the best one for both. The seconds run
from the texts to the last validation: reading, tokenising and loading the model are in them, imports are not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import side_by_side
from finetune import BATCH, LEARNING_RATE, trainer_parts, trainer_rows

CONTENDERS = ("clozeline", "clozeline-fp32", "trainer", "trainer-tuned")


def clozeline(name: str, folder: Path, seed: int, count: int | None) -> dict[str, Any]:
    import clozeline as cl

    with tempfile.TemporaryDirectory() as held:
        train, dev = (_table(Path(held) / f"{split}.tsv", split, count) for split in ("sst2", "sst2-dev"))
        settings: dict[str, Any] = dict(epochs=3, batch_size=BATCH["sst2"], learning_rate=LEARNING_RATE)
        settings |= dict(seed=seed, precision="fp32" if name.endswith("fp32") else "auto")
        task = cl.TextClassification(labels=["negative", "positive"])
        began = time.perf_counter()
        model = cl.load(folder, task=task, device="cpu", seed=seed)
        run = model.fit(train, dev, out=Path(held) / "run", quiet=True, **settings)
        took = time.perf_counter() - began
    return _outcome([epoch.score for epoch in run.epochs], took)


def _table(file: Path, split: str, count: int | None) -> Path:
    rows = zip(*side_by_side.reviews(split, count), strict=True)
    file.write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return file


def trainer(name: str, folder: Path, seed: int, count: int | None) -> dict[str, Any]:
    import transformers as peer

    tuned: dict[str, Any] = dict(bf16=True, train_sampling_strategy="group_by_length") if name.endswith("tuned") else {}
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        train, dev = (trainer_rows(folder, split, count) for split in ("sst2", "sst2-dev"))
        parts = trainer_parts(folder, "sst2", seed, output_dir=out, num_train_epochs=3, eval_strategy="epoch", **tuned)
        run = peer.Trainer(train_dataset=train, eval_dataset=dev, compute_metrics=_accuracy, **parts)
        run.train()
        took = time.perf_counter() - began
    return _outcome([entry["eval_accuracy"] for entry in run.state.log_history if "eval_accuracy" in entry], took)


def _accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def _outcome(scores: list[float], took: float) -> dict[str, Any]:
    return {"seconds": took, "last": 100 * scores[-1], "best": 100 * max(scores)}


def main() -> None:
    parser = side_by_side.options(argparse.ArgumentParser(description=__doc__), 1, CONTENDERS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one round each (default 0 1 2)")
    args = parser.parse_args()
    folder = args.model or side_by_side.minilm()
    if args.worker:
        side_by_side.start_worker(args.threads)
        work = clozeline if args.worker.startswith("clozeline") else trainer
        print(json.dumps(work(args.worker, folder, args.seeds[0], 64 if args.tiny else None)))
        return
    before = side_by_side.machine()
    names = side_by_side.installed(args.only or ("clozeline", "trainer"), {"trainer": "accelerate"})
    seeds = args.seeds[:1] if args.tiny else args.seeds
    common = ["--model", str(folder), *(["--tiny"] if args.tiny else [])]
    results: side_by_side.Results = {name: [] for name in names}
    args.repeats = 1
    for seed in seeds:
        done = side_by_side.run(__file__, list(results), args, [*common, "--seeds", str(seed)])
        results = {name: results[name] + done[name] for name in done}
    measures = {"seconds": "seconds", "last": "dev accuracy, last epoch: %", "best": "best epoch: %"}
    body = side_by_side.table(results, measures, ("trainer",))
    settings = (
        f"3 epochs, batch {BATCH['sst2']}, learning rate {LEARNING_RATE}, seeds {seeds}, {args.threads} threads, "
    )
    settings += f"{folder.parent.name}/{folder.name}; median (range); the ratio is of seconds."
    side_by_side.publish("Fine-tuning", "A whole run on SST-2", settings, body, before, args.append)


if __name__ == "__main__":
    main()
