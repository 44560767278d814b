"""What distillation is worth on SST-2: a teacher, and students of half its layers trained in four ways.

    python benchmarks/distill.py --keep runs          # five seeds; what is kept is not run again
    python benchmarks/distill.py --keep runs --table --append benchmarks/RESULTS.md      # only the table of what is kept

    teacher     all layers of --model, fine-tuned on the labels
    layers      a student that begins as layers of the teacher, spread evenly, trained on the labels alone
    scratch     the same shape from random weights, trained on the labels alone
    distilled   the student of the teacher's layers, trained on the teacher's answers and hidden states beside the labels
    unlabelled  the same on the answers and states alone, of all 67,349 phrases, whose labels nobody reads

Seed n of a student learns from the teacher of seed n, on --examples training phrases spread over the file, and is scored on
the 1,821 test sentences after its last epoch; dev is left for choosing settings. Speed is that of `compare`: teacher and
student in turns, batches of 32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import side_by_side
from clozeline.files import write_whole

ROWS = ("teacher", "layers", "scratch", "distilled", "unlabelled")
TEACHER: dict[str, Any] = dict(epochs=3, batch_size=32, learning_rate=5e-5)
STUDENT: dict[str, Any] = dict(epochs=4, batch_size=32, learning_rate=1e-4)
SCRATCH: dict[str, Any] = STUDENT | dict(learning_rate=3e-4)
TAUGHT: dict[str, Any] = dict(soft=1.0, hard=1.0, temperature=2.0, hidden=1.0, match="layers")
MORE: dict[str, Any] = STUDENT | TAUGHT | dict(epochs=2, hard=0.0)


def texts(split: str, folder: Path, count: int | None) -> Path:
    """The split as a file of its own."""
    rows = (side_by_side.DATA / "sst2" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    head, *rest = rows
    step = max(1, len(rest) // count) if count else 1
    path = folder / f"{split}.tsv"
    path.write_text("\n".join([head, *rest[::step][:count]]) + "\n", encoding="utf-8")
    return path


def work(name: str, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One row's run; a student's teacher lies beside it."""
    import clozeline as cl
    from clozeline.distiller import student_model

    teacher, own = args.keep / f"teacher-{seed}", args.keep / f"{name}-{seed}"
    tiny: dict[str, Any] = dict(epochs=1) if args.tiny else {}
    columns: dict[str, Any] = dict(text="sentence", label="label")
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        train = texts("train", folder, 64 if args.tiny else args.examples)
        test = texts("test-labeled", folder, 32 if args.tiny else None)
        began = time.perf_counter()
        how: dict[str, Any] = dict(out=folder / "run", quiet=True, seed=seed, **columns)
        if name == "teacher":
            model = cl.load(args.model or side_by_side.minilm(), cl.TextClassification(), seed=seed)
            model.fit(train, **how, **TEACHER | tiny)
        else:
            loaded = cl.load(teacher)
            model = student_model(loaded, layers=args.layers, seed=seed)
            if name == "scratch":
                family = model._bundle.family
                fresh = family.build(model.config, "text_classification", len(model.labels), seed=seed)
                model.network.load_state_dict(fresh.state_dict())
            settings = {"scratch": SCRATCH, "distilled": STUDENT | TAUGHT, "unlabelled": MORE}.get(name, STUDENT)
            if name == "unlabelled":
                train, how["label"] = texts("train", folder, 64 if args.tiny else None), None
            if settings.get("soft"):
                how["teacher"] = loaded
            model.fit(train, **how | settings | tiny)
        took = time.perf_counter() - began
        found = model.evaluate(test, **columns).as_dict()
        model.save(own)
    count = sum(part.numel() for part in model.network.parameters())
    return {"accuracy": found["accuracy"], "parameters": count, "seconds": took}


def table(args: argparse.Namespace) -> str:
    """A row for each way."""
    import clozeline as cl

    kept = {name: sorted(args.keep.glob(f"{name}.*.json")) for name in ROWS}
    runs = {name: [json.loads(file.read_text(encoding="utf-8")) for file in some] for name, some in kept.items()}
    if len({json.dumps(run["settings"]) for some in runs.values() for run in some}) > 1:
        raise SystemExit(f"The runs in {args.keep} are of different settings; keep them apart.")
    if not runs["teacher"]:
        raise SystemExit(f"There is no run of the teacher in {args.keep}.")
    base = statistics.mean(run["accuracy"] for run in runs["teacher"])
    seed = args.seeds[0]
    sides = cl.compare(
        args.keep / f"teacher-{seed}",
        args.keep / f"distilled-{seed}",
        runs=3 if args.tiny else 50,
        texts=side_by_side.reviews("sst2-dev")[0],
    )
    batch = next(each for each in sides.speeds if each.batch == 32)
    lines = [["model", "seeds", "test accuracy, mean ± sd", "range", "of the teacher's", "parameters", "x its speed"]]
    lines.append(["---"] * len(lines[0]))
    for name, some in ((name, some) for name, some in runs.items() if some):
        values = [100 * run["accuracy"] for run in some]
        sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        speed = "1" if name == "teacher" else f"{batch.times.median:.2f}"
        share = f"{statistics.mean(values) / base:.1f} %"
        mean, ends = f"{statistics.mean(values):.2f}{sd}", f"{min(values):.2f} to {max(values):.2f}"
        lines.append([name, str(len(values)), mean, ends, share, f"{some[0]['parameters']:,}", speed])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    side_by_side.options(parser, 1, ROWS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--examples", type=int, default=20_000, help="training phrases (default %(default)s)")
    parser.add_argument("--layers", type=int, default=3, help="of a student (default %(default)s)")
    parser.add_argument("--keep", type=Path, required=True, help="folder of the runs and their models")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args(arguments)
    if args.worker:
        side_by_side.start_worker(args.threads)
        print(json.dumps(work(args.worker, args, args.seeds[0])))
        return
    args.keep.mkdir(parents=True, exist_ok=True)
    for seed in [] if args.table else args.seeds[: 1 if args.tiny else None]:
        for name in args.only or ROWS:
            file = args.keep / f"{name}.{seed}.json"
            if file.exists():
                continue
            more = ["--seeds", str(seed), "--keep", str(args.keep), "--examples", str(args.examples)]
            more += ["--layers", str(args.layers), *(["--tiny"] if args.tiny else [])]
            more += ["--model", str(args.model)] if args.model else []
            print(f"seed {seed}", file=sys.stderr, flush=True)
            (found,) = side_by_side.run(__file__, [name], args, more)[name]
            made = {"layers": args.layers, "examples": args.examples, "tiny": args.tiny, "model": str(args.model)}
            write_whole(file, json.dumps(found | {"settings": made, "versions": side_by_side.versions()}) + "\n")
    shown = table(args)
    print(shown)
    if args.append:
        with args.append.open("a", encoding="utf-8") as file:
            file.write(f"\n{shown}\n")


if __name__ == "__main__":
    main()
