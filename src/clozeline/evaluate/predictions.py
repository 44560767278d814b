"""Score predictions that were made elsewhere, without a model: answers to questions, and entities in tagged words."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from clozeline.data import conll, squad
from clozeline.errors import InputError, nearest
from clozeline.evaluate import answers, entities

Scored = Literal["question-answering", "token-classification"]


def score(
    data: str | Path, predictions: str | Path, task: Scored, *, encoding: str = "utf-8"
) -> answers.AnswerReport | entities.EntityReport:
    """Score a file of predictions against a file of data.

    Args:
        data: SQuAD's JSON, or CoNLL columns (word and tag).
        predictions: a JSON object of question id to answer text; or CoNLL columns with the same words.
        task: "question-answering": exact match and F1; "token-classification": precision, recall and F1 of entities.

    Raises:
        InputError: a file cannot be read or has another form, or the two are not about the same questions or words.
    """
    if task == "question-answering":
        golds = {each.name: [text for text, _ in each.answers] for each in squad.questions(data)}
        predicted = squad.predictions(predictions)
        if not golds.keys() & predicted.keys():
            raise InputError(f"{Path(predictions).name} answers none of the questions in {Path(data).name}.")
        return answers.report(golds, predicted)
    if task == "token-classification":
        gold = list(conll.sentences(data, encoding=encoding))
        found = conll.aligned(gold, list(conll.sentences(predictions, encoding=encoding)))
        return entities.report([sentence.tags for sentence in gold], found)
    raise InputError(f"Predictions for the task {task!r} cannot be scored: {nearest(str(task), get_args(Scored))}")
