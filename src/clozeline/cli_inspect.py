"""The verb that looks inside a model: inspect WHAT MODEL. Each prints a summary, and writes numbers, figures and pages."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

import clozeline
from clozeline import recipe as recipes
from clozeline.errors import InputError
from clozeline.flags import (
    Choices,
    ColumnNames,
    Device,
    Encoding,
    File,
    Format,
    Json,
    ModelName,
    Names,
    Pair,
    Precision,
    Stdin,
    Switch,
    Text,
)

if TYPE_CHECKING:
    from clozeline.data.readers import Example
    from clozeline.inspect.view import View

SUFFIXES = (".json", ".npz", ".png", ".svg", ".html")
"""As in inspect/view.py, which is not loaded for --help."""
Saved = Annotated[
    tuple[Path, ...],
    Parameter(
        name="--out",
        negative=(),
        show_default=False,
        help="Write numbers (.json; of attention .npz), a figure (.png, .svg) or an offline page (.html); may be repeated.",
    ),
]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Numbers = Annotated[str | None, Parameter(help="Only these, counted from 0: 0,3 or 2-5.")]
inspect = App(name="inspect", help="Look inside a model: as text, as numbers, as a figure or as an offline page.")


@inspect.command
def attention(
    model: ModelName,
    text: str,
    pair: str | None = None,
    /,
    *,
    beside: str | None = None,
    layers: Numbers = None,
    heads: Numbers = None,
    join: Switch = False,
    precision: Precision = "fp32",
    device: Device = None,
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Show which token reads which, in every layer and head.

    Args:
        text: What is read, after -- where it begins with a hyphen.
        pair: A second text, read together with the first.
        beside: Another text to show next to the first one.
        join: Between words instead of their pieces.
    """
    from clozeline.inspect.attention import attention as look

    _check(out)
    chosen = dict(layers=_numbers("--layers", layers), heads=_numbers("--heads", heads))
    loaded = clozeline.load(model, precision=precision, device=device)
    _show(look(loaded, text, pair, beside=beside, join=join, **chosen), out, as_json)


@inspect.command
def senses(
    model: ModelName,
    word: str,
    /,
    *texts: str,
    file: File = None,
    stdin: Stdin = False,
    text: Text = None,
    group: Annotated[str | None, Parameter(help="The column of a file that says what the word means there.")] = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    neighbours: Count = 5,
    precision: Precision = "fp32",
    device: Device = None,
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Show how a word's vectors move apart by context, layer by layer.

    Args:
        word: What is looked for, as a whole word.
        texts: Texts with the word in them, after -- where one begins with a hyphen; without any, from a file.
        neighbours: How many nearest occurrences are named for each.
    """
    from clozeline.inspect.senses import senses as look

    _check(out)
    if texts and group is not None:
        raise InputError("--group names a column of a file; of texts given as arguments it says nothing.")
    read = list(_read(texts, file, stdin, text=text, label=group, format=format, encoding=encoding))
    groups = None if group is None else [str(each.label) for each in read]
    loaded = clozeline.load(model, precision=precision, device=device)
    _show(look(loaded, [each.text for each in read], word, groups=groups, neighbours=neighbours), out, as_json)


@inspect.command
def positions(model: ModelName, /, *, device: Device = None, out: Saved = (), as_json: Json = False) -> None:
    """Show how a model knows the order of its tokens, and whether all positions look trained."""
    from clozeline.inspect.positions import positions as look

    _check(out)
    _show(look(clozeline.load(model, device=device)), out, as_json)


@inspect.command(name="fill-mask")
def fill_mask(
    model: ModelName,
    text: str,
    /,
    *,
    top: Count = 10,
    candidate: Annotated[
        tuple[str, ...], Parameter(negative=(), show_default=False, help="Compare only these; may be repeated.")
    ] = (),
    precision: Precision = "fp32",
    device: Device = None,
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Show the words for a mask, read from both sides and from the left only.

    Args:
        text: With a mask in it, such as "The capital of France is [MASK]."
        top: Words for each mask.
    """
    from clozeline.inspect.masking import fill_mask as look

    _check(out)
    loaded = clozeline.load(model, precision=precision, device=device)
    _show(look(loaded, text, top, candidate or None), out, as_json)


@inspect.command(name="causal-gap")
def causal_gap(
    model: ModelName,
    /,
    *texts: str,
    file: File = None,
    stdin: Stdin = False,
    text: Text = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    limit: Count = 500,
    mask_rate: float = 0.15,
    seed: int = 0,
    precision: Precision = "fp32",
    device: Device = None,
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Measure what reading both sides buys: masked words found from both and from the left only.

    Args:
        texts: Texts that the model was not trained on; without any, from a file.
        limit: Texts that are read, drawn where there are more.
    """
    from clozeline.inspect.causal import causal_gap as look

    _check(out)
    read = _read(texts, file, stdin, text=text, format=format, encoding=encoding)
    loaded = clozeline.load(model, precision=precision, device=device)
    found = look(loaded, [each.text for each in read], mask_rate=mask_rate, limit=limit, seed=seed)
    _show(found, out, as_json)


@inspect.command
def corruption(
    model: ModelName,
    text: str,
    /,
    *,
    seed: int = 0,
    mask_rate: float = 0.15,
    mask_unit: Literal["token", "word", "span"] = "token",
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Show a text as pre-training would: some tokens masked, some replaced, some kept.

    Args:
        seed: Another one, other tokens.
    """
    from clozeline.inspect.masking import corruption as look

    _check(out)
    _show(look(clozeline.load(model), text, seed=seed, mask_rate=mask_rate, mask_unit=mask_unit), out, as_json)


@inspect.command
def tokenization(
    model: ModelName,
    /,
    *texts: str,
    file: File = None,
    stdin: Stdin = False,
    text: Text = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Show what the tokenizer does to a text step by step, or to the words of a whole file.

    Args:
        texts: One text, after -- where it begins with a hyphen; several, or a file, are counted.
    """
    from clozeline import checkpoint
    from clozeline.inspect.tokenization import corpus_pieces
    from clozeline.inspect.tokenization import tokenization as look
    from clozeline.tokenizer import Tokenizer

    _check(out)
    read = _read(texts, file, stdin, text=text, format=format, encoding=encoding)
    tokenizer = Tokenizer.load(checkpoint.find(model))
    found = look(tokenizer, texts[0]) if len(texts) == 1 else corpus_pieces(tokenizer, (each.text for each in read))
    _show(found, out, as_json)


@inspect.command
def attribution(
    model: ModelName,
    text: str,
    pair: str | None = None,
    /,
    *,
    target: str | None = None,
    at: str | None = None,
    method: Literal["integrated_gradients", "gradient_x_input", "occlusion"] = "integrated_gradients",
    steps: Count = 64,
    baseline: Literal["pad", "mask"] = "pad",
    pieces: Switch = False,
    device: Device = None,
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Show which words a prediction rests on, and whether removing them proves it.

    Args:
        text: What is read, after -- where it begins with a hyphen; of question answering the question.
        pair: A second text, or the passage.
        target: A label, a tag or an answer; without, what the model predicts.
        at: For tags, which word: itself, or its index from 0.
        steps: Of integrated gradients.
        pieces: Each piece of a word by itself.
    """
    from clozeline.inspect.attribution import attribution as look

    _check(out)
    where = int(at) if at is not None and at.isdecimal() else at
    loaded = clozeline.load(model, device=device)
    how: dict[str, Any] = dict(target=target, at=where, method=method, steps=steps, baseline=baseline, join=not pieces)
    _show(look(loaded, text, pair, **how), out, as_json)


@inspect.command
def heads(
    model: ModelName,
    data: str,
    /,
    *,
    metric: Annotated[str | None, Parameter(help="One of the task's metrics.")] = None,
    limit: Annotated[int | None, Parameter(help="Examples that are read, drawn where there are more.")] = None,
    text: Text = None,
    pair: Pair = None,
    label: Names = None,
    choices: Choices = None,
    columns: ColumnNames = None,
    encoding: Encoding = "utf-8",
    precision: Precision = "fp32",
    device: Device = None,
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Measure what each head is worth: what a metric loses when it is switched off. `shrink --heads` takes heads out.

    Args:
        data: As for evaluate; of a masked-LM model raw texts.
    """
    from clozeline.inspect.heads import heads as look

    _check(out)
    where = recipes.columns(text=text, pair=pair, label=label, choices=choices, columns=columns, encoding=encoding)
    loaded = clozeline.load(model, precision=precision, device=device)
    _show(look(loaded, data, metric=metric, limit=limit, **where), out, as_json)


@inspect.command
def probe(
    model: ModelName,
    data: str,
    test: str | None = None,
    /,
    *,
    folds: Annotated[int, Parameter(validator=Number(gte=2))] = 5,
    limit: Annotated[int | None, Parameter(help="Texts that are read, drawn where there are more.")] = None,
    seed: int = 0,
    text: Text = None,
    pair: Pair = None,
    label: Names = None,
    columns: ColumnNames = None,
    encoding: Encoding = "utf-8",
    precision: Precision = "fp32",
    device: Device = None,
    out: Saved = (),
    as_json: Json = False,
) -> None:
    """Find the layer where a labelled set becomes readable, by a linear classifier on each.

    Args:
        data: Labelled texts.
        test: Others to measure on; without, by cross-validation.
    """
    from clozeline.inspect.probing import probe as look

    _check(out)
    where = recipes.columns(text=text, pair=pair, label=label, choices=None, columns=columns, encoding=encoding)
    del where["choices"]
    loaded = clozeline.load(model, precision=precision, device=device)
    _show(look(loaded, data, test, folds=folds, limit=limit, seed=seed, **where), out, as_json)


def _read(texts: Sequence[str], file: str | None, stdin: bool, **options: str | None) -> Iterator[Example]:
    from clozeline import streams

    return streams.texts(texts, file, stdin, **options)[0]


def _check(out: Sequence[Path]) -> None:
    """Refuse what could not be written before the work is done."""
    for path in out:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"--out {path} says by its end what is written; give one of {', '.join(SUFFIXES)}.")
        there = next(part for part in (path.absolute().parent, *path.absolute().parents) if part.exists())
        if path.is_dir() or not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            what = "it is a folder" if path.is_dir() else f"{there} is no folder that may be written to"
            raise InputError(f"--out {path} cannot be written: {what}.")


def _show(view: View, out: Sequence[Path], as_json: bool) -> None:
    shown = json.dumps(view.as_dict(), ensure_ascii=False) if as_json else str(view)
    for path in sorted(out, key=lambda path: path.suffix.lower() != ".json"):  # JSON is what may be refused
        if len(written := view.save(path)) > 1:
            print(f"written in {len(written)} parts: {', '.join(map(str, written))}", file=sys.stderr)
    print(shown)


def _numbers(flag: str, given: str | None) -> list[int] | None:
    """The numbers of "0,3" or "2-5"."""
    if given is None:
        return None
    found: list[int] = []
    for part in given.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise InputError(f"{flag} is {given!r}; give numbers counted from 0, such as 0,3 or 2-5.")
        found += range(int(low), int(high or low) + 1)
    return found


def add(app: App) -> None:
    """Give the command line this verb."""
    app.command(inspect)
