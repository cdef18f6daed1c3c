"""How long work tells of itself: the library calls these three methods, the command line draws them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """One running progress bar."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """`count` more units are done; `figures` are shown beside the rate."""


class Progress(Protocol):
    """Where a stage tells what it does."""

    def note(self, text: str) -> None:
        """One line the user should read."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0, unit: str = "it") -> Iterator[Bar]:
        """A bar from `done` to `total`."""


class Silent:
    """Tells nothing; for library use and tests."""

    def note(self, text: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0, unit: str = "it") -> Iterator[Bar]:
        """A bar nobody sees."""
        yield self

    def advance(self, count: int = 1, **figures: float) -> None:
        """Drop the count."""
