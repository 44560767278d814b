"""Pre-training: it learns, it stops and goes on anywhere, and several processes are as one."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.bundle import Bundle
from clozeline.data.documents import Segments
from clozeline.data.pretraining import Place, Portion, Schedule, Stream, ahead
from clozeline.data.shard_writing import write
from clozeline.data.shards import Shards
from clozeline.errors import InputError
from clozeline.families import by_name
from clozeline.model.positions import Learned
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tasks.pretraining import ReplacedTokens
from clozeline.tokenizer import Tokenizer
from clozeline.train import cost
from clozeline.train.folder import finished
from clozeline.train.pretrain import Pretrained, kind_of_head, made, pretrain, reading
from clozeline.train.pretraining import Pretraining, PretrainStep
from clozeline.train.pretraining_settings import PretrainSettings

WORDS = [f"w{number}" for number in range(60)]
SMALL: dict[str, Any] = dict(
    batch_tokens=600, length=32, precision="fp32", learning_rate=2e-3, short=0.0, save_every=3, log_every=1
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]))
    return Tokenizer.load(folder, 64)


@pytest.fixture(scope="module")
def shards(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """100 documents of four sentences of random words."""
    folder, draw = tmp_path_factory.mktemp("corpus"), random.Random(0)
    text = [
        " ".join(" ".join(draw.choices(WORDS, k=draw.randint(2, 8))).capitalize() + "." for _ in range(4))
        for _ in range(100)
    ]
    (folder / "text.txt").write_text("\n".join(text))
    write([folder / "text.txt"], tokenizer, folder / "shards", split="line", workers=1, quiet=True)
    return Shards.open(folder / "shards", tokenizer)


def bundle(tokenizer: Tokenizer, settings: PretrainSettings, family: str = "bert", **sizes: Any) -> Bundle:
    """Fresh weights of two narrow layers, with the head that the settings need."""
    shape: dict[str, Any] = dict(
        vocab_size=tokenizer.vocab_size, width=32, layers=2, heads=2, ffn_width=64, max_length=64, dropout=0.0
    )
    shape |= {"max_length": 64, "dropout": 0.0, "attention_dropout": 0.0, **sizes}
    if family == "modernbert":
        shape["windows"] = (None, 16)
    config = next(iter(by_name(family).presets.values())).replace(**shape)
    network = by_name(family).build(config, kind_of_head(by_name(family), settings), seed=settings.seed)
    fresh = [name for name, _ in network.named_parameters()]
    return Bundle("fresh", by_name(family), network, tokenizer, None if settings.rtd else MaskedLM(), fresh)


def train(shards: Shards, tokenizer: Tokenizer, out: Path, *, resume: bool = False, **changes: Any) -> Pretrained:
    settings = PretrainSettings(**SMALL | changes)
    model = bundle(tokenizer, settings, dropout=0.1)
    return pretrain(model, shards, shards, out, settings, device=torch.device("cpu"), resume=resume, quiet=True)


def steps(
    model: Bundle, shards: Shards, settings: PretrainSettings, *, fresh: bool = False
) -> tuple[Pretraining, Iterator[PretrainStep]]:
    how: dict[str, Any] = dict(device=torch.device("cpu"), fresh=fresh)
    training = Pretraining(made(model, settings), *reading(model, shards, settings), settings, **how)
    return training, iter(training)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def test_two_layers_overfit_a_hundred_documents(shards: Shards, tokenizer: Tokenizer) -> None:
    settings = PretrainSettings(**SMALL | dict(copies=1, passes=130, batch_tokens=4096, learning_rate=1.2e-2))
    _, taken = steps(bundle(tokenizer, settings, width=64, ffn_width=128), shards, settings)
    losses = [step.losses["mlm"] for step in taken]
    assert losses[0] > 3.5 and losses[-1] < 0.05


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", dict(nsp=1.0)),
        ("bert", dict(mlm=0.0, nsp=1.0)),
        ("albert", dict(sop=1.0, mask_unit="span")),
        ("roberta", dict(mask_unit="word")),
        ("electra", dict(rtd=50.0, generator=0.5)),
        ("deberta-v2", dict(rtd=50.0, embeddings="disentangled")),
        ("modernbert", dict(optimizer="muon", schedule="trapezoidal", batch_warmup=0.5, first_batch_tokens=200)),
        ("bert", dict(first_length=16, first_share=0.5, max_tokens=150, checkpointing=True)),
    ],
)
def test_every_objective_learns_and_its_model_loads_again(
    family: str, changes: dict[str, Any], shards: Shards, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    settings = PretrainSettings(**SMALL | dict(passes=6) | changes)
    sizes = dict(embedding_width=16) if family in ("albert", "electra") else {}
    model = bundle(tokenizer, settings, family, **sizes)
    run = pretrain(model, shards, shards, tmp_path, settings, device=torch.device("cpu"), quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    wanted = [name for name in ("mlm", "nsp", "sop", "rtd") if getattr(settings, name)]
    assert list(run.losses) == wanted == list(run.accuracy)
    first, last = (line for line in (lines[0], [line for line in lines if "loss" in line][-1]))
    assert last["loss"] < first["loss"] or not settings.mlm, "random words do not tell what follows"
    loaded = cl.load(tmp_path / "model")
    assert isinstance(loaded.task, MaskedLM) == bool(settings.mlm and not settings.rtd)
    if isinstance(loaded.task, MaskedLM):
        assert len(loaded.fill_mask("W1 [MASK] w3.", top=3)[0]) == 3
    assert np.shape(loaded.embed(["w1 w2"])) == (1, 32)


def test_what_is_saved_of_disentangled_tables_is_their_sum(shards: Shards, tokenizer: Tokenizer) -> None:
    settings = PretrainSettings(**SMALL | dict(rtd=50.0, embeddings="disentangled"))
    model = bundle(tokenizer, settings, "deberta-v2")
    training, taken = steps(model, shards, settings)
    objectives: Any = training.objectives
    assert isinstance(objectives, ReplacedTokens)
    generator = objectives.generator.encoder.embedding.tokens.weight
    added = objectives.discriminator.encoder.embedding.tokens.weight
    assert torch.equal(added, torch.zeros_like(added)), "the model begins with the generator's table"
    first = generator.detach().clone()
    for _ in range(3):
        next(taken)
    assert added.abs().max() > 0 and not torch.equal(generator, first)
    assert torch.equal(objectives.kept().encoder.embedding.tokens.weight, generator + added)


def test_the_models_loss_does_not_pull_at_a_disentangled_generator(shards: Shards, tokenizer: Tokenizer) -> None:
    for embeddings, pulls in (("shared", True), ("disentangled", False)):
        settings = PretrainSettings(**SMALL | dict(rtd=50.0, embeddings=embeddings))
        model = bundle(tokenizer, settings, "electra")
        objectives = made(model, settings)
        stream, collate = reading(model, shards, settings)
        portion = next(stream(Place()))
        found = objectives(collate(portion.examples, portion.rows))
        found["rtd"].loss.backward()
        assert isinstance(objectives, ReplacedTokens)
        table = objectives.generator.encoder.embedding.tokens.weight
        assert (table.grad is not None) == pulls
        assert objectives.generator.head is not None
        assert all(part.grad is None for part in objectives.generator.head.parameters()), (
            "no gradient goes through a draw"
        )


def test_accumulating_over_forward_passes_changes_nothing(shards: Shards, tokenizer: Tokenizer) -> None:
    found = []
    for max_tokens in (600, 90):
        settings = PretrainSettings(**SMALL | dict(nsp=1.0, max_tokens=max_tokens))
        training, taken = steps(bundle(tokenizer, settings), shards, settings)
        losses = [next(taken).loss for _ in range(4)]
        found.append((losses, [part.detach().clone() for part in training.objectives.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_pass_without_pairs_takes_no_gradient_from_the_step_before(
    precision: str, shards: Shards, tokenizer: Tokenizer
) -> None:
    """Passes are sorted by length, and the shortest sequences are no pairs: the pair head's gradient is as in one pass."""
    norms = []
    for max_tokens in (600, 60):
        settings = PretrainSettings(
            **SMALL | dict(sop=1.0, max_tokens=max_tokens, learning_rate=0.0, precision=precision)
        )
        settings = settings.replace(short=0.9)
        model = bundle(tokenizer, settings)
        training, taken = steps(model, shards, settings)
        next(taken)
        stepped = training.optimizers[0].step
        seen: list[float] = []
        head = model.network.head
        assert head is not None

        def step(*_: Any, head: Any = head, seen: list[float] = seen, stepped: Any = stepped) -> None:
            seen.append(sum(part.grad.norm().item() for part in head.pair.parameters()))
            stepped()

        training.optimizers[0].step = step  # type: ignore[method-assign, assignment]
        for _ in range(2):
            next(taken)
        norms.append(seen)
    assert norms[0] == pytest.approx(norms[1], rel=0.05 if precision == "bf16" else 1e-3)


def test_recomputing_layers_gives_the_same_steps_with_dropout_too(shards: Shards, tokenizer: Tokenizer) -> None:
    found = []
    for checkpointing in (False, True):
        settings = PretrainSettings(**SMALL | dict(checkpointing=checkpointing))
        _, taken = steps(bundle(tokenizer, settings, dropout=0.1, attention_dropout=0.1), shards, settings)
        found.append([next(taken).loss for _ in range(4)])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


# -- stopping and going on


class Killed(BaseException):
    """Ends a run where it stands, as kill -9 would: nothing is there to catch it."""


def test_killed_ten_times_at_random_it_ends_with_the_same_weights(
    shards: Shards, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = dict(nsp=1.0, passes=4, validate_every=5, save_every=2, first_length=20, first_share=0.5)
    straight = train(shards, tokenizer, tmp_path / "straight", **changes)
    assert straight.steps > 20
    plain, draw, left = Pretraining._step, random.Random(3), [0]

    def step(self: Pretraining, *given: Any) -> PretrainStep:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return plain(self, *given)

    monkeypatch.setattr(Pretraining, "_step", step)
    killed = 0
    while killed < 10:
        left[0] = draw.randint(0, 4)
        with pytest.raises(Killed):
            train(shards, tokenizer, tmp_path / "killed", resume=killed > 0, **changes)
        killed += 1
    left[0] = 10**9
    resumed = train(shards, tokenizer, tmp_path / "killed", resume=True, **changes)
    assert resumed.steps == straight.steps and resumed.losses == straight.losses
    one, other = weights(tmp_path / "straight"), weights(tmp_path / "killed")
    assert all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()
    assert finished(tmp_path / "killed") and not (tmp_path / "killed" / "state.pt").exists()
    timeless = [
        [{key: value for key, value in json.loads(line).items() if key not in ("seconds", "tokens_per_second", "mfu")}
         for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("straight", "killed")
    ]  # fmt: skip
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(("family", "fresh"), [("bert", True), ("roberta", True), ("bert", False)])
def test_positions_that_no_sequence_had_begin_as_copies(
    family: str, fresh: bool, shards: Shards, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PretrainSettings(**SMALL | dict(first_length=16, first_share=0.5, passes=2, weight_decay=0.0))
    model = bundle(tokenizer, settings, family)
    table = model.network.encoder.embedding.positions
    assert isinstance(table, Learned)
    seen: dict[int, list[torch.Tensor]] = {16: [], 32: []}
    plain = Pretraining._update

    def update(self: Pretraining, portion: Portion, *given: Any, **named: Any) -> tuple[float, float]:
        seen[portion.length].append(table.table.weight.detach()[table.offset :].clone())
        return plain(self, portion, *given, **named)

    monkeypatch.setattr(Pretraining, "_update", update)
    list(steps(model, shards, settings, fresh=fresh)[1])
    began, last, first, end = seen[16][0], seen[16][-1], seen[32][0], seen[32][-1]
    assert last[:15].ne(began[:15]).any(1).all() and last[16:].equal(began[16:])
    if fresh:
        assert first[16:31].equal(first[1:16]) and first[31:46].equal(first[1:16]) and first.ne(last).any()
    else:  # what a model knows that is trained on stays
        assert first[16:].equal(last[16:])
    assert end[16:31].ne(first[16:31]).any(1).all(), "and are learned"


def test_a_resumed_run_must_be_of_the_same_corpus_and_settings(
    shards: Shards, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Pretraining._step

    def step(self: Pretraining, *given: Any) -> PretrainStep:
        if self.number == 4:
            raise Killed
        return plain(self, *given)

    monkeypatch.setattr(Pretraining, "_step", step)
    with pytest.raises(Killed):
        train(shards, tokenizer, tmp_path, passes=2)
    with pytest.raises(InputError, match=r"settings \(learning_rate 0.002, now 0.001\) changed since"):
        train(shards, tokenizer, tmp_path, passes=2, resume=True, learning_rate=1e-3)
    with pytest.raises(InputError, match="holds an unfinished run"):
        train(shards, tokenizer, tmp_path, passes=2)
    (tmp_path / "state.pt").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"state.pt is damaged"):
        train(shards, tokenizer, tmp_path, passes=2, resume=True)


# -- what the stream gives


def test_reading_ahead_changes_no_order_and_hands_on_errors() -> None:
    assert list(ahead(iter(range(50)))) == [*range(50)] and list(ahead(iter(()))) == []

    def broken() -> Iterator[int]:
        yield 1
        raise InputError("no more")

    found = ahead(broken())
    assert next(found) == 1
    with pytest.raises(InputError, match="no more"):
        next(found)


def stream(shards: Shards, tokenizer: Tokenizer, **how: Any) -> Stream:
    schedule = Schedule(how.pop("passes", 2.0), how.pop("tokens", None), lambda _: 300, lambda _: 32)
    return Stream(Segments(shards, how.pop("pairs", None), **how), tokenizer, schedule)


def test_a_stream_goes_on_at_any_place_as_it_did(shards: Shards, tokenizer: Tokenizer) -> None:
    whole = list(stream(shards, tokenizer)(Place()))
    assert whole[-1].after.passed <= 2 and len(whole) > 10
    for at in (0, 1, 5, len(whole) - 2):
        again = list(stream(shards, tokenizer)(whole[at].after))
        assert len(again) == len(whole) - at - 1
        for one, other in zip(again, whole[at + 1 :], strict=True):
            assert one.after == other.after and one.progress == other.progress
            assert (one.examples.spans[one.rows] == other.examples.spans[other.rows]).all()


def test_lengths_and_batches_warm_up_in_the_stream_as_the_settings_say(shards: Shards, tokenizer: Tokenizer) -> None:
    settings = PretrainSettings(
        **SMALL
        | dict(passes=40, length=32, first_length=16, first_share=0.5, first_batch_tokens=100, batch_warmup=0.25)
    )
    found, _ = reading(bundle(tokenizer, settings), shards, settings)
    portions = list(found(Place()))
    for each in portions:
        sizes = found.lengths(each.examples)[each.rows]
        if abs(each.progress - 0.5) > 0.05:
            assert sizes.max() <= (16 if each.progress < 0.5 else 32)
        assert sizes.sum() == pytest.approx(settings.at_batch(each.progress), rel=0.5)
    first, last = ([each for each in portions if low <= each.progress < low + 0.25] for low in (0.0, 0.7))
    assert np.mean([found.lengths(each.examples)[each.rows].max() for each in last]) > 24 and len(first) > 1.3 * len(
        last
    )
    again = list(found(portions[len(portions) // 3].after))
    assert [each.after for each in again] == [each.after for each in portions[len(portions) // 3 + 1 :]]


def test_batches_hold_about_the_tokens_asked_for_and_progress_reaches_the_end(
    shards: Shards, tokenizer: Tokenizer
) -> None:
    portions = list(stream(shards, tokenizer)(Place()))
    assert all(one.end == other.progress for one, other in pairwise(portions)) and portions[-1].end >= 0.999
    found = stream(shards, tokenizer)
    sizes = [int(found.lengths(each.examples)[each.rows].sum()) for each in portions]
    assert min(sizes) > 250 and max(sizes) < 350
    assert portions[0].progress == 0 and 0.9 < portions[-1].progress < 1
    assert portions[-1].after.tokens == sum(sizes)
    bounded = list(stream(shards, tokenizer, tokens=1000)(Place()))
    assert 700 <= bounded[-2].after.tokens < 1000 <= bounded[-1].after.tokens < 1340


@pytest.mark.parametrize(
    ("changes", "at", "rate"),
    [
        (dict(schedule="linear", warmup=0.1), (0.0, 0.05, 0.1, 0.55, 1.0), (0, 0.5, 1, 0.5, 0)),
        (dict(schedule="cosine", warmup=0.0), (0.0, 0.5, 1.0), (1, 0.5, 0)),
        (dict(schedule="constant", warmup=0.5), (0.25, 0.6, 1.0), (0.5, 1, 1)),
        (dict(schedule="trapezoidal", warmup=0.1, cooldown=0.2), (0.05, 0.5, 0.8, 0.9, 1.0), (0.5, 1, 1, 0.5, 0)),
        (dict(schedule="one_cycle"), (0.0, 0.25, 0.5, 0.75, 1.0), (0, 0.5, 1, 0.5, 0)),
    ],
)
def test_schedules(changes: dict[str, Any], at: tuple[float, ...], rate: tuple[float, ...]) -> None:
    settings = PretrainSettings(**changes)
    assert [settings.rate_at(each) for each in at] == pytest.approx(rate)


def test_batches_and_lengths_warm_up() -> None:
    settings = PretrainSettings(
        batch_tokens=1000, first_batch_tokens=200, batch_warmup=0.5, first_length=64, first_share=0.9
    )
    assert [settings.at_batch(each) for each in (0.0, 0.25, 0.5, 1.0)] == [200, 600, 1000, 1000]
    assert [settings.at_length(each) for each in (0.0, 0.89, 0.9)] == [64, 64, 128]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(passes=0), "passes and eps must be above 0"),
        (dict(tokens=0), "tokens is 0"),
        (dict(batch_tokens="many"), "must be a whole number"),
        (dict(mlm=0.0), "There is nothing to learn"),
        (dict(nsp=1.0, sop=1.0), "different pairs"),
        (dict(rtd=50.0, nsp=1.0), "leave nsp and sop out"),
        (dict(rtd=50.0, mlm=0.0), "needs a generator"),
        (dict(warmup=1.5), "a share, from 0 to 1"),
        (dict(schedule="triangle"), "schedule is 'triangle'"),
        (dict(mask_rate=1.5), "mask_rate is 1.5"),
        (dict(mask_split=0.8), "give three shares"),
        (dict(mask_split=(0.8, 0.3, 0.1)), "must sum to 1"),
        (dict(mask_unit="x"), "mask_unit is 'x'"),
        (dict(embeddings="foo"), "embeddings is 'foo'"),
        (dict(precision="fp16"), "precision is 'fp16'"),
        (dict(checkpointing="no"), "must be true or false"),
        (dict(passes=float("inf")), "must be a finite number"),
        (dict(schedule="trapezoidal", warmup=0.6, cooldown=0.5), "more than the whole run"),
        (dict(optimizer="moun"), "did you mean 'muon'"),
        (dict(learning_rate=-1), "must not be negative"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PretrainSettings(**changes)


def test_a_family_without_a_head_for_pairs_says_so(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="roberta has no head for pairs of segments"):
        kind_of_head(by_name("roberta"), PretrainSettings(nsp=1.0))


def test_a_divided_model_needs_more_than_one_process(shards: Shards, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="start it with torchrun"):
        train(shards, tokenizer, tmp_path, sharded=True)


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(shards: Shards, tokenizer: Tokenizer) -> None:
    settings = PretrainSettings(**SMALL)
    model = bundle(tokenizer, settings)
    training, taken = steps(model, shards, settings)
    next(taken)
    with torch.no_grad():
        model.network.encoder.embedding.norm.weight[0] = torch.nan
    before = copy.deepcopy(model.network.state_dict())
    with pytest.raises(InputError, match="Step 2: the loss is not a number"):
        next(taken)
    after = model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) or before[name].isnan().any() for name in before)
    assert training.number == 1


# -- what it costs


def test_operations_are_counted_as_by_hand(tokenizer: Tokenizer) -> None:
    settings = PretrainSettings()
    model = bundle(tokenizer, settings)
    layer = 4 * 32 * 32 + 2 * 32 * 64
    head = 0.15 * (32 * 32 + tokenizer.vocab_size * 32)
    work = cost.flops(made(model, settings), settings)
    assert work.token == pytest.approx(6 * (2 * layer + head))
    assert work.of(32) - work.token == pytest.approx(
        12 * 2 * 32 * 32
    )  # two products of 2 D L each, and twice that back


def test_the_speed_is_over_the_last_steps() -> None:
    meter = cost.Meter(cost.Work(2.0, 0.0), peak=100.0)
    assert tuple(meter.step(10, 1.0, 5.0)) == pytest.approx((10.0, 0.2))
    assert tuple(meter.step(30, 1.0, 5.0)) == pytest.approx((20.0, 0.4))
    assert cost.peak(torch.device("cpu"), "fp32") > 1e8
