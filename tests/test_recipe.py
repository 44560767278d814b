"""Recipes: one set of keys for files, key=value changes and flags, and errors that name key, given and wanted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest

from clozeline import recipe
from clozeline.errors import InputError
from clozeline.recipe import Recipe
from clozeline.tasks.known import SUPERVISED
from clozeline.tokenizer import LongText
from clozeline.train.settings import Settings

LEAST = {"model": "m", "train": "t.csv"}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_are_those_of_settings() -> None:
    assert Recipe.of(LEAST) == Recipe(model="m", train="t.csv", settings=Settings())


def test_long_text_policies_are_the_tokenizers() -> None:
    assert set(get_args(recipe.Long)) == set(get_args(LongText))


def test_tasks_and_their_settings_are_keys() -> None:
    """All but what is learned from data, and names that the data gives."""
    assert list(get_args(recipe.TaskName)) == [*SUPERVISED]
    having = {part.name for task in SUPERVISED.values() for part in dataclasses.fields(task)}  # type: ignore[arg-type]
    assert {*recipe.TASK_KEYS} == having - {"temperature", "targets"}
    assert {*recipe.TASK_KEYS} <= {*recipe.KEYS}


def test_a_setting_of_0_is_given_to_the_task() -> None:
    values = recipe.assignments(["task=question-answering", "threshold=0", "max_length=64"])
    assert Recipe.of(LEAST | values).task_options() == {"threshold": 0.0, "max_length": 64}
    assert Recipe.of(LEAST).task_options() == {}


def test_every_setting_is_a_key() -> None:
    values = recipe.assignments(["epochs=7", "precision=fp32", "grouping=false", "patience=2"])
    assert Recipe.of(LEAST | values).settings == Settings(epochs=7, precision="fp32", grouping=False, patience=2)


def test_what_comes_later_wins(tmp_path: Path) -> None:
    path = write(tmp_path, 'model = "m"\ntrain = "t"\nepochs = 1\nbatch_size = 1\nseed = 1\n')
    found = recipe.resolve(str(path), ["batch_size=2", "seed=2"], {"seed": 3, "epochs": None})
    assert (found.settings.epochs, found.settings.batch_size, found.settings.seed) == (1, 2, 3)


def test_the_written_recipe_reads_back(tmp_path: Path) -> None:
    values = {
        "labels": ("a b", 'c"\\d'),
        "text": "tab\t é 😀 \x7f",
        "class_weights": {"a b": 2.0},
        "learning_rate": 1e-5,
    }
    before = Recipe.of(LEAST | values)
    assert Recipe.of(recipe.read(write(tmp_path, before.to_toml()))) == before


def test_the_example_runs_on_the_packaged_reviews() -> None:
    root = Path(__file__).parents[1]
    found = recipe.resolve(str(root / "recipes" / "reviews.toml"), [], {})
    assert found.labels == ("negative", "positive")
    assert found.validation is not None
    assert all((root / path).is_file() for path in (found.train, found.validation))


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "recipes").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_recipe_is_one(path: Path) -> None:
    found = recipe.resolve(str(path), ["train=mine.csv", "task=token-classification"], {})
    assert (found.train, found.task, found.settings.weight_decay <= 0.1) == ("mine.csv", "token-classification", True)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("label=0", ("0",)),  # the column called 0: what reads as a number is a text where the key wants one
        ("labels=bad, good", ("bad", "good")),
        ("labels=[0, 1]", ("0", "1")),
        ("learning_rate=1", 1.0),
        ("class_weights={good = 2}", {"good": 2.0}),
        ("class_weights=balanced", "balanced"),
        ("text=a=b", "a=b"),
    ],
)
def test_values_take_the_type_of_their_key(argument: str, value: Any) -> None:
    assert recipe.assignments([argument]) == {argument.partition("=")[0]: value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "recipe.toml: there is no key 'epoch' in a recipe: did you mean 'epochs'?"),
        ("epochs = 'three'", "recipe.toml: epochs is 'three', a text, but must be a whole number."),
        ("epochs = 2.5", "epochs is 2.5, a number, but must be a whole number."),
        ("epochs = true", "epochs is True, true or false, but must be a whole number."),
        ("long = 'cut'", "long is 'cut', a text, but must be 'truncate' or 'head_tail' or 'window' or 'error'."),
        ("class_weights = [1, 2]", "class_weights is [1, 2], a list, but must be 'balanced' or a table of numbers."),
        ("epochs = ", "is not a recipe in TOML"),
        ("epochs = 0", "epochs is 0; it must be at least 1."),
        ("model = 'm'", "Training needs training data"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    rest = [] if message.startswith("Training") else ["model=m", "train=t"]
    with pytest.raises(InputError) as error:
        recipe.resolve(str(path), rest, {})
    assert message in str(error.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml. cannot be read: No such file"):
        recipe.resolve(str(tmp_path / "none.toml"), [], {})
