"""A smaller model without training: fewer layers or heads, and a vocabulary of what a corpus uses.

cl.shrink("bert-base-uncased", "bert-6", layers=6)
cl.shrink("xlm-roberta-base", "xlm-roberta-reviews", vocabulary="reviews.csv")
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from clozeline import bundle as bundles
from clozeline.bundle import Bundle
from clozeline.card import LICENCE, model_card
from clozeline.config import Bucketed, Learned
from clozeline.data.corpus import Counts, Document, Split, documents
from clozeline.errors import InputError
from clozeline.model.heads import MaskedLMHead
from clozeline.model.layer_map import spread
from clozeline.student import keep_layers, take_heads
from clozeline.tokenizer import Tokenizer
from clozeline.tokenizer_trim import trim

log = logging.getLogger("clozeline")

PART = 2**16
"""Characters of a document that are tokenised as one text at most."""
BATCH = 2**20
"""Characters that are tokenised at once; the library takes about 500 bytes a token."""
# Where a text can be cut so that its parts are tokenised as in the whole: the space belongs to the word behind it.
SEAMS = (re.compile(r"(?<=\S) (?=\S)"), re.compile(r"(?<=\S)\n(?=\S)"))


@dataclasses.dataclass(frozen=True, slots=True)
class Shrunk:
    """What became of a model; pairs are before and after.

    layers: those kept, of `layers_before`; heads: in all layers. tokens_per_word: of the first million characters of the
    corpus, special tokens not counted; None where the vocabulary stayed as it was.
    """

    out: Path
    layers: tuple[int, ...]
    layers_before: int
    heads: tuple[int, int]
    vocabulary: tuple[int, int]
    parameters: tuple[int, int]
    tokens_per_word: tuple[float, float] | None

    def __str__(self) -> str:
        return "\n".join([*self.lines(), f"saved in {self.out}; how accurate it is was not measured"])

    def lines(self) -> list[str]:
        """What was kept, a line for each kind."""
        numbers = ", ".join(map(str, self.layers))
        lines = [f"layers: {self.layers_before} -> {len(self.layers)} ({numbers})"]
        lines += ["heads: {} -> {}".format(*self.heads)] * (self.heads[0] != self.heads[1])
        lines += ["vocabulary: {:,} -> {:,}".format(*self.vocabulary)]
        lines += ["parameters: {:,} -> {:,}".format(*self.parameters)]
        if self.tokens_per_word is not None:
            lines += ["tokens a word of the corpus: {:.3f} -> {:.3f}".format(*self.tokens_per_word)]
        return lines


def keep_vocabulary(bundle: Bundle, ids: Collection[int]) -> Bundle:
    """A model with the tokens of these ids and those that must stay, see `trim`; the given one stays as it is.

    Tokens get new ids, in the order of the old ones. The model gives for a text what it gave, where the text is read as the
    same pieces; a masked-LM head has scores for the kept tokens only.

    Raises:
        InputError: no token has one of these ids, or the vocabulary is of words only.
    """
    config, network, scheme = bundle.config, bundle.network, bundle.config.positions
    # positions are counted from behind the padding token's id (RoBERTa), which must not move
    stay = {*ids, *range(scheme.offset if isinstance(scheme, Learned | Bucketed) else 0)}
    if config.pad_id is not None and 0 <= config.pad_id < bundle.tokenizer.vocab_size:
        stay.add(config.pad_id)
    tokenizer, before = trim(bundle.tokenizer, stay)
    new: dict[int | None, int] = {old: at for at, old in enumerate(before)}

    parts = [network.encoder.embedding.tokens.weight]
    parts += [part.bias for part in network.modules() if isinstance(part, MaskedLMHead)]
    network = copy.deepcopy(
        network, {id(part): nn.Parameter(part.detach()[before], part.requires_grad) for part in parts}
    )
    network.encoder.embedding.tokens.num_embeddings = len(before)
    network.config = network.encoder.config = config.replace(vocab_size=len(before), pad_id=new.get(config.pad_id))
    kept = {key: new.get(value) if key.endswith("_token_id") else value for key, value in bundle.kept.items()}
    return dataclasses.replace(bundle, network=network, tokenizer=tokenizer, kept=kept)


def used_ids(
    tokenizer: Tokenizer,
    corpus: Sequence[str | Path],
    *,
    text: str | None = None,
    split: Split = "file",
    encoding: str = "utf-8",
    least: int = 1,
) -> np.ndarray:
    """The ids, (n,) int64 and rising, that a corpus uses at least `least` times; special tokens around texts not counted.

    All of the corpus is read, and memory does not grow with it. A special token that is spelled out in a text counts as
    what it is written with. `corpus`, `text`, `split` and `encoding` are those of `corpus.documents`.

    Raises:
        InputError: as `corpus.documents`; or `least` is below 1.
    """
    if least < 1:
        raise InputError(f"least={least} must be 1 or more: how often a token is used that stays.")
    found, counts = np.zeros(tokenizer.vocab_size, np.int64), Counts()
    for texts in _batches(documents(corpus, text=text, split=split, encoding=encoding, counts=counts)):
        found += np.bincount(np.concatenate(tokenizer.plain(texts)), minlength=len(found))
    if counts.ignored:
        log.warning("%d files of the corpus were left out because of their ending.", counts.ignored)
    return np.flatnonzero(found >= least)


def shrink(
    model: str | Path,
    out: str | Path,
    *,
    layers: int | Sequence[int] | None = None,
    heads: Mapping[int, Sequence[int]] | None = None,
    vocabulary: str | Path | Sequence[str | Path] | None = None,
    least: int = 1,
    text: str | None = None,
    encoding: str = "utf-8",
) -> Shrunk:
    """Write a smaller copy of a model, with the head that it has, to a new folder that `load` and transformers read.

    Args:
        layers: how many to keep, spread evenly (see `spread`), or which, counted from 0.
        heads: to take out, by layer of the given model, such as {0: [3, 5]}; see `student.take_heads`.
        vocabulary: a corpus; tokens that it uses stay, and those that other text cannot do without (see `trim`).
        least: how often the corpus must use a token for it to stay. With 1 the corpus is read as the same pieces as before,
            and if all layers stay too, every result for it is the same.
        text, encoding: how the corpus is read, see `corpus.documents`.

    Raises:
        InputError: as `load`, `keep_layers`, `take_heads`, `keep_vocabulary` and `used_ids`; nothing to cut; or `out` holds
            something.
    """
    out = Path(out)
    if layers is None and vocabulary is None and heads is None:
        raise InputError("There is nothing to cut: give layers, heads, vocabulary, or several of them.")
    if vocabulary is None and (least, text, encoding) != (1, None, "utf-8"):
        raise InputError("least, text and encoding say how a corpus is read; give it as vocabulary, or leave them out.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there already; give a folder that is new or empty.")
    large = small = bundles.load(model)
    if heads is not None:
        small = take_heads(small, heads)
    numbers = range(large.config.layers) if layers is None else layers
    if isinstance(numbers, int):
        numbers = spread(large.config.layers, numbers)
    if layers is not None:
        small = keep_layers(small, numbers)
    tokens_per_word = None
    if vocabulary is not None:
        corpus = (vocabulary,) if isinstance(vocabulary, str | Path) else tuple(vocabulary)
        small = keep_vocabulary(small, used_ids(large.tokenizer, corpus, text=text, encoding=encoding, least=least))
        sample = next(_batches(documents(corpus, text=text, encoding=encoding)))
        tokens_per_word = _tokens_per_word(large.tokenizer, sample), _tokens_per_word(small.tokenizer, sample)
    shrunk = Shrunk(
        out,
        tuple(numbers),
        large.config.layers,
        (_heads(large), _heads(small)),
        (large.config.vocab_size, small.config.vocab_size),
        (_parameters(large), _parameters(small)),
        tokens_per_word,
    )
    small.save(out, _card(small, shrunk, least))
    return shrunk


def _card(bundle: Bundle, shrunk: Shrunk, least: int) -> str:
    """The model card, with what was cut before the licence."""
    made = ["", "## How it was made", "", f"Cut from `{bundle.name}`, without any training:", ""]
    made += [f"- {line}" for line in shrunk.lines()]
    if shrunk.tokens_per_word is not None:
        made += ["", f"A token stays that the corpus uses {least} times or more, or that other text cannot do without."]
    made += ["", "How accurate it is was not measured.", ""]
    if len(shrunk.layers) < shrunk.layers_before:
        made.insert(-1, "A model without some of its layers is much worse until it is trained again.")
    licence = "\n".join(LICENCE)
    return model_card(bundle).removesuffix(licence) + "\n".join(made) + licence


def _batches(found: Iterable[Document]) -> Iterator[list[str]]:
    """The texts of documents in parts, some at a time: `BATCH` characters or a little more."""
    held: list[str] = []
    size = 0
    for document in found:
        for part in _parts(document.text):
            held.append(part)
            size += len(part)
            if size >= BATCH:
                yield held
                held, size = [], 0
    if held:
        yield held


def _parts(text: str) -> Iterator[str]:
    """A text in parts of `PART` characters at most, each tokenised as in the whole; one without a space is cut anywhere."""
    at = 0
    while len(text) - at > PART:
        seams = (seam.search(text, at + PART // 2, at + PART) for seam in SEAMS)
        end = next((seam.start() for seam in seams if seam is not None), at + PART)
        yield text[at:end]
        at = end
    yield text[at:]


def _tokens_per_word(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    return sum(map(len, tokenizer.plain(texts))) / max(1, sum(len(text.split()) for text in texts))


def _heads(bundle: Bundle) -> int:
    return sum(len(bundle.config.kept_heads(layer)) for layer in range(bundle.config.layers))


def _parameters(bundle: Bundle) -> int:
    return sum(part.numel() for part in bundle.network.parameters())
