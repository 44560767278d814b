"""oneDNN's linear maps compute what torch's do, forward and backward, and a frozen network what it froze."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from clozeline.families.bert import BERT
from clozeline.model import onednn
from clozeline.model.layers import ACTIVATIONS, FeedForward, Linear, freeze
from helpers import random_batch

pytestmark = pytest.mark.skipif(not onednn.available(torch.bfloat16), reason="no oneDNN here, or no bfloat16")


def test_the_affine_map_and_its_gradients_are_those_of_torch_in_fp32_within_bfloat16() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(70, 48), torch.randn(32, 48) / 7, torch.randn(32)
    halves = [part.bfloat16().requires_grad_() for part in (x, weight, bias)]
    exact = [part.detach().float().requires_grad_() for part in halves]
    ours, theirs = onednn.Affine.apply(*halves), F.linear(*exact)  # type: ignore[no-untyped-call]
    dy = torch.randn(70, 32).bfloat16()
    found = [ours, *torch.autograd.grad(ours, halves, dy)]
    expected = [theirs, *torch.autograd.grad(theirs, exact, dy.float())]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, rtol=2**-8, atol=2**-8 * other.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_frozen_feed_forward_computes_what_it_did(activation: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    network = FeedForward(32, 64, activation)
    for part in network.parameters():
        torch.nn.init.normal_(part, std=0.3)
    frozen = copy.deepcopy(network).to(dtype)
    freeze(frozen)
    assert not any(isinstance(part, Linear) for part in frozen.modules())
    for rows in (1, 5, 100):
        x = torch.randn(rows, 32).to(dtype)
        with torch.inference_mode():
            expected, found = network(x.float()), frozen(x).float()
        tolerance = 1e-5 if dtype == torch.float32 else 2**-6
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


def test_freezing_a_twin_leaves_the_network_as_it_was() -> None:
    config = BERT.presets["bert-tiny-uncased"].replace(vocab_size=100)
    network = BERT.build(config, "base", 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = random_batch(config, (5, 40, 3))
    twin = network.twin(torch.float32, torch.device("cpu"))
    with torch.inference_mode():
        expected = twin.encoder(batch)
        twin.freeze()
        torch.testing.assert_close(twin.encoder(batch), expected, rtol=0, atol=1e-5)
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()) and after.keys() == before.keys()
    assert any(isinstance(part, Linear) for part in network.modules())
