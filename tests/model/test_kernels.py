"""The attention kernels agree with each other and with padded attention, and a kernel that cannot serve says why.

The tolerance is derived, as flash-attention's tests derive theirs: against the truth in float64, the error may be at most
twice that of torch's own padded attention in the same precision.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import Layout
from clozeline.errors import InputError
from clozeline.model.attention import attend
from clozeline.model.kernels import KERNELS, Scores, choose, eager_weights, refusal
from helpers import pad, real

HEADS, WIDTH = 3, 16
LENGTHS = {
    "uneven": (5, 64, 1, 33, 2),
    "near": (30, 33, 32, 31, 33),
    "equal": (12, 12, 12),
    "alone": (40,),
    "ones": (1, 1, 1),
}
WINDOWS = (None, 1, 4, 100)  # 1 and 4 are shorter than most texts, 100 longer than all

Run = tuple[Tensor, ...]  # output, then gradients of q, k, v and, where there is one, the bias table


class Distance:
    """A learned score for each head and distance between two tokens, as a position scheme with a score bias has it."""

    def __init__(self, table: Tensor) -> None:
        self.table = table  # (N, 129): distances -64 to 64

    def __call__(self, q: Tensor, k: Tensor) -> Tensor:
        at = torch.arange(q.shape[2])
        return self.table[:, at[None, :] - at[:, None] + 64].to(q.dtype)


def inputs(layout: Layout, dtype: torch.dtype, *, biased: bool = False) -> list[Tensor]:
    """q, k, v and perhaps a bias table, the same numbers in every dtype."""
    random = torch.Generator().manual_seed(0)
    shapes = [(layout.tokens, HEADS, WIDTH)] * 3 + ([(HEADS, 129)] if biased else [])
    drawn = [torch.randn(shape, generator=random).bfloat16() for shape in shapes]
    return [x.to(dtype).requires_grad_() for x in drawn]


def gradients(out: Tensor, leaves: list[Tensor]) -> Run:
    wanted = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(out.dtype)
    return (out.detach(), *torch.autograd.grad(out, leaves, wanted))


def ours(kernel: str, layout: Layout, dtype: torch.dtype, window: int | None, *, biased: bool = False) -> Run:
    leaves = inputs(layout, dtype, biased=biased)
    bias = Distance(leaves[3]) if biased else None
    q, k, v = leaves[:3]
    return gradients(attend(q, k, v, layout, window=window, bias=bias, kernel=kernel), leaves)


def padded(layout: Layout, dtype: torch.dtype, window: int | None, *, biased: bool = False) -> Run:
    """The same by torch: one rectangle of all sequences, what must not be seen masked out."""
    leaves = inputs(layout, dtype, biased=biased)
    q, k, v = (pad(x, layout).transpose(1, 2) for x in leaves[:3])
    at = torch.arange(layout.longest)
    seen = real(layout)[:, None, None, :] & ((at[:, None] - at[None, :]).abs() <= (window or 10**6))
    seen = seen | (at[:, None] == at[None, :])  # places without a token see themselves, so that no row is empty
    add = Distance(leaves[3])(q, k) if biased else torch.zeros((), dtype=dtype)
    out = F.scaled_dot_product_attention(q, k, v, torch.where(seen, add, -torch.inf))
    return gradients(out.transpose(1, 2)[real(layout)], leaves)


def within_twice(found: Run, reference: Run, truth: Run) -> None:
    for ours, theirs, exact in zip(found, reference, truth, strict=True):
        own = (ours.double() - exact).abs().max().item()
        other = (theirs.double() - exact).abs().max().item()
        assert own <= 2 * other, f"error {own:.2e}, the reference's {other:.2e}"


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("kernel", ["blocks", "eager"])
def test_in_float64_output_and_gradients_are_those_of_padded_attention(
    kernel: str, lengths: tuple[int, ...], window: int | None
) -> None:
    layout = Layout.of(lengths)
    truth = padded(layout, torch.float64, window)
    for found, exact in zip(ours(kernel, layout, torch.float64, window), truth, strict=True):
        # sums of at most 64 values below 100: some thousands of roundings of 1e-16
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("lengths", ["uneven", "near", "alone"])
def test_blocks_err_at_most_twice_as_much_as_padded_attention(
    lengths: str, window: int | None, dtype: torch.dtype
) -> None:
    layout = Layout.of(LENGTHS[lengths])
    truth = padded(layout, torch.float64, window)
    within_twice(ours("blocks", layout, dtype, window), padded(layout, dtype, window), truth)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("lengths", ["uneven", "near"])
@pytest.mark.parametrize("kernel", ["blocks", "eager"])
def test_a_score_bias_counts_and_gets_its_gradient(kernel: str, lengths: str, window: int | None) -> None:
    layout = Layout.of(LENGTHS[lengths])
    truth = padded(layout, torch.float64, window, biased=True)
    for found, exact in zip(ours(kernel, layout, torch.float64, window, biased=True), truth, strict=True):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
    assert not torch.allclose(truth[0], padded(layout, torch.float64, window)[0], atol=1e-3)


@pytest.mark.parametrize("kernel", ["blocks", "eager"])
def test_the_scale_multiplies_the_scores(kernel: str) -> None:
    layout = Layout.of([9, 4])
    q, k, v = inputs(layout, torch.float64)
    plain = attend(q, k, v, layout, kernel=kernel)
    torch.testing.assert_close(attend(q, k, v, layout, scale=0.25, kernel=kernel), plain)  # 1 / sqrt(16)
    torch.testing.assert_close(attend(2 * q, k, v, layout, scale=0.125, kernel=kernel), plain)


def test_eager_weights_are_probabilities_within_the_window() -> None:
    layout = Layout.of([6, 1])
    q, k, v = inputs(layout, torch.float64)
    (_, six), (_, one) = eager_weights(q, k, v, layout, Scores(0.25, window=2))
    assert (six.shape, one.shape) == ((HEADS, 6, 6), (HEADS, 1, 1))
    torch.testing.assert_close(six.sum(-1), torch.ones_like(six[..., 0]))
    far = (torch.arange(6)[:, None] - torch.arange(6)).abs() > 2
    assert bool((six[:, far] == 0).all())
    assert bool((six[:, ~far] > 0).all())


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_varlen_asked_for_on_a_cpu_is_refused_and_the_message_says_why() -> None:
    q, k, v = inputs(layout := Layout.of([3, 2]), torch.bfloat16)
    with pytest.raises(InputError, match=r"varlen needs a CUDA device and this model is on cpu.*'auto' or 'blocks'"):
        attend(q, k, v, layout, kernel="varlen")


def test_varlen_refuses_fp32_dropout_and_bias_each_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert "not float32" in str(refusal("varlen", CUDA, torch.float32))
    assert "no dropout" in str(refusal("varlen", CUDA, torch.bfloat16, dropout=0.1))
    assert "no score bias" in str(refusal("varlen", CUDA, torch.bfloat16, bias=True))
    assert refusal("varlen", CUDA, torch.bfloat16) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "8.0" in str(refusal("varlen", CUDA, torch.bfloat16))


def test_auto_takes_varlen_where_it_serves_and_blocks_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose("auto", CPU, torch.float32) is KERNELS["blocks"]
    assert choose("auto", CUDA, torch.bfloat16) is KERNELS["varlen"]
    assert choose("auto", CUDA, torch.bfloat16, dropout=0.1) is KERNELS["blocks"]
    assert choose("eager", CPU, torch.float32, dropout=0.1, bias=True) is KERNELS["eager"]


def test_an_unknown_kernel_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'blocks'"):
        choose("block", CPU, torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen needs a CUDA device")
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_varlen_errs_at_most_twice_as_much_as_padded_attention(lengths: tuple[int, ...], window: int | None) -> None:
    layout = Layout.of(lengths)
    leaves = inputs(layout, torch.bfloat16)
    moved = [x.detach().cuda().requires_grad_() for x in leaves]
    q, k, v = moved
    out = attend(q, k, v, layout.to("cuda"), window=window, kernel="varlen")
    wanted = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().cuda()
    found = tuple(x.cpu() for x in (out.detach(), *torch.autograd.grad(out, moved, wanted)))
    within_twice(found, padded(layout, torch.bfloat16, window), padded(layout, torch.float64, window))
