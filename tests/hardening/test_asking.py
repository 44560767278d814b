"""While a server works, stderr says how far it is; stdout says nothing, and who asked for quiet reads nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fake_server import Asked, FakeServer, Reply, good, plain, serving

from clozeline.hardening.asking import Asking
from clozeline.hardening.endpoint import Endpoint
from clozeline.hardening.filters import Candidate, Rejected
from clozeline.hardening.writing import CaseServer, Short

WANTED = 8
GOAL = {"bad": 4, "fine": 4}


def script(asked: Asked, earlier: int) -> Reply:
    """Two new texts and one of another label an answer, the second answer after a refusal; labels of all but one text."""
    prompt, seed = asked
    label = re.search(r'right label of every text is "(\w+)"', prompt)
    if label is None:
        said = [int(at) for at in re.findall(r"^(\d+)\. ", prompt, re.MULTILINE)]
        return good("\n".join(json.dumps({"number": at, "label": "bad" if at > 1 else "?"}) for at in said))
    if seed == 1 and label[1] == "bad" and earlier == 0:
        return plain({"error": {"message": "busy"}}, 503)
    texts = [(f"{label[1]} text {seed} {at}", label[1]) for at in range(2)] + [("Odd one.", "other")]
    return good("\n".join(json.dumps({"text": text, "label": each}) for text, each in texts))


def asking(server: FakeServer, folder: Path, quiet: bool = False) -> Asking:
    case_server = CaseServer(server.url, "tiny-llm", per_request=3, price_out=1000.0)
    endpoint = Endpoint(case_server, folder, sleep=lambda seconds: None)
    return Asking(case_server, endpoint, {"bad": "0", "fine": "1"}, ["bad", "fine"], quiet)


def test_progress_is_on_stderr_and_tells_what_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why: dict[str, Short] = {}
    with serving(script) as server:
        works = asking(server, tmp_path)
        found = list(works.cases("irony", "Meant otherwise.", GOAL, [("An example.", "0")], why))
        out, err = capsys.readouterr()
        assert (sum(isinstance(one, Candidate) for one in found), why, out) == (WANTED, {}, "")
        lines = err.splitlines()
        assert [re.findall(r"(\d+) of 8", line) for line in lines] == [["2"], ["4"], ["6"], ["8"]]
        rejected = sum(isinstance(one, Rejected) for one in found)
        assert f"{rejected} rejected" in lines[-1] and "4 answers (1 retries)" in lines[-1]
        assert re.search(r"\d+ out, .*tokens/s\), cost 0\.\d+  0 s left$", lines[-1])
        assert lines[0].startswith("25 %  cases of irony: ") and "left" not in lines[0], (
            "of one answer no rate is known"
        )
        assert works.again(["Ein Text.", "Another text."]) == [None, "0"]
        assert "labels asked for again: 2 of 2, 1 rejected; asked: 5 answers" in capsys.readouterr().err


def test_what_is_on_disk_and_who_asks_for_quiet_show_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(script) as server:
        for works in (asking(server, tmp_path, quiet=True), asking(server, tmp_path)):
            list(works.cases("irony", "Meant otherwise.", GOAL, [("An example.", "0")], {}))
            assert capsys.readouterr() == ("", "")
        assert len(server.asked) == 5
