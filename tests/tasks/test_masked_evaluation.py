"""The masked words of a text: a model that knows nothing scores as chance, and the masks are the same each time."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.bundle import Bundle
from clozeline.cli import main
from clozeline.errors import InputError
from clozeline.families.bert import BERT
from clozeline.model.heads import MaskedLMHead
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tokenizer import Tokenizer
from helpers import PLAIN, VOCABULARY


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked-LM model whose table and bias are zero, but for the bias of the word w1."""
    out = tmp_path_factory.mktemp("masked")
    tokenizer = Tokenizer.load(tiny)
    network = BERT.build(cl.load(tiny).config, "masked_lm")
    with torch.no_grad():
        network.encoder.embedding.tokens.weight.zero_()
        assert isinstance(network.head, MaskedLMHead)
        network.head.bias[VOCABULARY.index("w1")] = 2.0
    Bundle("masked", BERT, network, tokenizer, MaskedLM(), []).save(out)
    return out


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, draw = tmp_path_factory.mktemp("text") / "text.txt", random.Random(0)
    path.write_text(" ".join(draw.choice(["w1", *PLAIN[2:5]]) for _ in range(6000)))
    return path


def test_loss_and_accuracy_are_those_of_the_known_distribution(folder: Path, text: Path) -> None:
    report = cl.load(folder).evaluate(text)
    total = math.exp(2) + len(VOCABULARY) - 1
    share = report.accuracy.value  # the model says w1 always
    assert share == pytest.approx(0.25, abs=0.05) and report.accuracy.low < 0.25 < report.accuracy.high
    assert report.loss.value == pytest.approx(math.log(total) - 2 * share, abs=1e-4)
    assert report.masked == pytest.approx(0.15 * 6000, rel=0.02) and report.length == 64 and report.documents == 1
    again = cl.load(folder).evaluate(text)
    assert again.as_dict() == report.as_dict()
    assert np.isclose(report.as_dict()["perplexity"], math.exp(report.loss.value))


def test_it_is_a_command(folder: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(folder), str(text)]) == 0
    assert "masked tokens of" in capsys.readouterr().out
    assert main(["evaluate", str(folder), str(text), "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["accuracy"] < 1


def test_an_untrained_head_is_not_measured(tiny: Path, text: Path) -> None:
    with pytest.raises(InputError, match="no trained masked-LM head"):
        cl.load(tiny, MaskedLM()).evaluate(text)
