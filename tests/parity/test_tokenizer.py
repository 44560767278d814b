"""Token for token what transformers' AutoTokenizer gives, on real text and on hostile text."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from clozeline import sentencepiece_file
from clozeline.tokenizer import Encoded, Tokenizer
from helpers import write_sentencepiece
from hostile import HOSTILE

transformers = pytest.importorskip("transformers")

VOCABULARIES = ("bert-base-uncased", "bert-base-cased", "bert-base-multilingual-cased", "bert-base-chinese")
OLDER = {  # without a tokenizer.json, by the class that reads them
    "gpt2": "GPT2Tokenizer",
    "roberta-base/vocab.json": "RobertaTokenizer",
    "deberta-v3": "DebertaV2Tokenizer",
    "xlnet-base-cased": "XLNetTokenizer",
    "t5-small": "T5Tokenizer",
}
# the class's own way with a file, on a file of another model with the special tokens that the class expects
BORROWED: dict[
    str, tuple[str, str, list[str], int]
] = {  # the file, its name there, the first pieces, how many they replace
    "AlbertTokenizer": ("deberta-v3/spm.model", "spiece.model", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], 4),
    "XLMRobertaTokenizer": ("deberta-v3/spm.model", "sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"], 4),
    "CamembertTokenizer": ("deberta-v3/spm.model", "sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"], 4),
}
FAMILIES = (*VOCABULARIES, "minilm", "roberta-base", *OLDER, *BORROWED, "MPNetTokenizer")


@pytest.fixture(scope="module", params=FAMILIES)
def both(
    request: pytest.FixtureRequest, data: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Any]:
    """Our tokenizer and transformers' from the same folder."""
    if request.param == "minilm":
        return Tokenizer.load(minilm), transformers.AutoTokenizer.from_pretrained(minilm)
    name, folder = request.param, tmp_path_factory.mktemp("tokenizer")
    if name == "MPNetTokenizer":  # BERT's vocabulary with RoBERTa's special tokens before and behind it
        words = (data / "tokenizers" / "bert-base-uncased" / "vocab.txt").read_text(encoding="utf-8")
        (folder / "vocab.txt").write_text(f"<s>\n<pad>\n</s>\n<unk>\n{words.rstrip()}\n<mask>\n", encoding="utf-8")
    elif name in BORROWED:
        borrow(data, folder, *BORROWED[name])
    else:
        for file in (data / "tokenizers" / name.partition("/")[0]).iterdir():
            if not (file.name == "tokenizer.json" and "/" in name):
                (folder / file.name).symlink_to(file)
    kind = (
        name
        if name in (*BORROWED, "MPNetTokenizer")
        else {"roberta-base": "RobertaTokenizer", **OLDER}.get(name, "BertTokenizer")
    )
    settings: dict[str, Any] = {"tokenizer_class": kind, "model_max_length": 512}
    if name.startswith("bert") and name.endswith("-cased"):
        settings["do_lower_case"] = False
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


def borrow(data: Path, folder: Path, source: str, name: str, first: list[str], replaced: int) -> None:
    """Another model's pieces behind these first ones, with the normalisation rules of XLNet's file."""
    found = sentencepiece_file.read(data / "tokenizers" / source)
    rules = sentencepiece_file.read(data / "tokenizers" / "xlnet-base-cased" / "spiece.model").charsmap
    kinds = {"<unk>": 2}
    pieces = [(token, 0.0, kinds.get(token, 3)) for token in first]
    pieces += [(piece.text, piece.score, piece.kind) for piece in found.pieces[replaced:]]
    write_sentencepiece(folder / name, pieces, charsmap=rules)


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
        # what ends T5's texts is no separator there, but stands at the edge
        assert getattr(theirs, f"{role}_token_id") in (getattr(ours, f"{role}_id"), None)
    if not isinstance(theirs, transformers.XLNetTokenizer):  # which calls its punctuation special
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
    assert again.mask_token_id in (ours.mask_id, None)
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
