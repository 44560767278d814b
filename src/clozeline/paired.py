"""Two models on the same examples: which is better, by how much, and where (`clozeline compare A B DATA`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clozeline.data import squad, tagged
from clozeline.data.readers import Columns, class_name, rows
from clozeline.errors import InputError, nearest
from clozeline.evaluate.compare import Comparison
from clozeline.evaluate.compare import compare as compare_counted
from clozeline.face import Model, load
from clozeline.precision import Precision
from clozeline.tasks.known import Task
from clozeline.tasks.question_answering import QuestionAnswering
from clozeline.tasks.supervised import Supervised
from clozeline.tasks.token_classification import TokenClassification
from clozeline.tokenizer import LongText


def compare(
    a: Model | str | Path,
    b: Model | str | Path,
    data: str | Path,
    *,
    by: str | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | Sequence[str] | None = None,
    choices: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    metric: str | None = None,
    long: LongText | None = None,
    precision: Precision = "fp32",
    device: str | None = None,
) -> Comparison:
    """Evaluate both models on labelled data, and test the difference on the pairs of their answers.

    Compared is the first of the task's metrics unless another one is named: accuracy, macro_f1 or mcc of classes; micro_f1,
    macro_f1 or exact of sets of labels; pearson of numbers; f1, precision or recall of entities; f1 or exact of answers.

    Args:
        a, b: models, or what `load` takes; both of the same task.
        by: a column whose values cut the data into slices, each compared by itself; of SQuAD's JSON "title", the article.
        text, pair, label, choices, columns, encoding: as in `Model.evaluate`.
        metric: what to compare.
        long, precision, device: as in `load`, of the models that are loaded here.

    Raises:
        InputError: as `load` and `Model.evaluate`; also models of different tasks, data without that column, or a metric
            that is none of sums over examples.
    """
    given: dict[str, Any] = dict(long=long, precision=precision, device=device)
    models = [each if isinstance(each, Model) else load(each, **given) for each in (a, b)]
    names = [each.name if isinstance(each, Model) else str(each) for each in (a, b)]
    where = Columns(text=text, pair=pair, label=label, choices=choices, names=columns, encoding=encoding)
    for model, name in zip(models, names, strict=True):
        _check(model.task, metric, name)
    slices = None if by is None else _slices(models[0].task, data, by, where)
    one, other = (model.counted(data, where, metric) for model in models)
    return compare_counted(one, other, (names[0], names[1]), slices)


def _check(task: Task | None, metric: str | None, name: str) -> None:
    """InputError where a task has no such metric; that a model has no task is said when it is asked."""
    if metric is None or not isinstance(task, Supervised):
        return
    allowed = [each for each in task.metrics if each != "spearman"]  # of ranks, which are no sums over examples
    if metric not in allowed:
        raise InputError(f"{name} cannot be compared by {metric!r}: {nearest(metric, allowed)}")


def _slices(task: Task | None, data: str | Path, by: str, where: Columns) -> list[str]:
    """The value of a column in each row; of SQuAD's JSON the title of each question's article."""
    if isinstance(task, QuestionAnswering) and squad.in_articles(data):
        if by != "title":
            raise InputError(f"{Path(data).name} has no column {by!r} to slice by: {nearest(by, ['title'])}")
        return [question.article or "-" for question in squad.questions(data)]
    if isinstance(task, TokenClassification) and tagged.in_columns(data):
        raise InputError(
            f"{Path(data).name} has no rows to slice by {by!r}: leave it out, or give the sentences as rows."
        )
    found = []
    for row in rows(data, columns=where.names, encoding=where.encoding, split="test"):
        if by not in row.values:
            raise InputError(f"{row.place}: there is no column {by!r} to slice by: {nearest(by, row.values)}")
        found.append("-" if row.values[by] in (None, "") else class_name(row, [by]))
    return found
