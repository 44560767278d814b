"""The client of an endpoint against a real server: what it makes of good and bad answers, and what it pays for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from fake_server import TEXT, Asked, Reply, delta, endpoint, event, good, plain, serving, stream, then, usage

from clozeline.errors import InputError
from clozeline.hardening.answers import Answer
from clozeline.hardening.endpoint import Endpoint, EndpointSettings, NoAnswer
from clozeline.hardening.wire import address


def ask_once(reply: Reply, folder: Path) -> Answer:
    with serving(lambda asked, earlier: reply) as server:
        return endpoint(server, folder, timeout=patience(reply)).ask("hello", 0)


def patience(reply: Reply) -> float:
    """Seconds: few only where they have to pass, for a good answer may take its time on a busy machine."""
    return 0.3 if reply.hangs else 20.0


def test_a_stream_is_read_and_counted(tmp_path: Path) -> None:
    with serving(lambda asked, earlier: good(TEXT)) as server:
        asking = endpoint(server, tmp_path, seed=40, temperature=0.5, price_in=2.0, price_out=1e3)
        answer = asking.ask("hello", 2)
    assert (answer.text, answer.cut, answer.cached) == (TEXT, False, False)
    assert (answer.tokens_in, answer.tokens_out, answer.retries) == (10, len(TEXT), 0)
    assert server.paths == ["/v1/chat/completions"]
    assert server.asked == [
        {
            "model": "tiny-llm",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0.5,
            "seed": 42,
            "max_tokens": 2048,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]
    spent = asking.spent()
    assert spent.now.cost == pytest.approx((10 * 2 + len(TEXT) * 1000) / 1e6)
    assert (spent.now.answers, spent.now.tokens_in, spent.now.tokens_out) == (1, 10, len(TEXT))
    assert spent.now.rate == pytest.approx(len(TEXT) / answer.seconds)
    assert spent.before.answers == 0


def test_what_was_paid_for_is_not_asked_again(tmp_path: Path) -> None:
    with serving(lambda asked, earlier: good(f"{asked} {earlier}")) as server:
        first = endpoint(server, tmp_path, price_out=1e6)
        given = [first.ask("hello", number) for number in (0, 1, 0)]
        second = endpoint(server, tmp_path, price_out=1e6, timeout=9.0)
        again = [second.ask("hello", number) for number in (0, 1, 2)]
        assert len(server.asked) == 3
        for change in ({"model": "other"}, {"temperature": 0.1}, {"max_tokens": 7}, {"seed": 100}, {"seed": None}):
            endpoint(server, tmp_path, **change).ask("hello", 0)
        endpoint(server, tmp_path).ask("Hello", 0)
        assert len(server.asked) == 9
    assert [each.cached for each in given] == [False, False, True]
    assert [each.cached for each in again] == [True, True, False]
    assert [each.text for each in given[:2]] == [each.text for each in again[:2]]
    assert (first.spent().now.answers, first.spent().before.answers) == (2, 0)
    spent = second.spent()
    assert (spent.now.answers, spent.before.answers) == (1, 2)
    assert spent.before.tokens_out == sum(len(each.text) for each in given[:2])
    assert spent.before.cost == spent.before.tokens_out
    assert "\n" not in str(spent)
    assert "from before: 2 answers" in str(spent)


def test_a_server_elsewhere_takes_over_what_another_has_answered(tmp_path: Path) -> None:
    with serving(lambda asked, earlier: good("one")) as server:
        endpoint(server, tmp_path).ask("hello", 0)
    with serving(lambda asked, earlier: good("two")) as server:
        assert endpoint(server, tmp_path).ask("hello", 0).text == "one"


def split(text: str) -> list[bytes]:
    """A good stream in chunks of three bytes: no line is whole in one, and no character of several bytes is."""
    whole = b"".join(stream(text))
    return [whole[at : at + 3] for at in range(0, len(whole), 3)]


HALVES = [
    b'data: {"choices": [{"delta": {"content": "\\ud83e"}}]}\n\n',
    b'data: {"choices": [{"delta": {"content": "\\udd4a"}, "finish_reason": "stop"}]}\n\n',
]
LISTS = {"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]}
BESIDE = [
    event({"choices": [{"delta": {"role": "assistant", "content": None, "reasoning_content": "hm"}}]}),
    event({"choices": [], "prompt_filter_results": []}),
    b"event: message\nid: 7\nretry: 10\n",
    delta("o", ""),
    delta("k", "stop"),
]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(split(TEXT)), TEXT),
        (Reply([b"".join(stream(TEXT)).replace(b"\n", b"\r\n")]), TEXT),
        (Reply([b"".join(stream(TEXT)).replace(b"data: ", b"data:")]), TEXT),
        (Reply([*HALVES]), "🥊"),
        (Reply([delta("no end"), b"data: [DONE]"]), "no end"),
        (Reply([delta("no done", "stop")], breaks=True), "no done"),
        (Reply([delta("no done, open", "stop")], hangs=True), "no done, open"),
        (Reply(BESIDE), "ok"),
        (plain({"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]}), TEXT),
        (plain(json.dumps({"choices": [{"message": {"content": "lines"}}]}, indent=1).encode()), "lines"),
        (plain(LISTS), "ab"),
        (plain({"choices": [{"text": "old", "finish_reason": None}], "usage": {"completion_tokens": "?"}}), "old"),
    ],
)
def test_servers_differ(reply: Reply, text: str, tmp_path: Path) -> None:
    answer = ask_once(reply, tmp_path)
    assert (answer.text, answer.cut, answer.retries) == (text, False, 0)


BUSY = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}


@pytest.mark.parametrize(
    "bad",
    [
        plain(BUSY, 429),
        *(plain({"error": "oops"}, status) for status in (500, 502, 503, 504)),
        Reply([], hangs=True),
        Reply([b": ping\n\n"] * 40, pause=0.02, hangs=True),
        Reply([], breaks=True),
        Reply([event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})], breaks=True),
        Reply([delta(" \n")], breaks=True),
        Reply([event({"error": {"message": "overloaded", "code": 503}})]),
        Reply([event({"error": {"message": "overloaded", "type": "server_error"}})]),
        Reply([b"data: {oops\n\n", b"data: 7\n\n", b"\xff\xfe\n\n", b"data: [DONE]\n\n"]),
        Reply([b"data: [DONE]\n\n"]),
        plain(b'{"choices": [{"message": {"content": "half of i'),
        plain({}),
        plain(b"[" * 100_000),
    ],
)
def test_what_may_pass_is_tried_again(bad: Reply, tmp_path: Path) -> None:
    waits: list[float] = []
    with serving(then(bad, bad, good(TEXT))) as server:
        answer = endpoint(server, tmp_path, waits, timeout=patience(bad)).ask("hello", 0)
    assert (answer.text, answer.cut, answer.retries) == (TEXT, False, 2)
    assert len(waits) == 2
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2
    assert server.paid[("hello", 0)] <= 1 + 2 * any(b'"content"' in part for part in bad.parts)


def test_a_server_says_how_long_to_wait(tmp_path: Path) -> None:
    waits: list[float] = []
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    busy = [plain(BUSY, 429, Retry_After=after) for after in ("7", date, "soon")]
    with serving(then(*busy, good(TEXT))) as server:
        assert endpoint(server, tmp_path, waits).ask("hello", 0).text == TEXT
    assert waits[0] == 7
    assert 45 < waits[1] <= 50
    assert waits[2] <= 4


def test_it_gives_up_in_the_end(tmp_path: Path) -> None:
    waits: list[float] = []
    with serving(lambda asked, earlier: good("yes") if earlier > 3 else plain(BUSY, 429)) as server:
        asking = endpoint(server, tmp_path, waits)
        with pytest.raises(NoAnswer, match=r"answered 429 .*: slow down \(tries: 4, .* run again to go on"):
            asking.ask("hello", 0)
        assert (len(server.asked), len(waits)) == (4, 3)
        assert asking.ask("hello", 0).text == "yes"


def test_all_waiting_together_has_a_ceiling(tmp_path: Path) -> None:
    waits: list[float] = []
    said = r"asks to wait 40 s \(tries: 3, waited 80 s of at most 100\)"
    reply = plain(BUSY, 503, Retry_After="40")
    with serving(lambda asked, earlier: reply) as server, pytest.raises(NoAnswer, match=said):
        endpoint(server, tmp_path, waits, longest_wait=100.0, tries=50).ask("hello", 0)
    assert waits == [40, 40]


def test_nobody_answers(tmp_path: Path) -> None:
    with serving(lambda asked, earlier: good("")) as server:
        asking = endpoint(server, tmp_path)
    with pytest.raises(NoAnswer, match=f"The server at {server.url}/v1/chat/completions cannot be reached .*refused"):
        asking.ask("hello", 0)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (plain({"error": {"message": "bad\nprompt"}}, 400), "answered 400 Bad Request: bad prompt. Check the url"),
        (plain({"error": {"message": "who?"}}, 401), "who?. Name the environment variable that holds the key"),
        (plain({"detail": "not you"}, 403), "not you. Its key may not use this model"),
        (plain({"error": 'model "x" not found, try pulling it first'}, 404), "pulling it first. Check the name"),
        (plain(b"\x1b[31m<h1>no</h1>" + b"x" * 900, 405), "answered 405 Method Not Allowed: [31m<h1>no</h1>xxx"),
        (plain({}, 301, Location="https://elsewhere/v1?key=1"), "it sends to https://elsewhere/v1; give that url"),
        (Reply([b"<!doctype html><title>Chat</title>"], headers={"Content-Type": "text/html"}), "<!doctype html>"),
        (Reply([event({"error": {"message": "no such model", "code": 404}})]), "failed: no such model. Check the name"),
        (Reply([b"data: " + b"x" * (1 << 24)]), "sent more than 16 MiB for one answer"),
    ],
)
def test_what_will_not_pass_is_said_at_once(reply: Reply, said: str, tmp_path: Path) -> None:
    with serving(lambda asked, earlier: reply) as server, pytest.raises(InputError) as caught:
        endpoint(server, tmp_path).ask("hello", 0)
    message = str(caught.value)
    assert said in message
    assert message.isprintable()
    assert len(message) < 500
    assert not isinstance(caught.value, NoAnswer)
    assert len(server.asked) == 1


def test_a_server_without_tls_is_said_at_once(tmp_path: Path) -> None:
    with serving(lambda asked, earlier: good("yes")) as server, pytest.raises(InputError, match=r"reached \(\[SSL"):
        endpoint(server, tmp_path, url=server.url.replace("http:", "https:")).ask("hello", 0)


def test_what_is_no_answer_is_shown(tmp_path: Path) -> None:
    reply = Reply([b"event: error\n", event({"message": "no room"})])
    with (
        serving(lambda asked, earlier: reply) as server,
        pytest.raises(NoAnswer, match=r"completion, but '\{.*no room"),
    ):
        endpoint(server, tmp_path).ask("hello", 0)


def test_fields_that_a_server_does_not_know_are_left_out(tmp_path: Path) -> None:
    def script(asked: Asked, earlier: int) -> Reply:
        last = server.asked[-1]
        if "stream_options" in last:
            return plain({"detail": "extra fields: stream_options"}, 422)
        if "max_tokens" in last:
            return plain({"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}}, 400)
        return good(TEXT)

    with serving(script) as server:
        asking = endpoint(server, tmp_path, max_tokens=9, tries=1)
        assert [asking.ask("hello", number).text for number in (0, 1)] == [TEXT, TEXT]
    assert len(server.asked) == 4
    assert server.asked[-1].keys() == {"model", "messages", "temperature", "seed", "max_completion_tokens", "stream"}
    assert server.asked[-1]["max_completion_tokens"] == 9


def test_a_server_without_seed_and_temperature_is_asked_without_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def script(asked: Asked, earlier: int) -> Reply:
        last = server.asked[-1]
        if "stream_options" in last or "seed" in last:
            return plain({"detail": "extra fields: stream_options, seed"}, 422)
        if "temperature" in last:
            return plain({"error": {"message": "Only the default (1) value of 'temperature' is supported."}}, 400)
        return good(TEXT)

    with serving(script) as server:
        asking = endpoint(server, tmp_path, tries=1, temperature=0.5)
        assert [asking.ask("hello", number).text for number in (0, 1)] == [TEXT, TEXT]
        assert len(server.asked) == 5
        again = endpoint(server, tmp_path, temperature=0.5)
        assert [again.ask("hello", number).cached for number in (0, 1)] == [True, True]
    assert server.asked[-1].keys() == {"model", "messages", "max_tokens", "stream"}
    for field in ("seed", "temperature"):
        assert f"asked without {field}, so its answers are not reproducible" in caplog.text
    assert "2 not reproducible" in str(asking.spent().now) and "2 not reproducible" in str(again.spent().before)


@pytest.mark.parametrize(
    "end",
    [dict(breaks=True), dict(hangs=True), dict(parts=[event({"error": "out of memory"})]), dict(parts=[b"data: "])],
)
def test_a_cut_stream_is_kept_and_not_paid_for_again(end: dict[str, Any], tmp_path: Path) -> None:
    begun = stream(TEXT)[:5]
    reply = replace(Reply(), **{**end, "parts": [*begun, *end.get("parts", [])]})
    with serving(lambda asked, earlier: reply) as server:
        given = endpoint(server, tmp_path, price_in=1.0, timeout=patience(reply)).ask("hello", 0)
        later = endpoint(server, tmp_path, price_in=1.0)
        again = later.ask("hello", 0)
    assert given.cut
    assert TEXT.startswith(given.text)
    assert len(given.text) == 4 * 7
    assert (again, len(server.asked)) == (replace(given, cached=True), 1)
    assert later.spent().before.uncounted == 1
    assert "1 cut, 1 not counted" in str(later.spent())
    assert "cost at least 0.0000" in str(later.spent())


def test_an_answer_at_the_limit_of_tokens_is_cut(tmp_path: Path) -> None:
    answer = ask_once(Reply(stream(TEXT, finish="length")), tmp_path)
    assert (answer.cut, answer.text, answer.tokens_out) == (True, TEXT, len(TEXT))


def test_events_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    parts = [delta("a"), b"data: {oops}\n\n", b"garbage\n", delta("b", "stop"), usage(3, 4)]
    answer = ask_once(Reply(parts), tmp_path)
    assert (answer.text, answer.unreadable, answer.tokens_in) == ("ab", 1, 3)


def test_a_key_is_sent_and_stands_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("SOME_KEY", f"{key}\n")
    replies = [plain({"error": f"busy, {key}"}, 503), good("yes")]
    with serving(then(*replies)) as server:
        endpoint(server, tmp_path, key_variable="SOME_KEY").ask("hello", 0)
        assert [each["Authorization"] for each in server.headers] == [f"Bearer {key}"] * 2
        assert endpoint(server, tmp_path).ask("hello", 0).cached  # the key is no part of what was asked
    refusal = plain({"error": f"no such key: {'x' * 245}{key}"}, 401)
    with serving(lambda asked, earlier: refusal) as server, pytest.raises(InputError, match="answered 401") as caught:
        endpoint(server, tmp_path, key_variable="SOME_KEY").ask("hello", 1)
    everything = [str(caught.value), caplog.text, *(path.read_text() for path in tmp_path.iterdir())]
    assert "trying again" in caplog.text
    assert not any("sk-very" in each for each in everything)


@pytest.mark.parametrize("given", ["sk-very-secret", "hf_verysecret", "", "NOT_THERE", "UGLY"])
def test_a_key_that_cannot_be_used_is_not_repeated(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UGLY", "sk-very\r\nX-Other: 1")
    with pytest.raises(InputError, match="environment variable") as caught:
        Endpoint(EndpointSettings("http://localhost", "m", key_variable=given), tmp_path)
    assert "very" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1/chat/completions"),
        (" http://localhost:11434/ ", "http://localhost:11434/v1/chat/completions"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"),
        ("https://api.example/v1//", "https://api.example/v1/chat/completions"),
        ("https://api.example/v1/chat/completions/", "https://api.example/v1/chat/completions"),
        ("https://api.example/api", "https://api.example/api/v1/chat/completions"),
        ("https://api.example/v1beta/openai/", "https://api.example/v1beta/openai/chat/completions"),
        (
            "https://api.example/openai/v1?api-version=2#x",
            "https://api.example/openai/v1/chat/completions?api-version=2",
        ),
    ],
)
def test_an_address_may_be_given_in_short(given: str, found: str) -> None:
    assert address(given) == found
    assert address(found) == found


@pytest.mark.parametrize(
    "given",
    [
        *(
            "",
            "localhost:11434",
            "ftp://a/v1",
            "http://",
            "https:///v1",
            "http://a:b/",
            "http://a b/",
            "http://a..b/v1",
        ),
        *("http://[::1/v1", "file:///etc/passwd", "http://ä.example/", "http://a:99999/", "http://a/\nHost: b"),
    ],
)
def test_an_address_that_is_none_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a url of http or https, such as http://localhost:11434/v1; given"):
        Endpoint(EndpointSettings(given, "m"), tmp_path)


@pytest.mark.parametrize("given", ["http://me:hunter2@a/v1", "http//me:hunter2@a/v1", "ftp://a/?key=hunter2"])
def test_a_password_in_an_address_is_not_repeated(given: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Endpoint(EndpointSettings(given, "m"), tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"model": " "}, {"temperature": -0.1}, {"max_tokens": 0}, {"timeout": 0.0}, {"tries": 0}, {"price_in": math.nan}],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    name = "the name of a model" if "model" in changes else next(iter(changes))
    with pytest.raises(InputError, match=name):
        EndpointSettings(**{"url": "http://a", "model": "m", **changes})


def test_a_proxy_serves_other_machines_and_never_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda asked, earlier: good("by proxy")) as proxy, serving(lambda *_: good("direct")) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert endpoint(server, tmp_path).ask("hello", 0).text == "direct"
        port = server.url.rpartition(":")[2]
        assert endpoint(server, tmp_path, url=f"http://localhost:{port}").ask("hello", 1).text == "direct"
        assert endpoint(server, tmp_path, url="http://model.invalid/v1").ask("hello", 2).text == "by proxy"
    assert proxy.paths == ["http://model.invalid/v1/chat/completions"]
