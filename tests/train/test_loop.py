"""The training loop: exact accumulation, one order for one seed, exact resumption, and a stop before weights are harmed."""

from __future__ import annotations

import gc
import itertools
import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from clozeline import bundle
from clozeline.data.packing import Samples, training_batches
from clozeline.data.readers import Example
from clozeline.errors import InputError
from clozeline.tasks.text_classification import TextClassification
from clozeline.tokenizer import Tokenizer
from clozeline.train import optim
from clozeline.train.loop import Diverged, Step, Training
from clozeline.train.settings import Settings
from helpers import PLAIN, reviews

SETTINGS = Settings(batch_size=8, learning_rate=1e-3, precision="fp32", epochs=2, clip=0.0)
ROWS = reviews(29)  # the last batch of an epoch holds five


def training(
    folder: Path,
    settings: Settings = SETTINGS,
    *,
    rows: list[tuple[str, str]] = ROWS,
    dropout: bool = True,
    weights: Literal["balanced"] | Mapping[str, float] | None = None,
    **task: Any,
) -> Training:
    """A training on the tiny model's compact table, dropout on as its configuration has it."""
    loaded = bundle.load(folder, TextClassification(["negative", "positive"], class_weights=weights, **task))
    assert isinstance(loaded.task, TextClassification)
    if not dropout:
        network = loaded.family.build(
            loaded.config.replace(dropout=0.0, attention_dropout=0.0), loaded.network.kind, len(loaded.task.labels)
        )
        network.load_state_dict(loaded.network.state_dict())
        loaded.network = network
    samples = loaded.task.samples(loaded.tokenizer, [Example(text, None, label, "") for text, label in rows])
    return Training(loaded.network, loaded.task, samples, settings, used=np.unique(samples.ids))


def weights_of(run: Training) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in run.network.named_parameters()}


def values(steps: list[Step]) -> list[tuple[float, float]]:
    return [(step.loss, step.grad_norm) for step in steps]


def first_gradients(run: Training) -> tuple[Step, list[Tensor]]:
    """The first step, and the mean gradients it took: AdamW's first moment is a tenth of them after it."""
    step = next(iter(run))
    states = run.optimizer.state
    return step, [states[part]["exp_avg"] * 10 for group in run.optimizer.param_groups for part in group["params"]]


def same_gradients(found: list[Tensor], expected: list[Tensor]) -> None:
    """Terms as large as 1 cancel to gradients of 1e-3, so what is left is as exact as a rounding of 1 in fp32, 6e-8."""
    assert max(float(grad.abs().max()) for grad in expected) > 5e-4
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-7)


@pytest.mark.parametrize("weights", [None, "balanced", {"negative": 5.0}], ids=str)
@pytest.mark.parametrize("max_tokens", [1, 30, 50])
def test_a_batch_in_several_passes_has_the_loss_and_gradient_of_one(
    tiny: Path, max_tokens: int, weights: Literal["balanced"] | Mapping[str, float] | None
) -> None:
    whole, expected = first_gradients(training(tiny, dropout=False, weights=weights))
    parts, found = first_gradients(
        training(tiny, SETTINGS.replace(max_tokens=max_tokens), dropout=False, weights=weights)
    )
    # fp32 sums of a few hundred values in another order
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    same_gradients(found, expected)
    assert (parts.examples, parts.tokens) == (whole.examples, whole.tokens)


def test_class_weights_weigh_the_mean_loss_as_torch_does(tiny: Path) -> None:
    run = training(tiny, dropout=False, weights={"negative": 5.0})
    chosen = training_batches(run.samples.lengths, 8, SETTINGS.seed, 0)[0]
    batch = run.samples.take(chosen)
    assert batch.targets is not None
    with torch.no_grad():
        logits = run.task.logits(run.network.train(), batch.packed)
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, weight=torch.tensor([5.0, 1.0]))
    assert next(iter(run)).loss == pytest.approx(expected.item(), rel=1e-6)


def test_balanced_weights_make_every_label_count_the_same_in_sum(tiny: Path) -> None:
    task = TextClassification(["a", "b"], class_weights="balanced")
    examples = [Example("w1", None, label, "") for label in "aaab"]
    weights = task.weights(task.samples(Tokenizer.load(tiny), examples))
    assert weights is not None
    assert weights.tolist() == pytest.approx([2 / 3, 2.0])


@pytest.mark.parametrize("grouping", [True, False])
def test_an_epoch_holds_each_example_once_in_an_order_of_seed_and_epoch_alone(grouping: bool) -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1003)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [part.tolist() for part in training_batches(lengths, 16, seed, epoch, grouping=grouping)]

    batches = order(3, 5)
    assert sorted(itertools.chain(*batches)) == list(range(1003))
    assert sorted(len(part) for part in batches) == [11] + [16] * 62
    assert batches == order(3, 5)
    assert batches != order(3, 6)
    assert batches != order(4, 5)


def test_grouping_puts_like_lengths_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1600)

    def spread(grouping: bool) -> float:
        return float(
            np.mean([np.ptp(lengths[part]) for part in training_batches(lengths, 16, 0, 0, grouping=grouping)])
        )

    assert spread(True) < 0.1 * spread(False)


def test_the_loop_trains_each_epoch_on_every_example_once(tiny: Path) -> None:
    run = training(tiny)
    steps = list(run)
    assert run.total == len(steps) == 8
    assert [step.number for step in steps] == list(range(1, 9))
    assert [step.ends_epoch for step in steps] == [False, False, False, True] * 2
    for epoch in (steps[:4], steps[4:]):
        assert sum(step.examples for step in epoch) == len(ROWS)
        assert sum(step.tokens for step in epoch) == int(run.samples.lengths.sum())


def test_two_runs_of_one_seed_are_equal_bit_for_bit_and_another_seed_differs(tiny: Path) -> None:
    first, again, other = (training(tiny, SETTINGS.replace(seed=seed)) for seed in (1, 1, 2))
    assert values(list(first)) == values(list(again)) != values(list(other))
    assert all(torch.equal(value, weights_of(again)[name]) for name, value in weights_of(first).items())


def test_training_leaves_the_random_state_of_the_caller_alone(tiny: Path) -> None:
    run = training(tiny)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    next(iter(run))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop", [1, 4, 6])  # within an epoch, at its end, in the next
@pytest.mark.parametrize(
    "changes", [{}, {"layer_decay": 0.8, "freeze": 1, "bias_correction": False}, {"layer_decay": 0.8}], ids=str
)
def test_a_saved_state_in_a_new_process_takes_the_very_same_steps(
    tiny: Path, tmp_path: Path, stop: int, precision: str, changes: dict[str, Any]
) -> None:
    settings = SETTINGS.replace(precision=precision, clip=0.1, seed=3, **changes)
    straight = training(tiny, settings)
    steps = iter(straight)
    list(itertools.islice(steps, stop))
    torch.save(straight.state(), tmp_path / "state.pt")
    rest = list(steps)
    assert len(rest) == 8 - stop

    resumed = training(tiny, settings)
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert values(list(resumed)) == values(rest)
    straight.finish()
    resumed.finish()
    assert all(torch.equal(value, weights_of(resumed)[name]) for name, value in weights_of(straight).items())


def test_a_loss_that_is_not_a_number_stops_before_weights_are_touched(tiny: Path) -> None:
    run = training(tiny)
    steps = iter(run)
    list(itertools.islice(steps, 2))
    poisoned = run.network.encoder.layers[1].ffn.up.bias  # type: ignore[union-attr]
    assert isinstance(poisoned, Tensor)
    poisoned.data[3] = torch.nan
    before = weights_of(run)
    with pytest.raises(
        Diverged, match=r"Step 3: the loss is not a number, in the batch of training examples \d+,"
    ) as at:
        next(steps)
    assert at.value.step == 3
    assert at.value.chosen.tolist() == training_batches(run.samples.lengths, 8, SETTINGS.seed, 0)[2].tolist()
    for name, value in weights_of(run).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    assert run.number == 2


def test_a_gradient_that_is_not_a_number_stops_before_weights_are_touched(tiny: Path) -> None:
    run = training(tiny)
    weight = run.network.encoder.embedding.norm.weight
    weight.register_hook(lambda grad: grad * torch.inf)
    before = weights_of(run)
    with pytest.raises(Diverged, match="Step 1: the gradient is not a number"):
        next(iter(run))
    assert all(torch.equal(value, before[name]) for name, value in weights_of(run).items())


def test_the_rate_rises_in_warm_up_to_its_peak_and_falls_to_zero() -> None:
    settings = Settings(learning_rate=2.0, warmup=0.1)
    found = {step: optim.rate(settings, step, 100) for step in (0, 5, 10, 55, 99, 100)}
    assert found == pytest.approx({0: 0.0, 5: 1.0, 10: 2.0, 55: 1.0, 99: 2 / 90, 100: 0.0})
    cosine = settings.replace(schedule="cosine")
    assert [optim.rate(cosine, step, 100) for step in (5, 10, 55, 100)] == pytest.approx([1.0, 2.0, 1.0, 0.0])
    assert optim.rate(cosine, 30, 100) == pytest.approx(1 + math.cos(math.pi * 20 / 90))
    constant = settings.replace(schedule="constant")
    assert [optim.rate(constant, step, 100) for step in (5, 10, 99)] == [1.0, 2.0, 2.0]


def test_the_loop_takes_the_rates_of_the_schedule(tiny: Path) -> None:
    settings = SETTINGS.replace(warmup=0.25)
    assert [step.learning_rate for step in training(tiny, settings)] == [
        optim.rate(settings, number, 8) for number in range(8)
    ]


def test_without_warm_up_the_first_step_has_the_full_rate_and_the_last_not_zero() -> None:
    settings = Settings(learning_rate=1.0, warmup=0.0)
    assert optim.rate(settings, 0, 4) == 1.0
    assert optim.rate(settings, 3, 4) == 0.25


def test_the_gradient_is_clipped_to_its_norm(tiny: Path) -> None:
    free, gradients = first_gradients(training(tiny))
    _, clipped = first_gradients(training(tiny, SETTINGS.replace(clip=free.grad_norm / 4)))
    total = torch.stack([grad.norm() for grad in gradients]).norm().item()
    assert total == pytest.approx(free.grad_norm, rel=1e-5)
    assert torch.stack([grad.norm() for grad in clipped]).norm().item() == pytest.approx(total / 4, rel=1e-5)


LONG = (" ".join(itertools.islice(itertools.cycle(PLAIN[:40]), 150)), "positive")  # three windows of the tiny model


def test_a_text_in_windows_counts_once_by_the_mean_of_their_logits(tiny: Path) -> None:
    rows = [LONG, *ROWS[:7]]
    run = training(tiny, rows=rows, dropout=False, long="window")
    samples: Samples = run.samples
    assert (len(samples), len(samples.bounds) - 1) == (8, 10)
    every = np.arange(8)
    batch = samples.take(every)
    assert batch.owners is not None
    with torch.no_grad():
        windows = run.task.logits(run.network, batch.packed)
    expected = torch.stack([windows[:3].mean(0), *windows[3:]])
    targets = torch.tensor([1] + [0, 1] * 3 + [0])
    step = next(iter(run))
    assert step.loss == pytest.approx(torch.nn.functional.cross_entropy(expected, targets).item(), rel=1e-6)
    assert (step.examples, run.per_epoch) == (8, 1)
    assert step.tokens == int(samples.bounds[-1])


def test_windows_of_one_text_stay_in_one_pass_however_small(tiny: Path) -> None:
    rows = [LONG, *ROWS[:7]]
    whole, expected = first_gradients(training(tiny, rows=rows, dropout=False, long="window"))
    small = SETTINGS.replace(max_tokens=16)
    parts, found = first_gradients(training(tiny, small, rows=rows, dropout=False, long="window"))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    same_gradients(found, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0; it must be above 0 and at most 1"),
        ({"layer_decay": 1.1}, "layer_decay is 1.1"),
        ({"layer_decay": math.nan}, "layer_decay is nan"),
        ({"freeze": -1}, "freeze is -1; it must not be negative"),
        ({"freeze": 1.5}, "freeze is 1.5; it must be a whole number"),
        ({"patience": 0}, "patience is 0"),
        ({"schedule": "liner"}, "did you mean 'linear'"),
        ({"batchsize": 8}, "did you mean 'batch_size'"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings().replace(**changes)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_that_is_over_leaves_memory(tiny: Path, precision: Literal["fp32", "bf16"]) -> None:
    run = training(tiny, SETTINGS.replace(precision=precision))
    next(iter(run))
    run.finish()
    gone = weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None


def frozen_names(run: Training, layers: int) -> set[str]:
    """What `freeze` leaves as it is on a BERT."""
    below = ("encoder.embedding.", *(f"encoder.layers.{number}." for number in range(layers)))
    return {name for name, _ in run.network.named_parameters() if layers and name.startswith(below)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("freeze", [1, 2])
def test_frozen_layers_stay_bit_for_bit_and_cost_no_gradient(tiny: Path, freeze: int, precision: str) -> None:
    run = training(tiny, SETTINGS.replace(freeze=freeze, precision=precision, weight_decay=0.1))
    before, held = weights_of(run), frozen_names(run, freeze)
    assert held == run.frozen and len(held) == 5 + 12 * freeze
    trained = [part for name, part in run.network.named_parameters() if name not in held]
    assert run.table is None, "a frozen table needs no compact one"
    for step in run:
        assert math.isfinite(step.loss)
        for network in (run.network, run.twin):
            assert all(part.grad is None for name, part in network.named_parameters() if name in held)
    assert all(part.requires_grad == (name not in held) for name, part in run.twin.named_parameters())
    assert {id(part) for part in run.optimizer.state} == {id(part) for part in trained}
    assert not held & run.state()["network"].keys()
    run.finish()
    assert all(part.requires_grad for part in run.network.parameters())
    after = weights_of(run)
    assert {name for name, value in after.items() if torch.equal(value, before[name])} == held


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_layers_keep_nothing_for_a_backward_pass(tiny: Path, precision: str) -> None:
    def kept(freeze: int) -> int:
        """Tensors that autograd saves in a step."""
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return tensor

        run = training(tiny, SETTINGS.replace(freeze=freeze, precision=precision))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            next(iter(run))
        return count

    everything, upper, head = (kept(freeze) for freeze in (0, 1, 2))
    layer = upper - head  # one layer's, without the gradient of what it reads
    assert layer > 10
    assert everything - upper >= layer
    assert head <= 12, "the pooler, the classifier and the loss"


def test_training_the_upper_part_takes_the_gradients_that_it_has_in_the_whole(tiny: Path) -> None:
    whole, upper = training(tiny), training(tiny, SETTINGS.replace(freeze=1))
    held = frozen_names(whole, 1)
    assert next(iter(whole)).loss == next(iter(upper)).loss
    named = dict(whole.network.named_parameters())
    for name, part in upper.network.named_parameters():
        if name not in held:
            moments = [run.optimizer.state[each]["exp_avg"] for run, each in ((whole, named[name]), (upper, part))]
            torch.testing.assert_close(moments[0], moments[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "kept",
    [
        "embedding.tokens",
        "embedding.norm",
        "layers.1.attention.qkv.weight",
        "layers.0.",
        "head.pooler",
        "weight",
        "bias",
    ],
)
def test_parameters_that_the_user_froze_stay_and_the_others_learn(tiny: Path, kept: str, precision: str) -> None:
    loaded = bundle.load(tiny, TextClassification(["negative", "positive"]))
    assert isinstance(loaded.task, TextClassification)
    flags = {name: kept not in name for name, _ in loaded.network.named_parameters()}
    for name, part in loaded.network.named_parameters():
        part.requires_grad_(flags[name])
    samples = loaded.task.samples(loaded.tokenizer, [Example(text, None, label, "") for text, label in ROWS])
    settings = SETTINGS.replace(precision=precision, weight_decay=0.1)
    run = Training(loaded.network, loaded.task, samples, settings, used=np.unique(samples.ids))
    assert (run.table is None) == (kept in "encoder.embedding.tokens.weight")
    list(run)
    run.finish()
    assert {name: part.requires_grad for name, part in loaded.network.named_parameters()} == flags
    begin = bundle.load(tiny, TextClassification(["negative", "positive"])).network
    after = weights_of(run)
    same = {name for name, part in begin.named_parameters() if torch.equal(after[name], part)}
    assert same == {name for name, trained in flags.items() if not trained}


def test_a_table_that_is_frozen_or_compact_can_be_saved_and_read_validation(tiny: Path) -> None:
    for freeze in (0, 1):
        run = training(tiny, SETTINGS.replace(freeze=freeze))
        held, table = run.samples, run.network.encoder.embedding.tokens
        next(iter(run))
        rows = len(table.weight)
        with run.full_table():
            assert len(table.weight) == run.network.config.vocab_size
        assert len(table.weight) == rows == (run.network.config.vocab_size if freeze else len(np.unique(held.ids)))
        original = held if run.table is None else training(tiny, SETTINGS.replace(freeze=1)).samples
        assert np.array_equal(run.renumber(original).ids, held.ids)


def test_more_layers_than_the_model_has_cannot_be_frozen(tiny: Path) -> None:
    with pytest.raises(InputError, match=r"freeze is 3; the model has 2 layers\."):
        training(tiny, SETTINGS.replace(freeze=3))


def test_a_network_with_nothing_left_to_train_is_refused(tiny: Path) -> None:
    run = training(tiny)
    run.finish()
    for part in run.network.head.parameters():  # type: ignore[union-attr]
        part.requires_grad_(False)
    with pytest.raises(InputError, match="Nothing is left to train"):
        Training(run.network, run.task, run.samples, SETTINGS.replace(freeze=2))
