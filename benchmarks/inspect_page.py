"""An attention page of a long film review: how long it takes to write and to open, and whether it scrolls.

    python benchmarks/inspect_page.py                     # 512 tokens in MiniLM's 6 layers of 12 heads

The page is written by the command line, in a process of its own: imports, loading and reading are in the time. It is opened
in a Chromium without a window ($CHROMIUM says where) until the weights are drawn. Frames are those of 60 steps of scrolling:
through the tokens with the lines of one head, with those of all heads, and over the matrix at sixteen times its size.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import clozeline as cl
import side_by_side
from clozeline.data.readers import examples

FRAMES = """async ([place, step, count]) => {
  const element = document.querySelector(place), times = [];
  for (let last = performance.now(), at = 0; at < count; at++) {
    element.scrollTop += step;
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - last);
    last = performance.now();
  }
  return times;
}"""


def review(model: Path, tokens: int) -> str:
    """A review of IMDB's test half, cut to so many tokens."""
    tokenizer = cl.load(model).tokenizer
    for each in examples(str(side_by_side.DATA / "imdb" / "test.parquet"), text="text"):
        (read,) = tokenizer.encode([each.text], offsets=True, max_length=tokens)
        if len(read.sequences[0].ids) == tokens:
            offsets = read.sequences[0].offsets
            assert offsets is not None
            return each.text[: offsets[-2, 1]]
    raise SystemExit(f"No review has {tokens} tokens.")


def write(model: Path, text: str, out: Path) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "clozeline", "inspect", "attention", str(model), "--out", str(out), "--", text]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def look(browser: Any, path: Path) -> dict[str, list[float]]:
    """Seconds to open, and milliseconds of frames."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    began = time.perf_counter()
    page.goto(path.as_uri())
    page.locator("section.attention[data-ready]").wait_for()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = {"open": [time.perf_counter() - began], "one head": page.evaluate(FRAMES, [".flow", 60, 60])}
    page.get_by_role("button", name="all", exact=True).click()
    found["all heads"] = page.evaluate(FRAMES, [".flow", -60, 60])
    page.click("[data-view=matrix]")
    page.locator(".view.matrix select").last.select_option(label="16\u00d7")
    found["matrix"] = page.evaluate(FRAMES, [".cells", 40, 60])
    page.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        raise SystemExit("There is no Chromium here; install one or say where by $CHROMIUM.")
    model = args.model or side_by_side.minilm()
    text, seen = review(model, args.tokens), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as held, sync_playwright() as driver:
        browser: Any = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = Path(held) / "view.html"
        for _ in range(args.repeats):
            times = {"write": [write(model, text, page)], **look(browser, page)}
            seen = {name: seen.get(name, []) + values for name, values in times.items()}
        size = page.stat().st_size / 1e6
    print(f"{side_by_side.machine()}. {args.tokens} tokens, {args.repeats} times, {size:.1f} MB.\n")
    print("| what | median | longest |\n| --- | --- | --- |")
    for name, values in seen.items():
        unit = "s" if name in ("write", "open") else "ms"
        label = name if unit == "s" else f"frame, {name}"
        print(f"| {label} | {statistics.median(values):.3g} {unit} | {max(values):.3g} {unit} |")


if __name__ == "__main__":
    main()
