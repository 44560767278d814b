"""Score predictions that were made elsewhere, without a model: answers to questions, and entities in tagged words."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from clozeline.data import conll, squad, tagged, tags
from clozeline.data.readers import Columns
from clozeline.errors import InputError, nearest
from clozeline.evaluate import answers, entities

Scored = Literal["question-answering", "token-classification"]


def score(
    data: str | Path, predictions: str | Path, task: Scored, *, encoding: str = "utf-8"
) -> answers.AnswerReport | entities.EntityReport:
    """Score a file of predictions against a file of data.

    Args:
        data: the task's data in any of its forms, such as SQuAD's JSON, or CoNLL columns (word and tag).
        predictions: a JSON object of question id to answer text; or CoNLL columns with the same words.
        task: "question-answering": exact match and F1; "token-classification": precision, recall and F1 of entities, or of
            single words where the data's tags are plain, such as NOUN.

    Raises:
        InputError: a file cannot be read or has another form, or the two are not about the same questions or words.
    """
    where = Columns(encoding=encoding)
    if task == "question-answering":
        golds = {each.name: [text for text, _ in each.answers] for each in squad.read(data, "test", where)}
        predicted = squad.predictions(predictions)
        if not golds.keys() & predicted.keys():
            raise InputError(f"{Path(predictions).name} answers none of the questions in {Path(data).name}.")
        return answers.report(golds, predicted)
    if task == "token-classification":
        gold = [_columns(text) for text in tagged.read(data, "test", where)]
        found = conll.aligned(gold, list(conll.sentences(predictions, encoding=encoding)))
        used = {tag for sentence in gold for tag in sentence.tags}
        scheme = "BIO" if tags.odd(used) else tags.scheme_of(used)  # what is no scheme is read as conlleval reads it
        return entities.report(
            [tags.whole(sentence.tags, scheme) for sentence in gold], [tags.whole(each, scheme) for each in found]
        )
    raise InputError(f"Predictions for the task {task!r} cannot be scored: {nearest(str(task), get_args(Scored))}")


def _columns(text: tagged.TaggedText) -> conll.Tagged:
    """A tagged text as columns say it.

    Raises:
        InputError: an entity begins or ends inside a word, which no columns can say.
    """
    if text.uneven:
        raise InputError(f"{text.place}: a span begins or ends inside a word, and predictions in columns are of words.")
    assert text.tags is not None
    return conll.Tagged(tuple(text.text[start:end] for start, end in text.words), text.tags, text.place)
