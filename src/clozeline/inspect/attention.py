"""Attention: which token reads which, in every layer and head, and what each head makes a habit of.

Weights are computed again from what the layers read, see tracing.py, so that any kernel may serve the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from clozeline.batch import Packed
from clozeline.data import tagged
from clozeline.errors import InputError
from clozeline.inspect import panels as kinds
from clozeline.inspect.tracing import record
from clozeline.inspect.view import View, called
from clozeline.inspect.words import readable, word_of

if TYPE_CHECKING:
    from clozeline.face import Model

MOST = 2**28
"""Weights that are held at once, 1 GiB of them; 12 x 12 heads of 1,365 tokens."""
WRITTEN = 4_000_000
"""Weights that are written as JSON at most."""
CLOSER = "choose fewer by layers=[...] or heads=[...]"


@dataclass(frozen=True, eq=False)
class Read:
    """One text, or a pair, and who reads whom in it.

    tokens: L of them; offsets: (L, 2) characters [start, end) of the text that a token is of, (0, 0) for special ones.
    words: (L,) the word that each token is a piece of, -1 for special tokens; sources: (L,) 0 the first text, 1 the second,
    -1 special tokens. layers, heads: the numbers of those that are here, from 0.
    weights: (layers, heads, L, L) fp32; row i says how much token i reads of each token, and sums to 1;
    NaN of heads that were pruned. unit: what stands as a token here, a word where pieces were joined.
    """

    texts: tuple[str, ...]
    tokens: tuple[str, ...]
    offsets: np.ndarray
    words: np.ndarray
    sources: np.ndarray
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    weights: np.ndarray
    unit: Literal["token", "word"] = "token"

    @cached_property
    def measures(self) -> dict[str, np.ndarray]:
        """Habits, (layers, heads) each, means over the tokens that are of a text.

        entropy: in nats, 0 where one token is read alone, log L where all are read alike; distance: in tokens, how far
        away what is read stands; and the share of the weight on [CLS], [SEP], the token itself, the one before, the one
        behind, other pieces of the same word and, of a pair, the other text (Clark et al. 2019).
        """
        rows = np.flatnonzero(self.sources >= 0)
        if not len(rows):
            rows = np.arange(len(self.tokens))
        at, special = np.arange(len(self.tokens)), self.sources < 0
        apart = at[None] - rows[:, None]
        same = (self.words[rows, None] == self.words[None]) & (self.words[None] >= 0) & (apart != 0)
        # what begins a sequence, and what ends its texts
        parts = {"[CLS]": special & (at == 0), "[SEP]": special & (at > 0)}
        parts |= {"self": apart == 0, "previous": apart == -1, "next": apart == 1, "same word": same}
        if (self.sources == 1).any():
            parts["other text"] = (self.sources[rows, None] + self.sources[None] == 1) & (self.sources[None] >= 0)
        shares = np.stack([np.broadcast_to(each, apart.shape).reshape(-1) for each in (np.abs(apart), *parts.values())])
        found = np.empty((1 + len(shares), *self.weights.shape[:2]))
        for head in np.ndindex(found.shape[1:]):  # one by one, which stays in the cache
            weights = self.weights[head][rows].astype(np.float64)
            logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
            found[:, *head] = [-np.vdot(weights, logs), *(shares @ weights.reshape(-1))]
        return dict(zip(("entropy", "distance", *parts), found / len(rows), strict=True))

    def joined(self) -> Read:
        """The same between words: what is read of a word's pieces summed, what its pieces read averaged; rows sum to 1.

        Special tokens stand as words of their own.
        """
        special = self.words < 0
        keys = np.where(special, -1 - np.arange(len(self.words)), self.words)
        starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        counts = np.diff(starts, append=len(keys))
        weights = np.add.reduceat(np.add.reduceat(self.weights, starts, axis=-1), starts, axis=-2) / counts[:, None]
        offsets = np.stack([self.offsets[starts, 0], self.offsets[starts + counts - 1, 1]], 1)
        sources = self.sources[starts]
        names = [
            self.tokens[at] if source < 0 else self.texts[source][low:high].strip()
            for at, source, (low, high) in zip(starts.tolist(), sources.tolist(), offsets.tolist(), strict=True)
        ]
        found: dict[str, Any] = dict(tokens=tuple(names), offsets=offsets, words=self.words[starts], sources=sources)
        return replace(self, weights=weights.astype(np.float32), unit="word", **found)


@dataclass(frozen=True, eq=False)
class AttentionView(View):
    """Who reads whom in a text, or in two texts side by side."""

    model: str
    reads: tuple[Read, ...]

    @property
    def title(self) -> str:
        return f"Attention of {called(self.model)}"

    def panels(self) -> list[kinds.Panel]:
        return [*self._panels()]

    def sheets(self) -> list[list[kinds.Panel]]:
        """Some layers on each page, of all texts, where all of them on one would be shown too roughly."""
        panels = self._panels()
        count = max(panel.parts for panel in panels)
        return [[*some] for some in zip(*(panel.split(count) for panel in panels), strict=True)]

    def _panels(self) -> list[kinds.Attention]:
        found = []
        for read in self.reads:
            title, words = " | ".join(_short(text) for text in read.texts), read.joined()
            parts = (read.tokens, read.words.tolist(), read.sources.tolist(), read.layers, read.heads, read.weights)
            more = (read.measures, words.tokens, words.measures)
            if len(read.layers) == len(read.heads) == 1:
                title += f" (layer {read.layers[0]}, head {read.heads[0]})"
            found.append(kinds.Attention(title, *parts, *more, read.unit, budget=kinds.BUDGET // len(self.reads)))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Tokens, measures and all weights.

        Raises:
            InputError: there are too many weights for JSON; take `.arrays()` or fewer heads.
        """
        if (count := sum(read.weights.size for read in self.reads)) > WRITTEN:
            raise InputError(
                f"{count:,} weights are too many for JSON, which takes {WRITTEN:,}; give an .npz file, or {CLOSER}."
            )
        return {"model": self.model, "reads": [self._read(read) for read in self.reads]}

    def arrays(self) -> dict[str, np.ndarray]:
        """tokens, offsets, words, sources, layers, heads, weights and each measure of a text; of the second text the same
        with "beside " before the name."""
        found: dict[str, np.ndarray] = {}
        for read, before in zip(self.reads, ("", "beside "), strict=False):
            for name in ("tokens", "offsets", "words", "sources", "layers", "heads", "weights"):
                found[before + name] = np.asarray(getattr(read, name))
            found |= {before + name: values for name, values in read.measures.items()}
        return found

    def _read(self, read: Read) -> dict[str, Any]:
        found: dict[str, Any] = {"texts": list(read.texts), "tokens": list(read.tokens)}
        for name in ("offsets", "words", "sources"):
            found[name] = getattr(read, name).tolist()
        found |= {"layers": list(read.layers), "heads": list(read.heads)}
        found["measures"] = {name: [kinds.numbers(row) for row in rows] for name, rows in read.measures.items()}
        found["weights"] = [[[kinds.numbers(row) for row in head] for head in layer] for layer in read.weights]
        return found

    def __str__(self) -> str:
        lines = [self.title]
        for read in self.reads:
            lines.append(f"{' | '.join(_short(text) for text in read.texts)}   ({len(read.tokens)} tokens)")
            for name, values in read.measures.items():
                if not np.nanmax(values, initial=0):
                    continue  # heads that were pruned, or nothing of the kind in the text
                at = np.unravel_index(int(np.nanargmax(values)), values.shape)
                where = f"layer {read.layers[at[0]]} head {read.heads[at[1]]}"
                lines.append(f"  {name:<11} mean {np.nanmean(values):8.3f}   most {np.nanmax(values):8.3f} in {where}")
        return "\n".join(lines)


def attention(
    model: Model,
    text: str,
    pair: str | None = None,
    *,
    beside: str | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    join: bool = False,
) -> AttentionView:
    """Who reads whom in a text or a pair, as the model reads it, at any length that it takes.

    beside: another text to see next to the first one. layers, heads: only these, counted from 0. join: between words instead
    of their pieces.

    Raises:
        InputError: a text is empty or longer than the model reads, there is no such layer or head, or what is asked for
            would take more than 1 GiB.
    """
    reads = [_read(model, (text,) if pair is None else (text, pair), layers, heads)]
    if beside is not None:
        reads.append(_read(model, (beside,), layers, heads))
    return AttentionView(model.name, tuple(read.joined() for read in reads) if join else tuple(reads))


def _read(model: Model, texts: tuple[str, ...], layers: Sequence[int] | None, heads: Sequence[int] | None) -> Read:
    config, tokenizer = model.config, model.tokenizer
    chosen_layers = _chosen("layers", layers, config.layers)
    chosen_heads = _chosen("heads", heads, config.heads)
    if any(not isinstance(text, str) for text in texts):
        raise InputError("The text is no text; give one text, and perhaps a second one as its pair.")
    if not all(text.strip() for text in texts):
        raise InputError("The text is empty; give some words to read.")
    pairs = [texts[1]] if len(texts) > 1 else None
    (whole,) = tokenizer.encode([texts[0]], pairs, offsets=True)
    if whole.cut:
        raise InputError(
            f"The text has {whole.tokens} tokens, {whole.cut} more than the model reads at once; shorten it."
        )
    (sequence,) = whole.sequences
    length = len(sequence.ids)
    held = length * length * (len(chosen_layers) * len(chosen_heads) + config.heads)
    if held > MOST:
        where = f"{len(chosen_layers)} layers and {len(chosen_heads)} heads"
        raise InputError(f"{length} tokens in {where} have {held:,} weights; {MOST:,} are held at once; {CLOSER}.")
    network = model._network()
    with record(network.encoder) as seen, torch.inference_mode():
        network.encoder(Packed.of([sequence.ids], [sequence.segments]).to(model._device))
    (reading,) = seen
    weights = np.full((len(chosen_layers), config.heads, length, length), np.nan, np.float32)
    for layer, found in zip(chosen_layers, weights, strict=True):
        found[config.kept_heads(layer)] = reading.weights(layer)
    assert sequence.offsets is not None
    return Read(
        texts,
        readable(tokenizer, sequence.ids),
        sequence.offsets,
        word_of([tagged.words(text) for text in texts], sequence.offsets, sequence.source),
        sequence.source.astype(np.int64),
        chosen_layers,
        chosen_heads,
        weights[:, list(chosen_heads)],
    )


def _chosen(name: str, given: Sequence[int] | None, count: int) -> tuple[int, ...]:
    if given is None:
        return tuple(range(count))
    given = list(given) if isinstance(given, Sequence | range) and not isinstance(given, str) else [given]
    if (
        not given
        or any(not isinstance(each, int) or not 0 <= each < count for each in given)
        or len({*given}) < len(given)
    ):
        raise InputError(f"{name} is {[*given]}; the model has {name} 0 to {count - 1}, each to be named once.")
    return tuple(given)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
