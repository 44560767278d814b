"""The page of a view, in a real browser: what it shows are the numbers of its panels, and nothing else happens.

Needs the package playwright and a Chromium of the system ($CHROMIUM says where); skips, saying why, where one is absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozeline.inspect import panels, view
from clozeline.inspect.panels import Attention, Bars, Heatmap, Lines, Panel, Scatter, Table, Words

WEB = Path(__file__).parents[2] / "web"
HOSTILE = "<script>alert(1)</script> </script><!-- \"'&amp; \u05e9\u05dc\u05d5\u05dd \U0001f600 a\u200bb\u202ec \u2028"


@dataclass(frozen=True)
class Given(view.View):
    """A view of panels made by hand."""

    parts: list[Panel]
    name: str = "A view"
    more: Sequence[Panel] = ()

    @property
    def title(self) -> str:
        return self.name

    def panels(self) -> list[Panel]:
        return self.parts

    def sheets(self) -> list[list[Panel]]:
        return [self.parts, list(self.more)] if self.more else [self.parts]

    def as_dict(self) -> dict[str, Any]:
        return {}


@dataclass
class Opened:
    """A page in the browser, and what went wrong or left it since it was opened."""

    page: Any
    size: int
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Waits until what was asked for is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def tip(self) -> str:
        """What stands beside the pointer."""
        return self.page.locator(".tip").inner_text()

    def tip_number(self) -> float:
        """The number there that stands out."""
        return number(self.page.locator(".tip b").last.inner_text())


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium here; install one or say where by $CHROMIUM")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Saves panels as a page and opens it by file://; at the end nothing may have gone wrong or left the page."""
    made: list[tuple[Any, Opened, str]] = []

    def start(
        *parts: Panel,
        name: str = "A view",
        more: Sequence[Panel] = (),
        width: int = 1280,
        scheme: str = "light",
        scroll: bool = True,
    ) -> Opened:
        path = tmp_path / f"page{len(made)}.html"
        Given(list(parts), name, more).save(path)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(20_000)
        found = Opened(page, path.stat().st_size)
        problem: Callable[[str], object] = found.problems.append
        page.on("console", lambda message: problem(f"console: {message.text}"))
        page.on("pageerror", lambda error: problem(f"error: {error}"))
        page.on("dialog", lambda dialog: (problem(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: found.requests.append(request.url))
        page.goto(path.as_uri())
        for number in range(page.locator("section.attention").count() if scroll else 0):
            page.locator("section.attention").nth(number).scroll_into_view_if_needed()
            page.locator("section.attention[data-ready]").nth(number).wait_for()
        found.settle()
        made.append((context, found, path.as_uri()))
        return found

    yield start
    for context, found, address in made:
        context.close()
        assert not found.problems
        assert found.requests == [address]


def number(text: str) -> float:
    """The number that a text of the page starts with."""
    return float(text.replace("\u2212", "-").split()[0])


def softmax(layers: int, heads: int, length: int, seed: int = 0, spread: float = 2) -> np.ndarray:
    """Weights as attention has them: (layers, heads, length, length), rows sum to 1; the more spread, the fewer count."""
    random = np.random.default_rng(seed)
    scores = spread * random.standard_normal((layers, heads, length, length), dtype=np.float32)
    np.exp(scores, out=scores)
    return scores / scores.sum(-1, keepdims=True)


def attention(layers: int = 2, heads: int = 3, seed: int = 0, title: str = "reads") -> Attention:
    """A pair of two short texts, one word of which has two pieces."""
    tokens = ["[CLS]", "the", "river", "##bank", "[SEP]", "a", "bank", "[SEP]"]
    words, sources = [-1, 0, 1, 1, -1, 2, 3, -1], [-1, 0, 0, 0, -1, 1, 1, -1]
    measures = {"entropy": np.arange(layers * heads, dtype=float).reshape(layers, heads) / 7}
    weights = softmax(layers, heads, len(tokens), seed)
    spelled = ["[CLS]", "the", "riverbank", "[SEP]", "a", "bank", "[SEP]"]
    between = {"entropy": measures["entropy"] + 1}
    numbers = ([*range(layers)], [*range(heads)])
    return Attention(title, tokens, words, sources, *numbers, weights, measures, spelled, between)


def gallery(text: str = "name") -> list[Panel]:
    """One panel of each kind, all of whose words are the text."""
    random, one = np.random.default_rng(0), {text: np.ones((1, 1))}
    return [
        Lines(
            text, text, text, {text: ([0, 1, 2], [0.5, -1.25, 3e-7]), "b": ([0, 2], [2, float("nan")])}, {text: 1}, text
        ),
        Heatmap(text, text, text, random.normal(size=(3, 4)), [text, "b", "c"], None, True, note=text),
        Bars(text, text, [text, "two"], [text, "B"], random.random((2, 2)), random.random((2, 2, 2)), text),
        Scatter(text, text, text, random.normal(size=(5, 2)), [text, *"abcd"], [text, *"aaba"], text),
        Words(text, [text, "good", "bad"], [None, 0.75, -0.5], [text, "", ""], True, text),
        Table(text, [text, "size"], [[text, 2.5], ["b", 10], ["a", float("nan")]], text),
        Attention(text, [text] * 2, [0, 1], [0, 0], [0], [0], softmax(1, 1, 2), one, [text] * 2, one, note=text),
    ]


def cell_by_keys(page: Any, moves: str) -> None:
    """Moves over a map by arrow keys: r, l, d, u."""
    for move in moves:
        page.keyboard.press({"r": "ArrowRight", "l": "ArrowLeft", "d": "ArrowDown", "u": "ArrowUp"}[move])


def until(page: Any, expression: str) -> None:
    """Waits until this is so; the page's policy lets nothing inside it ask again and again."""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never so: {expression[:200]}")


def read_matrix(page: Any, size: int) -> np.ndarray:
    """All weights of the head that the matrix shows, as its read-out says them, by arrow keys."""
    page.locator(".view.matrix canvas[role=application]").focus()
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    found = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            place = column if row % 2 == 0 else size - 1 - column
            found[row, place] = number(page.locator(".readout b").inner_text())
            if column < size - 1:
                cell_by_keys(page, "r" if row % 2 == 0 else "l")
        cell_by_keys(page, "d")
    return found


def test_every_kind_is_drawn_without_a_word_to_anyone(opened: Open) -> None:
    shown = opened(*gallery(), name="All kinds")
    assert shown.page.title() == shown.page.inner_text("h1") == "All kinds"
    kinds = ["lines", "heatmap", "bars", "scatter", "words", "table", "attention"]
    assert [shown.page.locator(f"section.{kind} h2").count() for kind in kinds] == [1] * 7
    assert shown.page.locator("section.lines path.curve").count() == 2
    assert shown.page.locator("section.bars rect.bar").count() == 4
    assert shown.page.locator("section.scatter circle.point").count() == 5
    assert shown.page.locator("section.words .word").count() == 3
    assert shown.page.locator("section.table tbody tr").count() == 3
    assert shown.page.locator("section.attention .unit").count() == 4
    assert shown.page.locator("section figure:not([aria-label])").count() == 0


def test_hostile_text_is_text(opened: Open) -> None:
    shown = opened(*gallery(HOSTILE), name=HOSTILE)
    assert shown.page.locator("h1").text_content() == HOSTILE
    assert shown.page.locator("script").count() == 2
    assert {*shown.page.locator("h2").all_text_contents()} == {HOSTILE}
    assert {*shown.page.locator(".panel > .note").all_text_contents()} == {HOSTILE}
    token = shown.page.locator("section.words .token").first
    assert token.locator(".code").all_text_contents() == ["U+200B", "U+202E", "U+2028"]
    assert token.text_content() == re.sub("[\u200b\u202e\u2028]", lambda sign: f"U+{ord(sign[0]):04X}", HOSTILE)
    assert shown.page.locator("section.attention .unit .token").first.text_content() == token.text_content()
    assert shown.page.evaluate("getComputedStyle(document.querySelector('.token')).unicodeBidi") == "isolate"
    for summary in shown.page.locator("summary").all():
        summary.click()
    shown.page.locator(".word").first.hover()
    assert "<script>alert(1)</script>" in shown.tip()
    for name in ("matrix", "overview"):
        shown.page.click(f"[data-view={name}]")


def test_no_other_script_may_run(opened: Open) -> None:
    shown = opened(*gallery())
    shown.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 1'}))"
    )
    shown.page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    shown.page.wait_for_timeout(50)
    assert shown.page.evaluate("window.hit") is None
    assert len(shown.problems) == 2 and all("Content Security Policy" in problem for problem in shown.problems)
    shown.problems.clear()
    assert all(address.endswith("x.png") for address in shown.requests[1:])  # asked for, and refused
    del shown.requests[1:]


def test_lines(opened: Open) -> None:
    data = gallery()[0].as_dict()
    shown = opened(gallery()[0])
    page = shown.page
    page.locator("section.lines svg").focus()
    for at, value in enumerate(data["series"][0]["y"]):
        page.keyboard.press("ArrowRight")
        assert number(page.locator(".tip .pair b").first.inner_text()) == value
        assert f"name {at}" in shown.tip()
    assert page.locator(".tip .pair b").all_inner_texts()[1] == "\u2013"  # not a number there
    box = page.locator("section.lines .mark").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 90)
    assert number(page.locator(".tip .pair b").first.inner_text()) == data["series"][0]["y"][1]
    chip = page.locator("section.lines .chip").first
    chip.focus()
    page.keyboard.press("Enter")
    assert chip.get_attribute("aria-pressed") == "false"
    assert page.locator("section.lines path.curve").count() == 1
    page.click("section.lines summary")
    cells = page.locator("section.lines td:nth-child(2)")
    cells.first.wait_for()  # a table is made when it is opened
    assert [number(each) for each in cells.all_inner_texts()] == data["series"][0]["y"]


def test_heatmap(opened: Open) -> None:
    data = gallery()[1].as_dict()
    shown = opened(gallery()[1])
    canvas = shown.page.locator("section.heatmap canvas[role=application]")
    canvas.focus()
    cell_by_keys(shown.page, "rrrd")
    assert shown.tip_number() == data["values"][1][2]
    assert "\nb\n" in shown.tip()
    box = canvas.bounding_box()
    shown.page.mouse.move(box["x"] + 60, box["y"] + box["height"] - 20)
    assert shown.tip_number() == data["values"][2][0]
    shown.page.click("section.heatmap summary")
    shown.page.locator("section.heatmap td").first.wait_for()
    cells = [number(each) for each in shown.page.locator("section.heatmap td").all_inner_texts()]
    assert cells == [value for row in data["values"] for value in row]


def test_bars(opened: Open) -> None:
    data = gallery()[2].as_dict()
    shown = opened(gallery()[2])
    bars = shown.page.locator("section.bars rect.bar")
    for at in range(4):
        bars.nth(at).hover()
        value, _, ends = shown.page.locator(".tip b").inner_text().rstrip("]").partition(" [")
        assert float(value) == data["values"][at // 2][at % 2]
        assert [float(end) for end in ends.split(", ")] == data["ranges"][at // 2][at % 2]
    shown.page.keyboard.press("Escape")
    bars.first.focus()
    shown.page.keyboard.press("ArrowRight")
    assert number(shown.page.locator(".tip b").inner_text()) == data["values"][0][1]


def test_scatter(opened: Open) -> None:
    data = gallery()[3].as_dict()
    shown = opened(gallery()[3])
    assert shown.page.locator("section.scatter text.named").count() == 5
    shown.page.locator("section.scatter circle").first.focus()
    for (x, y), name in zip(data["points"], data["names"], strict=True):
        lines = shown.tip().splitlines()
        assert lines[0] == name
        assert [number(each) for each in lines[2].split(", ")] == [x, y]
        shown.page.keyboard.press("ArrowRight")
    shown.page.locator("section.scatter .chip").last.click()
    assert shown.page.locator("section.scatter circle").count() == 4


def test_words(opened: Open) -> None:
    shown = opened(gallery()[4])
    words = shown.page.locator("section.words .word")
    words.nth(1).hover()
    assert shown.tip_number() == 0.75
    words.nth(0).focus()
    assert shown.tip().split() == ["name", "\u2013", "name"]
    cell_by_keys(shown.page, "rr")
    assert shown.tip_number() == -0.5
    colors = words.evaluate_all("words => words.map(word => getComputedStyle(word).backgroundColor)")
    assert len({*colors}) == 3 and colors[0] == "rgba(0, 0, 0, 0)"


def test_table(opened: Open) -> None:
    shown = opened(gallery()[5])
    column = shown.page.locator("section.table tbody td:nth-child(2)")
    head = shown.page.locator("section.table th").nth(1)
    head.locator("button").click()
    assert (head.get_attribute("aria-sort"), column.all_inner_texts()) == ("descending", ["10", "2.5", "\u2013"])
    head.locator("button").press("Enter")
    assert (head.get_attribute("aria-sort"), column.all_inner_texts()) == ("ascending", ["2.5", "10", "\u2013"])
    head.locator("button").press("Enter")
    assert (head.get_attribute("aria-sort"), column.all_inner_texts()) == (None, ["2.5", "10", "\u2013"])
    shown.page.locator("section.table th button").first.click()
    assert shown.page.locator("section.table tbody td:nth-child(1)").all_inner_texts() == ["a", "b", "name"]


@pytest.mark.parametrize("budget", [panels.BUDGET, 650])
def test_weights_arrive(opened: Open, budget: int) -> None:
    given = replace(attention(), budget=budget)
    data = given.as_dict()
    assert data["bits"] == (8 if budget == 650 else 16)
    shown = opened(given)
    facts = shown.page.locator(".facts").inner_text()
    assert 1 <= number(facts.split("within ")[1]) / (100 * data["share"]) < 1.1  # rounded up
    shown.page.click("[data-view=matrix]")
    layer, head = shown.page.locator(".view.matrix select").nth(0), shown.page.locator(".view.matrix select").nth(1)
    for at, which in ((0, 0), (1, 2)):
        layer.select_option(str(at))
        head.select_option(str(which))
        shown.settle()
        found = read_matrix(shown.page, len(given.tokens))
        np.testing.assert_allclose(found, given.weights[at, which], atol=data["error"] + 1e-6, rtol=6e-4)


def test_pieces_are_joined(opened: Open) -> None:
    given = attention()
    shown = opened(given)
    shown.page.click("[data-view=matrix]")
    shown.page.click("text=Join word pieces")
    shown.settle()
    rows = np.add.reduceat(given.weights[0, 0], [0, 1, 2, 4, 5, 6, 7], axis=1)
    expected = np.add.reduceat(rows, [0, 1, 2, 4, 5, 6, 7], axis=0) / np.array([1, 1, 2, 1, 1, 1, 1])[:, None]
    found = read_matrix(shown.page, 7)
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=6e-4)
    np.testing.assert_allclose(found.sum(-1), 1, atol=2e-3)
    shown.page.click("[data-view=heads]")
    shown.settle()
    expected_words = ["[CLS]", "the", "riverbank", "[SEP]", "a", "bank", "[SEP]"]
    assert shown.page.locator(".reader .unit .token").all_inner_texts() == expected_words


def test_heads(opened: Open) -> None:
    given = attention()
    shown = opened(given)
    page = shown.page
    mean = given.weights[0].mean(0)
    page.locator(".reader .unit").nth(3).hover()
    weights = [number(each) for each in page.locator(".read .weight").all_inner_texts()]
    np.testing.assert_allclose(weights, mean[3], atol=2e-4)
    page.locator(".read .unit").nth(2).hover()
    weights = [number(each) for each in page.locator(".reader .weight").all_inner_texts()]
    np.testing.assert_allclose(weights, mean[:, 2], atol=2e-4)
    # a click keeps it; Escape lets it go
    page.locator(".reader .unit").nth(1).click()
    page.locator(".reader .unit").nth(5).hover()
    assert page.locator(".unit.pinned .token").all_inner_texts() == ["the"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert page.locator(".unit.pinned").count() == 0
    assert page.locator(".unit.shown .token").inner_text() == "river"
    # one head alone, of another layer, by keyboard
    page.locator(".chip").nth(2).click(modifiers=["Shift"])
    page.locator(".view.heads select").select_option("1")
    shown.settle()
    page.locator(".reader .unit").nth(2).focus()
    page.keyboard.press("Enter")
    weights = [number(each) for each in page.locator(".read .weight").all_inner_texts()]
    np.testing.assert_allclose(weights, given.weights[1, 2, 2], atol=2e-4)


def test_filters(opened: Open) -> None:
    given = attention()
    shown = opened(given)
    page = shown.page

    def status() -> str:
        shown.settle()
        return page.locator(".view.heads .axes").inner_text()

    assert status().startswith(f"{given.weights[0].size} lines. The strongest is ")
    page.locator(".controls input[type=range]").fill("0.4")
    assert number(status()) == (given.weights[0] >= 0.16).sum()
    assert page.locator(".controls output").inner_text() == "0.16"
    page.locator(".controls input[type=range]").fill("0")
    page.locator(".controls select").select_option(label="first text reads second")
    assert number(status()) == 3 * 3 * 2
    page.locator(".controls select").select_option(label="within each text")
    assert number(status()) == 3 * (9 + 4)
    page.locator("input[type=search]").fill("BANK")
    shown.settle()
    assert page.locator(".hits").inner_text() == "2 matches"
    assert page.locator(".reader .unit.found .token").all_inner_texts() == ["##bank", "bank"]
    page.get_by_role("button", name="none", exact=True).click()
    assert status() == "0 lines."


def test_tabs_and_overview(opened: Open) -> None:
    given = attention()
    shown = opened(given)
    page = shown.page
    page.locator("[data-view=heads]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "Matrix"
    page.keyboard.press("End")
    assert page.locator("[role=tabpanel]:visible").get_attribute("class") == "view overview"
    assert page.locator(".tile").count() == 6
    until(page, "[...document.querySelectorAll('.tile canvas')].every(canvas => canvas.width === 8)")
    tile = "document.querySelectorAll('.tile canvas')[1].toDataURL()"
    whole = page.evaluate(tile)
    page.locator(".controls input[type=range]").fill("0.6")
    until(page, f"{tile} !== {whole!r}")  # weights below the threshold are gone
    page.locator(".controls input[type=range]").fill("0")
    page.locator(".view.overview select").select_option(label="entropy")
    values = [number(each) for each in page.locator(".tile .value").all_inner_texts()]
    np.testing.assert_allclose(values, given.measures["entropy"].reshape(-1), rtol=6e-3)
    page.click("text=Join word pieces")
    shown.settle()
    values = [number(each) for each in page.locator(".tile .value").all_inner_texts()]
    np.testing.assert_allclose(values, given.word_measures["entropy"].reshape(-1), rtol=6e-3)
    page.get_by_role("button", name="layer 1, head 2").click()
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "Matrix"
    assert [each.input_value() for each in page.locator(".view.matrix select").all()] == ["1", "2", "0"]


def test_dark_and_light(opened: Open) -> None:
    brightness = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    shown = opened(*gallery(), attention(), scheme="dark")
    assert shown.page.evaluate(brightness) < 60
    shown.page.click("#theme")
    assert shown.page.evaluate(brightness) > 200
    assert opened(*gallery()).page.evaluate(brightness) > 200


def test_side_by_side_where_there_is_room(opened: Open) -> None:
    for width, beside in ((1500, True), (1100, False), (360, False)):
        shown = opened(attention(), attention(seed=1), width=width)
        first, second = (each.bounding_box() for each in shown.page.locator("section.attention").all())
        assert (first["y"] == second["y"]) == beside
        assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_texts_side_by_side_show_the_same_heads(opened: Open) -> None:
    shown = opened(attention(), attention(seed=1), attention(layers=1, seed=2), width=1500)
    page = shown.page
    page.locator(".view.heads select").first.select_option("1")
    page.locator("section.attention").first.locator(".chip").nth(2).click(modifiers=["Shift"])
    shown.settle()
    for at, layer, heads in ((0, "1", ["2"]), (1, "1", ["2"]), (2, "0", ["0", "1", "2"])):
        panel = page.locator("section.attention").nth(at)
        assert panel.locator(".view.heads select").input_value() == layer
        assert panel.locator(".chip[aria-pressed=true]").all_inner_texts() == heads


def test_a_text_that_is_read_later_begins_with_the_heads_chosen_before(opened: Open) -> None:
    filler = [Table(str(at), ["a"], [[row] for row in range(60)]) for at in range(4)]  # until it is scrolled to
    shown = opened(attention(), *filler, attention(seed=1), scroll=False)
    page = shown.page
    page.locator("section.attention[data-ready]").first.wait_for()
    assert page.locator("section.attention[data-ready]").count() == 1
    page.locator(".view.heads select").first.select_option("1")
    page.locator("section.attention").nth(1).scroll_into_view_if_needed()
    page.locator("section.attention[data-ready]").nth(1).wait_for()
    shown.settle()
    assert page.locator("section.attention").nth(1).locator(".view.heads select").input_value() == "1"


def test_narrow_screens_do_not_scroll_sideways(opened: Open) -> None:
    shown = opened(*gallery("a rather long name " * 3), attention(), width=360)
    assert shown.page.evaluate("document.documentElement.scrollWidth") == 360


def test_long_text(opened: Open) -> None:
    length, layers, heads = 512, 6, 12
    weights = softmax(layers, heads, length, spread=6)
    tokens = [f"w{at}" for at in range(length)]
    words, sources = [*range(length)], [0] * length
    given = Attention("long", tokens, words, sources, [*range(layers)], [*range(heads)], weights, {}, tokens, {})
    shown = opened(given)
    assert shown.size < 10_000_000
    page = shown.page
    page.get_by_role("button", name="all", exact=True).click()
    page.click("[data-view=matrix]")
    page.locator(".view.matrix select").last.select_option(label="16\u00d7")
    page.locator(".view.matrix canvas[role=application]").focus()
    found = json.loads(page.locator("#view").text_content())["panels"][0]
    for at in range(1, 9):
        cell_by_keys(page, "r")
        assert abs(number(page.locator(".readout b").inner_text()) - weights[0, 0, 0, at - 1]) < found["error"] + 1e-4


def test_parts_lead_to_each_other(opened: Open, tmp_path: Path) -> None:
    shown = opened(*gallery(), more=[Table("behind", ["a"], [["b"]])], name="Two parts")
    links = shown.page.locator("nav a")
    assert [each.get_attribute("aria-current") for each in links.all()] == ["page", None]
    links.nth(1).click()
    assert shown.page.locator("h2").all_inner_texts() == ["behind"]
    assert len(shown.requests) == 2 and shown.requests.pop().endswith("page0-2.html")


def test_kinds_of_words_have_a_key(opened: Open) -> None:
    shown = opened(Words("t", ["a", "b"], [1.0, -1.0], ["was c, masked", "was d, random"], True, "", {"masked": 1.0}))
    assert shown.page.locator(".kinds .word").all_inner_texts() == ["masked"]
    background = "words => words.map(word => getComputedStyle(word).backgroundColor)"
    key = shown.page.locator(".kinds .word").evaluate_all(background)
    assert key == shown.page.locator(".text .word").evaluate_all(background)[:1]


def test_the_page_is_of_the_source_that_is_here() -> None:
    inside = [file.relative_to(WEB).as_posix() for file in (WEB / "src").rglob("*") if file.is_file()]
    hashed = hashlib.sha256()
    for name in sorted([*inside, "package-lock.json", "page.html", "tsconfig.json", "vite.config.ts"]):
        hashed.update(f"{name}\0".encode() + (WEB / name).read_bytes())
    shipped = (Path(view.__file__).parent / "page.html").read_text(encoding="utf-8")
    assert f'name="source" content="{hashed.hexdigest()}"' in shipped, (
        "page.html is not of this source; run `make page`"
    )


def test_the_page_is_what_the_source_builds(tmp_path: Path) -> None:
    if not (WEB / "node_modules").is_dir():
        pytest.skip("web/node_modules is absent; `make page` installs it")
    if (npm := shutil.which("npm")) is None:
        pytest.skip("node is not installed")
    command = [npm, "run", "build", "--", "--outDir", str(tmp_path)]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    shipped = (Path(view.__file__).parent / "page.html").read_bytes()
    assert (tmp_path / "page.html").read_bytes() == shipped, "page.html is not of this source; run `make page`"
    assert shipped.count(view.PLACE.encode()) == 1
    assert len(shipped) < 150_000
