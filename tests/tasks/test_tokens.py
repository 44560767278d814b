"""Token classification: tags become targets, targets the same entities again, whatever the tokenizer and windows."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.bundle import Bundle
from clozeline.data import conll, tagged, tags
from clozeline.data.packing import Samples
from clozeline.data.readers import Columns
from clozeline.data.tagged import TaggedText
from clozeline.errors import InputError
from clozeline.families import FAMILIES
from clozeline.tasks.supervised import IGNORED
from clozeline.tasks.token_classification import Tagging, TokenClassification, _first_pieces
from clozeline.tokenizer import Tokenizer
from conformance import VARIANTS
from helpers import PLAIN, as_trained
from hostile import HOSTILE

TOKENIZERS = ("bert-base-uncased", "bert-base-multilingual-cased", "roberta-base", "deberta-v3")
SCHEMES = ("BIO", "BIOES", "IO", "plain")
KINDS = ("person", "place", "e-mail")
WORDS = ["Ada", "Lovelace", "wrote", "in", "London", "antidisestablishmentarianism", "Donaudampfschiffahrt", "3.1415",
         "C++", "don't", "北京", "สวัสดี", "नमस्ते", "\U0001f44d\U0001f3fd", "👨\u200d👩\u200d👧", "e\u0301tude",
         "السلام", "x" * 45]  # fmt: skip
VANISHING = "\u00ad"  # of which BERT's tokenizers make nothing
SEEDS = range(12)
Gold = tuple[int, int, str]


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(folder_of(request.param, data, tmp_path_factory.mktemp("tokenizer")), 512)


@pytest.fixture(scope="module")
def words_only(tiny: Path) -> Tokenizer:
    """Each word of its vocabulary is one token."""
    return Tokenizer.load(tiny, 64)


def folder_of(name: str, data: Path, folder: Path) -> Path:
    for file in (data / "tokenizers" / name).iterdir():
        (folder / file.name).symlink_to(file)
    kinds = {"roberta-base": "RobertaTokenizer", "deberta-v3": "DebertaV2Tokenizer"}
    settings = {"tokenizer_class": kinds.get(name, "BertTokenizer"), "do_lower_case": name.endswith("uncased")}
    if name == "deberta-v3":
        del settings["do_lower_case"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def task_of(scheme: str, **settings: Any) -> TokenClassification:
    assert scheme in SCHEMES
    kinds = [*KINDS, "O"] if scheme == "plain" else KINDS
    return TokenClassification(tags.outputs(kinds, scheme), scheme=scheme, **settings)  # type: ignore[arg-type]


def perfect(task: TokenClassification, samples: Samples, seed: int = 0) -> np.ndarray:
    """Logits that say what was learned, and nonsense, loudly, where nothing was."""
    assert samples.targets is not None
    logits = np.random.default_rng(seed).normal(size=(len(samples.ids), len(task.labels))).astype(np.float32) * 50
    real = np.flatnonzero(samples.targets != IGNORED)
    logits[real] = 0
    logits[real, samples.targets[real]] = 20
    return logits


def through(task: TokenClassification, tokenizer: Tokenizer, examples: Sequence[TaggedText]) -> list[Tagging]:
    """What a model says that has learned its targets by heart."""
    samples = task.samples(tokenizer, examples)
    found = task.decode(perfect(task, samples), samples)
    for example, one in zip(examples, found, strict=True):
        assert one.words == example.words
        for entity in one.entities:
            assert example.text[entity.start : entity.end] == entity.text
    return found


def characters(example: TaggedText, given: Sequence[str] | None = None, plain: bool = False) -> list[Gold]:
    """The entities of an example by their characters."""
    given = example.tags if given is None else given
    assert given is not None
    if plain:
        given = [tag if tag == "O" else f"S-{tag}" for tag in given]
    return [(example.words[first][0], example.words[after - 1][1], kind) for first, after, kind in tags.spans(given)]


def entities(found: Tagging) -> list[Gold]:
    return [(entity.start, entity.end, entity.label) for entity in found.entities]


def random_entities(random: np.random.Generator, size: int, apart: bool = False) -> list[tags.Span]:
    """Entities of one to four words, often side by side and of the same type."""
    found, at = [], 0
    while at < size:
        length = int(random.integers(1, 5))
        if random.random() < 0.4 and at + length <= size:
            found.append((at, at + length, str(random.choice(KINDS))))
            at += length + apart
        else:
            at += 1
    return found


def tagged_words(random: np.random.Generator, scheme: str, words: Sequence[str], place: str = "a") -> TaggedText:
    if scheme == "plain":
        return tagged.of_words(words, [str(random.choice([*KINDS, "O"])) for _ in words], place)
    made = tags.written(len(words), random_entities(random, len(words)), scheme)  # type: ignore[arg-type]
    return tagged.of_words(words, made, place)


# -- tags to targets and back


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("max_length", [None, 70, 25])
def test_entities_of_words_come_back_exactly(scheme: str, max_length: int | None, tokenizer: Tokenizer) -> None:
    """Words of many tokens, entities side by side and at the borders of windows; 25 is less than some words have."""
    task = task_of(scheme, max_length=max_length)
    examples = []
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        examples.append(tagged_words(random, scheme, random.choice(WORDS, random.integers(1, 60)).tolist()))
    found = through(task, tokenizer, examples)
    assert max_length is None or len(task.samples(tokenizer, examples).bounds) > len(examples) + 1
    for example, one in zip(examples, found, strict=True):
        assert entities(one) == characters(example, plain=scheme == "plain")
        assert one.tags == example.tags
        assert one.truncated == 0
    samples = task.samples(tokenizer, examples)
    report = task.report(perfect(task, samples), samples)
    assert report.f1.value == 1


@pytest.mark.parametrize("scheme", ["BIO", "BIOES", "IO"])
@pytest.mark.parametrize("max_length", [None, 25])
def test_spans_of_characters_come_back_exactly(scheme: str, max_length: int | None, tokenizer: Tokenizer) -> None:
    examples, golds = [], []
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        words = [str(random.choice(WORDS)) for _ in range(random.integers(1, 40))]
        gaps = random.choice([" ", "  ", "\n", "\t ", "\u3000"], len(words))
        text, places = "", []
        for word, gap in zip(words, gaps, strict=True):
            places.append((len(text), len(text) + len(word)))
            text += word + gap
        spans = [
            {"start": places[first][0], "end": places[after - 1][1], "label": kind}
            for first, after, kind in random_entities(random, len(words), apart=scheme == "IO")
        ]
        examples.append(tagged.of_spans(text, spans, f"seed {seed}"))
        golds.append([(span["start"], span["end"], span["label"]) for span in spans])
        assert not examples[-1].uneven
    for gold, one in zip(golds, through(task_of(scheme, max_length=max_length), tokenizer, examples), strict=True):
        assert entities(one) == gold


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_words_that_the_tokenizer_drops_part_no_entity(scheme: str, data: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder_of("bert-base-uncased", data, tmp_path), 512)
    task = task_of(scheme)
    words = ["Ada", VANISHING, "Lovelace", VANISHING, "London", VANISHING]
    assert tokenizer.encode([VANISHING])[0].tokens == 0
    inside = tags.written(6, [(0, 3, "person"), (4, 5, "place")], task.scheme or "BIO")
    (found,) = through(task, tokenizer, [tagged.of_words(words, inside, "a")])
    assert [one.text for one in found.entities] == [f"Ada {VANISHING} Lovelace", "London"]
    # what follows an entity whose first word is dropped is one of its own
    behind = tags.written(6, [(0, 1, "person"), (1, 3, "person")], task.scheme or "BIO")
    (found,) = through(task, tokenizer, [tagged.of_words(words, behind, "a")])
    assert [one.text for one in found.entities] == ["Ada", "Lovelace"]


def test_texts_without_words_or_tokens_have_no_entities(words_only: Tokenizer) -> None:
    task = task_of("BIO")
    examples = [tagged.of_spans(text, [], "a") for text in ("", " \n ", "w1", "\u200b\u200e")]
    assert [len(one.words) for one in examples] == [0, 0, 1, 0]
    assert [entities(one) for one in through(task, words_only, examples)] == [[], [], [], []]
    alone = task.samples(words_only, examples[:1])
    assert task.check(perfect(task, task.samples(words_only, examples)), task.samples(words_only, examples)).loss < 1e-6
    assert alone.targets is not None
    assert (alone.targets == IGNORED).all()


def test_words_that_share_a_token_are_one_entity_and_this_is_said(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = Tokenizer.load(folder_of("roberta-base", data, tmp_path), 512)
    text = "see ... and (U.S.) too"
    assert tokenizer.token(int(tokenizer.encode([text])[0].sequences[0].ids[2])) == "Ġ..."
    for scheme in ("BIO", "BIOES"):
        task = task_of(scheme)
        whole = tagged.of_spans(text, [{"start": 4, "end": 7, "label": "place"}], "a")
        (found,) = through(task, tokenizer, [whole])
        assert entities(found) == [(4, 7, "place")]  # three words, one entity
        assert found.tags == tuple(tags.written(len(whole.words), [(1, 4, "place")], task.scheme or "BIO"))
        assert not caplog.records
        shared = tagged.of_spans(text, [{"start": 13, "end": 17, "label": "place"}], "here")  # ".)" is one token
        (found,) = through(task, tokenizer, [shared])
        assert [one.text for one in found.entities] == ["U.S.)"]
        assert "1 texts have entities that begin or end inside a token" in caplog.text
        assert "The first: here." in caplog.text
        # of two entities in one token, the first is learned
        two = [{"start": 4, "end": 5, "label": "person"}, {"start": 5, "end": 7, "label": "place"}]
        (found,) = through(task, tokenizer, [tagged.of_spans(text, two, "there")])
        assert entities(found) == [(4, 7, "person")]
        assert "The first: there." in caplog.text
        caplog.clear()


def test_a_word_is_learned_from_all_its_tokens_in_the_scheme_of_the_model(tokenizer: Tokenizer) -> None:
    word = "antidisestablishmentarianism"
    example = tagged.of_words(["in", word, word, "in"], ["O", "S-place", "S-place", "O"], "a")
    for scheme, wanted in (("BIO", ("B", "I", "I")), ("BIOES", ("B", "I", "E")), ("IO", ("I", "I", "I"))):
        task = task_of(scheme)
        samples = task.samples(tokenizer, [example])
        assert samples.targets is not None
        assert samples.offsets is not None
        names = ["-" if tag == IGNORED else task.labels[tag] for tag in samples.targets]
        assert names[0] == names[-1] == "-"
        pieces = [name for name in names if name.endswith("place")]
        size = len(pieces) // 2
        assert size > 2
        expected = [f"{wanted[0]}-place", *[f"{wanted[1]}-place"] * (size - 2), f"{wanted[2]}-place"]
        assert pieces == [*expected, *expected]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("max_length", [5, 7, 16, 64])
def test_every_word_of_a_long_text_is_learned_once(scheme: str, max_length: int, words_only: Tokenizer) -> None:
    task = task_of(scheme, max_length=max_length)
    for size in (max_length - 3, max_length - 2, max_length - 1, 3 * max_length, 101):
        example = tagged_words(np.random.default_rng(size), scheme, [PLAIN[at % 50] for at in range(size)])
        samples = task.samples(words_only, [example])
        assert samples.targets is not None
        assert (samples.targets != IGNORED).sum() == size
        (found,) = through(task, words_only, [example])
        assert found.tags == example.tags


def test_a_word_is_read_where_it_has_most_text_around_it(words_only: Tokenizer) -> None:
    task = task_of("IO", max_length=10)  # windows of 8 words that begin at 0, 6, 12
    example = tagged.of_words([f"w{at}" for at in range(20)], ["I-place"] * 20, "a")
    samples = task.samples(words_only, [example])
    assert samples.targets is not None
    assert np.diff(samples.bounds).tolist() == [10, 10, 10]
    learned = [
        [words_only.token(int(samples.ids[row])) for row in range(10 * at, 10 * at + 10) if samples.targets[row] >= 0]
        for at in range(3)
    ]
    # 6 and 7 are at the end of the first window and at the beginning of the second; 7 is second in both
    assert learned == [
        [f"w{at}" for at in range(7)],
        [f"w{at}" for at in range(7, 13)],
        [f"w{at}" for at in range(13, 20)],
    ]


@pytest.mark.parametrize("scheme", ["BIO", "BIOES", "plain"])
@pytest.mark.parametrize("long", ["truncate", "head_tail"])
def test_what_is_cut_is_counted_and_has_no_entities(
    scheme: str, long: Literal["truncate", "head_tail"], words_only: Tokenizer
) -> None:
    for size, max_length in ((50, 18), (18, 18), (17, 18), (40, 30), (400, 64)):
        room = max_length - 2
        task = task_of(scheme, long=long, max_length=max_length)
        example = tagged_words(np.random.default_rng(size), scheme, [PLAIN[at % 50] for at in range(size)])
        assert example.tags is not None
        seen = {*range(min(room, size))}
        if long == "head_tail" and size > room:
            seen = {*range(room // 4), *range(size - (room - room // 4), size)}
        (found,) = through(task, words_only, [example])
        assert found.truncated == max(0, size - room)
        assert found.tokens == size
        given = [tag if at in seen else "O" for at, tag in enumerate(example.tags)]
        assert entities(found) == characters(example, given, plain=scheme == "plain")
    with pytest.raises(InputError, match=r"^a.conll line 9 has 50 tokens, but there is room for 16"):
        task_of(scheme, long="error", max_length=18).samples(
            words_only, [tagged.of_words(PLAIN, ["O"] * 50, "a.conll line 9")], targets=False
        )


def test_nothing_is_lost_of_twenty_thousand_tokens(words_only: Tokenizer) -> None:
    words = [PLAIN[at % 50] for at in range(20_000)]
    chosen = range(0, 20_000, 1000)
    given = ["B-place" if at in chosen else "O" for at in range(20_000)]
    (found,) = through(task_of("BIO"), words_only, [tagged.of_words(words, given, "a")])
    at = [found.words.index((entity.start, entity.end)) for entity in found.entities]
    assert at == [*chosen]
    assert (found.tokens, found.truncated) == (20_000, 0)


@pytest.mark.parametrize("max_length", [5, 6, 9, 10, 30])
def test_a_word_is_read_off_its_first_token_though_windows_cut_it(max_length: int, data: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder_of("bert-base-uncased", data, tmp_path), 512)
    for words in (["x" * 60, "in", "y" * 50, "in"], ["in", "x" * 20, "y" * 20, "z" * 20], ["x" * 99]):
        example = tagged.of_words(words, ["S-place"] * len(words), "a")
        samples = task_of("BIO", max_length=max_length).samples(tokenizer, [example], targets=False)
        assert samples.offsets is not None
        rows = _first_pieces(samples, 0, example)
        assert samples.offsets[rows, 0].tolist() == [start for start, _ in example.words]
        assert not any(tokenizer.token(int(samples.ids[row])).startswith("##") for row in rows)


def test_an_entity_does_not_reach_over_what_was_cut(words_only: Tokenizer) -> None:
    for size in (20, 50):
        example = tagged.of_words([PLAIN[at] for at in range(size)], ["B-place"] + ["I-place"] * (size - 1), "a")
        (found,) = through(task_of("BIO", long="head_tail", max_length=18), words_only, [example])
        assert [one.text.split() for one in found.entities] == [PLAIN[:4], PLAIN[size - 12 : size]]


# -- schemes and labels


def test_tags_of_another_scheme_are_translated(words_only: Tokenizer) -> None:
    entities_of = [(0, 3, "place"), (3, 4, "place"), (5, 7, "person"), (9, 10, "e-mail")]
    examples = [tagged.of_words(PLAIN[:10], tags.written(10, entities_of, scheme), "a") for scheme in ("BIO", "BIOES")]
    bilou = [{"S": "U", "E": "L"}.get(tag[0], tag[0]) + tag[1:] for tag in examples[1].tags or ()]
    examples.append(tagged.of_words(PLAIN[:10], bilou, "a"))
    first = [tag.replace("B-", "I-") for tag in examples[0].tags or ()]  # IOB1: B only where one touches another
    first[3] = "B-place"
    examples.append(tagged.of_words(PLAIN[:10], first, "a"))
    for scheme in ("BIO", "BIOES"):
        for found in through(task_of(scheme), words_only, examples):
            assert found.tags == tuple(tags.written(10, entities_of, scheme))


def test_a_checkpoint_may_lack_a_prefix_or_write_bilou(words_only: Tokenizer) -> None:
    example = tagged.of_words(PLAIN[:5], ["B-place", "I-place", "I-place", "O", "B-place"], "a")
    bilou = TokenClassification(["O", "B-place", "I-place", "L-place", "U-place"])
    assert bilou.scheme == "BIOES"
    (found,) = through(bilou, words_only, [example])
    assert found.tags == ("B-place", "I-place", "L-place", "O", "U-place")
    no_begin = TokenClassification(["O", "B-person", "I-person", "I-place"])
    (found,) = through(no_begin, words_only, [example])
    assert entities(found) == characters(example)
    no_inside = TokenClassification(["O", "B-place", "B-person", "I-person"])
    (found,) = through(no_inside, words_only, [tagged.of_words(PLAIN[:2], ["B-place", "O"], "a")])
    assert entities(found) == [(0, 2, "place")]
    other_scheme = TokenClassification(["O", "B-place", "I-place"], scheme="BIOES")
    (found,) = through(other_scheme, words_only, [example])
    assert entities(found) == characters(example)


def test_labels_are_taken_from_the_training_data(words_only: Tokenizer) -> None:
    def settled(given: Sequence[str], scheme: Any = None) -> TokenClassification:
        example = tagged.of_words(PLAIN[: len(given)], given, "train.conll line 3")
        return TokenClassification(scheme=scheme).settled([example], "train.conll", Columns())

    assert settled(["O", "B-b", "B-a"]).labels == ("O", "B-a", "I-a", "B-b", "I-b")
    assert settled(["O", "S-b"]).labels == ("O", "B-b", "I-b", "E-b", "S-b")
    assert settled(["O", "B-b"], "IO").labels == ("O", "I-b")
    assert settled(["NOUN", "VERB"]).labels == ("NOUN", "VERB")
    assert settled(["O", "person"]).scheme == "plain"
    assert settled(["B-NP", "-LRB-"], "plain").labels == ("-LRB-", "B-NP")
    with pytest.raises(InputError, match=r"train.conll has no tag but O"):
        settled(["O", "O"])
    # one slip must not make plain tags of all
    with pytest.raises(InputError, match=r"train.conll line 3: the tag 'person' is not written like 'B-person'"):
        settled(["B-person", "person", "O"])
    with pytest.raises(InputError, match=r"the tag 'person' is not written like 'B-person'"):
        settled(["person", "O"], "BIO")
    with pytest.raises(InputError, match=r"the tag 'X-per' is not written like 'I-per'"):
        settled(["X-per", "I-per"])
    with pytest.raises(InputError, match=r"the tag 'B' is not written like 'B-name'"):
        settled(["B", "I", "O"])
    for slip in ("B_per", "b-per"):
        with pytest.raises(InputError, match=rf"the tag '{slip}' is not written like 'B-per'"):
            settled([slip, "O"])
    assert settled(["B", "I", "O"], "plain").labels == ("B", "I", "O")


def test_unknown_tags_are_named_with_their_word() -> None:
    task = task_of("BIO")
    example = tagged.of_words(["Ada", "works"], ["B-persn", "O"], "test.conll line 7")
    with pytest.raises(
        InputError, match=r"test.conll line 7: the word 'Ada' has the unknown tag 'B-persn'; did you mean"
    ):
        task._check_types([example])
    nouns = TokenClassification(["NOUN", "VERB"])
    for tag in ("NUON", "O"):  # no output stands for O here
        with pytest.raises(InputError, match=f"the unknown tag '{tag}'"):
            nouns._check_types([tagged.of_words(["Ada"], [tag], "a")])


def test_plain_tags_are_counted_without_o(words_only: Tokenizer) -> None:
    task = TokenClassification(["O", "person", "place"])
    samples = task.samples(words_only, [tagged.of_words(PLAIN[:6], ["O", "O", "O", "person", "O", "place"], "a")])
    found = task.check(perfect(task, samples), samples)
    assert found.predicted == {"person": 1, "place": 1, "O": 4}
    assert task.counts(samples) == {"person": 1, "place": 1}
    nothing = np.zeros((len(samples.ids), 3), np.float32)
    nothing[:, 0] = 9
    assert task.check(nothing, samples).scores["f1"] == 0  # saying O everywhere finds nothing
    nouns = TokenClassification(["NOUN", "VERB"])
    samples = nouns.samples(words_only, [tagged.of_words(PLAIN[:3], ["NOUN", "VERB", "NOUN"], "a")])
    assert nouns.check(perfect(nouns, samples), samples).scores["f1"] == 1


@pytest.mark.parametrize(
    "given", [{"scheme": "BOI"}, {"labels": ["O", "O"]}, {"labels": ["O"]}, {"labels": "O"}], ids=str
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TokenClassification(**given)


def test_config_json_keeps_labels_and_scheme() -> None:
    for task in (
        task_of("BIOES", max_length=99, long="truncate"),
        TokenClassification(["B-NP", "I-NP"], scheme="plain"),
    ):
        assert TokenClassification.from_raw(json.loads(json.dumps(task.raw()))) == task


# -- models


def loud(folder: Path, task: TokenClassification, out: Path) -> cl.Model:
    """A model whose head is random and so large that it tags all kinds of things."""
    model = cl.load(folder, task)
    head: Any = model.network.head
    head.classifier.weight.data = torch.randn(head.classifier.weight.shape, generator=torch.Generator().manual_seed(0))
    return cl.load(as_trained(model._bundle, out))


def holds_what_it_says(text: str, found: Tagging) -> None:
    before = 0
    for start, end in found.words:
        assert before <= start < end <= len(text)
        assert not any(sign.isspace() for sign in text[start:end])
        before = end
    starts, ends = {start for start, _ in found.words}, {end for _, end in found.words}
    before = 0
    for one in found.entities:
        assert text[one.start : one.end] == one.text
        assert before <= one.start < one.end
        assert one.start in starts
        assert one.end in ends
        assert 0 < one.score <= 1
        before = one.end
    assert len(found.tags) == len(found.words)
    said = [(found.words[first][0], found.words[after - 1][1], kind) for first, after, kind in tags.spans(found.tags)]
    assert said == entities(found)


TEXTS = [text[:500] for text in HOSTILE] + [
    "Ada\u200dLovelace 👩🏽\u200d🚀 flew 👨\u200d👩\u200d👧\u200d👦 to 🇩🇪🇫🇷!",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f is one flag",
    "北京大学在中国。東京タワー สวัสดีครับ ພາສາລາວ",
    "e\u0301a\u0308o\u0302 Z\u0351\u036b\u0343algo שָׁלוֹם مرحبا بالعالم \u202bmixed\u202c می\u200cخواهم",
]


def test_each_entity_stands_at_its_characters_in_real_tweets(data: Path, minilm: Path, tmp_path: Path) -> None:
    model = loud(minilm, task_of("BIO"), tmp_path / "model")
    sentences = [*conll.sentences(data / "wnut17" / "test.conll")][::3]
    texts = [" ".join(one.words) for one in sentences]
    found = model.predict(texts)
    assert sum(len(one.entities) for one in found) > 1000
    for text, one in zip(texts, found, strict=True):
        holds_what_it_says(text, one)
    for sentence, one in zip(sentences[:50], model.predict([one.words for one in sentences[:50]]), strict=True):
        assert [" ".join(sentence.words)[start:end] for start, end in one.words] == [*sentence.words]
    for text, one in zip(TEXTS, model.predict(TEXTS), strict=True):
        holds_what_it_says(text, one)


@pytest.mark.parametrize(("variant", "name"), [("roberta", "roberta-base"), ("deberta-v2", "deberta-v3")])
def test_each_entity_stands_at_its_characters_under_other_tokenizers(
    variant: str, name: str, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer").mkdir()
    tokenizer = Tokenizer.load(folder_of(name, data, tmp_path / "tokenizer"), 100)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    family = FAMILIES[variant]
    config = family.read(
        {**sizes, **VARIANTS[variant], "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 102}
    )
    folder = tmp_path / "base"
    Bundle(str(folder), family, family.build(config, "base"), tokenizer, None, []).save(folder)
    model = loud(folder, task_of("BIOES"), tmp_path / "model")
    sentences = [" ".join(one.words) for one in conll.sentences(data / "wnut17" / "test.conll")][::5]
    texts = [*sentences, *TEXTS, " ".join(sentences)]
    found = model.predict(texts)
    assert sum(len(one.entities) for one in found) > 1000
    for text, one in zip(texts, found, strict=True):
        holds_what_it_says(text, one)
        assert one.truncated == 0


@pytest.fixture(scope="module")
def finder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> cl.Model:
    """A model that has learned that "good" is a quality."""
    folder = tmp_path_factory.mktemp("finder")
    random = np.random.default_rng(0)
    lines = []
    for _ in range(300):
        words = random.choice(PLAIN, random.integers(3, 30)).tolist()
        words[random.integers(len(words))] = "good"
        lines += [f"{word}\t{'B-quality' if word == 'good' else 'O'}" for word in words] + [""]
    (folder / "train.conll").write_text("\n".join(lines), encoding="utf-8")
    model = cl.load(tiny, TokenClassification())
    model.fit(folder / "train.conll", folder / "train.conll", out=folder / "run", epochs=3, learning_rate=3e-3,
              batch_size=16, precision="fp32", quiet=True)  # fmt: skip
    return cl.load(folder / "run" / "model")


def test_a_trained_model_finds_each_entity_of_a_very_long_text(finder: cl.Model) -> None:
    assert finder.labels == ("O", "B-quality", "I-quality")
    words = [PLAIN[at * 7 % 50] for at in range(20_000)]
    for at in range(0, 20_000, 1000):
        words[at] = "good"
    (found,) = finder.predict(" ".join(words))
    assert [found.words.index((one.start, one.end)) for one in found.entities] == [*range(0, 20_000, 1000)]
    assert {one.text for one in found.entities} == {"good"}
    assert (found.tokens, found.truncated) == (20_000, 0)


def test_all_forms_of_data_are_evaluated_alike(finder: cl.Model, tmp_path: Path) -> None:
    texts = ["w1 good w3", "w2 w2", "good w3 weak good"]
    quality = {"good": "B-quality", "weak": "B-quality"}
    rows = [{"tokens": text.split(), "ner_tags": [quality.get(word, "O") for word in text.split()]} for text in texts]
    spans = [
        {
            "text": text,
            "entities": [
                {"start": start, "end": end, "label": "quality"}
                for start, end in tagged.words(text)
                if text[start:end] in quality
            ],
        }
        for text in texts
    ]
    for name, given in (("rows.jsonl", rows), ("spans.jsonl", spans)):
        (tmp_path / name).write_text("\n".join(map(json.dumps, given)))
    lines = ["\n".join(f"{w} x {t}" for w, t in zip(row["tokens"], row["ner_tags"], strict=True)) for row in rows]
    (tmp_path / "plain.txt").write_text("\n\n".join(lines))
    reports = [finder.evaluate(tmp_path / name).as_dict() for name in ("rows.jsonl", "spans.jsonl", "plain.txt")]
    assert reports[0] == reports[1] == reports[2]
    assert (reports[0]["precision"], reports[0]["recall"]) == (1, 0.75)
    assert finder.predict([text.split() for text in texts]) == finder.predict(texts)


@pytest.mark.parametrize(
    ("texts", "pairs", "message"),
    [
        ("w1", "w2", r"texts\[0\] has a second text"),
        (["w1", "w2"], ["w2", "w3"], r"texts\[0\] has a second text"),
        ([["w1", ""]], None, r"texts\[0\] is \['w1', ''\]; give a text, or a list of its words"),
        ([["w1", 2]], None, "give a text, or a list of its words"),
        (["w1", 3], None, r"texts\[1\] is 3"),
        ([None], None, r"texts\[0\] is None"),
    ],
)
def test_what_cannot_be_tagged_is_refused(finder: cl.Model, texts: Any, pairs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        finder.predict(texts, pairs)


def test_wrong_data_is_refused_in_one_sentence(finder: cl.Model, tmp_path: Path) -> None:
    (tmp_path / "test.conll").write_text("w1 O\n\nw2 B-qualty\n")
    with pytest.raises(
        InputError, match=r"test.conll line 3: the word 'w2' has the unknown tag 'B-qualty'; did you mean"
    ):
        finder.evaluate(tmp_path / "test.conll")
    (tmp_path / "odd.conll").write_text("w1 O\nw2\n")
    with pytest.raises(InputError, match=r"odd.conll line 2 is 'w2'"):
        finder.evaluate(tmp_path / "odd.conll")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_uneven_spans_are_said_and_never_right(
    scheme: str, words_only: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    """A prediction is of whole words: it cannot have the characters 3 to 7 of "w1 w2w31 w4 w3"."""
    spans = [{"start": 3, "end": 5, "label": "person"}, {"start": 12, "end": 14, "label": "person"}]
    example = tagged.of_spans("w1 w2w31 w4 w3", spans, "test.jsonl line 1")
    task = task_of(scheme)
    if scheme == "plain":
        task = TokenClassification(["B-person", "O"], scheme="plain")
    samples = task.samples(words_only, [example])
    assert "1 spans begin or end inside a word, the first in test.jsonl line 1" in caplog.text
    logits = perfect(task, samples)
    assert [entity.text for entity in task.decode(logits, samples)[0].entities] == ["w2w31", "w3"]
    assert task.check(logits, samples).scores == {"f1": 0.5, "precision": 0.5, "recall": 0.5}
    report = task.report(logits, samples)
    assert (report.f1.value, report.unknown) == (0.5, ())
    assert {kind: each.gold for kind, each in report.types.items()} == task.counts(samples)
    assert task.counted(logits, samples).value == 0.5


def test_what_is_wrong_with_tags_is_said(words_only: Tokenizer) -> None:
    task = task_of("BIO")
    rows = [["B-person", "O"]] * 20 + [["O", "B-place"]]
    given = [tagged.of_words([PLAIN[at], "w1"], row, f"line {at}") for at, row in enumerate(rows)]
    said = task.lacks(task.samples(words_only, given), task.samples(words_only, given[:1]))
    assert "Label 'person' has 20 entities in training, but 'place' 1." in said[0]
    assert said[1:] == [
        "No training text has the label 'e-mail'; the model cannot learn it.",
        "No validation text has the label 'place', so validation says nothing about it.",
    ]
    same = [
        tagged.of_words(["Ada", "sang"], ["B-person", "O"], "line 1"),
        tagged.of_words(["Ada", "sang", "."], ["B-person", "O", "O"], "line 2"),
        tagged.of_words(["Ada", "sang"], ["O", "O"], "line 3"),
    ]
    notes = task.notes(same, [])
    assert "different labels: 1: line 1 (B-person) and line 3 (none)" in notes[0]
    assert "with the same label: 1 of 3" in notes[1]


def test_the_loss_counts_tokens_with_a_tag_only(words_only: Tokenizer) -> None:
    task = task_of("BIO")
    samples = task.samples(words_only, [tagged.of_words(PLAIN[:4], ["O"] * 4, "a"), tagged.of_words([], [], "b")])
    batch = samples.take(np.asarray([0, 1]))
    logits = torch.randn(8, len(task.labels), generator=torch.Generator().manual_seed(0))
    total, weight = task.loss(logits, batch, None)
    assert weight.item() == 4
    expected = torch.nn.functional.cross_entropy(logits[1:5], torch.zeros(4, dtype=torch.long), reduction="sum")
    torch.testing.assert_close(total, expected)


def test_quiet_where_all_is_exact(words_only: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "clozeline"):
        task_of("BIO").samples(words_only, [tagged.of_words(PLAIN[:2], ["B-place", "O"], "a")])
    assert not caplog.records
