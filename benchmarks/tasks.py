"""Every task fine-tuned for real: what a model is worth on test data and how long it took, beside transformers' Trainer.

    python benchmarks/tasks.py --data rte mrpc --keep runs        # all seeds and contenders; what is kept is not run again
    python benchmarks/tasks.py --keep runs --table --append benchmarks/RESULTS.md      # only the table of what is kept

Both sides read the same files and train with the settings of `task_data.PLANS`: a linear schedule with 10 % warm-up, weight
decay 0.01 on matrices only, gradients clipped at 1.0, length and batch as there. wnut17 and nli have a dev set besides
the test set: there both keep the epoch with the best dev score. Elsewhere the last epoch counts. The seconds run from the
files to the scores: reading, tokenising, loading, training, validating and testing are in them; imports are not, but for
those that a library puts off.

    clozeline        as it comes: bf16 over fp32 weights where the machine has it, length grouping; it tests in fp32
    clozeline-fp32   the same, trained in fp32
    trainer          Trainer as it comes: fp32, random batches padded to their longest
    trainer-tuned    Trainer with bf16=True, train_sampling_strategy="group_by_length", test sets in the order of length

    mrpc, rte, cola, sst2, stsb   GLUE's (MRPC's 4,076 training pairs as published, 500 of them for testing), scored on dev
    wnut17                        entities; the published train, dev and test
    squad                         dev-v1.1.json, 80 % of the articles for training and the others for testing
    arc-easy                      questions whose four choices and letter the files have, scored on validation
    nli                           counterfactual NLI, original and revised together
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
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
from task_data import CHOICES, PLANS, Files, Plan, files, read, scores
from task_peer import trainer

CONTENDERS = ("clozeline", "clozeline-fp32", "trainer", "trainer-tuned")
USUAL = ("clozeline", "trainer", "trainer-tuned")


def clozeline(name: str, plan: Plan, files: Files, folder: Path, seed: int, out: Path) -> dict[str, Any]:
    import clozeline as cl

    load = cl.load  # imports, which are not timed
    names = {"classification": "TextClassification", "regression": "Regression", "tags": "TokenClassification"}
    names |= {"answers": "QuestionAnswering", "choices": "MultipleChoice"}
    task = getattr(cl, names[plan.kind])(max_length=plan.longest)
    rows = plan.kind in ("classification", "regression", "choices")
    columns: dict[str, Any] = dict(text="text", label="label") if rows else {}
    columns |= dict(choices=list(CHOICES)) if plan.kind == "choices" else {}
    columns |= dict(pair="pair") if plan.kind in ("classification", "regression") and plan.pair else {}
    settings: dict[str, Any] = dict(epochs=plan.epochs, batch_size=plan.batch, learning_rate=plan.rate, seed=seed)
    settings |= dict(schedule="linear", warmup=0.1, weight_decay=0.01, clip=1.0)
    settings |= dict(precision="fp32" if name.endswith("fp32") else "auto")
    began = time.perf_counter()
    model = load(folder, task, device="cpu", seed=seed)
    run = model.fit(files.train, files.dev, out=out / "run", quiet=True, **columns, **settings)
    found = model.evaluate(files.test, **columns).as_dict()
    took = time.perf_counter() - began
    return {**scores(plan, found), "seconds": took, "steps": run.steps}


def work(name: str, data: str, folder: Path, seed: int, tiny: bool) -> dict[str, Any]:
    """One run, in its own process."""
    plan = dataclasses.replace(PLANS[data], epochs=1) if tiny else PLANS[data]
    side = clozeline if name.startswith("clozeline") else trainer
    with tempfile.TemporaryDirectory() as held:
        written = files(data, Path(held), tiny)
        found = side(name, plan, written, folder, seed, Path(held) / "out")
        examples = plan.epochs * len(read(plan.kind, written.train))
    return {**found, "examples_per_second": examples / found["seconds"]}


# -- what is kept


def shared(args: argparse.Namespace, data: str, folder: Path) -> dict[str, Any]:
    """What runs must share to stand in one table."""
    model = f"{folder.parent.name}/{folder.name}"
    return {"plan": dataclasses.asdict(PLANS[data]), "threads": args.threads, "model": model, "tiny": args.tiny}


def kept(folder: Path, names: Sequence[str], args: argparse.Namespace, model: Path) -> list[dict[str, Any]]:
    """All runs in a folder, of these data sets, in the order of data, contender and seed."""
    runs = []
    for file in folder.glob("*.jsonl"):
        run = json.loads(file.read_text(encoding="utf-8"))
        if run["data"] not in names:
            continue
        if run["settings"] != json.loads(json.dumps(shared(args, run["data"], model))):
            raise SystemExit(f"{file} is of other settings: {run['settings']}. Keep these runs in another folder.")
        runs.append(run)
    order = (list(PLANS), CONTENDERS)
    return sorted(runs, key=lambda run: (order[0].index(run["data"]), order[1].index(run["contender"]), run["seed"]))


def run_missing(folder: Path, args: argparse.Namespace, names: Sequence[str], model: Path) -> None:
    """Run what the folder lacks, contenders in turn inside each seed. What fails on a data set is left out there."""
    failed: set[tuple[str, str]] = set()
    for number, seed in enumerate(args.seeds):
        turn = number % len(names)
        for data, name in ((data, name) for data in args.data for name in [*names[turn:], *names[:turn]]):
            file = folder / f"{data}.{name}.{seed}.jsonl"
            if file.exists() or (data, name) in failed:
                continue
            print(f"{data}, seed {seed}", file=sys.stderr, flush=True)
            before = side_by_side.machine()
            more = ["--data", data, "--seeds", str(seed), "--model", str(model), *(["--tiny"] if args.tiny else [])]
            try:
                (found,) = side_by_side.run(__file__, [name], args, more)[name]
            except SystemExit:  # it has said why
                failed.add((data, name))
                continue
            when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            run = {"data": data, "contender": name, "seed": seed, **found, "date": when, "machine": before}
            run |= {"versions": side_by_side.versions(), "settings": shared(args, data, model)}
            write_whole(file, json.dumps(run) + "\n")


# -- the table


def table(runs: Sequence[dict[str, Any]]) -> str:
    """A row for each data set and contender."""
    heads = ["data", "contender", "seeds", "score", "mean ± sd", "range", "over test, first seed"]
    heads += ["clozeline better by", "others", "seconds"]
    lines = [[*heads, "examples/s", "x clozeline's seconds"]]
    lines.append(["---"] * len(lines[0]))
    for data in dict.fromkeys(run["data"] for run in runs):
        main, *others = PLANS[data].measures
        of = {run["contender"]: [each for each in runs if same(each, run)] for run in runs if run["data"] == data}
        ours = of.get("clozeline", [])
        for name, some in of.items():
            values = [100 * run[main] for run in some]
            sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            better = "" if name == "clozeline" else difference([100 * run[main] for run in ours], values)
            means = [f"{other} {statistics.fmean(100 * run[other] for run in some):.2f}" for other in others]
            line = [data, name, str(len(some)), main, f"{statistics.fmean(values):.2f}{sd}"]
            low, high = (100 * edge for edge in some[0]["interval"])
            line += [f"{min(values):.2f} to {max(values):.2f}", f"{low:.2f} to {high:.2f}", better, ", ".join(means)]
            line += [side_by_side.spread([run[key] for run in some]) for key in ("seconds", "examples_per_second")]
            lines.append([*line, ratio(some, ours)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("data", "contender"))


def difference(ours: list[float], theirs: list[float]) -> str:
    """Of the means, with Welch's 95 % interval: a seed means nothing across libraries, so runs are not paired."""
    if not ours or not theirs:
        return "-"
    shown = f"{statistics.fmean(ours) - statistics.fmean(theirs):+.2f}"
    if min(len(ours), len(theirs)) < 2 or len({*ours}) == len({*theirs}) == 1:
        return shown
    from scipy.stats import ttest_ind

    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return f"{shown} [{interval.low:+.2f}, {interval.high:+.2f}]"


def ratio(some: list[dict[str, Any]], ours: list[dict[str, Any]]) -> str:
    """The median over seeds of a contender's seconds by clozeline's, which ran in the same turn."""
    seconds = {run["seed"]: run["seconds"] for run in ours}
    ratios = [run["seconds"] / seconds[run["seed"]] for run in some if run["seed"] in seconds]
    return f"{statistics.median(ratios):.2f}" if ratios else "-"


def main() -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser = side_by_side.options(about, 1, CONTENDERS)
    parser.add_argument("--data", nargs="+", choices=tuple(PLANS), default=list(PLANS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="(default 0 1 2 3 4)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a file for each run; what is there is not run again")
    parser.add_argument("--table", action="store_true", help="run nothing, make the table of what is kept")
    args = parser.parse_args()
    folder = args.model or side_by_side.minilm()
    if args.worker:
        side_by_side.start_worker(args.threads)
        print(json.dumps(work(args.worker, args.data[0], folder, args.seeds[0], args.tiny)))
        return
    before = side_by_side.machine()
    args.repeats, args.seeds = 1, args.seeds[:1] if args.tiny else args.seeds
    with tempfile.TemporaryDirectory() as held:
        keep = args.keep or Path(held)
        keep.mkdir(parents=True, exist_ok=True)
        kept(keep, args.data, args, folder)  # says now whether they fit
        if not args.table:
            run_missing(keep, args, side_by_side.installed(args.only or USUAL, {"trainer": "accelerate"}), folder)
        runs = kept(keep, args.data, args, folder)
    if not runs:
        raise SystemExit("There is no finished run.")
    dates = sorted(run["date"][:10] for run in runs)
    loads = sorted(float(run["machine"].rpartition("load ")[2]) for run in runs)
    plans = [
        f"{data}: batch {plan.batch}, {plan.rate}, {plan.epochs} epochs, {plan.longest} tokens"
        for data, plan in PLANS.items()
        if any(run["data"] == data for run in runs)
    ]
    text = (
        f"Runs of {dates[0]} to {dates[-1]}, load when they began {loads[0]} to {loads[-1]}, {args.threads} threads, "
    )
    text += (
        f"{folder.parent.name}/{folder.name}. {'; '.join(plans)}. Scores are of 100; seconds and examples a second of "
    )
    text += "the whole run, median (range); differences with Welch's 95 % interval over seeds; over test: "
    text += "the 95 % bootstrap interval over the test examples."
    side_by_side.publish("Tasks", "Fine-tuning of every task", text, table(runs), before, args.append)


if __name__ == "__main__":
    main()
