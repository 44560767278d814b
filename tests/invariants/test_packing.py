"""Packed sequences do not know of each other, in every family and under every kernel that serves here.

Computed in float64 where the kernel can, where rounding is 1e-16 and adds up to about 1e-13 over these layers, while any
true dependence would show at 1e-6 and more: so what must not change may move by 1e-12. varlen computes in bfloat16, where
rounding is 4e-3 and adds up to some hundredths; another neighbour would move states of size 1 by tenths.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clozeline.batch import Packed
from clozeline.families import FAMILIES
from clozeline.model.encoder import Encoder
from clozeline.model.kernels import KERNELS
from conformance import VARIANTS, model_type, sizes
from helpers import random_batch

NOISE = {torch.float64: 1e-12, torch.bfloat16: 0.1}
LENGTHS = (9, 40, 1, 33, 40, 2, 36)  # 40 is all that the model reads; 33 and 36 may share a block with 40


@pytest.fixture(params=[(variant, kernel) for variant in VARIANTS for kernel in KERNELS], ids="-".join)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    variant, kernel = request.param
    device, dtype = ("cuda", torch.bfloat16) if kernel == "varlen" else ("cpu", torch.float64)
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("varlen needs a CUDA device")
    family = FAMILIES[model_type(variant)]
    network = family.build(family.read(sizes(variant)).replace(vocab_size=300))
    if kernel == "varlen" and network.encoder.positions.biased:
        pytest.skip("varlen takes no score bias")
    for parameter in network.parameters():  # weights as large as a trained model's, so that dependence would show
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    network.encoder.use_kernel(kernel)
    return network.encoder.to(device, dtype).eval()


def noise(encoder: Encoder) -> float:
    return NOISE[encoder.compute_dtype]


def read(encoder: Encoder, batch: Packed) -> Tensor:
    """The encoder's states, wherever it lives."""
    states: Tensor = encoder(batch.to(encoder.embedding.tokens.weight.device))
    return states


def pick(batch: Packed, order: list[int]) -> Packed:
    """Some sequences of a batch, in this order."""
    ids = batch.layout.split(batch.ids)
    chosen = [ids[at].numpy() for at in order]
    if batch.segments is None:
        return Packed.of(chosen)
    segments = batch.layout.split(batch.segments)
    return Packed.of(chosen, [segments[at].numpy() for at in order])


def outputs(encoder: Encoder, batch: Packed) -> list[Tensor]:
    with torch.no_grad():
        return list(batch.layout.split(read(encoder, batch).cpu()))


@pytest.mark.parametrize(
    "order",
    [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 4, 2], [1, 4], [1, 3, 6, 4], [2], [1]],
    ids=str,
)
def test_a_sequence_gives_the_same_in_any_company_and_order_as_alone(encoder: Encoder, order: list[int]) -> None:
    batch = random_batch(encoder.config, LENGTHS)
    for at, packed in zip(order, outputs(encoder, pick(batch, order)), strict=True):
        (alone,) = outputs(encoder, pick(batch, [at]))
        torch.testing.assert_close(packed, alone, rtol=0, atol=noise(encoder))


def test_equal_sequences_give_equal_results(encoder: Encoder) -> None:
    batch = random_batch(encoder.config, LENGTHS)
    first, other, second = outputs(encoder, pick(batch, [3, 1, 3]))
    # where a row lies may decide in which order a processor's matrix product sums, so the last bit may differ
    torch.testing.assert_close(first, second, rtol=0, atol=noise(encoder))
    assert first.shape != other.shape


def test_no_gradient_reaches_the_tokens_of_another_sequence(encoder: Encoder) -> None:
    """Each sequence has words of its own, so the rows of the token table tell whose tokens a result depends on."""
    ids = torch.arange(sum(LENGTHS)) + 1
    batch = Packed.of([part.numpy() for part in ids.split(LENGTHS)])
    for at, part in enumerate(batch.layout.split(read(encoder, batch))):
        (grad,) = torch.autograd.grad(part.square().sum(), encoder.embedding.tokens.weight, retain_graph=True)
        own = torch.zeros(len(grad), dtype=torch.bool, device=grad.device)
        own[batch.layout.split(batch.ids)[at].to(grad.device)] = True
        assert bool((grad[~own] == 0).all())
        assert bool((grad[own].abs().amax(1) > 0).all())


def test_the_gradient_of_a_batch_is_the_sum_over_its_sequences(encoder: Encoder) -> None:
    batch = random_batch(encoder.config, LENGTHS)
    parameters = list(encoder.parameters())

    def gradient(part: Packed) -> list[Tensor]:
        return list(torch.autograd.grad(read(encoder, part).square().sum(), parameters, materialize_grads=True))

    alone = [gradient(pick(batch, [at])) for at in range(len(LENGTHS))]
    for together, *single in zip(gradient(batch), *alone, strict=True):
        expected = torch.stack(single).sum(0)
        assert (together - expected).abs().max() <= noise(encoder) * sum(part.abs().max() for part in single)


def test_a_sequence_longer_than_the_model_is_never_read_in_part(encoder: Encoder) -> None:
    with pytest.raises(AssertionError, match="longer"):
        read(encoder, random_batch(encoder.config, [41]))
