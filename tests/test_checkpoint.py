"""Checkpoints: what is read, what is refused and in which words, and that saving is whole or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import clozeline as cl
from clozeline import bundle, checkpoint
from clozeline.errors import InputError
from clozeline.families.bert import BERT
from clozeline.tasks.known import Task
from helpers import VOCABULARY, as_trained

LABELS = ("negative", "neutral", "positive")
Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A classifier of three labels, to be spoilt."""
    return as_trained(bundle.load(tiny, cl.TextClassification(LABELS)), tmp_path / "model")


def configure(folder: Path, **changes: Any) -> None:
    """Change keys of config.json; None takes one away."""
    path = folder / "config.json"
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


def reweigh(folder: Path, change: Callable[[Tensors], object]) -> Tensors:
    """Change the tensors of the file in place."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return tensors


def parameters(folder: Path) -> Tensors:
    return {name: value.detach() for name, value in bundle.load(folder).network.named_parameters()}


def same(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as at:
        bundle.load(folder)
    return str(at.value)


# -- round trips


@pytest.mark.parametrize("task", [None, cl.TextClassification(LABELS), cl.MaskedLM(), cl.NextSentence()], ids=repr)
def test_save_and_load_give_every_bit_and_the_task_back(tiny: Path, tmp_path: Path, task: Task | None) -> None:
    loaded = bundle.load(tiny, task)
    loaded.save(tmp_path / "model")
    again = bundle.load(tmp_path / "model")
    assert same(dict(loaded.network.named_parameters()), dict(again.network.named_parameters()))
    assert again.task == task
    assert again.config == loaded.config
    assert again.fresh == ([] if task is None else loaded.fresh)  # what was never trained is not passed off
    again.save(tmp_path / "second")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_config_json_has_the_label_names_both_ways(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    assert raw["id2label"] == {"0": "negative", "1": "neutral", "2": "positive"}
    assert raw["label2id"] == {"negative": 0, "neutral": 1, "positive": 2}
    assert raw["architectures"] == ["BertForSequenceClassification"]


def test_half_precision_weights_are_read_into_fp32(folder: Path) -> None:
    halves = reweigh(folder, lambda tensors: tensors.update({k: v.half() for k, v in tensors.items()}))
    found = parameters(folder)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert torch.equal(found["head.classifier.weight"], halves["classifier.weight"].float())


def test_names_with_and_without_the_prefix_are_read_alike(folder: Path) -> None:
    expected = parameters(folder)

    def plain(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("bert.")] = tensors.pop(name)

    names = reweigh(folder, plain)
    assert not any(name.startswith("bert.") for name in names)
    assert same(parameters(folder), expected)


def test_the_oldest_checkpoints_gamma_and_beta_are_read(folder: Path) -> None:
    expected = parameters(folder)

    def old(tensors: Tensors) -> None:
        for name in [name for name in tensors if "LayerNorm" in name]:
            tensors[name.replace("weight", "gamma").replace("bias", "beta")] = tensors.pop(name)

    assert sum(name.endswith(".gamma") for name in reweigh(folder, old)) == 5
    assert same(parameters(folder), expected)


def test_position_ids_of_old_checkpoints_hold_nothing_and_are_passed_over(folder: Path) -> None:
    reweigh(folder, lambda tensors: tensors.update({"bert.embeddings.position_ids": torch.arange(64)[None]}))
    assert bundle.load(folder).fresh == []


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


def test_weights_in_shards_are_read_by_their_index(folder: Path) -> None:
    expected = parameters(folder)
    shard(folder)
    assert same(parameters(folder), expected)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing: the weights are in 2 files" in refused(folder)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(folder: Path, content: str) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refused(folder)


def test_an_old_bin_of_plain_tensors_is_read(folder: Path) -> None:
    expected = parameters(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert same(parameters(folder), expected)


class Evil:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_bin_that_would_run_code_is_refused_and_does_not_run_it(folder: Path, tmp_path: Path) -> None:
    torch.save({**load_file(folder / "model.safetensors"), "x": Evil(tmp_path / "owned")}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "would run code when opened; it is not opened" in refused(folder)
    assert not (tmp_path / "owned").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "owned").exists(), "careless loading does run it"


def test_safetensors_are_read_where_both_formats_are_there(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    assert bundle.load(folder).fresh == []


def test_a_bin_of_something_else_is_refused(folder: Path) -> None:
    torch.save([1, 2], folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "does not hold a table of tensors" in refused(folder)


# -- folders that are no checkpoints


def test_a_folder_without_config_json_is_refused_with_what_it_holds(folder: Path) -> None:
    (folder / "config.json").unlink()
    message = refused(folder)
    assert "holds no config.json, so it is not a model folder" in message
    assert "model.safetensors" in message


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no weights: model.safetensors or pytorch_model.bin is needed" in refused(folder)


def test_a_file_or_an_impossible_name_in_place_of_a_folder_is_refused(folder: Path) -> None:
    assert "is a file; give the folder" in refused(folder / "config.json")
    assert "There is no folder" in refused(folder / "nothing" / "here")


@pytest.mark.parametrize("content", [b"", b"{'model_type': 'bert'}", b"\xff\xfe\x00"])
def test_a_config_that_is_not_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert "config.json is not valid JSON" in refused(folder)


@pytest.mark.parametrize("content", ["[]", '{"hidden_size": 32}'])
def test_a_config_without_a_model_type_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "has no 'model_type'" in refused(folder)


def test_an_unknown_model_type_is_refused_with_the_nearest(folder: Path) -> None:
    configure(folder, model_type="bart")
    assert "type 'bart' are not supported: did you mean 'bert'" in refused(folder)


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "relative positions": ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
    "a decoder": ({"is_decoder": True}, "is_decoder = True"),
    "an activation": ({"hidden_act": "mish"}, "hidden_act = 'mish'"),
    "an unknown problem": ({"problem_type": "ranking"}, "problem_type = 'ranking'"),
    "sizes that do not divide": ({"num_attention_heads": 5}, "does not divide into 5 heads"),
    "a size of zero": ({"num_hidden_layers": 0}, "layers is 0"),
    "a size that is text": ({"hidden_size": "32"}, "width is '32'"),
    "a rate above one": ({"hidden_dropout_prob": 1.5}, "dropout is 1.5"),
    "a rate that is text": ({"hidden_dropout_prob": "0.1"}, "dropout is '0.1'"),
}


@pytest.mark.parametrize(("changes", "named"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_a_config_that_asks_for_what_cannot_be_is_refused_by_name(
    folder: Path, changes: dict[str, Any], named: str
) -> None:
    configure(folder, **changes)
    assert named in refused(folder)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000])
def test_a_truncated_weight_file_is_called_damaged(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    message = refused(folder)
    assert message.startswith(f"{path} is damaged or incomplete")
    assert message.endswith("Download or copy it again.")


# -- weights that do not fit


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_numbers_are_refused_with_the_tensor_named(folder: Path, bad: float) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    reweigh(folder, lambda tensors: tensors[name][0, :2].fill_(bad))
    message = refused(folder)
    assert "encoder.layer.1.output.dense.weight holds 2 values that are NaN or infinite" in message


def rows(message: str) -> list[tuple[str, str]]:
    """The two columns under the message's heading."""
    _, heading, *lines = message.splitlines()
    assert [part.strip() for part in heading.split("|")] == ["in the file", "in the model"]
    assert len({line.index("|") for line in lines}) == 1, "the columns are aligned"
    return [(left.strip(), right.strip()) for left, right in (line.split("|") for line in lines)]


def test_missing_extra_and_misshapen_tensors_are_shown_side_by_side(folder: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        del tensors["bert.encoder.layer.0.attention.self.key.bias"]
        tensors["bert.encoder.layer.2.output.dense.bias"] = torch.zeros(32)
        tensors["bert.embeddings.word_embeddings.weight"] = torch.zeros(7, 32)

    reweigh(folder, spoil)
    message = refused(folder)
    assert "do not match its config.json (3 of them)" in message
    assert sorted(rows(message)) == [
        ("(missing)", "encoder.layer.0.attention.self.key.bias (32,)"),
        ("embeddings.word_embeddings.weight (7, 32)", f"embeddings.word_embeddings.weight ({len(VOCABULARY)}, 32)"),
        ("encoder.layer.2.output.dense.bias (32,)", "(no such parameter)"),
    ]


def test_a_head_that_the_config_claims_must_be_there(folder: Path) -> None:
    reweigh(folder, lambda tensors: tensors.pop("classifier.weight"))
    assert rows(refused(folder)) == [("(missing)", "classifier.weight (3, 32)")]


def test_a_long_list_of_differences_is_cut_and_counted(folder: Path) -> None:
    configure(folder, num_hidden_layers=5)
    message = refused(folder)
    assert "(48 of them)" in message  # 16 tensors in each of three layers
    assert message.endswith("and 28 more")


def test_two_tensors_for_one_parameter_are_refused(folder: Path) -> None:
    reweigh(folder, lambda tensors: tensors.update({"pooler.dense.bias": torch.ones(32)}))
    assert "pooler.dense.bias" in refused(folder)


def test_a_tied_output_matrix_may_be_written_twice_but_not_differ(tiny: Path, tmp_path: Path) -> None:
    as_trained(bundle.load(tiny, cl.MaskedLM()), tmp_path)
    table, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    reweigh(tmp_path, lambda tensors: tensors.update({decoder: tensors[table].clone()}))
    assert bundle.load(tmp_path).fresh == []
    reweigh(tmp_path, lambda tensors: tensors[decoder].add_(1))
    assert rows(refused(tmp_path)) == [
        ("cls.predictions.decoder.weight differs", "embeddings.word_embeddings.weight (one tensor, tied)")
    ]


def test_a_tokenizer_with_more_ids_than_rows_is_refused_and_fewer_are_fine(folder: Path) -> None:
    size = len(VOCABULARY)

    def resize(count: int) -> None:
        def cut(tensors: Tensors) -> None:
            table = "bert.embeddings.word_embeddings.weight"
            tensors[table] = torch.zeros(count, 32)

        reweigh(folder, cut)
        configure(folder, vocab_size=count)

    resize(size + 8)
    assert bundle.load(folder).config.vocab_size == size + 8
    resize(size - 1)
    assert f"has {size} token ids, but the model's embedding has only {size - 1} rows" in refused(folder)


# -- heads and labels


def test_a_bare_encoder_saved_without_its_pooler_loads_without_one(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    reweigh(tmp_path / "model", lambda tensors: [tensors.pop(f"pooler.dense.{part}") for part in ("weight", "bias")])
    loaded = bundle.load(tmp_path / "model")
    assert loaded.network.head is None
    assert loaded.fresh == []


def test_a_new_head_starts_fresh_and_is_named(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="clozeline")
    loaded = bundle.load(tiny, cl.MaskedLM())
    assert loaded.fresh
    assert all(name.startswith("head.") for name in loaded.fresh)
    assert "newly initialised, train before use" in caplog.text


def test_the_pooler_of_a_bare_encoder_is_kept_under_a_new_classifier(tiny: Path) -> None:
    loaded = bundle.load(tiny, cl.TextClassification(LABELS))
    assert loaded.fresh == ["head.classifier.weight", "head.classifier.bias"]
    theirs = load_file(tiny / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(dict(loaded.network.named_parameters())["head.pooler.dense.weight"], theirs)


def test_a_fresh_classifier_is_a_function_of_the_seed(tiny: Path) -> None:
    def drawn(seed: int) -> Tensor:
        network = bundle.load(tiny, cl.TextClassification(LABELS), seed=seed).network
        return dict(network.named_parameters())["head.classifier.weight"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_a_checkpoint_tells_its_task_and_labels(folder: Path) -> None:
    assert bundle.load(folder).task == cl.TextClassification(LABELS)
    assert bundle.load(folder, cl.TextClassification()).task == cl.TextClassification(LABELS)
    assert bundle.load(folder, cl.TextClassification(LABELS)).fresh == []


def test_labels_without_names_take_the_given_ones_and_keep_the_classifier(folder: Path) -> None:
    trained = parameters(folder)
    configure(folder, id2label={str(at): f"LABEL_{at}" for at in range(3)})
    renamed = bundle.load(folder, cl.TextClassification(["bad", "so so", "good"]))
    assert isinstance(renamed.task, cl.TextClassification)
    assert renamed.task.labels == ("bad", "so so", "good")
    assert renamed.fresh == []
    assert same(dict(renamed.network.named_parameters()), trained)


def test_the_same_labels_in_another_order_are_refused_with_the_right_order(folder: Path) -> None:
    with pytest.raises(InputError, match=r"in another order: .* negative, neutral, positive"):
        bundle.load(folder, cl.TextClassification(LABELS[::-1]))


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["negative", "positive"]], ids=str)
def test_other_labels_get_a_fresh_classifier_and_a_warning(
    folder: Path, labels: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    trained = parameters(folder)
    with caplog.at_level(logging.WARNING, "clozeline"):
        loaded = bundle.load(folder, cl.TextClassification(labels))
    assert loaded.fresh == ["head.classifier.weight", "head.classifier.bias"]
    assert "train before use: head.classifier.weight" in caplog.text
    found = dict(loaded.network.named_parameters())
    assert found["head.classifier.weight"].shape == (len(labels), 32)
    assert torch.equal(found["head.pooler.dense.weight"], trained["head.pooler.dense.weight"])


# -- saving


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FAILURES = {
    "the system says so": OSError(errno.ENOSPC, "No space left on device"),
    "safetensors says so": SafetensorError("Error while serializing: IoError(Os { code: 28, kind: StorageFull })"),
}


@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES)
def test_saving_on_a_full_disk_leaves_the_earlier_model_untouched(
    folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = state_of(folder)

    def full(tensors: Tensors, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match=r"Cannot write to .*: the disk is full .*\. Nothing there was changed"):
        bundle.load(tiny, cl.MaskedLM()).save(folder)
    assert state_of(folder) == before
    with pytest.raises(InputError, match="disk is full"):
        bundle.load(tiny).save(folder.parent / "new")
    assert state_of(folder.parent / "new") == {}


def test_an_error_that_is_no_fault_of_the_disk_is_not_called_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state_of(folder)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        bundle.load(folder).save(folder)
    assert state_of(folder) == before


def test_saving_where_a_file_lies_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="Cannot write to"):
        bundle.load(folder).save(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "a file"


def test_saving_over_a_model_replaces_it(folder: Path, tiny: Path) -> None:
    bundle.load(tiny, cl.MaskedLM()).save(folder)
    assert bundle.load(folder).task == cl.MaskedLM()


def test_every_head_of_a_family_names_every_parameter_once() -> None:
    for kind in BERT.heads:
        config = BERT.presets["bert-tiny-uncased"]
        table = BERT.table(config, kind)
        with torch.device("meta"):
            assert set(table) == {name for name, _ in BERT.build(config, kind, 2, encoder=False).named_parameters()}
        theirs = [name for names in table.values() for name in names]
        assert len(theirs) == len(set(theirs))


def test_a_classifier_saved_untrained_stays_so_until_somebody_trains_it(tiny: Path, tmp_path: Path) -> None:
    bundle.load(tiny, cl.TextClassification(LABELS)).save(tmp_path / "model")
    assert "head.classifier.weight" in bundle.load(tmp_path / "model").fresh
    reweigh(
        tmp_path / "model", lambda tensors: [tensor.add_(1) for tensor in tensors.values()]
    )  # as another tool would
    assert bundle.load(tmp_path / "model").fresh == []
    raw = json.loads((tmp_path / "model" / "config.json").read_text())
    odds: list[Any] = [{"untrained": None}, [], {"untrained": {"head.nothing": "1"}}]
    for odd in odds:
        (tmp_path / "model" / "config.json").write_text(json.dumps({**raw, "clozeline": odd}))
        assert bundle.load(tmp_path / "model").fresh == []
