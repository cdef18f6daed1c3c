"""metrics.jsonl: one JSON object per logged step, and nothing twice after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

from deepmac_distill.files import write_text
from deepmac_distill.regular import opened


class MetricsLog:
    """Append records to `path`; records at or past `first_step` are dropped when it is opened.

    A killed run may have logged past its last checkpoint; the resumed run logs those steps again.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        kept = [line for line in _lines(path) if _is_before(line, first_step)]
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, **figures: float) -> None:
        """Append one record and flush it."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class NoLog:
    """Keeps nothing: the log of a process that does not lead."""

    def write(self, step: int, **figures: float) -> None:
        """Drop the record."""

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *ended: object) -> None:
        pass


NO_LOG = NoLog()


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    with opened(path) as file:
        whole = file.read().decode(errors="replace").splitlines(keepends=True)
    return [line.rstrip("\r\n") for line in whole if line.endswith("\n")]  # the last may have been cut off


def _is_before(line: str, first_step: int) -> bool:
    """Whether a line is of an earlier step; a damaged one is of none."""
    try:
        return bool(json.loads(line)["step"] < first_step)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
