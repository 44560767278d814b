"""The tokenizer on a vocabulary of a dozen words: long text, pairs, offsets, saving, and each error."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import processors

from clozeline.errors import InputError
from clozeline.tokenizer import Encoded, LongText, Tokenizer, TokenSequence

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##believ", "##able", "caf", "##e", "Caf", "##é", "!"]
NUMBERS = [str(number) for number in range(100)]
UNK, CLS, SEP, MASK = 1, 2, 3, 4
FIRST = len(WORDS)  # the id of the word "0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, *NUMBERS]) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def count(tokens: int, start: int = 0) -> str:
    """A text of so many tokens, each of which tells its place."""
    return " ".join(NUMBERS[start : start + tokens])


def numbers(sequence: TokenSequence, source: int = 0) -> list[int]:
    """Which words of `count` a sequence holds."""
    return [int(token_id) - FIRST for token_id in sequence.ids[sequence.source == source]]


def only(encoded: list[Encoded]) -> TokenSequence:
    [one] = encoded
    [sequence] = one.sequences
    return sequence


def test_one_text(tokenizer: Tokenizer) -> None:
    [encoded] = tokenizer.encode(["Unbelievable CAFÉ!"])
    sequence = only([encoded])
    assert [tokenizer.token(token_id) for token_id in sequence.ids] == [
        *("[CLS]", "un", "##believ", "##able", "caf", "##e", "!", "[SEP]")
    ]
    assert sequence.ids.dtype == np.int32
    assert sequence.source.tolist() == [-1, 0, 0, 0, 0, 0, 0, -1]
    assert sequence.segments.tolist() == [0] * 8
    assert sequence.offsets is None
    assert (encoded.tokens, encoded.cut) == (6, 0)
    assert tokenizer.decode(sequence.ids) == "unbelievable cafe!"


def test_a_pair(tokenizer: Tokenizer) -> None:
    sequence = only(tokenizer.encode(["1 2"], ["3"], offsets=True))
    assert sequence.ids.tolist() == [CLS, FIRST + 1, FIRST + 2, SEP, FIRST + 3, SEP]
    assert sequence.segments.tolist() == [0, 0, 0, 0, 1, 1]
    assert sequence.source.tolist() == [-1, 0, 0, -1, 1, -1]
    assert sequence.offsets is not None
    assert sequence.offsets.tolist() == [[0, 0], [0, 1], [2, 3], [0, 0], [0, 1], [0, 0]]


def test_empty_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]) == []
    sequence = only(tokenizer.encode([""], offsets=True))
    assert sequence.ids.tolist() == [CLS, SEP]
    assert sequence.offsets is not None
    assert sequence.offsets.shape == (2, 2)
    assert only(tokenizer.encode([""], [" "])).ids.tolist() == [CLS, SEP, SEP]


def test_a_word_of_a_million_letters_is_unknown(tokenizer: Tokenizer) -> None:
    assert only(tokenizer.encode(["x" * 1_000_000])).ids.tolist() == [CLS, UNK, SEP]


def test_special_tokens_in_a_text_are_read_as_such(tokenizer: Tokenizer) -> None:
    sequence = only(tokenizer.encode(["1 [MASK] 2"]))
    assert sequence.ids.tolist() == [CLS, FIRST + 1, MASK, FIRST + 2, SEP]
    assert sequence.source.tolist() == [-1, 0, 0, 0, -1]  # it is the user's, not the layout's


@pytest.mark.parametrize("text", ["un café 12!", "\U0001f600 CAFE\u0301 un", "  1\t2\n"])
def test_offsets_slice_back_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    pair = "99 " + text
    for sequence in [
        only(tokenizer.encode([text], offsets=True)),
        only(tokenizer.encode([text], [pair], offsets=True)),
    ]:
        assert sequence.offsets is not None
        for token_id, source, (start, end) in zip(sequence.ids, sequence.source, sequence.offsets, strict=True):
            assert (end > start) == (source >= 0)
            token = tokenizer.token(int(token_id)).removeprefix("##")
            if source >= 0 and token != "[UNK]":
                written = (text, pair)[source][start:end].lower()
                assert written.replace("é", "e").replace("e\u0301", "e") == token


def test_the_head_is_kept(tokenizer: Tokenizer) -> None:
    [encoded] = tokenizer.encode([count(20)], max_length=10)
    assert numbers(only([encoded])) == [*range(8)]
    assert (encoded.tokens, encoded.cut) == (20, 12)


@pytest.mark.parametrize(
    ("first", "second", "kept"), [(20, 3, (6, 3)), (3, 20, (3, 6)), (20, 20, (4, 5)), (20, 19, (5, 4)), (5, 5, (4, 5))]
)
def test_the_longer_of_a_pair_gives_way(tokenizer: Tokenizer, first: int, second: int, kept: tuple[int, int]) -> None:
    [encoded] = tokenizer.encode([count(first)], [count(second, 50)], max_length=12)
    sequence = only([encoded])
    assert (numbers(sequence), numbers(sequence, 1)) == ([*range(kept[0])], [*range(50, 50 + kept[1])])
    assert (encoded.tokens, encoded.cut) == (first + second, first + second - 9)


def test_head_and_tail(tokenizer: Tokenizer) -> None:
    # a quarter of 8 from the head; Sun et al. keep 128 + 382 of 510, which 510 // 4 = 127 meets within one
    [encoded] = tokenizer.encode([count(20)], max_length=10, long="head_tail", offsets=True)
    sequence = only([encoded])
    assert numbers(sequence) == [0, 1, 14, 15, 16, 17, 18, 19]
    assert encoded.cut == 12
    assert sequence.offsets is not None
    text = count(20)
    assert [int(text[start:end]) for start, end in sequence.offsets[1:-1]] == numbers(sequence)
    # of a pair, only a text that is shortened loses its middle
    sequence = only(tokenizer.encode([count(20)], [count(3, 50)], max_length=14, long="head_tail"))
    assert (numbers(sequence), numbers(sequence, 1)) == ([0, 1, 14, 15, 16, 17, 18, 19], [50, 51, 52])
    sequence = only(tokenizer.encode([count(20)], max_length=3, long="head_tail"))
    assert numbers(sequence) == [19]


@pytest.mark.parametrize("max_length", [3, 4, 6, 7, 12])
@pytest.mark.parametrize("overlap", [None, 0, 1, 3])
def test_windows_hold_every_token(tokenizer: Tokenizer, max_length: int, overlap: int | None) -> None:
    room = max_length - 2
    if overlap is not None and overlap >= room:
        return
    shared = room // 4 if overlap is None else overlap
    texts = [count(length) for length in range(40)]
    for length, encoded in enumerate(tokenizer.encode(texts, long="window", max_length=max_length, overlap=overlap)):
        assert (encoded.tokens, encoded.cut) == (length, 0)
        windows = [numbers(sequence) for sequence in encoded.sequences]
        assert {number for window in windows for number in window} == set(range(length))
        assert all(window == [*range(window[0], window[0] + min(room, length))] for window in windows if length)
        starts = [window[0] for window in windows if length]
        assert all(after - before == room - shared for before, after in pairwise(starts[:-1]))
        assert all(0 < after - before <= room - shared for before, after in pairwise(starts[-2:]))
        assert all((sequence.ids[0], sequence.ids[-1]) == (CLS, SEP) for sequence in encoded.sequences)


@pytest.mark.parametrize(("first", "second", "moving"), [(3, 20, 1), (20, 3, 0), (10, 10, 1)])
def test_windows_of_a_pair_move_over_the_longer(tokenizer: Tokenizer, first: int, second: int, moving: int) -> None:
    texts = count(first), count(second, 50)
    [encoded] = tokenizer.encode([texts[0]], [texts[1]], long="window", max_length=17, offsets=True)
    whole = ([*range(first)], [*range(50, 50 + second)])
    seen = set()
    for sequence in encoded.sequences:
        assert len(sequence.ids) == 17
        assert numbers(sequence, 1 - moving) == whole[1 - moving]
        seen.update(numbers(sequence, moving))
        assert sequence.offsets is not None
        for source in (0, 1):
            spans = sequence.offsets[sequence.source == source]
            assert [int(texts[source][start:end]) for start, end in spans] == numbers(sequence, source)
    assert seen == set(whole[moving])
    assert encoded.cut == 0


@pytest.mark.parametrize("long", ["error", "truncate", "head_tail", "window"])
def test_text_that_fits_is_whole_under_every_policy(tokenizer: Tokenizer, long: LongText) -> None:
    [encoded] = tokenizer.encode([count(8)], long=long, max_length=10)
    assert numbers(only([encoded])) == [*range(8)]
    assert encoded.cut == 0


def test_long_text_is_refused_under_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"texts\[1\] has 9 tokens.* room for 8.*'truncate', 'head_tail', 'window'"):
        tokenizer.encode([count(8), count(9)], long="error", max_length=10)
    with pytest.raises(InputError, match=r"texts\[0\] and its pair have 12 tokens.* room for 7"):
        tokenizer.encode([count(6)], [count(6)], long="error", max_length=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 2}, "max_length=2 leaves no room for text beside 2 special tokens"),
        ({"max_length": 3, "pairs": ["1"]}, "max_length=3 leaves no room for text beside 3 special tokens"),
        ({"max_length": 1000}, "max_length=1000 is more than the 50 tokens the model reads"),
        ({"long": "windows"}, "did you mean 'window'"),
        ({"pairs": ["1", "2"]}, "1 texts but 2 pairs"),
        ({"long": "window", "max_length": 10, "overlap": 8}, r"overlap=8 must be 0 to 7: windows of texts\[0\]"),
        ({"long": "window", "max_length": 10, "overlap": -1}, "overlap=-1"),
        (
            {"long": "window", "max_length": 10, "pairs": [count(7)]},
            "30 and 7 tokens: the shorter alone leaves no room",
        ),
        (
            {"long": "window", "max_length": 10, "pairs": [count(40)], "moving": "second", "places": ["a.csv line 3"]},
            "^a.csv line 3 and its pair have 30 and 40 tokens: the first alone leaves no room for windows over the second",
        ),
        ({"long": "error", "max_length": 10, "places": ["a.csv line 3"]}, "^a.csv line 3 has 30 tokens"),
        ({"pairs": [3], "places": ["a.csv line 3"]}, "^The pair of a.csv line 3 is 3"),
    ],
)
def test_settings_that_cannot_be(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tokenizer.load(folder, max_length=50).encode([count(30)], **settings)


@pytest.mark.parametrize("value", [None, math.nan, b"bytes", 3, ("a", "b"), ["a"]])
def test_what_is_not_text_is_named(tokenizer: Tokenizer, value: Any) -> None:
    kind = type(value).__name__
    with pytest.raises(InputError, match=rf"^texts\[1\] is .*\({kind}\)"):
        tokenizer.encode(["1", value])
    with pytest.raises(InputError, match=rf"^pairs\[1\] is .*\({kind}\)"):
        tokenizer.encode(["1", "2"], ["3", value])


@pytest.mark.parametrize("offsets", [True, False])
def test_lone_surrogates_are_named(tokenizer: Tokenizer, offsets: bool) -> None:
    with pytest.raises(InputError, match=r"^texts\[2\] has a lone surrogate"):
        tokenizer.encode(["1", "\U0001f600", "a\ud800b"], offsets=offsets)


def test_one_text_instead_of_a_list(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="texts must be a list"):
        tokenizer.encode("1 2")


def test_roles_and_sizes(tokenizer: Tokenizer) -> None:
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert tokenizer.vocab_size == FIRST + 100
    assert tokenizer.max_length is None
    assert tokenizer.id("un") == 5
    assert tokenizer.id("absent") is None
    with pytest.raises(InputError, match="No token has id 999; the vocabulary has ids 0 to 112"):
        tokenizer.token(999)
    with pytest.raises(InputError, match="No token has id -100"):
        tokenizer.token(-100)


def test_a_role_the_vocabulary_lacks_is_none(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\nun\n")
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.mask_id, tokenizer.pad_id, tokenizer.vocab_size) == (None, None, 4)


def test_roles_by_other_names(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("un\n<unk>\n<start>\n<stop>\n<hole>\n")
    names = {"cls_token": "<start>", "sep_token": {"content": "<stop>"}, "mask_token": "<hole>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (1, 2, 3, 4)
    assert only(tokenizer.encode(["un <hole> x"])).ids.tolist() == [2, 0, 4, 1, 3]
    # nothing but tokenizer.json: the post-processor tells what starts and ends a text
    tokenizer.save(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer_config.json").unlink()
    assert (Tokenizer.load(tmp_path / "saved").cls_id, Tokenizer.load(tmp_path / "saved").sep_id) == (2, 3)


def test_any_post_processor_gives_the_layout(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save(folder)
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = processors.RobertaProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    sequence = only(Tokenizer(backend, {}).encode(["1"], ["2"]))
    assert sequence.ids.tolist() == [CLS, FIRST + 1, SEP, SEP, FIRST + 2, SEP]
    assert sequence.segments.tolist() == [0] * 6
    assert sequence.source.tolist() == [-1, 0, -1, -1, 1, -1]
    backend.post_processor = processors.TemplateProcessing(
        single="$0", pair="$B:1 [SEP]:1 $A:0", special_tokens=[("[SEP]", SEP)]
    )
    sequence = only(Tokenizer(backend, {}).encode(["1"], ["2"]))
    assert sequence.ids.tolist() == [FIRST + 2, SEP, FIRST + 1]
    assert sequence.source.tolist() == [1, -1, 0]
    assert sequence.segments.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, ["caf", "##e"]),
        ({"do_lower_case": False}, ["Caf", "##é"]),
        ({"do_lower_case": False, "strip_accents": True}, ["Caf", "##e"]),
        ({"strip_accents": False}, ["caf", "##é"]),
    ],
)
def test_casing_rules(folder: Path, settings: dict[str, Any], tokens: list[str]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.load(folder)
    found = [tokenizer.token(token_id) for token_id in only(tokenizer.encode(["Café"])).ids[1:-1]]
    assert found == tokens


def test_chinese_characters_stand_alone_unless_told(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n北\n京\n", encoding="utf-8")
    assert only(Tokenizer.load(tmp_path).encode(["北京"])).ids.tolist() == [1, 3, 4, 2]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenize_chinese_chars": false}')
    assert only(Tokenizer.load(tmp_path).encode(["北京"])).ids.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("stated", "given", "bound"), [(1e30, None, None), (1e30, 9, 9), (8, 9, 8), (8, 7, 7), (8, None, 8)]
)
def test_the_smaller_length_rules(folder: Path, stated: float, given: int | None, bound: int | None) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": stated}))
    tokenizer = Tokenizer.load(folder, max_length=given)
    assert tokenizer.max_length == bound
    assert len(only(tokenizer.encode([count(50)])).ids) == (bound or 52)


def test_saving_and_loading_changes_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    Tokenizer.load(tmp_path, max_length=40).save(target)
    assert sorted(path.name for path in target.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    again = Tokenizer.load(target)
    texts = ["Unbelievable CAFÉ!", "[MASK] 5", ""]
    assert [only([one]).ids.tolist() for one in again.encode(texts)] == [
        only([one]).ids.tolist() for one in tokenizer.encode(texts)
    ]
    assert (again.max_length, again.mask_id, again.special_ids) == (40, tokenizer.mask_id, tokenizer.special_ids)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    again.save(target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_truncation_and_padding_of_tokenizer_json_are_off(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=60)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(only(Tokenizer.load(tmp_path).encode([count(50)])).ids) == 52


def test_check(tokenizer: Tokenizer) -> None:
    tokenizer.check(tokenizer.vocab_size)
    tokenizer.check(tokenizer.vocab_size + 7)
    with pytest.raises(InputError, match=r"113 token ids.* only 112 rows"):
        tokenizer.check(112)


def test_lines_of_vocab_txt(tmp_path: Path) -> None:
    # the last of equal lines counts; U+2028 and U+0085 are tokens, not line ends; \r\n is a line end
    lines = ["[UNK]", "[CLS]", "[SEP]", "un", "\u2028", "\u0085", "un", "2"]
    for end in ("\n", "\r\n"):
        (tmp_path / "vocab.txt").write_bytes((end.join(lines) + end).encode())
        tokenizer = Tokenizer.load(tmp_path)
        assert (tokenizer.id("\u2028"), tokenizer.id("\u0085"), tokenizer.id("un"), tokenizer.id("2")) == (4, 5, 6, 7)
        assert tokenizer.vocab_size == 8


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither tokenizer.json nor vocab.txt, .*: it has no files"),
        ({"model.bin": b"", "config.json": b"{}"}, "it has config.json, model.bin"),
        ({"vocab.txt": b""}, "vocab.txt is empty"),
        ({"vocab.txt": b"a\nb\n"}, r"vocab.txt lacks \[UNK\], \[CLS\] or \[SEP\]"),
        ({"vocab.txt": b"\xff\xfe"}, "vocab.txt is not UTF-8"),
        ({"tokenizer.json": b"{"}, "tokenizer.json cannot be read as a tokenizer"),
        ({"tokenizer.json": b'{"model": 3}'}, "tokenizer.json cannot be read as a tokenizer"),
        ({"tokenizer.json": b"\xff"}, "tokenizer.json cannot be read as a tokenizer"),
        (
            {"vocab.txt": b"a\n", "tokenizer_config.json": b'{"tokenizer_class": "BertJapaneseTokenizer"}'},
            "has a bare vocab.txt of a BertJapaneseTokenizer",
        ),
        ({"vocab.json": b"{}"}, "merges.txt is missing"),
        ({"vocab.json": b"{}", "merges.txt": b"a b c"}, "no byte-level BPE vocabulary"),
        ({"vocab.json": b'{"a": 0, "<s>": 1}', "merges.txt": b""}, "lacks </s>, which should stand around a text"),
        ({"spm.model": b"\x0a\x09abc"}, "spm.model is damaged or no SentencePiece model .it ends too early"),
        ({"spm.model": b""}, "spm.model holds no SentencePiece model"),
        (
            {"spm.model": b"", "tokenizer_config.json": b'{"tokenizer_class": "BertTokenizer"}'},
            "has a bare spm.model of a BertTokenizer",
        ),
        ({"vocab.txt": b"a\n", "tokenizer_config.json": b"{"}, "tokenizer_config.json is not valid JSON"),
        ({"vocab.txt": b"a\n", "special_tokens_map.json": b"[]"}, "special_tokens_map.json must hold a JSON object"),
    ],
)
def test_broken_folders(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Tokenizer.load(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        Tokenizer.load(tmp_path / "absent")


def test_imports_no_torch() -> None:
    program = "import sys, clozeline.tokenizer; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
