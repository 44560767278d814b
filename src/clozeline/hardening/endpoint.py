"""Any server that speaks OpenAI's chat completions protocol (Ollama, llama.cpp, vLLM, ...), asked once for each answer.

A finished answer is kept in a folder under a hash of what was asked, and an answer on its way in a journal beside it:
after kill -9 the same question is answered from there, with what had come, and the server is not asked again.
"""

from __future__ import annotations

import logging
import math
import os
import random
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clozeline.errors import InputError
from clozeline.hardening.answers import Answer, Bill, Journal, Spent, Store, whole
from clozeline.hardening.wire import Failed, address, pieces

log = logging.getLogger("clozeline")

SHOWN = 300  # characters of a server's message
LONGEST_STEP = 60.0  # seconds between two tries, unless the server asks for more
SAMPLING = ("temperature", "seed")  # what makes answers reproducible, where a server takes it

_TODO = {
    401: "Name the environment variable that holds the key for this server.",
    403: "Its key may not use this model, or this server is not for you: check the key and the model.",
    404: "Check the name of the model, whether the server has it, and the url.",
}


class NoAnswer(InputError):
    """The server gave no answer in all tries. What was answered before is kept: run again to go on from there."""


@dataclass(frozen=True)
class EndpointSettings:
    """Which server is asked for what, and how patiently.

    url: of the server, with or without /v1 (`wire.address` says what becomes of it); key_variable: the environment
    variable that holds the key, None for a server without; temperature, seed: None leaves them to the server, each
    request gets seed + its number; timeout: seconds without a piece of an answer, after which a server that does not
    stream counts as silent too; tries: of one answer; longest_wait: seconds between all tries of one answer together;
    price_in, price_out: of a million tokens, in any unit.
    """

    url: str
    model: str
    key_variable: str | None = None
    temperature: float | None = 1.0
    seed: int | None = 0
    max_tokens: int = 2048
    timeout: float = 120.0
    tries: int = 6
    longest_wait: float = 300.0
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise InputError("The endpoint needs the name of a model, as its server calls it.")
        least = {"temperature": 0.0, "max_tokens": 1, "timeout": 1e-3, "tries": 1, "longest_wait": 0.0}
        for name, lowest in (least | {"price_in": 0.0, "price_out": 0.0}).items():
            value = getattr(self, name)
            if value is not None and not lowest <= value < math.inf:
                raise InputError(f"{name} of the endpoint is a number of at least {lowest:g}; given: {value}.")


class Endpoint:
    """A server and the folder its answers are kept in; the folder may be shared by runs and processes.

    sleep: how it waits between tries.

    Raises:
        InputError: the url or the environment variable of the key cannot be used.
    """

    def __init__(
        self, settings: EndpointSettings, folder: Path, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.settings = settings
        self.url = address(settings.url)
        self._key = _key(settings.key_variable)
        self._store = Store(folder)
        self._sleep = sleep
        self._random = random.Random()
        self._unknown: set[str] = set()  # fields that this server has refused
        self._answers: dict[str, Answer] = {}

    def ask(self, prompt: str, number: int) -> Answer:
        """The answer to `prompt`: the one on disk, else what a killed run left of it, else the server's.

        Args:
            number: tells this request from others with the same prompt.

        Raises:
            NoAnswer: the server gave none in all tries.
            InputError: the server refuses the request, or the folder cannot be used.
        """
        settings = self.settings
        asked: dict[str, Any] = {
            "model": settings.model,
            "prompt": prompt,
            "temperature": settings.temperature,
            "seed": settings.seed + number if settings.seed is not None else None,
            "number": number if settings.seed is None else None,  # else the seed tells
            "max_tokens": settings.max_tokens,
        }
        name = self._store.name(asked)
        answer = self._store.find(name)
        if answer is None:
            with self._store.journal(name) as journal:
                answer = self._store.find(name)  # another process may have had the journal
                if answer is None:
                    left = journal.left()
                    answer = Answer(left, cut=True, cached=True) if left.strip() else self._generate(asked, journal)
                    self._store.keep(name, asked, answer)
        if not answer.cached or name not in self._answers:
            self._answers[name] = answer
        return answer

    def spent(self) -> Spent:
        """What the answers asked for here have cost: those of this run, and those that were on disk."""
        settings, answers = self.settings, self._answers.values()
        now, before = [each for each in answers if not each.cached], [each for each in answers if each.cached]
        return Spent(*(Bill.of(each, settings.price_in, settings.price_out) for each in (now, before)))

    def _generate(self, asked: dict[str, Any], journal: Journal) -> Answer:
        waited, retries = 0.0, 0
        while True:
            try:
                return self._try(asked, journal, retries)
            except Failed as failed:
                told = self._named(failed)
                if (field := _unknown(failed, self._unknown)) is not None:
                    self._unknown.add(field)
                    if field in SAMPLING:
                        log.warning("%s. It is asked without %s, so its answers are not reproducible", told, field)
                    continue
                if not failed.again:
                    todo = _TODO.get(failed.status or 0, "Check the url, and the settings it was asked with.")
                    raise InputError(f"{told}. {todo}") from None
                wait = max(min(LONGEST_STEP, 2.0**retries) * self._random.uniform(0.5, 1), failed.after)
                retries += 1
                if retries >= self.settings.tries or waited + wait > self.settings.longest_wait:
                    asks = f", asks to wait {failed.after:,.0f} s" if failed.after else ""
                    raise NoAnswer(
                        f"{told}{asks} (tries: {retries}, waited {waited:.0f} s of at most "
                        f"{self.settings.longest_wait:g}). What it answered before is kept: run again to go on from there."
                    ) from None
                log.warning("%s: trying again in %.0f s", told, wait)
                self._sleep(wait)
                waited += wait

    def _try(self, asked: dict[str, Any], journal: Journal, retries: int) -> Answer:
        """One request. What came before it broke off is an answer, cut: it was paid for."""
        journal.begin()
        texts: list[str] = []
        finish, unreadable = None, 0
        tokens_in = tokens_out = None
        began = time.monotonic()
        try:
            for piece in pieces(self.url, self._body(asked), self._key, self.settings.timeout):
                if piece.text:
                    journal.add(piece.text)
                    texts.append(piece.text)
                finish = piece.finish or finish
                tokens_in = tokens_in if piece.tokens_in is None else piece.tokens_in
                tokens_out = tokens_out if piece.tokens_out is None else piece.tokens_out
                unreadable += piece.unreadable
        except Failed:
            if finish is None and not "".join(texts).strip():
                raise
        cut, seconds = finish in (None, "length", "content_filter"), round(time.monotonic() - began, 3)
        loose = not self._unknown.isdisjoint(SAMPLING)
        return Answer(whole("".join(texts)), cut, tokens_in, tokens_out, False, seconds, retries, unreadable, loose)

    def _body(self, asked: dict[str, Any]) -> dict[str, Any]:
        limit = "max_completion_tokens" if "max_tokens" in self._unknown else "max_tokens"
        body = {
            "model": asked["model"],
            "messages": [{"role": "user", "content": asked["prompt"]}],
            **{name: asked[name] for name in SAMPLING if name not in self._unknown},
            limit: asked["max_tokens"],
            "stream": True,
            "stream_options": None if "stream_options" in self._unknown else {"include_usage": True},
        }
        return {name: value for name, value in body.items() if value is not None}

    def _named(self, failed: Failed) -> str:
        why = failed.why.replace(self._key, "***") if self._key else failed.why  # some servers repeat it
        why = why if len(why) <= SHOWN else why[: SHOWN - 3]
        return f"The server at {self.url.split('?')[0]} {why.rstrip('. ')}"


def _unknown(failed: Failed, known: Collection[str]) -> str | None:
    """The field a server does not know and can do without, but those known: older ones stream_options, some newer ones
    max_tokens, reasoning models a temperature, several servers a seed."""
    if failed.status not in (400, 422):
        return None
    names = {"stream_options": "stream_options", "max_completion_tokens": "max_tokens"} | {
        name: name for name in SAMPLING
    }
    fields = (field for said, field in names.items() if re.search(rf"\b{said}\b", failed.why))
    return next((field for field in fields if field not in known), None)


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,40}", variable):  # a key itself, given by mistake, is not repeated
        raise InputError(
            "The key of the endpoint is given by the name of an environment variable, such as OPENAI_API_KEY."
        )
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        what = "holds characters that no key has" if key else "is not set"
        raise InputError(f"The environment variable {variable}, which should hold the endpoint's key, {what}.")
    return key
