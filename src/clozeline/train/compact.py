"""Train only the rows of the token table that the data uses.

A row that no training text names never gets a gradient, so AdamW's moments for it stay zero and its update is pure decay:
w <- w (1 - lr * weight_decay), each step. That product is known in closed form, so such rows need no gradient, no optimiser
state and no pass over memory; they are scaled once when the table is written back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from clozeline.data.packing import Samples
from clozeline.model.layers import Embedding
from clozeline.train.distributed import ALONE, Group

ROWS = 4096  # decayed at a time, in fp64: a whole table in fp64 would cost more memory than training saved


class CompactTable:
    """Stands a table of the used rows in for the full one, in place, until `restore`.

    Only for a table that nothing but the embedding reads: a tied masked-LM head gives every row a gradient.
    """

    def __init__(self, table: Embedding, used: np.ndarray) -> None:
        """used: the token ids that training and validation texts name, ascending."""
        self.table = table
        self.full = table.weight.detach()
        self.used = torch.from_numpy(used.astype(np.int64)).to(self.full.device)
        self.lookup = np.full(len(self.full), -1, dtype=np.int32)
        self.lookup[used] = np.arange(len(used), dtype=np.int32)
        self.decay = 1.0
        self._set(self.full[self.used])
        # a batch names a few hundred rows: their gradients come as such and are laid into a buffer that is zero elsewhere,
        # because allocating and zeroing a table at each step took a tenth of it
        self.table.sparse = True
        self._gradient = torch.zeros_like(self.table.weight)
        self._rows: Tensor | None = None

    def renumber(self, samples: Samples) -> Samples:
        """The same samples with ids that count rows of the compact table."""
        ids = self.lookup[samples.ids]
        assert ids.min(initial=0) >= 0, "a token id that was not named as used"
        return dataclasses.replace(samples, ids=ids)

    def lay_gradient(self, group: Group = ALONE) -> Tensor:
        """Make the table's gradient, summed over the group, dense for the optimiser. Gives its rows that are not zero."""
        weight, values = self.table.weight, None
        if weight.grad is not None:  # a process may have had no examples
            sparse = weight.grad.coalesce()
            self._rows, values = sparse.indices()[0], sparse.values()
            self._gradient[self._rows] = values
        weight.grad = self._gradient
        if group.size > 1:
            group.add([self._gradient])
            self._rows = self._gradient.any(1).nonzero()[:, 0]
            values = self._gradient[self._rows]
        assert values is not None
        return values

    def stepped(self, learning_rate: float, weight_decay: float) -> None:
        """After an optimiser step: clear the gradient, and note the decay of the rows that are not there.

        learning_rate: the table's own.
        """
        if self._rows is not None:
            self._gradient[self._rows] = 0
        self.table.weight.grad = None
        self.decay *= 1 - learning_rate * weight_decay

    def full_table(self) -> Tensor:
        """(V, D) the table as full training would have it now."""
        full = self.full.clone()
        for rows in full.split(ROWS):
            rows.copy_(rows.double() * self.decay)
        full[self.used] = self.table.weight.detach()
        return full

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The full table in place inside the block, for a save, and the compact one back after it."""
        compact = self.table.weight
        try:
            self.table.weight = nn.Parameter(self.full_table(), requires_grad=False)
            yield
        finally:
            self.table.weight = compact

    def restore(self) -> None:
        """Give the embedding its full table back."""
        self._set(self.full_table())
        self.table.sparse = False

    def _set(self, weight: Tensor) -> None:
        self.table.weight = nn.Parameter(weight)
        self.table.num_embeddings = len(weight)
