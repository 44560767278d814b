"""Token ids of hostile texts, frozen for every tokenizer among the data sets.

`python tests/golden/test_tokenizers.py` writes them: for each text its number of tokens, a checksum of their ids and the
first of them. This package wrote them, where tests/parity had found its ids equal to transformers'.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from clozeline.tokenizer import Tokenizer  # noqa: E402
from hostile import HOSTILE  # noqa: E402

FILE = HERE / "tokenizers.json"
NAMES = (
    "bert-base-uncased",
    "bert-base-cased",
    "bert-base-multilingual-cased",
    "bert-base-chinese",
    "roberta-base",
    "gpt2",
    "deberta-v3",
    "xlnet-base-cased",
    "t5-small",
)
FIRST = 12  # ids to read


def frozen(folder: Path) -> list[list[int | list[int]]]:
    """What the golden file keeps of each hostile text."""
    ids = [one.sequences[0].ids for one in Tokenizer.load(folder).encode(HOSTILE)]
    return [[len(row), zlib.crc32(row.astype(np.int32).tobytes()), row[:FIRST].tolist()] for row in ids]


@pytest.mark.parametrize("name", NAMES)
def test_token_ids_are_those_on_record(name: str, data: Path) -> None:
    assert frozen(data / "tokenizers" / name) == json.loads(FILE.read_text(encoding="utf-8"))[name]


@pytest.mark.parametrize("name", NAMES)
def test_offsets_slice_back_to_the_text(name: str, data: Path) -> None:
    """In order, within the text, and together over every letter."""
    tokenizer = Tokenizer.load(data / "tokenizers" / name)
    for text, encoded in zip(HOSTILE, tokenizer.encode(HOSTILE, offsets=True), strict=True):
        sequence = encoded.sequences[0]
        assert sequence.offsets is not None
        spans = sequence.offsets[sequence.source == 0].tolist()
        assert all(0 <= start <= end <= len(text) for start, end in spans)
        assert all(first[0] <= second[0] for first, second in itertools.pairwise(spans))
        seen = np.zeros(len(text), dtype=bool)
        for start, end in spans:
            seen[start:end] = True
        if unicodedata.is_normalized("NFKC", text):  # of letters that become one, the token covers the first
            assert not [letter for letter, there in zip(text, seen, strict=True) if letter.isalnum() and not there]


if __name__ == "__main__":
    folder = Path(os.environ["CLOZELINE_DATA"]) / "tokenizers"
    rows = [f"{json.dumps(name)}: {json.dumps(frozen(folder / name))}" for name in NAMES]
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
