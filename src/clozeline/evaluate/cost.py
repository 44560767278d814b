"""What of the texts a model read: every report says it in the same words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Cost:
    """truncated_texts, truncated_tokens: what the long-text policy left out; windows: in how many windowed_texts were read.

    windowed_texts: those that had more than one window. All are 0 of predictions made elsewhere.
    """

    truncated_texts: int = 0
    truncated_tokens: int = 0
    windowed_texts: int = 0
    windows: int = 0

    def cost(self) -> dict[str, int]:
        """As JSON takes it."""
        names = ("truncated_texts", "truncated_tokens", "windowed_texts", "windows")
        return {name: getattr(self, name) for name in names}

    def cost_said(self) -> str:
        """As it stands behind the number of examples."""
        cut = f", {self.truncated_texts} texts truncated by {self.truncated_tokens} tokens"
        read = f", {self.windowed_texts} texts read in {self.windows} windows"
        return (cut if self.truncated_texts else "") + (read if self.windowed_texts else "")


def cost_of(cut: np.ndarray | None, windows: np.ndarray | None) -> dict[str, int]:
    """The fields. cut: tokens of each text that the model did not see; windows: how many each text was read in."""
    cut = np.zeros(0, np.int64) if cut is None else cut
    several = np.zeros(0, np.int64) if windows is None else windows[windows > 1]
    return {
        "truncated_texts": int((cut > 0).sum()),
        "truncated_tokens": int(cut.sum()),
        "windowed_texts": len(several),
        "windows": int(several.sum()),
    }
