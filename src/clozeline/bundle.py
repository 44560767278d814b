"""A network with its tokenizer and its task: what a model folder holds, read and written as one."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from clozeline import checkpoint
from clozeline.config import EncoderConfig
from clozeline.errors import InputError
from clozeline.families.family import Family
from clozeline.files import staged
from clozeline.model.heads import Network
from clozeline.tasks.known import Task, own_task
from clozeline.tasks.supervised import Supervised
from clozeline.tokenizer import Tokenizer

log = logging.getLogger("clozeline")


@dataclass
class Bundle:
    """name: what it was loaded from; task: None for a bare encoder, or a head whose task is not served here.

    fresh: parameters that no checkpoint filled; kept: what `config.json` said of such a head, to be written again.
    """

    name: str
    family: Family
    network: Network
    tokenizer: Tokenizer
    task: Task | None
    fresh: list[str]
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> EncoderConfig:
        return self.network.config

    def save(self, folder: str | Path, card: str | None = None, dtype: torch.dtype = torch.float32) -> None:
        """Write the model folder, whole or not at all; transformers loads it too. dtype: of the weights on the disk.

        Raises:
            InputError: the folder cannot be written, or the disk is full; what was there is untouched.
        """
        network = self.network if dtype == torch.float32 else rounded(self.network, dtype)
        with staged(Path(folder)) as stage:
            extra = {**self.kept, **({} if self.task is None else self.task.raw())}
            if self.fresh:  # so that whoever loads it is told, as now
                extra["clozeline"] = {
                    **extra.get("clozeline", {}),
                    "untrained": checkpoint.marks(network, self.fresh),
                }
            checkpoint.save(stage, self.family, network, network.kind, extra, dtype)
            self.tokenizer.save(stage)
            if card is not None:
                (stage / "README.md").write_text(card, encoding="utf-8")


@torch.no_grad()
def rounded(network: Network, dtype: torch.dtype) -> Network:
    """A copy in fp32 whose weights are what a save in `dtype` keeps of them."""
    copied = copy.deepcopy(network)
    for part in copied.parameters():
        part.copy_(part.to(dtype))
    return copied


def load(name: str | Path, task: Task | None = None, *, revision: str | None = None, seed: int = 0) -> Bundle:
    """Load a folder or a hub model, with the head of `task`, or with the checkpoint's own where no task is given.

    A classifier without labels takes the checkpoint's. If its labels differ from the checkpoint's, or the checkpoint has
    none, its head starts fresh, seeded by `seed`, and refuses to predict until it is trained.

    Raises:
        InputError: the model cannot be found, is damaged, unsupported, or does not fit its tokenizer.
    """
    folder = checkpoint.find(name, revision)
    raw = checkpoint.read_config(folder)
    tensors = checkpoint.plain_tensors(folder)
    own = checkpoint.own_head(raw, tensors)
    inferred = task is None
    if task is None:
        task = own_task(own, raw)
    reset = None
    if isinstance(task, Supervised):
        task, keep = _settle_outputs(task, own_task(own, raw) if own == task.head else None, name)
        reset = None if keep else "head.classifier."
    labels = task.outputs if isinstance(task, Supervised) else raw.get("id2label") or ()
    classes = len(labels) or raw.get("num_labels", 2)
    head = (own or "base") if task is None else task.head
    if own == "pretraining" and head in ("masked_lm", "next_sentence"):
        head = own  # which has both, so that a save has both again
    loaded = checkpoint.load(folder, head, classes, reset=reset, seed=seed, tensors=tensors)
    tokenizer = Tokenizer.load(folder, loaded.config.max_length)
    tokenizer.check(loaded.config.vocab_size)
    fresh = loaded.fresh
    if task is not None and own == head:
        fresh = list(dict.fromkeys([*fresh, *checkpoint.untrained(raw, loaded.network)]))
    if fresh:
        say = log.warning if own == "text_classification" else log.info  # a trained head that is given up
        say("%s: newly initialised, train before use: %s", name, ", ".join(fresh))
    named = raw.get("architectures") or []
    if own == "base" and not any(loaded.family.head_of(each) == "base" for each in named) and named:
        log.warning("%s says that it is a %s, but holds none of that head; it is a bare encoder.", name, named[0])
    if own is None:
        log.warning("%s is a %s, a head not known here; it was left out.", name, ", ".join(raw["architectures"]))
    elif loaded.unused:
        say = log.warning if inferred and own != "base" else log.info  # trained, and the next save leaves it out
        say("%s: not used by this task: %s", name, ", ".join(loaded.unused))
    loaded.network.eval()
    kept: dict[str, Any] = {
        key: raw[key] for key in ("id2label", "label2id", "problem_type") if task is None and key in raw
    }
    return Bundle(str(name), loaded.family, loaded.network, tokenizer, task, fresh, kept)


def add_words(bundle: Bundle, words: Sequence[str]) -> list[int]:
    """Give words tokens of their own, each beginning as the mean of what it was read as before. Gives their ids.

    Raises:
        InputError: a word is empty, has a space at an end, is repeated, or is a token already.
    """
    parts = bundle.tokenizer.add_words(words)
    bundle.network.grow(parts)
    return list(parts)


def _settle_outputs(task: Supervised, theirs: Task | None, name: str | Path) -> tuple[Supervised, bool]:
    """The task with the names of its outputs, and whether the checkpoint's head is for them."""
    if type(task) is not type(theirs):
        return task, False
    assert isinstance(theirs, Supervised)
    own = theirs.outputs
    if not task.outputs:
        return task.with_outputs(own), bool(own)
    if task.outputs == own:
        return task, True
    if set(task.outputs) == set(own):
        order = ", ".join(own)
        raise InputError(f"{name} has these labels in another order: give labels in the order of its outputs, {order}.")
    return task, own == tuple(f"LABEL_{at}" for at in range(len(task.outputs)))


def settle(bundle: Bundle, task: Supervised, seed: int) -> None:
    """Give the bundle a task that knows its outputs now, with a fresh one for each where they are new."""
    before, bundle.task = bundle.task, task
    assert isinstance(before, Supervised)
    if before.outputs != task.outputs:
        renew_head(bundle, seed)
        assert bundle.network.head is not None
        renewed = [
            f"head.{name}" for name, _ in bundle.network.head.named_parameters() if name.startswith("classifier")
        ]
        bundle.fresh = list(dict.fromkeys([*bundle.fresh, *renewed]))


def renew_head(bundle: Bundle, seed: int) -> None:
    """Give the bundle's task fresh outputs; a pooler stays. The network it had stays as it is, for whoever else has it."""
    task = bundle.task
    assert isinstance(task, Supervised) and bundle.network.head is not None
    pooler = {
        name: value for name, value in bundle.network.head.state_dict().items() if not name.startswith("classifier")
    }
    fresh = bundle.family.build(bundle.config, task.head, len(task.outputs), seed=seed, encoder=False).head
    assert fresh is not None
    fresh.load_state_dict(pooler, strict=False)
    for old, new in zip(bundle.network.head.parameters(), fresh.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    bundle.network = copy.copy(bundle.network)
    bundle.network._modules = {**bundle.network._modules, "head": fresh}
