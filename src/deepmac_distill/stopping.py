"""Signals that ask the program to end, heard where its work can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Ctrl-C, what a scheduler or `kill` sends, and a terminal that is closed.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal has asked the program to end. No error: nothing that handles errors may swallow it."""

    def __init__(self, number: int, kept: str = "") -> None:
        """Args:
        number: of the signal.
        kept: what was saved, for whoever starts again.
        """
        super().__init__(kept)
        self.number, self.kept = number, kept


@dataclass(slots=True)
class Request:
    """Whether the program was asked to end since it began to listen."""

    number: int | None = None  # of the signal


@contextmanager
def signals_raise() -> Iterator[None]:
    """Every one of `SIGNALS` raises `Stopped` where the program is, so that it ends in order."""
    request = Request()

    def handle(number: int, frame: object) -> None:
        request.number = number
        raise Stopped(number)

    with _handled(handle):
        try:
            yield
        except Exception as error:
            # Code in C that calls Python may drop what the handler raised, and fail with an error of its own.
            if request.number is None:
                raise
            raise Stopped(request.number) from error


@contextmanager
def signals_wait() -> Iterator[Request]:
    """The first of `SIGNALS` only marks the request, for the work to end where it can be kept; a second one
    raises `Stopped` at once.

    Outside the main thread, which alone hears signals, nothing is ever marked.
    """
    request = Request()

    def handle(number: int, frame: object) -> None:
        if request.number is not None:
            raise Stopped(number)
        request.number = number

    with _handled(handle):
        yield request


def leave_signals_to_the_parent() -> None:
    """In a process that only serves another, and ends with it: a signal that reaches both is the other's."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # as nohup has it
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
