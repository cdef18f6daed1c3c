"""Corrected masks from other tools become human masks of the data set."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.document import parse_json
from deepmac_distill.dataset.ingest import MARK
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError, RunError
from deepmac_distill.exports.corrections import UPLOAD, corrected, plain_name
from deepmac_distill.files import written_whole
from deepmac_distill.labels.export import SEEN_MASK_CLASSES
from deepmac_distill.labels.table import SCHEMA_VERSION
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.outputs import require_new


@dataclass(frozen=True, slots=True)
class Imported:
    """What changed."""

    path: Path  # the annotation file that was written
    changed: int  # masks that are others now
    drawn: int  # in boxes that had no mask
    added: int  # objects that the data set lacked
    unchanged: int
    relabeled: int  # objects of another class now
    removed: int  # objects with a mask that are no longer there
    unmatched: Mapping[str, int]  # left out, by reason
    unknown_classes: tuple[str, ...]


def import_masks(
    file: Path, into: Path, out: Path, *, reviewed: bool = False, drop_removed: bool = False
) -> Imported:
    """Write the annotations of a run or a file with the masks that people corrected elsewhere.

    Objects are matched by id (`attributes.annotation_id`, else `id` where the tool has kept ids), else by
    image and box, categories by name. Masks that differ are human from now on, and their box is what they
    fill. All others stay as they were.

    Args:
        file: a COCO file that a tool wrote.
        into: a run (what its student learned from), or the COCO file that the masks belong to.
        out: the file to be, which must not be there.
        reviewed: all masks of `file` were looked at: those that are as they were become human too.
        drop_removed: leave out objects with a mask that their image no longer has.

    Raises:
        RunError: `out` is there, or the run has no labels.
        DataError: a file cannot be read, no image is common, or images differ in size.
    """
    require_new(out)
    if not into.exists():
        raise RunError(f"{into}: nothing there; expected a run directory or a COCO file")
    is_run = into.is_dir() and not (into / "annotations.parquet").exists()
    path = RunDir(into).output("select", "instances.json") if is_run else into
    base = Dataset.open(path, seen="all").for_evaluation()
    merged = corrected(base, _read(file, base), reviewed=reviewed, drop_removed=drop_removed)
    document = base.document()
    mark = {"schema": SCHEMA_VERSION, SEEN_MASK_CLASSES: None}
    document = {MARK: mark, **document, "annotations": merged.annotations}
    with written_whole(out) as aside, aside.open("w", encoding="utf-8", errors="backslashreplace") as opened:
        json.dump(document, opened, separators=(",", ":"), ensure_ascii=False)
    names = ("changed", "drawn", "added", "unchanged", "relabeled", "removed")
    return Imported(
        path=out,
        **{name: merged.counts[name] for name in names},
        unmatched={reason: count for reason, count in merged.counts.items() if reason not in names},
        unknown_classes=merged.unknown_classes,
    )


def _read(file: Path, base: Annotations) -> Annotations:
    """A tool's COCO file, the paths of its images made plain before our reader checks them.

    Label Studio leaves out the size of an image without objects: that of the data set holds.
    """
    raw = parse_json(file)
    images = raw.get("images") if isinstance(raw, dict) else None
    if not isinstance(images, list):
        return Dataset.open(file, seen="all").for_evaluation()
    columns = (base.images[name].to_pylist() for name in ("file_name", "height", "width"))
    sizes = {PurePosixPath(name).name: (height, width) for name, height, width in zip(*columns, strict=True)}
    plain = raw | {"images": [_plain(image, sizes) for image in images]}
    with tempfile.TemporaryDirectory(prefix="deepmac-distill-") as folder:
        copy = Path(folder) / "plain.json"
        copy.write_text(json.dumps(plain), encoding="utf-8")
        try:
            return replace(Dataset.open(copy, seen="all").for_evaluation(), path=file)
        except DataError as error:
            said = str(error).replace(str(copy), str(file))
            raise DataError(said.replace(str(copy.parent), str(file.parent))) from None


def _plain(image: Any, sizes: Mapping[str, tuple[int, int]]) -> Any:
    if not (isinstance(image, dict) and isinstance(name := image.get("file_name"), str)):
        return image
    plain = {**image, "file_name": plain_name(name)}
    bare = PurePosixPath(plain["file_name"]).name
    known = next((sizes[one] for one in (bare, UPLOAD.sub("", bare)) if one in sizes), None)
    if known and (plain.get("height") is None or plain.get("width") is None):
        plain |= dict(zip(("height", "width"), known, strict=True))
    return plain
