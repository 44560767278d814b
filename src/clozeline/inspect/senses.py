"""How a word's vector moves apart by context: the bank of a river and the bank of money, layer by layer.

Contextual vectors of all words lie in a narrow cone, so a cosine says little by itself: beside it stands the mean cosine of
random tokens of the same texts (Ethayarajh 2019, "How Contextual are Contextualized Word Representations?").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clozeline import predict as prediction
from clozeline.data import tagged
from clozeline.data.packing import Samples
from clozeline.errors import InputError
from clozeline.evaluate.intervals import RESAMPLES
from clozeline.inspect import panels as kinds
from clozeline.inspect.separation import BEST, FEW, Sure, measures
from clozeline.inspect.tokenization import normalised
from clozeline.inspect.view import View, called
from clozeline.inspect.words import lettered
from clozeline.tokenizer import Tokenizer

if TYPE_CHECKING:
    from clozeline.face import Model

SAMPLE = 500
"""Random tokens for the base line, about."""
MOST = 2000
"""Occurrences that are compared, each with each, at most."""
SHOWN = 100
"""Occurrences that panels show."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """The word in a text. text: which one, from 0; start, end: its characters; name: it and what stands around it."""

    text: int
    start: int
    end: int
    name: str
    group: str | None


@dataclass(frozen=True, eq=False)
class Senses(View):
    """The n occurrences of a word, after the embedding (layer 0) and after each of the L layers.

    cosines: (L + 1, n, n); random: (L + 1,) mean cosine of random tokens; points: (n, 2) a map at the layer `best`, and
    explained: (2,) what share of the variance each axis of it has; neighbours: how many are named; lost: occurrences
    behind what the model reads of a text; unknown: occurrences of which the tokenizer knows nothing.
    """

    model: str
    word: str
    occurrences: tuple[Occurrence, ...]
    cosines: np.ndarray
    random: np.ndarray
    best: int
    points: np.ndarray
    explained: np.ndarray
    neighbours: int
    lost: int
    unknown: int

    @property
    def title(self) -> str:
        return f"“{self.word}” by context in {called(self.model)}"

    @cached_property
    def groups(self) -> np.ndarray | None:
        """(n,) the sense of each occurrence as a number, or None where they are not known."""
        return _numbered(self.occurrences)

    @cached_property
    def layers(self) -> dict[str, np.ndarray]:
        """By name, (L + 1,) each: see `measures`."""
        return measures(self.cosines, self.groups)

    @property
    def measure(self) -> str:
        """Which of them names the best layer."""
        return next(name for name in BEST if name in self.layers)

    @cached_property
    def sure(self) -> Sure | None:
        """How sure the best layer is, or None where a sense has too few occurrences to say."""
        return Sure.of(self.cosines, self.groups, self.measure, self.best)

    @cached_property
    def alone(self) -> tuple[str, ...]:
        """Senses that are there once, so that nothing can be said within them."""
        named = [each.group for each in self.occurrences if each.group]
        return tuple(name for name in dict.fromkeys(named) if named.count(name) == 1)

    @cached_property
    def nearest(self) -> np.ndarray:
        """(n, neighbours) the nearest other occurrences at the best layer, nearest first."""
        apart = self.cosines[self.best] - 3 * np.eye(len(self.occurrences))
        return np.argsort(-apart, axis=1, kind="stable")[:, : min(self.neighbours, len(apart) - 1)]

    @property
    def agreement(self) -> float | None:
        """How often the nearest occurrence has the same sense, of senses that are there more than once; None without any."""
        if self.groups is None or not self.separated:
            return None
        several = np.bincount(self.groups)[self.groups] > 1
        return float((self.groups[self.nearest[:, 0]] == self.groups)[several].mean())

    def panels(self) -> list[kinds.Panel]:
        at = list(range(len(self.random)))
        curves = {
            name: (at, values.tolist())
            for name, values in self.layers.items()
            if name not in ("separation", "silhouette")
        }
        marks = {f"layer {self.best}": float(self.best)}
        curves["random tokens"] = (at, self.random.tolist())
        say = "Layer 0 is the embedding, before any context. A cosine is to be held against that of random tokens."
        say = self._notes + say + f" {self._how_sure}" * (not self.separated)
        found: list[kinds.Panel] = [kinds.Lines("Mean cosine of occurrences", "layer", "cosine", curves, marks, say)]
        if self.separated:
            ends = None if self.sure is None else np.stack([self.sure.low, self.sure.high], -1)[:, None]
            names, values = ["0, no context", *map(str, at[1:])], self.layers["separation"][:, None]
            say = f"The mean cosine within senses less that between them, at each layer. {self._how_sure}"
            found.append(kinds.Bars("How far senses are apart", "separation", names, ["separation"], values, ends, say))
        names = [f"{number} {each.name}" for number, each in enumerate(self.occurrences, 1)]
        senses = [each.group or self.word for each in self.occurrences]
        x, y = (f"component {axis} ({share:.0%})" for axis, share in enumerate(self.explained, 1))
        found.append(kinds.Scatter(f"Map at layer {self.best}", x, y, self.points, names, senses))
        order = np.arange(len(names)) if self.groups is None else np.argsort(self.groups, kind="stable")
        some = order[np.unique(np.linspace(0, len(order) - 1, SHOWN).astype(int))]
        values = self.cosines[self.best][np.ix_(some, some)]
        rows, columns = [names[each] for each in some], [str(each + 1) for each in some]
        say = f"{len(some)} of {len(names)} occurrences." * (len(some) < len(names))
        found.append(kinds.Heatmap(f"Cosines at layer {self.best}", "", "", values, rows, columns, note=say))
        return [*found, self._table(some)]

    def _table(self, some: np.ndarray) -> kinds.Table:
        rows = []
        for at in some.tolist():
            near = [f"{self._said(other)} {self.cosines[self.best, at, other]:.2f}" for other in self.nearest[at]]
            rows.append([self._said(at), *near])
        columns = ("occurrence", *(f"nearest {rank}" for rank in range(1, self.nearest.shape[1] + 1)))
        say = "" if self.agreement is None else f"The nearest has the same sense in {self.agreement:.0%}."
        return kinds.Table(f"Nearest occurrences at layer {self.best}", columns, rows, say)

    def _said(self, at: int) -> str:
        found = self.occurrences[at]
        return f"{at + 1} {found.name}" + (f" ({found.group})" if found.group else "")

    @property
    def separated(self) -> bool:
        """Whether senses are known, and one of them more than once."""
        return "separation" in self.layers

    @property
    def _notes(self) -> str:
        found = []
        if self.lost:
            found.append(f"{self.lost} occurrences stand behind what the model reads of their text.")
        if self.unknown:
            found.append(f"In {self.unknown} of them the tokenizer does not know the word: only its context is read.")
        if self.alone:
            names = ", ".join(f"“{name}”" for name in self.alone)
            found.append(f"There once, so that nothing is said within it: {names}.")
        return "".join(f"{each} " for each in found)

    @property
    def _how_sure(self) -> str:
        """How sure the best layer is, in a sentence or two."""
        if self.sure is None:
            return f"How sure that is takes {FEW} occurrences{' of each sense' * (self.groups is not None)} or more."
        alike = ", ".join(str(at) if at else "0 (before any context)" for at in self.sure.alike)
        rest = f"layers that cannot be told from it: {alike}" if alike else "each other layer can be told from it"
        return f"Layer {self.best} is the best in {self.sure.first[self.best]:.0%} of {RESAMPLES:,} resamples; {rest}."

    def as_dict(self) -> dict[str, Any]:
        measured = {**self.layers, "random": self.random}
        return {
            "model": self.model,
            "word": self.word,
            "lost": self.lost,
            "best_layer": self.best,
            "layers": {name: kinds.numbers(values) for name, values in measured.items()},
            "sure": self.sure
            and {
                "measure": self.measure,
                "low": kinds.numbers(self.sure.low),
                "high": kinds.numbers(self.sure.high),
                "best_share": kinds.numbers(self.sure.first),
                "alike": list(self.sure.alike),
            },
            "there_once": list(self.alone),
            "unknown": self.unknown,
            "same_sense_nearest": self.agreement,
            "occurrences": [asdict(each) for each in self.occurrences],
            "points": [kinds.numbers(row) for row in self.points],
            "cosines": [kinds.numbers(row) for row in self.cosines[self.best]],
            "nearest": self.nearest.tolist(),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """cosines of all layers, (L + 1, n, n); random, points and each measure as they are here."""
        return {"cosines": self.cosines, "random": self.random, "points": self.points, **self.layers}

    def __str__(self) -> str:
        columns = {**self.layers, "random tokens": self.random}
        lines = [self.title, f"{len(self.occurrences)} occurrences. {self._notes}Mean cosine of them by layer:"]
        lines.append("layer  " + "  ".join(f"{name:>13}" for name in columns))
        if self.sure is not None:
            lines[-1] += f"   {self.measure}, 95 %"
        for at in range(len(self.random)):
            line = f"{at:>5}  " + "  ".join(f"{values[at]:>13.3f}" for values in columns.values())
            if self.sure is not None:
                line += f"   [{self.sure.low[at]:.3f}, {self.sure.high[at]:.3f}]"
            lines.append(line + ("  <" if at == self.best else "  before any context" * (at == 0)))
        what, value = "Senses" if self.separated else "They", self.layers[self.measure][self.best]
        lines.append(f"{what} are farthest apart at layer {self.best}: {self.measure} {value:.3f}. {self._how_sure}")
        if self.agreement is not None:
            lines.append(f"There the nearest occurrence has the same sense in {self.agreement:.0%}.")
        return "\n".join(lines)


def senses(
    model: Model,
    texts: str | Sequence[str],
    word: str,
    *,
    groups: Sequence[str] | None = None,
    neighbours: int = 5,
) -> Senses:
    """How far the occurrences of a word in some texts are apart, layer by layer.

    Args:
        texts: one text or several; what is longer than the model is cut, and occurrences lost so are counted.
        word: looked for as a whole word, or several, or a sign; case counts where it does for the tokenizer. A word of
            several pieces is the mean of them.
        groups: what the word means in each text, or (where their number differs) in each occurrence in reading order.
        neighbours: occurrences named as the nearest of each.

    The best layer is the one where senses are farthest apart (mean cosine within less between), or occurrences where senses
    are not known; the embedding, which knows no context, does not count. How sure that is, `Senses.sure` says: occurrences
    are drawn again within their senses.

    Raises:
        InputError: the word is in the texts less than twice, or the groups do not fit.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise InputError("There are no texts to look for the word in.")
    if neighbours < 1:
        raise InputError(f"neighbours is {neighbours}; ask for at least 1.")
    if not tagged.words(word) or not normalised(model.tokenizer, word).strip():
        raise InputError(f"word is {word!r}, of which the tokenizer reads nothing; give a word to look for.")
    samples = Samples.tokenise(model.tokenizer, texts, offsets=True)
    places = [(at, *span) for at, text in enumerate(texts) for span in _places(model.tokenizer, text, word)]
    named = _named(groups, places, len(texts), word)
    tokens, random = _chosen(samples, places, np.random.default_rng(0))
    kept = [at for at, rows in enumerate(tokens) if len(rows)]
    lost = len(places) - len(kept)
    if not 2 <= len(kept) <= MOST:
        behind = f", {lost} of them behind what the model reads" if lost else ""
        raise InputError(
            f"{word!r} is {len(places)} times in the {len(texts)} texts{behind}; give texts that have it 2 to {MOST} times."
        )
    found = tuple(
        Occurrence(*places[at], _called(texts[places[at][0]], *places[at][1:]), None if named is None else named[at])
        for at in kept
    )
    vectors, base = _vectors(model, samples, [tokens[at] for at in kept], random)
    units = prediction.unit(vectors.astype(np.float64))
    by_layer = units.transpose(1, 0, 2)
    cosines = np.clip(by_layer @ by_layer.transpose(0, 2, 1), -1, 1)
    cosines[:, np.arange(len(kept)), np.arange(len(kept))] = 1
    total, n = np.linalg.norm(prediction.unit(base.astype(np.float64)).sum(0), axis=-1), len(base)
    measured = measures(cosines, _numbered(found))
    score = next(sign * measured[name] for name, sign in BEST.items() if name in measured)
    best = 1 + int(np.argmax(score[1:]))
    points, explained = _map(units[:, best])
    random_cosine = (total**2 - n) / max(1, n * (n - 1))
    unknown = sum(bool((samples.ids[tokens[at]] == model.tokenizer.unk_id).all()) for at in kept)
    return Senses(model.name, word, found, cosines, random_cosine, best, points, explained, neighbours, lost, unknown)


def _places(tokenizer: Tokenizer, text: str, word: str) -> Iterator[tuple[int, int]]:
    """Where the word stands in a text, as the tokenizer sees both."""
    parts = lettered if lettered(word) else tagged.words  # of "☺" there is nothing but signs
    own, spans, wanted = parts(word), parts(text), normalised(tokenizer, word).strip()
    before, behind = own[0][0], len(word) - own[-1][1]  # marks at its ends, as of "C++"
    for first, last in zip(spans, spans[len(own) - 1 :], strict=False):
        start, end = max(0, first[0] - before), last[1] + behind
        if normalised(tokenizer, text[start:end]).strip() == wanted:
            yield start, end


def _named(
    groups: Sequence[str] | None, places: Sequence[tuple[int, int, int]], texts: int, word: str
) -> list[str] | None:
    """The sense of each occurrence."""
    if groups is None:
        return None
    if isinstance(groups, str) or len(groups) not in (texts, len(places)):
        count = "one text" if isinstance(groups, str) else f"{len(groups)} names"
        raise InputError(
            f"groups is {count}; give one name for each of the {texts} texts, or for each of the {len(places)} times that "
            f"{word!r} is in them."
        )
    named = [str(groups[at]) for at, *_ in places] if len(groups) == texts else [str(group) for group in groups]
    if len({*named}) == 1:
        raise InputError(f"groups gives every {word!r} the same sense, {named[0]!r}; name at least two, or none.")
    return named


def _numbered(found: Sequence[Occurrence]) -> np.ndarray | None:
    """(n,) senses as numbers, or None where they are not known or only one is left."""
    known = list(dict.fromkeys(each.group for each in found))
    return np.array([known.index(each.group) for each in found]) if len(known) > 1 else None


def _chosen(
    samples: Samples, places: Sequence[tuple[int, int, int]], random: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """The rows of each occurrence's tokens, none where the model does not read all of it; and random rows of content."""
    assert samples.offsets is not None
    assert samples.source is not None
    content = samples.source >= 0
    tokens = []
    for at, start, end in places:
        rows = np.arange(samples.bounds[at], samples.bounds[at + 1])
        starts, ends = samples.offsets[rows].T
        hit = rows[content[rows] & (starts < end) & (ends > start)]
        partly = len(hit) and samples.cut[at] and samples.offsets[hit[-1], 1] < end
        tokens.append(hit[:0] if partly else hit)
    rows = np.flatnonzero(content)
    return tokens, np.sort(random.choice(rows, min(SAMPLE, len(rows)), replace=False))


@torch.inference_mode()
def _vectors(
    model: Model, samples: Samples, tokens: Sequence[np.ndarray], random: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n, layers + 1, D) the mean of each occurrence's tokens, and (m, layers + 1, D) those of random tokens."""
    wanted = np.unique(np.concatenate([*tokens, random]))
    network, device = model._network(), model._device
    table = np.empty((len(wanted), model.config.layers + 1, model.config.width), np.float32)
    for chosen in prediction.batches(samples, device):
        rows = np.concatenate([np.arange(samples.bounds[at], samples.bounds[at + 1]) for at in chosen])
        hit = np.flatnonzero(np.isin(rows, wanted))
        if len(hit):
            states = network.encoder.states(samples.take(chosen).packed.to(device))
            found = [state[hit] for state in states]
            table[np.searchsorted(wanted, rows[hit])] = torch.stack(found, 1).float().cpu().numpy()
    means = [table[np.searchsorted(wanted, rows)].mean(0) for rows in tokens]
    return np.stack(means), table[np.searchsorted(wanted, random)]


def _map(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) principal components of (n, D) vectors, and the share of the variance along each."""
    left, sizes, _ = np.linalg.svd(units - units.mean(0), full_matrices=False)
    points, shares = np.zeros((len(units), 2)), np.zeros(2)
    count = min(2, len(sizes))
    points[:, :count] = (left * sizes)[:, :count]
    shares[:count] = (sizes**2)[:count] / max(float((sizes**2).sum()), 1e-12)
    return np.where(shares > 1e-9, points, 0.0), shares


def _called(text: str, start: int, end: int) -> str:
    """The word and the ones beside it."""
    before, behind = text[:start].split()[-1:], text[end:].split()[:1]
    return " ".join([*before, f"[{text[start:end]}]", *behind])
