"""Masked language modelling: which word stood here? (Devlin et al. 2019, the cloze task of Taylor 1953.)"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import Packed
from clozeline.errors import InputError
from clozeline.model.heads import MaskedLMHead, Network
from clozeline.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Filled:
    """A word for a mask. token: as the vocabulary has it; text: the whole text with the token in place."""

    token: str
    score: float
    text: str


@dataclass(frozen=True)
class MaskedLM:
    """Predict the token at each chosen place from both sides of it."""

    head: str = field(default="masked_lm", init=False)

    def raw(self) -> dict[str, Any]:
        """What `config.json` keeps of the task: nothing."""
        return {}

    def logits(self, network: Network, batch: Packed, chosen_M: Tensor) -> Tensor:
        """(M, V) fp32 logits at the chosen tokens (indices into the batch's T); the others cost nothing."""
        assert isinstance(network.head, MaskedLMHead)
        logits_MV: Tensor = network.head(network.encoder(batch), chosen_M)
        return logits_MV

    def loss(self, logits_MV: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy over the chosen tokens, and their number."""
        return F.cross_entropy(logits_MV, targets_M, reduction="sum"), targets_M.new_tensor(len(targets_M)).float()

    @torch.inference_mode()
    def fill(
        self, network: Network, tokenizer: Tokenizer, text: str, top: int, device: torch.device
    ) -> list[list[Filled]]:
        """The `top` most probable tokens for each mask in the text, best first.

        Raises:
            InputError: the vocabulary has no mask token, or the text has none of them or more tokens than the model reads.
        """
        if top < 1:
            raise InputError(f"top is {top}; ask for at least 1 word.")
        if tokenizer.mask_id is None:
            raise InputError("The tokenizer has no mask token, so there is nothing to fill.")
        ids = tokenizer.encode([text], long="error")[0].sequences[0].ids
        places = np.flatnonzero(ids == tokenizer.mask_id)
        if not len(places):
            raise InputError(
                f"The text has no {tokenizer.token(tokenizer.mask_id)}; put it where a word is to be found."
            )
        logits = self.logits(network, Packed.of([ids]).to(device), torch.from_numpy(places).to(device))
        scores, tokens = torch.softmax(logits, -1).topk(min(top, logits.shape[1]))
        filled: list[list[Filled]] = []
        for place, row, found in zip(places.tolist(), scores.tolist(), tokens.tolist(), strict=True):
            options = []
            for score, token in zip(row, found, strict=True):
                full = ids.copy()
                full[place] = token
                options.append(Filled(tokenizer.token(token), score, tokenizer.decode(full)))
            filled.append(options)
        return filled
