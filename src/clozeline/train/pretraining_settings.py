"""The settings of a pre-training run, with the defaults published for BERT where a small machine can bear them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clozeline.errors import InputError
from clozeline.train.distilling import Distilling
from clozeline.train.settings import check_numbers, replaced

Curve = Literal["linear", "cosine", "constant", "trapezoidal", "one_cycle"]
MaskUnit = Literal["token", "word", "span"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings(Distilling):
    """How to pre-train. Shares are of the whole run, sizes in tokens with the special ones counted.

    Args:
        passes: over the corpus, such as 2 or 0.5.
        tokens: to train on in all, instead of passes.
        batch_tokens: tokens in a step; sequences are packed until it is full, nothing is padded.
        first_batch_tokens: tokens in the first step, where they rise; 0 begins with batch_tokens.
        batch_warmup: share of the run in which they rise.
        length: tokens of a sequence, special ones counted.
        first_length: length in the first part of the run; 0 is `length` (BERT: 128 for 0.9 of the steps, then 512).
        first_share: share of the run that has it.
        short: share of the sections whose sequences are shorter, so that the model sees all lengths.
        mlm: weight of the masked-word loss; 0 leaves it out (Devlin et al. 2019).
        nsp: weight of next-sentence prediction: does the second segment follow, or is it from another document?
        sop: weight of sentence-order prediction: are both segments in order? (Lan et al. 2020, ALBERT)
        rtd: weight of replaced-token detection; a small generator is trained along (Clark et al. 2020, ELECTRA: 50).
        mask_rate: share of the tokens to predict.
        mask_split: shares of these that become the mask, become a random token, and stay; empty: 0.8, 0.1, 0.1, or with rtd
            1, 0, 0.
        mask_unit: what is masked: a token, a whole word, or a span of words (Joshi et al. 2020, SpanBERT).
        copies: how many versions of examples and masks there are: 0 makes every pass another one (RoBERTa), 1 always
            the same (static), 10 as BERT.
        generator: width of the generator as a share of the model's (ELECTRA: 0.25 to 0.33).
        embeddings: of generator and model: "shared" (ELECTRA), or "disentangled", so that the model's loss does not pull
            at the generator's (He et al. 2023, DeBERTa-v3).
        optimizer: "adamw", or "muon" for the matrices of the layers and AdamW for the rest (Jordan et al. 2024).
        learning_rate: the highest.
        muon_rate: Muon's highest; updates are scaled to AdamW's size (Liu et al. 2025), so that a rate near it fits.
        schedule: how the rate goes after the warm-up: "linear" or "cosine" to 0, "constant", "trapezoidal": constant and
            linearly to 0 in the last part; or "one_cycle": up to the middle of the run and down again.
        warmup: share of the run in which the rate rises from 0.
        cooldown: share of a trapezoidal run in which it falls.
        weight_decay: on matrices and tables; norms and biases have none.
        beta2: of AdamW's second moment (BERT 0.999, RoBERTa 0.98).
        eps: of AdamW.
        clip: largest norm of the gradient; 0 clips nothing.
        seed: of the weights, the order, the masks and dropout.
        precision: of the computation over fp32 weights: "bf16", "fp32", or "auto", bf16 where the machine is fast at it.
        max_tokens: tokens in one forward pass; a batch of more is accumulated, exactly.
        checkpointing: keep only each layer's input for the backward pass and compute the rest twice, to save memory.
        compile: let torch compile the feed-forward part of each layer; for GPUs.
        sharded: divide weights, gradients and optimiser over the processes of torchrun (FSDP2), for models too large for
            one GPU.
        save_every: steps between saved states.
        validate_every: steps between validations, and one at the end.
        log_every: steps between lines in metrics.jsonl.
        track: trackers that get the metrics beside metrics.jsonl: tensorboard, wandb, mlflow.
        soft_at: where a teacher's probabilities are learned: at the "masked" tokens, or at "all", as in DistilBERT's code.

    Raises:
        InputError: a value that cannot be, with the setting named.
    """

    passes: float = 1.0
    tokens: int | None = None
    batch_tokens: int = 16384
    first_batch_tokens: int = 0
    batch_warmup: float = 0.0
    length: int = 128
    first_length: int = 0
    first_share: float = 0.0
    short: float = 0.1
    mlm: float = 1.0
    nsp: float = 0.0
    sop: float = 0.0
    rtd: float = 0.0
    mask_rate: float = 0.15
    mask_split: tuple[float, ...] = ()
    mask_unit: MaskUnit = "token"
    copies: int = 0
    generator: float = 0.25
    embeddings: Literal["shared", "disentangled"] = "shared"
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-4
    muon_rate: float = 1e-3
    schedule: Curve = "linear"
    warmup: float = 0.01
    cooldown: float = 0.2
    weight_decay: float = 0.01
    beta2: float = 0.999
    eps: float = 1e-6
    clip: float = 1.0
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    max_tokens: int = 16384
    checkpointing: bool = False
    compile: bool = False
    sharded: bool = False
    save_every: int = 500
    validate_every: int = 1000
    log_every: int = 10
    track: tuple[str, ...] = ()
    soft_at: Literal["masked", "all"] = "masked"

    def __post_init__(self) -> None:
        for name in ("track", "mask_split"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list | tuple) else (value,))
        check_numbers(self)
        self.check_distilling()
        for name in ("batch_tokens", "length", "max_tokens", "save_every", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        least = (
            "first_batch_tokens",
            "first_length",
            "mlm",
            "nsp",
            "sop",
            "rtd",
            "copies",
            "learning_rate",
            "muon_rate",
        )
        for name in (*least, "weight_decay", "clip", "seed"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must not be negative.")
        for name in ("batch_warmup", "first_share", "short", "warmup", "cooldown", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1.")
        if self.tokens is not None and self.tokens < 1:
            raise InputError(f"tokens is {self.tokens}; it must be at least 1, or left out.")
        if not 0 < self.mask_rate < 1:
            raise InputError(f"mask_rate is {self.mask_rate}; it is a share of the tokens, above 0 and below 1.")
        parts = self.split
        if not all(isinstance(part, int | float) for part in parts) or len(parts) != 3 or min(parts) < 0:
            raise InputError(f"mask_split is {parts}; give three shares of the masked tokens, such as 0.8, 0.1, 0.1.")
        if abs(sum(parts) - 1) > 1e-6:
            raise InputError(f"mask_split is {parts}; the three shares must sum to 1.")
        if self.schedule == "trapezoidal" and self.warmup + self.cooldown > 1:
            raise InputError(f"warmup {self.warmup} and cooldown {self.cooldown} are more than the whole run together.")
        if not self.passes > 0 or not self.eps > 0 or not 0 < self.generator <= 1:
            raise InputError("passes and eps must be above 0, and generator above 0 and at most 1.")
        if self.seed >= 2**32:
            raise InputError(f"seed is {self.seed}; it must be below {2**32}.")
        if self.nsp and self.sop:
            raise InputError("nsp and sop need different pairs of segments; give one of them a weight.")
        if self.rtd and (self.nsp or self.sop):
            raise InputError("rtd reads single segments; leave nsp and sop out.")
        if not (self.mlm or self.nsp or self.sop or self.rtd or self.distils):
            raise InputError("There is nothing to learn: give mlm, nsp, sop or rtd a weight above 0.")
        if self.distils and (self.nsp or self.sop or self.rtd):
            raise InputError("Beside a teacher masked words alone are learned; leave nsp, sop and rtd out.")
        if self.rtd and not self.mlm:
            raise InputError("rtd needs a generator, which learns by the masked-word loss; give mlm a weight too.")

    def replace(self, **changes: object) -> PretrainSettings:
        """The same settings with some changed; an unknown one is an error that names the nearest."""
        return replaced(self, changes)

    @property
    def split(self) -> tuple[float, ...]:
        """What becomes of the chosen tokens; a generator would learn nothing from those that it sees."""
        return self.mask_split or ((1.0, 0.0, 0.0) if self.rtd else (0.8, 0.1, 0.1))

    @property
    def pairs(self) -> Literal["next", "order"] | None:
        """Which pairs of segments the objectives need."""
        return "next" if self.nsp else "order" if self.sop else None

    @property
    def pair_objective(self) -> Literal["nsp", "sop"] | None:
        """What the pairs teach."""
        return "nsp" if self.nsp else "sop" if self.sop else None

    def at_length(self, progress: float) -> int:
        """The length of sequences at a share of the run."""
        return self.first_length if self.first_length and progress < self.first_share else self.length

    def at_batch(self, progress: float) -> int:
        """The tokens in a step at a share of the run."""
        if not self.first_batch_tokens or progress >= self.batch_warmup:
            return self.batch_tokens
        return round(
            self.first_batch_tokens + (self.batch_tokens - self.first_batch_tokens) * progress / self.batch_warmup
        )

    def rate_at(self, progress: float) -> float:
        """The learning rate at a share of the run, as a factor of the highest."""
        if self.schedule == "one_cycle":
            return max(0.0, min(2 * progress, 2 - 2 * progress))
        if progress < self.warmup:
            return progress / self.warmup
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "trapezoidal":
            return max(0.0, min(1.0, (1 - progress) / self.cooldown)) if self.cooldown else 1.0
        done = min(1.0, (progress - self.warmup) / max(1e-12, 1 - self.warmup))
        return 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
