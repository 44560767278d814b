"""What transformers gave for every family, frozen: the same as tests/parity asks, where transformers is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clozeline import checkpoint
from clozeline.families import FAMILIES
from conformance import CLASSES, VARIANTS, batch_of, gradients, mixed, model_type, ours, sketch, write_checkpoint

FILES = Path(__file__).parent / "families"
CLOSE = 1e-5
CASES = [(variant, kind) for variant in VARIANTS for kind in FAMILIES[model_type(variant)].heads]


@pytest.mark.parametrize(("variant", "kind"), CASES)
def test_states_results_and_gradients_are_those_on_record(variant: str, kind: str, tmp_path: Path) -> None:
    with np.load(FILES / f"{variant}.npz") as file:
        golden = {name.removeprefix(f"{kind}/"): file[name] for name in file.files if name.startswith(f"{kind}/")}
    about = json.loads(golden["about"].tobytes())
    write_checkpoint(tmp_path, about["config"], about["shapes"])
    loaded = checkpoint.load(tmp_path, kind, CLASSES)
    assert (loaded.fresh, loaded.unused) == ([], [])
    network = loaded.network.eval()
    outputs = ours(network, batch_of(variant))
    kept = outputs if kind == "base" else outputs[network.config.layers + 1 :]
    assert len(kept) + 2 == len(golden)
    for at, found in enumerate(kept):
        np.testing.assert_allclose(sketch(found.detach()), golden[str(at)], rtol=CLOSE, atol=CLOSE)
    mixed(outputs).backward()
    wanted = dict(zip(about["shapes"], golden["gradients"], strict=True))
    for names, grad in gradients(loaded.family, network, kind):
        expected = np.stack([wanted.pop(name) for name in names])
        mine = np.stack([sketch(part.flatten()) for part in torch.chunk(grad, len(names))])
        # beside the largest in q, k and v together: a bias of keys has no gradient but noise
        assert np.abs(mine - expected[:, :2]).max() < CLOSE * expected[:, 2].max(), names
    assert not wanted
