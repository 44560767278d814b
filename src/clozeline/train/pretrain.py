"""A pre-training run in a folder: shards in, a model folder out, safe to stop at any moment.

out/model/         the model as it was at the last validation, complete at every moment
out/metrics.jsonl  steps and validations
out/curve.png      the losses
out/run.json       settings and corpus, to resume by
out/state.pt       what the next step needs; gone when the run has finished
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from clozeline.bundle import Bundle
from clozeline.data.corruption import Corruption, Masking
from clozeline.data.documents import Segments
from clozeline.data.pretraining import Collator, Place, Schedule, Stream
from clozeline.data.shards import Shards
from clozeline.files import staged, write_whole
from clozeline.model.heads import Network
from clozeline.model.positions import Learned
from clozeline.precision import compute_dtype
from clozeline.tasks.distillation import DistilledWords, Teacher
from clozeline.tasks.pretraining import MaskedAndPairs, Sum, head_for, replaced_tokens
from clozeline.train import cost, distributed
from clozeline.train.folder import interruptible, machinery, open_run
from clozeline.train.loggers import open_loggers
from clozeline.train.pretraining import Objectives, Pretraining, PretrainStep, averages, counted, passes
from clozeline.train.pretraining_settings import PretrainSettings
from clozeline.train.report import Metrics, Progress, pretraining_curve
from clozeline.train.teaching import digest, match_of

FREE = ("save_every", "validate_every", "log_every", "track")
"""Settings that a resumed run may change."""
VALIDATION_TOKENS = 2**19
"""Of held-out text that a validation reads at most, from its beginning in the random order of pass 0."""
BATCHES, POOLS = 16, 64
"""Batches that are shuffled together at least; pools that a run falls into at least, since a length holds for one."""
BESIDE = ("shards", "tokenizer", "validation", "recipe.toml")
"""What may be in the folder of a run before it."""
CPU = torch.device("cpu")
log = logging.getLogger("clozeline")


@dataclass(frozen=True)
class Pretrained:
    """A run's outcome. losses, accuracy: of each objective at the last validation, or of the last step without one.

    skipped: tokens that no example had, because pairs were cut to their length; finished: False when stopped.
    """

    out: Path
    steps: int
    tokens: int
    losses: dict[str, float]
    accuracy: dict[str, float]
    skipped: int
    finished: bool
    settings: PretrainSettings
    corpus: dict[str, int]


Card = Callable[[Bundle, Pretrained], str]
"""Makes the model card of what a run left."""


def pretrain(
    bundle: Bundle,
    shards: Shards,
    validation: Shards | None,
    out: Path,
    settings: PretrainSettings,
    *,
    device: torch.device,
    resume: bool = False,
    overwrite: bool = False,
    card: Card | None = None,
    teacher: Network | None = None,
    quiet: bool = False,
) -> Pretrained:
    """Train `bundle` in place on a corpus; `out/model` holds it after each validation and at the end.

    Ctrl-C ends the run after the step under way, with its state saved; a second one ends it at once. bundle: with the head
    that `head_for` names. validation: held-out text. teacher: a network with a masked-LM head to learn from.

    Raises:
        InputError: `out` holds another run, corpus or settings of a resumed run have changed, or the disk is full.
        Diverged: the loss is not a number any more; the last state stays in `out`.
    """
    group = distributed.join(device)
    whole = _identity(settings, bundle, shards, validation, device)
    if teacher is not None:
        whole["teacher"] = digest(teacher)
    group.agree("model, corpus and settings", whole)
    state = open_run(out, whole, resume, overwrite, group, beside=BESIDE)
    objectives = made(bundle, settings, teacher, device)
    tables = {f"{name}.table.weight" for name, part in bundle.network.named_modules() if isinstance(part, Learned)}
    how: dict[str, Any] = dict(device=device, group=group, fresh=not tables.isdisjoint(bundle.fresh))
    training = Pretraining(objectives, *reading(bundle, shards, settings), settings, **how)
    checks = None if validation is None else reading(bundle, validation, settings, checking=True)
    here, peak, work = machinery(device, group), cost.peak(device, settings.precision), cost.flops(objectives, settings)
    found: dict[str, dict[str, float]] = {} if state is None else state["losses"]
    with contextlib.ExitStack() as at_end:
        if state is not None:
            training.load_state(state["training"])
            if other := [f"{name} {value}" for name, value in state["machinery"].items() if here.get(name) != value]:
                log.warning("The run began under %s: what follows may differ in its last digits.", ", ".join(other))
            log.warning("Going on from step %d.", training.number)
        tracked = (
            open_loggers(settings.track, out, dataclasses.asdict(settings), training.number) if group.first else []
        )
        metrics = Metrics(out / "metrics.jsonl" if group.first else None, training.number, tracked)
        ended = False
        at_end.callback(lambda: metrics.close(ended))
        progress = Progress(show=group.first and not quiet)
        at_end.callback(progress.close)

        def save_state() -> None:
            kept = training.state()  # of a divided model all processes have to give theirs
            if group.first:
                with staged(out) as stage:
                    whole_state = {"training": kept, "losses": found, "machinery": here}
                    torch.save(whole_state, stage / "state.pt")

        def outcome(finished: bool) -> Pretrained:
            last, place = found or {"losses": {}, "accuracy": {}}, training.place
            about = {name: getattr(shards, name) for name in ("documents", "sentences", "tokens")}
            return Pretrained(
                out,
                training.number,
                place.tokens,
                last["losses"],
                last["accuracy"],
                place.skipped,
                finished,
                settings,
                about,
            )

        def save_model() -> None:
            kept: Any = training.masters.whole()
            if group.first:
                saved = dataclasses.replace(bundle, network=kept.kept(), fresh=[])
                saved.save(out / "model", None if card is None else card(saved, outcome(True)))

        def validate() -> None:
            if checks is not None:
                losses, accuracy = check(training.twin, *checks, training)
                found.update(losses=losses, accuracy=accuracy)
                metrics.line(step=training.number, **_named("validation_", losses, accuracy))
            save_model()

        meter = cost.Meter(work, peak * group.size)
        asked = 0.0
        with interruptible() as interrupted:
            for step in training:
                speed = meter.step(step.tokens, step.seconds, step.attended)
                if checks is None:
                    found.update(losses=step.losses, accuracy=step.accuracy)
                if step.number % settings.log_every == 0 or step.number == 1:
                    metrics.line(**_line(step), tokens_per_second=round(speed.rate), mfu=round(speed.share, 4))
                progress.tell(step.progress, f"step {step.number}  loss {step.loss:.3f}  {speed}")
                (asked,) = group.total(len(interrupted), device=device)
                if step.number % settings.validate_every == 0:
                    validate()
                if step.number % settings.save_every == 0 or asked:
                    save_state()
                if asked:
                    break
        ended = not asked
        if not ended:
            return outcome(False)
        validate()
    for name in (name for name, weight in training.weights.items() if weight and name not in found["losses"]):
        log.warning("%s was not learned or not measured: no two segments made a pair.", name)
    if group.first:
        pretraining_curve(out / "curve.png", metrics.lines)
        write_whole(out / "run.json", json.dumps({**whole, "finished": True}, indent=2) + "\n")
        (out / "state.pt").unlink(missing_ok=True)
    return outcome(True)


def made(
    bundle: Bundle, settings: PretrainSettings, teacher: Network | None = None, device: torch.device = CPU
) -> Objectives:
    """The networks of the objectives around the bundle's.

    Raises:
        InputError: a layer map, or heads, that do not fit student and teacher.
    """
    if teacher is not None:
        match = match_of(settings, bundle.network, teacher)
        along = Teacher(teacher.twin(compute_dtype(settings.precision, device), device))
        taught: dict[str, Any] = dict(temperature=settings.temperature, everywhere=settings.soft_at == "all")
        taught |= dict(soft=settings.soft > 0)
        return DistilledWords(bundle.network, along, match, seed=settings.seed, **taught)
    if settings.rtd:
        how: dict[str, Any] = dict(generator=settings.generator, embeddings=settings.embeddings, seed=settings.seed)
        return replaced_tokens(bundle.family, bundle.network, **how)
    return MaskedAndPairs(bundle.network, masked=settings.mlm > 0, pairs=settings.pair_objective)


def kind_of_head(family: Any, settings: PretrainSettings) -> str | None:
    """The head that a network needs for these settings; None for one that the training makes itself."""
    if settings.rtd:
        return "replaced_token" if "replaced_token" in family.heads else None
    return head_for(family, masked=settings.mlm > 0, pairs=settings.pair_objective)


def reading(
    bundle: Bundle, shards: Shards, settings: PretrainSettings, *, checking: bool = False
) -> tuple[Stream, Collator]:
    """How the corpus is read. checking: one pass over it, always with the same masks, in full batches and lengths."""
    tokenizer = bundle.tokenizer
    masks = settings.mlm or settings.distils
    masking = Masking(settings.mask_rate, settings.split, settings.mask_unit) if masks else None
    short, copies = (0.0, 1) if checking else (settings.short, settings.copies)
    schedule = Schedule(settings.passes, settings.tokens, settings.at_batch, settings.at_length)
    whole = settings.tokens or settings.passes * shards.tokens
    pool = max(BATCHES * settings.batch_tokens, int(whole / POOLS))
    segments = Segments(shards, settings.pairs, short=short, copies=copies, seed=settings.seed, pool_tokens=pool)
    if checking:
        schedule = Schedule(1.0, VALIDATION_TOKENS, lambda _: settings.max_tokens, lambda _: settings.length)
    corruption = None if masking is None else Corruption(masking, tokenizer)
    return Stream(segments, tokenizer, schedule), Collator(shards, tokenizer, corruption)


@torch.inference_mode()
def check(
    objectives: Any, stream: Stream, collate: Collator, training: Pretraining
) -> tuple[dict[str, float], dict[str, float]]:
    """The losses and accuracies of all objectives on held-out text, without dropout."""
    group, device, settings = training.group, training.device, training.settings
    objectives.eval()
    sums: list[dict[str, Sum]] = []
    counts = {name: 0.0 for name, weight in training.weights.items() if weight}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        for portion in stream(Place()):
            if portion.after.passed > 0:
                break
            lengths = stream.lengths(portion.examples)[portion.rows]
            parts, real = passes(lengths, settings.max_tokens, group, equal=settings.sharded)
            for number, part in enumerate(parts):
                batch = collate(portion.examples, portion.rows[part])
                found = objectives(batch.to(device))
                if number < real:
                    sums.append({name: each for name, each in found.items() if name in counts})
                    counts = {name: count + counted(batch, settings)[name] for name, count in counts.items()}
    totals = group.total(*counts.values(), device=device)
    return averages(sums, dict(zip(counts, totals, strict=True)), group, device)


UNITS = {"soft": "% the teacher's word", "hidden": "% cosine"}
"""What the accuracy of an objective is; of the others it is the share of right answers."""


def said(losses: dict[str, float], accuracy: dict[str, float]) -> list[str]:
    """A line for each objective, for people."""
    lines = []
    for name, loss in losses.items():
        part = "" if name == "relations" else f", {100 * accuracy[name]:.2f} {UNITS.get(name, '% right')}"
        lines.append(f"{name}: loss {loss:.4f}{part}")
    return lines


def _named(before: str, losses: dict[str, float], accuracy: dict[str, float]) -> dict[str, float]:
    accuracy = {name: value for name, value in accuracy.items() if name != "relations"}
    return {f"{before}{name}_loss": value for name, value in losses.items()} | {
        f"{before}{name}_accuracy": value for name, value in accuracy.items()
    }


def _line(step: PretrainStep) -> dict[str, Any]:
    return {
        "step": step.number,
        "progress": round(step.progress, 6),
        "tokens": step.place.tokens,
        "loss": step.loss,
        **_named("", step.losses, step.accuracy),
        "learning_rate": step.learning_rate,
        "grad_norm": step.grad_norm,
        "seconds": round(step.seconds, 4),
    }


def _identity(
    settings: PretrainSettings, bundle: Bundle, shards: Shards, validation: Shards | None, device: torch.device
) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    return {
        "settings": {key: value for key, value in dataclasses.asdict(settings).items() if key not in FREE},
        "precision": str(compute_dtype(settings.precision, device)).removeprefix("torch."),
        "model": {**dataclasses.asdict(bundle.config), "weights": digest(bundle.network)},
        "corpus": [
            None if each is None else sha256(each.manifest.json().encode()).hexdigest() for each in (shards, validation)
        ],
    }
