"""Panels as figures: PNG or SVG, by matplotlib."""

from __future__ import annotations

import itertools
import logging
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clozeline.files import staged
from clozeline.inspect.panels import Attention, Bars, Heatmap, Lines, Panel, Scatter, Table, Words

COLORS = ("#2a6fb0", "#d1712b", "#3a8f5d", "#8a5bb5", "#b4435a", "#6b6b6b", "#b59a2e", "#2f9ea0")
RISING, BOTH = "Blues", "RdBu_r"
log = logging.getLogger("clozeline")
TILE = 48
"""Points that a head is drawn with at most, each the largest weight of those it stands for."""
LINE = 66
"""Characters in a line of words."""
NAMES = 20
"""Names along an axis, or on a map, at most."""
MAP = (320, 280)
"""How wide and high a map is, about, in points of type."""
MARKERS = "os^Dv"
"""Of groups, another one when the colours begin again."""


def draw(title: str, panels: Sequence[Panel], path: Path) -> None:
    """Draw the panels, two in a row, into a PNG or SVG file; tables only where there is nothing else.

    Raises:
        InputError: the place cannot be written.
    """
    from matplotlib.figure import Figure

    pictures: list[Panel] = [panel for panel in panels if not isinstance(panel, Table)]
    drawn = pictures or list(panels)
    columns = min(2, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    low = [all(isinstance(panel, Words) for panel in drawn[columns * row :][:columns]) for row in range(rows)]
    heights = [2.4 if each else 4.8 for each in low]
    for number, panel in enumerate(drawn):
        if isinstance(panel, Words):
            heights[number // columns] = max(heights[number // columns], 0.16 * (_rows(panel) + 3) + 0.6)
    figure = Figure(figsize=(6.2 * columns, sum(heights) + 0.4), layout="constrained")
    figure.suptitle(_wrapped(title, 60 * columns))
    grid = figure.add_gridspec(rows, columns, height_ratios=heights)
    for number, panel in enumerate(drawn):
        row, column = divmod(number, columns)
        alone = number == len(drawn) - 1 and column == 0  # the last one of an odd number has the row for itself
        axes = figure.add_subplot(grid[row, :] if alone else grid[row, column])
        DRAWN[panel.kind](axes, panel)
        axes.set_title(_wrapped(panel.title, 60), size="medium")
        if panel.note:
            under = "\n".join(part for part in (axes.get_xlabel(), _wrapped(panel.note, 78)) if part)
            axes.set_xlabel(under, size="small")
    with staged(path.parent) as stage, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure.savefig(stage / path.name, dpi=120, format=path.suffix[1:].lower())
    if missing := {found[1] for each in said if (found := re.search(r"Glyph (\d+)", str(each.message)))}:
        shown = " ".join(chr(int(number)) for number in sorted(missing, key=int)[:20])
        log.warning("%s: matplotlib's font lacks %d characters, drawn as boxes: %s", path.name, len(missing), shown)


def _wrapped(text: str, width: int) -> str:
    return plain(textwrap.fill(text, width))


def plain(text: str) -> str:
    """A text as it is: matplotlib reads what stands between dollar signs as a formula."""
    return text.replace("$", r"\$")


def _lines(axes: Any, panel: Lines) -> None:
    for number, (name, (x, y)) in enumerate(panel.series.items()):
        axes.plot(x, y, color=COLORS[number % len(COLORS)], label=plain(name), linewidth=1.6)
    for name, at in panel.marks.items():
        axes.axvline(at, color="0.5", linewidth=1, linestyle=":")
        left = at > sum(axes.get_xlim()) / 2  # of the line, where to its right it might leave the axes
        how = dict(textcoords="offset points", va="top", ha="right" if left else "left", size="small")
        axes.annotate(plain(name), (at, 1), (-3 if left else 3, -3), ("data", "axes fraction"), **how)
    axes.set_xlabel(plain(panel.x))
    axes.set_ylabel(plain(panel.y))
    axes.spines[["top", "right"]].set_visible(False)
    if len(panel.series) > 1:
        axes.legend(frameon=False, fontsize="small")


def _heatmap(axes: Any, panel: Heatmap) -> None:
    low, high = panel.bounds()
    same = panel.values.shape[0] == panel.values.shape[1] and panel.x == panel.y
    how = dict(cmap=BOTH if panel.diverging else RISING, vmin=low, vmax=high, interpolation="nearest")
    how["aspect"] = "equal" if same else "auto"
    image = axes.imshow(panel.values, **how)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    _ticks(axes.set_xticks, panel.columns, 90)
    _ticks(axes.set_yticks, panel.rows, 0)
    axes.set_xlabel(plain(panel.x))
    axes.set_ylabel(plain(panel.y))


def _ticks(put: Callable[..., Any], names: Sequence[str] | None, turned: int) -> None:
    if names is not None:
        step = math.ceil(len(names) / NAMES)
        put(range(0, len(names), step), [plain(name) for name in names[::step]], rotation=turned, size="x-small")


def _bars(axes: Any, panel: Bars) -> None:
    width = 0.8 / max(1, len(panel.groups))
    places = np.arange(len(panel.names))
    for number, group in enumerate(panel.groups):
        at = places + (number - (len(panel.groups) - 1) / 2) * width
        values, errors = panel.values[:, number], None
        if panel.ranges is not None:
            errors = np.maximum(np.abs(panel.ranges[:, number].T - values), 0)
        color = COLORS[number % len(COLORS)]
        axes.bar(at, values, width, yerr=errors, color=color, label=plain(group), capsize=3)
    turned = dict(rotation=30, ha="right") if len(panel.names) * max(map(len, panel.names), default=0) > 40 else {}
    axes.set_xticks(places, [plain(name) for name in panel.names], **turned)
    axes.set_xlim(-0.8, len(panel.names) - 0.2)
    axes.set_ylabel(plain(panel.y))
    axes.spines[["top", "right"]].set_visible(False)
    if len(panel.groups) > 1:
        axes.legend(frameon=False, fontsize="small")


def _scatter(axes: Any, panel: Scatter) -> None:
    known = list(dict.fromkeys(panel.groups))
    for number, group in enumerate(known):
        chosen = [at for at, each in enumerate(panel.groups) if each == group]
        turns, color = divmod(number, len(COLORS))
        how = dict(color=COLORS[color], marker=MARKERS[turns % len(MARKERS)], label=plain(_cut(group)), s=28)
        axes.scatter(*panel.points[chosen].T, **how)
    if len(panel.names) <= NAMES:
        axes.margins(0.1)
        for name, point, (x, y) in zip(panel.names, panel.points, _beside(axes, panel), strict=True):
            how = dict(textcoords="offset points", size="x-small", ha="left" if x > 0 else "right", va="center")
            axes.annotate(plain(_cut(name)), point, (x, y), **how)
    axes.set_xlabel(plain(panel.x))
    axes.set_ylabel(plain(panel.y))
    axes.spines[["top", "right"]].set_visible(False)
    if len(known) > 1:  # beside the map, where its dots are no points of it
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), ncols=math.ceil(len(known) / NAMES))


def _beside(axes: Any, panel: Scatter) -> list[tuple[int, int]]:
    """Where each point's name begins or ends, in points of type from it: within the axes, and where least is covered."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    at = (panel.points - (left, low)) / (right - left, high - low) * MAP
    taken = [(x - 3, x + 3, y) for x, y in at.tolist()]
    chosen = []
    for (x, y), name in zip(at.tolist(), panel.names, strict=True):
        width, found = 4.2 * len(_cut(name)), []
        for away, up in itertools.product((5, -5), (0, 8, -8, 16, -16)):
            first, last = (x + away, x + away + width) if away > 0 else (x + away - width, x + away)
            hidden = sum(
                max(0, min(last, end) - max(first, start)) * max(0, 9 - abs(y + up - line))
                for start, end, line in taken
            )
            outside = max(0, -first) + max(0, last - MAP[0])
            found.append((hidden + 9 * outside + abs(up) / 4, (away, up), (first, last, y + up)))
        _, offset, place = min(found)
        taken.append(place)
        chosen.append(offset)
    return chosen


def _cut(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _places(words: Iterable[str], under: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """The line and the place in it where each word begins; every other line is for what stands under them."""
    row = column = 0
    for word, below in itertools.zip_longest(words, under, fillvalue=""):
        wide = max(len(word), math.ceil(0.7 * len(below)))
        if column and column + wide > LINE:
            row, column = row + (2 if under else 1), 0
        yield row, column
        column += wide + 1


def _rows(panel: Words) -> int:
    return 2 * bool(panel.key) + max((row for row, _ in _places(panel.words, panel.under)), default=0) + 1


def _words(axes: Any, panel: Words) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = [abs(value) for value in panel.values if value is not None]
    most, shades = max(known, default=0) or 1.0, colormaps[BOTH if panel.diverging else RISING]
    ended = [*panel.words, *panel.key]  # the key stands below, as words of its own
    places = [*_places(panel.words, panel.under)]
    for below, (line, column) in zip(panel.under, places, strict=False):
        axes.text(column, line + 0.9, plain(below), family=["monospace", "DejaVu Sans"], size=6.3, va="center")
    row = places[-1][0] if places else 0
    if panel.key:
        row += 2
        places += [(row, column) for _, column in _places(panel.key)]
    for word, value, (line, column) in zip(ended, [*panel.values, *panel.key.values()], places, strict=True):
        share = 0.0 if value is None else value / most
        back = shades((1 + share) / 2 if panel.diverging else share)
        dark = value is not None and sum(back[:3]) < 1.4
        box = dict(boxstyle="square,pad=0.12", facecolor="none" if value is None else back, edgecolor="none")
        how = dict(
            family=["monospace", "DejaVu Sans"], size=9, va="center", color="white" if dark else "black", bbox=box
        )
        axes.text(column, line, plain(word), **how)
    if known and not panel.key:
        scale = Normalize(-most if panel.diverging else 0, most)
        axes.figure.colorbar(ScalarMappable(scale, shades), ax=axes, shrink=0.6, aspect=12)
    axes.set_xlim(-1, LINE + 1)
    axes.set_ylim(max(row, 5) + 0.5, -0.8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _table(axes: Any, panel: Table) -> None:
    axes.axis("off")
    if panel.rows:
        rows = [[plain(f"{each:.4g}" if isinstance(each, float) else str(each)) for each in row] for row in panel.rows]
        axes.table(rows, colLabels=[plain(name) for name in panel.columns], loc="upper center")


def _attention(axes: Any, panel: Attention) -> None:
    """All heads, a row for each layer, every head on its own scale; one head alone with its tokens."""
    layers, heads, length, _ = panel.weights.shape
    if layers * heads == 1:
        names = panel.tokens if length <= 40 else None
        _heatmap(axes, Heatmap(panel.title, "read", "reading", panel.weights[0, 0], names, names, low=0.0))
        return
    edges = np.unique(np.linspace(0, length, min(length, TILE) + 1).astype(int)[:-1])
    tiles = np.maximum.reduceat(np.maximum.reduceat(panel.weights, edges, axis=2), edges, axis=3)
    tiles = tiles / tiles.max((2, 3), keepdims=True)
    size = len(edges) + 2
    tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    axes.imshow(tiles.transpose(0, 2, 1, 3).reshape(layers * size, heads * size), cmap=RISING, interpolation="nearest")
    for put, given in ((axes.set_xticks, panel.heads), (axes.set_yticks, panel.layers)):
        put([(at + 0.5) * size for at in range(len(given))], [str(each) for each in given], size="x-small")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("head; in each, what is read from left to right, on its own scale")
    axes.set_ylabel("layer; in each, who reads from top to bottom")


DRAWN: dict[str, Callable[[Any, Any], None]] = {
    "lines": _lines,
    "heatmap": _heatmap,
    "bars": _bars,
    "scatter": _scatter,
    "words": _words,
    "table": _table,
    "attention": _attention,
}
