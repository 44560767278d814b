"""The model card: what a saved folder says about itself in its README.md."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from clozeline.bundle import Bundle
from clozeline.tasks.supervised import Supervised
from clozeline.train.fit import Fitted
from clozeline.train.settings import Settings

PIPELINES = {
    "text_classification": "text-classification",
    "token_classification": "token-classification",
    "question_answering": "question-answering",
    "multiple_choice": "multiple-choice",
    "masked_lm": "fill-mask",
    "base": "feature-extraction",
}


def model_card(
    bundle: Bundle,
    run: Fitted | None = None,
    settings: Settings | None = None,
    train: str | None = None,
    validation: str | Path | None = None,
) -> str:
    """A model card in the hub's format: metadata between dashes, then what the model is and how it was made."""
    pipeline = PIPELINES.get(bundle.network.kind or "base")
    lines = [
        "---",
        "library_name: transformers",
        *([f"pipeline_tag: {pipeline}"] if pipeline else []),
        "tags:",
        "- clozeline",
    ]
    lines += ["---", "", f"# A {bundle.family.name} model", ""]
    config = bundle.config
    lines.append(f"{config.layers} layers, width {config.width}, {config.heads} heads, vocabulary {config.vocab_size}.")
    if isinstance(bundle.task, Supervised):
        lines += ["", f"Task: {bundle.task.name}. Outputs: " + ", ".join(bundle.task.outputs) + "."]
    if settings is not None and run is not None:
        lines += [
            "",
            "## Training",
            "",
            f"Started from `{bundle.name}`; data `{train}`, validation `{validation}`.",
            "",
        ]
        lines += [f"- {name}: {value}" for name, value in dataclasses.asdict(settings).items()]
        for epoch in run.epochs:
            mark = " (kept)" if epoch == run.best else ""
            lines.append(
                f"- epoch {epoch.epoch}: validation {epoch.metric} {epoch.score:.4f}, loss {epoch.loss:.4f}{mark}"
            )
        if run.warnings:
            lines += ["", "Warnings of the run:", "", *(f"- {warning}" for warning in run.warnings)]
    lines += ["", "## Licence and use", "", "Licence: (to be filled in by whoever publishes this model.)", ""]
    return "\n".join(lines)
