"""transformers reads a model with fewer layers and tokens: the same ids from its tokenizer, the same states and scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clozeline.batch import Packed
from clozeline.bundle import Bundle, load
from clozeline.families import FAMILIES
from clozeline.shrinking import shrink
from clozeline.tokenizer import Tokenizer
from conformance import ours, sizes, theirs

transformers = pytest.importorskip("transformers")

CLOSE = 1e-5
CASES: dict[
    str, tuple[str, int | list[int]]
] = {  # a vocabulary that the family is published with, or one of that kind; the layers that stay of six
    "bert": ("bert-base-uncased", 3),
    "albert": ("deberta-v3", 2),
    "roberta": ("roberta-base", [0, 5]),
    "deberta-v2": ("deberta-v3", [0, 2, 3]),
    "modernbert": ("roberta-base", [0, 2, 3, 5]),
}


@pytest.mark.parametrize("name", CASES)
def test_ids_states_and_scores_are_those_of_transformers(name: str, data: Path, tmp_path: Path) -> None:
    vocabulary, layers = CASES[name]
    tokenizer, family = Tokenizer.load(data / "tokenizers" / vocabulary, 40), FAMILIES[name]
    config = family.read({**sizes(name), "num_hidden_layers": 6})
    config = config.replace(vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id)
    network = family.build(config, "masked_lm")
    torch.nn.init.normal_(network.head.bias)  # type: ignore[union-attr, arg-type]
    Bundle(name, family, network, tokenizer, None, []).save(tmp_path / "large")

    lines = (data / "sst2" / "dev.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t")[0] for line in lines[1:31]]
    (tmp_path / "reviews.txt").write_text("\n".join(texts[:20]), encoding="utf-8")
    done = shrink(tmp_path / "large", tmp_path / "small", layers=layers, vocabulary=tmp_path / "reviews.txt")
    assert done.parameters[1] < done.parameters[0] / 2

    small = load(tmp_path / "small")
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert {what: list(names) for what, names in info.items() if names} == {}
    assert model.config.pad_token_id == small.tokenizer.pad_id == small.config.pad_id
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "small")
    assert len(their_tokenizer) == small.config.vocab_size == done.vocabulary[1]
    encoded = [one.sequences[0].ids.astype("int64") for one in small.tokenizer.encode(texts)]
    assert their_tokenizer(texts, truncation=True)["input_ids"] == [ids.tolist() for ids in encoded]

    batch = Packed.of(encoded)
    with torch.inference_mode():
        mine, other = ours(small.network, batch), theirs(model.eval(), "masked_lm", batch)
    assert len(mine) == len(done.layers) + 2
    for found, expected in zip(mine, other, strict=True):
        torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)
