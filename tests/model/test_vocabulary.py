"""The loss over a vocabulary equals torch's, in value and gradient, for any number of rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clozeline.model import vocabulary
from clozeline.model.vocabulary import Space, VocabularyLoss


@pytest.mark.parametrize("rows", [0, 1, 7, 64])
@pytest.mark.parametrize("block", [1, 300, 2**20])
def test_loss_and_gradients_are_those_of_cross_entropy(rows: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "BLOCK", block)
    torch.manual_seed(rows)
    x, table, bias = (torch.randn(*shape, requires_grad=True) for shape in ((rows, 8), (100, 8), (100,)))
    targets = torch.randint(0, 100, (rows,))
    targets[1:2] = -100
    logits = F.linear(x, table, bias)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    wanted = torch.autograd.grad(3 * expected, (x, table, bias))
    loss, right = VocabularyLoss.apply(x, table, bias, targets, True, None)  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)
    assert right.item() == (logits.argmax(-1) == targets).sum().item()
    for one, other in zip(torch.autograd.grad(3 * loss, (x, table, bias)), wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_half_precision_is_as_near_as_torchs_own() -> None:
    torch.manual_seed(0)
    x, table, bias = (torch.randn(*shape) for shape in ((50, 32), (1000, 32), (1000,)))
    targets = torch.randint(0, 1000, (50,))

    def gradients(half: bool, ours: bool) -> list[torch.Tensor]:
        given = [part.clone().requires_grad_() for part in (x, table, bias)]
        states, weight, offset = (part.bfloat16() if half else part for part in given)
        if ours:
            VocabularyLoss.apply(states, given[1], given[2], targets, True, None)[0].backward()  # type: ignore[no-untyped-call]
        else:
            F.cross_entropy(F.linear(states, weight, offset).float(), targets, reduction="sum").backward()
        return [part.grad for part in given if part.grad is not None]

    exact, theirs, own = gradients(False, False), gradients(True, False), gradients(True, True)
    for true, one, other in zip(exact, own, theirs, strict=True):
        assert (one - true).norm() <= 2 * (other - true).norm()


def test_nothing_is_kept_of_a_loss_that_is_only_measured() -> None:
    x, table, bias = torch.randn(5, 8), torch.randn(30, 8), torch.zeros(30)
    targets = torch.arange(5)
    with torch.inference_mode():
        loss, right = VocabularyLoss.apply(x, table, bias, targets, False, None)  # type: ignore[no-untyped-call]
    logits = F.linear(x, table)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, targets, reduction="sum").item(), rel=1e-6)
    assert right.item() == (logits.argmax(-1) == targets).sum()


def test_with_memory_of_its_own_it_gives_the_same_again_and_again() -> None:
    torch.manual_seed(0)
    space, table, bias = Space(), torch.randn(100, 8, requires_grad=True), torch.zeros(100, requires_grad=True)
    plain = table.detach().clone().requires_grad_()
    for rows in (5, 30, 2, 30):
        x = torch.randn(rows, 8, requires_grad=True)
        other = x.detach().clone().requires_grad_()
        targets = torch.randint(0, 100, (rows,))
        loss, _ = VocabularyLoss.apply(x, table, bias, targets, True, space)  # type: ignore[no-untyped-call]
        expected, _ = VocabularyLoss.apply(other, plain, bias, targets, True, None)  # type: ignore[no-untyped-call]
        (2 * loss).backward()
        (2 * expected).backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert x.grad is not None and other.grad is not None and torch.allclose(x.grad, other.grad, atol=1e-5)
        assert table.grad is not None and plain.grad is not None and torch.allclose(table.grad, plain.grad, atol=1e-5)
