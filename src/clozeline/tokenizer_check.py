"""Does a tokenizer split text as its vocabulary was made to? What published vocabularies make of a fixed text, on record.

A vocabulary says nothing of letter case, accents or spaces: those rules stand in other files, get lost, and cost accuracy in
silence.
"""

from __future__ import annotations

import zlib

from clozeline.tokenizer import Tokenizer

SAMPLE = (
    "The Quick Brown Fox doesn't jump over 12,345 lazy dogs; it walks around them!",
    "Caf\u00e9 na\u00efve stra\u00dfe \u00c5ngstr\u00f6m, f\u00fcr 3,50 \u20ac \u2014 \u201cquoted\u201d\u2026",
    "\u6211\u7231\u5317\u4eac\u5929\u5b89\u95e8 mixed \u4e2d\u6587",
    "  two  spaces\tand a tab\n",
    "HTTP://example.org/a_b?c=d&e=f#g",
)
SMALL = 5000
"""Ids below which a vocabulary is not meant for plain English."""
ROOM = 64
"""Tokens that each text of the sample has at most."""
# checksum of a vocabulary: what it is called, and the checksum of the ids that it gives for the sample
PUBLISHED = {
    0x64276BA4: ("bert-base-uncased", 0xAF6B179E),
    0x1A556ACC: ("bert-base-cased", 0xF29DA37E),
    0xF236A9F9: ("bert-base-multilingual-cased", 0xED524197),
    0x541F6B61: ("bert-base-chinese", 0x3880A608),
    0x75096892: ("roberta-base", 0x8D4DEC1F),
    0x2290156C: ("gpt2", 0x2E27FB65),
    0x3F1F0641: ("deberta-v3-base", 0x2E4945B9),
    0xBC889E49: ("xlnet-base-cased", 0xB1B71CD4),
    0x2FB99D19: ("t5-small", 0x2FCE77E4),
}


def vocabulary_mark(tokenizer: Tokenizer) -> int:
    """A checksum of the tokens and their ids, those added later not counted."""
    return zlib.crc32("\n".join(tokenizer.vocabulary()).encode("utf-8", "surrogatepass"))


def sample_mark(tokenizer: Tokenizer) -> int:
    """A checksum of the ids of the sample."""
    return zlib.crc32(b"".join(one.sequences[0].ids.tobytes() for one in tokenizer.encode(SAMPLE)))


def check(tokenizer: Tokenizer) -> tuple[str, list[str]]:
    """What is known of the tokenizer, and what is wrong with it."""
    unknown = sum(int((one.sequences[0].ids == tokenizer.unk_id).sum()) for one in tokenizer.encode(SAMPLE[:1]))
    small = tokenizer.vocab_size < SMALL
    wrong = [f"{unknown} tokens of a plain English sentence are unknown."] if unknown and not small else []
    if tokenizer.max_length is not None and tokenizer.max_length < ROOM:
        return f"reads {tokenizer.max_length} tokens, too few for its rules to be checked", wrong
    if (known := PUBLISHED.get(vocabulary_mark(tokenizer))) is None:
        return "a vocabulary not on record here, so its rules cannot be checked", wrong
    name, mark = known
    if mark == sample_mark(tokenizer):
        return f"splits text as {name} was made to", wrong
    return f"the vocabulary of {name}", [
        *wrong,
        f"The tokenizer has the vocabulary of {name} but splits text by other rules: compare do_lower_case, strip_accents, "
        "add_prefix_space and tokenizer_class in tokenizer_config.json with the original's.",
    ]
