"""The rules of a published vocabulary are recognised, and so are the wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clozeline import tokenizer_check
from clozeline.tokenizer import Tokenizer


def folder_with(data: Path, name: str, folder: Path, **settings: object) -> Tokenizer:
    for file in (data / "tokenizers" / name).iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer.load(folder)


@pytest.mark.parametrize(
    "name", ["bert-base-uncased", "roberta-base", "deberta-v3", "gpt2", "xlnet-base-cased", "t5-small"]
)
def test_a_published_tokenizer_is_known(name: str, data: Path, tmp_path: Path) -> None:
    said, wrong = tokenizer_check.check(folder_with(data, name, tmp_path))
    assert said.startswith("splits text as ")
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bert-base-uncased", {"do_lower_case": False}),
        ("bert-base-cased", {"do_lower_case": True}),
        ("bert-base-cased", {"do_lower_case": False, "strip_accents": True}),
        ("deberta-v3", {"split_by_punct": True}),
        ("xlnet-base-cased", {"do_lower_case": True}),
    ],
)
def test_a_published_vocabulary_with_other_rules_is_found(
    name: str, settings: dict[str, object], data: Path, tmp_path: Path
) -> None:
    _, wrong = tokenizer_check.check(folder_with(data, name, tmp_path, **settings))
    assert "by other rules" in wrong[-1]


def test_a_vocabulary_of_the_users_own_is_not_accused(tiny: Path) -> None:
    said, wrong = tokenizer_check.check(Tokenizer.load(tiny))
    assert "not on record" in said
    assert wrong == []
