"""Evaluations side by side: paired differences of two, a contact sheet of any number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from deepmac_distill.dataset.coco import Annotations, read_coco
from deepmac_distill.errors import ConfigError, DataError, RunError
from deepmac_distill.evaluation.average_precision import compare_average_precision
from deepmac_distill.evaluation.summary import compare_given_boxes
from deepmac_distill.report.contact_sheet import contact_sheet
from deepmac_distill.stages.sheet import Judged, draw_sheet

MOST_AP_RESAMPLES = (
    200  # each repeats the accumulation over all detections; IoU resamples cost next to nothing
)


def compare(a: Path, b: Path, resamples: int, seed: int) -> dict[str, Any]:
    """Paired differences, a minus b, of two evaluation folders on the same validation set.

    Raises:
        RunError: a folder holds no evaluation.
        DataError: the two were judged on other instances, or the set has changed since.
    """
    truth = _truth_of((a, b))
    ious = [pq.read_table(folder / "ious.parquet") for folder in (a, b)]
    found: dict[str, Any] = {"given_boxes": compare_given_boxes(*ious, truth.classes, resamples, seed)}
    if all((folder / "detections.json").exists() for folder in (a, b)):
        results = [json.loads((folder / "detections.json").read_text(encoding="utf-8")) for folder in (a, b)]
        found["detected"] = {
            kind: compare_average_precision(
                truth, *results, kind, resamples=min(resamples, MOST_AP_RESAMPLES), seed=seed
            )
            for kind in ("segm", "bbox")
        }
    return found


def sheet(folders: Mapping[str, Path], out: Path, images: Path | None = None, each: int = 1) -> str:
    """Write a contact sheet of any number of evaluations on one validation set; returns what it ranks.

    Args:
        folders: heading -> evaluation folder.
        out: a .png file.
        images: folder of the validation images; None: where they lay when the first was judged.
        each: so many of the worst, of the median and of the best masks of each.

    Raises:
        RunError: a folder holds no evaluation.
        DataError: they were judged on other instances, the set has changed since, or it has no true mask.
        ConfigError: no folder of images is given or known.
    """
    truth = _truth_of(tuple(folders.values()))
    known = _read_record(next(iter(folders.values()))).get("images")
    if images is None and known is None:
        raise ConfigError("sheet: no folder of images is known of this evaluation; expected --images FOLDER")
    masks = {name: judged_masks(folder) for name, folder in folders.items()}
    drawn = draw_sheet(truth, images or Path(known), masks, each)
    if not drawn.rows:
        raise DataError(f"{truth.path}: no true masks to show; expected at least one that all were judged on")
    contact_sheet(drawn.rows, out, " and ".join(folders), drawn.note)
    return drawn.note


def judged_masks(folder: Path) -> dict[int, Judged]:
    """Annotation id -> mask and IoU, of an evaluation folder."""
    masks = pq.read_table(folder / "masks.parquet").to_pylist()
    ious = pq.read_table(folder / "ious.parquet", columns=["annotation_id", "iou"]).to_pylist()
    counts = {row["annotation_id"]: row["rle_counts"] for row in masks}
    return {
        row["annotation_id"]: Judged(counts[row["annotation_id"]], row["iou"])
        for row in ious
        if row["annotation_id"] in counts
    }


def _truth_of(folders: tuple[Path, ...]) -> Annotations:
    """What some evaluations were judged on, if that is one set and still as it was."""
    records = [_read_record(folder) for folder in folders]
    truth = read_coco(Path(records[0]["annotations"]), tuple(records[0]["seen"]), hide_unseen=False)
    for folder, record in zip(folders, records, strict=True):
        if record["annotations_sha256"] != truth.content_sha256:
            raise DataError(
                f"{folder}: judged on other annotations or seen classes than {truth.path} holds now"
            )
    return truth


def _read_record(folder: Path) -> dict[str, Any]:
    """What an evaluation was of."""
    try:
        return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{folder}: no evaluation; expected a folder that deepmac evaluate wrote") from None
