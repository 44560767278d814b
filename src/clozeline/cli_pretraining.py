"""The verbs that make an encoder out of raw text: train-tokenizer, shard and pretrain."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from clozeline import pretraining_recipe as recipes
from clozeline.flags import FIRST, Encoding, Json, PretrainFlags, Switch, stopped
from clozeline.pretraining_recipe import PretrainRecipe

Corpus = Annotated[
    str,
    Parameter(help="Text files, folders of them, and hub data sets (owner/name:split); a row or a file is a document."),
]
TextColumn = Annotated[str | None, Parameter(help=recipes.KEYS["text"].help)]
Split = Annotated[Literal["file", "blank", "line"], Parameter(help=recipes.KEYS["split"].help)]
Kind = Literal["wordpiece", "bpe", "unigram"]


def train_tokenizer(
    *corpus: Corpus,
    out: Path,
    kind: Kind = "wordpiece",
    size: int = 30528,
    cased: Switch = False,
    sample: int = 1000,
    max_length: int = 512,
    seed: int = 0,
    text: TextColumn = None,
    split: Split = "file",
    encoding: Encoding = "utf-8",
    as_json: Json = False,
) -> None:
    """Train a tokenizer on raw text: WordPiece (BERT), byte-level BPE (RoBERTa) or unigram (ALBERT, DeBERTa-v3).

    Args:
        out: Folder of the tokenizer, which transformers reads too.
        kind: How it cuts words into pieces.
        size: Tokens in its vocabulary.
        cased: Of wordpiece: keep capitals and accents, which the others do anyway.
        sample: Megabytes of text that are read at most, which bounds the memory.
        max_length: Tokens that its models will read at once.
        seed: Of the sample.
    """
    from clozeline.tokenizer_training import train_tokenizer as train

    found = train(
        corpus,
        kind=kind,
        size=size,
        lower=False if cased else None,
        sample=sample,
        max_length=max_length,
        seed=seed,
        text=text,
        split=split,
        encoding=encoding,
    )
    found.save(out)
    report, words = found.report, found.tokenizer.vocab_size
    if as_json:
        shown = {
            "out": str(out),
            "vocabulary": words,
            "bytes_read": found.bytes_read,
            "bytes_in_all": found.bytes_in_all,
        }
        print(json.dumps(shown | {"pieces_per_word": report.pieces_per_word, "unknown_share": report.unknown_share}))
        return
    where = "text that it was not trained on" if report.held else "its own training text"
    print(f"{words:,} tokens; {report.pieces_per_word:.2f} for a word, {report.unknown_share:.3%} unknown, in {where}.")
    print(f"The tokenizer is in {out}.")


def shard(
    *corpus: Corpus,
    out: Path,
    tokenizer: Annotated[str, Parameter(help="A folder with a tokenizer, or a hub name.")],
    near_duplicates: Switch = False,
    held_out: float = 0.005,
    workers: int | None = None,
    text: TextColumn = None,
    split: Split = "file",
    encoding: Encoding = "utf-8",
    overwrite: Switch = False,
    as_json: Json = False,
) -> None:
    """Turn raw text into shards of token ids, once for many runs. Stopped, the same command goes on where it was.

    Args:
        out: Folder of the shards.
        near_duplicates: Leave out documents that are nearly the same as another; exact ones always are.
        held_out: Share of the documents that is kept apart for validation.
        workers: Processes; without, one for each core.
        overwrite: Begin anew though the folder holds shards.
    """
    from clozeline.checkpoint import find
    from clozeline.data.shard_writing import write
    from clozeline.tokenizer import Tokenizer

    words = Tokenizer.load(find(tokenizer))
    manifest = write(
        corpus,
        words,
        out,
        text=text,
        split=split,
        encoding=encoding,
        near_duplicates=near_duplicates,
        held_out=held_out,
        workers=workers,
        overwrite=overwrite,
    )
    words.save(out / "tokenizer")
    if as_json:
        print(json.dumps({"out": str(out), **manifest.total(), "skipped": manifest.skipped}))
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in manifest.total().items())
    print(f"{out}: {counts}.")
    if any(manifest.skipped.values()):
        print("Left out: " + ", ".join(f"{count:,} {name}" for name, count in manifest.skipped.items() if count) + ".")


def pretrain(
    *corpus: Annotated[str, Parameter(help="Text, shards or a recipe (a TOML file); then KEY=VALUE changes.")],
    flags: Annotated[PretrainFlags | None, Parameter(name="*")] = None,
    resume: Switch = False,
    overwrite: Switch = False,
    dry_run: Switch = False,
    as_json: Json = False,
) -> int:
    """Pre-train an encoder on raw text; tokenizer and shards are made where they are not given.

    Args:
        resume: Go on with the unfinished run in the folder.
        overwrite: Begin anew though the folder holds a run.
        dry_run: Say what would be done, with memory and time. Tokenizer and shards are made, since it counts them.
    """
    recipe = recipes.resolve(corpus, {} if flags is None else vars(flags))
    return train(recipe, resume=resume, overwrite=overwrite, dry_run=dry_run, as_json=as_json)


def train(recipe: PretrainRecipe, *, resume: bool, overwrite: bool, dry_run: bool, as_json: bool) -> int:
    """Do what a recipe says, and print how it went; gives the exit code."""
    from clozeline.pretrainer import planned, start
    from clozeline.train.pretrain import said

    if dry_run:
        plan = planned(recipe)
        if FIRST:
            print(json.dumps(plan.as_dict()) if as_json else plan)
        return 0
    run = start(recipe, resume=resume, overwrite=overwrite, workers=None)
    if not FIRST:
        return 0 if run.finished else 130

    folder = run.out / "model"
    if as_json:
        shown: dict[str, Any] = dataclasses.asdict(run) | {"out": str(run.out), "model": str(folder)}
        print(json.dumps(shown))
    if not run.finished:
        return stopped(f"step {run.steps}")
    if not as_json:
        print("\n".join(said(run.losses, run.accuracy)))
        print(f"The model is in {folder}. Try it:")
        if recipe.settings.mlm and not recipe.settings.rtd:
            print(shlex.join(["clozeline", "fill-mask", str(folder), "The capital of France is [MASK]."]))
        if recipe.teacher is not None:
            print(shlex.join(["clozeline", "compare", recipe.teacher, str(folder)]))
        print(shlex.join(["clozeline", "finetune", str(folder), "train.csv", "--validation", "dev.csv"]))
    return 0


def add(app: App) -> None:
    """Give the command line these verbs."""
    app.command(train_tokenizer, name="train-tokenizer")
    app.command(shard)
    app.command(
        pretrain,
        usage="Usage: clozeline pretrain CORPUS... [KEY=VALUE ...] [FLAGS]\n"
        "       clozeline pretrain RECIPE.toml [KEY=VALUE ...] [FLAGS]",
    )
