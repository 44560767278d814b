"""How well a masked-LM model finds the masked words of a text: loss and accuracy with intervals."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from clozeline.data.corpus import Split
from clozeline.data.corruption import Corruption, Masking
from clozeline.data.documents import Segments
from clozeline.data.packing import by_tokens
from clozeline.data.pretraining import Collator, Place, Schedule, Stream
from clozeline.data.shard_writing import write
from clozeline.data.shards import Shards
from clozeline.evaluate.intervals import Interval, several
from clozeline.model.heads import Network
from clozeline.tasks.masked_lm import TOKENS, MaskedLM
from clozeline.tokenizer import Tokenizer

LENGTH = 512


@dataclass(frozen=True)
class MaskedReport:
    """loss: mean cross-entropy of a masked token in nats; accuracy: how often the likeliest token is the right one; both
    with 95 % intervals over sequences. tokens, masked: that were read and predicted; length: of a sequence at most."""

    loss: Interval
    accuracy: Interval
    documents: int
    tokens: int
    masked: int
    length: int

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        counts = {"documents": self.documents, "tokens": self.tokens, "masked": self.masked, "length": self.length}
        perplexity = math.exp(min(self.loss.value, 700.0))
        return {**self.loss.named("loss"), **self.accuracy.named("accuracy"), "perplexity": perplexity, **counts}

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.masked:,} masked tokens of {self.tokens:,} in {self.documents:,} documents, "
                f"sequences of up to {self.length}",
                f"loss      {self.loss}",
                f"accuracy  {self.accuracy}",
            ]
        )


@torch.inference_mode()
def evaluate(
    network: Network,
    tokenizer: Tokenizer,
    sources: Sequence[str | Path],
    *,
    text: str | None = None,
    split: Split = "file",
    encoding: str = "utf-8",
    length: int | None = None,
    device: torch.device,
) -> MaskedReport:
    """Mask 15 % of every sequence's tokens, always the same: 80 % by the mask, 10 % by a random token, 10 % not.

    sources, text, split, encoding: as in `corpus.documents`; length: tokens of a sequence, 512 or what the model reads.

    Raises:
        InputError: the text cannot be read, or there is none; the tokenizer has no mask.
    """
    longest = min(length or LENGTH, network.config.max_length)
    task, rows, tokens = MaskedLM(), [], 0
    with tempfile.TemporaryDirectory() as held:
        how: dict[str, Any] = dict(text=text, split=split, encoding=encoding, workers=1, quiet=True)
        write(sources, tokenizer, Path(held), **how)
        shards = Shards.open(held)
        schedule = Schedule(1.0, None, lambda _: TOKENS, lambda _: longest)
        stream = Stream(Segments(shards, None, short=0.0, copies=1), tokenizer, schedule)
        collate = Collator(shards, tokenizer, Corruption(Masking(), tokenizer))
        for portion in stream(Place()):
            for part in by_tokens(stream.lengths(portion.examples)[portion.rows], TOKENS):
                batch = collate(portion.examples, portion.rows[part]).to(device)
                logits_MV = task.logits(network, batch.packed, batch.chosen)
                owners = batch.packed.layout.owners[batch.chosen].cpu().numpy()
                loss = F.cross_entropy(logits_MV, batch.targets, reduction="none").double().cpu().numpy()
                right = (logits_MV.argmax(-1) == batch.targets).double().cpu().numpy()
                found = np.stack([np.ones(len(loss)), loss, right], 1)
                sums = np.zeros((len(batch.packed.layout.lengths), 3))
                np.add.at(sums, owners, found)
                rows.append(sums)
                tokens += batch.packed.layout.tokens
    table = np.concatenate(rows)
    table = table[table[:, 0] > 0]
    loss_and_right = several(table, lambda sums: sums[:, 1:] / sums[:, :1])
    return MaskedReport(loss_and_right[0], loss_and_right[1], shards.documents, tokens, int(table[:, 0].sum()), longest)
