"""What a masked-LM model makes of masked words, and what reading both sides buys it.

Beside the model stands the same one reading from left to right: no token sees what stands behind it, in any layer. It was
never trained to read so. What it loses is more than what a model trained from left to right would lose: an upper bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeline.batch import Layout, Packed
from clozeline.data.corruption import Corruption, Masking, Unit
from clozeline.data.packing import Samples, by_tokens
from clozeline.data.shuffle import mixed
from clozeline.errors import InputError
from clozeline.evaluate.intervals import Interval, several
from clozeline.inspect import panels as kinds
from clozeline.inspect.view import View
from clozeline.model.encoder import ConvolvedLayer, Layer
from clozeline.model.heads import Network
from clozeline.model.kernels import ScoreBias
from clozeline.model.positions import Positions, Project
from clozeline.tasks.masked_lm import TOKENS, Filled, MaskedLM

if TYPE_CHECKING:
    from clozeline.face import Model

READINGS = ("both sides", "left side only")
MEASURES = ("accuracy", "top5", "loss")
UNTRAINED = (
    "The model was not trained to read the left side only, so what it loses is an upper bound of what a model trained "
    "from left to right would lose."
)


class Causal(Positions):
    """A position scheme, and scores of minus infinity for every token that stands behind the one that looks."""

    biased = True

    def __init__(self, scheme: Positions) -> None:
        super().__init__()
        self.scheme = scheme

    def embed(self, layout: Layout) -> Tensor | None:
        return self.scheme.embed(layout)

    def turn(self, q_TNH: Tensor, k_TNH: Tensor, layout: Layout, *, local: bool) -> tuple[Tensor, Tensor]:
        return self.scheme.turn(q_TNH, k_TNH, layout, local=local)

    def bias(self, project: Project, layout: Layout) -> ScoreBias:
        own = self.scheme.bias(project, layout)

        def scores(q: Tensor, k: Tensor) -> Tensor:
            behind = q.new_full((q.shape[2], q.shape[2]), -torch.inf).triu(1)[None, None]
            return behind if own is None else own(q, k) + behind

        return scores


def left_only(network: Network, dtype: torch.dtype, device: torch.device) -> Network:
    """A twin that computes in `dtype` on `device` and reads from left to right; the network stays as it is."""
    twin = network.twin(dtype, device)
    for layer in twin.encoder.layers:
        assert isinstance(layer, Layer)
        layer.attention.positions = (Causal(layer.attention.positions[0]),)
        if isinstance(layer, ConvolvedLayer):  # which sees neighbours on both sides
            taps = layer.convolve.weight.detach().clone()
            taps[..., taps.shape[-1] // 2 + 1 :] = 0
            layer.convolve.weight = nn.Parameter(taps)
    twin.encoder.use_kernel("auto")
    return twin


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
            found.append(kinds.Bars(which, "probability", names, READINGS, shares, note=UNTRAINED))
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
            lines.append(f"mask {number}    {READINGS[0]:<28}{READINGS[1]}")
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
            words.append(_compared([tokenizer.token(at) for at in named.tolist()], one, other, named))
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
class Found:
    """How masked words are found. accuracy, top5: how often the right one is the likeliest, or among five; loss: in nats."""

    accuracy: Interval
    top5: Interval
    loss: Interval


@dataclass(frozen=True, eq=False)
class CausalGap(View):
    """The same masked words of some texts, found from both sides and from the left only, with 95 % intervals over texts.

    gap: both sides less left side, over the same resamples. texts: that were read; empty: texts that were left out because
    nothing in them can be masked; tokens, masked, cut: of the texts, predicted, and not read because a text is too long.
    """

    model: str
    both: Found
    left: Found
    gap: Found
    texts: int
    empty: int
    tokens: int
    masked: int
    cut: int

    @property
    def title(self) -> str:
        return f"What reading both sides buys {self.model}"

    def panels(self) -> list[kinds.Panel]:
        sides = (self.both, self.left)
        right, loss = [[side.accuracy, side.top5] for side in sides], [[side.loss] for side in sides]
        return [
            _bars("Masked words found", "share", ("the likeliest word", "among five"), right, self._said),
            _bars("Loss at masked words", "nats", ("loss",), loss, UNTRAINED),
        ]

    @property
    def _said(self) -> str:
        empty = f" {self.empty} texts have nothing to mask and are left out." if self.empty else ""
        cut = f" {self.cut:,} tokens are behind what the model reads." if self.cut else ""
        return f"{self.masked:,} masked words of {self.tokens:,} tokens in {self.texts:,} texts.{empty}{cut}"

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"model": self.model}
        for name, side in (("both", self.both), ("left", self.left), ("gap", self.gap)):
            parts = [getattr(side, measure).named(measure) for measure in MEASURES]
            found[name] = {key: value for part in parts for key, value in part.items()}
        return found | {name: getattr(self, name) for name in ("texts", "empty", "tokens", "masked", "cut")}

    def __str__(self) -> str:
        lines = [self.title, self._said, f"{'':<10}{READINGS[0]:<26}{READINGS[1]:<26}gap"]
        for name in MEASURES:
            cells = (f"{getattr(side, name)!s:<26}" for side in (self.both, self.left, self.gap))
            lines.append(f"{name:<10}{''.join(cells)}".rstrip())
        return "\n".join([*lines, UNTRAINED])


def _bars(title: str, y: str, names: Sequence[str], sides: Sequence[Sequence[Interval]], note: str) -> kinds.Bars:
    values = np.array([[each.value for each in side] for side in sides]).T
    errors = np.array([[(each.high - each.low) / 2 for each in side] for side in sides]).T
    return kinds.Bars(title, y, names, READINGS, values, errors, note)


@torch.inference_mode()
def causal_gap(
    model: Model, texts: Sequence[str], *, mask_rate: float = 0.15, limit: int = 500, seed: int = 0
) -> CausalGap:
    """How well masked words are found from both sides and from the left only, on texts that the model was not trained on.

    The same words are masked, all by the mask token. The model was not trained to read the left side only, so what it loses
    is an upper bound of what a model trained from left to right would lose.

    limit: texts that are read, drawn by `seed` where there are more. Texts longer than the model are cut, which is counted.

    Raises:
        InputError: the model has no masked-LM head, there are no texts or nothing in them, or the rate cannot be.
    """
    task, tokenizer, device = model._masked_lm(), model.tokenizer, model._device
    corrupt = Corruption(Masking(mask_rate, (1.0, 0.0, 0.0)), tokenizer)
    texts = [texts] if isinstance(texts, str) else list(texts)
    if limit < 1:
        raise InputError(f"limit is {limit}; read at least 1 text.")
    if len(texts) > limit:
        drawn = np.random.default_rng(seed).choice(len(texts), limit, replace=False)
        texts = [texts[at] for at in np.sort(drawn)]
    samples = Samples.tokenise(tokenizer, texts or [""], offsets=True)
    assert samples.source is not None
    content = (samples.source >= 0) & ~np.isin(samples.ids, [*tokenizer.special_ids])
    if not content.any():
        raise InputError("There are no texts with words to mask.")
    lengths, keys = np.diff(samples.bounds).tolist(), mixed(seed, np.arange(len(texts)))
    seen, chosen = corrupt(samples.ids, content, lengths, keys)
    owners = np.searchsorted(samples.bounds, chosen, "right") - 1
    networks = model._network(), left_only(model.network, model._dtype, device)
    found = np.ones((len(chosen), 7))  # one word; then of either reading: right, right among five, loss
    for some in by_tokens(samples.lengths, TOKENS):
        spans = [np.arange(samples.bounds[at], samples.bounds[at + 1]) for at in some]
        rows = np.concatenate(spans)
        places, batch = np.flatnonzero(np.isin(rows, chosen)), Packed.of([seen[span] for span in spans]).to(device)
        where, at = torch.from_numpy(places).to(device), np.searchsorted(chosen, rows[places])
        targets = torch.from_numpy(samples.ids[chosen[at]]).long().to(device)
        for column, network in zip((1, 4), networks, strict=True):
            logits_MV = task.logits(network, batch, where)
            hits = logits_MV.topk(min(5, logits_MV.shape[1])).indices == targets[:, None]
            loss = F.cross_entropy(logits_MV, targets, reduction="none")
            found[at, column : column + 3] = torch.stack([hits[:, 0], hits.any(1), loss], 1).double().cpu().numpy()
    table = np.zeros((len(texts), found.shape[1]))
    np.add.at(table, owners, found)
    empty, intervals = int((table[:, 0] == 0).sum()), several(table[table[:, 0] > 0], _both_left_gap, seed)
    both, left, gap = (Found(*intervals[at : at + 3]) for at in (0, 3, 6))
    counts = len(texts) - empty, empty, int(samples.tokens.sum()), len(chosen), int(samples.cut.sum())
    return CausalGap(model.name, both, left, gap, *counts)


def _both_left_gap(sums: np.ndarray) -> np.ndarray:
    means = sums[:, 1:] / sums[:, :1]
    return np.concatenate([means, means[:, :3] - means[:, 3:]], 1)


@dataclass(frozen=True, slots=True)
class Token:
    """A token before and after. fate: "masked", "random", "kept" where it is to be found, "" where it is not."""

    token: str
    seen: str
    fate: str


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
        shades = {"masked": 1.0, "random": -1.0, "kept": -0.4}
        notes = [f"was {token.token}, {token.fate}" if token.fate else "" for token in self.tokens]
        values = [shades.get(token.fate) for token in self.tokens]
        rows = [(at, token.token, token.seen, token.fate) for at, token in enumerate(self.tokens) if token.fate]
        return [
            kinds.Words("What the model sees", [token.seen for token in self.tokens], values, notes, True, self._said),
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
    for at, (was, now) in enumerate(zip(sequence.ids.tolist(), seen.tolist(), strict=True)):
        fate = "masked" if now == tokenizer.mask_id else "kept" if now == was else "random"
        tokens.append(Token(tokenizer.token(was), tokenizer.token(now), fate if at in picked else ""))
    return Corrupted(tuple(tokens), int(content.sum()), masking, encoded.cut)
