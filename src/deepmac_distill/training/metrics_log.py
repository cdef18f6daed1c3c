"""metrics.jsonl: one JSON object per logged step, and nothing twice after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType


class MetricsLog:
    """Append records to `path`; records at or past `first_step` are dropped when it is opened.

    A killed run may have logged past its last checkpoint; the resumed run logs those steps again.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        kept = [line for line in _lines(path) if json.loads(line)["step"] < first_step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
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


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line.rstrip("\n") for line in whole if line.endswith("\n")]  # the last may have been cut off
