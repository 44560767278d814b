"""A view of something inside a model: numbers, a figure and a page that works without a network, from the same panels."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from clozeline.errors import InputError
from clozeline.files import staged, write_whole
from clozeline.inspect.figures import draw
from clozeline.inspect.panels import Panel

SUFFIXES = (".json", ".npz", ".png", ".svg", ".html")
PLACE = '<script type="application/json" id="view">{}</script>'
"""Where the page, as it is built, has nothing yet."""


class View(ABC):
    """What every inspection gives: print it, or `save` it."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What is seen, in a few words."""

    @abstractmethod
    def panels(self) -> list[Panel]:
        """What it is drawn from, in reading order."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """The numbers, as JSON has them."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers as arrays, where there may be too many for JSON; else none."""
        return {}

    def sheets(self) -> list[list[Panel]]:
        """The panels of each page: one page, but of what would be too large for one."""
        return [self.panels()]

    def save(self, path: str | Path) -> list[Path]:
        """Write numbers (.json, .npz), a figure (.png, .svg) or a page (.html), whole or not at all; gives what was written.

        What is too large for one page is written to several, view.html, view-2.html and so on, that lead to each other.

        Raises:
            InputError: another suffix, arrays where there are none, or the place cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise InputError(f"{path} says by its end what is written; give one of {', '.join(SUFFIXES)}.")
        if suffix == ".json":
            write_whole(path, json.dumps(self.as_dict(), ensure_ascii=False) + "\n")
        elif suffix == ".npz":
            if not (arrays := self.arrays()):
                raise InputError(f"{path}: there are no arrays of this; its numbers are few, so give a .json file.")
            with staged(path.parent) as stage:
                np.savez(stage / path.name, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
        elif suffix == ".html":
            pages = self.pages(path.name)
            for name, page in pages.items():
                write_whole(path.with_name(name), page)
            return [path.with_name(name) for name in pages]
        else:
            draw(self.title, self.panels(), path)
        return [path]

    def pages(self, name: str = "view.html") -> dict[str, str]:
        """HTML by the name of the file, that asks nothing of a network."""
        sheets, (stem, _, suffix) = self.sheets(), name.rpartition(".")
        names = [name, *(f"{stem}-{number}.{suffix}" for number in range(2, len(sheets) + 1))]
        return {name: self._page(sheet, names, at) for at, (name, sheet) in enumerate(zip(names, sheets, strict=True))}

    def _page(self, panels: list[Panel], names: list[str], at: int) -> str:
        found: dict[str, Any] = {"title": self.title, "panels": [panel.as_dict() for panel in panels]}
        found |= {"pages": names if len(names) > 1 else [], "here": at}
        before, place, after = _built().partition(PLACE)
        assert place, "the page has a place for its view"
        data = json.dumps(found, ensure_ascii=False, allow_nan=False)
        for sign in "<>&\u2028\u2029":  # no text can end the element that it stands in
            data = data.replace(sign, f"\\u{ord(sign):04x}")
        return before + PLACE.replace("{}", data) + after


def called(model: str) -> str:
    """A model's name in a title: of a path its last two parts."""
    return "/".join(Path(model).parts[-2:])


@cache
def _built() -> str:
    return resources.files("clozeline.inspect").joinpath("page.html").read_text(encoding="utf-8")
