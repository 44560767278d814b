"""Smaller models without training: layers taken out, vocabularies cut, and what is left gives what it gave."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models
from torch import Tensor

import clozeline as cl
from clozeline.batch import Packed
from clozeline.bundle import Bundle, load
from clozeline.config import Learned, Rotary
from clozeline.errors import InputError
from clozeline.families import FAMILIES
from clozeline.model.layer_map import spread
from clozeline.shrinking import PART, SEAMS, _parts, keep_vocabulary, shrink, used_ids
from clozeline.student import keep_layers
from clozeline.tokenizer import Tokenizer
from clozeline.tokenizer_trim import trim
from conformance import VARIANTS, batch_of, model_type, ours, sizes


def bundle_of(variant: str, layers: int = 6, **changes: object) -> Bundle:
    """A random masked-LM model of a family, without a tokenizer."""
    family = FAMILIES[model_type(variant)]
    count = "n_layers" if variant == "distilbert" else "num_hidden_layers"
    config = family.read({**sizes(variant), count: layers}).replace(**changes)
    blank: Tokenizer = None  # type: ignore[assignment]
    return Bundle(variant, family, family.build(config, "masked_lm").eval(), blank, None, [])


def states(bundle: Bundle, batch: Packed) -> list[Tensor]:
    with torch.inference_mode():
        return ours(bundle.network, batch)


# ---- layers


def test_spread_is_what_distilbert_was_started_from() -> None:
    assert spread(12, 6) == (0, 2, 4, 7, 9, 11)
    assert (spread(12, 1), spread(1, 1), spread(24, 2)) == ((0,), (0,), (0, 23))
    for layers in range(2, 49):
        assert spread(layers, layers) == tuple(range(layers))
        for kept in range(2, layers):
            found = spread(layers, kept)
            assert (found[0], found[-1], len(found)) == (0, layers - 1, kept)
            assert np.ptp(np.diff(found)) <= 1


@pytest.mark.parametrize("kept", [0, -1, 13])
def test_spread_refuses_what_is_not_there(kept: int) -> None:
    with pytest.raises(InputError, match=f"{kept} layers cannot be kept of 12; give a number from 1 to 12"):
        spread(12, kept)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_layers_are_the_same_model_and_some_are_those_layers_one_after_another(variant: str) -> None:
    large, batch = bundle_of(variant), batch_of(variant)
    before = {name: value.clone() for name, value in large.network.state_dict().items()}
    whole = keep_layers(large, range(6))
    assert whole.config == large.config
    for mine, theirs in zip(states(whole, batch), states(large, batch), strict=True):
        assert torch.equal(mine, theirs)

    kept = (0, 2, 3, 5)
    small = keep_layers(large, kept)
    assert small.config.layers == 4
    assert small.network.config is small.network.encoder.config
    encoder = large.network.encoder
    with torch.inference_mode():
        expected = [encoder.embedding(batch)]
        for number in kept:
            expected.append(encoder.layers[encoder.order[number]](expected[-1], batch.layout))
        expected[-1] = encoder.norm(expected[-1])
        assert all(map(torch.equal, small.network.encoder.states(batch), expected))
        assert small.network.head is not None
        everything = torch.arange(batch.layout.tokens)
        scores = [network.head(expected[-1], everything) for network in (small.network, large.network) if network.head]
        assert torch.equal(*scores)
    # the given model is as it was, and shares nothing with the new one
    for parameter in small.network.parameters():
        parameter.data.zero_()
    assert large.config.layers == 6
    assert all(torch.equal(value, before[name]) for name, value in large.network.state_dict().items())


def test_windows_go_with_their_layers(caplog: pytest.LogCaptureFixture) -> None:
    large = bundle_of("modernbert", layers=7)
    full = [number for number, window in enumerate(large.config.windows) if window is None]
    assert full == [0, 3, 6]
    assert [each is None for each in keep_layers(large, (0, 2, 3, 5, 6)).config.windows] == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert keep_layers(large, full).config.windows == (None,) * 3
    assert caplog.messages == []
    small = keep_layers(large, (0, 2, 3, 6))
    assert small.config.windows == (None, 6, None, None)
    assert "only transformers 5" in caplog.text
    assert small.family.read(small.family.write(small.config)) == small.config


def test_albert_has_fewer_rounds_where_its_runs_allow_it() -> None:
    one = keep_layers(bundle_of("albert"), (1, 4))
    assert (one.network.encoder.order, one.config.distinct_layers, len(one.network.encoder.layers)) == ([0, 0], 1, 1)
    two = bundle_of("albert-groups")  # 0, 1, 2 and 3, 4, 5 share
    assert keep_layers(two, (1, 2)).config.distinct_layers == 1
    assert keep_layers(two, (0, 2, 5)).network.encoder.order == [0, 0, 1]
    with pytest.raises(InputError, match=r"these share weights: 0, 1, 2; 3, 4, 5. Give as many of each"):
        keep_layers(two, (0, 3, 4))


@pytest.mark.parametrize("layers", [(), (0, 6), (-1, 2), (0, 0, 1), (2, 1)])
def test_layers_that_are_not_there_or_out_of_order_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="give whole numbers from 0 to 5, each once, in rising order"):
        keep_layers(bundle_of("bert"), layers)


@pytest.mark.parametrize(
    ("variant", "why"), [("modernbert", "without the norm"), ("deberta-v2-convolution", "convolution")]
)
def test_a_first_layer_unlike_the_others_has_to_stay(variant: str, why: str) -> None:
    with pytest.raises(InputError, match=f"leaves out layer 0, which .*{why}.*give layers that begin with 0"):
        keep_layers(bundle_of(variant), (1, 2))
    assert keep_layers(bundle_of("deberta-v2"), (1, 2)).config.layers == 2


# ---- which tokens a corpus uses


def test_used_ids_counts_the_whole_corpus(tiny: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(tiny)
    (tmp_path / "a.txt").write_text("w1 w1 w2\nw3 [MASK]\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text,label\nw3 w3 unheard,x\nw1,y\n", encoding="utf-8")
    names = [tokenizer.token(at) for at in used_ids(tokenizer, [tmp_path])]
    assert names == ["[UNK]", "w1", "w2", "w3"]  # what [MASK] is written with is unknown to this one
    at_least = {least: [tokenizer.token(at) for at in used_ids(tokenizer, [tmp_path], least=least)] for least in (3, 9)}
    assert at_least == {3: ["[UNK]", "w1", "w3"], 9: []}
    with pytest.raises(InputError, match="least=0 must be 1 or more"):
        used_ids(tokenizer, [tmp_path], least=0)
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(InputError, match="The corpus has no text"):
        used_ids(tokenizer, [tmp_path / "empty.txt"])
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        used_ids(tokenizer, [tmp_path / "nowhere.txt"])


def test_files_that_are_left_out_are_counted(tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("w1", encoding="utf-8")
    (tmp_path / "b.pdf").write_text("w2", encoding="utf-8")
    used_ids(Tokenizer.load(tiny), [tmp_path])
    assert caplog.messages == ["1 files of the corpus were left out because of their ending."]


@pytest.mark.parametrize("name", ["bert-base-uncased", "gpt2", "t5-small"])
def test_a_long_document_is_tokenised_in_parts_as_in_one(name: str, data: Path) -> None:
    tokenizer = Tokenizer.load(data / "tokenizers" / name)
    rows = (data / "sst2" / "dev.tsv").read_text(encoding="utf-8")
    text = (rows + "a  b \n\n c\t" + rows.replace(" ", "\n"))[: 3 * PART]
    parts = [*_parts(text)]
    assert "".join(parts) == text
    assert len(parts) > 2
    assert max(map(len, parts)) <= PART
    assert np.array_equal(np.concatenate(tokenizer.plain(parts)), tokenizer.plain([text])[0])
    assert not any(seam.search("a  b\n\nc \nd") for seam in SEAMS)
    assert "".join(_parts("x" * (PART + 5))) == "x" * (PART + 5)


# ---- models


@pytest.fixture(scope="module")
def texts(data: Path) -> list[str]:
    """Six film reviews."""
    lines = (data / "sst2" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:7]
    return [line.split("\t")[0] for line in lines]


@pytest.fixture(scope="module")
def masked(data: Path) -> Bundle:
    """A random BERT over a real vocabulary with a masked-LM head."""
    return over(data, "bert-base-uncased", "bert")


def over(data: Path, tokenizer: str, variant: str) -> Bundle:
    """A random masked-LM model over a published vocabulary, with some rows that no token has."""
    found = Tokenizer.load(data / "tokenizers" / tokenizer, 40)
    bundle = bundle_of(variant, layers=2, vocab_size=found.vocab_size + 6, pad_id=found.pad_id)
    assert bundle.network.head is not None
    torch.nn.init.normal_(bundle.network.head.bias)  # type: ignore[arg-type]
    return replace(bundle, tokenizer=found)


@pytest.mark.parametrize(
    ("tokenizer", "variant"),
    [
        ("bert-base-uncased", "bert"),
        ("bert-base-uncased", "electra"),
        ("roberta-base", "roberta"),
        ("t5-small", "deberta-v2"),
    ],
)
def test_results_for_the_corpus_are_the_same_bit_for_bit(
    tokenizer: str, variant: str, data: Path, texts: list[str]
) -> None:
    large = over(data, tokenizer, variant)
    small = keep_vocabulary(large, np.concatenate(large.tokenizer.plain(texts)))
    _, before = trim(large.tokenizer, np.concatenate(large.tokenizer.plain(texts)))
    size = small.config.vocab_size
    assert size == small.tokenizer.vocab_size == len(before) < large.config.vocab_size / 3
    assert small.config.pad_id == small.tokenizer.pad_id
    assert small.network.encoder.embedding.tokens.weight.shape == (size, large.config.table_width)
    batches = [
        Packed.of([one.sequences[0].ids.astype(np.int64) for one in bundle.tokenizer.encode(texts)])
        for bundle in (large, small)
    ]
    *mine, scores = states(small, batches[1])
    *theirs, all_scores = states(large, batches[0])
    assert len(mine) == 3
    assert all(map(torch.equal, mine, theirs))
    assert torch.equal(scores, all_scores[:, before])
    assert large.config.vocab_size == large.network.encoder.embedding.tokens.num_embeddings == len(all_scores[0])
    # and trains: the scores are over the same table
    small.network.encoder(batches[1]).sum().backward()
    assert small.network.encoder.embedding.tokens.weight.grad is not None
    assert large.network.encoder.embedding.tokens.weight.grad is None


def test_what_stands_before_the_first_position_does_not_move(data: Path) -> None:
    # RoBERTa's positions are counted from its padding token's id, also where the tokens before that are of no use
    words = ["bab", "<pad>", "aab", "<unk>", "a", "##a", "b", "##b", "aa", "bb", "[CLS]", "[SEP]"]
    backend = Backend(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    large = replace(
        bundle_of("camembert", layers=1, vocab_size=12), tokenizer=Tokenizer(backend, {"pad_token": "<pad>"})
    )
    small = keep_vocabulary(large, [])
    assert small.tokenizer.vocabulary() == ["bab", "<pad>", "<unk>", "a", "##a", "b", "##b", "[CLS]", "[SEP]"]
    assert (small.config.pad_id, small.tokenizer.pad_id) == (1, 1)
    assert small.config.positions == large.config.positions == Learned(2)
    assert small.family.read(small.family.write(small.config)) == small.config


def test_ids_that_a_configuration_names_are_renumbered(masked: Bundle) -> None:
    tokenizer = masked.tokenizer
    kept = {"cls_token_id": tokenizer.cls_id, "eos_token_id": 5000, "id2label": {"0": "no"}}
    small = keep_vocabulary(replace(masked, kept=kept), tokenizer.plain(["a film"])[0])
    assert small.kept == {"cls_token_id": small.tokenizer.cls_id, "eos_token_id": None, "id2label": {"0": "no"}}
    assert small.tokenizer.cls_id != tokenizer.cls_id


def test_a_padding_id_far_behind_moves_with_its_token(data: Path) -> None:
    large = over(data, "roberta-base", "modernbert")
    large.network.config = large.network.encoder.config = large.config.replace(pad_id=50_261)  # an odd one of ours
    small = keep_vocabulary(large, [])
    assert isinstance(small.config.positions, Rotary)
    assert small.config.pad_id == small.tokenizer.id(large.tokenizer.token(50_261)) != 50_261


# ---- shrink


def test_a_real_model_loses_layers_and_vocabulary(minilm: Path, data: Path, tmp_path: Path) -> None:
    lines = (data / "sst2" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.split("\t")[0] for line in lines]
    corpus = tmp_path / "reviews.txt"
    corpus.write_text("\n".join(texts), encoding="utf-8")
    cut = shrink(minilm, tmp_path / "cut", vocabulary=corpus)
    large, small = cl.load(minilm), cl.load(tmp_path / "cut")
    assert np.array_equal(large.embed(texts[:10]), small.embed(texts[:10]))
    assert cut.vocabulary == (large.config.vocab_size, small.config.vocab_size)
    assert cut.vocabulary[1] < 10_000
    assert cut.parameters[0] - cut.parameters[1] == 384 * (cut.vocabulary[0] - cut.vocabulary[1])
    assert cut.tokens_per_word is not None
    assert cut.tokens_per_word[0] == cut.tokens_per_word[1] > 1
    assert cut.layers == (0, 1, 2, 3, 4, 5)
    card = (tmp_path / "cut" / "README.md").read_text(encoding="utf-8")
    assert "## How it was made" in card
    assert "not measured" in card
    assert "trained again" not in card
    assert card.index("How it was made") < card.index("## Licence and use")
    assert str(cut).splitlines() == [
        "layers: 6 -> 6 (0, 1, 2, 3, 4, 5)",
        f"vocabulary: 30,522 -> {cut.vocabulary[1]:,}",
        f"parameters: {cut.parameters[0]:,} -> {cut.parameters[1]:,}",
        "tokens a word of the corpus: {:.3f} -> {:.3f}".format(*cut.tokens_per_word),
        f"saved in {tmp_path / 'cut'}; how accurate it is was not measured",
    ]

    both = shrink(minilm, tmp_path / "both", layers=3, vocabulary=[corpus], least=5)
    assert (both.layers, both.layers_before) == ((0, 2, 5), 6)
    assert both.vocabulary[1] < cut.vocabulary[1]
    assert both.tokens_per_word is not None
    assert both.tokens_per_word[1] > both.tokens_per_word[0]
    assert cl.load(tmp_path / "both").config.layers == 3
    assert "until it is trained again" in (tmp_path / "both" / "README.md").read_text(encoding="utf-8")


def test_a_classifier_keeps_its_head_and_its_answers(trained: Path, tmp_path: Path) -> None:
    done = shrink(trained, tmp_path / "one", layers=[1])
    assert (done.layers, done.tokens_per_word) == ((1,), None)
    assert "tokens a word" not in str(done)
    small = cl.load(tmp_path / "one")
    assert small.predict(["w1 good w2"])[0].label in ("negative", "positive")
    shrink(trained, tmp_path / "two", layers=2)
    for mine, theirs in zip(
        *(cl.load(each).predict(["w1 good w2", "bad"]) for each in (trained, tmp_path / "two")), strict=True
    ):
        assert mine.scores == theirs.scores
    assert load(tmp_path / "one").fresh == []


def test_heads_go_with_the_layers_that_they_are_in(trained: Path, tmp_path: Path) -> None:
    done = shrink(trained, tmp_path / "heads", heads={0: [1], 1: [0, 3]})
    assert (done.heads, done.layers) == ((8, 5), (0, 1)) and "heads: 8 -> 5" in str(done)
    assert done.parameters[1] < done.parameters[0]
    whole, small = (cl.load(each).predict("w1 good w2")[0].scores for each in (trained, tmp_path / "heads"))
    assert small != whole
    both = shrink(trained, tmp_path / "both", layers=[1], heads={0: [1], 1: [0, 3]})
    assert both.heads == (8, 2) and cl.load(tmp_path / "both").config.kept_heads(0) == [1, 2]
    assert "version 5 knows no pruned heads" in (tmp_path / "both" / "README.md").read_text(encoding="utf-8")


def test_what_cannot_be_done_is_refused_and_nothing_is_written(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny / name, bare)
    out = tmp_path / "out"
    for model, where, how, message in (
        (tiny, out, {}, "nothing to cut: give layers, heads, vocabulary"),
        (tiny, out, {"layers": 1, "least": 2}, "give it as vocabulary, or leave them out"),
        (tiny, tmp_path / "full", {"layers": 1}, "is there already; give a folder that is new or empty"),
        (tiny, tiny, {"layers": 1}, "is there already"),
        (tiny, tmp_path / "empty.txt", {"layers": 1}, "is there already"),
        (tiny, out, {"layers": 3}, "3 layers cannot be kept of 2; give a number from 1 to 2"),
        (tiny, out, {"layers": [0, 2]}, "whole numbers from 0 to 1"),
        (tiny, out, {"vocabulary": tmp_path / "empty.txt"}, "The corpus has no text"),
        (tiny, out, {"vocabulary": tmp_path / "gone.txt"}, "gone"),
        (tiny, out, {"vocabulary": []}, "one at least"),
        (bare, out, {"layers": 1}, "holds no tokenizer"),
    ):
        with pytest.raises(InputError, match=message):
            shrink(model, where, **how)
    assert not out.exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
