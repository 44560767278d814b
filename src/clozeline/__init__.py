"""Clozeline: encoder models from raw text to a model in use.

    import clozeline as cl
    model = cl.load("bert-base-uncased", task=cl.TextClassification(labels=["negative", "positive"]))

Names load what they need when they are first used, so that importing this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clozeline import inspect
    from clozeline.batch import Layout, Packed
    from clozeline.behaviour.label_errors import label_errors
    from clozeline.behaviour.running import run_suite
    from clozeline.behaviour.slices import slices
    from clozeline.config import EncoderConfig
    from clozeline.data.suite import read_suite
    from clozeline.distiller import distill
    from clozeline.errors import InputError
    from clozeline.evaluate.predictions import score
    from clozeline.face import Model, load
    from clozeline.hardening.experiment import harden
    from clozeline.hardening.writing import CaseServer
    from clozeline.inspect.tracing import trace
    from clozeline.model.encoder import Encoder
    from clozeline.paired import compare
    from clozeline.pretrainer import pretrain
    from clozeline.shrinking import shrink
    from clozeline.tasks.masked_lm import MaskedLM
    from clozeline.tasks.multi_label import MultiLabelClassification
    from clozeline.tasks.multiple_choice import MultipleChoice
    from clozeline.tasks.next_sentence import NextSentence
    from clozeline.tasks.question_answering import QuestionAnswering
    from clozeline.tasks.regression import Regression
    from clozeline.tasks.text_classification import TextClassification
    from clozeline.tasks.token_classification import TokenClassification
    from clozeline.tokenizer import Tokenizer
    from clozeline.tokenizer_training import train_tokenizer
    from clozeline.train.pretraining_settings import PretrainSettings
    from clozeline.train.settings import Settings

__version__ = "0.1.0"

_HOME = {
    "CaseServer": "clozeline.hardening.writing",
    "Encoder": "clozeline.model.encoder",
    "EncoderConfig": "clozeline.config",
    "InputError": "clozeline.errors",
    "Layout": "clozeline.batch",
    "MaskedLM": "clozeline.tasks.masked_lm",
    "Model": "clozeline.face",
    "NextSentence": "clozeline.tasks.next_sentence",
    "Packed": "clozeline.batch",
    "PretrainSettings": "clozeline.train.pretraining_settings",
    "Settings": "clozeline.train.settings",
    "MultiLabelClassification": "clozeline.tasks.multi_label",
    "MultipleChoice": "clozeline.tasks.multiple_choice",
    "QuestionAnswering": "clozeline.tasks.question_answering",
    "Regression": "clozeline.tasks.regression",
    "TokenClassification": "clozeline.tasks.token_classification",
    "TextClassification": "clozeline.tasks.text_classification",
    "Tokenizer": "clozeline.tokenizer",
    "compare": "clozeline.paired",
    "distill": "clozeline.distiller",
    "harden": "clozeline.hardening.experiment",
    "label_errors": "clozeline.behaviour.label_errors",
    "load": "clozeline.face",
    "pretrain": "clozeline.pretrainer",
    "read_suite": "clozeline.data.suite",
    "run_suite": "clozeline.behaviour.running",
    "shrink": "clozeline.shrinking",
    "slices": "clozeline.behaviour.slices",
    "trace": "clozeline.inspect.tracing",
    "train_tokenizer": "clozeline.tokenizer_training",
    "score": "clozeline.evaluate.predictions",
}

__all__ = [
    "CaseServer",
    "Encoder",
    "EncoderConfig",
    "InputError",
    "Layout",
    "MaskedLM",
    "Model",
    "MultiLabelClassification",
    "MultipleChoice",
    "NextSentence",
    "Packed",
    "PretrainSettings",
    "QuestionAnswering",
    "Regression",
    "Settings",
    "TextClassification",
    "TokenClassification",
    "Tokenizer",
    "__version__",
    "compare",
    "distill",
    "harden",
    "inspect",
    "label_errors",
    "load",
    "pretrain",
    "read_suite",
    "run_suite",
    "score",
    "shrink",
    "slices",
    "trace",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name == "inspect":
        return importlib.import_module("clozeline.inspect")
    if name not in _HOME:
        raise AttributeError(f"module 'clozeline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
