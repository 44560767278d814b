"""The model card: what a saved folder says about itself in its README.md."""

from __future__ import annotations

import dataclasses

from clozeline.bundle import Bundle
from clozeline.tasks.supervised import Supervised
from clozeline.train.fit import Fitted
from clozeline.train.pretrain import Pretrained, said
from clozeline.train.trials import summary

PIPELINES = {
    "text_classification": "text-classification",
    "token_classification": "token-classification",
    "question_answering": "question-answering",
    "multiple_choice": "multiple-choice",
    "masked_lm": "fill-mask",
    "pretraining": "fill-mask",
    "base": "feature-extraction",
}

ALWAYS = ("long", "max_length", "temperature", "threshold")
"""Settings of a task that a card shows though they are as usual."""


LICENCE = (
    "",
    "## Licence and use",
    "",
    "Licence of the model: (to be filled in.)",
    "Licence of the training data: (to be filled in.)",
    "What it is for, and what not: (to be filled in.)",
    "",
)


def model_card(
    bundle: Bundle,
    run: Fitted | None = None,
) -> str:
    """A model card in the hub's format: metadata between dashes, then what the model is and how it was made."""
    lines = _head(bundle)
    if isinstance(bundle.task, Supervised):
        lines += ["", f"Task: {bundle.task.name}. Outputs: " + ", ".join(bundle.task.outputs) + "."]
        lines += ["", *_task_settings(bundle.task)]
    if run is not None and run.settings is not None:
        lines += [
            "",
            "## Training",
            "",
            f"Started from `{bundle.name}`.",
            "",
            *(f"- {name}: {words}" for name, words in run.data.items()),
            "",
            "Settings:",
            "",
        ]
        lines += [f"- {name}: {value}" for name, value in dataclasses.asdict(run.settings).items()]
        if run.trials:
            lines += ["", f"Kept of {len(run.trials)} runs, which differ in learning rate and seed:", ""]
            lines += [f"- {line}" for line in summary(run.trials).splitlines()]
        if run.epochs:
            lines += ["", "Validation:", ""]
        for epoch in run.epochs:
            mark = " (kept)" if epoch == run.best else ""
            scores = ", ".join(f"{name} {score:.4f}" for name, score in epoch.scores.items())
            lines.append(f"- epoch {epoch.epoch}: {scores}, loss {epoch.loss:.4f}{mark}")
        if run.warnings:
            lines += ["", "Warnings of the run:", "", *(f"- {warning}" for warning in run.warnings)]
    return "\n".join([*lines, *LICENCE])


def pretraining_card(bundle: Bundle, run: Pretrained) -> str:
    """The card of a model that was pre-trained: on how much of what, how, and how well it does on held-out text."""
    counts = ", ".join(f"{number:,} {name}" for name, number in run.corpus.items())
    lines = [*_head(bundle), "", "## Pre-training", "", f"Started from {bundle.name}.", ""]
    lines += [f"- corpus: {counts}", f"- read in training: {run.tokens:,} tokens in {run.steps:,} steps"]
    lines += [f"- left out, because pairs were cut to their length: {run.skipped:,} tokens", "", "Settings:", ""]
    lines += [f"- {name}: {value}" for name, value in dataclasses.asdict(run.settings).items()]
    lines += ["", "At the last validation:", ""]
    lines += [f"- {line}" for line in said(run.losses, run.accuracy)]
    return "\n".join([*lines, *LICENCE])


def _head(bundle: Bundle) -> list[str]:
    """The metadata, and what kind of model it is."""
    pipeline = PIPELINES.get(bundle.network.kind or "base")
    lines = [
        "---",
        "# license: apache-2.0   (to be filled in by whoever publishes this model)",
        "# language: en   (of the texts)",
        "library_name: transformers",
        *([f"pipeline_tag: {pipeline}"] if pipeline else []),
        "tags:",
        "- clozeline",
    ]
    lines += ["---", "", f"# A {bundle.family.name} model", ""]
    config = bundle.config
    lines.append(f"{config.layers} layers, width {config.width}, {config.heads} heads, vocabulary {config.vocab_size}.")
    if gone := sum(map(len, config.block.pruned)):
        lines += [
            "",
            f"{gone} heads were pruned. transformers before version 5 loads that; version 5 knows no pruned heads.",
        ]
    return lines


def _task_settings(task: Supervised) -> list[str]:
    """A line for each setting of the task that says how it was trained or is read, but for the names of its outputs."""
    lines = []
    for part in dataclasses.fields(task):  # type: ignore[arg-type]
        value = getattr(task, part.name)
        names = isinstance(value, tuple) and value == task.outputs
        if part.name in ALWAYS or (value != part.default and not names):
            lines.append(f"- {part.name}: {value}")
    return lines
