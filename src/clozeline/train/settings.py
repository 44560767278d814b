"""The settings of a training run, with the defaults published for fine-tuning BERT."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from clozeline.errors import InputError, nearest
from clozeline.train.distilling import Distilling

Given = TypeVar("Given")
Schedule = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Distilling):
    """How to train. Rates are per step, sizes in examples or tokens.

    Defaults are Devlin et al. 2019, appendix A.3: batch 32, 2e-5, 3 epochs, 10 % warm-up, then linear decay, decay 0.01.

    Args:
        epochs: passes over the training data.
        batch_size: examples in a step.
        learning_rate: the highest, reached after the warm-up.
        warmup: share of all steps in which the learning rate rises from 0.
        schedule: how the learning rate falls after the warm-up: "linear" or "cosine" to 0, or "constant".
        weight_decay: AdamW's, on matrices and tables; norms and biases have none.
        layer_decay: factor on the learning rate for each step down from the head, such as 0.8; 1 is one rate for all.
            The head (and a final norm) has the rate itself, the top layer of n the rate times decay, the lowest times
            decay^n, the embeddings times decay^(n + 1): Howard and Ruder 2018. Layers that share their weights (ALBERT)
            count as one. ELECTRA's code (Clark et al. 2020) puts one step more between the head and the top layer.
        freeze: how many of the lower layers stay as they are, with the embeddings below them; 0 trains everything.
            With all layers frozen only the head (and a final norm) learns. What is frozen costs no backward pass.
        bias_correction: correct Adam's moments for their start at zero (Kingma and Ba 2015).
            Without, as BERT was published, early steps are up to 6.6 times as long, which makes fine-tuning on little
            data unstable (Mosbach et al. 2021, Zhang et al. 2021).
        clip: largest norm of the gradient; 0 clips nothing.
        seed: of the order of the data, dropout and fresh weights.
        precision: of the computation, over fp32 weights: "bf16", "fp32", or "auto", bf16 where the machine is fast at it.
        max_tokens: tokens in one forward pass; a batch of more is accumulated from several, exactly. All windows of one
            text are in one pass, however many.
        patience: stop after so many epochs without a better validation score; None trains all epochs. The best is kept.
        save_every: steps between saved states, from which a stopped run goes on; each epoch's end saves one too.
        grouping: put like lengths together inside shuffled windows of 50 batches.
        metric: the validation score that chooses the best epoch, such as macro_f1; None is the task's own.
        track: trackers that get the metrics beside metrics.jsonl: tensorboard, wandb, mlflow; one, or several in a list.
        hard: weight of the labels beside what a teacher says; of texts without labels they are the teacher's answers.

    Raises:
        InputError: a value that cannot be, with the setting named.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 2e-5
    warmup: float = 0.1
    schedule: Schedule = "linear"
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    freeze: int = 0
    bias_correction: bool = True
    clip: float = 1.0
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    max_tokens: int = 16384
    patience: int | None = None
    save_every: int = 500
    grouping: bool = True
    metric: str | None = None
    track: tuple[str, ...] = ()
    hard: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "track", (self.track,) if isinstance(self.track, str) else tuple(self.track))
        check_numbers(self)
        for name in ("epochs", "batch_size", "max_tokens", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        self.check_distilling()
        for name in ("learning_rate", "weight_decay", "freeze", "clip", "seed", "hard"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if self.seed >= 2**32:
            raise InputError(f"seed is {self.seed}; it must be below {2**32}.")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay is {self.layer_decay}; it must be above 0 and at most 1.")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is {self.warmup}; it is the share of steps that warm up, from 0 to below 1.")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience is {self.patience}; it must be at least 1 epoch, or left out.")

    def replace(self, **changes: object) -> Settings:
        """The same settings with some changed; an unknown one is an error that names the nearest."""
        return replaced(self, changes)


def check_numbers(settings: Any) -> None:
    """InputError where a field that is to be a number, a switch or one of a few words is none."""
    for name, hint in get_type_hints(type(settings)).items():
        value, kinds = getattr(settings, name), get_args(hint) or (hint,)
        if get_origin(hint) is tuple:
            continue
        if get_origin(hint) is Literal:
            if value not in kinds:
                raise InputError(f"{name} is {value!r}: {nearest(str(value), kinds)}")
            continue
        if hint is bool and not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}; it must be true or false.")
        fits = isinstance(value, int | float if float in kinds else int) and not isinstance(value, bool)
        if (float in kinds or int in kinds) and not fits and not (value is None and type(None) in kinds):
            raise InputError(f"{name} is {value!r}; it must be a {'number' if float in kinds else 'whole number'}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name} is {value}; it must be a finite number.")


def replaced(settings: Given, changes: Mapping[str, object]) -> Given:
    """The same settings with some changed.

    Raises:
        InputError: there is no such setting; the nearest is named.
    """
    known = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            raise InputError(f"There is no training setting {name!r}: {nearest(name, known)}")
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]
