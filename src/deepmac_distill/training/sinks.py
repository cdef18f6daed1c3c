"""Where the figures of a training go beside metrics.jsonl, with those that differ from run to run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import torch


class Sink(Protocol):
    """A tracker of figures."""

    def write(self, step: int, **figures: float) -> None:
        """Take the figures of a logged step."""

    def close(self) -> None:
        """End, whatever ends the training."""


class Pace:
    """How fast a training is, from one logged step to the next.

    Args:
        images: of a step, those of all processes.
        first_step: that begins now.
        device: whose memory is looked at.
    """

    def __init__(self, images: int, first_step: int, device: torch.device) -> None:
        self._images, self._device = images, device
        self._begun = self._last = time.perf_counter()
        self._next_step = first_step

    def figures(self, step: int) -> dict[str, float]:
        """Seconds since the start, images a second since this was asked last, peak memory in bytes."""
        now = time.perf_counter()
        speed = (step + 1 - self._next_step) * self._images / max(now - self._last, 1e-9)
        self._last, self._next_step = now, step + 1
        figures = {"seconds": now - self._begun, "images_per_second": speed}
        peak = peak_bytes(self._device)
        return figures if peak is None else figures | {"peak_memory_bytes": float(peak)}


def write_to(sinks: Sequence[Sink], step: int, figures: Mapping[str, float], pace: Pace) -> None:
    """Give each of them the figures of a step, with those of speed and memory."""
    more = pace.figures(step) if sinks else {}
    for sink in sinks:
        sink.write(step, **figures, **more)


@contextmanager
def closing(sinks: Sequence[Sink]) -> Iterator[None]:
    """Close them in the end."""
    try:
        yield
    finally:
        for sink in sinks:
            sink.close()


def peak_bytes(device: torch.device) -> int | None:
    """The most memory that this process has had, of a GPU or of the system; None where nobody counts it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):  # Linux; getrusage would count the process that started this one
        return high_water_bytes(Path("/proc/self/status").read_text(encoding="utf-8"))
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def high_water_bytes(status: str) -> int:
    r"""The most resident memory, of `/proc/PID/status`.

    >>> high_water_bytes("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n")
    2097152
    """
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
