"""What the commands share: types and help of their flags, one for each key of a recipe, and words said by several of them.

Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from cyclopts import Group, Parameter

from clozeline import harden_recipe, pretraining_recipe
from clozeline import recipe as recipes
from clozeline.harden_recipe import HardenRecipe
from clozeline.pretraining_recipe import PretrainRecipe
from clozeline.recipe import KEYS, Key, Recipe
from clozeline.train.distilling import Distilling

ModelName = Annotated[str, Parameter(help="A model folder, or a hub name such as bert-base-uncased.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False, help="Print JSON.")]
Switch = Annotated[bool, Parameter(negative=(), show_default=False)]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"], Parameter(help="Of the computation; auto: bf16 where it is fast.")
]
Device = Annotated[str | None, Parameter(help="Such as cpu or cuda:1; without, the first GPU or the CPU.")]
Long = Annotated[recipes.Long, Parameter(help=KEYS["long"].help)]
OwnLong = Annotated[
    recipes.Long | None, Parameter(help="What happens to a text longer than the model; without, as it was trained.")
]
File = Annotated[str | None, Parameter(allow_leading_hyphen=True, help="Read the texts from this file.")]
Stdin = Annotated[bool, Parameter(name="-", negative=(), show_default=False, help="Read them from standard input.")]
Text = Annotated[str | None, Parameter(help=KEYS["text"].help)]
Pair = Annotated[str | None, Parameter(help=KEYS["pair"].help)]
Names = Annotated[str | None, Parameter(help=KEYS["label"].help)]
Choices = Annotated[str | None, Parameter(help=KEYS["choices"].help)]
ColumnNames = Annotated[str | None, Parameter(help=KEYS["columns"].help)]
Format = Annotated[str | None, Parameter(help="csv, tsv, jsonl, txt, parquet or conll, where the name does not say.")]
Encoding = Annotated[str, Parameter(help="Of the file.")]
Out = Annotated[Path | None, Parameter(help="Write the results to this file instead of standard output.")]
DATA, TRAINING = Group.create_ordered("What to train on"), Group.create_ordered("How to train")


FIRST = os.environ.get("RANK", "0") == "0"
"""Of several processes that torchrun starts one speaks."""


def stopped(where: str) -> int:
    """Say how to go on with a run that Ctrl-C ended; gives the exit code for it. where: such as "step 3"."""
    again = [argument for argument in sys.argv[1:] if argument not in ("--overwrite", "--resume")]
    print(f"Stopped; saved at {where}. To go on:", file=sys.stderr)
    print(shlex.join(["clozeline", *again, "--resume"]), file=sys.stderr)
    return 130


NEEDLESS = ("tokenizer", "vocabulary", "tokenizer_kind", "nsp", "sop", "rtd", "generator", "embeddings", "sharded")
"""Keys of pre-training that no distillation has."""


def _flags(name: str, keys: Mapping[str, Key], positional: Sequence[str]) -> type:
    """A class with an optional flag for each key of a recipe; positional ones have places of their own."""
    fields = []
    for key_name in [each for each in keys if each not in positional]:
        key = keys[key_name]
        kind = str if _listed(key.wanted) else key.wanted
        shown: Any = (
            (lambda _, default=key.default: default) if key.default not in (None, (), dataclasses.MISSING) else False
        )
        names = None if key_name != "model" else "--from"
        note = Parameter(name=names, help=key.help, show_default=shown, group=TRAINING if key.setting else DATA)
        fields.append((key_name, Annotated[kind | None, note], None))
    made = dataclasses.make_dataclass(name, fields, kw_only=True)
    made.__module__ = __name__  # cyclopts reads the fields of user classes only
    return made


def _listed(wanted: Any) -> bool:
    """Whether a type holds a list or a table, which a flag gives as key=value does, such as a,b,c."""
    return get_origin(wanted) in (tuple, dict) or any(map(_listed, get_args(wanted)))


DISTILLING = ("hard", *(part.name for part in dataclasses.fields(Distilling)))
"""Settings of learning from a teacher."""

if TYPE_CHECKING:
    Flags = Recipe
    PretrainFlags = PretrainRecipe
    DistillFlags = Recipe
    HardenFlags = HardenRecipe
else:
    Flags = _flags("Flags", KEYS, ("model", "train"))
    PretrainFlags = _flags("PretrainFlags", pretraining_recipe.KEYS, ("corpus",))
    # a default that is not the same for tasks and masked words is not shown
    own = pretraining_recipe.KEYS
    both = {name: replace(key, default=None) if name in own and key != own[name] else key for name, key in KEYS.items()}
    DistillFlags = _flags("DistillFlags", own | both, ("model", "train", "corpus", "teacher", "task", *NEEDLESS))
    HardenFlags = _flags("HardenFlags", harden_recipe.KEYS, ("model", "capability", "probes", *DISTILLING))
