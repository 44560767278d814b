"""One request to a server that speaks OpenAI's chat completions protocol, its answer read piece by piece as it comes.

A stream is made of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): lines "data: {...}"
until "data: [DONE]", lines ":" to keep the connection. A server that does not stream gives the same in one JSON object.
"""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from clozeline.errors import InputError

LARGEST = 1 << 24  # bytes of one answer; a server that sends more is not answering
PASSING = frozenset({408, 429, 500, 502, 503, 504, 529})  # what may be gone when it is tried again


class Failed(Exception):
    """A request that gave no answer, or not all of it: why, and whether it may go well another time.

    status: of HTTP, where the server gave one; after: the seconds it asks to wait.
    """

    def __init__(self, why: str, status: int | None = None, *, again: bool = True, after: float = 0.0) -> None:
        super().__init__(why)
        self.why, self.status, self.again, self.after = why, status, again, after


@dataclass(frozen=True)
class Piece:
    """What one event says. finish: why the answer ended; unreadable: 1 for an event that is not JSON."""

    text: str = ""
    finish: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    unreadable: int = 0


def address(url: str) -> str:
    """Where chat completions are asked for: .../v1/chat/completions.

    Slashes at the end are dropped, /chat/completions may be there or not, and /v1 is added where the path names no
    version (/v1, /v1beta); a query stays.

    Raises:
        InputError: not http or https, no host, or a password in it.
    """
    bare = url.strip()
    try:
        parts = urlsplit(bare)
        named = parts.scheme in ("http", "https") and (parts.hostname or "").encode("idna") and parts.port != 0
    except ValueError:
        named = False
    if "@" in bare.split("?")[0]:
        raise InputError(
            "The url of the endpoint has a user or a password in it; let an environment variable hold the key."
        )
    if not named or not bare.isascii() or re.search(r"[\s\x00-\x1f\x7f]", bare):
        given = repr(bare.split("?")[0])  # a query may hold a key
        raise InputError(
            f"The endpoint needs a url of http or https, such as http://localhost:11434/v1; given: {given}."
        )
    path = re.sub(r"/+(chat/completions/*)?$", "", parts.path + "/")
    if not any(re.fullmatch(r"v\d\w*", part) for part in path.split("/")):
        path += "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path + "/chat/completions", parts.query, ""))


def pieces(url: str, body: Mapping[str, Any], key: str | None, timeout: float) -> Iterator[Piece]:
    """Ask, and give what comes of the answer as it comes; it ends where the server says that the answer has ended.

    Proxies are those of the environment (http_proxy, https_proxy, no_proxy), but never for this machine itself
    (localhost, 127.0.0.0/8, ::1). Redirects are not followed: a key goes to the server it was given for.

    Args:
        url: as `address` gives it.
        key: sent as a bearer token.
        timeout: seconds without anything of an answer; comments that keep the connection do not count.

    Raises:
        Failed: the server refused, cannot be reached, fell silent, or closed the connection before the end.
    """
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    own = urllib.request.ProxyHandler({} if _is_local(urlsplit(url).hostname or "") else None)
    try:
        with urllib.request.build_opener(own, _Stay).open(request, timeout=timeout) as response:
            yield from _read(response, timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error) from None
    except (HTTPException, OSError) as error:
        reached = not isinstance(error, urllib.error.URLError)
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(why, TimeoutError):
            raise Failed(f"gave nothing for {timeout:g} seconds") from None
        said = one_line(str(why)) or type(why).__name__
        lasting = isinstance(why, ssl.SSLError) and not isinstance(why, ssl.SSLEOFError)  # a certificate, or no TLS
        raise Failed(
            f"{'broke off' if reached else 'cannot be reached'} ({said})", again=reached or not lasting
        ) from None


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given: Any) -> None:
        return None


def _is_local(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return found.is_loopback or found.is_unspecified


def _lines(response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """Whole lines as they come, so that a character split between two reads is put together first."""
    size, alive = 0, time.monotonic()
    held: list[bytes] = []
    while part := response.read1(1 << 16):
        first, *others = part.split(b"\n")
        held.append(first)
        for begun in others:
            line, held = b"".join(held).rstrip(b"\r"), [begun]
            if line.strip() and not line.startswith(b":"):
                alive = time.monotonic()
            yield line
        if time.monotonic() - alive > timeout:
            raise TimeoutError
        if (size := size + len(part)) > LARGEST:
            raise Failed(f"sent more than {LARGEST >> 20} MiB for one answer", again=False)
    yield b"".join(held)


def _read(response: HTTPResponse, timeout: float) -> Iterator[Piece]:
    other: list[bytes] = []  # what is no event of a stream: an answer in one JSON object, or no answer at all
    choices = finished = done = False
    for line in _lines(response, timeout):
        if not line.startswith(b"data:"):
            if line.strip() and not line.startswith((b":", b"event:", b"id:", b"retry:")):
                other.append(line)
            continue
        data = line[5:].strip()
        if done := data == b"[DONE]":
            break
        event = _json(data)
        if not event or "choices" not in event:
            other.append(data)
        piece = Piece(unreadable=1) if event is None else _piece(event)
        choices = choices or bool(event and event.get("choices"))
        finished = finished or piece.finish is not None
        yield piece
    if not choices:
        event = _json(b"\n".join(other))
        if event is None or (not event.get("choices") and not event.get("error")):
            page = "html" in response.headers.get("Content-Type", "")
            shown = one_line(b" ".join(other).decode(errors="replace"))
            raise Failed(f"gave no chat completion{f', but {shown!r}' if shown else ''}", again=not page)
        piece = _piece(event)
        yield Piece(piece.text, piece.finish or "stop", piece.tokens_in, piece.tokens_out)
    elif done and not finished:
        yield Piece(finish="stop")
    elif not finished:
        raise Failed("closed the connection before the end of its answer")


def _json(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _piece(event: Mapping[str, Any]) -> Piece:
    """What an event, or a whole answer, says of its first choice; whatever else stands in it is not looked at."""
    if event.get("error"):
        error = event["error"]
        code = str(error.get("code") if isinstance(error, dict) else "")
        status = int(code) if re.fullmatch(r"[1-5]\d\d", code) else None
        raise Failed(f"failed: {_message(event)}", status, again=status is None or status in PASSING)
    choices, usage = event.get("choices"), event.get("usage")
    first = choices[0] if isinstance(choices, list) and choices else None
    first = first if isinstance(first, dict) else {}
    said = first.get("delta") or first.get("message")
    content = said.get("content") if isinstance(said, dict) else first.get("text")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    finish = first.get("finish_reason")
    usage = usage if isinstance(usage, dict) else {}
    return Piece(
        content if isinstance(content, str) else "",
        finish if isinstance(finish, str) and finish else None,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _refused(error: urllib.error.HTTPError) -> Failed:
    try:
        told = error.read(1 << 16)
    except (HTTPException, OSError):
        told = b""
    found = _json(told)
    message = one_line(told.decode(errors="replace")) if found is None else _message(found)
    if target := error.headers.get("Location"):
        message = f"it sends to {one_line(target).split('?')[0]}; give that url if it is right"
    why = f"answered {error.code} {one_line(str(error.reason))}".rstrip() + (f": {message}" if message else "")
    return Failed(why, error.code, again=error.code in PASSING, after=_after(error.headers.get("Retry-After")))


def _message(found: Mapping[str, Any]) -> str:
    """What went wrong, in the server's words: where OpenAI, vLLM, Ollama and FastAPI put it."""
    error = found.get("error") or found
    said = error if isinstance(error, str) else None
    if isinstance(error, dict):
        said = error.get("message") or error.get("detail")
    return one_line(said if isinstance(said, str) else json.dumps(error))


def _after(header: str | None) -> float:
    """Retry-After in seconds from now; it holds seconds or a date (RFC 9110, 10.2.3). 0 where it says nothing."""
    if header and re.fullmatch(r"\d{1,9}(\.\d+)?", header.strip()):
        return float(header)
    try:
        date = parsedate_to_datetime(header or "")
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def one_line(text: str) -> str:
    """A server's words on one line, none of which steers a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:5000]).split())
