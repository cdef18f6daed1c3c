"""How a configuration refuses a value: by the key alone; the reader adds the file and the tables."""

from __future__ import annotations

from typing import Any


class Refused(ValueError):
    """A value that a dataclass refuses; the reader adds the file and the full key."""


def require(holds: bool, name: str, got: Any = None, expected: str = "") -> None:
    """Refuse a value unless the condition holds.

    Raises:
        Refused: names the key.
    """
    if not holds:
        raise Refused(f"{name}: got {got!r}, expected {expected}" if expected else name)
