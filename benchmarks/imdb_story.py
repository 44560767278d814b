"""The story of a film-review classifier: where it overfits, what it cannot read, and what hardening changes.

    python benchmarks/imdb_story.py --out runs/imdb --model FOLDER                 # CLOZELINE_DATA's imdb, or the hub's
    python benchmarks/imdb_story.py --out runs/imdb --model FOLDER --resume        # go on; models that are there stay

Killed at any moment, the same command with --resume goes on: models that were judged are not trained or judged again, and
the one under way goes on from its last saved step. The same command with --resume in a second terminal helps the first:
each process takes the models that no other has under way, and both print the tables when all are there; after the end it
prints the report again. On a CPU give each its own cores (OMP_NUM_THREADS=1 for two on two cores); one GPU serves two.

4,500 reviews are drawn from IMDB's training half and split 3,200 / 800 / 500; as many more as the control needs come from
the rest of it. Each model is trained for 15 epochs, so that the turn of the validation loss is seen, and the epoch with the
best validation accuracy is kept. Suite, probes and cases are the shipped ones. Tests are the 500 and IMDB's whole test half.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

import clozeline as cl
import side_by_side
from clozeline.data.readers import examples
from clozeline.files import write_whole
from clozeline.train.folder import finished

HUB = "stanfordnlp/imdb"
NAMES = {"0": "negative", "1": "positive", "neg": "negative", "pos": "positive"}
SPLITS = {"train": 3200, "validation": 800, "test-500": 500, "extra": 2000}


def source(split: str) -> str:
    """Where IMDB's half is: a file of the data folder, or the hub."""
    local = sorted((side_by_side.DATA / "imdb").glob(f"{split}*.parquet"))
    return str(local[0]) if local else f"{HUB}:{split}"


def rows(split: str) -> list[tuple[str, str]]:
    """Texts and labels; the line breaks of web pages are spaces."""
    found = examples(source(split), text="text", label="label", labelled=True)
    return [(each.text.replace("<br />", " "), NAMES.get(str(each.label), str(each.label))) for each in found]


def write(path: Path, some: Sequence[tuple[str, str]]) -> str:
    """A CSV file, whole at once: another process may be reading it."""
    content = io.StringIO(newline="")
    csv.writer(content).writerows([("text", "label"), *some])
    write_whole(path, content.getvalue())
    return str(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="an encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--capability", nargs="*", default=["sarcasm"], help="(default sarcasm); none: the weakest")
    parser.add_argument("--seeds", type=int, help="(default 5; 1 with --tiny)")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--patience", type=int, help="stop so many epochs after the best")
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=256, help="tokens that are read of a review, head and tail")
    parser.add_argument("--test-reviews", type=int, help="of IMDB's test half, drawn at random (default: all)")
    parser.add_argument("--device")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a few reviews, to try the command")
    args = parser.parse_args(arguments)

    if args.resume and finished(args.out / "run"):
        print((args.out / "run" / "report.md").read_text(encoding="utf-8"))
        return
    scale = 40 if args.tiny else 1
    data = args.out / "imdb"
    data.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(0).sample(rows("train"), sum(SPLITS.values()) // scale)
    files, at = {}, 0
    for name, count in SPLITS.items():
        files[name] = write(data / f"{name}.csv", drawn[at : at + count // scale])
        at += count // scale
    tests = rows("test")
    if args.tiny or args.test_reviews:
        tests = random.Random(1).sample(tests, args.test_reviews or 60)
    whole = write(data / "test.csv", tests)
    found = cl.harden(
        args.model or side_by_side.minilm(),
        files["train"],
        [files["test-500"], whole],
        files["validation"],
        extra=files["extra"],
        capability=args.capability,
        task=cl.TextClassification(labels=["negative", "positive"], long="head_tail", max_length=args.max_length),
        out=args.out / "run",
        resume=args.resume,
        seeds=args.seeds or (1 if args.tiny else 5),
        epochs=1 if args.tiny else args.epochs,
        patience=args.patience,
        learning_rate=args.rate,
        batch_size=16,
        device=args.device,
    )
    names = {
        whole: f"IMDB's {len(tests):,} test reviews",
        files["test-500"]: f"the {SPLITS['test-500'] // scale} held out",
    }
    said = "\n\n".join([*found.sentences(), *found.tables()])
    for path, name in names.items():
        said = said.replace(path, name)
    print(said)


if __name__ == "__main__":
    main()
