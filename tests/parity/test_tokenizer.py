"""Token for token what transformers' AutoTokenizer gives, on real text and on hostile text."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from clozeline.tokenizer import Encoded, Tokenizer

transformers = pytest.importorskip("transformers")

VOCABULARIES = ("bert-base-uncased", "bert-base-cased", "bert-base-multilingual-cased", "bert-base-chinese")
FAMILIES = (*VOCABULARIES, "minilm", "roberta-base")
HOSTILE = [
    "",
    " \t\n ",
    "\u00a0\u2003\u3000",
    "Caf\u00e9 Cafe\u0301 na\u00efve A\u030angstr\u00f6m \u1e9b\u0323",
    "I\u0307stanbul \u0130 \u0131 Stra\u00dfe \u03a3\u03ac\u03c2 \u01c5",
    "\u6211\u7231\u5317\u4eac\u5929\u5b89\u95e8 mixed\u4e2dtext \U00020000\U0002a6d6",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u0645\u064f\u062d\u064e\u0645\u064e\u0651\u062f \u0627\u0644\u0633\u0644\u0627\u0645",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0915\u094d\u0937",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1eb\U0001f1f7 \u2764\ufe0f",
    "a\x00b\x01c\x7fd\x85e\x9ff\ufffdg",
    "zero\u200bwidth\u2060joiner\ufeffbom",
    "\u200fright\u202eto\u202cleft\u2067marks\u2069",
    "soft\u00adhyphen non\u2011breaking\u2013dash",
    "tab\tnew\nline\r\nfeed\x0bvertical\x0cform\u2028line\u2029paragraph",
    "x" * 1_000_000,
    "y" * 100 + " " + "y" * 101,
    "[MASK] [CLS] inside [SEP][PAD] [UNK] [mask] <mask> <s> </s> ##ing",
    "\u2200x\u2208\u211d: \u2211\u1d62 x\u00b2 \u2260 \u221e \u00bd \u2167 \U0001d4d0\U0001d7d8",
    "\ufb01ne \ufb03 \u0133 \uff26\uff55\uff4c\uff4c\uff57\uff49\uff44\uff54\uff48\uff01\uff11 \uff8a\uff9f",
    "don't can't U.S.A. e-mail@example.com https://x.y/z?q=1&r=2#f $1,234.56 100% `~^|\\",
]


@pytest.fixture(scope="module", params=FAMILIES)
def both(
    request: pytest.FixtureRequest, data: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Any]:
    """Our tokenizer and transformers' from the same folder."""
    folder = minilm
    if request.param != "minilm":
        folder = tmp_path_factory.mktemp(request.param)
        for file in (data / "tokenizers" / request.param).iterdir():
            (folder / file.name).symlink_to(file)
        kind = "RobertaTokenizer" if request.param == "roberta-base" else "BertTokenizer"
        settings: dict[str, Any] = {"tokenizer_class": kind, "model_max_length": 512}
        if request.param.endswith("-cased"):
            settings["do_lower_case"] = False
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


def ids(encoded: list[Encoded]) -> list[list[int]]:
    assert all(len(one.sequences) == 1 for one in encoded)
    return [one.sequences[0].ids.tolist() for one in encoded]


def segments(encoded: list[Encoded]) -> list[list[int]]:
    return [one.sequences[0].segments.tolist() for one in encoded]


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def test_short_texts(both: tuple[Tokenizer, Any], data: Path) -> None:
    ours, theirs = both
    parts = (
        rows(data / "sst2" / "dev.tsv"),
        rows(data / "sst2" / "train.tsv")[:5000],
        rows(data / "sst2" / "test-labeled.tsv"),
    )
    texts = [row[0] for part in parts for row in part]
    assert len(texts) == 872 + 5000 + 1821
    assert ids(ours.encode(texts)) == theirs(texts)["input_ids"]


def test_long_texts_cut_at_512(both: tuple[Tokenizer, Any], data: Path) -> None:
    ours, theirs = both
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = parquet.read_table(data / "imdb" / "train.parquet", columns=["text"]).column("text")[:1000].to_pylist()
    encoded = ours.encode(texts, max_length=512)
    assert ids(encoded) == theirs(texts, truncation=True, max_length=512)["input_ids"]
    assert any(one.cut for one in encoded)
    whole = [len(one) for one in theirs(texts, add_special_tokens=False, verbose=False)["input_ids"]]
    assert [one.tokens for one in encoded] == whole


def test_pairs_cut_at_64(both: tuple[Tokenizer, Any], data: Path) -> None:
    ours, theirs = both
    texts, pairs = zip(*[row[3:5] for row in rows(data / "glue" / "MRPC" / "msr-para-train.tsv")], strict=True)
    encoded = ours.encode(texts, pairs, max_length=64)
    expected = theirs(list(texts), list(pairs), truncation=True, max_length=64, return_token_type_ids=True)
    assert any(one.cut for one in encoded)
    assert ids(encoded) == expected["input_ids"]
    assert segments(encoded) == expected["token_type_ids"]


@pytest.mark.parametrize("max_length", [5, 6, 7, 8, 13])
def test_pairs_of_every_length(both: tuple[Tokenizer, Any], max_length: int) -> None:
    ours, theirs = both
    sides = [(" a" * first, " b" * second) for first in range(9) for second in range(9)]
    texts, pairs = zip(*sides, strict=True)
    expected = theirs(list(texts), list(pairs), truncation=True, max_length=max_length, return_token_type_ids=True)
    encoded = ours.encode(texts, pairs, max_length=max_length)
    assert ids(encoded) == expected["input_ids"]
    assert segments(encoded) == expected["token_type_ids"]


def test_hostile_texts(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    for text in HOSTILE:
        expected = theirs(text, truncation=True, max_length=512, return_offsets_mapping=True)
        [encoded] = ours.encode([text], offsets=True)
        offsets = encoded.sequences[0].offsets
        assert offsets is not None
        assert ids([encoded]) == [expected["input_ids"]], f"{text:.40}"
        assert list(map(tuple, offsets.tolist())) == expected["offset_mapping"], f"{text:.40}"
        assert ids(ours.encode([text])) == ids([encoded])


def test_roles(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    for role in ("cls", "sep", "pad", "mask", "unk"):
        assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id")
    assert ours.special_ids == set(theirs.all_special_ids)
    assert ours.vocab_size == len(theirs)
    assert ours.max_length == theirs.model_max_length == 512


def test_transformers_loads_what_we_save(both: tuple[Tokenizer, Any], data: Path, tmp_path: Path) -> None:
    ours, theirs = both
    ours.save(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = HOSTILE + [row[0] for row in rows(data / "sst2" / "dev.tsv")]
    expected = ids(ours.encode(texts))
    assert again(texts, truncation=True)["input_ids"] == expected
    assert ids(Tokenizer.load(tmp_path).encode(texts)) == expected
    assert type(again) is type(theirs)
    assert again.mask_token_id == ours.mask_id
    assert again.model_max_length == 512


@pytest.mark.parametrize(
    "kind", ["BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", "PreTrainedTokenizerFast", None]
)
@pytest.mark.parametrize("model_type", ["bert", None])
@pytest.mark.parametrize("lower", [True, False, None])
def test_casing_where_files_disagree(
    minilm: Path, tmp_path: Path, kind: str | None, model_type: str | None, lower: bool | None
) -> None:
    # transformers' BERT classes take the casing from tokenizer_config.json, the others from tokenizer.json
    rules = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    rules["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    settings = {"tokenizer_class": kind, "do_lower_case": lower}
    given = {name: value for name, value in settings.items() if value is not None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(given))
    if model_type is not None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    text = "Hello Café World"
    [expected] = transformers.AutoTokenizer.from_pretrained(tmp_path)([text], truncation=False)["input_ids"]
    ours = Tokenizer.load(tmp_path)
    assert ids(ours.encode([text])) == [expected]
    ours.save(tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)([text], truncation=False)["input_ids"] == [expected]


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens.json": {"New": 30523, "Hello": 30522}},
        {"tokenizer_config.json": {"added_tokens_decoder": {"30522": {"content": "Hello", "normalized": False}}}},
        {"tokenizer_config.json": {"additional_special_tokens": ["Hello", "[unused5]"]}},
        {
            "added_tokens.json": {"New": 30523, "Hello": 30522},
            "tokenizer_config.json": {"additional_special_tokens": ["Hello"]},
        },
        {"special_tokens_map.json": {"mask_token": {"content": "[unused1]", "lstrip": True, "normalized": False}}},
    ],
)
def test_added_tokens(data: Path, tmp_path: Path, files: dict[str, dict[str, Any]]) -> None:
    vocabulary = data / "tokenizers" / "bert-base-uncased" / "vocab.txt"
    (tmp_path / "vocab.txt").symlink_to(vocabulary)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    texts = ["Hello hello Newer [unused1] [unused5] a [unused1]b [MASK]"]
    ours, theirs = Tokenizer.load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs(texts)["input_ids"]
    assert ids(ours.encode(texts)) == expected
    assert (ours.mask_id, ours.vocab_size) == (theirs.mask_token_id, len(theirs))
    assert ours.special_ids == set(theirs.all_special_ids)
    ours.save(tmp_path / "saved")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")(texts)["input_ids"] == expected
