"""Texts that a generator did not finish or did not mean as texts: empty, damaged, with a gap to fill in, about the task."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from clozeline.data.shingles import words

ECHO = 5
"""Words that stand in a row in the prompt from which a text that has no others is an echo of it."""

DAMAGED = ("Cc", "Cs", "Co")
"""Kinds of characters that no text has: controls but for tabs and line ends, halves of surrogate pairs, private ones."""

_FILL = r"\b(?:insert|your|placeholder|fill in|blank|todo|tbd|x{3,}|text here)\b"
_NAMED = r"(?:(?:movie|film|book|product|company|brand|actor|restaurant|hotel|city|place|person|character)(?:'s)? )?"
GAP = re.compile(
    r"\{[^{}]*\}|_{3,}|\blorem ipsum\b"
    rf"|[\[<](?:[^\[\]<>]*{_FILL}[^\[\]<>]*|{_NAMED}(?:name|title))[\]>]",
    re.IGNORECASE,
)
"""A gap that was to be filled in: {name}, [insert film here], <movie title>, ____."""

_TEXTS = r"\b(?:examples?|sentences?|texts?|cases?|reviews?|outputs?)\b"
TALK = re.compile(
    r"(?:(?:sure|certainly|of course|absolutely)\b[,!.: ]*)?here(?:'s| is| are)\b[^.!?]*"
    rf"(?:{_TEXTS}[^.!?]*:|\bas requested\b)"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|(?:i'm|i am) sorry, but i can(?:'t|not) (?:help|assist|write|provide|create|generate|produce|comply|continue|do)\b"
    r"|(?:text|label|example|sentence|case|output|answer|response)(?: \d+)?\s*:|\d{1,3}[.)]\s"
    r"|```|[\[{]\s*[\"{]|\"(?:text|label)\"\s*:",
    re.IGNORECASE,
)
"""How an answer begins that talks about the task, or a line of one that was not taken apart."""


def malformed(text: str, prompts: Sequence[str] = ()) -> bool:
    """Whether a text is empty, damaged, has a gap to fill in, talks about the task or repeats the words of a prompt.

    prompts: the words of each as `words` gives them, joined by spaces and with a space at both ends.
    """
    plain = text.strip().replace("’", "'")
    damaged = any(sign == "\ufffd" or (unicodedata.category(sign) in DAMAGED and sign not in "\t\n\r") for sign in text)
    if damaged or not any(sign.isalnum() for sign in text) or GAP.search(plain) or TALK.match(plain):
        return True
    found = words(text)
    return len(found) >= ECHO and any(f" {' '.join(found)} " in prompt for prompt in prompts)
