"""A pre-training run as data: a flat TOML file, `key=value` changes and flags, as in `recipe`.

This module imports no torch: a recipe is refused before anything heavy is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clozeline import recipe
from clozeline.errors import InputError
from clozeline.recipe import Key
from clozeline.train import distilling
from clozeline.train.pretraining_settings import PretrainSettings

SIZES = ("layers", "width", "heads", "ffn_width", "max_length", "embedding_width", "dropout")
"""Keys that change a shape."""


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """Everything that `clozeline pretrain` needs to know. In a file, the fields of `settings` stand beside the others.

    Args:
        corpus: text files, folders and hub data sets, whose rows or files are documents; or one folder of shards.
        out: folder of the run: tokenizer, shards, model, metrics, curve, and the state to resume from.
        model: a checkpoint to go on from, with its tokenizer; without, the weights are fresh.
        shape: of fresh weights: the name of a published model; without, bert-mini-uncased.
        layers: of the shape, instead of its own.
        width: of the shape, instead of its own; so are the next.
        heads: attention heads in each layer.
        ffn_width: of the feed-forward part.
        max_length: tokens that the model reads at once.
        embedding_width: of the token table, where the family has one of its own.
        dropout: of activations and attention.
        teacher: a model with a masked-LM head to learn from; a fresh student takes what fits of its weights.
        tokenizer: a folder; without, one is trained on the corpus.
        vocabulary: tokens of a tokenizer that is trained; without, 30528.
        tokenizer_kind: how it cuts words; without, as the shape's family does.
        validation: held-out text or shards; without, a share of the documents.
        held_out: this share; without, 0.005.
        text: column of the texts; guessed where its name is a usual one.
        split: what is a document of a plain-text file: the whole file (as without), what stands between blank lines, or a
            line.
        encoding: of text files.
        near_duplicates: leave out documents that are nearly the same as another; exact ones always are.
        device: such as cpu or cuda:1; without, the first GPU or the CPU.
        settings: how to train.
    """

    corpus: tuple[str, ...]
    out: str = "pretrained"
    model: str | None = None
    shape: str | None = None
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    ffn_width: int | None = None
    max_length: int | None = None
    embedding_width: int | None = None
    dropout: float | None = None
    teacher: str | None = None
    tokenizer: str | None = None
    vocabulary: int | None = None
    tokenizer_kind: Literal["wordpiece", "bpe", "unigram"] | None = None
    validation: str | None = None
    held_out: float | None = None
    text: str | None = None
    split: Literal["file", "blank", "line"] | None = None
    encoding: str = "utf-8"
    near_duplicates: bool = False
    device: str | None = None
    settings: PretrainSettings = field(default_factory=PretrainSettings)

    def __post_init__(self) -> None:
        if not self.corpus or not all(self.corpus):
            raise InputError(
                "There is no corpus; give text files, a folder of them, a hub data set, or a folder of shards."
            )
        if self.held_out is not None and not 0 <= self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}; it is a share of the documents, from 0 to below 1.")
        if self.model is not None:
            self._alone(
                "A model to go on from brings its own", "tokenizer", "shape", "vocabulary", "tokenizer_kind", *SIZES
            )
        self.settings.check_teacher(self.teacher is not None)
        if self.teacher is not None:
            self._alone("A student reads what its teacher reads", "tokenizer", "vocabulary", "tokenizer_kind")
            if self.settings.sharded:
                raise InputError("sharded does not divide a teacher; leave one of them out.")
        if self.tokenizer is not None:
            self._alone("A tokenizer that is given is as it is", "vocabulary", "tokenizer_kind")

    def _alone(self, why: str, *names: str) -> None:
        """InputError where one of these keys is given."""
        if given := [name for name in names if getattr(self, name) is not None]:
            raise InputError(f"{why}; leave {', '.join(given)} out.")

    def sizes(self) -> dict[str, Any]:
        """The sizes that are not the shape's own."""
        given = {name: getattr(self, name) for name in SIZES}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PretrainRecipe:
        """A recipe from checked values by key.

        Raises:
            InputError: no corpus is named, or a value cannot be.
        """
        values = {**(distilling.WORDS if values.get("teacher") else {}), **values}
        own = {name: value for name, value in values.items() if not KEYS[name].setting}
        settings = PretrainSettings().replace(**{name: values[name] for name in values.keys() - own.keys()})
        return cls(**{"corpus": (), **own}, settings=settings)

    def to_toml(self) -> str:
        """The recipe as a file; what is left open stands as a comment."""
        return recipe.as_toml(self)


KEYS: dict[str, Key] = recipe.keys(PretrainRecipe, setting=False) | recipe.keys(PretrainSettings, setting=True)


def divided(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments as sources and key=value changes; a file may have such a name too."""
    changes = [each for each in given if re.match(r"[a-z_0-9]+=", each) and not Path(each).exists()]
    return [each for each in given if each not in changes], changes


def resolve(given: Sequence[str], flags: Mapping[str, Any]) -> PretrainRecipe:
    """The recipe of a command: a file or parts of a corpus, then key=value changes, then flags; what comes later wins.

    Raises:
        InputError: as `recipe.read`, `recipe.assignments` and `PretrainRecipe.of`.
    """
    sources, changes = divided(given)
    values: dict[str, Any] = {"corpus": tuple(sources)} if sources else {}
    if sources and sources[0].endswith(".toml"):
        if len(sources) > 1:
            raise InputError(f"{sources[1]!r} is one argument too many: after a recipe come key=value changes.")
        values = recipe.read(Path(sources[0]), KEYS)
    values |= recipe.assignments(changes, KEYS)
    found = {name: recipe.checked(name, value, "", KEYS) for name, value in flags.items() if value is not None}
    return PretrainRecipe.of(values | found)
