"""The losses of distillation are those of the papers, written out plainly here, in value and gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeline.batch import Layout, Packed
from clozeline.config import EncoderConfig
from clozeline.data.pretraining import Corrupted
from clozeline.errors import InputError
from clozeline.families.bert import BERT
from clozeline.model.heads import Network
from clozeline.model.matching import cosine_loss, relation_loss, soft_loss
from clozeline.tasks.distillation import DistilledWords, Match, Teacher

LENGTHS = [5, 9, 5, 3]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def gradients(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, of, retain_graph=True)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 7.5])
def test_soft_targets_are_hintons(temperature: float) -> None:
    mine, theirs = draw(6, 4).requires_grad_(), 3 * draw(6, 4, seed=1)
    plain = torch.zeros(())
    for row in range(6):
        q = [math.exp(x / temperature) for x in theirs[row].tolist()]
        q = [x / sum(q) for x in q]
        p = torch.exp(mine[row] / temperature) / torch.exp(mine[row] / temperature).sum()
        plain = plain + temperature**2 * sum(share * (math.log(share) - p[at].log()) for at, share in enumerate(q))
    found = soft_loss(mine, theirs, temperature)
    close(found, plain)
    close(gradients(found, mine), gradients(plain, mine))
    assert soft_loss(mine, mine.detach(), temperature).abs() < 1e-6


def test_answers_that_cannot_be_add_nothing() -> None:
    mine, theirs = draw(3, 4).requires_grad_(), draw(3, 4, seed=1)
    wide = [F.pad(x, (0, 2), value=-torch.inf) for x in (mine, theirs)]
    found = soft_loss(wide[0], wide[1], 2.0)
    close(found, soft_loss(mine, theirs, 2.0))
    assert gradients(found, mine)[0].isfinite().all()


def test_hidden_states_are_compared_by_cosine() -> None:
    mine, theirs = draw(7, 5).requires_grad_(), draw(7, 5, seed=1)
    plain = torch.stack([1 - a @ b / (a.norm() * b.norm()) for a, b in zip(mine, theirs, strict=True)]).sum()
    found = cosine_loss(mine, theirs)
    close(found, plain)
    close(gradients(found, mine), gradients(plain, mine))


def test_relations_are_minilms() -> None:
    """Wang et al. 2021, equations 3 and 4: scaled dot products of heads, KL over each row, for queries, keys and values."""
    heads, layout = 4, Layout.of(LENGTHS)
    mine, theirs = draw(layout.tokens, 3 * 8).requires_grad_(), draw(layout.tokens, 3 * 16, seed=1)
    plain = torch.zeros(())
    for a, b in zip(mine.split(LENGTHS), theirs.split(LENGTHS), strict=True):
        for one, other in zip(a.chunk(3, 1), b.chunk(3, 1), strict=True):
            for x, y in zip(one.chunk(heads, 1), other.chunk(heads, 1), strict=True):
                p = torch.softmax(x @ x.T / math.sqrt(x.shape[1]), -1)
                q = torch.softmax(y @ y.T / math.sqrt(y.shape[1]), -1)
                plain = plain + (q * (q.log() - p.log())).sum() / heads
    found = relation_loss(mine, theirs, layout, heads)
    close(found, plain)
    close(gradients(found, mine), gradients(plain, mine))


def network(layers: int, width: int = 32, seed: int = 0) -> Network:
    config = EncoderConfig(
        family="bert",
        vocab_size=50,
        width=width,
        layers=layers,
        heads=4,
        ffn_width=64,
        max_length=16,
        dropout=0.0,
        attention_dropout=0.0,
    )
    return BERT.build(config, "masked_lm", seed=seed)


def corrupted() -> Corrupted:
    layout, random = Layout.of(LENGTHS), torch.Generator().manual_seed(3)
    ids = torch.randint(50, (layout.tokens,), generator=random)
    chosen = torch.tensor([1, 4, 6, 10, 15, 20])
    return Corrupted(Packed(ids, layout), chosen, ids[chosen].flip(0), None)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("width", [32, 16])
def test_masked_words_are_learned_from_text_and_teacher(everywhere: bool, width: int) -> None:
    """Sanh et al. 2019: T^2 KL over the vocabulary, cross-entropy at the masks, cosine of the last states."""
    student, teacher, batch = network(2, width), network(4, seed=1), corrupted()
    match = Match.of(student, teacher, hidden="last")
    learner = DistilledWords(student, Teacher(teacher), match, temperature=2.0, everywhere=everywhere)
    found = learner(batch)

    rows = torch.arange(batch.packed.layout.tokens) if everywhere else batch.chosen
    states, theirs = student.encoder(batch.packed), teacher.encoder(batch.packed)
    assert student.head is not None and teacher.head is not None
    logits, taught = student.head(states, rows), teacher.head(theirs, rows).detach()
    plain = {
        "mlm": F.cross_entropy(student.head(states, batch.chosen), batch.targets, reduction="sum"),
        "soft": 4 * F.kl_div(F.log_softmax(logits / 2, -1), F.softmax(taught / 2, -1), reduction="sum"),
        "hidden": (1 - F.cosine_similarity(learner.learner.project(states), theirs.detach(), dim=-1)).sum(),
    }
    parameters = list(learner.parameters())
    for name, value in plain.items():
        close(found[name].loss, value)
        one = torch.autograd.grad(found[name].loss, parameters, retain_graph=True, allow_unused=True)
        other = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        for a, b, part in zip(one, other, parameters, strict=True):
            zero = torch.zeros_like(part)
            close(zero if a is None else a, zero if b is None else b)
    assert found["soft"].right == (logits.argmax(-1) == taught.argmax(-1)).sum()
    assert found["mlm"].right == (student.head(states, batch.chosen).argmax(-1) == batch.targets).sum()
    assert all(part.grad is None and not part.requires_grad for part in teacher.parameters())
    assert learner.kept() is student


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it() -> None:
    teacher = network(3)
    student = network(3)
    match = Match.of(student, teacher, hidden="layers", relation_heads=8)
    found = DistilledWords(student, Teacher(teacher), match, temperature=2.0, everywhere=True)(corrupted())
    for name in ("soft", "hidden", "relations"):
        assert found[name].loss.abs() < 1e-3
    assert found["soft"].right == sum(LENGTHS) and found["mlm"].loss > 1


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [(6, 12, (0, 2, 4, 7, 9, 11)), (3, 6, (0, 2, 5)), (2, 4, (0, 3)), (1, 4, (0,)), (4, 2, (0, 0, 1, 1))],
)
def test_layers_are_spread_evenly(student: int, teacher: int, layers: tuple[int, ...]) -> None:
    assert Match.of(network(student), network(teacher)).layers == layers


def test_what_does_not_fit_is_said() -> None:
    student, teacher = network(2), network(4)
    with pytest.raises(InputError, match=r"layer map is 0, 4; .* from 0 to 3, for each of the student's 2"):
        Match.of(student, teacher, (0, 4))
    with pytest.raises(InputError, match="layer map is 1;"):
        Match.of(student, teacher, (1,))
    with pytest.raises(InputError, match="relation_heads is 5"):
        Match.of(student, teacher, relation_heads=5)
