"""Heads: what stands on the encoder for one task. Each takes the (T, D) states and says what it returns."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from clozeline.batch import Layout
from clozeline.config import EncoderConfig
from clozeline.model import onednn
from clozeline.model.dropout import Dropout
from clozeline.model.encoder import Encoder
from clozeline.model.layers import ACTIVATIONS, Embedding, LayerNorm, Linear, freeze
from clozeline.model.vocabulary import Space, VocabularyLoss


class Pooler(nn.Module):
    """One vector for each sequence: what it picks, dropout, a dense layer, an activation, perhaps a norm, (T, D) -> (S, D).

    As it is by default, BERT's: the first token, tanh. The configuration's `pool` may pick the mean over the tokens instead.
    """

    def __init__(self, config: EncoderConfig, activation: str = "tanh", *, drop: float = 0, norm: bool = False) -> None:
        super().__init__()
        self.pick = Layout.mean if config.pool == "mean" else Layout.first
        self.dropout = Dropout(drop)
        self.dense = Linear(config.width, config.width, bias=config.block.bias)
        self.activate = ACTIVATIONS[activation]
        self.norm = LayerNorm(config.width, eps=config.norm_eps, bias=config.block.bias) if norm else nn.Identity()

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        return self.norm(self.activate(self.dense(self.dropout(self.pick(layout, x_TD)))))


class Transform(nn.Module):
    """A dense layer, an activation, perhaps a norm, before a head's last map: (n, D) -> (n, width); None keeps the width."""

    def __init__(self, config: EncoderConfig, activation: str, *, norm: bool = False, width: int | None = None) -> None:
        super().__init__()
        bias, width = config.block.bias, width or config.width
        self.dense = Linear(config.width, width, bias=bias)
        self.activate = ACTIVATIONS[activation]
        self.norm = LayerNorm(width, eps=config.norm_eps, bias=bias) if norm else nn.Identity()

    def forward(self, x_nD: Tensor) -> Tensor:
        return self.norm(self.activate(self.dense(x_nD)))


class SequenceHead(nn.Module):
    """One score for each class and sequence: (T, D) -> (S, C) logits in fp32. dropout: None drops as the configuration says.

    Of classes, of whether a second text follows (next sentence: class 0 "it follows", 1 "it does not"; sentence order:
    0 "in order", 1 "swapped"), or of one choice among several, each a sequence of its own (C = 1).
    """

    def __init__(self, config: EncoderConfig, classes: int, pooler: Pooler, dropout: float | None = None) -> None:
        super().__init__()
        self.pooler = pooler
        self.dropout = Dropout(head_dropout(config) if dropout is None else dropout)
        self.classifier = Linear(config.width, classes)

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        return self.classifier(self.dropout(self.pooler(x_TD, layout))).float()


class TokenHead(nn.Module):
    """One score for each class and token: (T, D) -> (T, C) logits in fp32.

    For spans C is 2: does an answer start here, does it end here? For detection it is 1: was this token replaced?
    """

    def __init__(self, config: EncoderConfig, classes: int, *, drop: float, transform: Transform | None = None) -> None:
        super().__init__()
        self.transform = nn.Identity() if transform is None else transform
        self.dropout = Dropout(drop)
        self.classifier = Linear(config.width, classes)

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        return self.classifier(self.dropout(self.transform(x_TD))).float()


class MaskedLMHead(nn.Module):
    """A score for each word of the vocabulary at the chosen tokens only: (T, D), (M,) -> (M, V) logits in fp32.

    The output matrix is the token table itself (tied); the head owns a bias and a dense, activation, norm transform.
    """

    def __init__(self, config: EncoderConfig, table: Embedding, activation: str) -> None:
        super().__init__()
        self.transform = Transform(config, activation, norm=True, width=config.table_width)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.table = (table,)  # in a tuple: the table's weight belongs to the encoder
        self.space: Space | None = None

    def reuse_memory(self) -> None:
        """For training on a CPU, see `VocabularyLoss`: the table's gradient is added up in place from then on."""
        self.space, self.table[0].sparse = Space(), True

    def forward(self, x_TD: Tensor, chosen_M: Tensor) -> Tensor:
        x_MD = self.transform(x_TD[chosen_M])
        (table,) = self.table
        return nn.functional.linear(x_MD, table.weight.to(x_MD.dtype), self.bias.to(x_MD.dtype)).float()

    def loss(self, x_TD: Tensor, chosen_M: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy at the chosen tokens, and how many are found; logits are never all there in fp32."""
        (table,) = self.table
        x_MD = self.transform(x_TD[chosen_M])
        found: tuple[Tensor, Tensor] = VocabularyLoss.apply(  # type: ignore[no-untyped-call]
            x_MD, table.weight, self.bias, targets_M, torch.is_grad_enabled(), self.space
        )
        return found


class PretrainingHead(nn.Module):
    """Masked words and pairs of texts together, as BERT and ALBERT were trained: (T, D), (M,) -> (M, V), (S, 2)."""

    def __init__(self, masked_lm: MaskedLMHead, pair: SequenceHead) -> None:
        super().__init__()
        self.masked_lm = masked_lm
        self.pair = pair

    def forward(self, x_TD: Tensor, layout: Layout, chosen_M: Tensor) -> tuple[Tensor, Tensor]:
        return self.masked_lm(x_TD, chosen_M), self.pair(x_TD, layout)


def head_dropout(config: EncoderConfig) -> float:
    """The rate before a task's last map."""
    return config.dropout if config.head_dropout is None else config.head_dropout


class Network(nn.Module):
    """An encoder and the head that stands on it, or none: what a checkpoint folder holds, in fp32.

    kind: which of its family's heads it is.
    """

    def __init__(
        self, config: EncoderConfig, encoder: Encoder, head: nn.Module | None, kind: str | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.kind = None if head is None else kind
        self.encoder = encoder
        self.head = head

    @torch.no_grad()
    def grow(self, parts: Mapping[int, Sequence[int]]) -> None:
        """Give new token ids rows in the table, and in a masked-LM head, in place: each the mean of its parts' rows.

        parts: new id -> ids of the tokens that the word was read as before. Rows that no id had yet are used first.
        """
        if (vocab_size := max([*(at + 1 for at in parts), self.config.vocab_size])) > self.config.vocab_size:
            self.config = self.encoder.config = self.config.replace(vocab_size=vocab_size)
        table = self.encoder.embedding.tokens
        table.num_embeddings = vocab_size
        table.weight = _grown(table.weight, parts, vocab_size)
        for part in self.modules():
            if isinstance(part, MaskedLMHead):
                part.bias = _grown(part.bias, parts, vocab_size)

    def freeze(self) -> None:
        """Make a twin that will only predict faster, in place, by packing its weights; it cannot be trained any more.

        Not the head's: it reads as many rows as a batch has texts, which are too many shapes to compile a kernel for each.
        """
        if next(self.parameters()).device.type == "cpu" and onednn.available(self.encoder.compute_dtype):
            freeze(self.encoder)
            self.encoder.few_sizes = True

    def twin(self, dtype: torch.dtype, device: torch.device) -> Network:
        """A network that computes in `dtype` on `device`: its linear maps are copies in `dtype`, the rest is fp32.

        Tables and norms are shared with this network where it is on that device already. It is in evaluation mode.
        """
        return twin(self, dtype, device)


Made = TypeVar("Made", bound=nn.Module)


def twin(module: Made, dtype: torch.dtype, device: torch.device) -> Made:
    """A copy of a module of bricks that computes in `dtype` on `device`, see `Network.twin`."""
    here = next(module.parameters()).device == device
    shared = {id(parameter): parameter for parameter in module.parameters()} if here else {}
    copied = copy.deepcopy(module, shared)
    for part in copied.modules():
        if isinstance(part, Linear) and dtype != part.weight.dtype:
            part.weight = nn.Parameter(part.weight.detach().to(dtype))
            part.bias = None if part.bias is None else nn.Parameter(part.bias.detach().to(dtype))
        if isinstance(part, Encoder):
            part.compute_dtype = dtype
    return copied.to(device).eval()


def _grown(rows: Tensor, parts: Mapping[int, Sequence[int]], size: int) -> nn.Parameter:
    new = rows.new_zeros(size, *rows.shape[1:])
    new[: len(rows)] = rows
    for at, pieces in parts.items():
        new[at] = rows[list(pieces)].mean(0)
    return nn.Parameter(new)
