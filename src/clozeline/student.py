"""A student for a teacher: a network of fewer layers or another shape, with what fits of the teacher's weights."""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from clozeline.bundle import Bundle
from clozeline.config import Learned
from clozeline.errors import InputError
from clozeline.families import FAMILIES
from clozeline.families.family import Family
from clozeline.families.shapes import resized, shaped
from clozeline.model.encoder import Layer
from clozeline.model.heads import Network
from clozeline.model.layer_map import spread
from clozeline.tasks.supervised import Supervised

log = logging.getLogger("clozeline")

WORDS = ("masked_lm", "pretraining")
"""Heads that find masked words."""


@dataclasses.dataclass(frozen=True)
class Student:
    """A network that has learned nothing from its teacher yet.

    layers: of the teacher, the one that each of its layers began as, empty where they are fresh; fresh: parameters that are
    not the teacher's.
    """

    family: Family
    network: Network
    layers: tuple[int, ...]
    fresh: list[str]

    def __str__(self) -> str:
        """The layer map as a table, and what is fresh."""
        if not self.layers:
            return "student     fresh layers: none of the teacher's has their size"
        rows = [
            f"student layer {at:>2}  begins as the teacher's layer {layer:>2}" for at, layer in enumerate(self.layers)
        ]
        return "\n".join([*rows, *([f"fresh: {', '.join(self.fresh)}"] if self.fresh else [])])


def student_of(
    teacher: Bundle,
    *,
    shape: str | None = None,
    sizes: Mapping[str, int | float] | None = None,
    layers: Sequence[int] = (),
    seed: int = 0,
) -> Student:
    """A smaller network with the teacher's head, vocabulary and, where they fit, weights.

    shape: a published model; without, the teacher's own. sizes: instead of the shape's. layers: of the teacher, the one that
    each layer begins as; without, spread evenly (Sanh et al. 2019). A student without segments adds the first segment's row
    of the teacher's to its table of positions, which leaves what is embedded as it was.

    Raises:
        InputError: no such shape or size, or layers that the teacher does not have.
    """
    mine, changes = teacher.config, dict(sizes or {})
    if layers:
        if changes.setdefault("layers", len(layers)) != len(layers):
            raise InputError(f"There are {len(layers)} layers to begin as for a student of {changes['layers']}.")
        if not all(0 <= layer < mine.layers for layer in layers):
            shown = ", ".join(map(str, layers))
            raise InputError(f"The layers to begin as are {shown}; the teacher has layers 0 to {mine.layers - 1}.")
    source = teacher
    if shape is not None:
        family, config = shaped(shape, changes, vocab_size=mine.vocab_size, pad_id=mine.pad_id)
    elif changes.keys() <= {"layers"}:
        source = keep_layers(teacher, layers or spread(mine.layers, int(changes.get("layers", mine.layers))))
        family, config = teacher.family, source.config
    else:
        whole = mine.replace(block=dataclasses.replace(mine.block, pruned=()))  # other sizes, other heads
        family, config = teacher.family, resized(teacher.family, teacher.family.write(whole), changes)
    kind = "masked_lm" if teacher.network.kind in WORDS else teacher.network.kind
    if kind not in family.heads:
        raise InputError(f"{family.name} has no head of the teacher's kind, {kind}; choose another shape.")
    classes = len(teacher.task.outputs) if isinstance(teacher.task, Supervised) else 0
    network = family.build(config, kind, classes, seed=seed)
    if not layers and (shape is None or config.layers <= mine.layers):
        layers = spread(mine.layers, config.layers)
    own_head = family is teacher.family or kind == "masked_lm"
    fresh = _take(network, source.network, layers if source is teacher else None, heads=own_head)
    if any(re.match(r"encoder\.layers\.\d+\.attention\.qkv", name) for name in fresh):
        layers = ()
    return Student(family, network.eval(), tuple(layers), fresh)


def keep_layers(bundle: Bundle, layers: Sequence[int]) -> Bundle:
    """A model with these layers of the given one, counted from 0; the given one stays as it is.

    Where layers share weights (ALBERT), fewer layers are fewer rounds through the same ones. ModernBERT's windows go with
    their layers; transformers before version 5 reads them only where full attention comes at regular steps, and a warning
    says so where it does not.

    Raises:
        InputError: a layer that is not there, repeated or out of order; the first one left out where it is made unlike the
            others; or layers that ALBERT cannot share in this way.
    """
    config, order = bundle.config, bundle.network.encoder.order
    given = f"layers={[*layers]}"
    if not layers or [*layers] != sorted({*range(config.layers)}.intersection(layers)):
        raise InputError(
            f"{given} cannot be kept; give whole numbers from 0 to {config.layers - 1}, each once, in rising order."
        )
    block = config.block
    if layers[0] != 0 and (block.norm_first or block.convolution is not None):
        unlike = "is made without the norm that the others begin with" if block.norm_first else "has the convolution"
        raise InputError(f"{given} leaves out layer 0, which {unlike}; give layers that begin with 0.")
    parts = [order[number] for number in layers]
    own = sorted({*parts})
    if parts != [own[at * len(own) // len(parts)] for at in range(len(parts))]:
        runs = "; ".join(", ".join(str(at) for at, part in enumerate(order) if part == run) for run in {*order})
        raise InputError(f"{given} cannot be kept: these share weights: {runs}. Give as many of each.")

    network = copy.deepcopy(bundle.network)
    encoder = network.encoder
    encoder.layers = nn.ModuleList(encoder.layers[part] for part in own)
    encoder.order = [own.index(part) for part in parts]
    network.config = encoder.config = config.replace(
        layers=len(parts),
        windows=tuple(config.windows[number] for number in layers) if config.windows else (),
        block=dataclasses.replace(
            block,
            shared=None if block.shared is None else len(own),
            pruned=tuple(block.pruned[number] for number in layers) if block.pruned else (),
        ),
    )
    if config.windows and "global_attn_every_n_layers" not in bundle.family.write(network.config):
        log.warning(
            "Full attention does not come at regular steps in %s: only transformers 5 and later read that.", given
        )
    return dataclasses.replace(bundle, network=network)


def take_heads(bundle: Bundle, heads: Mapping[int, Sequence[int]]) -> Bundle:
    """A model without these heads, which gives what it would with them switched off; the given one stays as it is.

    heads: by layer, the heads to take out, from 0; always by the numbers they had before any was taken out. It is saved with
    smaller tensors and `pruned_heads` in config.json. transformers before version 5 loads that; version 5 has no pruned
    heads any more: it builds all of them, and refuses the tensors because of their sizes.

    Raises:
        InputError: no such layer or head, no head would be left in a layer, or a family whose layout has no pruned heads
            (ALBERT, whose layers share weights; MPNet, whose layers share scores by head; DeBERTa; ModernBERT).
    """
    if not bundle.family.prunable:
        able = ", ".join(name for name, family in FAMILIES.items() if family.prunable)
        raise InputError(f"Heads cannot be taken out of {bundle.family.name}, only out of {able}.")
    before = bundle.config
    wanted = {layer: sorted({int(head) for head in gone}) for layer, gone in heads.items() if len(gone)}
    if not wanted:
        raise InputError("There are no heads to take out; name some by layer, such as {0: [3, 5]}.")
    after = before.without(wanted)
    for layer, gone in wanted.items():
        if missing := [head for head in gone if head not in before.kept_heads(layer)]:
            there = ", ".join(map(str, before.kept_heads(layer)))
            raise InputError(f"Layer {layer} has no head {missing[0]} any more; it has {there}.")
    network = copy.deepcopy(bundle.network)
    for layer in wanted:
        part, kept = network.encoder.layers[layer], before.kept_heads(layer)
        assert isinstance(part, Layer)
        part.attention.keep([kept.index(head) for head in after.kept_heads(layer)])
    network.config = network.encoder.config = after
    return dataclasses.replace(bundle, network=network)


@torch.no_grad()
def _take(network: Network, teacher: Network, layers: Sequence[int] | None, *, heads: bool) -> list[str]:
    """Fill a network with the tensors of a teacher that have their names and sizes there; gives the names of the others.

    layers: of the teacher, the one for each layer, none for layers that are all fresh; None where both have the same.
    """
    theirs, fresh = teacher.state_dict(), []
    cut = network.config.heads != teacher.config.heads  # other parts of the same vectors
    for name, value in network.state_dict().items():
        source = _source(name, teacher, layers)
        apart = (name.startswith("head.") and not heads) or (cut and ".attention." in name)
        found = None if source is None or apart else theirs.get(source)
        if name.endswith("positions.table.weight") and found is not None and found.shape[1] == value.shape[1]:
            begin, other = (getattr(each.config.positions, "offset", 0) for each in (network, teacher))
            rows = min(len(value) - begin, len(found) - other)
            value[begin : begin + rows] = found[other : other + rows]
            continue
        if found is None or found.shape != value.shape:
            fresh.append(name)
        else:
            value.copy_(found)
    ours, other = network.encoder.embedding, teacher.encoder.embedding
    placed = isinstance(network.config.positions, Learned) and "encoder.embedding.positions.table.weight" not in fresh
    if ours.segments is None and other.segments is not None and placed:
        table: Any = ours.positions
        table.table.weight += other.segments.weight[0]
    return fresh


def _source(name: str, teacher: Network, layers: Sequence[int] | None) -> str | None:
    """The teacher's name of a tensor; None of one in a layer that begins as none of the teacher's."""
    if (found := re.match(r"encoder\.layers\.(\d+)\.(.+)", name)) and layers is not None:
        at = int(found[1])
        return f"encoder.layers.{teacher.encoder.order[layers[at]]}.{found[2]}" if at < len(layers) else None
    if teacher.kind == "pretraining":
        return re.sub(r"^head\.", "head.masked_lm.", name)
    return name


PROBE = "The Café's 3.5% naïve—re-run: 東京 😀 don't @user_name #ÇA  (x)\n"
"""Letters of both cases, accents, numbers, signs and scripts that tokenizers treat differently."""


def check_words(teacher: Bundle, student: Bundle) -> None:
    """InputError where teacher and student do not read a text as the same tokens."""
    theirs, mine = teacher.tokenizer, student.tokenizer
    pairs = (
        (at, a, b) for at, (a, b) in enumerate(zip(mine.vocabulary(), theirs.vocabulary(), strict=False)) if a != b
    )
    found = next((f"token {at} is {a!r} in {student.name} and {b!r} in {teacher.name}" for at, a, b in pairs), None)
    if mine.vocab_size != theirs.vocab_size or student.config.vocab_size != teacher.config.vocab_size:
        both = ((each.name, each.tokenizer.vocab_size, each.config.vocab_size) for each in (student, teacher))
        found = found or " and ".join(f"{name} has {a:,} tokens and a table of {b:,}" for name, a, b in both)
    (ours,), (other,) = (each.plain([PROBE]) for each in (mine, theirs))
    if found is None and ours.tolist() != other.tolist():
        found = f"{student.name} and {teacher.name} split text in different ways"
    if found is not None:
        raise InputError(
            f"Teacher and student must read the same tokens, but {found}; take a student with the teacher's tokenizer."
        )


def check_teacher(teacher: Bundle, student: Bundle) -> None:
    """InputError where a model cannot teach another its task: no trained head for it, other outputs or other tokens."""
    theirs, mine = teacher.task, student.task
    if type(theirs) is not type(mine) or not isinstance(theirs, Supervised):
        what = "has no task" if theirs is None else f"is a {type(theirs).__name__} model"
        raise InputError(
            f"{teacher.name} {what} and cannot teach {type(mine).__name__}; give a teacher trained for it."
        )
    if teacher.fresh:
        raise InputError(f"{teacher.name} has no trained head for {theirs.name}; train the teacher first.")
    assert isinstance(mine, Supervised)
    if mine.outputs != theirs.outputs:
        raise InputError(
            f"{teacher.name} answers with {', '.join(theirs.outputs)}, and {student.name} with {', '.join(mine.outputs)}; "
            "both must have the same outputs in the same order."
        )
    check_words(teacher, student)
