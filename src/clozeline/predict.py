"""A trained network over many texts: batches of like length, results in the order of the input, memory that stays flat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from clozeline.batch import Layout
from clozeline.data.packing import Samples, by_tokens
from clozeline.data.readers import Example
from clozeline.errors import InputError, nearest
from clozeline.model.heads import Network, Pooler
from clozeline.tasks.text_classification import Prediction, TextClassification
from clozeline.tokenizer import Tokenizer

T = TypeVar("T")

WINDOW = 4096
"""Texts read ahead and sorted by length together."""
TOKENS = {"cpu": 2048, "cuda": 65536}
"""Tokens in one forward pass: on a CPU activations should stay in cache, on a GPU they should fill it."""
POOLS = ("mean", "cls", "pooler", "max", "tokens")


def batches(samples: Samples, device: torch.device) -> Iterator[np.ndarray]:
    """The examples in batches for one forward pass each, shortest first."""
    return by_tokens(samples.lengths, TOKENS.get(device.type, TOKENS["cuda"]))


@torch.inference_mode()
def logits(network: Network, task: TextClassification, samples: Samples, device: torch.device) -> Tensor:
    """(n, C) fp32 logits on the host, in the order of the samples; of a text in windows, their mean."""
    windows, out = samples.apart(), np.empty((0, 0), np.float32)
    for chosen in batches(windows, device):
        batch, _ = windows.take(chosen)
        part = task.logits(network, batch.to(device), None).cpu().numpy()
        out = out if out.size else np.empty((len(windows), part.shape[1]), np.float32)
        out[chosen] = part
    return torch.from_numpy(samples.mean(out))


def chunked(items: Iterable[T], size: int = WINDOW) -> Iterator[list[T]]:
    """Lists of at most `size` items; whatever has come by then when the source is slow stays in order."""
    source = iter(items)
    while part := list(itertools.islice(source, size)):
        yield part


def classify(
    network: Network,
    task: TextClassification,
    tokenizer: Tokenizer,
    examples: Iterable[Example],
    device: torch.device,
    window: int = WINDOW,
) -> Iterator[Prediction]:
    """A prediction for each example, in order, reading `window` of them ahead."""
    for part in chunked(examples, window):
        samples = task.samples(tokenizer, part, targets=False)
        scores = logits(network, task, samples, device)
        yield from task.decode(scores, samples.tokens.tolist(), samples.cut.tolist())


def pooling(network: Network, pool: str) -> Callable[[Tensor, Layout], Tensor]:
    """How token states become one vector a text.

    Raises:
        InputError: no such pooling, or the model has no pooler.
    """
    if pool == "pooler":
        head = network.head
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
        batch = windows.take(chosen)[0].to(device)
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
