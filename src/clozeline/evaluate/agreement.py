"""Do two masked-LM models expect the same words? Their distributions over one vocabulary, mask by mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TOP = 5


@dataclass(frozen=True, slots=True)
class Cloze:
    """One mask of a sentence. a, b: each model's likeliest tokens with their probabilities, best first, TOP of them.

    shared: how large a share of a's tokens is among b's; kl: the sum over the vocabulary of p_a log(p_a / p_b), nats.
    """

    sentence: str
    a: tuple[tuple[str, float], ...]
    b: tuple[tuple[str, float], ...]
    shared: float
    kl: float

    def as_dict(self) -> dict[str, Any]:
        """The mask as JSON takes it."""
        a, b = ([{"token": token, "score": score} for token, score in words] for words in (self.a, self.b))
        return {"sentence": self.sentence, "a": a, "b": b, "shared": self.shared, "kl": self.kl}


@dataclass(frozen=True, slots=True)
class MaskedAgreement:
    """Of two models over all masks: means of what each `Cloze` says.

    agreement_1: how often both have the same best token; agreement_5: share of a's TOP tokens that are among b's; kl:
    KL(a || b) between the whole distributions (Kullback and Leibler 1951), in nats.
    """

    clozes: tuple[Cloze, ...]

    @property
    def agreement_1(self) -> float:
        return float(np.mean([each.a[0][0] == each.b[0][0] for each in self.clozes]))

    @property
    def agreement_5(self) -> float:
        return float(np.mean([each.shared for each in self.clozes]))

    @property
    def kl(self) -> float:
        return float(np.mean([each.kl for each in self.clozes]))

    def as_dict(self) -> dict[str, Any]:
        """The agreement as JSON takes it."""
        means = {"agreement_1": self.agreement_1, "agreement_5": self.agreement_5, "kl": self.kl}
        return {"masks": len(self.clozes), **means, "clozes": [each.as_dict() for each in self.clozes]}

    def __str__(self) -> str:
        lines = []
        for at, each in enumerate(self.clozes):
            if not at or each.sentence != self.clozes[at - 1].sentence:
                lines.append(each.sentence)
            for name, words in (("A", each.a), ("B", each.b)):
                lines.append(f"  {name}  " + "  ".join(f"{token} {score:.3f}" for token, score in words))
        return "\n".join(lines)


def clozes(sentence: str, tokens: Sequence[str], a_MV: np.ndarray, b_MV: np.ndarray) -> list[Cloze]:
    """What (M, V) logits of two models at the M masks of a sentence have in common. tokens: the V tokens by name."""
    found = []
    for a_V, b_V in zip(_logs(a_MV), _logs(b_MV), strict=True):
        best = [np.argsort(-logs_V, kind="stable")[:TOP] for logs_V in (a_V, b_V)]
        a, b = (
            tuple((tokens[at], float(np.exp(logs_V[at]))) for at in rows)
            for rows, logs_V in zip(best, (a_V, b_V), strict=True)
        )
        shared = float(np.isin(best[0], best[1]).mean())
        found.append(Cloze(sentence, a, b, shared, float((np.exp(a_V) * (a_V - b_V)).sum())))
    return found


def _logs(logits_MV: np.ndarray) -> np.ndarray:
    """Log probabilities in fp64: of nearly equal models the terms of KL cancel."""
    shifted = logits_MV.astype(np.float64) - logits_MV.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
