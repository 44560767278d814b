"""What a masked-LM model makes of masked words, read from both sides and from the left only, and how pre-training masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clozeline.batch import Packed
from clozeline.data.corruption import Corruption, Masking, Unit
from clozeline.data.shuffle import mixed
from clozeline.errors import InputError
from clozeline.inspect import panels as kinds
from clozeline.inspect.causal import READINGS, UNTRAINED, left_only
from clozeline.inspect.view import View
from clozeline.inspect.words import readable
from clozeline.model.heads import Network
from clozeline.tasks.masked_lm import Filled, MaskedLM

if TYPE_CHECKING:
    from clozeline.face import Model


@dataclass(frozen=True, slots=True)
class Word:
    """A word for a mask. both, left: its probability among all that were compared, by either reading; ranks from 1."""

    token: str
    both: float
    left: float
    both_rank: int
    left_rank: int


@dataclass(frozen=True, eq=False)
class FilledMask(View):
    """The words for each mask of a text, read from both sides and from the left only.

    both, left: for each mask the words as `Model.fill_mask` gives them; words: for each mask those of either reading
    together, the likeliest by both sides first; among: how many words were compared.
    """

    model: str
    text: str
    both: tuple[tuple[Filled, ...], ...]
    left: tuple[tuple[Filled, ...], ...]
    words: tuple[tuple[Word, ...], ...]
    among: int

    @property
    def title(self) -> str:
        return f"Words for the mask: {shorten(self.text, 70, placeholder='…')}"

    def panels(self) -> list[kinds.Panel]:
        found: list[kinds.Panel] = []
        for number, words in enumerate(self.words, 1):
            which = f"Mask {number}" if len(self.words) > 1 else "The mask"
            shares = np.array([[word.both, word.left] for word in words])
            names = [word.token for word in words]
            found.append(
                kinds.Bars(which, f"probability among {self.among:,}", names, READINGS, shares, note=UNTRAINED)
            )
            columns = ("word", *READINGS, "rank, both sides", "rank, left side")
            rows = [list(asdict(word).values()) for word in words]
            found.append(kinds.Table(f"{which}: probability and rank among {self.among:,}", columns, rows))
        return found

    def as_dict(self) -> dict[str, Any]:
        masks = [
            {"both": [*map(asdict, both)], "left": [*map(asdict, left)], "words": [*map(asdict, words)]}
            for both, left, words in zip(self.both, self.left, self.words, strict=True)
        ]
        return {"model": self.model, "text": self.text, "among": self.among, "masks": masks}

    def __str__(self) -> str:
        lines = [self.title]
        for number, (both, left) in enumerate(zip(self.both, self.left, strict=True), 1):
            lines.append(f"mask {number}    {READINGS[0]:<28}{READINGS[1]:<28}(shares among {self.among:,} words)")
            for one, other in zip(both, left, strict=True):
                lines.append(f"   {one.score:8.2%}  {one.token:<20} {other.score:8.2%}  {other.token}")
        return "\n".join([*lines, UNTRAINED])


def fill_mask(model: Model, text: str, top: int = 10, candidates: Sequence[str] | None = None) -> FilledMask:
    """The `top` most probable words for each mask of a text, or all of `candidates` compared, by either reading.

    Without candidates a word is one token of the vocabulary; candidates may have several. From the left only, a mask sees
    the words before it and nothing else.

    Raises:
        InputError: the model has no masked-LM head, the text has no mask or is too long, or a candidate is no word.
    """
    both = model.fill_mask(text, top, candidates)
    task, tokenizer, device = model._masked_lm(), model.tokenizer, model._device
    twin = left_only(model.network, model._dtype, device)
    words = []
    if candidates is None:
        left = task.fill(twin, tokenizer, text, top, device)
        (sequence,) = tokenizer.encode([text], long="error")[0].sequences
        shares = [
            _shares(task, network, sequence.ids, tokenizer.mask_id, device) for network in (model._network(), twin)
        ]
        among = shares[0].shape[1]
        for one, other in zip(*shares, strict=True):
            named = np.union1d(*(np.argsort(-each, kind="stable")[:top] for each in (one, other)))
            words.append(_compared(readable(tokenizer, named), one, other, named))
    else:
        left = task.choose(twin, tokenizer, text, candidates, device)
        among = len(candidates)
        for sides in zip(both, left, strict=True):
            scores = [{each.token: each.score for each in side} for side in sides]
            one, other = (np.array([side[word] for word in scores[0]]) for side in scores)
            words.append(_compared([*scores[0]], one, other, np.arange(len(one))))
    return FilledMask(model.name, text, tuple(map(tuple, both)), tuple(map(tuple, left)), tuple(words), among)


@torch.inference_mode()
def _shares(task: MaskedLM, network: Network, ids: np.ndarray, mask: int | None, device: torch.device) -> np.ndarray:
    """(M, V) probabilities at the masks."""
    masks = torch.from_numpy(np.flatnonzero(ids == mask)).to(device)
    return torch.softmax(task.logits(network, Packed.of([ids]).to(device), masks), -1).cpu().numpy()


def _compared(tokens: Sequence[str], one: np.ndarray, other: np.ndarray, at: np.ndarray) -> tuple[Word, ...]:
    """Words by their places in two rows of probabilities."""
    ranks = [[1 + int((row > row[place]).sum()) for place in at] for row in (one, other)]
    rows = zip(tokens, one[at].tolist(), other[at].tolist(), *ranks, strict=True)
    return tuple(sorted((Word(*row) for row in rows), key=lambda word: -word.both))


@dataclass(frozen=True, slots=True)
class Token:
    """A token before and after. fate: "masked", "random", "kept" where it is to be found, "" where it is not."""

    token: str
    seen: str
    fate: str


SHADES = {"masked": 1.0, "random": -1.0, "kept": -0.4}
FATES = {"masked": "become the mask", "random": "become a random token", "kept": "stay"}


@dataclass(frozen=True, eq=False)
class Corrupted(View):
    """A text as pre-training shows it. tokens: special ones included; cut: tokens behind what the model reads."""

    tokens: tuple[Token, ...]
    content: int
    masking: Masking
    cut: int

    @property
    def title(self) -> str:
        return "A text as pre-training shows it"

    @property
    def counts(self) -> dict[str, int]:
        """By fate, how many of the tokens to be found."""
        found = Counter(token.fate for token in self.tokens)
        return {fate: found[fate] for fate in FATES}

    def panels(self) -> list[kinds.Panel]:
        notes = [f"was {token.token}, {token.fate}" if token.fate else "" for token in self.tokens]
        values = [SHADES.get(token.fate) for token in self.tokens]
        under = [token.token if token.seen != token.token else "" for token in self.tokens]
        rows = [(at, token.token, token.seen, token.fate) for at, token in enumerate(self.tokens) if token.fate]
        return [
            kinds.Words(
                "What the model sees",
                [each.seen for each in self.tokens],
                values,
                notes,
                True,
                self._said,
                SHADES,
                under,
            ),
            kinds.Table("What it has to find", ("place", "token", "seen", "fate"), rows),
        ]

    @property
    def _said(self) -> str:
        counts = self.counts
        parts = ", ".join(
            f"{counts[fate]} {what} ({share:.0%} on average)"
            for (fate, what), share in zip(FATES.items(), self.masking.split, strict=True)
        )
        cut = f" {self.cut} tokens are behind what the model reads." if self.cut else ""
        total = f"{sum(counts.values())} of {self.content} tokens are to be found (rate {self.masking.rate:.0%})"
        return f"{total}: {parts}.{cut}"

    def as_dict(self) -> dict[str, Any]:
        found = {"tokens": [asdict(token) for token in self.tokens], "content": self.content, "cut": self.cut}
        return found | {"counts": self.counts, "masking": asdict(self.masking)}

    def __str__(self) -> str:
        marked = " ".join(f"{token.seen}({token.token})" if token.fate else token.seen for token in self.tokens)
        return f"{marked}\n{self._said}"


def corruption(
    model: Model,
    text: str,
    *,
    seed: int = 0,
    mask_rate: float = 0.15,
    mask_split: tuple[float, ...] = (0.8, 0.1, 0.1),
    mask_unit: Unit = "token",
) -> Corrupted:
    """A text with some of its tokens masked, replaced or kept, as pre-training would show it; another seed, others.

    mask_rate, mask_split, mask_unit: as in `data.corruption.Masking`.

    Raises:
        InputError: the text is empty, the vocabulary has no mask, or a share cannot be.
    """
    tokenizer, masking = model.tokenizer, Masking(mask_rate, mask_split, mask_unit)
    corrupt = Corruption(masking, tokenizer)
    (encoded,) = tokenizer.encode([text])
    (sequence,) = encoded.sequences
    content = sequence.source >= 0
    if not content.any():
        raise InputError("The text is empty; give some words to mask.")
    seen, chosen = corrupt(sequence.ids, content, [len(content)], mixed(seed, np.arange(1)))
    picked, tokens = {*chosen.tolist()}, []
    names = zip(readable(tokenizer, sequence.ids), readable(tokenizer, seen), strict=True)
    for at, (was, now, name) in enumerate(zip(sequence.ids.tolist(), seen.tolist(), names, strict=True)):
        fate = "masked" if now == tokenizer.mask_id else "kept" if now == was else "random"
        tokens.append(Token(*name, fate if at in picked else ""))
    return Corrupted(tuple(tokens), int(content.sum()), masking, encoded.cut)
