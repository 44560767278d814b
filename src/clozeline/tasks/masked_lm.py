"""Masked language modelling: which word stood here? (Devlin et al. 2019, the cloze task of Taylor 1953.)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import Packed
from clozeline.data.packing import by_tokens
from clozeline.errors import InputError
from clozeline.model.heads import MaskedLMHead, Network, PretrainingHead
from clozeline.tokenizer import Tokenizer

TOKENS = 4096
"""Tokens in one forward pass of masked copies of a text."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A word for a mask. token: as the vocabulary has it, or the candidate; text: the whole text with the word in place.

    score: its probability, of one among the vocabulary or, where candidates were given, among them; log_probability: of all
    its pieces together, among the vocabulary.
    """

    token: str
    score: float
    text: str
    log_probability: float


@dataclass(frozen=True)
class MaskedLM:
    """Predict the token at each chosen place from both sides of it."""

    head: str = field(default="masked_lm", init=False)

    def raw(self) -> dict[str, Any]:
        """What `config.json` keeps of the task: nothing."""
        return {}

    def logits(self, network: Network, batch: Packed, chosen_M: Tensor) -> Tensor:
        """(M, V) fp32 logits at the chosen tokens (indices into the batch's T); the others cost nothing."""
        head = network.head.masked_lm if isinstance(network.head, PretrainingHead) else network.head
        assert isinstance(head, MaskedLMHead)
        logits_MV: Tensor = head(network.encoder(batch), chosen_M)
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
        ids, places, _ = _masked(tokenizer, text)
        logits = self.logits(network, Packed.of([ids]).to(device), torch.from_numpy(places).to(device))
        scores, tokens = torch.log_softmax(logits, -1).topk(min(top, logits.shape[1]))
        return [
            [
                Filled(tokenizer.token(token), math.exp(score), _put(tokenizer, ids, place, [token]), score)
                for score, token in zip(row, found, strict=True)
            ]
            for place, row, found in zip(places.tolist(), scores.tolist(), tokens.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def choose(
        self, network: Network, tokenizer: Tokenizer, text: str, candidates: Sequence[str], device: torch.device
    ) -> list[list[Filled]]:
        """The candidates for each mask in the text, best first; words of several pieces too.

        A word of k pieces stands for k masks, filled from left to right: its probability is the product of those of its
        pieces, each given the ones before it. Other masks of the text stay masks.

        Raises:
            InputError: as `fill`; also a candidate that is empty or has no room.
        """
        ids, places, spaced = _masked(tokenizer, text)
        if not candidates:
            raise InputError(
                "There are no candidates; give at least one word, or none at all for the whole vocabulary."
            )
        if twice := [word for at, word in enumerate(candidates) if word in candidates[:at]]:
            raise InputError(f"The candidate {twice[0]!r} is given twice; give each once.")
        found = []
        for place, after_space in zip(places.tolist(), spaced, strict=True):
            pieces = [tokenizer.pieces(word, after_space=after_space) for word in candidates]
            for word, parts in zip(candidates, pieces, strict=True):
                if not parts or not word.strip():
                    raise InputError(f"The candidate {word!r} has no tokens; give words.")
                if tokenizer.max_length is not None and len(ids) + len(parts) - 1 > tokenizer.max_length:
                    raise InputError(
                        f"The candidate {word!r} does not fit into the {tokenizer.max_length} tokens of the model."
                    )
            logs = self._joint(network, ids, place, pieces, tokenizer.mask_id, device)
            shares = torch.softmax(torch.tensor(logs), 0).tolist()
            filled = [
                Filled(word, share, _put(tokenizer, ids, place, parts), log)
                for word, parts, share, log in zip(candidates, pieces, shares, logs, strict=True)
            ]
            found.append(sorted(filled, key=lambda one: -one.log_probability))
        return found

    def _joint(
        self,
        network: Network,
        ids: np.ndarray,
        place: int,
        pieces: list[list[int]],
        mask: int | None,
        device: torch.device,
    ) -> list[float]:
        """The log probability of each word's pieces at a place."""
        logs = [0.0] * len(pieces)
        for at in range(max(map(len, pieces))):
            longer = [number for number, parts in enumerate(pieces) if len(parts) > at]
            filled = [[*pieces[number][:at], *[mask] * (len(pieces[number]) - at)] for number in longer]
            rows = [np.concatenate([ids[:place], parts, ids[place + 1 :]]) for parts in filled]
            wanted = [pieces[number][at] for number in longer]
            for number, log in zip(longer, self._logs(network, rows, place + at, wanted, device), strict=True):
                logs[number] += log
        return logs

    @torch.inference_mode()
    def pseudo_log_likelihood(self, network: Network, tokenizer: Tokenizer, text: str, device: torch.device) -> float:
        """The sum over the tokens of a text of the log probability of each, masked, given all others.

        Salazar et al. 2020, "Masked Language Model Scoring"; in natural logarithms, special tokens not counted.

        Raises:
            InputError: the vocabulary has no mask token, or the text is empty or longer than the model reads.
        """
        mask = _mask_id(tokenizer)
        sequence = tokenizer.encode([text], long="error")[0].sequences[0]
        places = np.flatnonzero(sequence.source == 0)
        if not len(places):
            raise InputError("The text is empty, so it has no likelihood.")
        rows = []
        for place in places:
            row = sequence.ids.copy()
            row[place] = mask
            rows.append(row)
        return sum(self._logs(network, rows, places, sequence.ids[places].tolist(), device))

    def _logs(
        self,
        network: Network,
        rows: list[np.ndarray],
        places: int | np.ndarray,
        tokens: Sequence[int],
        device: torch.device,
    ) -> list[float]:
        """The log probability of one token at one place in each row, some thousand tokens in a pass."""
        where = np.broadcast_to(places, len(rows))
        logs: list[tuple[int, float]] = []
        for chosen in by_tokens(np.array([len(row) for row in rows]), TOKENS):
            some = sorted(chosen.tolist())
            starts = np.cumsum([0, *(len(rows[at]) for at in some[:-1])]) + where[some]
            batch = Packed.of([rows[at] for at in some]).to(device)
            found = torch.log_softmax(self.logits(network, batch, torch.from_numpy(starts).to(device)), -1)
            logs += zip(some, found[torch.arange(len(some)), [tokens[at] for at in some]].tolist(), strict=True)
        return [log for _, log in sorted(logs)]


def _mask_id(tokenizer: Tokenizer) -> int:
    if tokenizer.mask_id is None:
        raise InputError("The tokenizer has no mask token, so there is nothing to fill.")
    return tokenizer.mask_id


def _masked(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """The ids of a text with masks, where the masks are, and whether a space or nothing stands before each."""
    mask = _mask_id(tokenizer)
    sequence = tokenizer.encode([text], long="error", offsets=True)[0].sequences[0]
    assert sequence.offsets is not None
    places = np.flatnonzero(sequence.ids == mask)
    if not len(places):
        raise InputError(f"The text has no {tokenizer.token(mask)}; put it where a word is to be found.")
    starts = sequence.offsets[places, 0].tolist()
    return sequence.ids, places, [text[start : start + 1].isspace() or text[:start][-1:].isspace() for start in starts]


def _put(tokenizer: Tokenizer, ids: np.ndarray, place: int, tokens: Sequence[int]) -> str:
    """The text with these tokens at a place."""
    return tokenizer.decode([*ids[:place].tolist(), *tokens, *ids[place + 1 :].tolist()])
