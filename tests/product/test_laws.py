"""The laws of the code base: imports point one way, peers are no dependencies, and nothing loads code or changes globals."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import clozeline

ROOT = Path(clozeline.__file__).parent
SOURCES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
LONGEST = 400  # lines

# A module imports what stands in lines above it, or in its own package. A package is named by its folder.
ORDER = (
    "errors",
    "config batch files precision sentencepiece_file",
    "tokenizer_classes",
    "tokenizer_files",
    "model tokenizer",
    "families data",
    "evaluate tokenizer_trim unigram_training",
    "tokenizer_training",
    "checkpoint tasks",
    "bundle predict",
    "student",
    "train streams",
    "card",
    "face recipe",
    "harden_recipe pretraining_recipe",
    "inspect paired pretrainer quickstart shrinking tokenizer_check",
    "behaviour",
    "distiller doctor hardening",
    "flags",
    "cli_compare cli_harden cli_inspect cli_pretraining",
    "cli_training",
    "cli",
    "__main__",
)
RANK = {name: rank for rank, line in enumerate(ORDER) for name in line.split()}


def tree(name: str) -> ast.Module:
    return ast.parse(SOURCES[name].read_text(encoding="utf-8"))


def imported(source: ast.Module) -> Iterator[str]:
    """Every module that the code names in an import, wherever it stands, `clozeline.` included."""
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "clozeline":
                yield from (f"clozeline.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def home(module: str) -> str:
    """The line's entry that a module of this package belongs to; the package itself stands for the face it offers."""
    return [*module.split("."), "face"][1]


def upward(name: str, source: ast.Module) -> list[str]:
    """Imports that do not point down."""
    own = home(f"clozeline.{name}")
    theirs = {home(module) for module in imported(source) if module.partition(".")[0] == "clozeline"}
    return sorted(other for other in theirs if other != own and RANK[other] >= RANK[own])


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "__init__"])
def test_imports_point_one_way(name: str) -> None:
    assert name.split(".")[0] in RANK, "a new module needs its place in ORDER"
    assert upward(name, tree(name)) == []


def test_every_place_in_the_order_is_taken() -> None:
    assert set(RANK) == {name.split(".")[0] for name in SOURCES} - {"__init__"}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("model.layers", "from clozeline.families.bert import BERT"),
        ("tokenizer", "def f():\n    from clozeline import bundle"),
        ("train.loop", "import clozeline as cl"),
        ("config", "import clozeline.batch"),
    ],
)
def test_the_check_above_finds_an_upward_import(name: str, code: str) -> None:
    assert upward(name, ast.parse(code)) != []


@pytest.mark.parametrize("name", SOURCES)
def test_peers_are_never_imported(name: str) -> None:
    roots = {module.partition(".")[0] for module in imported(tree(name))}
    assert not roots & {"transformers", "sentence_transformers", "accelerate", "setfit"}


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_unpickled_and_no_global_state_is_set(name: str) -> None:
    assert not set(imported(tree(name))) & {"pickle", "dill", "marshal", "shelve"}
    forbidden = {"autocast", "set_default_dtype", "set_default_device", "set_grad_enabled", "set_num_threads"}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in forbidden, f"line {node.lineno}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("weights_only") == "True", f"line {node.lineno}"


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_says_what_it_is_and_fits_on_a_few_screens(name: str) -> None:
    assert ast.get_docstring(tree(name))
    assert len(SOURCES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize(
    "path", [path for name, path in SOURCES.items() if name.startswith("families.")], ids=lambda path: path.stem
)
def test_a_family_is_a_short_file(path: Path) -> None:
    if path.stem not in ("family", "heads"):  # what the family files are written with
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 110
