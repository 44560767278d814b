"""A trained network over many texts: batches of like length, results in the order of the input, memory that stays flat."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from clozeline.batch import Layout
from clozeline.data.packing import Samples, by_tokens
from clozeline.errors import InputError, nearest
from clozeline.model.heads import Network, Pooler, PretrainingHead
from clozeline.tasks.supervised import Supervised
from clozeline.tokenizer import Tokenizer

T = TypeVar("T")
log = logging.getLogger("clozeline")

WINDOW = 4096
"""Texts read ahead and sorted by length together."""
TOKENS = {"cpu": 2048, "cuda": 65536}
"""Tokens in one forward pass: on a CPU activations should stay in cache, on a GPU they should fill it."""
POOLS = ("mean", "cls", "pooler", "max", "tokens")


def batches(samples: Samples, device: torch.device) -> Iterator[np.ndarray]:
    """The examples in batches for one forward pass each, shortest first."""
    return by_tokens(samples.lengths, TOKENS.get(device.type, TOKENS["cuda"]))


@torch.inference_mode()
def logits(network: Network, task: Supervised, samples: Samples, device: torch.device) -> np.ndarray:
    """(S, C), or (T, C) where the head reads tokens, fp32 logits on the host, in the order of the samples."""
    windows, out = samples.apart(), np.empty((0, 0), np.float32)
    rows = len(samples.ids) if task.per_token else len(windows)
    for chosen in batches(windows, device):
        part = task.logits(network, windows.take(chosen).packed.to(device)).cpu().numpy()
        out = out if out.size else np.empty((rows, part.shape[1]), np.float32)
        if not task.per_token:
            out[chosen] = part
            continue
        ends = np.cumsum(windows.lengths[chosen])
        for at, end in zip(chosen.tolist(), ends.tolist(), strict=True):
            out[windows.bounds[at] : windows.bounds[at + 1]] = part[end - windows.lengths[at] : end]
    return out


def judge(
    network: Network, task: Supervised, tokenizer: Tokenizer, examples: Sequence[Any], device: torch.device
) -> tuple[np.ndarray, Samples]:
    """The logits of labelled examples, and the examples as samples; says what the long-text policy cost."""
    samples = task.samples(tokenizer, examples)
    if lost := int((samples.cut > 0).sum()):
        tokens = int(samples.cut.sum())
        log.warning("%d of %d texts lose %d tokens (long=%r).", lost, len(samples), tokens, task.long)
    return logits(network, task, samples, device), samples


def chunked(items: Iterable[T], size: int = WINDOW) -> Iterator[list[T]]:
    """Lists of at most `size` items; whatever has come by then when the source is slow stays in order."""
    source = iter(items)
    while part := list(itertools.islice(source, size)):
        yield part


def couples(texts: Any, pairs: Any) -> list[tuple[Any, Any]]:
    """Each text with what goes with it, None where nothing does; one text, or many.

    Raises:
        InputError: there is no text, or not one thing for each text.
    """
    alone = isinstance(texts, str)
    if not isinstance(texts, Iterable):
        raise InputError(f"texts is {texts!r:.40}; give a text, or a list of them.")
    texts = [texts] if alone else list(texts)
    nested = isinstance(pairs, list | tuple) and len(pairs) == 1
    one = isinstance(pairs, str) or (alone and not nested)
    others = [None] * len(texts) if pairs is None else [pairs] if one else list(pairs)
    if None in others and any(other is not None for other in others):
        raise InputError("Some pairs are None; give each text its pair, or none of them.")
    if len(others) != len(texts):
        raise InputError(f"There are {len(texts)} texts but {len(others)} pairs; give each text its pair.")
    return list(zip(texts, others, strict=True))


def decode(
    network: Network,
    task: Supervised,
    tokenizer: Tokenizer,
    examples: Iterable[Any],
    device: torch.device,
    window: int = WINDOW,
) -> Iterator[Any]:
    """A prediction for each example, in order, reading `window` of them ahead."""
    for part in chunked(examples, window):
        samples = task.samples(tokenizer, part, targets=False)
        yield from task.decode(logits(network, task, samples, device), samples)


def pooling(network: Network, pool: str) -> Callable[[Tensor, Layout], Tensor]:
    """How token states become one vector a text.

    Raises:
        InputError: no such pooling, or the model has no pooler.
    """
    if pool == "pooler":
        head = network.head
        head = head.pair if isinstance(head, PretrainingHead) else head
        pooler = head if isinstance(head, Pooler) else getattr(head, "pooler", None)
        if pooler is None:
            raise InputError("pool='pooler' needs a bare encoder or a classifier with its pooler; use 'mean' or 'cls'.")
        assert isinstance(pooler, Pooler)
        return pooler
    ways = {"mean": lambda x, layout: layout.mean(x), "cls": lambda x, layout: layout.first(x)}
    ways |= {"max": lambda x, layout: layout.max(x)}
    if pool not in ways:
        raise InputError(f"pool is {pool!r}: {nearest(str(pool), POOLS)}")
    return ways[pool]


@torch.inference_mode()
def embed(
    network: Network, samples: Samples, device: torch.device, *, pool: str, every_layer: bool = False
) -> np.ndarray | list[np.ndarray]:
    """Vectors in fp32, in the order of the samples.

    (n, D) where `pool` makes one of a text, the mean over its windows where it has several; or for pool="tokens" a list of
    (length, D), special tokens included.
    every_layer puts a dimension of layers + 1 before D: the embedding output, then each layer's.

    Raises:
        InputError: no such pooling, or a text in several windows, for which tokens have no single place.
    """
    combine = None if pool == "tokens" else pooling(network, pool)
    windows = samples.apart()
    if combine is None and len(windows) > len(samples):
        raise InputError("pool='tokens' cannot read a text in windows; use another pool or long='truncate'.")
    vectors: list[np.ndarray] = [np.empty(0)] * len(windows)
    for chosen in batches(windows, device):
        batch = windows.take(chosen).packed.to(device)
        states = list(network.encoder.states(batch)) if every_layer else [network.encoder(batch)]
        if combine is None:
            rows = torch.stack(states, 1) if every_layer else states[0]
            parts = [part.float().cpu().numpy() for part in rows.split(batch.layout.lengths)]
        else:
            pooled = [combine(state, batch.layout).float() for state in states]
            parts = list((torch.stack(pooled, 1) if every_layer else pooled[0]).cpu().numpy())
        for at, part in zip(chosen.tolist(), parts, strict=True):
            vectors[at] = part
    return vectors if combine is None else samples.mean(np.stack(vectors))


def unit(rows: np.ndarray) -> np.ndarray:
    """Vectors, (..., D), scaled to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
