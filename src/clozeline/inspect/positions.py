"""How a model knows the order of its tokens: its table of positions beside the sinusoids of the first transformer.

Of rotary models, of DeBERTa's relative positions and of MPNet's buckets, what they have in the place of a table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clozeline.config import EncoderConfig
from clozeline.inspect import panels as kinds
from clozeline.inspect.view import View, called
from clozeline.model import positions as schemes
from clozeline.predict import unit

if TYPE_CHECKING:
    from clozeline.face import Model

SHOWN = 256
"""Positions of a heat map at most; of what is longer, some together are one point."""
WIDE = 128
"""Values of a row that a heat map shows, in pairs of a sine and a cosine."""
DIGITS = 3
"""Decimals of a heat map, which keep a page small."""
REGION = 64
"""Positions that are judged together."""
DISTANCES = (1, 10, 100)
CHANCE = 4.0
"""Standard deviations from 0 within which a mean cosine is that of random rows."""
WEAK = 0.2
"""Share of the best region's mean cosine below which rows count as random too: a few steps do not train them."""


@dataclass(frozen=True, slots=True)
class Region:
    """Rows of a table. first, last: positions; norm: mean length of a row; neighbour: mean cosine of neighbours.

    state: "trained", "random" where neighbours are hardly more alike than random rows, or "copies" where rows are most like
    rows a fixed number of positions before them, `lag`, with the mean cosine `likeness`.
    """

    first: int
    last: int
    norm: float
    neighbour: float
    state: str
    lag: int = 0
    likeness: float = 0.0


@dataclass(frozen=True, eq=False)
class PositionView(View):
    """scheme: "learned", "rotary", "disentangled" or "bucketed"; max_length: tokens that the model reads at once.

    said: what one sees, in sentences; numbers: what they rest on, by name; regions: of a table, in order; table:
    (positions, D) of learned ones.
    """

    model: str
    scheme: str
    max_length: int
    said: tuple[str, ...]
    numbers: dict[str, Any]
    regions: tuple[Region, ...]
    shown: tuple[kinds.Panel, ...]
    table: np.ndarray | None = None

    @property
    def title(self) -> str:
        return f"Positions of {called(self.model)} ({self.scheme})"

    def panels(self) -> list[kinds.Panel]:
        return list(self.shown)

    def as_dict(self) -> dict[str, Any]:
        found = {"model": self.model, "scheme": self.scheme, "max_length": self.max_length, "said": list(self.said)}
        return found | {"numbers": self.numbers, "regions": [asdict(region) for region in self.regions]}

    def arrays(self) -> dict[str, np.ndarray]:
        """Of learned positions the whole table, sinusoids of its size, and the cosines between rows of each."""
        if self.table is None:
            return {}
        fixed = sinusoids(*self.table.shape)
        of = {"table": self.table, "sinusoids": fixed}
        return of | {f"cosines of {name}": unit(each) @ unit(each).T for name, each in of.items()}

    def __str__(self) -> str:
        return "\n".join([self.title, *self.said])


Part = tuple[list[str], dict[str, Any], list[Region], list[kinds.Panel]]


def positions(model: Model) -> PositionView:
    """What the model knows positions by, and whether all of it looks trained."""
    scheme, config = model.network.encoder.positions, model.config
    parts: list[Part] = []
    table = None
    if isinstance(scheme, schemes.Learned):
        table = _host(scheme.table.weight)[scheme.offset :]
        parts.append(_learned(table, scheme.offset, config))
    if isinstance(scheme, schemes.Bucketed):
        parts.append(_bucketed(scheme))
    if isinstance(scheme, schemes.Rotary):
        parts.append(_rotary(scheme, config))
    if isinstance(scheme, schemes.Disentangled):
        parts.append(_disentangled(scheme, config))
    said = tuple(line for part in parts for line in part[0])
    numbers = {name: value for part in parts for name, value in part[1].items()}
    regions = tuple(region for part in parts for region in part[2])
    shown = tuple(panel for part in parts for panel in part[3])
    name = type(scheme).__name__.lower()
    return PositionView(model.name, name, config.max_length, said, numbers, regions, shown, table)


def sinusoids(count: int, width: int) -> np.ndarray:
    """(count, width): the sine and the cosine of each wavelength side by side (Vaswani et al. 2017, section 3.5)."""
    angles = np.arange(count)[:, None] / 10_000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(count, -1)[:, :width]


def regions_of(table: np.ndarray) -> list[Region]:
    """The rows of a table, 64 by 64, and what they look like."""
    count, width = table.shape
    units = unit(table.astype(np.float64))
    alike = units @ units.T
    norms, neighbours = np.linalg.norm(table, axis=1), np.diagonal(alike, 1)
    earlier = np.where(np.tri(count, k=-1, dtype=bool), alike, -2.0)
    nearest = earlier.argmax(1)
    firsts = [first for first in range(0, count, REGION) if first == 0 or count - first >= REGION // 4]
    spans = [np.arange(first, end) for first, end in zip(firsts, [*firsts[1:], count], strict=True)]
    means = [float(neighbours[rows[:-1]].mean()) if len(rows) > 1 else 0.0 for rows in spans]
    found = []
    for rows, mean in zip(spans, means, strict=True):
        (lag, times), *_ = Counter((rows - nearest[rows]).tolist()).most_common(1)
        likeness = float(earlier[rows, np.maximum(rows - lag, 0)].mean())
        state, copy = "trained", (0, 0.0)
        if lag > 2 and times > len(rows) / 2 and likeness > 0.5:
            state, copy = "copies", (lag, likeness)
        elif abs(mean) < max(CHANCE / math.sqrt(len(rows) * width), WEAK * max(means)):
            state = "random"
        found.append(Region(int(rows[0]), int(rows[-1]), float(norms[rows].mean()), mean, state, *copy))
    return found


def _learned(table: np.ndarray, offset: int, config: EncoderConfig) -> Part:
    count, width = table.shape
    fixed, units = sinusoids(count, width), unit(table.astype(np.float64))
    alike, fixed_alike = units @ units.T, unit(fixed) @ unit(fixed).T
    at, clear = _places(count), float(np.percentile(np.abs(table), 99))
    names, x = [str(place) for place in at], "position"
    each = f"One position of {at[1]}. " if len(at) < count else ""
    wide = f"{WIDE} of {width} values, in pairs of a wavelength, from all over the row. " if width > WIDE else ""
    pairs = np.linspace(0, width // 2 - 1, min(width, WIDE) // 2).round().astype(int)
    value = (2 * pairs[:, None] + [0, 1]).reshape(-1)
    last = f"Position {count - 1} is the last: a token number {count + 1} cannot be read."
    some: dict[str, Any] = dict(rows=names, columns=[*map(str, value)], diverging=True)
    shown: list[kinds.Panel] = [
        _heat("The learned table", "value", x, table[np.ix_(at, value)], **some, low=-clear, high=clear,
              note=f"{each}{wide}Colours end where 99 % of the values do. {last}"),
        _heat("Sinusoids of the same size", "value", x, fixed[np.ix_(at, value)], **some, note=each + wide),
        _alike("Cosine of learned positions", x, alike, names),
        _alike("Cosine of sinusoids", x, fixed_alike, names),
    ]  # fmt: skip
    behind = f" (row {count + offset - 1} of the table; its first {offset} rows are no positions)" if offset else ""
    near, fixed_near = _by_distance(alike), _by_distance(fixed_alike)
    regions = regions_of(table)
    fresh = config.init_std * math.sqrt(width)
    said = [f"Position {count - 1} is the last{behind}: a token number {count + 1} cannot be read."]
    for apart, cosine in near.items():
        said.append(f"Mean cosine {apart} apart: {cosine:.3f} (sinusoids {fixed_near[apart]:.3f}).")
    said.append("Cosine of neighbours and length of rows by position:")
    said += [_told(region) for region in regions]
    said += _judged(regions, fresh)
    ends = [(region.first, region.last) for region in regions]
    middles = [(first + last) / 2 for first, last in ends]
    curves = {"cosine of neighbours": (middles, [region.neighbour for region in regions])}
    curves["length of a row"] = (middles, [region.norm for region in regions])
    curves["length of a fresh row"] = ([0.0, count - 1.0], [fresh, fresh])
    shown.append(kinds.Lines(f"Rows {REGION} by {REGION}", x, "", curves, note=" ".join(_judged(regions, fresh))))
    found = {"cosine_by_distance": near, "sinusoids_by_distance": fixed_near, "fresh_norm": fresh, "offset": offset}
    return said, {name: _spelled(value) for name, value in found.items()}, regions, shown


def _told(region: Region) -> str:
    copies = f", as {region.lag} before with cosine {region.likeness:.3f}" if region.lag else ""
    return (
        f"  {region.first:>5} to {region.last:<5} {region.neighbour:6.3f}  {region.norm:7.3f}  {region.state}{copies}"
    )


def _judged(regions: Sequence[Region], fresh: float) -> list[str]:
    """What is wrong with a table, in sentences; that nothing is, where nothing is."""
    said = []
    if random := [region for region in regions if region.state == "random"]:
        norm = sum(region.norm for region in random) / len(random)
        said.append(
            f"Positions {_ranges(random)} look never trained: neighbours are hardly more alike than random rows, and "
            f"rows are {norm:.3f} long, where fresh ones are {fresh:.3f}. Longer training sequences would train them."
        )
    if copies := [region for region in regions if region.state == "copies"]:
        lags = " and ".join(str(lag) for lag in dict.fromkeys(region.lag for region in copies))
        said.append(
            f"Positions {_ranges(copies)} are alike those {lags} before them: they began as copies when sequences got "
            "longer; the nearer a cosine is to 1, the less they were trained since."
        )
    return said or ["All positions look trained."]


def _ranges(regions: Sequence[Region]) -> str:
    """Positions of regions, neighbours joined."""
    spans: list[list[int]] = []
    for region in regions:
        if spans and spans[-1][1] == region.first - 1:
            spans[-1][1] = region.last
        else:
            spans.append([region.first, region.last])
    return ", ".join(f"{first} to {last}" for first, last in spans)


def _rotary(scheme: schemes.Rotary, config: EncoderConfig) -> Part:
    windows = config.windows or (None,) * config.layers
    thetas = {"all tokens": (scheme.theta, sum(window is None for window in windows))}
    reach = next((window for window in windows if window is not None), None)
    if reach is not None:
        thetas["a window"] = (scheme.local_theta, config.layers - thetas["all tokens"][1])
    steps = np.arange(scheme.pairs) / scheme.pairs
    far = _places(config.max_length)
    near = np.arange(min(SHOWN, config.max_length))
    ends = f"Rotary positions have no table that ends; the model says that it reads {config.max_length} tokens."
    mean = "Mean over a head's frequencies of cos(frequency x distance), what is left of the score of equal vectors"
    said, why = [ends, f"{mean}:"], f"{ends} {mean}."
    curves: dict[str, dict[str, tuple[Any, Any]]] = {"near": {}, "far": {}}
    found: dict[str, Any] = {}
    for seen, (theta, layers) in thetas.items():
        if not layers:
            continue
        frequencies = theta**-steps
        name = f"layers that see {seen} (theta {theta:,.0f})"
        left = np.cos(np.arange(config.max_length)[:, None] * frequencies).mean(1)
        if seen == "all tokens":
            curves["near"][name] = (near, left[near])
            curves["far"][name] = (far, np.add.reduceat(left, far) / np.diff(far, append=len(left)))
        else:
            within = near[near <= (reach or 0)]  # behind the window nothing is read
            curves["near"][name] = (within, left[within])
        told = {apart: float(left[apart]) for apart in _distances(config.max_length)}
        longest = 2 * math.pi / frequencies[-1]
        listed = ", ".join(f"{value:.3f} at {apart}" for apart, value in told.items())
        said.append(f"  {name}, {layers} of {config.layers}: {listed}; longest wavelength {longest:,.0f} tokens")
        found[seen] = {"theta": theta, "layers": layers, "longest_wavelength": longest, "by_distance": _spelled(told)}
    marks = {} if reach is None else {f"window {reach}": float(reach)}
    note = f"Each point is the mean of {far[1]} distances from there on." if len(far) < config.max_length else ""
    turned = np.cos(near[:, None] * scheme.theta**-steps)
    shown: list[kinds.Panel] = [
        kinds.Lines("What is left of a score, near", "distance in tokens", "mean cosine", curves["near"], marks, why)
    ]
    if curves["far"]:
        shown.append(kinds.Lines("All distances", "distance in tokens", "mean cosine", curves["far"], note=note))
    say = f"theta {scheme.theta:,.0f}; the fastest pair first."
    shown.append(_heat("Cosine of each pair's turn", "pair of a head", "distance", turned, diverging=True, note=say))
    return said, found, [], shown


def _disentangled(scheme: schemes.Disentangled, config: EncoderConfig) -> Part:
    table = _host(scheme.norm(scheme.table.weight))
    units, middle, count = unit(table.astype(np.float64)), scheme.span, len(table)
    alike, (_, _, rows) = units @ units.T, scheme._buckets(config.max_length)
    distances = np.arange(1 - config.max_length, config.max_length)
    at = _places(count)
    names = [str(place - middle) for place in at]
    picked = np.unique(np.linspace(0, len(distances) - 1, 2 * SHOWN).astype(int))
    curve = alike[middle, rows.cpu().numpy()]
    reach = f"far distances in logarithmic steps up to {scheme.reach}" if scheme.buckets else f"up to {scheme.reach}"
    regions = regions_of(_host(scheme.table.weight))
    near = _by_distance(alike)
    said = [
        f"{count} rows for relative distances, {scheme.span} on either side, {reach}; all that is farther shares the last.",
        f"No position of its own: the model says that it reads {config.max_length} tokens.",
        *(f"Mean cosine of rows {apart} apart: {cosine:.3f}." for apart, cosine in near.items()),
        f"Cosine of neighbours and length of rows (row {middle} is distance 0):",
        *map(_told, regions),
        *(line.replace("Positions", "Rows").replace("positions", "rows")
          for line in _judged(regions, config.init_std * math.sqrt(table.shape[1]))),
    ]  # fmt: skip
    x = "place of the token that reads less that of the one it reads"
    shown: list[kinds.Panel] = [
        _alike("Cosine of relative positions", "row, from distance 0", alike, names),
        kinds.Lines("Likeness to distance 0", x, "cosine", {"cosine": (distances[picked].tolist(), curve[picked].tolist())}),
    ]  # fmt: skip
    return said, {"cosine_by_distance": _spelled(near), "rows": count}, regions, shown


def _bucketed(scheme: schemes.Bucketed) -> Part:
    far = 2 * scheme.FARTHEST
    distances = np.arange(1 - far, far)
    rows = scheme._buckets(far).cpu().numpy()
    values = _host(scheme.scores.weight)[rows].T
    heads = [f"head {head}" for head in range(len(values))]
    picked = distances[::2]
    middle = far - 1
    last = int((rows[middle:] == rows[-1]).argmax())
    best = distances[values.argmax(1)]
    said = [
        f"{scheme.scores.num_embeddings} buckets of distance add to the scores of every layer; from {last} tokens on all "
        "distances share one.",
        *(f"  {head}: {row[middle]:+.3f} at distance 0, most {row.max():+.3f} at {at:+d}, spread {np.ptp(row):.3f}"
          for head, row, at in zip(heads, values, best.tolist(), strict=True)),
    ]  # fmt: skip
    x = "distance to the token that is read"
    columns, mean = [str(at) for at in picked], values.mean(0).tolist()
    shown: list[kinds.Panel] = [
        _heat("Bias by distance and head", x, "", values[:, ::2], rows=heads, columns=columns, diverging=True,
              note="Every second distance."),
        kinds.Lines("Bias, mean of the heads", x, "added to the score", {"bias": (distances.tolist(), mean)}),
    ]  # fmt: skip
    spread = [float(value) for value in np.ptp(values, axis=1)]
    return said, {"bias_spread_by_head": spread, "bias_most_at": best.tolist()}, [], shown


def _by_distance(alike: np.ndarray) -> dict[int, float]:
    """The mean cosine of rows so far apart."""
    return {apart: float(np.diagonal(alike, apart).mean()) for apart in _distances(len(alike))}


def _distances(count: int) -> list[int]:
    return [apart for apart in DISTANCES if apart < count]


def _places(count: int) -> np.ndarray:
    """Up to `SHOWN` places among so many, equally far apart."""
    return np.arange(0, count, -(-count // SHOWN))


def _alike(title: str, x: str, alike: np.ndarray, names: Sequence[str]) -> kinds.Heatmap:
    """Cosines of all rows; where several are one point, the one farthest from 0, so that no line is lost."""
    at = _places(len(alike))
    most, least = (of.reduceat(of.reduceat(alike, at, 0), at, 1) for of in (np.maximum, np.minimum))
    step = -(-len(alike) // SHOWN)
    note = f"Each point is the cosine farthest from 0 among {step} x {step}." if step > 1 else ""
    values = np.where(most >= -least, most, least)
    return _heat(title, x, x, values, rows=names, columns=names, diverging=True, low=-1.0, high=1.0, note=note)


def _heat(title: str, x: str, y: str, values: np.ndarray, **how: Any) -> kinds.Heatmap:
    return kinds.Heatmap(title, x, y, np.round(values, DIGITS), **how)


def _host(table: Any) -> np.ndarray:
    found: np.ndarray = table.detach().float().cpu().numpy()
    return found


def _spelled(value: Any) -> Any:
    """With names for keys, as JSON has them."""
    return {str(key): each for key, each in value.items()} if isinstance(value, dict) else value
