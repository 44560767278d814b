"""How long the command line takes to answer: medians over fresh processes.

    python benchmarks/startup.py [MODEL]

MODEL is a trained classifier, by default what `clozeline quickstart` leaves behind.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 7


def median_seconds(*arguments: str) -> float:
    """The median time of `python ARGUMENTS`, after one run that fills the file cache."""
    times = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "quickstart-model/model"
    rows = [
        ("python -c pass", ["-c", "pass"]),
        ("import clozeline", ["-c", "import clozeline"]),
        ("clozeline --help", ["-m", "clozeline", "--help"]),
        ("import torch", ["-c", "import torch"]),
    ]
    if Path(model).is_dir():
        rows.append(("clozeline predict, one sentence", ["-m", "clozeline", "predict", model, "one sentence"]))
    for name, arguments in rows:
        print(f"{name:<32} {median_seconds(*arguments):6.3f} s")


if __name__ == "__main__":
    main()
