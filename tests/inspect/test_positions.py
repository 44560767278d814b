"""What each scheme of positions says of itself: tables trained, copied or forgotten, and curves that the model applies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.batch import Layout
from clozeline.bundle import Bundle
from clozeline.config import EncoderConfig
from clozeline.face import Model
from clozeline.families import FAMILIES
from clozeline.families.shapes import shaped
from clozeline.inspect.panels import Heatmap
from clozeline.inspect.positions import SHOWN, positions, regions_of, sinusoids
from clozeline.model import positions as schemes
from clozeline.tokenizer import Tokenizer
from conformance import VARIANTS, model_type, sizes


def model_of(tiny: Path, variant: str, config: EncoderConfig | None = None) -> Model:
    """A fresh model of a family; its tokenizer does not matter here."""
    family = FAMILIES[model_type(variant)]
    network = family.build(config or family.read(sizes(variant)))
    return Model(Bundle(variant, family, network, Tokenizer.load(tiny), None, []), "fp32", torch.device("cpu"), 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_family_has_a_view(tiny: Path, tmp_path: Path, variant: str) -> None:
    view = positions(model_of(tiny, variant))
    json.dumps(view.as_dict(), allow_nan=False)
    assert "40 tokens" in str(view) or "number 41 cannot be read" in str(view)
    assert len(view.panels()) >= 2
    view.save(tmp_path / "view.html")
    if variant in ("bert", "mpnet", "deberta-v2", "modernbert"):
        view.save(tmp_path / "view.png")


def test_the_end_of_the_table_is_said_and_an_offset_is_no_position(tiny: Path) -> None:
    assert "Position 39 is the last: a token number 41 cannot be read." in positions(model_of(tiny, "bert")).said
    model = model_of(tiny, "roberta")
    scheme = model.network.encoder.positions
    assert isinstance(scheme, schemes.Learned)
    view = positions(model)
    assert view.said[0].startswith("Position 39 is the last (row 41 of the table; its first 2 rows are no positions)")
    first = view.panels()[0]
    assert isinstance(first, Heatmap)
    assert np.allclose(first.values, scheme.table.weight[2:].detach(), atol=1e-3)


def test_sinusoids_are_those_of_the_paper() -> None:
    table = sinusoids(50, 7)
    assert table.shape == (50, 7)
    for place, value in ((3, 0), (11, 1), (49, 5)):
        wave = place / 10_000 ** (value // 2 * 2 / 7)
        assert table[place, value] == pytest.approx(math.cos(wave) if value % 2 else math.sin(wave))


def smooth(count: int, width: int) -> np.ndarray:
    """Rows whose neighbours are alike, as training makes them."""
    steps = np.random.default_rng(0).normal(size=(count, width))
    return np.apply_along_axis(lambda column: np.convolve(column, np.ones(9), "same"), 0, steps)


def test_rows_that_were_never_trained_are_told_from_trained_ones() -> None:
    table = np.concatenate([smooth(128, 64), np.random.default_rng(1).normal(0, 0.02, (130, 64))])
    found = regions_of(table)
    assert [(region.first, region.last) for region in found] == [(0, 63), (64, 127), (128, 191), (192, 257)]
    assert [region.state for region in found] == ["trained", "trained", "random", "random"]
    assert found[2].norm == pytest.approx(0.02 * 8, rel=0.05)
    assert found[0].neighbour > 0.7


def test_a_fresh_table_looks_random_whatever_the_seed() -> None:
    for seed in range(20):
        table = np.random.default_rng(seed).normal(0, 0.02, (512, 128))
        assert {region.state for region in regions_of(table)} == {"random"}


def test_rows_that_were_copied_and_hardly_trained_are_named(tiny: Path) -> None:
    model = model_of(tiny, "bert", FAMILIES["bert"].read(sizes("bert")).replace(max_length=256))
    scheme = model.network.encoder.positions
    assert isinstance(scheme, schemes.Learned)
    rows = torch.from_numpy(smooth(256, 32)).float()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        scheme.table.weight.copy_(scheme.repeated(rows, 128) + 0.1 * torch.randn(256, 32, generator=random))
    view = positions(model)
    assert [region.state for region in view.regions] == ["trained", "trained", "copies", "copies"]
    assert {region.lag for region in view.regions[2:]} == {127}
    assert any(line.startswith("Positions 128 to 255 are alike those 127 before") for line in view.said)


def test_a_fresh_model_is_said_to_be_untrained_and_pages_of_long_ones_stay_small(tiny: Path) -> None:
    family, config = shaped("bert-tiny-uncased", vocab_size=61)
    network = family.build(config.replace(max_length=1100), seed=0)
    bundle = Bundle("fresh", family, network, Tokenizer.load(tiny), None, [])
    view = positions(Model(bundle, "fp32", torch.device("cpu"), 0))
    assert any(line.startswith("Positions 0 to 1099 look never trained") for line in view.said)
    for panel in view.panels():
        assert not isinstance(panel, Heatmap) or len(panel.values) <= SHOWN
    assert len(view.pages()["view.html"]) < 2_000_000


def test_the_rotary_curve_is_what_the_model_applies(tiny: Path) -> None:
    model = model_of(tiny, "modernbert")
    scheme = model.network.encoder.positions
    assert isinstance(scheme, schemes.Rotary)
    view, layout = positions(model), Layout.of([40])
    ones = torch.ones(40, 1, 2 * scheme.pairs)
    for seen, local in (("all tokens", False), ("a window", True)):
        turned, _ = scheme.turn(ones, ones, layout, local=local)
        scores = (turned[0, 0] * turned[:, 0]).sum(-1) / (2 * scheme.pairs)
        for apart, value in view.numbers[seen]["by_distance"].items():
            assert scores[int(apart)].item() == pytest.approx(value, abs=1e-5)
    assert (view.numbers["all tokens"]["layers"], view.numbers["a window"]["layers"]) == (2, 3)


def test_the_buckets_are_what_the_model_adds(tiny: Path) -> None:
    model = model_of(tiny, "mpnet")
    scheme = model.network.encoder.positions
    assert isinstance(scheme, schemes.Bucketed)
    q = torch.zeros(1, 4, 40, 8)
    bias = scheme.bias(lambda rows: (rows, rows), Layout.of([40]))(q, q)[0]  # (heads, 40, 40)
    view = positions(model)
    assert "from 91 tokens on all distances share one" in str(view)  # of T5's 32 buckets
    panel = next(panel for panel in view.panels() if panel.title == "Bias by distance and head")
    assert isinstance(panel, Heatmap)
    assert panel.columns is not None
    for apart in (-39, -7, 1, 25):
        column = panel.values[:, [*panel.columns].index(str(apart))]
        at = (max(0, -apart), max(0, apart))
        assert np.allclose(column, bias[:, at[0], at[1]].detach(), atol=1e-3)


def test_a_real_table_is_trained_to_its_end(minilm: Path) -> None:
    view = positions(cl.load(minilm))
    assert view.said[0] == "Position 511 is the last: a token number 513 cannot be read."
    assert view.said[-1] == "All positions look trained."
    assert 0.8 < view.numbers["cosine_by_distance"]["1"] < 0.9


def test_arrays_are_of_all_positions(tiny: Path, tmp_path: Path) -> None:
    model = cl.load(tiny)
    positions(model).save(tmp_path / "positions.npz")
    with np.load(tmp_path / "positions.npz") as found:
        table, cosines = found["table"], found["cosines of table"]
        assert found["sinusoids"].shape == table.shape == (model.config.max_length, model.config.width)
    np.testing.assert_array_equal(
        table, model.network.get_parameter("encoder.embedding.positions.table.weight").detach().numpy()
    )
    one, other = table[1].astype(float), table[3].astype(float)
    assert cosines[1, 3] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-6)
