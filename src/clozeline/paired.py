"""Two models side by side, such as a teacher and its student: size, speed, masked words and scores (`clozeline compare`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clozeline import checkpoint
from clozeline import predict as prediction
from clozeline.batch import Packed
from clozeline.data import squad, tagged
from clozeline.data.packing import Samples
from clozeline.data.readers import Columns, class_name, rows
from clozeline.errors import InputError, nearest
from clozeline.evaluate.agreement import MaskedAgreement, clozes
from clozeline.evaluate.compare import Comparison
from clozeline.evaluate.compare import compare as compare_counted
from clozeline.evaluate.side_by_side import SideBySide, Size, Speed, in_turns
from clozeline.face import Model, load
from clozeline.model.layers import Embedding
from clozeline.precision import Precision
from clozeline.tasks.known import Task
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tasks.question_answering import QuestionAnswering
from clozeline.tasks.supervised import Supervised
from clozeline.tasks.token_classification import TokenClassification
from clozeline.tokenizer import LongText, Tokenizer

BATCHES = (1, 32)
LOOKED_AT = 1000
"""Examples of labelled data, evenly spaced, among which those to be timed are chosen."""
WEIGHTS = ("model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin")
"""Files of weights; the first of these that a folder has is what is loaded."""
TEXTS = (
    "Never again.",
    "The room was small but very clean.",
    "Delivery took two weeks longer than promised, and nobody answered the phone.",
    "I bought this for my sister, who has used it every day since and would not give it back for anything in the world.",
    "The council voted on Tuesday to close the bridge until spring, when engineers will have finished their report on the "
    "cracks that were found in two of its piers.",
    "What begins as a quiet film about a fishing village turns, in its last half hour, into something much stranger: the "
    "tide goes out and does not come back, the radio plays a song that nobody remembers recording, and the old men on the "
    "pier begin, one after another, to tell the same story.",
)
"""What is timed where no texts are given: of 2 to 50 words."""
SENTENCES = (
    "The capital of France is {}.",
    "She put the {} on the table and left the room.",
    "Water turns to {} when it is heated.",
    "He was late because he had missed the {}.",
    "The opposite of hot is {}, and the opposite of big is {}.",
)
"""Where masked words are looked for, unless other sentences are given."""

Pair = tuple[Model, Model]


def compare(
    a: Model | str | Path,
    b: Model | str | Path,
    data: str | Path | None = None,
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
    sentences: Sequence[str] = (),
    texts: Sequence[str] = (),
    runs: int = 50,
) -> SideBySide:
    """Put two models side by side: print what it gives, or see its `as_dict()` and `figure(path)`.

    Sizes always. Speed with 1 and with 32 texts at once, see `Speed`; the texts are spread evenly over the lengths of all
    that there are, and are the same for both. Masked words where both models have a masked-LM head and the same vocabulary.
    Where labelled data is given, both models are evaluated on it and the difference is tested on the pairs of their answers.

    Compared is the first of the task's metrics unless another one is named: accuracy, macro_f1 or mcc of classes; micro_f1,
    macro_f1 or exact of sets of labels; pearson of numbers; f1, precision or recall of entities; f1 or exact of answers.

    Args:
        a, b: models, or what `load` takes; both of the same task where data is given.
        data: labelled data, as in `Model.evaluate`.
        by: a column whose values cut the data into slices, each compared by itself; of SQuAD's JSON "title", the article.
        text, pair, label, choices, columns, encoding: as in `Model.evaluate`.
        metric: what to compare.
        long, precision, device: as in `load`, of the models that are loaded here.
        sentences: with one mask token or more each, in which both models fill the masks; a few English ones without.
        texts: what is timed; without, those of the data, or a few English ones.
        runs: timed passes of each model and batch size; 0 times nothing.

    Raises:
        InputError: as `load` and `Model.evaluate`; also models of different tasks, data without that column, a metric
            that is none of sums over examples, or sentences where masked words cannot be compared.
    """
    where = Columns(text=text, pair=pair, label=label, choices=choices, names=columns, encoding=encoding)
    given = dict(by=by, metric=metric, text=text, pair=pair, label=label, choices=choices, columns=columns)
    useless = [name for name, value in given.items() if value is not None]
    if data is None and useless:
        raise InputError(f"{useless[0]} is of labelled data, and there is none; give data too, or leave it out.")
    if runs < 0:
        raise InputError(f"runs is {runs}; it must be 0, which times nothing, or more.")
    for what, several in (("sentences", sentences), ("texts", texts)):
        if isinstance(several, str):
            raise InputError(f"{what} must be a list of texts, not one text; put it in a list.")
    how: dict[str, Any] = dict(long=long, precision=precision, device=device)
    one, other = (each if isinstance(each, Model) else load(each, **how) for each in (a, b))
    models, names, notes = (one, other), (one.name, other.name), list[str]()
    masked = _masked(models, sentences, notes)
    task = None if data is None else _scores(models, data, by, metric, where)
    speeds = _speeds(models, data, where, texts, runs, notes) if runs else []
    return SideBySide(names, (_size(one, a), _size(other, b)), speeds, masked, task, notes)


def _size(model: Model, given: Model | str | Path) -> Size:
    """given: what was asked for; of a model, where it was loaded from or left by its training."""
    network = model.network
    parameters = sum(part.numel() for part in network.parameters())
    tables = sum(part.weight.numel() for part in network.encoder.embedding.modules() if isinstance(part, Embedding))
    if not isinstance(given, Model):
        folder = checkpoint.find(given)
    else:
        folder = Path(model.name).expanduser() if model.fitted is None else model.fitted.out / "model"
    files: list[Path] = next(filter(None, (list(folder.glob(pattern)) for pattern in WEIGHTS)), [])
    return Size(parameters, parameters - tables, sum(file.stat().st_size for file in files) or None)


def _masked(models: Pair, sentences: Sequence[str], notes: list[str]) -> MaskedAgreement | None:
    """None, with a note, where masked words cannot be compared; of two models that fill no masks there is nothing to say."""
    unable = [model.name for model in models if not _fills_masks(model)]
    tokens, others = ({} if unable else _tokens(model.tokenizer) for model in models)
    mask = models[0].tokenizer.mask_id
    if unable or tokens != others or mask != models[1].tokenizer.mask_id:
        why = f"{unable[0]} has no trained masked-LM head" if unable else "the models have different vocabularies"
        if sentences:
            raise InputError(f"Masked words cannot be compared: {why}. Leave the sentences out.")
        notes += [f"Masked words are not compared: {why}."] if len(unable) < 2 else []
        return None
    assert mask is not None
    shown, found = tokens[mask], []
    for at, sentence in enumerate(sentences or [each.format(*[shown] * 2) for each in SENTENCES]):
        a_MV, b_MV = (_at_masks(model, sentence, f"sentences[{at}]", mask)[:, list(tokens)] for model in models)
        if not len(a_MV) or len(a_MV) != len(b_MV):
            raise InputError(f"sentences[{at}], {sentence!r:.40}, has no {shown}; put it where a word is to be found.")
        found += clozes(sentence, list(tokens.values()), a_MV, b_MV)
    return MaskedAgreement(tuple(found))


def _fills_masks(model: Model) -> bool:
    return isinstance(model.task, MaskedLM) and not model._bundle.fresh and model.tokenizer.mask_id is not None


def _tokens(tokenizer: Tokenizer) -> dict[int, str]:
    """The tokens by id: there may be gaps between them, and rows of the embedding behind them."""
    found = {}
    for at in range(tokenizer.vocab_size):
        with contextlib.suppress(InputError):
            found[at] = tokenizer.token(at)
    return found


@torch.inference_mode()
def _at_masks(model: Model, sentence: str, place: str, mask: int) -> np.ndarray:
    """(M, V) logits at the masks of a sentence."""
    ids = model.tokenizer.encode([sentence], long="error", places=[place])[0].sequences[0].ids
    masks = torch.from_numpy(np.flatnonzero(ids == mask)).to(model._device)
    return MaskedLM().logits(model._network(), Packed.of([ids]).to(model._device), masks).cpu().numpy()


def _speeds(
    models: Pair, data: str | Path | None, where: Columns, texts: Sequence[str], runs: int, notes: list[str]
) -> list[Speed]:
    examples: list[Sequence[Any]] = [texts or TEXTS, texts or TEXTS]
    if labelled := data is not None and not texts:
        assert data is not None
        read = [model.task.read(data, "test", where) for model in models if isinstance(model.task, Supervised)]
        examples = [each[:: -(-len(each) // LOOKED_AT)] for each in read]
    heads = all(isinstance(model.task, Supervised) for model in models)
    order = np.argsort(_samples(models[0], examples[0], labelled).lengths, kind="stable")
    found = []
    for batch in BATCHES:
        chosen = order[(2 * np.arange(batch) + 1) * len(order) // (2 * batch)]  # the middles of as many parts
        one, other = (
            _samples(model, [each[at] for at in chosen], labelled) for model, each in zip(models, examples, strict=True)
        )
        for model, samples in zip(models, (one, other), strict=True):
            if cut := int(samples.cut.sum()):
                notes.append(f"{model.name} did not read {cut} tokens of the texts that were timed, {batch} at once.")
        found.append(
            in_turns(
                _forward(models[0], one, heads),
                _forward(models[1], other, heads),
                batch=batch,
                runs=runs,
                what="logits" if heads else "vectors",
                tokens=(len(one.ids), len(other.ids)),
            )
        )
    return found


def _samples(model: Model, examples: Sequence[Any], labelled: bool) -> Samples:
    """Examples of the model's task, or plain texts, as it reads them."""
    task = model.task
    if not isinstance(task, Supervised):
        return Samples.tokenise(model.tokenizer, examples)
    if labelled:
        return task.samples(model.tokenizer, examples, targets=False)
    return Samples.tokenise(model.tokenizer, examples, long=task.long, max_length=task.max_length)


def _forward(model: Model, samples: Samples, head: bool) -> Callable[[], object]:
    """The forward pass that is timed."""
    network, task, device = model._network(), model.task, model._device
    if head and isinstance(task, Supervised):
        return lambda: prediction.logits(network, task, samples, device)
    return lambda: prediction.embed(network, samples, device, pool="mean")


def _scores(models: Pair, data: str | Path, by: str | None, metric: str | None, where: Columns) -> Comparison:
    for model in models:
        _check(model.task, metric, model.name)
    slices = None if by is None else _slices(models[0].task, data, by, where)
    one, other = (model.counted(data, where, metric) for model in models)
    return compare_counted(one, other, (models[0].name, models[1].name), slices)


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
