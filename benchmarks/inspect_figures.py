"""The figures that docs/INSPECT.md gives, each by one command.

    python benchmarks/inspect_figures.py senses         # the sentences of docs/data/bank.csv, seconds
    python benchmarks/inspect_figures.py positions --out docs/images/positions-mini.png      # and positions-fresh beside it
    python benchmarks/inspect_figures.py causal-gap     # clozeline/mini on the first sentences of 500 IMDB test reviews
    python benchmarks/inspect_figures.py attribution    # trains a classifier first; some ten minutes on one core
    python benchmarks/inspect_figures.py heads          # two classifiers, each without each of its heads; as long

The classifiers are all-MiniLM-L6-v2 (or --model) after one epoch on --examples phrases spread over SST-2's training file;
they stay in --keep for both commands. Attributions are of IMDB test reviews of at most 128 tokens, drawn at random, so that
64 steps of each fit into minutes. Heads are measured on SST-2's dev sentences, of which --sentences are drawn.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import clozeline as cl
import imdb_story
import side_by_side
from clozeline.bundle import Bundle
from clozeline.data.sentences import sentences
from clozeline.families import by_name
from clozeline.inspect.view import View

SENTENCES = side_by_side.ROOT / "docs" / "data" / "bank.csv"
BOTH = "The bank deposited the money near the river bank."
TOKENS = 128
"""Of a review whose attribution is measured, special tokens included, at most."""
LABELS = ["negative", "positive"]


def senses(args: argparse.Namespace) -> View:
    model = cl.load(args.model or side_by_side.minilm())
    with SENTENCES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    view = cl.inspect.senses(model, [row["text"] for row in rows], "bank", groups=[row["sense"] for row in rows])
    print(view, cl.inspect.senses(model, BOTH, "bank"), sep="\n\n")
    return view


def positions(args: argparse.Namespace) -> View:
    """Of clozeline/mini, and of its shape before training."""
    model = cl.load(args.model or "clozeline/mini")
    family = by_name(model.config.family)
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held) / "clozeline" / "untrained"
        Bundle(str(folder), family, family.build(model.config, "base"), model.tokenizer, None, []).save(folder)
        fresh = cl.inspect.positions(cl.load(folder))
    view = cl.inspect.positions(model)
    print(view, fresh, sep="\n\n")
    if args.out:
        fresh.save(args.out.with_name(args.out.name.replace("mini", "fresh")))
    return view


def causal_gap(args: argparse.Namespace) -> View:
    model, count = cl.load(args.model or "clozeline/mini"), 20 if args.tiny else 500
    drawn = random.Random(0).sample(imdb_story.rows("test"), count)
    view = cl.inspect.causal_gap(model, [sentences(text)[0] for text, _ in drawn], limit=count)
    print(view)
    return view


def attribution(args: argparse.Namespace) -> View:
    model, count = classifier(args, 0), 2 if args.tiny else args.reviews
    texts = [text for text, _ in random.Random(0).sample(imdb_story.rows("test"), 60 * count)]
    lengths = [one.tokens for one in model.tokenizer.encode(texts)]
    chosen = [text for text, length in zip(texts, lengths, strict=True) if length <= TOKENS][:count]
    found = [cl.inspect.attribution(model, text, steps=64) for text in chosen]
    gaps = [each.relative_gap for each in found]
    areas = np.array([each.deletion.areas for each in found if each.deletion is not None])
    words = [len(each.words) for each in found]
    print(f"{len(found)} reviews of {min(words)} to {max(words)} words, 64 steps of integrated gradients")
    print(f"the gap is at most {max(gaps):.4%} of what the words change, median {np.median(gaps):.4%}")
    told = sum(each.deletion.as_fast == 0 for each in found if each.deletion is not None)
    print(
        f"the curve falls faster than in the mean of random orders for {(areas[:, 0] < areas[:, 1]).sum()} of {len(areas)},"
    )
    print(f"and faster than in every one of them for {told};")
    print(f"mean area {areas[:, 0].mean():.3f} against {areas[:, 1].mean():.3f}")
    return found[-1]


def heads(args: argparse.Namespace) -> View:
    texts, labels = side_by_side.reviews("sst2-dev")
    limit, found = 20 if args.tiny else args.sentences, []
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder) / "dev.csv", texts, labels)
        for seed in (0, 1):
            found.append(view := cl.inspect.heads(classifier(args, seed), data, limit=limit))
            lost, slope = ([getattr(each, name) for each in view.heads] for name in ("lost", "slope"))
            guess = np.corrcoef([each.value for each in lost], slope)[0, 1]
            print(f"seed {seed}: correlation of |d loss / d gate| with what is lost {guess:.2f}\n{view}\n", flush=True)
    return found[-1]


def classifier(args: argparse.Namespace, seed: int) -> cl.Model:
    """Trained where it is not kept."""
    own = args.keep / f"classifier-{seed}{'-tiny' if args.tiny else ''}"
    if not own.exists():
        model = cl.load(args.model or side_by_side.minilm(), cl.TextClassification(labels=LABELS), seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            data = write(Path(folder) / "train.csv", *side_by_side.reviews("sst2", 64 if args.tiny else args.examples))
            model.fit(
                data, out=Path(folder) / "run", epochs=1, learning_rate=5e-5, batch_size=32, seed=seed, quiet=True
            )
        model.save(own)
    return cl.load(own)


def write(path: Path, texts: Sequence[str], labels: Sequence[int]) -> str:
    return imdb_story.write(path, [(text, LABELS[label]) for text, label in zip(texts, labels, strict=True)])


FIGURES: dict[str, Callable[[argparse.Namespace], View]] = {
    "senses": senses,
    "positions": positions,
    "causal-gap": causal_gap,
    "attribution": attribution,
    "heads": heads,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", choices=FIGURES)
    parser.add_argument("--model", type=Path, help="an encoder (default: the one named above)")
    parser.add_argument("--keep", type=Path, default=Path("runs/inspect"), help="of classifiers (default %(default)s)")
    parser.add_argument("--examples", type=int, default=4000, help="training phrases (default %(default)s)")
    parser.add_argument("--reviews", type=int, default=30, help="that are explained (default %(default)s)")
    parser.add_argument("--sentences", type=int, default=400, help="that heads are measured on (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default %(default)s)")
    parser.add_argument("--out", type=Path, help="also save the last view: .png, .html, .json")
    parser.add_argument("--tiny", action="store_true", help="a few texts: does it run at all?")
    args = parser.parse_args(arguments)
    side_by_side.start_worker(args.threads)
    view = FIGURES[args.figures](args)
    if args.out:
        view.save(args.out)


if __name__ == "__main__":
    main()
