"""A tokenizer that we trained is in transformers the same: ids, offsets, segments, roles and class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clozeline.tokenizer import Tokenizer
from clozeline.tokenizer_training import Kind, train_tokenizer
from hostile import HOSTILE

transformers = pytest.importorskip("transformers")

CASES: list[tuple[Kind, bool | None, str]] = [
    ("wordpiece", None, "BertTokenizer"),
    ("wordpiece", False, "BertTokenizer"),
    ("bpe", None, "RobertaTokenizer"),
    ("bpe", True, "TokenizersBackend"),
    ("unigram", None, "TokenizersBackend"),
    ("unigram", True, "TokenizersBackend"),
]


@pytest.fixture(scope="module")
def lines(data: Path) -> list[str]:
    """Articles with tokenization undone in part, so that there are quotes, dashes and numbers inside words."""
    text = (data / "pretrain" / "wikitext-2-test.txt").read_text(encoding="utf-8")
    return [line.replace(" @-@ ", "-").replace(" 's", "'s") for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def both(
    request: pytest.FixtureRequest, lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Any]:
    """Ours as it came out of training, and transformers' from the folder that it was saved to."""
    kind, lower, name = request.param
    folder = tmp_path_factory.mktemp("trained")
    (folder / "corpus.txt").write_text("\n".join([*lines[800:], *HOSTILE[-6:] * 20]), encoding="utf-8")
    done = train_tokenizer([folder / "corpus.txt"], kind=kind, lower=lower, size=5000, split="line", quiet=True)
    done.save(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__ == name
    return done.tokenizer, theirs


def test_ids_and_offsets(both: tuple[Tokenizer, Any], lines: list[str]) -> None:
    ours, theirs = both
    texts = [*HOSTILE, *lines[:800]]
    expected = theirs(texts, truncation=True, max_length=512, return_offsets_mapping=True)
    encoded = [one.sequences[0] for one in ours.encode(texts, offsets=True)]
    assert [one.ids.tolist() for one in encoded] == expected["input_ids"]
    offsets = [list(map(tuple, one.offsets.tolist())) for one in encoded if one.offsets is not None]
    assert offsets == expected["offset_mapping"]
    assert [one.sequences[0].ids.tolist() for one in ours.encode(texts)] == expected["input_ids"]


def test_pairs(both: tuple[Tokenizer, Any], lines: list[str]) -> None:
    ours, theirs = both
    texts, pairs = lines[:200], lines[200:400]
    encoded = [one.sequences[0] for one in ours.encode(texts, pairs, max_length=64)]
    expected = theirs(texts, pairs, truncation=True, max_length=64, return_token_type_ids=True)
    assert [one.ids.tolist() for one in encoded] == expected["input_ids"]
    assert [one.segments.tolist() for one in encoded] == expected["token_type_ids"]


def test_roles(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    for role in ("cls", "sep", "pad", "mask", "unk"):
        assert getattr(theirs, f"{role}_token_id") == getattr(ours, f"{role}_id")
    assert ours.special_ids == set(theirs.all_special_ids)
    assert ours.vocab_size == len(theirs) == 5000
    assert ours.max_length == theirs.model_max_length == 512


def test_what_transformers_saves_again_is_the_same_here(
    both: tuple[Tokenizer, Any], lines: list[str], tmp_path: Path
) -> None:
    ours, theirs = both
    theirs.save_pretrained(tmp_path)
    texts = [*HOSTILE, *lines[:200]]
    again = Tokenizer.load(tmp_path)
    assert [one.sequences[0].ids.tolist() for one in again.encode(texts)] == [
        one.sequences[0].ids.tolist() for one in ours.encode(texts)
    ]
