"""Checkpoints as many years wrote them, in every family: the same network comes out, or the key not served is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import clozeline as cl
from clozeline import checkpoint
from clozeline.families import FAMILIES
from clozeline.families.family import Family
from conformance import CLASSES, VARIANTS, model_type, sizes

Tensors = dict[str, Tensor]


def saved(folder: Path, variant: str, kind: str = "masked_lm") -> tuple[Family, Tensors, Tensors]:
    """A model saved here: its family, the tensors in the file, and the parameters."""
    family = FAMILIES[model_type(variant)]
    network = family.build(family.read(sizes(variant)), kind, CLASSES, seed=1)
    for at, value in enumerate(network.parameters()):  # no two alike, none zero
        value.data += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(at))
    checkpoint.save(folder, family, network, kind, {})
    return family, load_file(folder / "model.safetensors"), dict(network.named_parameters())


def without_prefix(family: Family, tensors: Tensors) -> Tensors:
    return {name.removeprefix(family.prefix): value for name, value in tensors.items()}


def gamma_and_beta(family: Family, tensors: Tensors) -> Tensors:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {
        next((name.removesuffix(new) + older for new, older in old.items() if name.endswith(new)), name): value
        for name, value in tensors.items()
    }


def with_buffers(family: Family, tensors: Tensors) -> Tensors:
    return tensors | {family.prefix + name: torch.arange(40)[None] for name in family.ignored}


def with_copies(family: Family, tensors: Tensors) -> Tensors:
    copies = family.heads["masked_lm"].tied.items()
    plain = without_prefix(family, tensors)
    return tensors | {second: plain[first].clone() for second, first in copies}


@pytest.mark.parametrize("change", [without_prefix, gamma_and_beta, with_buffers, with_copies])
@pytest.mark.parametrize("variant", VARIANTS)
def test_older_spellings_give_the_same_network(
    variant: str, change: Callable[[Family, Tensors], Tensors], tmp_path: Path
) -> None:
    family, tensors, parameters = saved(tmp_path, variant)
    changed = change(family, tensors)
    if changed.keys() == tensors.keys():
        pytest.skip("this family was never written so")
    save_file(changed, tmp_path / "model.safetensors")
    loaded = checkpoint.load(tmp_path, "masked_lm")
    assert (loaded.fresh, loaded.unused) == ([], [])
    for name, value in loaded.network.named_parameters():
        assert torch.equal(value, parameters[name]), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_shards_give_the_same_network(variant: str, tmp_path: Path) -> None:
    _, tensors, parameters = saved(tmp_path, variant)
    (tmp_path / "model.safetensors").unlink()
    parts = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    names: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file(part, tmp_path / file)
        names |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for name, value in checkpoint.load(tmp_path, "masked_lm").network.named_parameters():
        assert torch.equal(value, parameters[name]), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_decoder_that_is_not_tied_is_refused(variant: str, tmp_path: Path) -> None:
    family, tensors, _ = saved(tmp_path, variant)
    second = next(iter(family.heads["masked_lm"].tied))
    save_file(with_copies(family, tensors) | {second: torch.ones(90, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(cl.InputError, match="one tensor, tied"):
        checkpoint.load(tmp_path, "masked_lm")


def test_deberta_s_newer_masked_lm_head_is_read(tmp_path: Path) -> None:
    family, tensors, parameters = saved(tmp_path, "deberta-v2")
    renamed = {}
    for name, value in tensors.items():
        for new, old in family.renamed.items():
            name = name.replace(old, new)
        renamed[name] = value
    assert len(renamed.keys() - tensors.keys()) == 5
    renamed["deberta.embeddings.position_embeddings.weight"] = torch.zeros(512, 32)
    renamed["deberta.embeddings.word_embeddings._weight"] = torch.zeros(90, 32)
    renamed["mask_predictions.dense.weight"] = torch.zeros(32, 32)
    save_file(renamed, tmp_path / "model.safetensors")
    loaded = checkpoint.load(tmp_path, "masked_lm")
    for name, value in loaded.network.named_parameters():
        assert torch.equal(value, parameters[name]), name
    assert loaded.unused == [
        "embeddings.position_embeddings.weight",
        "embeddings.word_embeddings._weight",
        "mask_predictions.dense.weight",
    ]


@pytest.mark.parametrize("variant", ["mpnet", "roberta", "bert", "distilbert", "albert"])
def test_a_class_name_without_its_head_is_a_bare_encoder(
    variant: str, tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As encoders made for vectors have it, all-mpnet-base-v2 among them."""
    saved(tmp_path, variant, "base")
    raw = checkpoint.read_config(tmp_path)
    raw["architectures"] = [FAMILIES[model_type(variant)].heads["masked_lm"].architecture]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    model = cl.load(tmp_path)
    assert "holds none of that head; it is a bare encoder" in caplog.text
    assert model.task is None
    assert model.embed(["w1 w2"]).shape == (1, 32)  # type: ignore[union-attr]
    with pytest.raises(cl.InputError, match="no trained masked-LM head"):
        cl.load(tmp_path, cl.MaskedLM()).fill_mask("w1 [MASK]")


def test_a_head_that_a_family_does_not_have_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "roberta")
    with pytest.raises(cl.InputError, match="roberta has no next_sentence head; it has base, text_classification"):
        checkpoint.load(tmp_path, "next_sentence")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("change", [{"max_position_embeddings": "40"}, {"num_hidden_layers": None}, {"vocab_size": []}])
def test_values_of_another_kind_are_no_traceback(variant: str, change: dict[str, Any]) -> None:
    names = {"num_hidden_layers": "n_layers"} if variant == "distilbert" else {}
    with pytest.raises(cl.InputError):
        FAMILIES[model_type(variant)].read({**sizes(variant), **{names.get(key, key): v for key, v in change.items()}})


def test_modernbert_s_two_spellings_mean_the_same() -> None:
    family = FAMILIES["modernbert"]
    numbers = {
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 5e4,
        "local_rope_theta": 3e3,
        "num_hidden_layers": 4,
    }
    kinds = ["full_attention", "sliding_attention"]
    table = {
        "num_hidden_layers": 4,
        "layer_types": kinds * 2,
        "rope_parameters": {kind: {"rope_theta": base} for kind, base in zip(kinds, (5e4, 3e3), strict=True)},
    }
    config = family.read({**sizes("modernbert"), **numbers})
    assert config == family.read({**sizes("modernbert"), **table})
    assert config.windows == (None, 6, None, 6)
    written = family.write(config)
    assert {key: written[key] for key in numbers} == numbers
    assert written["layer_types"] == table["layer_types"]


def test_layers_that_no_number_can_say_are_written_as_a_list_only() -> None:
    family = FAMILIES["modernbert"]
    kinds = ["full_attention", "full_attention", "sliding_attention"]
    raw = {**sizes("modernbert"), "num_hidden_layers": 3, "layer_types": kinds}
    written = family.write(family.read(raw))
    assert written["layer_types"] == kinds
    assert "global_attn_every_n_layers" not in written


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
    ("bert", {"is_decoder": True}, "is_decoder = True"),
    ("roberta", {"position_embedding_type": "relative_key_query"}, "position_embedding_type"),
    ("distilbert", {"qa_dropout": 0.3}, "qa_dropout = 0.3"),
    ("albert", {"inner_group_num": 2}, "inner_group_num = 2"),
    ("electra", {"summary_activation": "tanh"}, "summary_activation"),
    ("deberta-v2", {"relative_attention": False}, "relative_attention = False"),
    ("deberta-v2", {"share_att_key": False}, "share_att_key = False"),
    ("deberta-v2", {"position_biased_input": True}, "position_biased_input = True"),
    ("deberta-v2", {"pos_att_type": ["p2p"]}, "pos_att_type"),
    ("deberta-v2", {"pos_att_type": None}, "pos_att_type"),
    ("deberta-v2", {"embedding_size": 16}, "embedding_size = 16"),
    ("deberta-v2", {"conv_kernel_size": 3, "conv_act": "mish"}, "conv_act = 'mish'"),
    ("modernbert", {"attention_bias": True}, "attention_bias = True"),
    ("modernbert", {"mlp_dropout": 0.1}, "mlp_dropout = 0.1"),
    ("modernbert", {"layer_types": ["linear"]}, "layer_types"),
    ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "full_attention.rope_type = 'yarn'"),
    ("mpnet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets = 16"),
    ("bert", {"hidden_act": "mish"}, "hidden_act = 'mish'"),
]


@pytest.mark.parametrize(("variant", "more", "message"), REFUSED)
def test_what_no_brick_has_is_refused_by_the_key_s_name(variant: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(cl.InputError, match="asks for") as caught:
        FAMILIES[model_type(variant)].read({**sizes(variant), **more})
    assert message in str(caught.value)


def test_a_key_that_deberta_needs_may_not_be_left_out() -> None:
    raw = {key: value for key, value in sizes("deberta-v2").items() if key != "share_att_key"}
    with pytest.raises(cl.InputError, match="share_att_key = False"):
        FAMILIES["deberta-v2"].read(raw)


def test_models_of_an_unknown_type_are_refused() -> None:
    with pytest.raises(cl.InputError, match="'deberta' are not supported"):
        from clozeline.families import by_name

        by_name("deberta")
