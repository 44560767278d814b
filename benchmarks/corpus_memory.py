"""Memory of reading a corpus: it must not grow with the corpus.

    python benchmarks/corpus_memory.py --tokens 10000000 1000000000

Writes shards of random ids in documents of 1 to 8 sections, a section of 100 sentences of 10 to 70 tokens, to a temporary
folder (2.3 bytes a token). A process of its own opens each corpus and reads 2,000 random sections of it. What counts is its
anonymous memory, which is its own; mapped files are the system's, which takes them back when it needs to.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from clozeline.data.shards import MANIFEST, Manifest, Shard, Shards, sha256, shard_files

SHARD = 2**24  # tokens
SENTENCES = 100  # of a section
READ = 2_000  # sections


def make(folder: Path, tokens: int) -> None:
    """A corpus of at least so many tokens."""
    random = np.random.default_rng(0)
    shards: list[Shard] = []
    while sum(shard.tokens for shard in shards) < tokens:
        sections = int(np.ceil(min(SHARD, tokens) / SENTENCES / 40))
        sentences = np.concatenate([[0], random.integers(10, 71, SENTENCES * sections).cumsum()])
        ends = random.integers(1, 9, sections).cumsum()
        documents = np.concatenate([[0], ends[ends < sections], [sections]])
        arrays = {
            "tokens": random.integers(1000, 30000, sentences[-1], np.uint16),
            "sentences": sentences.astype(np.uint32),
            "sections": np.arange(0, SENTENCES * sections + 1, SENTENCES, dtype=np.uint32),
            "documents": documents.astype(np.uint32),
        }
        names = shard_files(len(shards))
        for name, array in arrays.items():
            np.save(folder / names[name], array)
        sums = {name: str(sha256(folder / file)) for name, file in names.items()}
        shards.append(
            Shard(len(documents) - 1, sections, SENTENCES * sections, int(sentences[-1]), len(documents) - 1, 0, sums)
        )
    manifest = Manifest("random", 30000, {}, ["random"], 0, 0, shards, {}, finished=True)
    (folder / MANIFEST).write_text(manifest.json(), encoding="utf-8")


def memory(kind: str) -> float:
    """MiB of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind + ":"))


def read(folder: Path) -> None:
    """Open a corpus, read some of it, and print a row of the table."""
    before = memory("RssAnon")
    started = time.perf_counter()
    shards = Shards.open(folder)
    opened = time.perf_counter() - started
    size = sum(path.stat().st_size for path in folder.iterdir())
    total = 0
    started = time.perf_counter()
    for section in np.random.default_rng(1).integers(shards.sections, size=READ).tolist():
        bounds = shards.bounds(*shards.section_sentences(section))
        total += int(shards.ids(int(bounds[0]), int(bounds[-1])).astype(np.int64).sum() > 0)
        shards.document_sentences(shards.document_of(section))
    taken = (time.perf_counter() - started) / READ * 1e6
    print(
        f"| {shards.tokens:,} | {len(shards.manifest.shards)} | {size / opened / 1e6:,.0f} MB/s | {taken:.0f} us | "
        f"{before:.1f} MiB | {memory('RssAnon'):.1f} MiB | {memory('VmHWM'):.1f} MiB |"
    )
    assert total == READ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[10_000_000, 1_000_000_000])
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read(given.read)
        return
    print(
        "| tokens | shards | opened and verified | a section | anonymous: begin | anonymous: end | peak, mapped too |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for tokens in given.tokens:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            make(Path(folder), tokens)
            subprocess.run([sys.executable, __file__, "--read", folder], check=True)


if __name__ == "__main__":
    main()
