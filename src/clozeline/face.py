"""The Python face: `load` a model, and what one can do with it.

model = cl.load("bert-base-uncased", task=cl.TextClassification(labels=["negative", "positive"]))
model.fit("train.csv", validation="dev.csv", out="runs/reviews")
model.predict(["Great movie, if you enjoy watching paint dry for two hours."])
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from clozeline import bundle as bundles
from clozeline import predict as prediction
from clozeline.card import model_card
from clozeline.config import EncoderConfig
from clozeline.data.packing import Samples
from clozeline.data.readers import Columns
from clozeline.errors import InputError, nearest
from clozeline.evaluate.intervals import Counted
from clozeline.model.heads import Network
from clozeline.precision import Precision, compute_dtype, pick_device
from clozeline.tasks import masked_evaluation
from clozeline.tasks.known import Task
from clozeline.tasks.masked_lm import Filled, MaskedLM
from clozeline.tasks.supervised import Supervised
from clozeline.tokenizer import LongText, Tokenizer
from clozeline.train import distilling
from clozeline.train.fit import Fitted
from clozeline.train.plan import Plan, plan
from clozeline.train.prepared import planned, prepare
from clozeline.train.settings import Settings
from clozeline.train.trials import fit_trials, refuse_runs

log = logging.getLogger("clozeline")


def load(
    name: str | Path,
    task: Task | None = None,
    *,
    precision: Precision = "fp32",
    device: str | None = None,
    revision: str | None = None,
    long: LongText | None = None,
    seed: int = 0,
) -> Model:
    """Load a model folder or a hub model.

    Args:
        name: a folder with config.json, weights and tokenizer, or a hub name such as "bert-base-uncased".
        task: what to use it for; None takes the checkpoint's own task, or none where it is a bare encoder.
        precision: of prediction: "fp32", "bf16", or "auto", bf16 where the machine is fast at it.
        device: such as "cpu" or "cuda:1"; None is the first GPU, or the CPU.
        revision: of a hub model: a branch, tag or commit.
        long: what happens to texts longer than the model, instead of what the classifier was trained with.
        seed: of the fresh weights of a new head.

    Raises:
        InputError: the model cannot be found, is damaged, is not supported, or does not fit its tokenizer.
    """
    bundle = bundles.load(name, task, revision=revision, seed=seed)
    if long is not None and isinstance(bundle.task, Supervised):
        bundle.task = dataclasses.replace(bundle.task, long=long)  # type: ignore[type-var]
    return Model(bundle, precision, pick_device(device), seed)


class Model:
    """A loaded model: an encoder, its tokenizer, and perhaps a task. Made by `load`."""

    def __init__(self, bundle: bundles.Bundle, precision: Precision, device: torch.device, seed: int) -> None:
        self._bundle = bundle
        self._dtype = compute_dtype(precision, device)
        self._device = device
        self._seed = seed
        self._served: Network | None = None
        self._served_of: list[tuple[int, int]] = []
        self.fitted: Fitted | None = None

    @property
    def name(self) -> str:
        """What it was loaded from."""
        return self._bundle.name

    @property
    def config(self) -> EncoderConfig:
        return self._bundle.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self._bundle.tokenizer

    @property
    def task(self) -> Task | None:
        return self._bundle.task

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the head's outputs in order, such as labels; empty where the model has no task of its own."""
        return self.task.outputs if isinstance(self.task, Supervised) else ()

    @property
    def network(self) -> Network:
        """The fp32 network itself, a `torch.nn.Module`, for whoever wants to go deeper."""
        return self._bundle.network

    def fit(
        self,
        train: str | Path,
        validation: str | Path | None = None,
        *,
        text: str | None = None,
        pair: str | None = None,
        label: str | Sequence[str] | None = None,
        choices: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
        teacher: Model | str | Path | None = None,
        out: str | Path,
        resume: bool = False,
        overwrite: bool = False,
        quiet: bool = False,
        seeds: int = 1,
        learning_rates: Sequence[float] = (),
        settings: Settings | None = None,
        **changes: object,
    ) -> Fitted:
        """Fine-tune on labelled data. Afterwards the model is the best of all epochs, saved in `out/model`.

        Args:
            train, validation: a CSV, TSV, JSONL or Parquet file, or a hub data set ("owner/name:split"); of words and tags
                also CoNLL columns, of questions SQuAD's JSON.
            text, pair, label, choices: columns; guessed where their names are usual ones.
            columns: the names of the columns of a file without a header.
            teacher: a model of the same task and tokens, whose answers are learned beside the labels; see `distill`.
            out: a folder for the model, metrics.jsonl, curve.png and the state to resume from; processes on several
                machines must share it.
            resume: go on with the unfinished run in `out`, or with several, which may grow by seeds and rates.
            overwrite: begin anew though `out` holds a run.
            seeds: runs with seeds from the settings' own on; the best by validation is kept, `trials` says how they differ.
            learning_rates: the rates to try, each with all seeds.
            settings, changes: how to train, see `Settings`; `model.fit(..., epochs=5)` changes one of them.

        Raises:
            InputError: the data cannot be read or used, or `out` holds another run.
        """
        where = Columns(text=text, pair=pair, label=label, choices=choices, names=columns, encoding=encoding)
        other, settings = self._taught(teacher, settings, changes)
        refuse_runs(Path(out), seeds > 1 or len(learning_rates) > 1, resume=resume, overwrite=overwrite)
        how: dict[str, Any] = dict(teacher=other, settings=settings, device=self._device)
        ready = prepare(self._bundle, train, validation, where, self._seed, out=Path(out), **how)

        def begun() -> None:
            self._bundle, self._served, self.fitted = ready.bundle, None, None

        self.fitted = fit_trials(
            ready.bundle,
            ready.train,
            ready.validation,
            Path(out),
            settings,
            seeds=seeds,
            learning_rates=learning_rates,
            device=self._device,
            resume=resume,
            overwrite=overwrite,
            quiet=quiet,
            card=model_card,
            data=ready.data,
            begun=begun,
            teacher=ready.teacher,
        )
        return self.fitted

    def plan(
        self,
        train: str | Path,
        validation: str | Path | None = None,
        *,
        text: str | None = None,
        pair: str | None = None,
        label: str | Sequence[str] | None = None,
        choices: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
        teacher: Model | str | Path | None = None,
        seeds: int = 1,
        learning_rates: Sequence[float] = (),
        settings: Settings | None = None,
        **changes: object,
    ) -> Plan:
        """What `fit` would do with the same arguments, what it would cost in memory and time; trains and writes nothing.

        The model stays as it is, also where its labels are still open.

        Raises:
            InputError: as `fit`.
        """
        where = Columns(text=text, pair=pair, label=label, choices=choices, names=columns, encoding=encoding)
        other, settings = self._taught(teacher, settings, changes)
        how: dict[str, Any] = dict(teacher=other, settings=settings, device=self._device)
        ready = prepare(self._bundle, train, validation, where, self._seed, **how)
        runs = planned(settings, seeds, learning_rates, ready.validation)
        return plan(ready.bundle, ready.train, ready.validation, runs[0], self._device, len(runs), ready.teacher)

    def _taught(
        self, teacher: Model | str | Path | None, settings: Settings | None, changes: dict[str, Any]
    ) -> tuple[bundles.Bundle | None, Settings]:
        """The teacher, and the settings of learning from it."""
        self._supervised("fit")
        defaults = distilling.TASK if teacher is not None and settings is None else {}
        settings = (settings or Settings(seed=self._seed)).replace(**{**defaults, **changes})
        settings.check_teacher(teacher is not None)
        if teacher is None:
            return None, settings
        return (teacher if isinstance(teacher, Model) else load(teacher))._bundle, settings

    def predict(self, texts: Any, pairs: Any = None) -> list[Any]:
        """A prediction for each text: what it is depends on the task, and it always says how many tokens were cut.

        Args:
            texts: one text or many. Of a token classifier, a text may also be a list of words; of question answering and
                multiple choice, these are the questions.
            pairs: as many second texts, passages, or lists of choices.

        Raises:
            InputError: the model is not trained for a task, or something given is not what the task takes.
        """
        rows, task = enumerate(prediction.couples(texts, pairs)), self._supervised("predict")
        return list(self.predict_stream(task.example(text, other, f"texts[{at}]") for at, (text, other) in rows))

    def predict_stream(self, stream: Iterable[Any], window: int = prediction.WINDOW) -> Iterator[Any]:
        """A prediction for each example of the task as they come, in order, `window` of them in memory at a time."""
        task = self._supervised("predict")
        return prediction.decode(self._network(), task, self.tokenizer, stream, self._device, window)

    def evaluate(
        self,
        data: str | Path,
        *,
        text: str | None = None,
        pair: str | None = None,
        label: str | Sequence[str] | None = None,
        choices: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
    ) -> Any:
        """The task's metrics with 95 % intervals on labelled data, read as `fit` reads it: print it, or see `as_dict()`.

        A masked-LM model is measured on texts without labels: how well it finds masked words.

        Raises:
            InputError: the data cannot be read, has a label the model does not know, or the model is not trained for it.
        """
        if isinstance(self.task, MaskedLM):
            self._masked_lm()
            parts = self._network(), self.tokenizer, [data]
            return masked_evaluation.evaluate(*parts, text=text, encoding=encoding, device=self._device)
        where = Columns(text=text, pair=pair, label=label, choices=choices, names=columns, encoding=encoding)
        task, logits, samples = self._judged(data, where)
        return task.report(logits, samples)

    def counted(self, data: str | Path | Sequence[Any], where: Columns, metric: str | None = None) -> Counted:
        """One of the task's metrics on labelled data, or examples, as sums over examples, for `compare`."""
        task, logits, samples = self._judged(data, where)
        return task.counted(logits, samples, metric)

    def _judged(self, data: str | Path | Sequence[Any], where: Columns) -> tuple[Supervised, np.ndarray, Samples]:
        """What the model says of labelled data, and the data."""
        task = self._supervised("evaluate")
        examples = task.read(data, "test", where) if isinstance(data, str | Path) else data
        return task, *prediction.judge(self._network(), task, self.tokenizer, examples, self._device)

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        pool: str = "mean",
        layers: str = "last",
        long: LongText = "truncate",
        normalize: bool = False,
    ) -> np.ndarray | list[np.ndarray]:
        """Vectors of texts, fp32.

        Args:
            pool: "mean" of the tokens, "cls" (the first token), "pooler" (BERT's pooled output), "max": an (n, D) array;
                or "tokens": a list of (length, D) arrays, special tokens included.
            layers: "last", or "all" for every layer's output: the arrays get a dimension of layers + 1 before D.
            long: as in `TextClassification`; under "window" a text's vector is the mean of its windows'.
            normalize: scale each vector to length 1.

        Raises:
            InputError: no such pooling, or a text is not text.
        """
        if layers not in ("last", "all"):
            raise InputError(f"layers is {layers!r}; allowed: 'last', 'all'.")
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise InputError("There are no texts to embed.")
        if pool == "pooler" and any(name.startswith("head.pooler.") for name in self._bundle.fresh):
            raise InputError(f"{self._bundle.name} has no trained pooler; use pool='mean' or 'cls', or fit it first.")
        samples = Samples.tokenise(self.tokenizer, texts, long=long)
        if lost := int((samples.cut > 0).sum()):
            log.warning("%d of %d texts lose %d tokens (long=%r).", lost, len(texts), int(samples.cut.sum()), long)
        vectors = prediction.embed(self._network(), samples, self._device, pool=pool, every_layer=layers == "all")
        if not normalize:
            return vectors
        return [prediction.unit(rows) for rows in vectors] if isinstance(vectors, list) else prediction.unit(vectors)

    def fill_mask(self, text: str, top: int = 5, candidates: Sequence[str] | None = None) -> list[list[Filled]]:
        """The `top` most probable words for each mask token in the text, best first; or all of `candidates`, compared.

        Without candidates a word is one token of the vocabulary; candidates may have several.

        Raises:
            InputError: the model has no masked-LM head, the text has no mask, or a candidate is no word.
        """
        task = self._masked_lm()
        if candidates is None:
            return task.fill(self._network(), self.tokenizer, text, top, self._device)
        if isinstance(candidates, str):
            raise InputError("candidates must be a list of words, not one text; put it in a list.")
        return task.choose(self._network(), self.tokenizer, text, candidates, self._device)

    def pseudo_log_likelihood(self, texts: str | Sequence[str]) -> list[float]:
        """How likely a masked-LM model finds each text: the sum of each token's log probability given all others.

        Compare texts of the same length, or divide by it: longer texts are less likely (Salazar et al. 2020).

        Raises:
            InputError: the model has no masked-LM head, or a text is empty or longer than it reads.
        """
        task, texts = self._masked_lm(), [texts] if isinstance(texts, str) else list(texts)
        return [task.pseudo_log_likelihood(self._network(), self.tokenizer, text, self._device) for text in texts]

    def _masked_lm(self) -> MaskedLM:
        if not isinstance(self.task, MaskedLM) or self._bundle.fresh:
            raise InputError(
                f"{self._bundle.name} has no trained masked-LM head; load a pre-trained model that has one."
            )
        return self.task

    def add_words(self, words: Sequence[str]) -> list[int]:
        """Give words of a field, such as "tocilizumab", tokens of their own. Gives their ids.

        A new word begins as the mean of the pieces that it was read as before, so that little changes until it is trained.
        It is matched as a whole word. The model and the tokenizer grow together and are saved together.

        Raises:
            InputError: a word is empty, has a space at an end, is repeated, or is a token already; nothing is changed then.
        """
        if isinstance(words, str):
            raise InputError("words must be a list of words, not one text; put it in a list.")
        return bundles.add_words(self._bundle, words)

    def save(self, folder: str | Path, *, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        """Write a model folder that `load` and transformers read, whole or not at all.

        precision: of the weights on the disk; "bf16" halves the files and rounds to 8 bits.

        Raises:
            InputError: no such precision; the folder cannot be written or the disk is full; what was there is untouched.
        """
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
        if precision not in kinds:
            raise InputError(f"precision is {precision!r}: {nearest(precision, kinds)}")
        self._bundle.save(folder, model_card(self._bundle, self.fitted), kinds[precision])

    def _network(self) -> Network:
        """The network as prediction uses it, made at the first call and when the parameters have changed since."""
        now = [(id(part), 0 if part.is_inference() else part._version) for part in self._bundle.network.parameters()]
        if self._served is None or self._served_of != now:
            self._served, self._served_of = self._bundle.network.twin(self._dtype, self._device), now
            self._served.freeze()
        return self._served

    def __getstate__(self) -> dict[str, Any]:
        """Without what prediction made of the network: packed weights can be neither copied nor pickled."""
        return {**self.__dict__, "_served": None}

    def _supervised(self, verb: str) -> Supervised:
        if not isinstance(self.task, Supervised):
            what = "a bare encoder" if self.task is None else f"a {type(self.task).__name__} model"
            raise InputError(
                f"{self._bundle.name} is {what} and cannot {verb}: it has no head trained for a task. Fine-tune it first; "
                "in Python, load it with task=clozeline.TextClassification(labels=[...]), or another task, and fit."
            )
        if verb != "fit" and "head.classifier.weight" in self._bundle.fresh:
            raise InputError(
                f"{self._bundle.name} has no trained head for {self.task.name} yet, so its answers would be random; "
                "fit it first."
            )
        return self.task
