"""A training run as data: a flat TOML file, `key=value` changes and command-line flags, all with the same keys and checks.

This module imports no torch: a recipe is refused before anything heavy is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from clozeline.errors import InputError, nearest
from clozeline.train import distilling
from clozeline.train.settings import Settings

Long = Literal["truncate", "head_tail", "window", "error"]
"""`tokenizer.LongText`, which would cost the import of the tokenizers."""
TaskName = Literal[
    "text-classification",
    "multi-label-classification",
    "regression",
    "token-classification",
    "question-answering",
    "multiple-choice",
]
"""The names in `tasks.known.SUPERVISED`, which would cost the import of torch."""
TASK_KEYS = (
    "labels",
    "long",
    "max_length",
    "class_weights",
    "label_smoothing",
    "focal",
    "calibrate",
    "scheme",
    "longest_answer",
    "threshold",
)
"""Keys that are settings of a task, each of some tasks only."""
STUDENT = ("shape", "layers", "width", "heads", "ffn_width")
"""Keys of a student that is made from its teacher."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that `clozeline finetune` needs to know. In a file, the fields of `settings` stand beside the others.

    Args:
        model: a model folder, or a hub name such as bert-base-uncased; without, a smaller student of the teacher.
        train: a CSV, TSV, JSONL or Parquet file, or a hub data set (owner/name:split); CoNLL columns of words and tags;
            SQuAD's JSON.
        task: what to learn.
        validation: data like it, to choose the best epoch by; never trained on.
        teacher: a model trained for the same task, whose answers are learned beside the labels, or instead of them.
        shape: of a student that is made from its teacher: the name of a published model; without, the teacher's.
        layers: of such a student, instead of the shape's; so are the next.
        width: of such a student.
        heads: attention heads in each of its layers.
        ffn_width: of its feed-forward part.
        text: column of the texts; guessed where its name is a usual one.
        pair: column of the second texts, where two texts make one example.
        label: column of the labels; guessed where its name is a usual one. Some tasks take several, such as a,b.
        choices: columns of the choices of a multiple-choice question; guessed where their names are usual ones.
        columns: names of the columns of a CSV or TSV file without a header.
        labels: label names in the order of the outputs; without, those of the model or of the training data.
        encoding: of text files.
        long: what happens to a text longer than the model; without, truncate, or window for tokens and answers.
        max_length: tokens a sequence may have; without, what the model reads at once.
        class_weights: "balanced" makes every label count the same; a recipe may also give each label a weight.
        label_smoothing: share of each target that is spread over all labels, such as 0.1.
        focal: exponent of the focal loss, which makes easy examples count less; 0 is cross-entropy.
        calibrate: fit a temperature to the validation data, so that scores are probabilities to be believed.
        scheme: how entities are written as tags; without, as the training data has them.
        longest_answer: tokens of an answer to a question.
        threshold: least probability of a label of a set; of a question, how far none must be above the best answer.
        out: folder of the run: model, metrics, curve, and the state to resume from.
        seeds: runs with so many seeds; the best by validation is kept, and how much they differ is said.
        learning_rates: rates to try, such as 1e-5,3e-5, each with all seeds.
        device: such as cpu or cuda:1; without, the first GPU or the CPU.
        settings: how to train.
    """

    train: str
    model: str | None = None
    task: TaskName = "text-classification"
    validation: str | None = None
    teacher: str | None = None
    shape: str | None = None
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    ffn_width: int | None = None
    text: str | None = None
    pair: str | None = None
    label: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    encoding: str = "utf-8"
    long: Long | None = None
    max_length: int | None = None
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    label_smoothing: float | None = None
    focal: float | None = None
    calibrate: bool = False
    scheme: Literal["BIO", "BIOES", "IO", "plain"] | None = None
    longest_answer: int | None = None
    threshold: float | None = None
    out: str = "run"
    seeds: int = 1
    learning_rates: tuple[float, ...] = ()
    device: str | None = None
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from checked values by key.

        Raises:
            InputError: no model or no training data is named, or a training setting cannot be.
        """
        for name, what in (("model", "a model"), ("train", "training data")):
            if name not in values and (name == "train" or "teacher" not in values):
                raise InputError(f"Training needs {what}: give MODEL and TRAIN, or a recipe with the key {name!r}.")
        values = {**(distilling.TASK if values.get("teacher") else {}), **values}
        own = {name: value for name, value in values.items() if name in KEYS and not KEYS[name].setting}
        return cls(**own, settings=Settings().replace(**{name: values[name] for name in values.keys() - own.keys()}))

    def __post_init__(self) -> None:
        if self.model is not None and self.sizes():
            given = ", ".join(self.sizes())
            raise InputError(
                f"{given} is of a student that is made from its teacher, and a model is as it is; leave one out."
            )
        self.settings.check_teacher(self.teacher is not None)

    def sizes(self) -> dict[str, Any]:
        """What a student made from its teacher has of its own."""
        given = {name: getattr(self, name) for name in STUDENT}
        return {name: value for name, value in given.items() if value is not None}

    def task_options(self) -> dict[str, Any]:
        """The settings of the task that were given."""
        given = {name: getattr(self, name) for name in TASK_KEYS}
        return {
            name: value for name, value in given.items() if value is not None and value is not False and value != ()
        }

    def where(self) -> dict[str, Any]:
        """The columns of the data, as `Model.fit` takes them."""
        return columns(
            **{name: getattr(self, name) for name in ("text", "pair", "label", "choices", "columns", "encoding")}
        )

    def to_toml(self) -> str:
        """The recipe as a file that `read` takes; what is left open stands as a comment."""
        return as_toml(self)


def as_toml(recipe: Any) -> str:
    """A recipe as a file that `read` takes; what is left open stands as a comment."""
    values = dataclasses.asdict(recipe)
    values |= values.pop("settings")
    lines = [
        f"# {name} is left open" if value is None else f"{name} = {_toml(value)}" for name, value in values.items()
    ]
    return "\n".join(lines) + "\n"


def columns(encoding: str, **given: Any) -> dict[str, Any]:
    """Columns by what they hold, as `Model.fit` takes them, from texts such as "a,b" or tuples of names."""
    listed = {name: given[name] and _converted(given[name], tuple) for name in ("label", "choices", "columns")}
    label = listed.pop("label")
    found = {
        **listed,
        "text": given["text"],
        "pair": given["pair"],
        "label": label[0] if label and len(label) == 1 else label,
    }
    return {name: value or None for name, value in found.items()} | {"encoding": encoding}


@dataclass(frozen=True)
class Key:
    """One key of a recipe. wanted: its type; setting: whether it is one of `Settings`."""

    wanted: Any
    default: Any
    help: str
    setting: bool


def keys(kind: type, setting: bool) -> dict[str, Key]:
    """The keys that the fields of a class are, with their help out of its docstring."""
    hints = get_type_hints(kind)
    docs = "\n".join(each.__doc__ or "" for each in kind.__mro__[:-1])
    said = re.findall(r"^ {8}(\w+): (.)(.+)$", docs, re.MULTILINE)
    helps = {name: first.upper() + rest for name, first, rest in said}
    return {
        part.name: Key(hints[part.name], part.default, helps.get(part.name, ""), setting)
        for part in dataclasses.fields(kind)
        if part.name != "settings"
    }


KEYS = keys(Recipe, setting=False) | keys(Settings, setting=True)


def read(path: Path, known: Mapping[str, Key] = KEYS) -> dict[str, Any]:
    """The checked values of a recipe file. known: the keys that it may have.

    Raises:
        InputError: there is no such file, it is not TOML, or a key or value cannot be; the message names it.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The recipe {str(path)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError(f"{path} is not a recipe in TOML: {error}.") from error
    return {name: checked(name, value, str(path), known) for name, value in found.items()}


def resolve(first: str, rest: Sequence[str], flags: Mapping[str, Any]) -> Recipe:
    """The recipe of a command: a file or MODEL and TRAIN, then key=value changes, then flags; what comes later wins.

    Raises:
        InputError: as `read`, `assignments` and `Recipe.of`.
    """
    values: dict[str, Any] = {"model": first}
    if first.endswith(".toml"):
        values = read(Path(first))
    elif rest:
        values["train"], *rest = rest
    values |= assignments(rest)
    return Recipe.of(values | {name: checked(name, value, "") for name, value in flags.items() if value is not None})


def assignments(given: Iterable[str], known: Mapping[str, Key] = KEYS) -> dict[str, Any]:
    """The checked values of `key=value` arguments; a value is read as TOML where that fits the key, else as a text.

    Raises:
        InputError: an argument is no assignment, or a key or value cannot be.
    """
    values: dict[str, Any] = {}
    for argument in given:
        name, equals, text = argument.partition("=")
        if not equals:
            raise InputError(
                f"{argument!r} is one argument too many: after the data or a recipe come key=value changes."
            )
        try:
            values[name] = checked(name, tomllib.loads(f"value = {text}")["value"], "", known)
        except (tomllib.TOMLDecodeError, InputError):
            values[name] = checked(name, text, "", known)
    return values


def checked(name: str, value: Any, place: str, known: Mapping[str, Key] = KEYS) -> Any:
    """The value in the type that the key wants. place: where it stands, for the message.

    Raises:
        InputError: no such key, or a value of another type.
    """
    before = f"{place}: " if place else ""
    if name not in known:
        raise InputError(f"{before}there is no key {name!r} in a recipe: {nearest(name, known)}")
    try:
        return _converted(value, known[name].wanted)
    except (TypeError, ValueError):  # no number where one is wanted
        wanted = _described(known[name].wanted)
        raise InputError(f"{before}{name} is {value!r}, {_described(type(value))}, but must be {wanted}.") from None


def _converted(value: Any, wanted: Any) -> Any:
    """The value as the wanted type has it, where nothing is lost; TypeError where it does not fit."""
    kind, inner = get_origin(wanted) or wanted, get_args(wanted)
    if kind in (Union, UnionType):
        for option in inner:
            try:
                return _converted(value, option)
            except TypeError:
                continue
    elif kind is Literal:
        if value in inner:
            return value
    elif kind is tuple and isinstance(value, str | list | tuple):
        names = value.split(",") if isinstance(value, str) else value
        if inner and inner[0] in (float, int):
            return tuple(inner[0](number) for number in names)
        if all(type(name) in (str, int) for name in names):
            return tuple(str(name).strip() for name in names)
    elif kind is dict and isinstance(value, dict):
        return {name: _converted(number, float) for name, number in value.items()}
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) is kind:
        return value
    raise TypeError


def _described(kind: Any) -> str:
    """A type in words."""
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    names |= {tuple: "a list of names", list: "a list", dict: "a table of numbers"}
    if get_origin(kind) is tuple and get_args(kind)[0] in (float, int):
        return "a list of numbers"
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_described(option) for option in get_args(kind) if option is not type(None))
    return names.get(get_origin(kind) or kind, f"a {getattr(kind, '__name__', kind)}")


def _toml(value: Any) -> str:
    """A value as TOML spells it."""
    if isinstance(value, str):
        # JSON escapes what TOML must, but for DEL; without ensure_ascii, since TOML knows no surrogate pairs
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(name)} = {_toml(part)}" for name, part in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value).lower()  # true, false, numbers
