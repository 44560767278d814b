"""The command line: verbs, their flags, and what they print. What they do is elsewhere.

Only light modules are imported up here, so `clozeline --help` answers at once; each verb loads what it needs.
Results go to standard output, everything else to standard error. Exit codes: 0, 2 for a user's mistake, 130 for Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from itertools import tee
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

import clozeline
from clozeline import cli_compare, cli_harden, cli_inspect, cli_pretraining, cli_training
from clozeline import recipe as recipes
from clozeline.errors import InputError
from clozeline.flags import (
    FIRST,
    Choices,
    ColumnNames,
    Device,
    Encoding,
    File,
    Format,
    Json,
    Long,
    ModelName,
    Names,
    Out,
    OwnLong,
    Pair,
    Precision,
    Stdin,
    Switch,
    Text,
)
from clozeline.harden_recipe import suite_names

WINDOW = 4096
app = App(
    name="clozeline",
    help="Encoder models (BERT and its family), from raw text to a model in use.",
    help_format="plaintext",
    version=clozeline.__version__,
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


@app.command
def quickstart(*, out: Path = Path("quickstart-model")) -> None:
    """Fine-tune a small encoder on the reviews in this package: the first minute.

    Args:
        out: Folder of the run.
    """
    from clozeline.quickstart import run

    run(out)


@app.command
def predict(
    model: ModelName,
    /,
    *texts: str,
    file: File = None,
    stdin: Stdin = False,
    text: Text = None,
    pair: Pair = None,
    choices: Choices = None,
    columns: ColumnNames = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    long: OwnLong = None,
    window: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    precision: Precision = "fp32",
    device: Device = None,
    as_json: Json = False,
    answers: Switch = False,
    out: Out = None,
) -> None:
    """Say what the model makes of each text, a line each between tabs: LABEL, SCORE and TEXT.

    Entities: a line each, LABEL, SCORE, START, END, ENTITY and TEXT. Answers: ANSWER, SCORE, START, END and QUESTION.

    Args:
        texts: Texts, after -- where one begins with a hyphen; of question answering QUESTION PASSAGE, of multiple choice
            QUESTION CHOICE CHOICE. Without any, they come from a file or standard input.
        answers: Of questions with ids: one JSON object of id to answer, which evaluate --predictions reads.
        window: Texts read ahead, to sort by length: 4096, or 1 where standard input is a terminal.
    """
    from clozeline import streams

    if answers and as_json:
        raise InputError("--answers is JSON of its own form; leave --json out.")
    where = recipes.columns(text=text, pair=pair, label=None, choices=choices, columns=columns, encoding=encoding)
    loaded = clozeline.load(model, precision=precision, device=device, long=long)
    if answers and getattr(loaded.task, "name", "") != "question-answering":
        raise InputError("--answers is for models that answer questions; use --json.")
    examples, live = streams.inputs(loaded.task, texts, file, stdin, format, where)
    ahead, behind = tee(examples)
    found = loaded.predict_stream(ahead, window or (1 if live else WINDOW))
    results = ((next(behind), each) for each in found)  # a prediction comes when its example has been read
    with streams.sink(out) as sink:
        cut, lost = streams.write_answers(results, sink) if answers else streams.write(results, sink, as_json=as_json)
    if cut:
        print(f"warning: {cut} texts were too long and lost {lost} tokens (--long window reads all).", file=sys.stderr)


@app.command
def evaluate(
    model: ModelName,
    data: str | None = None,
    /,
    *,
    task: Literal["question-answering", "token-classification"] | None = None,
    predictions: Path | None = None,
    text: Text = None,
    pair: Pair = None,
    label: Names = None,
    choices: Choices = None,
    columns: ColumnNames = None,
    encoding: Encoding = "utf-8",
    long: OwnLong = None,
    precision: Precision = "fp32",
    device: Device = None,
    figure: Path | None = None,
    suite: str | None = None,
    slices: Switch = False,
    by: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    label_errors: Switch = False,
    suite_labels: str | None = None,
    as_json: Json = False,
) -> None:
    """Measure a model on labelled data, by the metrics of its task with 95 % intervals.

    Or score predictions made elsewhere, without a model: evaluate DATA --task TASK --predictions FILE.

    Or look at how a text classifier behaves: evaluate MODEL --suite sentiment, evaluate MODEL DATA --slices; or at the
    labels themselves: evaluate MODEL DATA --label-errors.

    Args:
        data: A CSV, TSV, JSONL or Parquet file, or a hub data set (owner/name:split).
        suite: How often each capability of a suite fails: sentiment, a JSONL file, or a suite of CheckList (.pkl).
        slices: By length, label, negation, confidence and more: where the model is worse than elsewhere.
        by: A column whose values are slices too; may be repeated.
        suite_labels: What the model calls the suite's labels, such as positive=1,negative=0; usual names are known.
        label_errors: Rows whose label is likely wrong, by cross-prediction; best with the encoder the model came from.
        task: What predictions made elsewhere are of: question-answering or token-classification; DATA as that task reads it.
        predictions: A JSON object of question id to answer, or CoNLL columns with predicted tags.
        figure: Of a classifier: draw the confusion matrix and the reliability of its scores, or the suite, or the slices,
            into this PNG file.
    """
    if suite is not None or slices or label_errors or by or suite_labels:
        where = recipes.columns(text=text, pair=pair, label=label, choices=choices, columns=columns, encoding=encoding)
        if predictions is not None or task is not None:
            raise InputError("Behaviour is looked at with a model; leave --task and --predictions out.")
        asked = suite is not None, slices or bool(by), label_errors
        if suite_labels is not None and suite is None:
            raise InputError("--suite-labels is of a suite; give --suite, or leave it out.")
        found = _behaviour(
            model, data, suite, suite_labels, asked, by, where, dict(precision=precision, device=device, long=long)
        )
        if figure is not None:
            if label_errors:
                raise InputError("There is no figure of label errors; leave --figure out.")
            found.figure(figure)
        print(json.dumps(found.as_dict(), ensure_ascii=False) if as_json else found)
        return
    unfit = "There is a figure of a text classifier with one label a text only."
    if predictions is not None or task is not None:
        if figure is not None:
            raise InputError(unfit)
        if predictions is None or task is None or data is not None:
            raise InputError("To score predictions give evaluate DATA --task TASK --predictions FILE, and no model.")
        report: Any = clozeline.score(model, predictions, task, encoding=encoding)
    elif data is None:
        raise InputError("Give a model and labelled data: evaluate MODEL DATA.")
    else:
        loaded = clozeline.load(model, precision=precision, device=device, long=long)
        if figure is not None and getattr(loaded.task, "name", "") != "text-classification":
            raise InputError(unfit)
        where = recipes.columns(text=text, pair=pair, label=label, choices=choices, columns=columns, encoding=encoding)
        report = loaded.evaluate(data, **where)
    if figure is not None:
        report.figure(figure)
    print(json.dumps(report.as_dict(), ensure_ascii=False) if as_json else report)


def _behaviour(
    model: str,
    data: str | None,
    suite: str | None,
    suite_labels: str | None,
    asked: tuple[bool, bool, bool],
    by: Sequence[str],
    where: dict[str, Any],
    how: dict[str, Any],
) -> Any:
    """What a suite, slices or a search for label errors finds; `asked` says which of the three."""
    if sum(asked) > 1:
        raise InputError("Give one of --suite, --slices (or --by) and --label-errors at a time.")
    if suite is not None:
        if data is not None:
            raise InputError("A suite brings its own texts; leave the data out.")
        if where["text"] or where["label"]:
            raise InputError("A suite brings its own columns; leave --text and --label out.")
        labels = suite_names([] if suite_labels is None else suite_labels.split(","))
        from clozeline.behaviour.checklist import any_suite

        loaded = clozeline.load(model, **how)
        return clozeline.run_suite(loaded, any_suite(suite, len(loaded.labels)), labels=labels)
    if data is None:
        raise InputError("Give a model and labelled data: evaluate MODEL DATA --slices.")
    if where.pop("choices") is not None:
        raise InputError("--choices is of multiple choice; leave it out.")
    loaded = clozeline.load(model, **how)
    return clozeline.slices(loaded, data, by=by, **where) if asked[1] else clozeline.label_errors(loaded, data, **where)


@app.command(name="fill-mask")
def fill_mask(
    model: ModelName,
    /,
    *texts: str,
    top: Annotated[int, Parameter(help="Words for each mask.")] = 5,
    candidate: Annotated[
        tuple[str, ...], Parameter(negative=(), help="Compare only these words; may be repeated.")
    ] = (),
    precision: Precision = "fp32",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Find the words that fit where a text has a mask, such as [MASK] or <mask>.

    Args:
        texts: Texts with a mask each, after -- where one begins with a hyphen.
    """
    from clozeline import streams

    if not texts:
        raise InputError('Give a text with a mask, such as "The capital of France is [MASK]."')
    loaded = clozeline.load(model, precision=precision, device=device)
    for text in texts:
        for filled in loaded.fill_mask(text, top, candidate or None):
            for one in filled:
                if as_json:
                    print(json.dumps(dataclasses.asdict(one), ensure_ascii=False))
                else:
                    print("\t".join(streams.visible(part) for part in (one.token, f"{one.score:.4f}", one.text)))


@app.command
def embed(
    model: ModelName,
    /,
    *texts: str,
    file: File = None,
    stdin: Stdin = False,
    text: Text = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    pool: Literal["mean", "cls", "pooler", "max", "tokens"] = "mean",
    layers: Literal["last", "all"] = "last",
    normalize: Switch = False,
    long: Long = "truncate",
    precision: Precision = "fp32",
    device: Device = None,
    out: Out = None,
) -> None:
    """Turn each text into a vector: JSON lines, or an array where --out ends in .npy.

    Args:
        texts: Texts, after -- where one begins with a hyphen. Without any, they come from a file or standard input.
        pool: How the vectors of a text's tokens become one; tokens: not at all.
        layers: all: every layer's output, the embedding's first.
        normalize: Scale each vector to length 1.
    """
    import numpy as np

    from clozeline import streams
    from clozeline.predict import chunked

    loaded = clozeline.load(model, precision=precision, device=device)
    examples, live = streams.texts(texts, file, stdin, text=text, format=format, encoding=encoding)
    parts = chunked((example.text for example in examples), 1 if live else WINDOW)
    found = ((part, loaded.embed(part, pool=pool, layers=layers, long=long, normalize=normalize)) for part in parts)
    if out is not None and out.suffix == ".npy":
        if pool == "tokens":
            raise InputError("An .npy file holds one vector a text, which --pool tokens does not give; use JSON lines.")
        streams.write_vectors(out, (np.asarray(vectors) for _, vectors in found))
        return
    with streams.sink(out) as sink:
        for part, vectors in found:
            for line, vector in zip(part, vectors, strict=True):
                print(json.dumps({"text": line, "vector": vector.tolist()}, ensure_ascii=False), file=sink, flush=True)


@app.command
def doctor(model: str | None = None, /, *, as_json: Json = False) -> None:
    """Say what this machine computes with and, for a model, what it holds and what is wrong with it.

    Args:
        model: A model folder or hub name.
    """
    from clozeline import doctor as doctors

    found = doctors.machine() if model is None else {**doctors.machine(), **doctors.model(model)}
    print(json.dumps(found, ensure_ascii=False) if as_json else doctors.show(found))


cli_training.add(app)
cli_compare.add(app)
cli_harden.add(app)
cli_inspect.add(app)
cli_pretraining.add(app)


class _Say(logging.Handler):
    """Log records as lines on whatever standard error is at the moment: a progress bar puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    log, say = logging.getLogger("clozeline"), _Say(logging.WARNING if FIRST else logging.CRITICAL)
    log.addHandler(say)
    try:
        code = app(argv)
        sys.stdout.flush()
        return code or 0
    except (InputError, CycloptsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our results has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 0
    finally:
        log.removeHandler(say)


def command() -> int:
    """What a shell starts: one command, and the end of a process that torchrun started."""
    code = main()
    if "WORLD_SIZE" in os.environ:
        from clozeline.train import distributed

        return distributed.leave(code)
    return code
