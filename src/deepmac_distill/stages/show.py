"""Stage `show`: what a teacher drew, for the eye and without any truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepmac_distill.config import load_pipeline
from deepmac_distill.data.image_places import images_at
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.data.images import ImageReader
from deepmac_distill.dataset.classes import nearest
from deepmac_distill.errors import ConfigError, DataError, RunError
from deepmac_distill.geometry.boxes import xywh_to_xyxy
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.report.contact_sheet import Panel, SheetRow, around, contact_sheet
from deepmac_distill.report.drawing import Overlay, color_of
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.outputs import require_ours
from deepmac_distill.stages.quality import calibrated
from deepmac_distill.stages.sheet import worst_median_best
from deepmac_distill.storage.location import joined

AS_STORED = ImageReader()
MAX_CLASSES = 40  # rows of a sheet that can still be looked at
IN_A_ROW = 4  # masks of `lowest`
PLACES = {"worst": "lowest", "median": "median", "best": "highest"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a sheet shows."""

    masks: int
    classes: int
    of_classes: int  # that have masks of the teacher


def show(
    labels: Path,
    out: Path,
    *,
    classes: Sequence[str] = (),
    lowest: int = 0,
    images: Path | None = None,
    reader: ImageReader = AS_STORED,
) -> Shown:
    """Write a sheet of masks by their score: of each class the lowest, the median and the highest.

    Args:
        labels: masks.parquet, or a run directory that holds one. A run's masks end at its `labels.cut`.
        out: PNG to write.
        classes: names of classes; none: those with most masks, `MAX_CLASSES` of them.
        lowest: instead, so many masks of lowest score, whatever their classes.
        images: folder of the images; None: those of the run that holds the labels.
        reader: how images are read of labels that are in no run; a run has its own keys for that.

    Raises:
        DataError: the labels hold no mask of a teacher, or an image cannot be read.
        ConfigError: a class has none, or the folder of the images is unknown.
        RunError: `out` is a file of somebody else, or the run has no labels.
    """
    if not labels.exists():
        raise RunError(f"{labels}: nothing there; expected a run directory or a masks.parquet")
    path = RunDir(labels).output("pseudolabel", "masks.parquet") if labels.is_dir() else labels
    run = path.resolve().parent.parent
    found = Labels.open(path)
    if (run / "config.json").is_file():
        chosen = load_pipeline(run / "config.json").labels
        by_calibration, found = chosen.by_calibration, found.with_cut(chosen.cut_alone)
        found, _ = calibrated(found, chosen.calibration, by_calibration=by_calibration)
    table = found.table
    drawn = table.filter(pc.and_(pc.equal(table["source"], "teacher"), pc.equal(table["status"], "labeled")))
    if not len(drawn):
        raise DataError(f"{path}: no mask of a teacher; expected at least one")
    counts = _masks_by_class(drawn)
    names = _chosen(path, counts, classes)
    if classes:
        drawn = drawn.filter(pc.is_in(drawn["category_name"], pa.array(names)))
    store = _images_of(path, images, reader)
    require_ours([out], [path])
    rows = (
        _lowest_rows(drawn, store, lowest) if lowest else [_class_row(drawn, store, name) for name in names]
    )
    masks = sum(bool(panel.overlays) for row in rows for panel in row.columns.values())
    note = "Masks of the teacher by mask_score, its mean probability inside the mask. No truth was looked at."
    contact_sheet(rows, out, str(labels), note)
    return Shown(masks, len(names), len(counts))


def _masks_by_class(drawn: pa.Table) -> dict[str, int]:
    """Class name -> number of masks, most first."""
    found = pc.value_counts(drawn["category_name"].combine_chunks()).to_pylist()
    return dict(sorted(((one["values"], one["counts"]) for one in found), key=lambda one: (-one[1], one[0])))


def _chosen(path: Path, counts: dict[str, int], classes: Sequence[str]) -> list[str]:
    for name in classes:
        if name not in counts:
            near = nearest(name, counts)
            raise ConfigError(
                f"{path}: class {name}: no mask of a teacher; expected one such as {', '.join(near)}"
            )
    return list(classes) or list(counts)[:MAX_CLASSES]


def _images_of(path: Path, given: Path | None, reader: ImageReader) -> ImageStore:
    """The images of labels: those of their run, or of a folder that is given."""
    run = path.resolve().parent.parent
    if not (run / "config.json").is_file():
        if given is None:
            raise ConfigError(f"{path}: not in a run, so its images are not known; expected --images")
        return images_at(given, reader.exif, reader.max_megapixels)
    data = load_pipeline(run / "config.json").data
    scenes = run / "scenes-train" / "images"
    own = scenes if data.source == "scenes" else joined(data.root, data.train_images)
    return images_at(given or own, data.exif, data.max_megapixels)


def _class_row(drawn: pa.Table, images: ImageStore, name: str) -> SheetRow:
    """The lowest, the median and the highest mask of a class; a class of fewer has empty places."""
    of_class = drawn.filter(pc.equal(drawn["category_name"], name))
    picks = worst_median_best(_scores(of_class).tolist(), each=1)
    index_of = {PLACES[pick.place]: pick.index for pick in picks}
    panels = {
        place: _panel(of_class, images, index_of[place]) if place in index_of else _empty()
        for place in PLACES.values()
    }
    return SheetRow(_BLANK, panels, f"{name}: {len(of_class)} masks")


def _lowest_rows(drawn: pa.Table, images: ImageStore, lowest: int) -> list[SheetRow]:
    order = np.argsort(_scores(drawn), kind="stable")[:lowest]
    width = min(IN_A_ROW, len(order))
    rows = []
    for first in range(0, len(order), width):
        panels = [
            _panel(drawn, images, int(index), with_class=True) for index in order[first : first + width]
        ]
        panels += [_empty()] * (width - len(panels))
        columns = {str(place): panel for place, panel in enumerate(panels, start=1)}
        rows.append(SheetRow(_BLANK, columns, f"from rank {first + 1} of {len(drawn)}"))
    return rows


def _scores(rows: pa.Table) -> np.ndarray:
    return np.asarray(pc.fill_null(rows["mask_score"], 0.0))


def _panel(rows: pa.Table, images: ImageStore, index: int, with_class: bool = False) -> Panel:
    """One mask in its box, on the part of its image around it."""
    row = rows.slice(index, 1).to_pylist()[0]
    height, width = row["height"], row["width"]
    image = images.read_sized(row["file_name"], height, width).permute(1, 2, 0).numpy()
    ((x1, y1, x2, y2),) = xywh_to_xyxy(np.array([row["bbox"]])).tolist()
    name = f"{row['category_name']}, " if with_class else ""
    return Panel(
        [Overlay(color_of(0), row["rle_counts"], (x1, y1, x2, y2))],
        note=f"{name}score {row['mask_score'] or 0:.2f}" if row["mask_area"] else f"{name}empty",
        image=image,
        window=around((x1, y1, x2, y2), height, width),
    )


_BLANK = np.full((1, 1, 3), 255, dtype=np.uint8)


def _empty() -> Panel:
    return Panel((), image=_BLANK)
