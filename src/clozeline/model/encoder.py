"""The encoder, and how its bricks fit together. Every family is this file with other data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clozeline.batch import Layout, Packed
from clozeline.config import EncoderConfig
from clozeline.model.attention import Attention
from clozeline.model.dropout import Dropout
from clozeline.model.layers import ACTIVATIONS, Convolve, Embedding, FeedForward, GatedFeedForward, LayerNorm, Linear
from clozeline.model.positions import Positions, build


class TokenEmbedding(nn.Module):
    """Token, position and segment rows, summed and normalised: batch -> (T, D) in `compute_dtype`.

    A table narrower than the encoder is widened by a linear map (Lan et al. 2020, ALBERT).
    """

    def __init__(self, config: EncoderConfig, positions: Positions) -> None:
        super().__init__()
        width = config.table_width
        self.tokens = Embedding(config.vocab_size, width)
        self.segments = Embedding(config.segments, width) if config.segments else None
        self.positions = positions
        self.norm = LayerNorm(width, eps=config.norm_eps, bias=config.block.bias)
        self.dropout = Dropout(config.dropout if "embedding" in config.block.dropped else 0)
        self.widen = Linear(width, config.width) if config.embedding_width else nn.Identity()
        self.compute_dtype: torch.dtype | None = None

    def forward(self, batch: Packed) -> Tensor:
        x_TD = self.tokens(batch.ids)
        if self.segments is not None:
            x_TD = x_TD + (self.segments.weight[0] if batch.segments is None else self.segments(batch.segments))
        if (placed := self.positions.embed(batch.layout)) is not None:
            x_TD = x_TD + placed
        return self.widen(self.dropout(self.norm(x_TD.to(self.compute_dtype or x_TD.dtype))))


class Layer(nn.Module):
    """Attention, then feed-forward, each added to what came in and normalised after (post-norm), (T, D) -> (T, D)."""

    def __init__(self, config: EncoderConfig, positions: Positions, number: int) -> None:
        super().__init__()
        block, windows = config.block, config.windows
        feed_forward = GatedFeedForward if block.gated else FeedForward
        self.attention = Attention(
            config, positions, windows[number] if windows else None, len(config.kept_heads(number))
        )
        self.attention_norm = LayerNorm(config.width, eps=config.norm_eps, bias=block.bias)
        self.attention_dropout = Dropout(config.dropout if "attention" in block.dropped else 0)
        self.ffn = feed_forward(config.width, config.ffn_width, config.activation, bias=block.bias)
        self.ffn_norm = LayerNorm(config.width, eps=config.norm_eps, bias=block.bias)
        self.ffn_dropout = Dropout(config.dropout if "ffn" in block.dropped else 0)

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        x_TD = self.attention_norm(self.attention_dropout(self.attention(x_TD, layout), onto=x_TD))
        return self.ffn_norm(self.ffn_dropout(self.ffn(x_TD), onto=x_TD))


class PreNormLayer(Layer):
    """The same with norms before attention and feed-forward; the first layer reads what the embedding has normalised."""

    def __init__(self, config: EncoderConfig, positions: Positions, number: int) -> None:
        super().__init__(config, positions, number)
        if number == 0:
            self.attention_norm = nn.Identity()  # type: ignore[assignment]

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        x_TD = self.attention_dropout(self.attention(self.attention_norm(x_TD), layout), onto=x_TD)
        return self.ffn_dropout(self.ffn(self.ffn_norm(x_TD)), onto=x_TD)


class ConvolvedLayer(Layer):
    """A layer with a convolution of its input added to its output (DeBERTa-v2's first)."""

    def __init__(self, config: EncoderConfig, positions: Positions, number: int) -> None:
        super().__init__(config, positions, number)
        assert config.block.convolution is not None
        size, groups, activation = dataclasses.astuple(config.block.convolution)
        self.convolve = Convolve(config.width, size, groups)
        self.activate = ACTIVATIONS[activation]
        self.convolve_norm = LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        near_TD = self.activate(self.ffn_dropout(self.convolve(x_TD, layout)))
        return self.convolve_norm(super().forward(x_TD, layout) + near_TD)


class Encoder(nn.Module):
    """Reads packed tokens, gives one vector for each: `Packed` -> (T, D).

    `compute_dtype` set to bfloat16 computes in bfloat16 over the fp32 weights, as training does; None computes in the
    weights' own dtype. `few_sizes` adds spare rows to a batch on a CPU in fp32 too, as it always does in bfloat16.
    """

    few_sizes = False
    checkpointing = False
    """Keep only what goes into each layer for the backward pass, and compute the rest again (Chen et al. 2016)."""

    def __init__(self, config: EncoderConfig, *, fresh: bool = True) -> None:
        """Fresh weights are drawn from torch's generator; fresh=False leaves them unset, for a checkpoint to fill."""
        super().__init__()
        self.config = config
        block, own = config.block, config.distinct_layers
        positions = build(config)
        kinds = [PreNormLayer if block.norm_first else Layer] * own
        if block.convolution is not None:
            kinds[0] = ConvolvedLayer
        self.embedding = TokenEmbedding(config, positions)
        self.layers = nn.ModuleList(kind(config, positions, number) for number, kind in enumerate(kinds))
        self.order = [number * own // config.layers for number in range(config.layers)]  # ALBERT repeats its layers
        self.norm = LayerNorm(config.width, eps=config.norm_eps, bias=block.bias) if block.norm_first else nn.Identity()
        if fresh:
            initialise(self, config.init_std)

    def forward(self, batch: Packed) -> Tensor:
        for x_TD in self.states(batch):  # noqa: B007  only the last counts, and no other is kept
            pass
        return x_TD

    def states(self, batch: Packed) -> Iterator[Tensor]:
        """The embedding output and then each layer's output: layers + 1 tensors of (T, D), the last being `forward`'s."""
        tokens = batch.layout.tokens
        x_TD = self.embedding(batch)
        if x_TD.device.type == "cpu" and (self.few_sizes or x_TD.dtype == torch.bfloat16):
            x_TD = F.pad(x_TD, (0, 0, 0, _spare_rows(tokens)))
        yield x_TD[:tokens]
        for number in self.order[:-1]:
            x_TD = self._through(number, x_TD, batch.layout)
            yield x_TD[:tokens]
        yield self.norm(self._through(self.order[-1], x_TD, batch.layout))[:tokens]

    def _through(self, number: int, x_TD: Tensor, layout: Layout) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self.layers[number], x_TD, layout, use_reentrant=False)
        return self.layers[number](x_TD, layout)

    @property
    def positions(self) -> Positions:
        """How the model knows the order of its tokens."""
        found = self.embedding.positions
        assert isinstance(found, Positions)
        return found

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.embedding.compute_dtype or self.embedding.tokens.weight.dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype | None) -> None:
        self.embedding.compute_dtype = dtype

    def use_kernel(self, name: str) -> None:
        """Serve every layer's attention with this kernel: "auto", "varlen", "blocks" or "eager"."""
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.attention.kernel = name


def _spare_rows(tokens: int) -> int:
    """Rows that bring a batch to one of few sizes: multiples of 32, or of a sixteenth of the power of two below.

    oneDNN compiles a kernel for each new shape: a (T, 384) x (384, 1536) product took 3.0 ms for a new T and 0.43 ms for
    one seen before. It also keeps a thousand of them, which came to 300 MB over a million texts. Spare rows belong to no
    sequence: attention leaves them out, and nothing reads what becomes of them.
    """
    return -tokens % max(32, 2 ** (tokens.bit_length() - 5))


def initialise(module: nn.Module, std: float) -> None:
    """Fresh weights as published for BERT: matrices from N(0, std), biases 0, norms 1."""
    for part in module.modules():
        if isinstance(part, Linear | Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, LayerNorm):
            nn.init.ones_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for parameter in (parameter for name, parameter in module.named_parameters(recurse=False) if name == "bias"):
        nn.init.zeros_(parameter)  # a bias that stands by itself, as a masked-LM head's does
