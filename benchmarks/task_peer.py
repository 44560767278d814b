"""transformers' side of tasks.py: the Auto class of every task, trained by Trainer as its documentation describes.

Tags stand on all pieces of a word (B- on the first, I- on the others) and are read off the first. Passages are read in
windows that overlap, and an answer is the best span of 30 tokens at most over all windows of its question. Choices are
padded to the longest of a batch. `trainer-tuned` adds bf16, length grouping, and test sets in the order of length.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from task_data import CHOICES, LONGEST_ANSWER, STRIDE, Files, Plan, read, report, scores

EVALUATION_BATCH = 32
NOT_SCORED = -100


@dataclass(frozen=True)
class Coded:
    """Rows as Trainer takes them; decode: the model's outputs, in the order of the rows, to what `report` takes."""

    rows: list[dict[str, Any]]
    decode: Callable[[Any], Any]


def trainer(name: str, plan: Plan, files: Files, folder: Path, seed: int, out: Path) -> dict[str, Any]:
    import torch
    import transformers as peer
    from transformers.trainer_pt_utils import LengthGroupedSampler

    models = {
        "classification": peer.AutoModelForSequenceClassification,
        "regression": peer.AutoModelForSequenceClassification,
        "tags": peer.AutoModelForTokenClassification,
        "answers": peer.AutoModelForQuestionAnswering,
        "choices": peer.AutoModelForMultipleChoice,
    }
    collators = {"tags": peer.DataCollatorForTokenClassification, "choices": peer.DataCollatorForMultipleChoice}

    class InOrder(peer.Trainer):  # type: ignore[misc]  # the peer has no types here
        def _get_eval_sampler(self, eval_dataset: Any) -> Any:  # length grouping would shuffle the predictions
            return torch.utils.data.SequentialSampler(eval_dataset)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if not tuned:
                return super()._get_train_sampler(train_dataset)
            # the same as its own, which sees no lengths in choices
            return LengthGroupedSampler(plan.batch, lengths=[_length(row) for row in coded["train"].rows])

    began = time.perf_counter()
    tuned = name.endswith("tuned")
    tokenizer = peer.AutoTokenizer.from_pretrained(folder)
    examples = {split: read(plan.kind, path) for split, path in files._asdict().items() if path is not None}
    labels = _labels(plan, examples["train"])
    coded = {split: CODERS[plan.kind](tokenizer, some, plan, labels) for split, some in examples.items()}
    coded |= {split: _by_length(coded[split]) for split in coded if tuned and split != "train"}

    peer.set_seed(seed)  # of the fresh head
    fresh: dict[str, Any] = dict(num_labels=len(labels)) if labels else {}
    fresh |= dict(num_labels=1, problem_type="regression") if plan.kind == "regression" else {}
    model = models[plan.kind].from_pretrained(folder, dtype="float32", **fresh)
    settings: dict[str, Any] = dict(report_to=[], disable_tqdm=True, logging_strategy="no", use_cpu=True, seed=seed)
    settings |= dict(num_train_epochs=plan.epochs, per_device_train_batch_size=plan.batch, learning_rate=plan.rate)
    settings |= dict(lr_scheduler_type="linear", warmup_steps=0.1, weight_decay=0.01, max_grad_norm=1.0)
    settings |= dict(dataloader_pin_memory=False, per_device_eval_batch_size=EVALUATION_BATCH, save_strategy="no")
    if "dev" in coded:
        settings |= dict(eval_strategy="epoch", save_strategy="epoch", save_only_model=True, save_total_limit=1)
        settings |= dict(load_best_model_at_end=True, metric_for_best_model=plan.measures[0], greater_is_better=True)
    if tuned:
        settings |= dict(bf16=True, train_sampling_strategy="group_by_length")

    def measured(split: str, outputs: Any) -> dict[str, Any]:
        return scores(plan, report(plan, examples[split], coded[split].decode(outputs), labels))

    run = InOrder(
        model=model,
        args=peer.TrainingArguments(output_dir=str(out), **settings),
        train_dataset=coded["train"].rows,
        eval_dataset=coded["dev"].rows if "dev" in coded else None,
        data_collator=collators.get(plan.kind, peer.DataCollatorWithPadding)(tokenizer),
        compute_metrics=lambda found: {
            key: value for key, value in measured("dev", found.predictions).items() if key in plan.measures
        },
    )
    steps = run.train().global_step
    run.compute_metrics = None
    found = measured("test", run.predict(coded["test"].rows).predictions)
    took = time.perf_counter() - began
    return {**found, "seconds": took, "steps": steps}


def _labels(plan: Plan, examples: list[Any]) -> list[str]:
    if plan.kind == "classification":
        return sorted({each["label"] for each in examples})
    if plan.kind != "tags":
        return []
    tags = {tag for each in examples for tag in each.tags}
    return sorted(tags | {_inside(tag) for tag in tags})


def _inside(tag: str) -> str:
    """The tag of the further pieces of a word."""
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag


def _by_length(coded: Coded) -> Coded:
    """The same, the longest rows first."""
    order = np.argsort([-_length(row) for row in coded.rows], kind="stable")
    back = np.argsort(order)

    def decode(outputs: Any) -> Any:
        return coded.decode(tuple(each[back] for each in outputs) if isinstance(outputs, tuple) else outputs[back])

    return replace(coded, rows=[coded.rows[at] for at in order], decode=decode)


def _length(row: dict[str, Any]) -> int:
    ids = row["input_ids"]
    return max(map(len, ids)) if isinstance(ids[0], list) else len(ids)


def _rows(coded: Any, targets: dict[str, list[Any]]) -> list[dict[str, Any]]:
    columns = {**coded, **targets}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _texts(tokenizer: Any, examples: list[dict[str, Any]], plan: Plan, labels: list[str]) -> Coded:
    columns = [[each[name] for each in examples] for name in ("text", "pair") if name in examples[0]]
    coded = tokenizer(*columns, truncation=True, max_length=plan.longest)
    if plan.kind == "regression":
        return Coded(_rows(coded, {"labels": [each["label"] for each in examples]}), lambda outputs: outputs[:, 0])
    targets = [labels.index(each["label"]) for each in examples]
    return Coded(_rows(coded, {"labels": targets}), lambda outputs: outputs)


def _tags(tokenizer: Any, examples: list[Any], plan: Plan, labels: list[str]) -> Coded:
    words = [list(each.words) for each in examples]
    coded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=plan.longest)
    number = {label: at for at, label in enumerate(labels)}
    targets, firsts = [], []
    for at, each in enumerate(examples):
        row, first, before = [], [], None
        for place, word in enumerate(coded.word_ids(at)):
            if word is None:
                row.append(NOT_SCORED)
            elif word == before:
                row.append(number[_inside(each.tags[word])])
            else:
                row.append(number[each.tags[word]])
                first.append((word, place))
            before = word
        targets.append(row)
        firsts.append(first)

    def decode(outputs: Any) -> list[Any]:
        best, found = outputs.argmax(-1), []
        for at, sentence in enumerate(words):
            tags = ["O"] * len(sentence)  # of words that were cut off
            for word, place in firsts[at]:
                tags[word] = labels[best[at, place]]
            found.append(tuple(tags))
        return found

    return Coded(_rows(coded, {"labels": targets}), decode)


def _answers(tokenizer: Any, examples: list[Any], plan: Plan, _: list[str]) -> Coded:
    """A row for each window; its target is the first answer where it lies in the window, else the first token."""
    questions, passages = [each.question.strip() for each in examples], [each.passage for each in examples]
    windows: dict[str, Any] = dict(truncation="only_second", max_length=plan.longest, stride=STRIDE)
    windows |= dict(return_overflowing_tokens=True, return_offsets_mapping=True)
    coded = tokenizer(questions, passages, **windows)
    owners = coded.pop("overflow_to_sample_mapping")
    offsets = [np.asarray(spans) for spans in coded.pop("offset_mapping")]
    places: list[tuple[int, int]] = []
    starts, ends = [], []
    for at, owner in enumerate(owners):
        passage = [place for place, part in enumerate(coded.sequence_ids(at)) if part == 1]
        low, high = passage[0], passage[-1] + 1
        places.append((low, high))
        text, first = examples[owner].answers[0]
        spans, last = offsets[at][low:high], first + len(text)
        inside = spans[0, 0] <= first and last <= spans[-1, 1]
        starts.append(low + int(np.flatnonzero(spans[:, 0] <= first)[-1]) if inside else 0)
        ends.append(low + int(np.flatnonzero(spans[:, 1] >= last)[0]) if inside else 0)

    def decode(outputs: Any) -> list[Any]:
        allowed = np.triu(np.tril(np.ones((plan.longest, plan.longest), bool), LONGEST_ANSWER - 1))
        best, found = [-np.inf] * len(examples), [""] * len(examples)
        for at, owner in enumerate(owners):
            low, high = places[at]
            sums = outputs[0][at, low:high, None] + outputs[1][at, None, low:high]
            sums = np.where(allowed[: high - low, : high - low], sums, -np.inf)
            if sums.max() > best[owner]:
                best[owner] = sums.max()
                start, end = divmod(int(sums.argmax()), high - low)
                spans = offsets[at][low:high]
                found[owner] = passages[owner][spans[start, 0] : spans[end, 1]]
        return found

    return Coded(_rows(coded, {"start_positions": starts, "end_positions": ends}), decode)


def _choices(tokenizer: Any, examples: list[dict[str, Any]], plan: Plan, _: list[str]) -> Coded:
    size = len(CHOICES)
    texts = [each["text"] for each in examples for _ in CHOICES]
    choices = [each[choice] for each in examples for choice in CHOICES]
    flat = tokenizer(texts, choices, truncation=True, max_length=plan.longest)
    coded = {key: [rows[at : at + size] for at in range(0, len(rows), size)] for key, rows in flat.items()}
    targets = {"labels": [CHOICES.index(each["label"]) for each in examples]}
    return Coded(_rows(coded, targets), lambda outputs: outputs)


CODERS = {
    "classification": _texts,
    "regression": _texts,
    "tags": _tags,
    "answers": _answers,
    "choices": _choices,
}
