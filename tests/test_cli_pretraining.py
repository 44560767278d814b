"""The verbs that make an encoder out of raw text, as a user types them, and what they say when something is wrong."""

from __future__ import annotations

import json
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline import pretraining_recipe
from clozeline.cli import main
from clozeline.errors import InputError
from clozeline.families.shapes import shaped

Cli = Callable[..., tuple[int, str, str]]
WORDS = [f"word{number}" for number in range(60)]
TINY = ["--layers", "1", "--width", "32", "--heads", "2", "--ffn-width", "64", "--max-length", "32", "--length", "32"]
TINY += ["--batch-tokens", "600", "--precision", "fp32", "--vocabulary", "90"]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one JSONL file of 60 documents of random words."""
    folder, draw = tmp_path_factory.mktemp("corpus"), random.Random(0)
    texts = [" ".join(" ".join(draw.choices(WORDS, k=5)).capitalize() + "." for _ in range(4)) for _ in range(60)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run from raw text. Only to be read."""
    out = tmp_path_factory.mktemp("runs") / "run"
    code = main(["pretrain", str(corpus), "--out", str(out), *TINY, "--nsp", "1", "--held-out", "0.2", "--passes", "3"])
    assert code == 0
    return out


def test_one_command_goes_from_a_folder_of_text_to_an_encoder(run: Path) -> None:
    model = cl.load(run / "model")
    assert len(model.fill_mask("Word1 [MASK] word3.", top=5)[0]) == 5
    assert np.shape(model.embed(["word1"])) == (1, 32)
    card = (run / "model" / "README.md").read_text()
    assert "documents" in card and "mlm: loss" in card and "pipeline_tag: fill-mask" in card
    assert (run / "curve.png").stat().st_size > 10_000
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["tokens_per_second"] > 0 and 0 < lines[0]["mfu"] < 1
    assert "validation_mlm_loss" in lines[-1] and "validation_nsp_accuracy" in lines[-1]
    again = pretraining_recipe.resolve([str(run / "recipe.toml")], {})
    assert again.settings.nsp == 1 and again.layers == 1


def test_the_shards_and_the_tokenizer_of_a_run_serve_another(cli: Cli, run: Path, tmp_path: Path) -> None:
    code, out, _ = cli(
        "pretrain", run / "shards", "--tokenizer", run / "tokenizer", "--out", tmp_path / "b", *TINY[:-2], "--json"
    )
    found = json.loads(out)
    assert code == 0 and found["finished"] and 0 < found["losses"]["mlm"] < 10
    assert not (tmp_path / "b" / "shards").exists()


def test_a_model_is_trained_on_with_its_own_tokenizer(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    how = [
        "--length",
        "32",
        "--batch-tokens",
        "600",
        "--precision",
        "fp32",
        "--tokens",
        "2000",
        "--learning-rate",
        "1e-4",
    ]
    code, out, err = cli("pretrain", corpus, "--from", run / "model", "--nsp", "1", "--out", tmp_path / "c", *how)
    assert code == 0 and "mlm: loss" in out and "time        about" in err
    assert (tmp_path / "c" / "model" / "tokenizer.json").read_text() == (
        run / "tokenizer" / "tokenizer.json"
    ).read_text()
    assert not (tmp_path / "c" / "tokenizer").exists()


def test_a_plan_says_what_it_would_take(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    code, out, _ = cli("pretrain", corpus, "--out", tmp_path / "d", *TINY, "--passes", "10", "--dry-run", "--json")
    plan = json.loads(out)
    assert code == 0 and plan["parameters"] > 10_000 and plan["steps"] == -(-plan["tokens"] // 600)
    assert plan["corpus"]["documents"] in range(55, 61)
    assert plan["tokens"] == pytest.approx(10 * plan["corpus"]["tokens"] * (1 + 2 / 28), rel=0.05)
    assert not (tmp_path / "d" / "run.json").exists()


def test_steps_by_hand_tokenizer_shards_run(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    code, out, _ = cli("train-tokenizer", corpus, "--size", 90, "--out", tmp_path / "words")
    assert code == 0 and "The tokenizer is in" in out
    code, out, _ = cli(
        "shard", corpus, "--tokenizer", tmp_path / "words", "--out", tmp_path / "shards", "--held-out", 0.1
    )
    assert code == 0 and "documents" in out
    code, out, _ = cli("pretrain", tmp_path / "shards", "--out", tmp_path / "run", *TINY)
    assert code == 0 and "The model is in" in out, "the shards bring their tokenizer"


def test_a_flipped_byte_is_found_and_named(cli: Cli, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "shards", tmp_path / "shards")
    path = tmp_path / "shards" / "00000.tokens.npy"
    held = bytearray(path.read_bytes())
    held[-5] ^= 1
    path.write_bytes(held)
    code, _, err = cli(
        "pretrain", tmp_path / "shards", "--tokenizer", run / "tokenizer", "--out", tmp_path / "e", *TINY[:-2]
    )
    assert code == 2 and "00000.tokens.npy is damaged" in err and err.count("\n") == 1


def test_shards_of_another_tokenizer_are_refused(cli: Cli, run: Path, tiny: Path, tmp_path: Path) -> None:
    code, _, err = cli("pretrain", run / "shards", "--tokenizer", tiny, "--out", tmp_path / "f", *TINY[:-2])
    assert code == 2 and "made with another tokenizer" in err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no text|empty|no documents"),
        (b"\x00\x01\x02binary" * 100, "text.txt"),
        ("caf\u00e9".encode("latin-1"), "text.txt"),
    ],
)
def test_files_without_text_are_refused(content: bytes, says: str, cli: Cli, tmp_path: Path) -> None:
    import re

    (tmp_path / "text.txt").write_bytes(content)
    code, _, err = cli("pretrain", tmp_path / "text.txt", "--out", tmp_path / "run", *TINY)
    assert code == 2 and re.search(says, err) and err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "run" / "run.json").exists()


def test_one_giant_line_is_read_whole(cli: Cli, tmp_path: Path) -> None:
    draw = random.Random(1)
    (tmp_path / "line.txt").write_text(" ".join(draw.choices(WORDS, k=60_000)))
    how = [*TINY, "--tokens", "3000", "--held-out", "0", "--json"]
    code, out, _ = cli("pretrain", tmp_path / "line.txt", "--out", tmp_path / "run", *how)
    assert code == 0 and json.loads(out)["corpus"]["tokens"] >= 60_000


def test_one_document_has_no_other_to_take_a_sentence_from(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("Word1 word2. Word3 word4. " * 30)
    code, _, err = cli("pretrain", tmp_path / "one.txt", "--nsp", 1, "--held-out", 0, "--out", tmp_path / "run", *TINY)
    assert code == 2 and "at least two documents" in err


def test_a_full_disk_leaves_what_was_there(cli: Cli, run: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = ["pretrain", run / "shards", "--tokenizer", run / "tokenizer", "--out", tmp_path / "run", *TINY[:-2]]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        code, _, err = cli(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and "Cannot write to" in err
    assert not (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "There is no corpus"),
        (["texts", "--shape", "bert-minny-uncased"], "did you mean"),
        (["texts", "learning_rat=1"], "there is no key 'learning_rat' in a recipe: did you mean 'learning_rate'"),
        (["texts", "--mask-rate", "1.5"], "mask_rate is 1.5"),
        (["texts", "--length", "2"], "no room beside the special ones"),
        (["texts", "--length", "4", "--nsp", "1"], "no room beside the special ones"),
        (["texts", "--vocabulary", "50"], "leave vocabulary out"),
        (["texts", "--embedding-width", "16"], "bert has no embedding_width"),
        (["texts", "--from", "x", "--shape", "roberta-base"], "leave shape out"),
        (["texts", "--compile"], "compile is for GPUs"),
        (["texts", "--mlm", "0"], "nothing to learn"),
        (["texts", "--nsp", "1", "--shape", "roberta-base"], "roberta has no head for pairs"),
        (["texts", "--from", "x", "--layers", "3"], "leave layers out"),
        (["texts", "--held-out", "1.5"], "held_out is 1.5"),
        (["texts", "--length", "600"], "reads 512 tokens at most"),
        (["nowhere.txt"], "nowhere.txt"),
        (["recipe.toml"], "cannot be read"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str], says: str, cli: Cli, corpus: Path, tiny: Path, tmp_path: Path
) -> None:
    import re

    given = [str(corpus) if argument == "texts" else argument for argument in arguments]
    words = [] if "--from" in given else ["--tokenizer", str(tiny)]
    code, _, err = cli("pretrain", *given, *words, "--out", tmp_path / "run")
    assert code == 2 and re.search(says, err), err
    assert "Traceback" not in err


def test_a_tokenizer_of_another_corpus_in_the_folder_is_not_taken(
    cli: Cli, corpus: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "tokenizer", tmp_path / "run" / "tokenizer")
    code, _, err = cli("pretrain", corpus / "texts.jsonl", "--out", tmp_path / "run", *TINY)
    assert code == 2 and "was trained on something else" in err


def test_held_out_text_can_be_brought_along(cli: Cli, corpus: Path, run: Path, tmp_path: Path) -> None:
    how = [
        *TINY[:-2],
        "--tokenizer",
        run / "tokenizer",
        "--tokens",
        2000,
        "--validation",
        corpus / "texts.jsonl",
        "--json",
    ]
    code, out, err = cli("pretrain", corpus, "--out", tmp_path / "run", *how)
    assert code == 0, err
    assert json.loads(out)["losses"]["mlm"] > 0 and (tmp_path / "run" / "validation" / "manifest.json").exists()


def test_overwrite_begins_anew_and_takes_nothing_that_was_given(
    cli: Cli, corpus: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / "shards" / "notes.txt").write_text("mine")
    code, _, err = cli("pretrain", corpus, "--out", out, *TINY, "--tokens", 1000)
    assert code == 2 and "holds a finished run" in err
    code, _, err = cli("pretrain", corpus, "--out", out, "--shape", "typo", "--overwrite")
    assert code == 2 and "There is no shape" in err and (out / "model" / "config.json").exists()
    words = (out / "tokenizer" / "tokenizer.json").read_bytes()
    code, _, err = cli("pretrain", corpus, "--out", out, *TINY[:-1], 80, "--tokens", 1000, "--overwrite")
    assert code == 0, err
    assert (out / "tokenizer" / "tokenizer.json").read_bytes() != words
    assert (out / "shards" / "notes.txt").read_text() == "mine"
    own = ["--tokenizer", out / "tokenizer", *TINY[:-2], "--tokens", 1000, "--overwrite"]
    code, _, err = cli("pretrain", out / "shards", "--out", out, *own)
    assert code == 0 and (out / "shards" / "manifest.json").exists(), err


def test_a_head_that_is_not_trained_on_is_kept_as_it_was(run: Path, corpus: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = dict(length=32, batch_tokens=600, tokens=2000, learning_rate=1e-2, quiet=True)
    cl.pretrain(corpus, model=run / "model", out=tmp_path / "run", precision="bf16", **how)
    before, after = cl.load(run / "model").network, cl.load(tmp_path / "run" / "model").network
    assert after.kind == "pretraining"
    changed = {
        name: not torch.equal(one, other)
        for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True)
    }
    assert not any(value for name, value in changed.items() if name.startswith("head.pair."))
    assert all(value for name, value in changed.items() if name.endswith("dense.weight") and "pair" not in name)


def test_what_pairs_lose_is_on_the_card(corpus: Path, run: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = dict(length=24, batch_tokens=600, short=0.0, held_out=0.0, quiet=True, sop=1.0)
    sizes: dict[str, Any] = dict(layers=1, width=32, heads=2, ffn_width=64, max_length=32)
    found = cl.pretrain(corpus, tokenizer=run / "tokenizer", out=tmp_path / "run", **how, **sizes)
    specials = 3 * found.tokens  # at least: every sequence has some
    assert found.skipped > 0 and found.tokens + found.skipped < found.corpus["tokens"] + specials
    assert f"{found.skipped:,} tokens" in (tmp_path / "run" / "model" / "README.md").read_text()


RECIPES = sorted((Path(__file__).parents[1] / "recipes" / "pretraining").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_of_a_shape_that_there_is(path: Path) -> None:
    recipe = pretraining_recipe.resolve([str(path)], {})
    assert recipe.shape is not None
    family, config = shaped(recipe.shape, recipe.sizes())
    assert config.max_length >= max(recipe.settings.length, recipe.settings.first_length)
    assert recipe.settings.tokens or recipe.settings.passes > 1
    assert {"one H200", "8 H200s", "two CPU cores"} <= set(_hours(path))
    assert family.name == config.family


def _hours(path: Path) -> list[str]:
    lines = [line for line in path.read_text().splitlines() if line.startswith("#")]
    return [name for name in ("one H200", "8 H200s", "two CPU cores") if any(name in line for line in lines)]


def test_python_takes_the_keys_of_a_recipe(corpus: Path, tmp_path: Path) -> None:
    sizes: dict[str, Any] = dict(layers=1, width=32, heads=2, ffn_width=64, max_length=32, vocabulary=90)
    run = cl.pretrain(
        corpus, out=tmp_path, length=32, batch_tokens=600, precision="fp32", held_out=0.0, quiet=True, **sizes
    )
    assert run.finished and run.tokens > 1000
    with pytest.raises(InputError, match="there is no key 'lenght'"):
        cl.pretrain(corpus, out=tmp_path, lenght=32)
