"""Distillation: a network, the student, learns to do what a trained one, the teacher, does.

The losses are those of `model.matching`, beside the student's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from clozeline.batch import Layout, Packed
from clozeline.data.packing import Batch
from clozeline.data.pretraining import Corrupted
from clozeline.errors import InputError
from clozeline.model.encoder import initialise
from clozeline.model.heads import MaskedLMHead, Network, PretrainingHead
from clozeline.model.layer_map import spread
from clozeline.model.layers import Linear
from clozeline.model.matching import cosine_loss, relation_loss
from clozeline.model.trace import Trace, trace
from clozeline.model.vocabulary import TaughtVocabularyLoss
from clozeline.tasks.pretraining import Sum
from clozeline.tasks.supervised import Supervised

ROWS = 1024
"""Tokens whose logits over the vocabulary are worked out at once."""


class Teacher:
    """A trained network that others learn from: it is neither trained nor copied with them."""

    def __init__(self, network: Network) -> None:
        """network: a twin, on the device and in the precision that it computes in.

        What it shares with another network is copied, for that may be trained meanwhile, even as this one's student.
        """
        self.network = network.eval()
        for module in network.modules():
            for name, part in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(part.detach().clone(), requires_grad=False))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @torch.no_grad()
    def trace(self, packed: Packed, qkv: Sequence[int] = ()) -> Trace:
        """What it makes of a batch, see `trace.trace`."""
        return trace(self.network.encoder, packed, qkv)


@dataclass(frozen=True)
class Match:
    """What inside the student is held to what inside the teacher.

    layers: of the teacher, counted from 0, the one for each layer of the student; hidden: "last" compares the last layers'
    outputs, "layers" each layer's with its layer of the teacher, None none; relation_heads: parts that queries, keys and
    values of the last layers are cut into, 0 leaves them out.
    """

    layers: tuple[int, ...]
    hidden: Literal["last", "layers"] | None = None
    relation_heads: int = 0

    @classmethod
    def of(
        cls,
        student: Network,
        teacher: Network,
        layers: Sequence[int] = (),
        hidden: Literal["last", "layers"] | None = None,
        relation_heads: int | None = None,
    ) -> Match:
        """layers: as in the class, or none for layers spread evenly; relation_heads: None leaves relations out, 0 takes the
        teacher's heads.

        Raises:
            InputError: a map of another length or with layers that the teacher does not have, or widths that the heads do
                not divide.
        """
        mine, theirs = student.config, teacher.config
        if not layers:
            layers = [round(at * (theirs.layers - 1) / max(1, mine.layers - 1)) for at in range(mine.layers)]
            layers = spread(theirs.layers, mine.layers) if mine.layers <= theirs.layers else layers
        if len(layers) != mine.layers or not all(0 <= at < theirs.layers for at in layers):
            shown = ", ".join(map(str, layers))
            raise InputError(
                f"The layer map is {shown}; it must name a layer of the teacher, from 0 to {theirs.layers - 1}, for each of "
                f"the student's {mine.layers}."
            )
        heads = 0 if relation_heads is None else relation_heads or theirs.heads
        if heads and (mine.width % heads or theirs.width % heads):
            raise InputError(
                f"relation_heads is {heads}; it must divide the student's width, {mine.width}, and the teacher's, "
                f"{theirs.width}."
            )
        if heads and any(len(each.kept_heads(each.layers - 1)) < each.heads for each in (mine, theirs)):
            raise InputError("Relations need all heads of the last layer, and some were pruned; leave relations out.")
        return cls(tuple(layers), hidden, heads)

    @property
    def any(self) -> bool:
        """Whether the teacher has to read along."""
        return self.hidden is not None or self.relation_heads > 0

    def losses(self, mine: Trace, theirs: Trace, layout: Layout, project: nn.Module) -> dict[str, Sum]:
        """The summed losses over the tokens of a batch; right: the summed cosines, or nothing.

        project: makes the student's vectors as wide as the teacher's.
        """
        found: dict[str, Sum] = {}
        if self.hidden is not None:
            last = len(self.layers) - 1
            pairs = [(last, len(theirs.states) - 2)] if self.hidden == "last" else [*enumerate(self.layers)]
            each = [cosine_loss(project(mine.states[a + 1]), theirs.states[b + 1]) for a, b in pairs]
            loss = torch.stack(each).mean()
            found["hidden"] = Sum(loss, layout.tokens - loss.detach())
        if self.relation_heads:
            ((_, a),), ((_, b),) = mine.qkv.items(), theirs.qkv.items()
            loss = relation_loss(a, b, layout, self.relation_heads)
            found["relations"] = Sum(loss, torch.zeros_like(loss))
        return found

    def of_student(self) -> list[int]:
        """The layers whose queries, keys and values are compared."""
        return [len(self.layers) - 1] if self.relation_heads else []

    def of_teacher(self, teacher: Teacher) -> list[int]:
        return [teacher.network.config.layers - 1] if self.relation_heads else []


class Learner(Network):
    """A student over the same encoder and head, with the projection to the teacher's width, where it has another.

    What is trained through it is trained in the network that it was made of; the projection is not a part of a saved model.
    """

    def __init__(self, network: Network, teacher: Network, match: Match, seed: int = 0) -> None:
        super().__init__(network.config, network.encoder, network.head, network.kind)
        self.project: nn.Module = nn.Identity()
        if match.hidden is not None and network.config.width != teacher.config.width:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.project = Linear(network.config.width, teacher.config.width)
                initialise(self.project, 1 / math.sqrt(network.config.width))
            self.project.to(next(network.parameters()).device)


class DistilledWords(nn.Module):
    """Masked words, learned from the text and from a teacher that reads the same batch.

    everywhere: the teacher's probabilities are learned at all tokens, as DistilBERT's code does; else at the masked ones.
    soft: whether they are learned at all; without, its head is not asked.
    """

    def __init__(
        self,
        network: Network,
        teacher: Teacher,
        match: Match,
        *,
        temperature: float,
        everywhere: bool,
        soft: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.learner = Learner(network, teacher.network, match, seed)
        self.network_of = (network,)  # in a tuple: its parts are the learner's
        self.teacher, self.match = teacher, match
        self.temperature, self.everywhere, self.soft = temperature, everywhere, soft
        if isinstance(network.head, PretrainingHead):
            network.head.pair.requires_grad_(False)

    def forward(self, batch: Corrupted) -> dict[str, Sum]:
        """The sums by objective: "mlm", "soft", and those of the match."""
        packed = batch.packed
        mine = trace(self.learner.encoder, packed, self.match.of_student())
        theirs = self.teacher.trace(packed, self.match.of_teacher(self.teacher))
        found = self._words(batch, mine.states[-1], theirs.states[-1])
        return found | self.match.losses(mine, theirs, packed.layout, self.learner.project)

    def _words(self, batch: Corrupted, mine_TD: Tensor, theirs_TD: Tensor) -> dict[str, Sum]:
        """The sums of "mlm" and "soft"."""
        packed, rows, targets = batch.packed, batch.chosen, batch.targets
        if not self.soft:
            return {"mlm": Sum(*_words(self.learner).loss(mine_TD, rows, targets))}
        if self.everywhere:
            targets = torch.full_like(packed.ids, -1).index_copy(0, rows, targets)
            rows = torch.arange(len(targets), device=targets.device)
        words, other = _words(self.learner), _words(self.teacher.network)
        parts = []
        for some, wanted in zip(rows.split(ROWS), targets.split(ROWS), strict=True):
            with torch.no_grad():
                logits_MV = other(theirs_TD, some)
            x_MD = words.transform(mine_TD[some])
            parts.append(
                torch.stack(
                    TaughtVocabularyLoss.apply(  # type: ignore[no-untyped-call]
                        x_MD, words.table[0].weight, words.bias, wanted, logits_MV, self.temperature
                    )
                )
            )
        loss, right, soft, agreed = torch.stack(parts).sum(0) if parts else mine_TD.new_zeros(4).float()
        return {"mlm": Sum(loss, right), "soft": Sum(soft, agreed)}

    def kept(self) -> Network:
        """What is saved at the end."""
        return self.network_of[0]


def _words(network: Network) -> MaskedLMHead:
    head = network.head.masked_lm if isinstance(network.head, PretrainingHead) else network.head
    assert isinstance(head, MaskedLMHead)
    return head


@dataclass(frozen=True)
class Distillation:
    """A task learned from labels and from a teacher: `(network, batch, weights) -> (sum, weight)`, as a task's `learn`.

    The batch has the teacher's logits (`Batch.theirs`). hard, soft, hidden, relations: what each loss counts for. A loss
    over tokens counts as much as one over answers, `answers_a_token` for each: sums stay exact however a batch is divided.
    """

    task: Supervised
    hard: float
    soft: float
    temperature: float
    match: Match
    hidden: float = 0.0
    relations: float = 0.0
    teacher: Teacher | None = None
    answers_a_token: float = 1.0

    def __call__(self, network: Network, batch: Batch, weights_C: Tensor | None) -> tuple[Tensor, Tensor]:
        packed, task = batch.packed, self.task
        mine = trace(network.encoder, packed, self.match.of_student()) if self.match.any else None
        rows = task.rows(network, network.encoder(packed) if mine is None else mine.states[-1], packed.layout)
        total, count = task.loss(rows, batch, weights_C)
        total = total * self.hard
        if self.soft:
            assert batch.theirs is not None
            soft, count = task.taught(rows, batch.theirs, batch, self.temperature)
            total = total + self.soft * soft
        if mine is not None:
            assert self.teacher is not None and isinstance(network, Learner)
            theirs = self.teacher.trace(packed, self.match.of_teacher(self.teacher))
            found = self.match.losses(mine, theirs, packed.layout, network.project)
            for name, weight in (("hidden", self.hidden), ("relations", self.relations)):
                if name in found:
                    total = total + weight * self.answers_a_token * found[name].loss
        return total, count
