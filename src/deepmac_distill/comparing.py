"""How the inputs of a stage are compared with those that it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONTENT = " (content)"  # ends the names of inputs that earlier versions did not record
Inputs = Mapping[str, Any]  # name a user knows ("teacher.train.lr", "labels") -> JSON value


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    """What else one must know to compare a stage's inputs with a record of them."""

    unnamed: Inputs = field(default_factory=dict)  # what an input was where a record does not name it
    dropped: tuple[str, ...] = ()  # inputs that earlier versions recorded, on which nothing depends
    redone_for: tuple[str, ...] = ()  # how names begin of which a change redoes the stage

    def compared(self, inputs: Inputs) -> dict[str, Any]:
        """All inputs that count, by name.

        >>> Comparing(unnamed={"look.mirror": False}, dropped=("old",)).compared({"seed": 0, "old": 1})
        {'look.mirror': False, 'seed': 0}
        """
        return {**self.unnamed, **{name: inputs[name] for name in inputs if name not in self.dropped}}

    def why_redone(self, before: Inputs, now: Inputs) -> str:
        """Which inputs changed, if they are such alone as redo the stage; else empty.

        Args:
            before, now: of `compared`.

        >>> Comparing(redone_for=("look.",)).why_redone({"look.mirror": False}, {"look.mirror": True})
        'look.mirror (False, now True)'
        >>> Comparing(redone_for=("look.",)).why_redone({"seed": 0, "look.a": 1}, {"seed": 1, "look.a": 2})
        ''
        """
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if not all(name.startswith(self.redone_for) for name in changed):
            return ""
        return ", ".join(f"{name} ({before.get(name)}, now {now.get(name)})" for name in changed)


PLAINLY = Comparing()
