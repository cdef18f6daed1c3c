"""Progress of long work: the library emits notes and bars, the command line renders them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """One running progress bar."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """Count `count` more units as done; show `figures` beside the rate."""


class Progress(Protocol):
    """What a stage reports to."""

    def note(self, text: str) -> None:
        """One line the user should read."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0, unit: str = "it") -> Iterator[Bar]:
        """A bar from `done` to `total`."""


class Silent:
    """Reports nothing; for library use and tests."""

    def note(self, text: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0, unit: str = "it") -> Iterator[Bar]:
        """A bar that draws nothing."""
        yield self

    def advance(self, count: int = 1, **figures: float) -> None:
        """Drop the count."""
