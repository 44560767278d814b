"""What is imported when: help answers before torch is loaded, and a prediction loads nothing that it does not use."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import clozeline

UNUSED = ("datasets", "matplotlib", "pandas", "pyarrow", "sklearn", "transformers")
SHOW = "; import sys; print('modules:', *sys.modules)"


def modules(code: str) -> set[str]:
    """The modules that a fresh process has loaded after this code."""
    done = subprocess.run([sys.executable, "-c", code + SHOW], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import clozeline",
        "from clozeline.cli import main; assert main(['--help']) == 0",
        "from clozeline.cli import main; assert main(['finetune', '--help']) == 0",
        "from clozeline.cli import main; assert main(['predict']) == 2",
    ],
)
def test_no_numerics_before_there_is_something_to_compute(code: str) -> None:
    assert not modules(code) & {"torch", "numpy", "tokenizers", *UNUSED}


@pytest.mark.parametrize("name", ["config", "data.readers", "errors", "files", "recipe", "tokenizer", "train.settings"])
def test_modules_without_torch(name: str) -> None:
    assert not modules(f"import clozeline.{name}") & {"torch", *UNUSED}


def test_a_prediction_loads_what_it_uses(trained: Path) -> None:
    loaded = modules(f"from clozeline.cli import main; assert main(['predict', {str(trained)!r}, 'good']) == 0")
    assert "torch" in loaded
    assert not loaded & {*UNUSED, "huggingface_hub", "sympy", "torch.distributed.fsdp"}


def test_no_function_of_the_package_shares_its_name_with_a_module() -> None:
    """The import of a module would put it in the function's place, so that the second call fails."""
    modules = {module.name for module in pkgutil.iter_modules(clozeline.__path__)}
    assert "inspect" in modules  # which is one
    assert not modules & {*clozeline.__all__} - {"inspect"}
