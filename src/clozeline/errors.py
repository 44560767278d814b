"""What users see when their input cannot be used: one sentence that says what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something a user gave (a file, a column, a setting, a checkpoint) cannot be used.

    The message is one clear sentence or two. The command line prints it without a traceback and exits with code 2.
    """


def nearest(given: str, allowed: Iterable[str]) -> str:
    """End an error message: the nearest allowed name when there is one, and all of them while they are few."""
    names = list(allowed)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    lowered = {name.lower(): name for name in names}
    hint = f"did you mean {close[0]!r}? " if close else ""
    if not close and given.lower() in lowered:
        hint = f"did you mean {lowered[given.lower()]!r}? "
    listed = ", ".join(repr(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")
    return f"{hint}Allowed: {listed}." if names else "There is nothing to choose from."
