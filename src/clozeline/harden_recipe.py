"""A hardening run as data: a flat TOML file, `key=value` changes and flags, as in `recipe`.

This module imports no torch: a recipe is refused before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clozeline import recipe
from clozeline.errors import InputError
from clozeline.recipe import Key, Long
from clozeline.train.settings import Settings

SERVER = ("url", "generator", "key", "sampling", "per_request", "price_in", "price_out", "prompt", "check_prompt")
"""Keys of a server that writes cases."""


@dataclass(frozen=True, kw_only=True)
class HardenRecipe:
    """Everything that `clozeline harden` needs to know. In a file, the fields of `settings` stand beside the others.

    Args:
        model: a model folder or hub name that every arm of the experiment begins from.
        train: labelled texts: a CSV, TSV, JSONL or Parquet file, or a hub data set.
        test: labelled texts to compare the models on; several (a,b) are compared each by itself.
        validation: labelled texts to choose the best epoch by; never trained on.
        suite: the suite of behaviour: sentiment, which is shipped, or a JSONL file.
        capability: what to harden, one of the suite's or several (a,b); without, what the models fail most at.
        cases: a file of cases with columns text, label and capability; without, and without a server, the shipped ones.
        url: of a server that speaks OpenAI's protocol and writes cases, such as http://localhost:11434/v1.
        generator: the model of that server.
        key: name of the environment variable that holds the server's key.
        sampling: the temperature of its answers.
        per_request: cases that one request asks for.
        price_in: of a million tokens that it reads, to show what was spent.
        price_out: of a million tokens that it writes.
        prompt: a file to ask with instead of the shipped prompt.
        check_prompt: a file to ask for labels with, in the second pass.
        second: ask the server for the label of each case again, without having told it.
        judge: a trained classifier that must agree with the label of each case.
        paraphraser: a sentence encoder, such as all-MiniLM-L6-v2, that finds held-out texts in other words too.
        case_words: the fewest and the most words of a case.
        strict: end the run where a case repeats a held-out text, instead of leaving the case out.
        extra: more ordinary examples, for the control; without, they are put aside from the training data.
        share: of cases among the rows that are trained on.
        probes: sentences to look at one by one; in a recipe a list, as a flag one that may be repeated.
        text: column of the texts; guessed where its name is a usual one.
        label: column of the labels; guessed where its name is a usual one.
        columns: names of the columns of a CSV or TSV file without a header.
        suite_labels: what the data call the suite's labels, such as positive=1,negative=0; usual names are known.
        encoding: of text files.
        long: what happens to a text longer than the model.
        max_length: tokens a text may have; without, what the model reads at once.
        out: folder of the run: report, models, cases.
        seeds: models of each arm; from five on, luck is told from change.
        device: such as cpu or cuda:1; without, the first GPU or the CPU.
        settings: how to train.
    """

    model: str
    train: str
    test: tuple[str, ...]
    validation: str | None = None
    suite: str = "sentiment"
    capability: tuple[str, ...] = ()
    cases: str | None = None
    url: str | None = None
    generator: str | None = None
    key: str | None = None
    sampling: float | None = None
    per_request: int | None = None
    price_in: float | None = None
    price_out: float | None = None
    prompt: str | None = None
    check_prompt: str | None = None
    second: bool = True
    judge: str | None = None
    paraphraser: str | None = None
    case_words: tuple[int, ...] = (3, 60)
    strict: bool = False
    extra: str | None = None
    share: float = 0.1
    probes: tuple[str, ...] | None = None
    text: str | None = None
    label: str | None = None
    columns: tuple[str, ...] = ()
    suite_labels: tuple[str, ...] = ()
    encoding: str = "utf-8"
    long: Long | None = None
    max_length: int | None = None
    out: str = "hardened"
    seeds: int = 5
    device: str | None = None
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        given = [name for name in SERVER if getattr(self, name) is not None]
        if (self.url is None) != (self.generator is None):
            raise InputError(
                "A server that writes cases needs its url and the name of the model there: url and generator."
            )
        if self.url is None and given:
            raise InputError(
                f"{given[0]} is of a server that writes cases; give its url and generator too, or leave it out."
            )
        if self.url is not None and self.cases is not None:
            raise InputError("Cases come from a file or from a server; give cases or url.")
        if len(self.case_words) != 2:
            raise InputError("case_words are two numbers, the fewest and the most, such as 3,60.")
        self.labels()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> HardenRecipe:
        """A recipe from checked values by key.

        Raises:
            InputError: no model, training or test data is named, or a value cannot be.
        """
        for name in ("model", "train", "test"):
            if not values.get(name):
                raise InputError(
                    f"Hardening needs {name}: give MODEL --train DATA --test DATA, or a recipe with all three."
                )
        own = {name: value for name, value in values.items() if not KEYS[name].setting}
        return cls(**own, settings=Settings().replace(**{name: values[name] for name in values.keys() - own.keys()}))

    def labels(self) -> dict[str, str] | None:
        """What the data call the suite's labels."""
        return suite_names(self.suite_labels)

    def to_toml(self) -> str:
        """The recipe as a file; what is left open stands as a comment."""
        return recipe.as_toml(self)


def suite_names(given: Sequence[str]) -> dict[str, str] | None:
    """What a model or the data call a suite's labels, of texts such as positive=1; None of none.

    Raises:
        InputError: a text is no such pair.
    """
    for each in given:
        if each.count("=") != 1 or not all(each.split("=")):
            raise InputError(f"suite_labels has {each!r}; write what each label is called: positive=1,negative=0.")
    found = dict(each.split("=") for each in given)
    if len(found) < len(given):
        raise InputError(
            f"suite_labels names a label twice: {','.join(given)}. Write each once: positive=1,negative=0."
        )
    return found or None


KEYS: dict[str, Key] = recipe.keys(HardenRecipe, setting=False) | recipe.keys(Settings, setting=True)


def resolve(first: str, rest: Sequence[str], flags: Mapping[str, Any]) -> HardenRecipe:
    """The recipe of a command: a file or MODEL, then key=value changes, then flags; what comes later wins.

    Raises:
        InputError: as `recipe.read`, `recipe.assignments` and `HardenRecipe.of`.
    """
    values = recipe.read(Path(first), KEYS) if first.endswith(".toml") else {"model": first}
    values |= recipe.assignments(rest, KEYS)
    found = {name: recipe.checked(name, value, "", KEYS) for name, value in flags.items() if value is not None}
    return HardenRecipe.of(values | found)
