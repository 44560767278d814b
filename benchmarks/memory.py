"""Peak memory of predicting from a file: it must not grow with the file.

    python benchmarks/memory.py

Writes CSV files of 10,000, 100,000 and 1,000,000 short texts and a tiny random BERT (2 layers, width 32) to a temporary
folder, and predicts each file in a process of its own: by the command line (`clozeline predict MODEL --file F --json`,
output thrown away), and in Python (`predict_stream`). Peak memory is the operating system's count for that process.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import side_by_side

WAYS = ("cli", "python")
ROWS = (10_000, 100_000, 1_000_000)
WORDS = "a the film plot cast is was not quite very dull funny moving long short never always great bad ending"


def make_model(folder: Path, tokenizer: Path) -> None:
    """A random classifier with a real tokenizer, in `folder`."""
    from clozeline.bundle import Bundle
    from clozeline.config import EncoderConfig
    from clozeline.families import by_name
    from clozeline.tasks.text_classification import TextClassification
    from clozeline.tokenizer import Tokenizer

    shape = dict(width=32, layers=2, heads=2, ffn_width=64, max_length=512)
    config = EncoderConfig(family="bert", vocab_size=30522, **shape)  # type: ignore[arg-type]
    task = TextClassification(labels=["negative", "positive"])
    network = by_name("bert").build(config, task.head, 2, seed=0)
    bundle = Bundle("tiny", by_name("bert"), network, Tokenizer.load(tokenizer, 512), task, [])
    bundle.save(folder)


def make_file(file: Path, rows: int) -> None:
    draw, words = random.Random(0), WORDS.split()
    with file.open("w", encoding="utf-8") as out:
        out.write("text\n")
        out.writelines(" ".join(draw.choices(words, k=draw.randint(3, 12))) + "\n" for _ in range(rows))


def predict(model: Path, file: Path) -> None:
    """What the worker in Python does."""
    import clozeline as cl
    from clozeline.data.readers import examples

    count = sum(1 for _ in cl.load(model, device="cpu").predict_stream(examples(file)))
    print(count, file=sys.stderr)


def measured(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command with its output thrown away: seconds, and its own peak memory in MB."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read().decode()[-2000:]}")
    took = time.perf_counter() - began
    return {"seconds": took, "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20}


def main() -> None:
    parser = side_by_side.options(argparse.ArgumentParser(description=__doc__), 1, WAYS)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="of the files (default %(default)s)")
    parser.add_argument("--make", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--predict", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make or args.predict:
        side_by_side.start_worker(args.threads)
        make_model(*args.make) if args.make else predict(*args.predict)
        return
    before, environment = side_by_side.machine(), side_by_side.environment(args.threads)
    ways = list(args.only or WAYS)
    if importlib.util.find_spec("clozeline.__main__") is None:
        print("left out: the command line, because this version has none", file=sys.stderr)
        ways.remove("cli")
    results: side_by_side.Results = {}
    with tempfile.TemporaryDirectory() as held:
        model, file = str(Path(held) / "model"), str(Path(held) / "texts.csv")
        # a child's peak begins with what its parent holds, so this process stays small and a child makes the model
        worker = [sys.executable, __file__, "--threads", str(args.threads)]
        tokenizer = str(args.model or side_by_side.minilm())
        subprocess.run([*worker, "--make", model, tokenizer], check=True, env=environment)
        cli = [sys.executable, "-m", "clozeline", "predict", model, "--file", file, "--json"]
        commands = {"cli": cli, "python": [*worker, "--predict", model, file]}
        for rows in [100, 1000] if args.tiny else args.rows:
            make_file(Path(file), rows)
            rounds = range(1 if args.tiny else args.repeats)
            found = {way: [measured(commands[way], environment) for _ in rounds] for way in ways}
            results |= {f"{way}, {rows:,} rows": found[way] for way in ways}
    body = side_by_side.table(results, {"peak": "peak MB", "seconds": "seconds, start included"})
    settings = f"2 layers, width 32, {args.threads} threads."
    side_by_side.publish("Memory", "Predict from a file", settings, body, before, args.append)


if __name__ == "__main__":
    main()
