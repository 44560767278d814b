"""What a model learns from raw text: masked words, what follows what, and which tokens a generator has replaced.

Each module here holds the networks of its objectives and gives, for a batch, the summed loss of each and how many answers
are right, so that batches of unequal parts add up exactly.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeline.batch import Packed
from clozeline.config import Learned
from clozeline.data.documents import UNKNOWN
from clozeline.data.pretraining import Corrupted
from clozeline.errors import InputError
from clozeline.families.family import Family
from clozeline.model.encoder import initialise
from clozeline.model.heads import MaskedLMHead, Network, PretrainingHead, SequenceHead, TokenHead, Transform
from clozeline.model.layers import Embedding


class Sum(NamedTuple):
    """Of one objective over a batch: the summed loss, and how many answers are right, both 0-d."""

    loss: Tensor
    right: Tensor


class MaskedAndPairs(nn.Module):
    """Masked words (Devlin et al. 2019), pairs of segments (next sentence there, order in Lan et al. 2020), or both.

    pairs: what the pair objective is called, "nsp" or "sop"; None leaves it out.
    """

    def __init__(self, network: Network, *, masked: bool, pairs: str | None) -> None:
        super().__init__()
        self.network, self.masked, self.pairs = network, masked, pairs
        if isinstance(network.head, PretrainingHead):  # what is not trained stays as it is, decay included
            network.head.masked_lm.requires_grad_(masked)
            network.head.pair.requires_grad_(pairs is not None)

    def forward(self, batch: Corrupted) -> dict[str, Sum]:
        """The sums by objective, of none too: each pass gives every parameter a gradient, if only of zeros."""
        head, found = self.network.head, {}
        x_TD = self.network.encoder(batch.packed)
        if self.masked:
            words = head.masked_lm if isinstance(head, PretrainingHead) else head
            assert isinstance(words, MaskedLMHead)
            found["mlm"] = Sum(*words.loss(x_TD, batch.chosen, batch.targets))
        if self.pairs is not None:
            pair, layout = head.pair if isinstance(head, PretrainingHead) else head, batch.packed.layout
            assert isinstance(pair, SequenceHead)
            labels = batch.packed.ids.new_full((len(layout.lengths),), UNKNOWN) if batch.pairs is None else batch.pairs
            found[self.pairs] = classified(pair(x_TD, layout), labels)
        return found

    def kept(self) -> Network:
        """What is saved at the end."""
        return self.network


class ReplacedTokens(nn.Module):
    """A generator fills the masks with words that fit, the model says of each token whether it was replaced.

    Clark et al. 2020, ELECTRA. The generator's table of tokens is the model's ("shared"), or the model has the generator's
    and what it adds to it, so that its loss changes only that ("disentangled": He et al. 2023, DeBERTa-v3). With "shared"
    positions, segments and the norm of the embedding are shared too, as in ELECTRA's code.
    """

    def __init__(self, generator: Network, discriminator: Network, embeddings: str) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        ours, theirs = discriminator.encoder.embedding, generator.encoder.embedding
        if embeddings == "disentangled":
            with torch.no_grad():
                theirs.tokens.weight.copy_(ours.tokens.weight)
            ours.tokens = Added(theirs.tokens)
        else:
            theirs.tokens = ours.tokens
            assert isinstance(generator.head, MaskedLMHead)
            generator.head.table = (ours.tokens,)
            theirs.segments, theirs.norm = ours.segments, ours.norm
            if isinstance(discriminator.config.positions, Learned):
                theirs.positions = ours.positions

    def forward(self, batch: Corrupted) -> dict[str, Sum]:
        """The sums by objective: "mlm" is the generator's loss, "rtd" the model's over all tokens."""
        head, packed = self.discriminator.head, batch.packed
        assert isinstance(self.generator.head, MaskedLMHead) and isinstance(head, TokenHead)
        logits_MV = self.generator.head(self.generator.encoder(packed), batch.chosen)
        with torch.no_grad():  # a word drawn by its probability: the largest of p / e, with e exponential
            drawn = torch.argmax(logits_MV.softmax(-1) / torch.empty_like(logits_MV).exponential_(), -1)
        ids = packed.ids.index_copy(0, batch.chosen, drawn)
        replaced = torch.zeros(len(ids), device=ids.device).index_copy(
            0, batch.chosen, (drawn != batch.targets).float()
        )
        filled = Packed(ids, packed.layout, packed.segments)
        scores = head(self.discriminator.encoder(filled), packed.layout)[:, 0]
        loss = F.binary_cross_entropy_with_logits(scores, replaced, reduction="sum")
        right = ((scores > 0) == replaced.bool()).sum()
        return {
            "mlm": classified(logits_MV, batch.targets),
            "rtd": Sum(loss, right),
        }

    @torch.no_grad()
    def kept(self) -> Network:
        """The discriminator, with a table of its own; without its head where its family has no place for it on disk."""
        network = self.discriminator
        tokens = network.encoder.embedding.tokens
        if isinstance(tokens, Added):
            network = copy.deepcopy(network)
            network.encoder.embedding.tokens = Embedding(*tokens.weight.shape)
            network.encoder.embedding.tokens.weight.copy_(tokens.base[0].weight + tokens.weight)
        return network if network.kind else Network(network.config, network.encoder, None)


class Added(Embedding):
    """A table that stands on another one, whose rows it takes as they are: what is learned is what it adds, from zero."""

    def __init__(self, base: Embedding) -> None:
        super().__init__(*base.weight.shape)
        self.base = (base,)  # in a tuple: it belongs to another network
        nn.init.zeros_(self.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.base[0].weight.detach()) + super().forward(ids)


def head_for(family: Family, *, masked: bool, pairs: str | None) -> str:
    """The kind of head that these objectives need.

    Raises:
        InputError: the family has none for pairs of segments.
    """
    wanted = "masked_lm" if pairs is None else "pretraining" if masked else "next_sentence"
    if wanted not in family.heads:
        raise InputError(
            f"{family.name} has no head for pairs of segments, so it cannot learn {pairs}; BERT and ALBERT have one."
        )
    return wanted


def replaced_tokens(
    family: Family, network: Network, *, generator: float, embeddings: str, seed: int
) -> ReplacedTokens:
    """The model and a fresh generator of the same family, `generator` of its width; both begin with the model's embeddings.

    A family without a head for replaced tokens gets one for the training.
    """
    config = network.config
    heads = max(1, round(config.heads * generator))
    small = config.replace(
        heads=heads,
        width=heads * config.head_width,
        ffn_width=max(1, round(config.ffn_width * generator)),
        embedding_width=None if heads == config.heads and not config.embedding_width else config.table_width,
        block=dataclasses.replace(config.block, pruned=()),
    )
    made = family.build(small, "masked_lm", seed=seed + 1)
    if "replaced_token" not in family.heads:
        transform = Transform(config, config.activation)
        network.head, network.kind = TokenHead(config, 1, drop=0, transform=transform), None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            initialise(network.head, config.init_std)
    return ReplacedTokens(made, network, embeddings)


def classified(logits_nC: Tensor, targets_n: Tensor) -> Sum:
    """The cross-entropy of rows whose target is a class; those with UNKNOWN say nothing."""
    loss = F.cross_entropy(logits_nC, targets_n, reduction="sum", ignore_index=UNKNOWN)
    return Sum(loss, (logits_nC.argmax(-1) == targets_n).sum())
