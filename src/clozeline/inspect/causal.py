"""The same model reading from left to right only, and how much worse it finds masked words so: what reading both sides buys.

No token sees what stands behind it, in any layer. The model was never trained to read so: one trained from left to right
should lose less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeline.batch import Layout, Packed
from clozeline.data.corruption import Corruption, Masking
from clozeline.data.packing import Samples, by_tokens
from clozeline.data.shuffle import mixed
from clozeline.errors import InputError
from clozeline.evaluate.intervals import Interval, several
from clozeline.inspect import panels as kinds
from clozeline.inspect.drawing import drawn
from clozeline.inspect.view import View, called
from clozeline.model.encoder import ConvolvedLayer, Layer
from clozeline.model.heads import Network
from clozeline.model.kernels import ScoreBias
from clozeline.model.positions import Positions, Project
from clozeline.tasks.masked_lm import TOKENS

if TYPE_CHECKING:
    from clozeline.face import Model

READINGS = ("both sides", "left side only")
MEASURES = ("accuracy", "top5", "loss")
UNTRAINED = "The model was not trained to read the left side only; one trained from left to right should lose less."


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
        return f"What reading both sides buys {called(self.model)}"

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
    ranges = np.array([[(each.low, each.high) for each in side] for side in sides]).swapaxes(0, 1)
    return kinds.Bars(title, y, names, READINGS, values, ranges, note)


@torch.inference_mode()
def causal_gap(
    model: Model, texts: Sequence[str], *, mask_rate: float = 0.15, limit: int = 500, seed: int = 0
) -> CausalGap:
    """How well masked words are found from both sides and from the left only, on texts that the model was not trained on.

    The same words are masked, all by the mask token. The model was not trained to read the left side only: one
    trained from left to right should lose less.

    limit: texts that are read, drawn by `seed` where there are more. Texts longer than the model are cut, which is counted.

    Raises:
        InputError: the model has no masked-LM head, there are no texts or nothing in them, or the rate cannot be.
    """
    task, tokenizer, device = model._masked_lm(), model.tokenizer, model._device
    corrupt = Corruption(Masking(mask_rate, (1.0, 0.0, 0.0)), tokenizer)
    texts = [texts] if isinstance(texts, str) else list(texts)
    if limit < 1:
        raise InputError(f"limit is {limit}; read at least 1 text.")
    texts = drawn(texts, limit, seed)
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
