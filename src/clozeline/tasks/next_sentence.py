"""Next sentence prediction: does the second text follow the first? (Devlin et al. 2019.)"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import Packed
from clozeline.model.heads import Network, PretrainingHead, SequenceHead


@dataclass(frozen=True)
class NextSentence:
    """Tell pairs that follow each other (class 0) from pairs that do not (class 1)."""

    head: str = field(default="next_sentence", init=False)

    def raw(self) -> dict[str, Any]:
        """What `config.json` keeps of the task: nothing."""
        return {}

    def logits(self, network: Network, batch: Packed) -> Tensor:
        """(S, 2) fp32 logits, one row a pair."""
        head = network.head.pair if isinstance(network.head, PretrainingHead) else network.head
        assert isinstance(head, SequenceHead)
        logits_S2: Tensor = head(network.encoder(batch), batch.layout)
        return logits_S2

    def loss(self, logits_S2: Tensor, targets_S: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy over the pairs, and their number."""
        return F.cross_entropy(logits_S2, targets_S, reduction="sum"), targets_S.new_tensor(len(targets_S)).float()
