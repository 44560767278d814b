"""A real HTTP server that speaks the chat completions protocol, well or badly, as a test tells it to.

A test gives it a script: a function from what was asked to a `Reply`. It keeps what it was asked, and how often text
went out for each prompt and seed: what a user would have paid for.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from clozeline.hardening.endpoint import Endpoint, EndpointSettings

TEXT = "Zwölf Boxkämpfer jagen Viktor 🥊 quer über den großen Sylter Deich\n" * 2
Asked = tuple[str, int]  # the prompt and the seed


@dataclass(frozen=True)
class Reply:
    """What goes out: headers, then parts of bytes as they are, each in a chunk of its own, with a pause before each.

    breaks: the connection is closed without the end of the chunked body; hangs: nothing more comes, and it stays open.
    """

    parts: Sequence[bytes] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    pause: float = 0.0
    breaks: bool = False
    hangs: bool = False


def event(said: object) -> bytes:
    return b"data: " + json.dumps(said, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], "x": 1})


def usage(tokens_in: int, tokens_out: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}})


def stream(text: str, step: int = 7, finish: str = "stop") -> list[bytes]:
    """A good stream of `text`, with comments in it, and its tokens: a letter is one."""
    pieces = [delta(text[at : at + step]) for at in range(0, len(text), step)]
    return [b": keep-alive\n\n", *pieces, delta("", finish), usage(10, len(text)), b"data: [DONE]\n\n"]


def good(text: str) -> Reply:
    return Reply(stream(text))


def plain(body: object, status: int = 200, **headers: str) -> Reply:
    """One JSON object, or bytes as they are, and no stream."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([content], status, {"Content-Type": "application/json", **named})


class FakeServer:
    """asked: the bodies of all requests in order, with their path and headers; paid: how often text went out for each."""

    def __init__(self, script: Callable[[Asked, int], Reply]) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.paid: Counter[Asked] = Counter()
        self.release, self.held = threading.Event(), threading.Event()
        self.answered_until: int | None = None  # so many requests; later ones wait for `release`, and `held` is set
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def times(self, asked: Asked) -> int:
        return sum((_prompt(body), body.get("seed")) == asked for body in self.asked)

    def hold(self, after: int) -> None:
        """Let so many more requests be answered, and hold those that come then."""
        self.release, self.held = threading.Event(), threading.Event()
        self.answered_until = len(self.asked) + after

    def _handler(outer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *given: object) -> None:
                pass

            def do_POST(self) -> None:
                self.close_connection = True
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = (_prompt(body), body.get("seed"))
                with outer._lock:
                    earlier = outer.times(asked)
                    outer.asked.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.paths.append(self.path)
                    hold = outer.answered_until is not None and len(outer.asked) > outer.answered_until
                if hold:
                    outer.held.set()
                    outer.release.wait(20)
                    return
                reply = outer.script(asked, earlier)
                with contextlib.suppress(OSError):  # the client has gone
                    self._send(reply, asked)

            def _send(self, reply: Reply, asked: Asked) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number, part in enumerate(reply.parts):
                    time.sleep(reply.pause)
                    self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                    self.wfile.flush()
                    if b'"content"' in part and not any(b'"content"' in each for each in reply.parts[:number]):
                        with outer._lock:
                            outer.paid[asked] += 1
                if reply.hangs:
                    outer.release.wait(20)
                elif not reply.breaks:
                    self.wfile.write(b"0\r\n\r\n")

        return Handler


def _prompt(body: Mapping[str, Any]) -> str:
    return str(body["messages"][0]["content"])


@contextlib.contextmanager
def serving(script: Callable[[Asked, int], Reply]) -> Iterator[FakeServer]:
    """The server, while the block runs. The script gets what is asked, and how often it was asked before."""
    server = FakeServer(script)
    thread = threading.Thread(target=server._server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server._server.shutdown()
        server._server.server_close()
        thread.join()


def wait_for(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("this never came")


def then(*replies: Reply) -> Callable[[Asked, int], Reply]:
    """The first reply to the first request, and so on; the last one stays."""
    return lambda asked, earlier: replies[min(earlier, len(replies) - 1)]


def endpoint(server: FakeServer, folder: Path, waits: list[float] | None = None, **changes: Any) -> Endpoint:
    """A client of the server. waits: gets the seconds that it would have waited between tries."""
    settings = EndpointSettings(server.url, "tiny-llm", timeout=20.0, tries=4)
    return Endpoint(replace(settings, **changes), folder, sleep=([] if waits is None else waits).append)
