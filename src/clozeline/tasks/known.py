"""All tasks that learn from labelled data, by name and by what a checkpoint says of itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from clozeline.errors import InputError, nearest
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tasks.multi_label import MultiLabelClassification
from clozeline.tasks.multiple_choice import MultipleChoice
from clozeline.tasks.next_sentence import NextSentence
from clozeline.tasks.question_answering import QuestionAnswering
from clozeline.tasks.regression import Regression
from clozeline.tasks.supervised import Supervised
from clozeline.tasks.text_classification import TextClassification
from clozeline.tasks.token_classification import TokenClassification

Task = Supervised | MaskedLM | NextSentence

SUPERVISED: dict[str, type[Supervised]] = {
    task.name: task
    for task in (
        TextClassification,
        MultiLabelClassification,
        Regression,
        TokenClassification,
        QuestionAnswering,
        MultipleChoice,
    )
}
PROBLEMS: dict[str | None, type[Supervised]] = {
    None: TextClassification,
    "single_label_classification": TextClassification,
    "multi_label_classification": MultiLabelClassification,
    "regression": Regression,
}
HEADS: dict[str | None, type[Supervised | MaskedLM | NextSentence]] = {
    "token_classification": TokenClassification,
    "question_answering": QuestionAnswering,
    "multiple_choice": MultipleChoice,
    "masked_lm": MaskedLM,
    "pretraining": MaskedLM,
    "next_sentence": NextSentence,
}


def made(name: str, options: Mapping[str, Any]) -> Supervised:
    """The task of this name with these settings.

    Raises:
        InputError: no such task, or a setting that it does not have, or that cannot be.
    """
    if name not in SUPERVISED:
        raise InputError(f"There is no task {name!r}: {nearest(name, SUPERVISED)}")
    kind = SUPERVISED[name]
    for option in options:
        if option not in _settings(kind):
            having = [other for other, each in SUPERVISED.items() if option in _settings(each)]
            raise InputError(f"{option} is no setting of {name}, but of {', '.join(having)}.")
    return kind(**options)


def _settings(kind: type[Supervised]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]


def own_task(head: str | None, raw: Mapping[str, Any]) -> Task | None:
    """The task of a checkpoint with this head and `config.json`; None where no task here has such a head.

    Raises:
        InputError: the entries do not fit together.
    """
    if head == "text_classification":
        kind = raw.get("problem_type")
        if kind not in PROBLEMS:
            known = [name for name in PROBLEMS if name]
            raise InputError(f"config.json asks for problem_type = {kind!r}: {nearest(str(kind), known)}")
        one = (
            len(raw.get("id2label") or range(raw.get("num_labels", 2))) == 1
        )  # of which transformers makes a regression
        return Regression.from_raw(raw) if kind is None and one else PROBLEMS[kind].from_raw(raw)
    found = HEADS.get(head)
    if found is None:
        return None
    return found.from_raw(raw) if issubclass(found, Supervised) else found()
