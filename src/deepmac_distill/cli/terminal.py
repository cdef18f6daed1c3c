"""What is shown on a terminal: results on stdout by `say`, notes and bars of stages on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from deepmac_distill.printable import printable, shortened
from deepmac_distill.progress import Bar
from deepmac_distill.storage.copies import with_uris


def say(*lines: object) -> None:
    """Print each on a line of its own, names of strangers included."""
    for line in lines:
        print(printable(with_uris(str(line))))


class Terminal:
    """A `progress.Progress` that draws with rich and tqdm."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print one line."""
        self._console.print(shortened(printable(with_uris(text))), markup=False)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0, unit: str = "it") -> Iterator[Bar]:
        """A bar with rate and time left; where stderr is no terminal, a line every half minute."""
        from tqdm import tqdm  # costs start-up time that --help should not pay

        interval = 0.2 if sys.stderr.isatty() else 30.0
        with tqdm(
            total=total, initial=done, desc=title, unit=unit, mininterval=interval, maxinterval=interval
        ) as bar:
            yield _TqdmBar(bar)


class _TqdmBar:
    def __init__(self, bar: object) -> None:
        self._bar = bar

    def advance(self, count: int = 1, **figures: float) -> None:
        if figures:
            self._bar.set_postfix(figures, refresh=False)  # type: ignore[attr-defined]
        self._bar.update(count)  # type: ignore[attr-defined]
