"""One teacher tried on masks that are hidden from it: its masks at every cut, beside their true IoU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepmac_distill.contract import ModelSpec
from deepmac_distill.data.framed import framed_batches
from deepmac_distill.data.image_check import image_inputs
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.views import Truth, boxes_xywh, equals
from deepmac_distill.evaluation.holdout_masks import CUTS, HIDDEN, SHOWN_ELSEWHERE, holdout_table
from deepmac_distill.evaluation.mask_iou import given_box_ious, with_names
from deepmac_distill.geometry.boxes import xywh_to_xyxy
from deepmac_distill.inference import SegmentedBoxes, framed_boxes, segment_boxes
from deepmac_distill.labels.cut import EXPECTED_IOU, Cut, CutMasks, box_ious, recut
from deepmac_distill.models.load import Source, segmenter_for
from deepmac_distill.stages.evaluated_masks import note_how
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.kept_holdout import MASKS

STAGE = "holdout-masks"


@dataclass(frozen=True, slots=True)
class Trial:
    """Which masks a teacher is tried on, and where that is kept."""

    name: str  # of the teacher
    job: Job  # its run is the trial's own
    truth: Truth  # masks of the hidden classes alone
    images: ImageStore
    fold_of: Mapping[str, int]  # of each hidden class

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """(N,) boxes that are drawn in: usable ones whose mask a person drew."""
        found: NDArray[np.bool_] = self.truth.has_human_mask() & equals(
            self.truth.annotations, "status", "ok"
        )
        return found


def draw(trial: Trial, source: Source) -> Path:
    """Draw the hidden masks and measure them, unless that is done; returns the stage's folder."""
    job, truth = trial.job, trial.truth
    inputs = {
        **source.inputs("teacher"),
        "hidden masks": truth.fingerprint,
        **image_inputs("data.train_images", truth, trial.images),
        "labels.cut": job.pipeline.labels.cut_alone,
        "teacher": trial.name,
        "folds": dict(trial.fold_of),
    }

    def work(folder: Path) -> None:
        pq.write_table(_drawn(trial, source), folder / MASKS, compression="zstd")

    return job.do(STAGE, inputs, work, derived=True)


def _drawn(trial: Trial, source: Source) -> pa.Table:
    """Rows of HOLDOUT_SCHEMA: one for each wanted box, in the order of the data set."""
    job, truth = trial.job, trial.truth
    model = segmenter_for(source, job.device, truth.classes.names)
    note_how(job, source, model.spec)
    dataset = framed_boxes(source.look, model.spec, truth, trial.images, trial.wanted)
    size, workers = job.pipeline.evaluation.batch_size, job.pipeline.data.workers
    positions = np.flatnonzero(np.diff(np.cumsum(np.r_[0, trial.wanted])[truth.rows_by_image()])).tolist()
    rows: list[pa.Table] = []
    autocast = job.autocast_of(source.role)
    with job.progress.bar(f"hidden masks by {trial.name}", len(positions), unit="image") as bar:
        for some in framed_batches(dataset, size, positions, workers=workers):
            for batch in segment_boxes(model, [some.batches], job.device, autocast):
                rows.append(_measured(truth, batch, model.spec, job.pipeline.labels.cut_alone))
            bar.advance(some.images)
    return _with_truth(trial, pa.concat_tables(rows).sort_by("row"), source.seen_mask_classes)


def _measured(truth: Truth, batch: SegmentedBoxes, spec: ModelSpec, cut: Cut) -> pa.Table:
    """`row`, what the grids show of the masks of a batch, and their IoU at each cut."""
    rows, grids = batch.rows, batch.grids
    boxes, sizes = truth.boxes_xyxy()[rows], truth.image_sizes()[rows]

    def at(cut: Cut) -> CutMasks:
        return recut(grids, boxes, sizes, cut, spec.probabilities, lattice=spec.lattice)

    rule, own = at(EXPECTED_IOU), at(cut)
    each = [at(number) for number in CUTS]
    ious = true_ious(truth, rows, [rule.counts, *(masks.counts for masks in each)])
    ious[~batch.answered] = 0.0
    silent, given = ~batch.answered, xywh_to_xyxy(boxes_xywh(truth.annotations)[rows])
    unexpected = silent if spec.probabilities else np.ones(len(rows), bool)
    expected = np.stack([masks.expected_iou for masks in each], 1) if len(rows) else np.zeros((0, len(CUTS)))
    own_iou = np.full(len(rows), np.nan, np.float32) if batch.iou is None else batch.iou
    return pa.table(
        {
            "row": rows,
            "answered": batch.answered,
            "rle_counts": pa.array(own.counts, pa.binary(), mask=silent),
            "cut": pa.array(rule.cuts, mask=silent),
            "mask_score": pa.array(rule.scores, mask=silent),
            "mask_bbox_iou": pa.array(box_ious(rule.tight_boxes, given), mask=silent),
            "expected_iou": pa.array(rule.expected_iou, mask=unexpected),
            "model_iou": pa.array(own_iou, mask=silent | np.isnan(own_iou)),
            "iou_at_rule": ious[:, 0],
            "cut_ious": lists(ious[:, 1:]),
            "cut_expected_ious": lists(expected, unexpected),
        }
    )


def true_ious(truth: Truth, rows: NDArray[np.int64], cuts: Iterable[list[bytes]]) -> NDArray[np.float64]:
    """(N, C) IoU at the original resolution of C masks of each row with the one that a person drew."""
    drawn = truth.annotations.take(pa.array(rows))
    sizes = truth.image_sizes()[rows].tolist()
    shapes = zip(drawn["polygons"].to_pylist(), drawn["rle_counts"].to_pylist(), sizes, strict=True)
    masks = list(zip(*cuts, strict=True))
    found = np.zeros((len(rows), len(masks[0]) if masks else 0))
    for row, (counts, (polygons, code, size)) in enumerate(zip(masks, shapes, strict=True)):
        candidates = [{"size": size, "counts": one} for one in counts]
        found[row] = hotcoco.mask.iou(candidates, [mask_rle(polygons, code, *size)], [False])[:, 0]
    return np.clip(np.nan_to_num(found), 0.0, 1.0)


def lists(values: NDArray[Any], null: NDArray[np.bool_] | None = None) -> pa.Array:
    """(N, C) as N lists of float32, null where asked for."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
    kept = np.ones(len(values), bool) if null is None else ~null
    ends = np.cumsum(kept) * values.shape[1]
    starts = pa.array(np.r_[0, ends].astype(np.int32), mask=np.r_[~kept, False])
    cells = flat.filter(pa.array(np.repeat(kept, values.shape[1])))
    return pa.ListArray.from_arrays(starts, cells)


def _with_truth(trial: Trial, drawn: pa.Table, saw: tuple[str, ...] | None) -> pa.Table:
    """Rows of HOLDOUT_SCHEMA of what was drawn; a true mask without a pixel is left out."""
    truth = trial.truth
    ious = given_box_ious(truth, drawn.select(["row", "rle_counts"]))
    ious = ious.filter(pc.is_in(ious["row"], drawn["row"]))
    drawn = drawn.filter(pc.is_in(drawn["row"], ious["row"]))
    rows = drawn["row"].to_numpy()
    named = with_names(truth, drawn.select(["row"]))
    names = named["category_name"].to_pylist()
    x1, y1, x2, y2 = truth.boxes_xyxy()[rows].T
    facts = ("cut", "mask_score", "mask_bbox_iou", "expected_iou", "model_iou", "iou_at_rule")
    of_truth = ("annotation_id", "image_id", "area", "iou", "boundary_iou", "box_baseline_iou", "ellipse_iou")
    return holdout_table(
        {
            "teacher": [trial.name] * len(rows),
            "fold": np.array([trial.fold_of[name] for name in names], dtype=np.int32),
            "category_name": names,
            "file_name": named["file_name"],
            "split": [SHOWN_ELSEWHERE if saw is None or name in saw else HIDDEN for name in names],
            "box_width": x2 - x1,
            "box_height": y2 - y1,
            **{name: ious[name] for name in of_truth},
            **{name: drawn[name] for name in ("answered", *facts, "cut_ious", "cut_expected_ious")},
        }
    )
