"""Position schemes. One brick says everything about how a model knows the order of its tokens.

A scheme may act in three places, each a hook that does nothing by default: add to the embedding (learned), turn queries and
keys (rotary), or bias the attention scores (disentangled, bucketed). A family picks one scheme by its configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clozeline import config as schemes
from clozeline.batch import Layout
from clozeline.config import EncoderConfig
from clozeline.model.dropout import Dropout
from clozeline.model.kernels import ScoreBias
from clozeline.model.layers import Embedding, LayerNorm

Project = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(R, D) -> (R, N, H) twice: rows through the projections to queries and to keys of a layer."""


class Positions(nn.Module):
    """The base scheme: no notion of order at all.

    products: how many products of queries or keys a score is the sum of; biased: whether `bias` gives anything.
    """

    products: int = 1
    biased: bool = False

    def embed(self, layout: Layout) -> Tensor | None:
        """What to add to the token embeddings, (T, D), or None."""
        return None

    def turn(self, q_TNH: Tensor, k_TNH: Tensor, layout: Layout, *, local: bool) -> tuple[Tensor, Tensor]:
        """Queries and keys with their positions turned in. Either may have spare rows behind the layout's tokens.

        local: the layer sees a window only.
        """
        return q_TNH, k_TNH

    def bias(self, project: Project, layout: Layout) -> ScoreBias | None:
        """What to add to the attention scores of a layer with this projection, or None."""
        return None


class Learned(Positions):
    """A table with one row for each position (BERT): positions beyond `max_length` do not exist."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        assert isinstance(config.positions, schemes.Learned | schemes.Bucketed)
        self.offset = config.positions.offset
        self.table = Embedding(config.max_length + self.offset, config.table_width)

    def embed(self, layout: Layout) -> Tensor:
        assert layout.longest + self.offset <= self.table.num_embeddings, "a sequence is longer than the position table"
        return self.table(layout.positions + self.offset if self.offset else layout.positions)

    def repeated(self, rows: Tensor, known: int) -> Tensor:
        """The table's rows with those of positions from `known` on as copies of the ones before (Beltagy et al. 2020, §5).

        Not of the first one, where [CLS] always is.
        """
        rows = rows.clone()
        behind = torch.arange(known, len(rows) - self.offset, device=rows.device)
        rows[self.offset + behind] = rows[self.offset + 1 + (behind - 1) % (known - 1)]
        return rows


class Rotary(Positions):
    """Queries and keys turned by angles that grow with the position (Su et al. 2021), a head's halves being the pairs.

    Angles are fp32 whatever the model computes in, as in the reference: bfloat16's steps at position 8,000 are of 32.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        assert isinstance(config.positions, schemes.Rotary)
        self.theta, self.local_theta = config.positions.theta, config.positions.local_theta
        self.pairs = config.head_width // 2
        self.max_length = config.max_length

    def turn(self, q_TNH: Tensor, k_TNH: Tensor, layout: Layout, *, local: bool) -> tuple[Tensor, Tensor]:
        assert layout.longest <= self.max_length, "a sequence is longer than the model reads"
        theta = self.local_theta if local else self.theta
        turns = layout.once(("rotary", theta, self.pairs, len(q_TNH)), lambda: self._turns(theta, layout, len(q_TNH)))
        return _turned(q_TNH, *turns), _turned(k_TNH, *turns)

    def _turns(self, theta: float, layout: Layout, rows: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (rows, 1, H / 2); those of spare rows turn nothing."""
        steps = torch.arange(self.pairs, dtype=torch.float32, device=layout.positions.device) * 2
        frequency = 1.0 / (theta ** (steps / (2 * self.pairs)))
        at = nn.functional.pad(layout.positions, (0, rows - layout.tokens)).float()
        angle = at[:, None, None] * frequency
        return angle.cos(), angle.sin()


def _turned(x_TNH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x_TNH.to(torch.promote_types(x_TNH.dtype, torch.float32)).chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x_TNH.dtype)


class Disentangled(Positions):
    """Scores of content against relative position, and of relative position against content (He et al. 2021, DeBERTa).

    With d(i, j) the bucket of the distance from token j to token i, and P the rows of a table through the layer's own
    projections, a score is q_i k_j + q_i Pk_d(i,j) + k_j Pq_d(i,j), over the root of H times the number of its parts.
    """

    biased = True

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        scheme = config.positions
        assert isinstance(scheme, schemes.Disentangled)
        self.span, self.buckets, self.reach = scheme.span, scheme.buckets, scheme.reach
        self.parts = [_content_to_position] * scheme.content_to_position
        self.parts += [_position_to_content] * scheme.position_to_content
        self.max_length = config.max_length
        self.table = Embedding(2 * scheme.span, config.width)
        self.norm = LayerNorm(config.width, eps=config.norm_eps) if scheme.norm else nn.Identity()
        self.dropout = Dropout(config.dropout)
        self.products = 1 + len(self.parts)

    def bias(self, project: Project, layout: Layout) -> ScoreBias:
        assert layout.longest <= self.max_length, "a sequence is longer than the model reads"
        # rows for a few lengths only, because oneDNN compiles a kernel for each new shape
        key = ("distances", self.span, self.buckets, self.reach)
        low, high, bucket = layout.once(key, lambda: self._buckets(-(-layout.longest // 64) * 64))
        rows = project(self.dropout(self.norm(self.table.weight[low : high + 1])))
        scale = 1 / math.sqrt(rows[0].shape[-1] * self.products)
        q_RNH, k_RNH = (row * scale for row in rows)
        middle = len(bucket) // 2

        def scores(q: Tensor, k: Tensor) -> Tensor:
            length = q.shape[2]
            rising = bucket[middle - length + 1 : middle + length] - low  # for distances from 1 - L to L - 1
            found = [part(q, k, q_RNH, k_RNH, rising) for part in self.parts]
            return sum(found[1:], found[0])

        return scores

    def _buckets(self, longest: int) -> tuple[int, int, Tensor]:
        """The table's row for each distance from 1 - longest to longest - 1, after the first and the last of them.

        Ascending; the steps are as published, and computed in fp32 as they are there.
        """
        distance = torch.arange(1 - longest, longest)
        span, middle = self.span, self.span // 2
        if self.buckets:
            size = distance.abs().clamp(min=middle).float()
            far = torch.log(size / middle) / torch.log(torch.tensor((self.reach - 1) / middle)) * (middle - 1)
            distance = torch.where(distance.abs() <= middle, distance, (far.ceil().long() + middle) * distance.sign())
        rows = (distance + span).clamp(0, 2 * span - 1)
        return int(rows[0]), int(rows[-1]), rows.to(self.table.weight.device)


def _content_to_position(q: Tensor, k: Tensor, q_RNH: Tensor, k_RNH: Tensor, rising: Tensor) -> Tensor:
    """(n, N, L, L), each query with the key of the distance to each token."""
    return _along(q @ k_RNH[rising.flip(0)].permute(1, 2, 0))


def _position_to_content(q: Tensor, k: Tensor, q_RNH: Tensor, k_RNH: Tensor, rising: Tensor) -> Tensor:
    """(n, N, L, L), each key with the query of the distance to each token."""
    return _along(k @ q_RNH[rising].permute(1, 2, 0)).transpose(2, 3)


def _along(x: Tensor) -> Tensor:
    """(n, N, L, 2 L - 1) by distance to (n, N, L, L) by position: row i begins at L - 1 - i. A view of contiguous values."""
    x = x.contiguous()
    *rest, length, width = x.shape
    strides = (*x.stride()[:-2], width - 1, 1)
    return x.as_strided((*rest, length, length), strides, x.storage_offset() + length - 1)


class Bucketed(Learned):
    """A learned table, and one score for each head and bucket of distance, the same in every layer (MPNet, after T5)."""

    FARTHEST = 128
    biased = True

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        assert isinstance(config.positions, schemes.Bucketed)
        self.scores = Embedding(config.positions.buckets, config.heads)

    def bias(self, project: Project, layout: Layout) -> ScoreBias:
        bucket = layout.once(("buckets", self.scores.num_embeddings), lambda: self._buckets(layout.longest))
        middle = layout.longest - 1

        def scores(q: Tensor, k: Tensor) -> Tensor:
            length = q.shape[2]
            values = self.scores(bucket[middle - length + 1 : middle + length]).T.to(q.dtype)
            return values.unfold(1, length, 1).flip(1)[None]

        return scores

    def _buckets(self, longest: int) -> Tensor:
        """The table's row for each distance (of the token seen from the one that looks) from 1 - longest to longest - 1."""
        distance = torch.arange(1 - longest, longest)
        side = self.scores.num_embeddings // 2
        exact = side // 2
        size = distance.abs()
        far = torch.log(size.clamp(min=1).float() / exact) / math.log(self.FARTHEST / exact) * (side - exact)
        steps = torch.where(size < exact, size, (exact + far.long()).clamp(max=side - 1))
        return (steps + side * (distance > 0)).to(self.scores.weight.device)


SCHEMES: dict[type, type[Positions]] = {
    schemes.Learned: Learned,
    schemes.Rotary: Rotary,
    schemes.Disentangled: Disentangled,
    schemes.Bucketed: Bucketed,
}


def build(config: EncoderConfig) -> Positions:
    """The scheme that the configuration asks for."""
    make: Callable[[EncoderConfig], Positions] = SCHEMES[type(config.positions)]
    return make(config)
