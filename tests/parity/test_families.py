"""Every family here is that family in transformers: states, results and gradients of every head, and tensors on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clozeline import checkpoint
from clozeline.families import FAMILIES
from conformance import (
    CLASSES,
    VARIANTS,
    batch_of,
    gradients,
    mixed,
    model_type,
    ours,
    reference,
    sizes,
    theirs,
    untied,
)

transformers = pytest.importorskip("transformers")

CLOSE = 1e-5  # fp32: some tens of roundings of 6e-8 on values below 10
CASES = [(variant, kind) for variant in VARIANTS for kind in FAMILIES[model_type(variant)].heads]


@pytest.mark.parametrize(("variant", "kind"), CASES)
def test_states_results_and_every_gradient_are_those_of_transformers(variant: str, kind: str, tmp_path: Path) -> None:
    model = reference(variant, kind)
    model.save_pretrained(tmp_path)
    loaded = checkpoint.load(tmp_path, kind, CLASSES)
    assert (loaded.fresh, loaded.unused) == ([], [])
    network, batch = loaded.network.eval(), batch_of(variant)
    mine, other = ours(network, batch), theirs(model, kind, batch)
    for found, expected in zip(mine, other, strict=True):
        torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)
    mixed(mine).backward()
    mixed(other).backward()
    wanted = {name: torch.as_tensor(value.grad) for name, value in untied(model, loaded.family.heads[kind].tied)}
    for names, found in gradients(loaded.family, network, kind):
        expected = torch.cat([wanted.pop(name) for name in names])
        assert expected.abs().max() > 0.01, f"{names} should matter"
        # relative to the largest gradient in the tensor: a small one is a difference of large ones
        error = (found - expected).abs().max() / expected.abs().max()
        assert error < CLOSE, f"{names}: {error:.1e}"
    assert not wanted


@pytest.mark.parametrize(("variant", "kind"), CASES)
def test_what_is_saved_here_transformers_loads_bit_for_bit_without_a_name_left_over(
    variant: str, kind: str, tmp_path: Path
) -> None:
    family = FAMILIES[model_type(variant)]
    config = family.read(sizes(variant))
    network = family.build(config, kind, CLASSES).eval()
    labels = {"id2label": {str(at): name for at, name in enumerate("abc")}}
    checkpoint.save(tmp_path, family, network, kind, labels if "classification" in kind else {})
    assert family.read(checkpoint.read_config(tmp_path)) == config
    kind_of_theirs = getattr(transformers, family.heads[kind].architecture)
    model, info = kind_of_theirs.from_pretrained(tmp_path, output_loading_info=True)
    assert {what: list(names) for what, names in info.items() if names} == {}
    tensors = model.state_dict()
    parameters = dict(network.named_parameters())
    for name, parts in checkpoint.names(family, network, kind).items():
        written = torch.cat([tensors[family.written(part, kind)] for part in parts])
        assert torch.equal(written, parameters[name]), name
    batch = batch_of(variant)
    with torch.no_grad():
        mine, other = ours(network, batch), theirs(model.eval(), kind, batch)
    for found, expected in zip(mine, other, strict=True):
        torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back_through_transformers_changes_no_bit(variant: str, tmp_path: Path) -> None:
    model = reference(variant, "masked_lm")
    model.save_pretrained(tmp_path / "theirs")
    loaded = checkpoint.load(tmp_path / "theirs", "masked_lm")
    (tmp_path / "ours").mkdir()
    checkpoint.save(tmp_path / "ours", loaded.family, loaded.network, "masked_lm", {})
    back = type(model).from_pretrained(tmp_path / "ours")
    first = model.state_dict()
    assert all(torch.equal(value, first[name]) for name, value in back.state_dict().items())
    back.save_pretrained(tmp_path / "back")
    settings = [loaded.family.read(checkpoint.read_config(tmp_path / name)) for name in ("theirs", "back")]
    assert settings[0] == settings[1]


@torch.inference_mode()
@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_is_at_most_twice_as_far_from_fp32_as_transformers(variant: str, tmp_path: Path) -> None:
    """In the root of the mean square over all states and masked-LM logits."""
    model = reference(variant, "masked_lm")
    model.save_pretrained(tmp_path)
    network = checkpoint.load(tmp_path, "masked_lm").network.twin(torch.bfloat16, torch.device("cpu"))
    batch = batch_of(variant)
    exact = theirs(model, "masked_lm", batch)
    mine, other = ours(network, batch), theirs(model.bfloat16(), "masked_lm", batch)
    for found, expected, truth in zip(mine[1:], other[1:], exact[1:], strict=True):
        errors = [(half.float() - truth).square().mean().sqrt() for half in (found, expected)]
        assert 0 < errors[0] <= 2 * errors[1]
