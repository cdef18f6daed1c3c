"""Where a command may write: never over an input, over what is not ours, or into a stage of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from deepmac_distill.errors import RunError
from deepmac_distill.regular import read_small
from deepmac_distill.report.contact_sheet import SOFTWARE
from deepmac_distill.rundir import BEGUN, DONE

PAGE_MARK = f"<!-- {SOFTWARE} -->"  # the first line of a Markdown file, which no page shows
OURS = {"description": SOFTWARE}  # the `info` of a JSON file, by which it names its maker


def require_ours(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would replace an input, a file that this program did not make, or one of a stage.

    Ask before the work begins.

    Raises:
        RunError: names the file.
    """
    taken = list(filter(None, map(_identity, inputs)))
    for path in outputs:
        if _identity(path) in taken:
            raise RunError(f"{path}: is an input; expected another --out")
        _require_no_stage(path)
        if os.path.lexists(path) and not _is_ours(path):
            raise RunError(f"{path}: is there and deepmac did not make it; expected another --out")


def require_new(path: Path) -> None:
    """Refuse an output that is there already, or in a stage of a run.

    Raises:
        RunError: names it.
    """
    if os.path.lexists(path):
        raise RunError(f"{path}: is there already; expected a new path (--out)")
    _require_no_stage(path)


def _require_no_stage(path: Path) -> None:
    folder = path.resolve().parent
    if (folder / DONE).exists() or (folder / BEGUN).exists():
        raise RunError(f"{path}: is in a stage of a run, which is kept as it is; expected another --out")


def _identity(path: Path) -> tuple[int, int] | None:
    """Of a file, whatever its names; None where there is none."""
    try:
        return (stat := path.stat()).st_dev, stat.st_ino
    except OSError:
        return None


def _is_ours(path: Path) -> bool:
    if not path.is_file():  # to open a pipe would wait for a writer
        return False
    try:
        if path.suffix == ".json":
            return bool(json.loads(read_small(path))["info"]["description"] == SOFTWARE)
        if path.suffix == ".md":
            return _first_line(path) == PAGE_MARK.encode()
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, LookupError, TypeError, RecursionError, Image.DecompressionBombError):
        return False  # no picture, no JSON, or JSON of another shape


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(2 * len(PAGE_MARK)).rstrip(b"\r\n")
