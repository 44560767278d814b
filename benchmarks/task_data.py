"""The data sets of tasks.py: how each is trained, clean files that both sides read, and the one scorer of both.

Every split becomes a file of a plain form: JSON lines (text, pair, label; of multiple choice text, A to D, label), CoNLL
columns, or SQuAD's JSON. So byte order marks, missing headers and stray carriage returns are nobody's advantage.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from clozeline.data import conll, squad
from clozeline.evaluate import answers, choices, classification, entities, regression
from side_by_side import DATA

Kind = Literal["classification", "regression", "tags", "answers", "choices"]
CHOICES = ("A", "B", "C", "D")
STRIDE = 128
"""Tokens that neighbouring windows of a passage share."""
LONGEST_ANSWER = 30
"""In tokens; both as in Devlin et al.'s run_squad.py."""
TINY = 32


@dataclass(frozen=True)
class Plan:
    """How a data set is trained. longest: tokens of a text or window; measures: scores, the first is the main one."""

    kind: Kind
    measures: tuple[str, ...]
    batch: int = 16
    rate: float = 5e-5
    epochs: int = 4
    longest: int = 128
    pair: bool = True


# Not searched for on these data. Devlin et al. 2019, A.3: batch 16 or 32, 2 to 4 epochs, up to 5e-5; 4.2: SQuAD 3 epochs,
# 5e-5. Small BERTs (google-research/bert, README; Turc et al. 2019): 4 epochs, up to 3e-4, of which 1e-4 is for the
# tagger, whose head is all new. GLUE is cut at 128 tokens as in both. Batch 32 where there are more than 10,000 examples.
PLANS = {
    "mrpc": Plan("classification", ("accuracy", "f1")),
    "rte": Plan("classification", ("accuracy",)),
    "cola": Plan("classification", ("mcc",), pair=False),
    "sst2": Plan("classification", ("accuracy",), batch=32, epochs=3, pair=False),
    "stsb": Plan("regression", ("pearson", "spearman")),
    "wnut17": Plan("tags", ("f1",), rate=1e-4, longest=256),
    "squad": Plan("answers", ("f1", "exact"), epochs=3, longest=384),
    "arc-easy": Plan("choices", ("accuracy",)),
    "nli": Plan("classification", ("accuracy",)),
}


class Files(NamedTuple):
    """dev: where there is one beside the test set; it chooses the epoch, without it the last one counts."""

    train: Path
    dev: Path | None
    test: Path


def files(name: str, folder: Path, tiny: bool) -> Files:
    """Write the clean files of a data set."""
    kind = PLANS[name].kind
    splits = _splits(name)
    if tiny:
        train = _spread(splits["train"])
        known = {label for each in train for label in _labels(kind, each)}
        rest = {split: _spread([each for each in splits[split] if _labels(kind, each) <= known]) for split in splits}
        splits = {**rest, "train": train}
    ending, form = FORMS.get(kind, ("jsonl", _json_lines))
    paths = {split: folder / f"{split}.{ending}" for split in splits}
    for split, path in paths.items():
        path.write_text(form(splits[split]), encoding="utf-8")
    return Files(paths["train"], paths.get("dev"), paths["test"])


def read(kind: Kind, path: Path) -> list[Any]:
    """The examples of a clean file."""
    if kind == "tags":
        return list(conll.sentences(path))
    if kind == "answers":
        return list(squad.questions(path))
    return [
        json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line
    ]  # a text may hold other line ends


def report(plan: Plan, examples: Sequence[Any], found: Any, labels: Sequence[str]) -> dict[str, Any]:
    """The package's report on a peer's results.

    found: (n, C) logits, (n,) numbers, (n, 4) scores, tags of each sentence, or the answer to each question.
    """
    if plan.kind == "tags":
        return entities.report([each.tags for each in examples], found).as_dict()
    if plan.kind == "answers":
        golds = {each.name: [text for text, _ in each.answers] for each in examples}
        return answers.report(golds, dict(zip(golds, found, strict=True))).as_dict()
    gold, cut = [each["label"] for each in examples], np.zeros(len(examples), dtype=np.int64)
    if plan.kind == "regression":
        return regression.report(found[:, None], np.asarray(gold)[:, None], ["label"], cut).as_dict()
    targets = np.asarray([(labels or CHOICES).index(each) for each in gold])
    if plan.kind == "choices":
        return choices.report(found, targets, cut).as_dict()
    return classification.report(found, targets, labels, cut).as_dict()


def scores(plan: Plan, found: dict[str, Any]) -> dict[str, Any]:
    """What the table shows of a report: the plan's measures, and the interval of the first."""
    if plan.kind == "regression":
        (found,) = found["targets"].values()
    # F1 of classes stands there by label; GLUE's is that of "1"
    kept = {name: value["1"] if isinstance(value := found[name], dict) else value for name in plan.measures}
    return {**kept, "interval": found[f"{plan.measures[0]}_interval"]}


# -- the published files


def _splits(name: str) -> dict[str, list[Any]]:
    glue = DATA / "glue"
    if name == "mrpc":
        found = {split: _table(glue / "MRPC" / f"msr-para-{split}.tsv") for split in ("train", "val")}
        return _named(found, text="#1 String", pair="#2 String", label="Quality")
    if name == "rte":
        found = {split: _table(glue / "RTE" / f"{split}.tsv") for split in ("train_full", "dev")}
        return _named(found, text="sentence1", pair="sentence2", label="label")
    if name == "cola":
        header = ["source", "label", "star", "sentence"]
        found = {split: _table(glue / "CoLA" / f"{split}.tsv", header) for split in ("train_full", "dev")}
        return _named(found, text="sentence", label="label")
    if name == "sst2":
        found = {split: _table(DATA / "sst2" / f"{split}.tsv") for split in ("train", "dev")}
        return _named(found, text="sentence", label="label")
    if name == "nli":
        kinds = ("original", "revised")
        found = {
            split: [row for kind in kinds for row in _table(DATA / "nli" / kind / f"{split}.tsv")]
            for split in ("train", "dev", "test")
        }
        return _named(found, text="sentence1", pair="sentence2", label="gold_label")
    if name == "stsb":
        found = {split: _csv(glue / "STS-B" / f"stsb-en-{split}.csv", "text pair label") for split in ("train", "dev")}
        return _named(
            {split: [{**row, "label": float(row["label"])} for row in rows] for split, rows in found.items()},
            **{column: column for column in ("text", "pair", "label")},
        )
    if name == "arc-easy":
        folder = DATA / "multiple_choice"
        found = {
            split: [row for row in _csv(folder / f"arc-easy-{split}.csv", "text A B C D label") if _whole(row)]
            for split in ("train", "validation")
        }
        return _named(found, **{column: column for column in ("text", *CHOICES, "label")})
    if name == "wnut17":
        return {split: list(conll.sentences(DATA / "wnut17" / f"{split}.conll")) for split in ("train", "dev", "test")}
    assert name == "squad"
    questions = list(squad.questions(DATA / "squad" / "dev-v1.1.json"))
    titles = sorted({each.article for each in questions})
    training = set(np.random.default_rng(0).permutation(titles)[: round(0.8 * len(titles))].tolist())
    return {
        # one answer, as SQuAD's own training set has
        "train": [_with_one_answer(each) for each in questions if each.article in training],
        "test": [each for each in questions if each.article not in training],
    }


def _table(path: Path, header: list[str] | None = None) -> list[dict[str, Any]]:
    """A TSV file in which quotes are text."""
    lines = [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    records = [line.split("\t") for line in lines]
    names = header or records.pop(0)
    return [dict(zip(names, record, strict=True)) for record in records]


def _csv(path: Path, header: str) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return [dict(zip(header.split(), record, strict=True)) for record in csv.reader(lines)]


def _named(splits: dict[str, list[dict[str, Any]]], **columns: str) -> dict[str, list[Any]]:
    """The columns under our names; the first split is for training, one of two is for testing."""
    names = ("train", "test") if len(splits) == 2 else ("train", "dev", "test")
    rows = ([{ours: row[theirs] for ours, theirs in columns.items()} for row in found] for found in splits.values())
    return dict(zip(names, rows, strict=True))


def _whole(row: dict[str, Any]) -> bool:
    """Four choices and the letter of one: this file has lost the choices of 102 + 21 questions, and 8 have three or five."""
    return all(row[choice].strip() for choice in CHOICES) and row["label"] in CHOICES


def _with_one_answer(question: squad.Question) -> squad.Question:
    return dataclasses.replace(question, answers=question.answers[:1])


def _spread(items: list[Any]) -> list[Any]:
    return [items[at] for at in np.linspace(0, len(items) - 1, min(TINY, len(items))).astype(int)]


def _labels(kind: Kind, example: Any) -> set[Any]:
    if kind == "tags":
        return set(example.tags)
    return set() if kind in ("answers", "regression") else {example["label"]}


def _json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _columns(sentences: list[conll.Tagged]) -> str:
    blocks = ("".join(f"{word}\t{tag}\n" for word, tag in zip(s.words, s.tags, strict=True)) for s in sentences)
    return "\n".join(blocks)


def _squad(questions: list[squad.Question]) -> str:
    articles: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for each in questions:
        found = [{"text": text, "answer_start": start} for text, start in each.answers]
        entry = {"id": each.name, "question": each.question, "answers": found}
        articles.setdefault(each.article, {}).setdefault(each.passage, []).append(entry)
    return json.dumps(
        {
            "data": [
                {"title": title, "paragraphs": [{"context": passage, "qas": qas} for passage, qas in passages.items()]}
                for title, passages in articles.items()
            ]
        }
    )


FORMS: dict[Kind, tuple[str, Callable[[list[Any]], str]]] = {"tags": ("conll", _columns), "answers": ("json", _squad)}
