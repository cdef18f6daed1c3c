"""Which masks of a run a person should draw next, as a file that an annotator can work through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from deepmac_distill.calibration.expected import Expected
from deepmac_distill.calibration.review import Review, review_of
from deepmac_distill.config import load_pipeline
from deepmac_distill.errors import ConfigError, DataError, RunError
from deepmac_distill.exports.coco import write_rle
from deepmac_distill.exports.masks import of_labels
from deepmac_distill.files import written_whole
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.rules import Rules
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.outputs import require_new
from deepmac_distill.stages.quality import KnownQuality, calibrated, expected_quality, require_quality


@dataclass(frozen=True, slots=True)
class ReviewList:
    """What was written."""

    path: Path
    images: int
    review: Review
    expected: Expected


def review_list(given: Path, out: Path, budget: int, calibration: Path | None = None) -> ReviewList:
    """Write the `budget` masks with the lowest `quality_low` as a COCO file: an estimate, no truth is read.

    Args:
        given: a run directory or a masks.parquet.
        out: COCO file to be, which must not be there.
        budget: masks that a person has time for.
        calibration: a file; None: the run's.

    Raises:
        ConfigError: a budget below 1.
        RunError: `out` is there, nothing is at `given`, or no quality is known.
        DataError: the labels cannot be read, or hold no mask whose quality is known.
    """
    if budget < 1:
        raise ConfigError(f"--budget {budget}: expected at least 1")
    require_new(out)
    if not given.exists():
        raise RunError(f"{given}: nothing there; expected a run directory or a masks.parquet")
    labels, why_not = _labels_of(given, calibration)
    require_quality(labels, why_not, "a review list")
    known, expected = KnownQuality.of(labels), expected_quality(labels)
    if expected is None:
        raise DataError(f"{labels.path}: no mask of a teacher with a quality; expected at least one")
    found = review_of(known.quality, known.low, known.classes, known.names, budget)
    listed = set(labels.table["annotation_id"].take(pa.array(known.rows[found.rows])).to_pylist())
    masks = of_labels(labels, Rules(), "keep")
    kept = [one in listed for one in masks.rows["annotation_id"].to_pylist()]
    rows = masks.rows.filter(pa.array(kept))
    wanted = set(rows["image_id"].to_pylist())
    images = masks.images.filter(pa.array([one in wanted for one in masks.images["image_id"].to_pylist()]))
    with written_whole(out) as aside:
        write_rle(replace(masks, rows=rows, images=images), aside, 0.0)
    return ReviewList(out, len(images), found, expected)


def _labels_of(given: Path, calibration: Path | None) -> tuple[Labels, str]:
    """The labels with the quality that is known, and why none is."""
    if not given.is_dir():
        return calibrated(Labels.open(given), calibration or "")
    path = RunDir(given).output("pseudolabel", "masks.parquet")
    chosen = load_pipeline(given / "config.json").labels
    labels = Labels.open(path).with_cut(chosen.cut_alone)
    return calibrated(labels, calibration or chosen.calibration, by_calibration=chosen.by_calibration)
