"""A corpus becomes shards whole, the same however it was made, and what is damaged or of another making is refused."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozeline.data import coding, shard_writing, shards
from clozeline.data.coding import Text, code, in_order
from clozeline.data.corpus import documents
from clozeline.data.shard_writing import write
from clozeline.data.shards import MANIFEST, Manifest, Shard, Shards
from clozeline.errors import InputError
from clozeline.tokenizer import Tokenizer
from helpers import PLAIN, VOCABULARY

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return words_only(tmp_path_factory.mktemp("words"), [*VOCABULARY, ".", "mask", "[", "]"])


def words_only(folder: Path, vocabulary: list[str]) -> Tokenizer:
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return Tokenizer.load(folder)


def prose(count: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Documents of sentences of words, all different."""
    draw = random.Random(seed)
    return [
        " ".join(
            " ".join(draw.choices(PLAIN, k=draw.randint(2, 9))).capitalize() + "."
            for _ in range(draw.randint(1, longest))
        )
        + f" W{at % 50} w{at // 50 % 50} w{at // 2500}."
        for at in range(count)
    ]


@pytest.fixture
def corpus(tmp_path: Path) -> Make:
    def corpus(texts: list[str], name: str = "corpus.jsonl") -> Path:
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
        return tmp_path / name

    return corpus


def said(folder: Path, tokenizer: Tokenizer) -> list[str]:
    """The documents of shards, in their order, as text."""
    held = Shards.open(folder, tokenizer)
    found = []
    for document in range(held.documents):
        bounds = held.bounds(*held.document_sentences(document))
        found.append(tokenizer.decode(held.ids(int(bounds[0]), int(bounds[-1]))))
    return found


def plain(text: str) -> str:
    return " ".join(text.lower().split()).replace(" .", ".")


def content(folder: Path) -> dict[str, str]:
    """What a folder holds, by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def message(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# what is in them


def test_nothing_of_a_corpus_is_lost(corpus: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = prose(300)
    manifest = write([corpus(texts)], tokenizer, tmp_path / "out", workers=1, shard_tokens=2000, quiet=True)
    assert len(manifest.shards) > 3 and all(shard.tokens >= 2000 for shard in manifest.shards[:-1])
    assert said(tmp_path / "out", tokenizer) == [plain(text) for text in texts]
    held = Shards.open(tmp_path / "out")
    assert held.tokens == sum(len(text.split()) + text.count(".") for text in texts)
    assert held.sentences == sum(text.count(".") for text in texts)
    assert manifest.total() == {name: getattr(held, name) for name in ("documents", "sections", "sentences", "tokens")}
    assert set(manifest.skipped.values()) == {0}
    assert sorted(content(tmp_path / "out")) == sorted(
        [MANIFEST, *(name for at in range(len(manifest.shards)) for name in shards.shard_files(at).values())]
    )


def test_sections_are_runs_of_sentences_of_one_document(
    corpus: Make, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coding, "SECTION", 40)
    monkeypatch.setattr(shards, "OPEN", 2)
    write([corpus(prose(200))], tokenizer, tmp_path / "out", workers=1, shard_tokens=1000, quiet=True)
    held = Shards.open(tmp_path / "out", tokenizer)
    of_document: dict[int, list[tuple[int, int]]] = {}
    sizes = []
    for section in np.random.default_rng(0).permutation(held.sections).tolist():
        first, last = held.section_sentences(section)
        bounds = held.bounds(first, last)
        assert bounds.shape == (last - first + 1,) and bounds.dtype == np.int64 and (np.diff(bounds) > 0).all()
        full = held.ids(int(bounds[-2]), int(bounds[-1]))
        assert tokenizer.token(int(full[-1])) == "."
        of_document.setdefault(held.document_of(section), []).append((first, last))
        sizes.append(int(bounds[-1] - bounds[0]))
    assert max(sizes) <= 40 and np.mean(sizes) > 20
    end = 0
    for document in range(held.documents):
        parts = sorted(of_document[document])
        assert held.document_sentences(document) == (parts[0][0], parts[-1][1])
        for first, last in parts:
            assert first == end
            end = last
        for (first, last), (after, _) in pairwise(parts):
            one_more = held.bounds(first, last + 1)
            assert last == after and one_more[-1] - one_more[0] > 40  # a section is as long as may be
    assert end == held.sentences
    assert len(held._arrays) == 2
    again = copy.copy(held)
    assert (again.ids(10, 20) == held.ids(10, 20)).all() and not again.ids(10, 20).flags.writeable


def test_sentences_longer_than_a_section_are_cut_and_lose_nothing(
    corpus: Make, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coding, "SECTION", 8)
    texts = ["w1 w2. " + "W3 w4 " * 12 + "w5. W6.", "w7 " * 16 + "."]
    write([corpus(texts)], tokenizer, tmp_path / "out", workers=1, quiet=True)
    held = Shards.open(tmp_path / "out", tokenizer)
    assert said(tmp_path / "out", tokenizer) == [plain(text) for text in texts]
    assert np.diff(held.bounds(*held.document_sentences(0))).tolist() == [3, 8, 8, 8, 2, 2]
    assert np.diff(held.bounds(*held.document_sentences(1))).tolist() == [8, 8, 1]


def test_a_text_file_of_one_giant_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "giant.txt").write_text("w1 w2 w3 " * 30_000, encoding="utf-8")
    write([tmp_path / "giant.txt"], tokenizer, tmp_path / "out", workers=1, quiet=True)
    held = Shards.open(tmp_path / "out")
    assert (held.documents, held.tokens) == (1, 90_000)
    assert max(np.diff(held.bounds(0, held.sentences))) <= shards.SECTION
    ids = [tokenizer.id(word) for word in ("w1", "w2", "w3")]
    assert (held.ids(0, 90_000).reshape(-1, 3) == ids).all()


@pytest.mark.parametrize(("rows", "kind"), [(0, np.uint16), (70_000, np.uint32)])
def test_ids_take_as_many_bytes_as_they_need(rows: int, kind: type, corpus: Make, tmp_path: Path) -> None:
    own = words_only(tmp_path, [*VOCABULARY, *(f"x{at}" for at in range(rows)), "last"])
    write([corpus(["w1 w2 last"])], own, tmp_path / "out", workers=1, quiet=True)
    ids = Shards.open(tmp_path / "out", own).ids(0, 3)
    assert ids.dtype == kind and ids.tolist() == [own.id(word) for word in ("w1", "w2", "last")]


@cache
def real(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


FOLDERS = ["bert-base-uncased", "bert-base-cased", "roberta-base", "gpt2", "deberta-v3", "t5-small", "xlnet-base-cased"]


@pytest.mark.parametrize("name", FOLDERS)
def test_sentences_are_tokenised_as_in_the_whole_text(name: str, data: Path) -> None:
    own = real(data / "tokenizers" / name)
    stream = documents([data / "pretrain" / "wikipedia.parquet"])
    texts = [" ".join(document.text.split()) for document, _ in zip(stream, range(20), strict=False)]
    for text, (coded, _) in zip(texts, code(own, [Text(text, True, False) for text in texts]), strict=True):
        assert coded is not None
        assert coded.ids.tolist() == own.plain([text])[0].tolist() == own.pieces(text, after_space=False)
        assert coded.sentences.sum() == len(coded.ids) and coded.sections.sum() == len(coded.sentences) > 1


@pytest.mark.parametrize("name", ["bert-base-chinese", "gpt2"])
@pytest.mark.parametrize("text", ["你好。再见！谁？", "안녕하세요. 반갑습니다. 네.", "Привет. Как дела? 😀 Да. 😀"])
def test_where_no_space_is_none_is_tokenised(name: str, text: str, data: Path) -> None:
    own = real(data / "tokenizers" / name)
    [(coded, _)] = code(own, [Text(text, True, False)])
    assert coded is not None and len(coded.sentences) >= 3
    assert coded.ids.tolist() == own.pieces(text, after_space=False)


@pytest.mark.parametrize("name", FOLDERS)
def test_special_tokens_in_a_text_are_text(name: str, data: Path) -> None:
    own = real(data / "tokenizers" / name)
    special = own.special_ids - {own.unk_id}
    spelled = [own.token(at) for at in sorted(special)]
    assert spelled or name == "gpt2"
    text = "The " + " or ".join(spelled) + " end"
    first, second, empty = own.plain([text, "The end", ""])
    assert not special & set(first.tolist())
    assert all(token.strip("<>[]/").lower() in own.decode(first).lower().replace(" ", "") for token in spelled)
    assert second.tolist() == own.pieces("The end", after_space=False) and empty.shape == (0,)
    assert own.plain([]) == []


@pytest.mark.parametrize("name", ["bert-base-uncased", "xlnet-base-cased"])
def test_a_digest_survives_saving_and_tells_vocabularies_apart(name: str, data: Path, tmp_path: Path) -> None:
    own = real(data / "tokenizers" / name)
    own.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.digest() == own.digest()
    again.add_words(["Tocilizumab"])
    assert again.digest() != own.digest()


def test_masks_in_a_corpus_are_text(corpus: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write([corpus(["A w1 [MASK] w2. [SEP] w3."])], tokenizer, tmp_path / "out", workers=1, quiet=True)
    held = Shards.open(tmp_path / "out")
    words = [tokenizer.token(int(at)) for at in held.ids(0, held.tokens)]
    assert words == ["[UNK]", "w1", "[", "mask", "]", "w2", ".", "[", "[UNK]", "]", "w3", "."]


# what is left out


def test_duplicates_are_dropped_and_counted(corpus: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = prose(20)
    doubled = [*texts[:10], texts[3], " ", texts[4].replace(" ", " \n"), *texts[10:], texts[15]]
    manifest = write([corpus(doubled)], tokenizer, tmp_path / "out", workers=1, quiet=True)
    assert said(tmp_path / "out", tokenizer) == [plain(text) for text in texts]
    assert {name: count for name, count in manifest.skipped.items() if count} == {"duplicates": 3, "empty": 1}


def test_near_duplicates_are_dropped_where_wanted(corpus: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = [" ".join(random.Random(seed).choices(PLAIN, k=200)) for seed in range(30)]
    near = [text.replace(text[500:520], "w1 w2", 1) for text in base[:15]]
    half = [" ".join([*text.split()[:100], *base[at - 1].split()[:100]]) for at, text in enumerate(base[15:])]
    short = ["w1 w2 w3", "w1 w2 w3 ."]  # too short to be nearly the same
    source = corpus([*base, *near, *half, *short])
    kept = write([source], tokenizer, tmp_path / "all", workers=1, quiet=True)
    assert kept.total()["documents"] == 62
    manifest = write([source], tokenizer, tmp_path / "out", workers=1, near_duplicates=True, quiet=True)
    assert said(tmp_path / "out", tokenizer) == [plain(text) for text in [*base, *half, *short]]
    assert manifest.skipped["near_duplicates"] == 15


def test_documents_without_tokens_are_counted(corpus: Make, tmp_path: Path) -> None:
    invisible = "\u200b"  # BERT cleans it away
    bert = words_only(tmp_path, VOCABULARY)
    manifest = write([corpus(["a", invisible, "w1 w2", invisible * 2])], bert, tmp_path / "out", workers=1, quiet=True)
    assert (manifest.total()["documents"], manifest.skipped["without_tokens"]) == (2, 2)
    assert "makes no token of them" in message(
        write, [corpus([invisible])], bert, tmp_path / "none", workers=1, quiet=True
    )


def test_held_out_documents_are_apart(corpus: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = prose(1000, longest=2)

    def make(out: Path, texts: list[str]) -> Manifest:
        return write([corpus(texts)], tokenizer, out, held_out=0.1, workers=1, quiet=True)

    manifest = make(tmp_path / "out", texts)
    training, held_out = said(tmp_path / "out", tokenizer), said(tmp_path / "out" / "held-out", tokenizer)
    assert sorted(training + held_out) == sorted(map(plain, texts)) and not set(training) & set(held_out)
    assert 70 < len(held_out) < 130
    assert manifest.total()["documents"] == len(training)
    make(tmp_path / "turned", texts[::-1])  # where a document stands does not matter
    assert set(said(tmp_path / "turned" / "held-out", tokenizer)) == set(held_out)
    options: dict[str, Any] = dict(workers=1, quiet=True)
    write([corpus(texts[:2])], tokenizer, tmp_path / "a", held_out=0.0001, **options)
    assert Shards.open(tmp_path / "a" / "held-out").documents == 0
    assert Shards.open(tmp_path / "a").documents == 2
    few = "The corpus has 2 documents, but held_out=0.9999 took all of them"
    assert few in message(write, [corpus(texts[:2])], tokenizer, tmp_path / "b", held_out=0.9999, **options)


# the same however it was made

OPTIONS: dict[str, Any] = dict(near_duplicates=True, held_out=0.2, shard_tokens=1500, quiet=True)


@pytest.fixture
def mixed(corpus: Make) -> Path:
    """A corpus with all that may be left out."""
    texts = prose(200)
    near = [text + " W1." for text in texts if len(text.split()) > 40]
    return corpus(
        [text for at, one in enumerate(texts) for text in (one, *near[at : at + 1], *["\u200b" * at] * (at % 3))]
        + texts[:40]
    )


def test_the_number_of_processes_changes_nothing(
    mixed: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writing, "TASK", 5000)
    one = write([mixed], tokenizer, tmp_path / "one", workers=1, **OPTIONS)
    assert len(one.shards) > 3 and all(
        one.skipped[name] for name in ("duplicates", "near_duplicates", "without_tokens")
    )
    assert write([mixed], tokenizer, tmp_path / "two", workers=2, **OPTIONS) == one
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_it_goes_on_behind_any_shard(mixed: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write([mixed], tokenizer, out, workers=1, **OPTIONS)
    whole = content(out)
    manifests = {folder: Manifest.read(folder) for folder in (out, out / "held-out")}
    for kept in (-1, 0, 3, 5):
        for folder, manifest in manifests.items():
            number = max(0, kept - 2 if folder == out else kept // 3)
            some = {"shards": manifest.shards[:number], "skipped": {}, "finished": False}
            (folder / MANIFEST).write_text(Manifest(**dict(vars_of(manifest), **some)).json(), encoding="utf-8")
            for path in folder.glob("0*"):
                if int(path.name[:5]) > number:  # the files of one more shard are there, but it is not known
                    path.unlink()
            if kept < 0:
                (folder / MANIFEST).unlink()
        (out / ".writing-old").mkdir()
        write([mixed], tokenizer, out, workers=1, **OPTIONS)
        assert content(out) == whole, kept
        assert not list(out.rglob(".writing*"))


def vars_of(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}


def test_what_is_done_is_not_done_again(
    mixed: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = write([mixed], tokenizer, out, workers=1, **OPTIONS)
    coded: list[int] = []

    def counted(own: Tokenizer, texts: list[Text]) -> list[coding.Result]:
        coded.append(sum(text.code for text in texts))
        return code(own, texts)

    monkeypatch.setattr(coding, "code", counted)
    assert write([mixed], tokenizer, out, workers=1, **OPTIONS) == first
    assert coded == []
    names = shards.shard_files(len(first.shards) - 1)
    (out / names["sections"]).unlink()  # what is missing, or damaged, is made again, and no more
    whole = content(out)
    assert write([mixed], tokenizer, out, workers=1, **OPTIONS) == first
    assert 0 < sum(coded) < 200
    assert content(out) == whole | {names["sections"]: first.shards[-1].sha256["sections"]}


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(shards.__file__).parents[2])}
SCRIPT = """
import sys
from clozeline.data import shard_writing
from clozeline.tokenizer import Tokenizer
shard_writing.TASK = 5000
source, tokenizer, out = sys.argv[1], Tokenizer.load(sys.argv[2]), sys.argv[3]
shard_writing.write([source], tokenizer, out, workers=2, shard_tokens=2000, held_out=0.1, quiet=True)
"""


def tokenises(pid: int) -> bool:
    """Whether this is a process that has been started to tokenise, and runs."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_kill_at_any_time_and_go_on(corpus: Make, tmp_path: Path) -> None:
    words_only(tmp_path, [*VOCABULARY, "."])
    source, whole, out = corpus(prose(1200)), tmp_path / "whole", tmp_path / "out"
    write([source], Tokenizer.load(tmp_path), whole, workers=1, shard_tokens=2000, held_out=0.1, quiet=True)
    command = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path), str(out)]
    for seen in (2, 9):
        with subprocess.Popen(command, env=ENVIRONMENT) as process:
            try:
                while not (out / shards.shard_files(seen)["tokens"]).is_file():
                    assert process.poll() is None, "it ended before it could be killed"
                    time.sleep(0.005)
                tasks = Path(f"/proc/{process.pid}/task").iterdir()  # a thread of it may have begun the processes
                children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
                assert any(map(tokenises, children))
            finally:
                process.kill()
        assert "is not finished" in message(Shards.open, out)
    deadline = time.monotonic() + 10
    while any(map(tokenises, children)):
        assert time.monotonic() < deadline, "processes that tokenise outlive the one they work for"
        time.sleep(0.02)
    subprocess.run(command, env=ENVIRONMENT, check=True)
    assert content(out) == content(whole)


# what is refused


@pytest.fixture
def made(corpus: Make, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    write([corpus(prose(100))], tokenizer, tmp_path / "made", workers=1, shard_tokens=1000, quiet=True)
    return tmp_path / "made"


@pytest.mark.parametrize("array", shards.ARRAYS)
def test_a_flipped_byte_is_named(array: str, made: Path) -> None:
    path = made / shards.shard_files(1)[array]
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert f"{path.name} is damaged: its checksum is not the one in manifest.json" in message(Shards.open, made)
    Shards.open(made, verify=False)
    path.unlink()
    for verify in (True, False):
        assert f"{made}: {path.name} is missing" in message(Shards.open, made, verify=verify)


def test_a_shard_that_is_cut_off_is_named_when_it_is_read(made: Path) -> None:
    path = made / shards.shard_files(0)["tokens"]
    path.write_bytes(path.read_bytes()[:500])
    assert message(Shards.open(made, verify=False).ids, 0, 5).startswith(f"Shard 0 of {made} cannot be read")


def test_folders_that_hold_no_corpus(made: Path, tmp_path: Path) -> None:
    assert "has no manifest.json" in message(Shards.open, tmp_path / "gone")
    good = (made / MANIFEST).read_text(encoding="utf-8")
    for content, expected in {
        "{": "is not the manifest of a corpus, or is damaged",
        "[]": "is not the manifest of a corpus",
        '{"a": 1}': "is not the manifest of a corpus",
        good.replace('"format": 1', '"format": 2'): "has format 2, but this version reads 1; make the corpus again",
        good.replace('"finished": true', '"finished": false'): "is not finished: the work was stopped",
    }.items():
        (made / MANIFEST).write_text(content, encoding="utf-8")
        assert expected in message(Shards.open, made)


def test_another_tokenizer_is_refused(made: Path, tokenizer: Tokenizer, tmp_path: Path, corpus: Make) -> None:
    other = words_only(tmp_path, [*VOCABULARY, ".", "more"])
    assert "was made with another tokenizer (of 65 tokens; this one has 63)" in message(Shards.open, made, other)
    assert Shards.open(made, tokenizer).vocab_size == 65
    options: dict[str, Any] = dict(shard_tokens=1000, workers=1, quiet=True)
    assert "made in another way (tokenizer " in message(write, [corpus(prose(100))], other, made, **options)
    write([corpus(prose(100))], other, made, overwrite=True, **options)
    assert said(made, other) == [plain(text) for text in prose(100)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"held_out": 0.1}, "held_out 0.0, not 0.1"),
        ({"near_duplicates": True}, "near_duplicates False, not True"),
        ({"split": "line", "encoding": "cp1252"}, "split file, not line; encoding utf-8, not cp1252"),
        ({"shard_tokens": 999}, "shard_tokens 1000, not 999"),
        ({"text": "text"}, "text None, not text"),
    ],
)
def test_other_settings_are_refused(
    options: dict[str, Any], expected: str, made: Path, corpus: Make, tokenizer: Tokenizer
) -> None:
    before = content(made)
    found = message(write, [corpus(prose(100))], tokenizer, made, **{"shard_tokens": 1000, **options})
    assert expected in found and "overwrite=True" in found
    assert content(made) == before


def test_other_sources_are_refused_and_overwritten(made: Path, corpus: Make, tokenizer: Tokenizer) -> None:
    options: dict[str, Any] = dict(shard_tokens=1000, workers=1, quiet=True)
    other = corpus(prose(10), "other.jsonl")
    assert "sources [" in message(write, [other], tokenizer, made, **options)
    assert "size " in message(write, [corpus(prose(101))], tokenizer, made, **options)
    (made / "notes.txt").write_text("mine", encoding="utf-8")
    write([other], tokenizer, made, overwrite=True, held_out=0.3, **options)
    write([other], tokenizer, made, overwrite=True, **options)
    assert said(made, tokenizer) == [plain(text) for text in prose(10)]
    assert sorted(content(made)) == sorted([MANIFEST, "notes.txt", *shards.shard_files(0).values()])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"held_out": 1.0}, "held_out=1.0 must be 0, or a share"),
        ({"held_out": -0.1}, "held_out=-0.1 must be"),
        ({"workers": 0}, "workers=0 must be 1 or more"),
        ({"shard_tokens": 0}, "shard_tokens=0 must be 1 or more"),
        ({"split": "page"}, "split='page' does not cut"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], expected: str, corpus: Make, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    assert expected in message(write, [corpus(["a"])], tokenizer, tmp_path / "out", **options)


def test_a_corpus_without_text_or_with_a_binary_file(corpus: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    options: dict[str, Any] = dict(workers=1, quiet=True)
    assert "The corpus has no text" in message(write, [corpus([" "])], tokenizer, tmp_path / "out", **options)
    (tmp_path / "b.txt").write_bytes(b"text\n\x00\x01")
    sources = [corpus(["w1 w2"]), tmp_path / "b.txt"]
    assert "b.txt line 2 has a NUL byte" in message(write, sources, tokenizer, tmp_path / "other", **options)
    assert not any((tmp_path / "other").glob("*"))


def test_a_full_disk_leaves_whole_shards_and_the_rest_follows(
    corpus: Make, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(prose(200))
    options: dict[str, Any] = dict(workers=1, shard_tokens=1000, quiet=True)
    write([source], tokenizer, tmp_path / "whole", **options)
    save, calls = np.save, iter(range(100))

    def full(path: Path, array: Any) -> None:
        save(path, array)
        if next(calls) == 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        found = message(write, [source], tokenizer, tmp_path / "out", **options)
    assert "the disk is full" in found
    names = [MANIFEST, *shards.shard_files(0).values(), *shards.shard_files(1).values()]
    assert sorted(content(tmp_path / "out")) == sorted(names)
    write([source], tokenizer, tmp_path / "out", **options)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_file_that_may_not_grow(corpus: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    import resource

    source, before = corpus(prose(400)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        found = message(write, [source], tokenizer, tmp_path / "out", workers=1, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found.startswith("Cannot write to ") and content(tmp_path / "out") == {}


def test_a_process_that_dies_is_said(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def tasks() -> Iterator[tuple[int, list[Text]]]:
        for number in range(100):
            yield number, [Text("w1 w2", True, False)]
            if number == 3:
                for child in multiprocessing.active_children():
                    child.kill()

    tokenizer.save(tmp_path)
    assert message(list, in_order(tasks(), tmp_path, 2)).startswith("A process that tokenises ended too early")


def test_a_script_whose_work_is_not_guarded_is_said(corpus: Make, data: Path, tmp_path: Path) -> None:
    script = SCRIPT.replace("Tokenizer.load(sys.argv[2])", f"Tokenizer.load({str(data / 'tokenizers' / 'gpt2')!r})")
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "script.py"), str(corpus(prose(100))), "", str(tmp_path / "out")]
    done = subprocess.run(command, env=ENVIRONMENT, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "InputError: A process that tokenises ended too early" in done.stderr


# what is said, and what it costs


def test_progress_is_said_unless_quiet(
    corpus: Make,
    tokenizer: Tokenizer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_writing, "REPORT", 0.0)
    monkeypatch.setattr(shard_writing, "TASK", 3000)
    source = corpus([*prose(50), *prose(5)])
    write([source], tokenizer, tmp_path / "quiet", workers=1, quiet=True)
    assert capsys.readouterr() == ("", "")
    write([source], tokenizer, tmp_path / "out", workers=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert lines[-1].startswith("55 documents read, ") and lines[-1].endswith("; finished; duplicates 5")


def test_reading_takes_no_memory(tmp_path: Path) -> None:
    count = 400_000  # documents, of one section of one sentence of two tokens
    arrays: dict[str, np.ndarray] = {
        "tokens": np.arange(2 * count, dtype=np.uint16),
        "sentences": np.arange(0, 2 * count + 1, 2, dtype=np.uint32),
        "sections": np.arange(count + 1, dtype=np.uint32),
        "documents": np.arange(count + 1, dtype=np.uint32),
    }
    names = shards.shard_files(0)
    for name, array in arrays.items():
        np.save(tmp_path / names[name], array)
    sums = {name: str(shards.sha256(tmp_path / file)) for name, file in names.items()}
    manifest = Manifest("", 2**16, {}, [], 0, 0, [Shard(count, count, count, 2 * count, count, 0, sums)], {}, True)
    (tmp_path / MANIFEST).write_text(manifest.json(), encoding="utf-8")
    held = Shards.open(tmp_path)
    held.ids(0, 2)
    tracemalloc.start()
    try:
        for section in range(0, count, 4999):
            assert held.document_of(section) == section
            bounds = held.bounds(*held.document_sentences(section))
            assert bounds.tolist() == [2 * section, 2 * section + 2]
            assert held.ids(*bounds.tolist()).tolist() == [2 * section % 2**16, (2 * section + 1) % 2**16]
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
