"""Dropout: the right rate, the right mean, one source of randomness, and never left out in silence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clozeline.batch import Layout
from clozeline.config import EncoderConfig
from clozeline.families.bert import BERT
from clozeline.model.attention import attend
from clozeline.model.dropout import RUN, Dropout, keep_mask, keep_scale
from helpers import random_batch

SIGMAS = 5  # a draw further off happens once in two million; the seeds here are fixed, so never
LENGTHS = ((8,), (5, 3, 1, 8), (20, 19, 20))  # one block, several, one with padding
DTYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_mask_drops_at_its_rate_and_keeps_the_mean(rate: float, dtype: torch.dtype) -> None:
    mask = keep_mask((1000, 1000), rate, seed=1, dtype=dtype)
    dropped = (mask == 0).double().mean().item()
    sigma = math.sqrt(rate * (1 - rate) / mask.numel())
    assert abs(dropped - rate) < SIGMAS * sigma + 2**-17  # the rate is rounded to 16 bits
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert keep_scale(rate) == pytest.approx(1 / (1 - rate), rel=2**-12)


def test_drops_of_neighbouring_values_are_independent() -> None:
    mask = keep_mask((1_000_001,), 0.3, seed=2, dtype=torch.float32) == 0
    for apart in (1, 2, 3, 4, 8):  # four values come from one draw
        both = (mask[apart:] & mask[:-apart]).double().mean().item()
        assert abs(both - 0.09) < SIGMAS * math.sqrt(0.09 * 0.91 / 1e6) * 2


def test_a_seed_always_gives_the_same_mask_and_another_seed_another() -> None:
    first = keep_mask((64, 33), 0.1, seed=7, dtype=torch.float32)
    assert torch.equal(first, keep_mask((64, 33), 0.1, seed=7, dtype=torch.float32))
    assert not torch.equal(first, keep_mask((64, 33), 0.1, seed=8, dtype=torch.float32))


def test_a_mask_longer_than_a_run_of_the_tables_draws_each_run_anew() -> None:
    runs = keep_mask((3 * 4 * RUN,), 0.5, seed=11, dtype=torch.float32).view(3, -1)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs((runs[one] == runs[other]).double().mean().item() - 0.5) < SIGMAS * 0.5 / math.sqrt(runs.shape[1])


def test_dropout_onto_a_residual_is_dropout_and_a_sum() -> None:
    x, residual = (torch.randn(40, 8).requires_grad_() for _ in range(2))
    dropout = Dropout(0.25)
    found = []
    for together in (True, False):
        torch.manual_seed(5)
        dropout.train()
        y = dropout(x, onto=residual) if together else residual + dropout(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, residual))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(dropout.eval()(x, onto=residual), x + residual)


def test_gradients_are_numbers_where_a_window_leaves_padding_nothing_to_see() -> None:
    layout = Layout.of((20, 18, 20))
    q, k, v = inputs(layout)
    out = attend(q, k, v, layout, window=1, dropout=0.1, kernel="blocks")
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert all(bool(grad.isfinite().all()) for grad in grads)


def test_torch_manual_seed_decides_every_drop() -> None:
    dropout = Dropout(0.5).train()

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        dropped: Tensor = dropout(torch.ones(1000))
        return dropped

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    assert not torch.equal(dropout(torch.ones(1000)), dropout(torch.ones(1000)))


def test_dropout_acts_in_training_only_and_not_at_rate_zero() -> None:
    x = torch.ones(1000)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert set(Dropout(0.5).train()(x).tolist()) == {0.0, 2.0}


def test_the_gradient_of_dropout_is_its_mask() -> None:
    x = torch.full((1000,), 3.0, requires_grad=True)
    y = Dropout(0.25).train()(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y, grad * 3)


HEADS, HEAD_WIDTH = 2, 64


def inputs(layout: Layout) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(layout.tokens, HEADS, HEAD_WIDTH, generator=random).requires_grad_() for _ in range(3)]


def one_hot(layout: Layout) -> Tensor:
    """Values that make attention's output its weights: entry j of a token's output is its weight on token j."""
    return torch.eye(HEAD_WIDTH)[layout.positions][:, None].expand(-1, HEADS, -1)


def dropped(q: Tensor, k: Tensor, v: Tensor, layout: Layout, rate: float, kernel: str, window: int | None) -> Tensor:
    torch.manual_seed(11)  # the same mask at every call
    return attend(q, k, v, layout, dropout=rate, kernel=kernel, window=window)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kernel", ["blocks", "eager"])
def test_attention_with_dropout_and_its_gradients_are_those_of_the_mask_it_drew(
    kernel: str, lengths: tuple[int, ...], window: int | None
) -> None:
    layout, rate = Layout.of(lengths), 0.3
    q, k, v = inputs(layout)
    with torch.no_grad():
        keep_TNL = dropped(q, k, one_hot(layout), layout, rate, kernel, window) != 0
    out = dropped(q, k, v, layout, rate, kernel, window)
    parts = []
    for q_, k_, v_, keep_LNL in zip(*(layout.split(x) for x in (q, k, v, keep_TNL)), strict=True):
        length = len(q_)
        scores = torch.einsum("inh,jnh->nij", q_, k_) / math.sqrt(HEAD_WIDTH)
        if window is not None:
            at = torch.arange(length)
            scores = scores.masked_fill((at[:, None] - at).abs() > window, -torch.inf)
        weights = torch.softmax(scores, -1) * keep_LNL[..., :length].transpose(0, 1) / (1 - rate)
        parts.append(torch.einsum("nij,jnh->inh", weights, v_))
    expected = torch.cat(parts)
    wanted = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found, true = (torch.autograd.grad(result, (q, k, v), wanted) for result in (out, expected))
    for ours, theirs in zip((out, *found), (expected, *true), strict=True):
        # fp32 sums of 64 products below 10; the rate is rounded to 1/65536, a relative 2e-5 of the scale at most
        torch.testing.assert_close(ours, theirs, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("kernel", ["blocks", "eager"])
def test_attention_drops_weights_at_the_rate_and_no_two_heads_alike(kernel: str) -> None:
    layout, rate = Layout.of([HEAD_WIDTH] * 4), 0.25
    q, k, _ = inputs(layout)
    with torch.no_grad():
        kept = dropped(q, k, one_hot(layout), layout, rate, kernel, None) != 0
    assert abs(kept.double().mean().item() - (1 - rate)) < SIGMAS * math.sqrt(rate * (1 - rate) / kept.numel())
    heads = kept.view(4, HEAD_WIDTH, HEADS, HEAD_WIDTH).transpose(1, 2).flatten(0, 1)
    assert len({tuple(head.flatten().tolist()) for head in heads}) == 4 * HEADS


@pytest.mark.parametrize("kernel", ["blocks", "eager"])
def test_attention_with_hardly_any_dropout_is_attention_without(kernel: str) -> None:
    layout = Layout.of([9, 30, 1])
    q, k, v = inputs(layout)
    plain = attend(q, k, v, layout)
    # weighted means of values below 5, in fp32
    torch.testing.assert_close(dropped(q, k, v, layout, 1e-9, kernel, None), plain, rtol=0, atol=1e-5)


CONFIG = EncoderConfig(family="bert", vocab_size=50, width=32, layers=2, heads=4, ffn_width=64, max_length=40)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["auto", "blocks", "eager"])
@pytest.mark.parametrize("field", ["dropout", "attention_dropout"])
def test_a_training_pass_with_either_dropout_differs_from_one_without(
    field: str, kernel: str, dtype: torch.dtype
) -> None:
    batch = random_batch(CONFIG, [3, 40, 17, 16])
    none = CONFIG.replace(dropout=0.0, attention_dropout=0.0)
    plain, dropping = (BERT.build(config).encoder for config in (none, none.replace(**{field: 0.1})))
    for encoder in (plain, dropping):
        encoder.compute_dtype = dtype
        encoder.use_kernel(kernel)
    assert torch.equal(plain.train()(batch), plain.eval()(batch))
    assert torch.equal(dropping.eval()(batch), plain(batch))
    torch.manual_seed(0)
    moved = (dropping.train()(batch) - plain(batch)).float().abs().amax(1)
    assert bool((moved > 0).all()), "every token of every sequence is touched"
