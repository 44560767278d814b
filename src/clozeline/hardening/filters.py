"""Which written cases may be trained on, and why the others may not: every one is kept or rejected, and counted.

A case that stands in a text held out to judge the model, word for word or in other words, is a leak. It is looked for before
all repeats, so that none hides behind another reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clozeline.data.shingles import words as words_of
from clozeline.errors import InputError
from clozeline.hardening.diversity import Diversity, diversity, drawn
from clozeline.hardening.malformed import malformed
from clozeline.hardening.repeats import Comparer, Embed, Repeat

REASONS = {
    "malformed": "empty, damaged, unreadable, with a gap to fill in, or about the task",
    "label": "came with another label than was asked for",
    "too short": "fewer words than allowed",
    "too long": "more words than allowed",
    "unknown label": "a label that the task does not have",
    "leak": "the words of a held-out text",
    "near leak": "nearly a held-out text, or a sentence of one",
    "training text": "the words of a training text",
    "near training text": "nearly a training text",
    "duplicate": "the words of an earlier case",
    "near duplicate": "nearly an earlier case with the same label",
    "label check": "the check gave another label, or none",
}
"""Why a case is rejected, in the order of the filters."""

SAMPLE = 2000
"""Texts of each set that tell how rare words are."""

SHOWN = 3
"""Leaks of each set that the table shows with both texts; `Sifted.leaks` has all."""


@dataclass(frozen=True)
class Candidate:
    """A written case that may become a training example. place: where it came from, such as "answer 7, case 2"."""

    text: str
    label: str
    capability: str
    place: str


@dataclass(frozen=True)
class Rejected:
    """A case that is not trained on. reason: one of `REASONS`; like: the text that it repeats, or None."""

    text: str
    reason: str
    place: str
    like: str | None = None


@dataclass(frozen=True)
class Leak(Rejected):
    """A case that repeats a held-out text. held: the name of the set; likeness: 1 where the words are equal, else of
    words, or the cosine where that told."""

    held: str = ""
    likeness: float = 1.0


@dataclass(frozen=True)
class Sifted:
    """What `sift` kept and rejected, each in the order in which it came.

    counts: rejected cases by reason, in the order of `REASONS`, zeros included. diversity: of the kept texts; ordinary: of
    as many training texts, each cut to as many words, for comparison; None where there is nothing to measure.
    """

    kept: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    counts: dict[str, int]
    diversity: Diversity | None
    ordinary: Diversity | None

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """The rejected cases that repeat a held-out text. That there are any is to be said loudly."""
        return tuple(one for one in self.rejected if isinstance(one, Leak))

    @property
    def leaked(self) -> dict[str, int]:
        """How many leaks there are from each set that has any."""
        return dict(Counter(leak.held for leak in self.leaks))

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it; of the kept cases how many there are by label and by capability, of the leaks all."""
        return {
            "cases": len(self.kept) + len(self.rejected),
            "kept": len(self.kept),
            "labels": dict(Counter(one.label for one in self.kept)),
            "capabilities": dict(Counter(one.capability for one in self.kept)),
            "rejected": self.counts,
            "leaked": self.leaked,
            "leaks": [asdict(leak) for leak in self.leaks],
            "diversity": self.diversity and self.diversity.as_dict(),
            "ordinary_diversity": self.ordinary and self.ordinary.as_dict(),
        }

    def __str__(self) -> str:
        total = len(self.kept) + len(self.rejected)
        lines = [f"{total:,} cases: {len(self.kept):,} kept, {len(self.rejected):,} rejected"]
        lines += [f"  {count:>7,}  {name}: {REASONS.get(name, '')}" for name, count in self.counts.items() if count]
        for held, count in self.leaked.items():
            lines.append(f"LEAKED from {held}: {count:,}; none is kept")
            for leak in [leak for leak in self.leaks if leak.held == held][:SHOWN]:
                lines.append(f"  {leak.place} ({leak.reason}, {leak.likeness:.2f}): {leak.text!r}")
                lines.append(f"    stands there as {leak.like!r}")
        if self.diversity:
            lines.append(f"Kept: {self.diversity}")
        if self.ordinary:
            lines.append(f"Training texts, as many and as long: {self.ordinary}")
        return "\n".join(lines)


def check_range(words: tuple[int, int]) -> None:
    """InputError where no case can have so many words."""
    if len(words) != 2 or not 1 <= words[0] <= words[1]:
        raise InputError(f"words={words} is no range: give the fewest words and the most, such as (3, 60).")


def sift(
    candidates: Iterable[Candidate | Rejected],
    *,
    labels: Collection[str],
    train: Sequence[str],
    held: Mapping[str, Sequence[str]],
    words: tuple[int, int] = (3, 60),
    judge: Callable[[Sequence[str]], Sequence[str | None]] | None = None,
    embed: Embed | None = None,
    prompts: Sequence[str] = (),
) -> Sifted:
    """Reject what must not be trained on: the filters of `REASONS`, in that order, each on what the ones before left.

    1,000 cases against 25,000 film reviews take 13 to 15 s of one core and 230 MB.

    Args:
        candidates: what was written; those that are rejected already are counted too.
        labels: of the task.
        train: the texts that are trained on anyway.
        held: names of sets, such as "test", and their texts, which must never be trained on. They are compared as a whole
            and sentence by sentence.
        words: the fewest and the most that a case may have.
        judge: gives each text the label it finds right, or None; called once, with what all other filters left.
        embed: gives texts their (n, D) vectors, so that what repeats the meaning in other words is found too.
        prompts: what a generator was asked; a case that only repeats words of it is malformed.

    Raises:
        InputError: `words` is no range, or `judge` or `embed` does not answer for each text.
    """
    check_range(words)
    cases = list(candidates)
    verdicts = {at: case for at, case in enumerate(cases) if isinstance(case, Rejected)}
    left = {at: case for at, case in enumerate(cases) if isinstance(case, Candidate)}

    def reject(found: Mapping[int, Rejected]) -> None:
        verdicts.update(found)
        for at in found:
            del left[at]

    asked = [f" {' '.join(words_of(prompt))} " for prompt in prompts]
    reject({at: fault for at, case in left.items() if (fault := _fault(case, labels, words, asked))})
    reject(_repeats(left, train, held, embed))
    if judge is not None and left:
        given = list(judge([case.text for case in left.values()]))
        if len(given) != len(left):
            raise InputError(f"judge gave {len(given):,} labels for {len(left):,} texts: give one for each, or None.")
        wrong = [at for (at, case), label in zip(left.items(), given, strict=True) if label != case.label]
        reject({at: Rejected(left[at].text, "label check", left[at].place) for at in wrong})

    rejected, kept = tuple(verdicts[at] for at in sorted(verdicts)), tuple(left.values())
    counts = dict.fromkeys(REASONS, 0)
    for one in rejected:
        counts[one.reason] = counts.get(one.reason, 0) + 1
    return Sifted(
        kept=kept,
        rejected=rejected,
        counts=counts,
        diversity=diversity([case.text for case in kept]) if kept else None,
        ordinary=_ordinary(kept, train),
    )


def _fault(case: Candidate, labels: Collection[str], words: tuple[int, int], prompts: Sequence[str]) -> Rejected | None:
    """What is wrong with a case by itself."""
    size = len(words_of(case.text))
    if malformed(case.text, prompts):
        reason = "malformed"
    elif not words[0] <= size <= words[1]:
        reason = "too short" if size < words[0] else "too long"
    elif case.label not in labels:
        reason = "unknown label"
    else:
        return None
    return Rejected(case.text, reason, case.place)


def _repeats(
    left: Mapping[int, Candidate], train: Sequence[str], held: Mapping[str, Sequence[str]], embed: Embed | None
) -> dict[int, Rejected]:
    """The cases that repeat held-out texts, training texts or each other."""
    cases, places = list(left.values()), list(left)
    sample = (texts[at] for texts in (train, *held.values()) for at in drawn(len(texts), SAMPLE))
    comparer = Comparer([case.text for case in cases], sample, embed)
    leaks: dict[int, tuple[str, Repeat]] = {}
    for name, texts in held.items():
        for row, repeat in comparer.against(range(len(cases)), texts, sentences=True).items():
            if row not in leaks or repeat.exact > leaks[row][1].exact:
                leaks[row] = name, repeat
    found: dict[int, Rejected] = {}
    for row, (name, (like, likeness, exact)) in leaks.items():
        reason = "leak" if exact else "near leak"
        found[row] = Leak(cases[row].text, reason, cases[row].place, like, name, likeness)

    def turn_down(repeats: Mapping[int, Repeat], what: str) -> None:
        for row, (like, _, exact) in repeats.items():
            found[row] = Rejected(cases[row].text, what if exact else f"near {what}", cases[row].place, like)

    def rest() -> list[int]:
        return [row for row in range(len(cases)) if row not in found]

    turn_down(comparer.against(rest(), train, sentences=False), "training text")
    turn_down(comparer.among(rest(), [cases[row].label for row in rest()]), "duplicate")
    return {places[row]: rejected for row, rejected in found.items()}


def _ordinary(kept: Sequence[Candidate], train: Sequence[str]) -> Diversity | None:
    """The diversity of as many training texts, drawn evenly, each cut to the words of the kept text in its place."""
    texts = [words_of(train[at]) for at in drawn(len(train), len(kept))]
    sizes = [len(words_of(case.text)) for case in kept]
    return diversity([" ".join(own[:size]) for own, size in zip(texts, sizes, strict=False)]) if texts else None
