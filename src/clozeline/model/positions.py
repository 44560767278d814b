"""Position schemes. One brick says everything about how a model knows the order of its tokens.

A scheme may act in three places, each a hook that does nothing by default: add to the embedding (learned, sinusoidal),
turn queries and keys (rotary), or bias the attention scores (disentangled). A family picks one scheme.
"""

from __future__ import annotations

from torch import Tensor, nn

from clozeline.batch import Layout
from clozeline.model.kernels import ScoreBias
from clozeline.model.layers import Embedding


class Positions(nn.Module):
    """The base scheme: no notion of order at all."""

    def embed(self, layout: Layout) -> Tensor | None:
        """What to add to the token embeddings, (T, D), or None."""
        return None

    def turn(self, q_TNH: Tensor, k_TNH: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Queries and keys with their positions turned in. Either may have spare rows behind the layout's tokens."""
        return q_TNH, k_TNH

    def bias(self, layer: int) -> ScoreBias | None:
        """What to add to the attention scores of layer number `layer`, or None."""
        return None


class Learned(Positions):
    """A table with one row for each position (BERT): positions beyond `max_length` do not exist."""

    def __init__(self, max_length: int, width: int) -> None:
        super().__init__()
        self.table = Embedding(max_length, width)

    def embed(self, layout: Layout) -> Tensor:
        assert layout.longest <= self.table.num_embeddings, "a sequence is longer than the position table"
        return self.table(layout.positions)
