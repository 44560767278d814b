"""Cases written by a model behind a real server: what is read from good and bad answers, and what a killed run costs."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_server import Asked, FakeServer, Reply, delta, endpoint, good, plain, serving, stream, wait_for

from clozeline.errors import InputError
from clozeline.hardening.endpoint import Endpoint
from clozeline.hardening.filters import Candidate, Rejected
from clozeline.hardening.writing import Short, check_labels, filled, read_cases, read_template, write_cases
from processes import environment

LABELS = ("negative", "positive")
Case = Candidate | Rejected


def line(text: object, label: object = "positive") -> str:
    return json.dumps({"text": text, "label": label}, ensure_ascii=False)


GOOD = [line("Schön, wirklich"), line('two {braces} and "quotes"\nand a line')]
TEXTS = ["Schön, wirklich", 'two {braces} and "quotes"\nand a line']


@pytest.mark.parametrize(
    "answer",
    [
        "\n".join(GOOD),
        "\r\n".join(GOOD) + "\n\n",
        f"[{', '.join(GOOD)}]",
        f'{{"cases": [{", ".join(GOOD)}]}}',
        json.dumps({"note": "here", "texts": [json.loads(each) for each in GOOD]}, indent=2),
        "```json\n" + "\n".join(GOOD) + "\n```",
        f"```\n[{GOOD[0]},\n{GOOD[1]},\n]\n```\nHope that helps!",
        "Sure! Here are {2} texts:\n\n1. " + "\n2. ".join(GOOD) + "\n\nTell me if you want more.",
        '<think>They want {"text": "x", "label": "y"}.</think>\n' + "\n".join(GOOD),
        'no opening tag {"text": "x"} </think>' + " ".join(GOOD),
        "\n".join(GOOD).replace(r"\n", "\n"),
        "\n".join(GOOD).replace('"positive"', '" Positive "'),
        "\n".join(each[:-1] + ', "why": {"text": ["x"]}}' for each in GOOD),
    ],
)
def test_cases_are_read_however_they_are_wrapped(answer: str) -> None:
    found = list(read_cases(answer, "positive", "negation", "answer 3"))
    places = ["answer 3, case 1", "answer 3, case 2"]
    assert found == [Candidate(text, "positive", "negation", at) for text, at in zip(TEXTS, places, strict=True)]


def test_what_came_whole_before_a_cut_is_kept() -> None:
    for answer in ("\n".join(GOOD), f"[{', '.join(GOOD)}]", f'{{"cases": [{", ".join(GOOD)}]}}'):
        ends = [answer.index(each) + len(each) for each in GOOD]
        for end in range(len(answer)):
            found = list(read_cases(answer[:end], "positive", "negation", "a"))
            kept = [each.text for each in found if isinstance(each, Candidate)]
            assert kept == TEXTS[: sum(end >= each for each in ends)]
            assert all(each.reason == "malformed" for each in found if isinstance(each, Rejected))
            if end > answer.index(GOOD[1]) + 1 and end < ends[1]:
                assert found[-1] == Rejected(answer[answer.index(GOOD[1]) : end].strip(), "malformed", "a, case 2")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ('{"text": "no comma" "label": "positive"}', '{"text": "no comma" "label": "positive"}'),
        ('{"text": "bare", "label": positive}', None),
        ("{'text': 'single', 'label': 'positive'}", None),
        ('{"sentence": "other name", "label": "positive"}', None),
        (line(""), None),
        (line(" \n"), None),
        (line(7), None),
        (line(None), None),
        (line(["a"]), None),
        ('{"text": "no label"}', None),
        (line("none", None), None),
        (line("true", True), None),
        ('{"text": ' + "9" * 5000 + ', "label": "positive"}', '{"text": ' + "9" * 491),
        ('{"text": ' + "[" * 100_000 + ', "label": "positive"}', '{"text": ' + "[" * 491),
        ('{"cases": ["only a text"]}', "only a text"),
        ('{"cases": [["nested"]]}', '["nested"]'),
        ('{"text": "half a character \\ud83e", "label": null}', '{"text": "half a character �", "label": null}'),
    ],
)
def test_what_cannot_be_read_is_rejected_and_its_neighbours_are_not(entry: str, text: str | None) -> None:
    found = list(read_cases("\n".join([GOOD[0], entry, GOOD[1]]), "positive", "negation", "a"))
    assert [each.text for each in found if isinstance(each, Candidate)] == TEXTS
    assert found[1] == Rejected(entry if text is None else text, "malformed", "a, case 2")
    assert len(found) == 3
    found[1].text.encode()


@pytest.mark.parametrize(
    "answer", ["", "I cannot help with that.", "<think>and on", "[1, 2]", '{"text": ["a"', "\0{}[]"]
)
def test_an_answer_without_cases_is_one_that_is_malformed(answer: str) -> None:
    assert list(read_cases(answer, "positive", "negation", "a")) == [Rejected(answer, "malformed", "a, case 1")]


def test_a_label_other_than_the_one_asked_for_is_rejected() -> None:
    answer = "\n".join([line("a", "negative"), line("b"), line("c", "neutral"), line("d", "2")])
    found = list(read_cases(answer, "positive", "negation", "a"))
    assert [each.reason if isinstance(each, Rejected) else None for each in found] == ["label", None, "label", "label"]
    assert found[0].text == "a"
    assert next(read_cases('{"text": "x", "label": 2}', "2", "c", "a")) == Candidate("x", "2", "c", "a, case 1")


def test_the_prompts_that_come_along_are_whole() -> None:
    cases, check = read_template("cases"), read_template("check")
    values = {"count": "5", "capability": "irony", "about": "It means the other {label}.", "label": '"bad"'}
    prompt = filled(cases, values | {"labels": '"bad", "good"', "examples": "{count}"})
    assert '"label": "bad"}' in prompt
    assert 'is "bad"' in prompt
    assert "Write 5 new texts of this kind: irony. It means the other {label}." in prompt
    assert "\n{count}\n" in prompt
    prompt = filled(check, {"texts": "1. x", "labels": '"bad"'})
    assert '{"number": 1, "label": "..."}' in prompt


def test_a_users_prompt_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text('{count} {label} {capability} {"a": {}} { x } {1} }{', encoding="utf-8-sig")
    values = {"count": "1", "label": "2", "capability": "3"}
    assert filled(read_template("cases", path), values) == '1 2 3 {"a": {}} { x } {1} }{'
    for text, said in {
        "{count} {label} {capability} {capabilty}": "unknown slot {capabilty}: did you mean 'capability'? Allowed: 'count'",
        "{count} {labels}": "lacks {capability}, {label}: put it where",
        "": "lacks {count}",
    }.items():
        path.write_text(text)
        with pytest.raises(InputError, match=re.escape(said)):
            read_template("cases", path)
    path.write_bytes(b"\xff{count}")
    for wrong, said in ((path, "it is not UTF-8"), (tmp_path / "none.txt", "No such file")):
        with pytest.raises(InputError, match=f"{wrong} cannot be read: {said}"):
            read_template("check", wrong)


def asked_for(prompt: str) -> tuple[str, int]:
    """The label and the count that a prompt of `cases.txt` asks for."""
    label, count = re.search(r'of every text is "(\w+)"', prompt), re.search(r"Write (\d+) new", prompt)
    assert label is not None
    assert count is not None
    return label[1], int(count[1])


def model(asked: Asked, earlier: int = 0) -> str:
    """What a model would write: new texts for each seed, one of four of them not as it was asked for."""
    label, count = asked_for(asked[0])
    texts = [f"{label} text {number} of seed {asked[1]} “für dich”" for number in range(count)]
    lines = [line(text, "neutral" if at == 1 else label) for at, text in enumerate(texts)]
    return "\n".join([*lines[:3], '{"text": "broken', *lines[3:]])


def write(asking: Endpoint, wanted: int = 10, said: list[Short | None] | None = None, **changes: Any) -> list[Case]:
    """What comes. said: gets why there are fewer than wanted."""
    options: dict[str, Any] = dict(capability="irony", about="It means the other.", per_request=5) | changes

    def run() -> Iterator[Case]:
        why = yield from write_cases(asking, labels=LABELS, wanted=wanted, **options)
        (said if said is not None else []).append(why)

    return list(run())


def good_texts(found: Sequence[Case], label: str) -> list[str]:
    return [each.text for each in found if isinstance(each, Candidate) and each.label == label]


def test_labels_take_turns_until_enough_are_there(tmp_path: Path) -> None:
    with serving(lambda asked, earlier: good(model(asked))) as server:
        found = write(endpoint(server, tmp_path, seed=100), examples=[("Oh, great.", "negative")])
        prompts = [body["messages"][0]["content"] for body in server.asked]
        assert [asked_for(prompt) for prompt in prompts] == [("negative", 5), ("positive", 5)] * 3
        assert [body["seed"] for body in server.asked] == [100, 100, 101, 101, 102, 102]
        assert '{"text": "Oh, great.", "label": "negative"}' in prompts[0]
        assert [len(good_texts(found, label)) for label in LABELS] == [
            12,
            12,
        ]  # all of the last answer: it was paid for
        reasons = [each.reason for each in found if isinstance(each, Rejected)]
        assert sorted(reasons) == ["label"] * 6 + ["malformed"] * 6
        assert found[0] == Candidate("negative text 0 of seed 100 “für dich”", "negative", "irony", "answer 1, case 1")

        assert write(endpoint(server, tmp_path, seed=100), examples=[("Oh, great.", "negative")]) == found
        assert len(server.asked) == 6
        more = write(endpoint(server, tmp_path, seed=100), 13, examples=[("Oh, great.", "negative")])
        assert more[: len(found)] == found
        assert len(server.asked) == 8


def test_it_stops_at_the_most_requests_and_says_so(tmp_path: Path) -> None:
    said: list[Short | None] = []
    with serving(lambda asked, earlier: good(model(asked))) as server:
        found = write(endpoint(server, tmp_path), 99, said, most_requests=5)
        assert len(server.asked) == 5
    assert [len(good_texts(found, label)) for label in LABELS] == [12, 8]
    assert said == [Short(5, 5, ())] and str(said[0]) == "after 5 requests, the most allowed"


@pytest.mark.parametrize("answer", ["I will not.", line("Always the same."), line("other", "neutral"), ""])
def test_a_label_that_gives_nothing_new_is_given_up(answer: str, tmp_path: Path) -> None:
    said: list[Short | None] = []

    def script(asked: Asked, earlier: int) -> Reply:
        return good(answer if asked_for(asked[0])[0] == "positive" else model(asked))

    with serving(script) as server:
        found = write(endpoint(server, tmp_path), 40, said, most_requests=100)
        assert len(server.asked) == 10 + 3 + ("same" in answer)
    assert len(good_texts(found, "negative")) == 40
    assert str(said[0]).endswith('requests, the last 3 of which gave nothing new for "positive"')
    assert len([each for each in found if each.text == json.loads(answer)["text"]]) >= 3 if "{" in answer else True


def judge(asked: Asked) -> str:
    """What a model would say of numbered texts: the label that stands in each."""
    lines = []
    for number, text in re.findall(r'^(\d+)\. "(.*)"$', asked[0], flags=re.M):
        label = next((label for label in LABELS if label in text), "neutral")
        lines.append(json.dumps({"number": int(number), "label": label, "why": "..."}))
    return "\n".join(lines)


def test_labels_are_checked_by_asking_for_nothing_else(tmp_path: Path) -> None:
    texts = [f'a {LABELS[at % 2]} text,\nline "{at}"' if at % 5 else "none of them" for at in range(23)]
    with serving(lambda asked, earlier: good(judge(asked))) as server:
        found = check_labels(endpoint(server, tmp_path), texts, LABELS, per_request=10)
        assert len(server.asked) == 3
    assert found == [LABELS[at % 2] if at % 5 else None for at in range(23)]


def test_what_a_check_leaves_out_is_asked_for_once_more(tmp_path: Path) -> None:
    first = [
        '{"number": 1, "label": " Positive"}',
        '{"number": "2", "label": "negative"}',
        '{"number": 2, "label": "positive"}',
        '{"number": 9, "label": "positive"}',
        '{"number": 0, "label": "positive"}',
        '{"number": 3, "label": ["positive"]}',
        '{"number": 4, "label',
    ]
    answers = ["\n".join(first), '{"number": 1, "label": "negative"}']
    with serving(lambda asked, earlier: good(answers[asked[1]])) as server:
        found = check_labels(endpoint(server, tmp_path), list("abcde"), LABELS)
        prompts = [body["messages"][0]["content"] for body in server.asked]
    assert found == ["positive", None, None, "negative", None]
    assert len(prompts) == 2
    assert '\n1. "d"\n2. "e"\n' in prompts[1]
    assert '"a"' not in prompts[1]


def test_a_server_at_its_worst_gives_what_it_has(tmp_path: Path) -> None:
    """Each way of going wrong once, each on the first try of a request of its own."""

    def script(asked: Asked, earlier: int) -> Reply:
        text = model(asked)
        if earlier or asked_for(asked[0])[0] == "positive":
            return good(text)
        busy = plain({"error": {"message": "busy"}}, 429, Retry_After="1")
        replies = [
            *(busy, plain({}, 500), Reply([], hangs=True), Reply([b"data: ?\n\n", b"data: [DONE]\n\n"])),
            Reply([delta("")], breaks=True),
            Reply(stream(text)[:6], breaks=True),
            plain({"choices": [{"message": {"content": text}}]}),
            *(good("{" * 50), good(line("again", "negative")), good(line("again", "negative"))),
        ]
        return replies[asked[1]] if asked[1] < len(replies) else good(text)

    with serving(script) as server:
        asking = endpoint(server, tmp_path, timeout=0.3)
        found = write(asking, 31, most_requests=100)
        again = write(endpoint(server, tmp_path), 31, most_requests=100)
        assert server.paid.pop((server.asked[0]["messages"][0]["content"], 4)) == 2  # the first time without a letter
        assert set(server.paid.values()) == {1}
    assert again == found
    negative = good_texts(found, "negative")
    assert len(negative) - negative.count("again") + 1 >= 31
    assert sum(isinstance(each, Rejected) for each in found) >= 20
    now = asking.spent().now
    assert (now.retries, now.cut, now.uncounted) == (5, 1, 2)


WRITE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from clozeline.hardening.endpoint import Endpoint, EndpointSettings
from clozeline.hardening.filters import Candidate
from clozeline.hardening.writing import check_labels, write_cases
url, folder = sys.argv[1:]
asking, labels = Endpoint(EndpointSettings(url, "m", timeout=20), Path(folder)), ("negative", "positive")
found = list(write_cases(asking, capability="irony", about="", labels=labels, wanted=20, per_request=5))
texts = [each.text for each in found if isinstance(each, Candidate)]
checked = check_labels(asking, texts, labels, per_request=10)
print(json.dumps([[asdict(each) for each in found], checked]))
"""


def child(server: FakeServer, folder: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WRITE, server.url, str(folder)]
    return subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, text=True)


def both(asked: Asked, earlier: int) -> Reply:
    return Reply(stream(judge(asked) if "numbered text" in asked[0] else model(asked), 200))


def finished(server: FakeServer, folder: Path) -> Any:
    with child(server, folder) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(out)


def test_kills_between_answers_change_nothing_and_cost_nothing(tmp_path: Path) -> None:
    with serving(both) as server:
        expected = finished(server, tmp_path / "whole")
        needed = len(server.asked)
    assert needed == 10 + 4
    with serving(both) as server:
        for answers in sorted(random.Random(0).sample(range(1, needed), 3)):
            server.hold(answers - sum(server.paid.values()))
            with child(server, tmp_path / "killed") as process:
                assert server.held.wait(30)
                process.kill()
            assert sum(server.paid.values()) == answers
            server.release.set()
        server.hold(needed)
        assert finished(server, tmp_path / "killed") == expected
        assert len(server.paid) == needed
        assert set(server.paid.values()) == {1}


def test_a_kill_in_mid_stream_keeps_the_whole_cases_and_asks_for_what_is_missing(tmp_path: Path) -> None:
    begun: list[str] = []

    def script(asked: Asked, earlier: int) -> Reply:
        if len(server.asked) != 3:
            return both(asked, earlier)
        text = model(asked)
        begun.append(text[: text.index("\n") + 20])
        return Reply([delta(begun[0][:30]), delta(begun[0][30:])], hangs=True)

    with serving(script) as server:
        with child(server, tmp_path) as process:
            wait_for(
                lambda: bool(begun) and any(path.read_bytes().count(b"\n") == 2 for path in tmp_path.glob("*.part"))
            )
            process.kill()
        assert len(server.asked) == 3
        given, checked = finished(server, tmp_path)
        assert len(server.asked) == len(server.paid)
        assert set(server.paid.values()) == {1}
    first, cut = begun[0].splitlines()
    assert [each["text"] for each in given if each["place"].startswith("answer 3,")] == [
        json.loads(first)["text"],
        cut.strip(),
    ]
    for label in LABELS:
        assert len([each for each in given if each.get("label") == label]) >= 20
    assert len(checked) == len([each for each in given if "label" in each])
    assert set(checked) == set(LABELS)
