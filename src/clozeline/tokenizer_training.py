"""A vocabulary out of a corpus: WordPiece as BERT's, byte-level BPE as RoBERTa's, or unigram pieces as ALBERT's.

The text is read twice: once to count it, so that what the training will take is said before it starts, once to train. The
same text, settings and seed give the same bytes in tokenizer.json, in every process and with any number of threads.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from clozeline.data.corpus import Counts, Split, documents
from clozeline.data.sampling import HELD, Sample, cut
from clozeline.errors import InputError, nearest
from clozeline.tokenizer import Tokenizer
from clozeline.tokenizer_classes import SPACE, clean_up
from clozeline.unigram_training import learn_pieces

log = logging.getLogger("clozeline")

Kind = Literal["wordpiece", "bpe", "unigram"]

SIZE = 30_528
"""BERT's 30,522, rounded up to a multiple of 64: matrix products over the vocabulary are fastest there."""
SAMPLE = 1000
"""Megabytes of text: what is rare in so much makes no piece of a vocabulary of this size."""
MOST = 20_000
"""Megabytes: the library counts pairs of pieces in 32 bits, which no pair of English overflows in four times as much."""
COVERAGE = 0.99995
"""Share of the characters of the text that get a piece of their own. SentencePiece takes 0.9995, but to WordPiece a whole
word with one of the others is unknown."""
MIN_COUNT = 2
"""How often a pair of pieces must occur to be made one."""
MEMORY: dict[Kind, tuple[float, float, float]] = {
    "wordpiece": (60, 25, 0.7),
    "bpe": (80, 25, 0.7),
    "unigram": (200, 130, 0.45),
}
"""a, b and c of a + b x^c, the megabytes that x of text take at most: it is the different words that fill memory, and these
grow by such a law (Heaps). Measured at 6, 20, 40 and 83 MB of English prose: wordpiece 71, 120, 170, 190; bpe 94,
142, 211, 270; unigram 224, 395, 629, 750. Random letters, no word twice, take 115 for each megabyte."""
MB = 10**6
SAY = 10.0  # seconds between lines of progress
# letters; or digits; or marks
RUNS = "|".join(SPACE + run for run in (r"?[\p{L}\p{M}]+", r"?\p{N}+", rf"?[^\p{{L}}\p{{M}}\p{{N}}{SPACE}]+"))
SPECIAL: dict[Kind, tuple[str, ...]] = {
    "wordpiece": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "bpe": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "unigram": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What the tokenizer makes of text, special tokens not counted.

    held: whether training did not see that text; of a very small corpus it did. words: as spaces divide them; tokens: of
    these words; unknown: of these tokens.
    """

    held: bool
    words: int
    tokens: int
    unknown: int

    @property
    def pieces_per_word(self) -> float:
        """Tokens of a word on average; English text has about 1.3 in a BERT that was made for it."""
        return self.tokens / max(1, self.words)

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are unknown."""
        return self.unknown / max(1, self.tokens)


@dataclass(frozen=True, slots=True)
class Trained:
    """A new tokenizer, and what it was made of.

    counts: of the corpus, what was left out of it included; bytes_in_all, bytes_read: UTF-8 bytes of the text, and of those
    that training read.
    """

    tokenizer: Tokenizer
    counts: Counts
    bytes_in_all: int
    bytes_read: int
    report: Report

    @property
    def sampled(self) -> float:
        """Share of the text that training read."""
        return self.bytes_read / self.bytes_in_all

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files, as `Tokenizer.save`."""
        self.tokenizer.save(folder)


def train_tokenizer(
    sources: Sequence[str | Path],
    *,
    kind: Kind = "wordpiece",
    size: int = SIZE,
    lower: bool | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    text: str | None = None,
    split: Split = "file",
    encoding: str = "utf-8",
    max_length: int = 512,
    quiet: bool = False,
) -> Trained:
    """Train a tokenizer on a corpus; a folder that it is saved to loads in transformers too, with the same ids.

    Text with too few words for the size gives a smaller vocabulary, and a warning that says how small.

    Args:
        sources: files, folders and data sets of the hub; `text`, `split` and `encoding` are as in `corpus.documents`.
        kind: "wordpiece" (Schuster and Nakajima 2012) as in BERT, saved as a BertTokenizer; "bpe" (Sennrich et al. 2016)
            over bytes as in RoBERTa, saved as a RobertaTokenizer, to which no text is unknown; or "unigram" (Kudo 2018) as
            in ALBERT and DeBERTa-v3, saved as a PreTrainedTokenizerFast.
        size: tokens of the vocabulary, special tokens included.
        lower: read everything in lower case, and with wordpiece without accents. None: wordpiece does, the others do not.
            (transformers' RobertaTokenizer cannot: a bpe tokenizer in lower case is saved as a PreTrainedTokenizerFast.)
        sample: megabytes (10^6 bytes of UTF-8) of text that training reads at most; `seed` says which pieces of it.
        max_length: tokens that the model will read at once, special tokens included.
        quiet: do not say on stderr how much will be read, how much memory that needs, and how far it is.

    Raises:
        InputError: as `corpus.documents`; also a setting out of its range, or a size with no room for the characters.
    """
    _check(kind, size, sample, max_length)
    lower = kind == "wordpiece" if lower is None else lower
    backend, counts = _frame(kind, lower), Counts()

    def pieces(counts: Counts | None = None) -> Iterator[str]:
        for document in documents(sources, text=text, split=split, encoding=encoding, counts=counts):
            for piece in cut(document.text):
                # composed here, so that single characters can be counted
                yield unicodedata.normalize("NFKC", piece) if kind == "unigram" else piece

    if not quiet:
        print("Counting the text; it is read twice.", file=sys.stderr)
    plan = Sample.plan(pieces(counts), sample * MB, seed)
    alphabet, rare = _alphabet(plan.characters, backend) if kind != "bpe" else ([], [])
    if kind != "bpe" and not alphabet:
        raise InputError("The text has no character that is left after clean-up; is the encoding right?")
    first = _first(kind, alphabet, backend)
    if size <= len(first):
        raise InputError(
            f"size={size} is too small: the special tokens and the {len(first) - len(SPECIAL[kind])} pieces for single "
            f"characters or bytes take {len(first)}; give {2 * len(first)} or more."
        )
    if not quiet:
        whole = f"of {plan.total / MB:,.1f} MB"
        share = f"all {whole}" if plan.end == plan.held_from else f"{whole} because of sample={sample}"
        rest, factor, power = MEMORY[kind]
        memory = rest + factor * (plan.taken / MB) ** power
        print(
            f"Training a {kind} vocabulary of {size:,} tokens on {plan.taken / MB:,.1f} MB of text, {share} "
            f"({counts.documents:,} documents). Beside what reading takes, it needs at most {memory:,.0f} MB of memory if "
            "words repeat as in books.",
            file=sys.stderr,
        )
    texts = _Texts(plan, pieces(), rare, quiet)
    backend.model = _learn(kind, lower, texts, size, first)
    tokenizer = _finish(backend, kind, lower, max_length)
    if tokenizer.vocab_size < size:
        log.warning(
            "The text is too small for size=%s: the vocabulary has %s tokens.", f"{size:,}", f"{tokenizer.vocab_size:,}"
        )
    report = _report(backend, tokenizer.unk_id, texts.held, plan.held > 0)
    return Trained(tokenizer, counts, plan.total, plan.taken, report)


def _check(kind: str, size: int, sample: int, max_length: int) -> None:
    if kind not in get_args(Kind):
        raise InputError(f"kind={kind!r} is not a kind of tokenizer; {nearest(str(kind), get_args(Kind))}")
    for name, given, least in (("size", size, 1), ("sample", sample, 1), ("max_length", max_length, 5)):
        if not isinstance(given, int) or given < least:
            raise InputError(f"{name}={given!r} must be a whole number, {least} or more.")
    if sample > MOST:
        raise InputError(f"sample={sample} is more than the {MOST:,} megabytes that training can count.")


def _alphabet(characters: Counter[str], backend: Backend) -> tuple[list[str], list[str]]:
    """The characters, as the clean-up leaves them, that get a piece of their own; and those that are read as spaces."""
    forms = {one: "".join(backend.normalizer.normalize_str(one).split()) for one in characters}
    counted = Counter[str]()
    for one, form in forms.items():
        for char in form:
            counted[char] += characters[one]
    kept, missing = set[str](), counted.total()
    enough = missing * (1 - COVERAGE)
    for char in sorted(counted, key=lambda char: (-counted[char], char)):
        if missing <= enough:
            break
        kept.add(char)
        missing -= counted[char]
    return sorted(kept), sorted(one for one, form in forms.items() if not kept.issuperset(form))


class _Texts:
    """The text for training, once. held: pieces to report on, of what is held out, or else of what was given out first."""

    def __init__(self, sample: Sample, pieces: Iterator[str], rare: Sequence[str], quiet: bool) -> None:
        self.sample, self.pieces, self.quiet = sample, pieces, quiet
        self.rare = re.compile(f"[{re.escape(''.join(rare))}]") if rare else None
        self.held: list[str] = []

    def __iter__(self) -> Iterator[str]:
        read, began = 0, time.monotonic()
        said = began
        for piece, held in self.sample.read(self.pieces):
            if held or (not self.sample.held and read < HELD):
                self.held.append(piece)
            if held:
                continue
            read += len(piece.encode())
            yield piece if self.rare is None else self.rare.sub(" ", piece)
            now = time.monotonic()
            if not self.quiet and now - said > SAY:
                said, rate = now, read / MB / (now - began)
                print(f"read {read / MB:,.0f} of {self.sample.taken / MB:,.0f} MB  {rate:.1f} MB/s", file=sys.stderr)


def _frame(kind: Kind, lower: bool) -> Backend:
    """A tokenizer without a vocabulary: how text is cleaned up, divided into words, and put together again."""
    if kind == "wordpiece":
        backend = Backend(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = clean_up({"do_lower_case": lower})
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        return backend
    lowercase = [normalizers.Lowercase()] if lower else []
    if kind == "bpe":
        backend = Backend(models.BPE())
        if lower:
            backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        return backend
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), *lowercase])
    spaces = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    return backend


def _first(kind: Kind, alphabet: Sequence[str], backend: Backend) -> list[str]:
    """The tokens that a vocabulary begins with: the special ones, and one for each character or byte.

    WordPiece has a second one for each character that can stand inside a word.
    """
    if kind == "bpe":
        return [*SPECIAL[kind], *sorted(pre_tokenizers.ByteLevel.alphabet())]
    if kind == "unigram":
        return [*SPECIAL[kind], *sorted({SPACE, *alphabet})]
    words = [(char, backend.normalizer.normalize_str(f"a{char}a")) for char in alphabet]
    inside = [f"##{char}" for char, word in words if len(backend.pre_tokenizer.pre_tokenize_str(word)) == 1]
    return [*SPECIAL[kind], *alphabet, *inside]


def _learn(kind: Kind, lower: bool, texts: Iterable[str], size: int, first: list[str]) -> models.Model:
    """Choose the pieces, the same ones in every process.

    The library's trainers decide by id between equal counts, and give ids to the "##" forms of characters in the order of a
    hash table, which is another one each time. So all single characters have their ids before, as special tokens, and none
    is added (limit_alphabet=0). Its unigram trainer cannot be told such a thing: that one only counts words for ours.
    """
    backend = _frame(kind, lower)
    if kind == "unigram":
        # as in SentencePiece, no piece has letters and something else in it
        runs = pre_tokenizers.Split(Regex(RUNS), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, runs])
        backend.model = models.WordLevel()
        counter = trainers.WordLevelTrainer(vocab_size=1, show_progress=False)
        backend.train_from_iterator(texts, counter)
        words = json.loads(counter.__getstate__())["WordLevelTrainer"]["words"]
        special = [(token, 0.0) for token in SPECIAL[kind]]
        return models.Unigram(special + learn_pieces(words, size - len(special)), unk_id=1)
    trainer = trainers.WordPieceTrainer if kind == "wordpiece" else trainers.BpeTrainer
    settings = trainer(
        vocab_size=size, min_frequency=MIN_COUNT, special_tokens=first, limit_alphabet=0, show_progress=False
    )
    backend.train_from_iterator(texts, settings)
    return backend.model


def _finish(backend: Backend, kind: Kind, lower: bool, max_length: int) -> Tokenizer:
    """Add the special tokens, and put them around a text and around a pair."""
    names = SPECIAL[kind]
    # a mask stands for the space before it as well, where spaces are parts of tokens
    added = [AddedToken(name, lstrip=name == "<mask>", normalized=False, special=True) for name in names]
    backend.add_special_tokens(added)
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if kind == "bpe":
        backend.post_processor = processors.RobertaProcessing(
            ("</s>", names.index("</s>")), ("<s>", names.index("<s>")), trim_offsets=True, add_prefix_space=False
        )
        if not lower:
            settings = {"tokenizer_class": "RobertaTokenizer"}
    else:
        backend.post_processor = processors.TemplateProcessing(
            "[CLS]:0 $A:0 [SEP]:0",
            "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            [(name, names.index(name)) for name in ("[CLS]", "[SEP]")],
        )
    if kind == "wordpiece":
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    return Tokenizer(backend, settings, max_length)


def _report(backend: Backend, unk_id: int | None, held: Sequence[str], held_out: bool) -> Report:
    found = backend.encode_batch_fast(list(held), add_special_tokens=False)
    ids = np.concatenate([np.array(one.ids, np.int64) for one in found])
    return Report(held_out, sum(len(text.split()) for text in held), len(ids), int((ids == unk_id).sum()))
