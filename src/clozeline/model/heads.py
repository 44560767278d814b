"""Heads: what stands on the encoder for one task. Each takes the (T, D) states and says what it returns."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clozeline.batch import Layout
from clozeline.config import EncoderConfig
from clozeline.model import onednn
from clozeline.model.dropout import Dropout
from clozeline.model.encoder import Encoder
from clozeline.model.layers import ACTIVATIONS, Embedding, LayerNorm, Linear, freeze


class Pooler(nn.Module):
    """The first token of each sequence through a dense layer and tanh (BERT's pooled output), (T, D) -> (S, D)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width)

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        return torch.tanh(self.dense(layout.first(x_TD)))


class SequenceHead(nn.Module):
    """One score for each class and sequence, from the pooled output: (T, D) -> (S, C) logits in fp32."""

    def __init__(self, config: EncoderConfig, classes: int) -> None:
        super().__init__()
        self.pooler = Pooler(config)
        self.dropout = Dropout(config.dropout if config.head_dropout is None else config.head_dropout)
        self.classifier = Linear(config.width, classes)

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        return self.classifier(self.dropout(self.pooler(x_TD, layout))).float()


class NextSentenceHead(nn.Module):
    """Does the second text follow the first? (T, D) -> (S, 2) logits in fp32: class 0 "it follows", 1 "it does not"."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pooler = Pooler(config)
        self.classifier = Linear(config.width, 2)

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        return self.classifier(self.pooler(x_TD, layout)).float()


class MaskedLMHead(nn.Module):
    """A score for each word of the vocabulary at the chosen tokens only: (T, D), (M,) -> (M, V) logits in fp32.

    The output matrix is the token table itself (tied); the head owns a bias and a dense, activation, norm transform.
    """

    def __init__(self, config: EncoderConfig, table: Embedding) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.activate = ACTIVATIONS[config.activation]
        self.table = (table,)  # in a tuple: the table's weight belongs to the encoder

    def forward(self, x_TD: Tensor, chosen_M: Tensor) -> Tensor:
        x_MD = self.norm(self.activate(self.dense(x_TD[chosen_M])))
        (table,) = self.table
        return nn.functional.linear(x_MD, table.weight.to(x_MD.dtype), self.bias.to(x_MD.dtype)).float()


class Network(nn.Module):
    """An encoder and the head that stands on it, or none: what a checkpoint folder holds, in fp32."""

    def __init__(self, config: EncoderConfig, encoder: Encoder, head: nn.Module | None) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = head

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
        here = next(self.parameters()).device == device
        shared = {id(parameter): parameter for parameter in self.parameters()} if here else {}
        twin = copy.deepcopy(self, shared)
        for part in twin.modules():
            if isinstance(part, Linear) and dtype != part.weight.dtype:
                part.weight = nn.Parameter(part.weight.detach().to(dtype))
                part.bias = None if part.bias is None else nn.Parameter(part.bias.detach().to(dtype))
        twin.encoder.compute_dtype = dtype
        return twin.to(device).eval()
