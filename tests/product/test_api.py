"""The public face is what tests/golden/api.txt says, so that it never changes unnoticed.

After a change that is meant, `python tests/product/test_api.py` writes the file anew.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path

import clozeline

GOLDEN = Path(__file__).parents[1] / "golden" / "api.txt"
DETAILED = ("EncoderConfig", "Model", "Settings", "TextClassification")


def details(owner: type) -> Iterator[str]:
    """The fields of a dataclass with their defaults, or the public methods and properties of a class."""
    if dataclasses.is_dataclass(owner):
        for field in dataclasses.fields(owner):
            default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
            yield f"  {field.name}: {field.type}{default}"
        return
    for name, member in sorted(vars(owner).items()):
        if not name.startswith("_"):
            yield f"  {name}{inspect.signature(member) if callable(member) else ''}"


def snapshot() -> str:
    """Every public name, and of those that users call what they are called with."""
    lines: list[str] = []
    for name in sorted(clozeline.__all__):
        found = getattr(clozeline, name)
        lines.append(f"{name}{inspect.signature(found)}" if inspect.isfunction(found) else name)
        if name in DETAILED:
            lines += details(found)
    return "\n".join(lines) + "\n"


def test_the_public_face_is_the_one_on_record() -> None:
    assert snapshot().splitlines() == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_every_public_name_is_offered_by_dir_and_nothing_else_is_found() -> None:
    assert dir(clozeline) == sorted(clozeline.__all__)
    assert not hasattr(clozeline, "Modle")


if __name__ == "__main__":
    GOLDEN.write_text(snapshot(), encoding="utf-8")
