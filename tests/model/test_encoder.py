"""The encoder: no branches on what model it is, the published sizes, and states that are what the layers compute."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
import torch

import clozeline.model
from clozeline.config import EncoderConfig
from clozeline.errors import InputError
from clozeline.families import FAMILIES
from clozeline.families.bert import BERT
from clozeline.families.family import Family
from clozeline.model.encoder import Encoder
from clozeline.model.heads import Network
from helpers import random_batch

SOURCES = sorted(Path(clozeline.model.__path__[0]).glob("*.py"))
CONFIG = EncoderConfig(family="bert", vocab_size=50, width=32, layers=3, heads=4, ffn_width=64, max_length=40)


HOOKS = ("forward", "states", "embed", "turn", "bias", "scores", "attend", "blocks", "eager", "varlen")


def offences(source: str) -> list[str]:
    """Lines of `forward`, and of the hooks that it calls, that ask the configuration or compare something with a name."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and function.name in HOOKS:
            for node in ast.walk(function):
                asks = isinstance(node, ast.Attribute | ast.Name) and "config" in (
                    node.attr if isinstance(node, ast.Attribute) else node.id
                )
                names = isinstance(node, ast.Compare | ast.match_case) and any(
                    isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value != "cpu"
                    for part in ast.walk(node)
                )
                if asks or names:
                    found.append(f"line {getattr(node, 'lineno', function.lineno)}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_forward_asks_the_configuration_what_the_model_is(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "body", ["return x if self.config.gated else -x", "return x if self.name == 'bert' else -x", "return config.act(x)"]
)
def test_the_check_above_finds_such_a_forward(body: str) -> None:
    assert offences(f"def forward(self, x):\n    {body}")


PUBLISHED = {  # parameters of the bare model, with its pooler where it has one
    "bert-base-uncased": 109_482_240,
    "bert-large-uncased": 335_141_888,
    "roberta-base": 124_645_632,
    "xlm-roberta-base": 278_043_648,
    "distilbert-base-uncased": 66_362_880,
    "albert-base-v2": 11_683_584,
    "electra-small-discriminator": 13_483_008,
    "deberta-v3-base": 183_831_552,
    "modernbert-base": 149_014_272,
    "mpnet-base": 109_486_464,
}


@pytest.mark.parametrize(
    ("family", "preset"), [(family, name) for family in FAMILIES.values() for name in family.presets]
)
def test_presets_have_the_published_number_of_parameters(family: Family, preset: str) -> None:
    config = family.presets[preset]
    assert family.read(family.write(config)) == config
    with torch.device("meta"):
        encoder = Encoder(config)
        network = Network(config, encoder, family.heads["base"].build(config, encoder, 0))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == PUBLISHED.get(preset, count)


def test_states_are_the_embedding_and_each_layer_and_end_with_what_forward_gives() -> None:
    encoder = BERT.build(CONFIG).encoder.eval()
    batch = random_batch(CONFIG, [7, 40, 1])
    states = list(encoder.states(batch))
    assert len(states) == CONFIG.layers + 1
    assert torch.equal(states[0], encoder.embedding(batch))
    assert torch.equal(states[-1], encoder(batch))
    assert all(not torch.equal(first, second) for first, second in itertools.pairwise(states))


def test_without_segments_every_token_is_in_segment_zero() -> None:
    encoder = BERT.build(CONFIG).encoder.eval()
    batch = random_batch(CONFIG, [7, 40, 1], pairs=False)
    assert batch.segments is None
    zeros = type(batch)(batch.ids, batch.layout, torch.zeros_like(batch.ids))
    assert torch.equal(encoder(batch), encoder(zeros))


def test_segments_and_positions_change_the_result() -> None:
    encoder = BERT.build(CONFIG).encoder.eval()
    same = random_batch(CONFIG, [6], pairs=False)
    ones = type(same)(same.ids, same.layout, torch.ones_like(same.ids))
    assert not torch.allclose(encoder(same), encoder(ones), atol=1e-3)
    equal = type(same)(torch.full_like(same.ids, 9), same.layout)
    assert not torch.allclose(encoder(equal)[0], encoder(equal)[1], atol=1e-3)


def test_weights_are_a_function_of_the_seed_and_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (BERT.build(CONFIG, "masked_lm", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.embedding.tokens.weight"], other["encoder.embedding.tokens.weight"])


def test_fresh_weights_are_as_published_norms_one_biases_zero_matrices_with_the_given_spread() -> None:
    for name, value in BERT.build(CONFIG.replace(init_std=0.05), "masked_lm").named_parameters():
        if name.endswith("norm.weight"):
            assert bool((value == 1).all()), name
        elif name.endswith("bias"):
            assert bool((value == 0).all()), name
        else:
            # the spread of n draws is within 5 / sqrt(2 n) of the true one
            assert value.std().item() == pytest.approx(0.05, rel=5 / (2 * value.numel()) ** 0.5), name


def test_bfloat16_over_fp32_weights_gives_bfloat16_states_and_fp32_gradients() -> None:
    network = BERT.build(CONFIG)
    network.encoder.compute_dtype = torch.bfloat16
    states = network.encoder(random_batch(CONFIG, [5, 3]))
    assert states.dtype == torch.bfloat16
    states.float().sum().backward()
    assert {parameter.grad.dtype for parameter in network.parameters() if parameter.grad is not None} == {torch.float32}


@pytest.mark.parametrize("lengths", [[8], [8] * 4 + [1], [8] * 70, [1] * 97], ids=sum)
def test_bfloat16_reads_any_number_of_tokens_and_stays_near_fp32(lengths: list[int]) -> None:
    """However many tokens there are, also where a sequence may have few."""
    encoder = BERT.build(CONFIG.replace(max_length=8)).encoder.eval()
    batch = random_batch(encoder.config, lengths)
    exact = encoder(batch)
    encoder.compute_dtype = torch.bfloat16
    found = encoder(batch)
    assert found.shape == exact.shape
    # states are of size 1 to 4, of which a bfloat16 keeps 8 bits, through some tens of operations
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.1)


def test_a_kernel_that_cannot_serve_is_refused_at_the_first_call() -> None:
    encoder = BERT.build(CONFIG).encoder.eval()
    encoder.use_kernel("varlen")
    with pytest.raises(InputError, match="varlen"):
        encoder(random_batch(CONFIG, [5]))
