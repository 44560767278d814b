"""The loop with a server that writes the cases: its bill, what is asked for again, and what it is never asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import Asked, FakeServer, Reply, good, serving

import clozeline as cl
from clozeline.hardening.experiment import harden
from clozeline.hardening.writing import TIMES, CaseServer
from helpers import PLAIN, reviews, write_csv

SLANG = {"negative": "w40", "positive": "w41"}
EACH = 5  # texts of an answer
WANTED = 15  # cases of each label: half of a fifth of all rows, where 120 are ordinary


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, count, seed in (("train", 120, 1), ("test", 60, 3), ("extra", 60, 4)):
        write_csv(folder / f"{name}.csv", reviews(count, seed))
    lines: list[dict[str, Any]] = [
        {"capability": "slang", "test": "minimum", "text": f"{SLANG[label]} {text}", "label": label}
        for text, label in reviews(20, 6)
    ]
    lines.append({"capability": "facts", "test": "minimum", "text": "w1 opens at w2.", "unsure": True})
    lines.append(
        {"capability": "typos", "test": "invariance", "text": "w1 w2 w3", "changed": "w1 w3 w2", "change": "x"}
    )
    more = {"capability": "more", "test": "direction", "text": "w1 w2", "changed": "w1 w1 w2", "label": "positive"}
    lines.append(more | {"moves": "up"})
    (folder / "suite.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def writer(right: Callable[[str], bool], sent: list[str] | None = None) -> Callable[[Asked, int], Reply]:
    """Five new texts of the label that is asked for; when labels are asked for, the right ones where `right` says so.

    sent: gets what goes out.
    """

    def script(asked: Asked, earlier: int) -> Reply:
        prompt, seed = asked
        wanted = re.search(r'right label of every text is "(\w+)"', prompt)
        if wanted is None:
            texts = re.findall(r'^(\d+)\. "(.*)"$', prompt, re.MULTILINE)
            label = {text: next(name for name, word in SLANG.items() if word in text) for _, text in texts}
            lines = [{"number": int(at), "label": label[text] if right(text) else "?"} for at, text in texts]
        else:
            random = np.random.default_rng([seed, len(wanted[1])])
            some = [" ".join([SLANG[wanted[1]], *random.choice(PLAIN[:40], 6)]) for _ in range(EACH)]
            lines = [{"text": text, "label": wanted[1]} for text in some]
        (sent if sent is not None else []).append("\n".join(map(json.dumps, lines)))
        return good("\n".join(map(json.dumps, lines)))

    return script


def hardened(tiny: Path, files: Path, server: FakeServer, out: Path, **changes: Any) -> Any:
    given: dict[str, Any] = dict(extra=files / "extra.csv", suite=files / "suite.jsonl", capability="slang", share=0.2)
    given |= dict(seeds=1, epochs=1, batch_size=16, learning_rate=2e-3, precision="fp32", probes=[], quiet=True)
    cases = CaseServer(server.url, "tiny-llm", per_request=EACH, price_out=1e6)
    return harden(tiny, files / "train.csv", files / "test.csv", **{**given, **changes}, cases=cases, out=out)


def written(server: FakeServer) -> int:
    return sum("right label of every text" in body["messages"][0]["content"] for body in server.asked)


def stopped(out: Path) -> None:
    """As if the run had been killed before its report."""
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(state | {"finished": False}))


def test_the_bill_is_what_the_server_counts_the_second_pass_too(tiny: Path, files: Path, tmp_path: Path) -> None:
    sent: list[str] = []
    with serving(writer(lambda text: True, sent)) as server:
        found = hardened(tiny, files, server, tmp_path)
        assert len(server.asked) > written(server) >= 2 * WANTED / EACH
        told = json.loads((tmp_path / "report.json").read_text())
        now = told["spent"]["now"]
        assert (now["answers"], now["tokens_in"]) == (len(server.asked), 10 * len(server.asked))
        assert now["tokens_out"] == now["cost"] == sum(map(len, sent))
        assert any(f"asked: {len(server.asked)} answers" in note for note in told["notes"])
        stopped(tmp_path)
        again = hardened(tiny, files, server, tmp_path, resume=True)
        assert (again.spent.now.answers, again.spent.before.answers) == (0, len(sent))
        assert again.spent.before.cost == found.spent.now.cost


def test_what_the_filters_take_is_asked_for_again_and_paid_once(tiny: Path, files: Path, tmp_path: Path) -> None:
    """The label check takes about half of the texts."""
    with serving(writer(lambda text: sum(map(ord, text)) % 2 == 0)) as server:
        found = hardened(tiny, files, server, tmp_path)
        asked = len(server.asked)
        assert 2 * WANTED / EACH < written(server) <= TIMES * 2 * WANTED / EACH
        assert found.sifted.counts["label check"] > 10
        labels = [case.label for case in found.sifted.kept]
        assert min(labels.count(label) for label in SLANG) >= WANTED
        assert (len(found.mixture.cases), found.mixture.times) == (2 * WANTED, "once")
        assert not any("were wanted" in note for note in found.notes)
        stopped(tmp_path)
        again = hardened(tiny, files, server, tmp_path, resume=True)
        assert len(server.asked) == asked and set(server.paid.values()) == {1}
        assert again.as_dict() | {"notes": (), "spent": None} == found.as_dict() | {"notes": (), "spent": None}


def test_too_few_are_asked_for_no_longer_than_allowed_and_that_is_said(
    tiny: Path, files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The label check takes all but about one of eight."""
    with serving(writer(lambda text: sum(map(ord, text)) % 8 == 0)) as server:
        found = hardened(tiny, files, server, tmp_path)
        assert written(server) == TIMES * 2 * WANTED / EACH
    left, times = len(found.sifted.kept), found.mixture.times
    assert 2 <= left < 2 * WANTED / 2 and times != "once"
    said = f"{2 * WANTED} cases were wanted, {left} are left after the filters; each is trained on {times}."
    assert said in found.notes and said in caplog.text and said in (tmp_path / "report.md").read_text()
    asked = TIMES * 2 * WANTED // EACH
    why = (
        f"slang: {WANTED} texts of each label were wanted; after {asked} requests, the most allowed, the filters left "
    )
    assert any(note.startswith(why) for note in found.notes), found.notes


@pytest.mark.parametrize("name", ["facts", "typos", "more"])
def test_what_has_no_texts_with_labels_is_not_asked_for(name: str, tiny: Path, files: Path, tmp_path: Path) -> None:
    with serving(writer(lambda text: True)) as server:
        with pytest.raises(cl.InputError, match=f"cases of {name}: .* Those that can be asked for: slang"):
            hardened(tiny, files, server, tmp_path / "out", capability=["slang", name])
        assert not server.asked and not (tmp_path / "out").exists()
