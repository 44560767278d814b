"""New cases written by a language model: a prompt filled in, its answers read into cases, labels checked by asking again.

The prompts are plain files, prompts/cases.txt and prompts/check.txt; a user's own may stand in for each.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from clozeline.errors import InputError, nearest
from clozeline.hardening.answers import whole
from clozeline.hardening.endpoint import Endpoint, EndpointSettings
from clozeline.hardening.filters import Candidate, Rejected
from clozeline.hardening.reading import fingerprint

MALFORMED, OTHER_LABEL = "malformed", "label"
FRUITLESS = 3  # answers in a row without a new case, after which a label is given up
TIMES = 3  # at most so many requests as are needed where every answer is good
SHOWN = 500  # characters kept of what could not be read

SLOTS = {
    "cases": {"count": True, "capability": True, "label": True, "about": False, "labels": False, "examples": False},
    "check": {"texts": True, "labels": True},
}
"""The slots of each prompt, and whether it must have them."""

_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OBJECT = re.compile(r"""\{\s*["']""")
_LIST = re.compile(r"""\{\s*["'][^"'\n]*["']\s*:\s*\[\s*(?=\{)""")
_DECODER = json.JSONDecoder(strict=False)  # models leave line breaks in strings as they are


@dataclass(frozen=True)
class CaseServer(EndpointSettings):
    """A server that speaks OpenAI's protocol, and how it is asked for cases.

    prompt, check_prompt: files that stand in for the shipped prompts; second: whether it is asked for the label of each case
    again, without having been told it; per_request: cases that one request asks for. Else as `EndpointSettings`.

    Raises:
        InputError: a setting that cannot be, or a prompt that lacks what it needs.
    """

    prompt: str | Path | None = None
    check_prompt: str | Path | None = None
    second: bool = True
    per_request: int = 10

    def __post_init__(self) -> None:
        EndpointSettings.__post_init__(self)
        if self.per_request < 1:
            raise InputError(f"per_request is {self.per_request}; a request asks for at least 1 case.")
        for kind, path in (("cases", self.prompt), ("check", self.check_prompt)):
            read_template(kind, path_of(path))

    @property
    def asked(self) -> dict[str, Any]:
        """What a run that goes on must share; its key, place and patience may change."""
        free = ("url", "key_variable", "timeout", "tries", "longest_wait", "price_in", "price_out")
        found = {name: value for name, value in dataclasses.asdict(self).items() if name not in free}
        prompts = {name: fingerprint(found[name]) for name in ("prompt", "check_prompt")}
        return found | prompts


def path_of(given: str | Path | None) -> Path | None:
    """A path of what may be one."""
    return None if given is None else Path(given)


def read_template(kind: str, path: Path | None = None) -> str:
    """The text of a prompt, `kind` of `SLOTS`: a user's file, or the one that comes with the package.

    A slot is a name in braces; braces around anything else are text.

    Raises:
        InputError: the file cannot be read, has a slot that is none, or lacks one that must be there.
    """
    if path is None:
        return resources.files("clozeline.hardening").joinpath("prompts", f"{kind}.txt").read_text(encoding="utf-8")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"The prompt {path} cannot be read: {why}.") from error
    slots, found = SLOTS[kind], _SLOT.findall(text)
    for name in found:
        if name not in slots:
            raise InputError(f"The prompt {path} has an unknown slot {{{name}}}: {nearest(name, slots)}")
    if missing := [name for name, needed in slots.items() if needed and name not in found]:
        listed = ", ".join(f"{{{name}}}" for name in missing)
        raise InputError(f"The prompt {path} lacks {listed}: put it where it belongs in the request.")
    return text


def filled(text: str, values: Mapping[str, str]) -> str:
    """The template with its slots filled in, at once: braces in a value stay as they are."""
    return _SLOT.sub(lambda found: values[found[1]], text)


class Short(NamedTuple):
    """Why there are fewer texts than wanted. requests: that were made; most: that may be; empty: labels for which the last
    `FRUITLESS` answers gave nothing new."""

    requests: int
    most: int
    empty: tuple[str, ...]

    def __str__(self) -> str:
        ceiling = ", the most allowed" if self.requests >= self.most else ""
        why = f", the last {FRUITLESS} of which gave nothing new for {_listed(self.empty)}" if self.empty else ""
        return f"after {self.requests} requests{ceiling}{why}"


def write_cases(
    endpoint: Endpoint,
    *,
    capability: str,
    about: str,
    labels: Sequence[str],
    wanted: int | Mapping[str, int],
    per_request: int = 10,
    template: Path | None = None,
    examples: Sequence[tuple[str, str]] = (),
    most_requests: int | None = None,
    tell: Callable[[int, int], None] = lambda there, rejected: None,
) -> Generator[Candidate | Rejected, None, Short | None]:
    """Ask for texts of each label in turn until `wanted` different ones of each are there, and give all that came.

    What an answer holds beyond `wanted` is given too: it was paid for. The same call asks the same requests in the same
    order, so that one which was stopped goes on from the answers in the endpoint's folder; so does one that wants more.
    A text that came before is given again, for the filters to count, but not counted here.

    Args:
        about: what texts of this capability are like, in a sentence.
        wanted: of each label, or by label.
        per_request: texts that one request asks for.
        template: a prompt of the user's; see `read_template`.
        examples: texts with their labels.
        most_requests: of all labels together; None: `TIMES` what is needed when every answer is good.
        tell: told after each answer how many there are of those wanted, and how many were rejected.

    Returns:
        When the generator ends: why fewer are there than wanted; None when all are.

    Raises:
        NoAnswer: the server gave up; InputError: it refuses, or the template cannot be used.
    """
    text = read_template("cases", template)
    shown = "\n".join(json.dumps({"text": each, "label": label}, ensure_ascii=False) for each, label in examples)
    common = {
        "count": str(per_request),
        "capability": capability,
        "about": about,
        "labels": _listed(labels),
        "examples": shown or "(none)",
    }
    goal = {label: wanted if isinstance(wanted, int) else wanted[label] for label in labels}
    if most_requests is None:
        most_requests = most_asked(goal.values(), per_request)
    seen: set[str] = set()
    kept, asked, fruitless, rejected = Counter[str](), Counter[str](), Counter[str](), 0
    while turn := [label for label in labels if kept[label] < goal[label] and fruitless[label] < FRUITLESS]:
        if asked.total() >= most_requests:
            break
        for label in turn[: most_requests - asked.total()]:
            answer = endpoint.ask(filled(text, common | {"label": _listed([label])}), asked[label])
            asked[label] += 1
            before = kept[label]
            for found in read_cases(answer.text, label, capability, f"answer {asked.total()}"):
                if isinstance(found, Candidate) and found.text.casefold() not in seen:
                    seen.add(found.text.casefold())
                    kept[label] += 1
                rejected += isinstance(found, Rejected)
                yield found
            tell(sum(min(goal[each], kept[each]) for each in labels), rejected)
            fruitless[label] = 0 if kept[label] > before else fruitless[label] + 1
    if all(kept[label] >= goal[label] for label in labels):
        return None
    return Short(asked.total(), most_requests, tuple(label for label in labels if fruitless[label] >= FRUITLESS))


def most_asked(wanted: Iterable[int], per_request: int) -> int:
    """The most requests for so many cases of each label."""
    return TIMES * sum(-(-each // per_request) for each in wanted)


def read_cases(answer: str, label: str, capability: str, place: str) -> Iterator[Candidate | Rejected]:
    """The cases in an answer to a request for texts of `label`, in order; `place` names the answer."""
    for number, entry in enumerate(_entries(answer, "text"), 1):
        where = f"{place}, case {number}"
        if isinstance(entry, str):
            yield Rejected(whole(entry)[:SHOWN], MALFORMED, where)
            continue
        text, given = entry["text"], _label(entry)
        if not isinstance(text, str) or not text.strip() or not given:
            yield Rejected(whole(_dump(entry))[:SHOWN], MALFORMED, where)
        elif given != label.casefold():
            yield Rejected(whole(text.strip()), OTHER_LABEL, where)
        else:
            yield Candidate(whole(text.strip()), label, capability, where)


def check_labels(
    endpoint: Endpoint,
    texts: Sequence[str],
    labels: Sequence[str],
    template: Path | None = None,
    per_request: int = 20,
    tell: Callable[[int, int], None] = lambda there, rejected: None,
) -> list[str | None]:
    """The label that the model gives each text when asked for nothing else; texts of which it says nothing are asked
    for once more. None: still nothing, two labels, or one that is none of `labels`.

    tell: told after each answer how many texts have one, and how many of those no label.

    Raises:
        NoAnswer: the server gave up; InputError: it refuses, or the template cannot be used.
    """
    prompt = read_template("check", template)
    known = {label.casefold(): label for label in labels}
    found: dict[int, str | None] = {}
    for turn in range(2):
        left = [at for at in range(len(texts)) if at not in found]
        for start in range(0, len(left), per_request):
            part = left[start : start + per_request]
            shown = "\n".join(f"{number}. {_dump(texts[at])}" for number, at in enumerate(part, 1))
            answer = endpoint.ask(filled(prompt, {"texts": shown, "labels": _listed(labels)}), turn)
            numbered = {str(number): at for number, at in enumerate(part, 1)}
            said: dict[int, str | None] = {}
            for entry in _entries(answer.text, "number"):
                at = numbered.get(str(entry["number"]).strip()) if isinstance(entry, dict) else None
                if isinstance(entry, dict) and at is not None:
                    label = known.get(_label(entry))
                    said[at] = label if said.get(at, label) == label else None
            found |= said
            tell(len(found), sum(label is None for label in found.values()))
    return [found.get(at) for at in range(len(texts))]


def _entries(answer: str, key: str) -> Iterator[dict[str, Any] | str]:
    """The objects with `key` in an answer, alone or in a list in another object; what else is there, as it stands.

    What stands around them is passed over: what a reasoning model thought, prose, fences, the brackets of an array.
    """
    text = re.split(r"</think(?:ing)?>", answer)[-1]
    text = "" if re.match(r"\s*<think(?:ing)?>", text) else text
    nothing = True
    for found in _objects(text):
        within: list[Any] = [found]
        if isinstance(found, dict) and key not in found:
            within = [each for part in found.values() if isinstance(part, list) for each in part] or within
        for entry in within:
            nothing = False
            yield entry if isinstance(entry, str) or (isinstance(entry, dict) and key in entry) else _dump(entry)
    if nothing:
        yield answer.strip()


def _objects(text: str) -> Iterator[dict[str, Any] | str]:
    """JSON objects wherever they begin in the text; one that cannot be read, up to the next, as it stands.

    An object that ends where the answer was cut is one of those; of a list in it, what is whole is read.
    """
    at = 0
    while begun := _OBJECT.search(text, at):
        try:
            value, at = _DECODER.raw_decode(text, begun.start())
            yield value
        except (ValueError, RecursionError):
            if opened := _LIST.match(text, begun.start()):
                at = opened.end()
                continue
            following = _OBJECT.search(text, begun.end())
            at = following.start() if following else len(text)
            yield text[begun.start() : at].strip()


def _label(entry: Mapping[str, Any]) -> str:
    """The label an entry gives, as labels are compared; a number is the label that is written so."""
    given = entry.get("label")
    return str(given).strip().casefold() if isinstance(given, str | int) and not isinstance(given, bool) else ""


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(map(_dump, labels))
