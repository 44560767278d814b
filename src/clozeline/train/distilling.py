"""The settings of learning from a teacher, which fine-tuning and pre-training share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clozeline.errors import InputError

TASK: Mapping[str, Any] = {"soft": 1.0}
"""What a task learns from a teacher where nothing is said: its answers, as much as the labels."""
WORDS: Mapping[str, Any] = {"soft": 5.0, "mlm": 2.0, "hidden": 1.0}
"""The weights in the code published with DistilBERT (Sanh et al. 2019)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilling:
    """How a student learns from its teacher; everything is 0 where there is none.

    Args:
        soft: weight of the teacher's probabilities (Hinton et al. 2015).
        temperature: that both probabilities are softened by.
        hidden: weight of the hidden states, compared by cosine (Sanh et al. 2019); a student of another width learns a
            projection to the teacher's.
        match: which of them: the "last" layers', or those of all "layers", each with its layer of the teacher.
        layer_map: a layer of the teacher, counted from 0, for each of the student; without, spread evenly.
        relations: weight of how tokens relate by queries, keys and values in the last layers (Wang et al. 2021, MiniLMv2).
        relation_heads: parts that those are cut into; 0 takes the teacher's heads.
    """

    soft: float = 0.0
    temperature: float = 2.0
    hidden: float = 0.0
    match: Literal["last", "layers"] = "last"
    layer_map: tuple[int, ...] = ()
    relations: float = 0.0
    relation_heads: int = 0

    @property
    def distils(self) -> bool:
        """Whether anything is learned from a teacher."""
        return bool(self.soft or self.hidden or self.relations)

    def check_distilling(self) -> None:
        """InputError where a value cannot be."""
        object.__setattr__(self, "layer_map", tuple(self.layer_map))
        if not all(type(layer) is int for layer in self.layer_map):
            raise InputError(f"layer_map is {self.layer_map}; it must be layers of the teacher, counted from 0.")
        for name in ("soft", "hidden", "relations", "relation_heads"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}; it must be above 0.")

    def check_teacher(self, there: bool) -> None:
        """InputError where something is to be learned from a teacher that is not there, or nothing from one that is."""
        if there and not self.distils:
            raise InputError(
                "There is nothing to learn from the teacher: give soft, hidden or relations a weight above 0."
            )
        given = [name for name in ("soft", "hidden", "relations", "layer_map", "relation_heads") if getattr(self, name)]
        given += ["hard"] if getattr(self, "hard", 1.0) != 1 else []
        if given and not there:
            raise InputError(f"{given[0]} is of learning from a teacher; name one, or leave {given[0]} out.")
