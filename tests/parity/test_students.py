"""Students have the sizes that were published, and are read by transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clozeline.bundle import Bundle
from clozeline.config import EncoderConfig
from clozeline.families.bert import BERT
from clozeline.families.shapes import shaped
from clozeline.student import student_of
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
DISTILBERT = "distilbert-base-uncased"
TEACHER, STUDENT, BARE = 109_514_298, 66_985_530, 66_362_880
"""Parameters with their masked-LM heads (Sanh et al. 2019 round to 110 and 66 million), and of DistilBERT without."""


def test_distilbert_is_61_percent_of_bert() -> None:
    """Counted on the shapes themselves, without memory for them."""
    family, config = shaped(DISTILBERT)
    with torch.device("meta"):
        theirs = transformers.DistilBertModel(transformers.DistilBertConfig())
        heads = transformers.DistilBertForMaskedLM(transformers.DistilBertConfig())
        teacher = transformers.BertForMaskedLM(transformers.BertConfig())
    assert sum(part.numel() for part in theirs.parameters()) == BARE
    assert sum(part.numel() for part in heads.parameters()) == STUDENT
    assert sum(part.numel() for part in teacher.parameters()) == TEACHER
    assert round(100 * STUDENT / TEACHER) == 61
    bare = family.build(config, "base", encoder=False)
    assert sum(part.numel() for part in bare.parameters()) == BARE


@pytest.fixture(scope="module")
def teacher(tiny: Path) -> Bundle:
    """A BERT of 12 narrow layers."""
    words = Tokenizer.load(tiny, 64)
    config = EncoderConfig(
        family="bert", vocab_size=words.vocab_size, width=32, layers=12, heads=4, ffn_width=64, max_length=64
    )
    network = BERT.build(config, "masked_lm").eval()
    with torch.no_grad():
        assert network.encoder.embedding.segments is not None
        network.encoder.embedding.segments.weight.normal_()
    return Bundle("teacher", BERT, network, words, MaskedLM(), [])


def test_a_distilbert_begins_as_every_other_layer_of_its_teacher(teacher: Bundle, tmp_path: Path) -> None:
    sizes = dict(width=32, heads=4, ffn_width=64, max_length=64)
    made = student_of(teacher, shape=DISTILBERT, sizes=sizes)
    assert (made.layers, made.fresh, made.network.config.layers) == ((0, 2, 4, 7, 9, 11), [], 6)
    student = Bundle("student", made.family, made.network, teacher.tokenizer, MaskedLM(), [])
    student.save(tmp_path)
    peer = transformers.DistilBertForMaskedLM.from_pretrained(tmp_path).eval()
    original = teacher.network.state_dict()
    for at, layer in enumerate(made.layers):
        found = peer.distilbert.transformer.layer[at].attention.q_lin.weight
        torch.testing.assert_close(found, original[f"encoder.layers.{layer}.attention.qkv.weight"][:32], rtol=0, atol=0)

    # the embeddings are the teacher's for a single text, though the student has no segments
    ids = torch.tensor([[1, 5, 6, 7, 2]])
    from clozeline.batch import Layout, Packed

    batch = Packed(ids[0], Layout.of([5]))
    states = next(iter(teacher.network.encoder.states(batch)))
    torch.testing.assert_close(peer.distilbert.embeddings(ids)[0], states, rtol=1e-5, atol=1e-5)


def test_a_student_of_all_layers_is_its_teacher(teacher: Bundle) -> None:
    made = student_of(teacher)
    for (name, one), (_, other) in zip(
        made.network.named_parameters(), teacher.network.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
