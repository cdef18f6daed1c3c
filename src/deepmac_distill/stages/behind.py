"""A model behind a detector: it draws the masks of boxes that another evaluation's detector found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepmac_distill.contract import BoxSegmenter
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.average_precision import Detection
from deepmac_distill.files import write_json
from deepmac_distill.made_with import refuse_edit
from deepmac_distill.stages.compare import RESULTS, read_detections, read_record
from deepmac_distill.stages.evaluated_masks import masks_in_given_boxes
from deepmac_distill.stages.evaluated_model import EvaluatedModel
from deepmac_distill.stages.job import Job

BOXES = "boxes.json"  # the detector's boxes as a COCO file, in the folder of the evaluation


def require_detections(folder: Path) -> Path:
    """The detections in an evaluation folder.

    Raises:
        DataError: there are none.
        RunError: they were changed since.
    """
    if not (folder / RESULTS).is_file():
        raise DataError(f"{folder}: no {RESULTS}; expected the evaluation of a model that detects")
    refuse_edit(folder / RESULTS)
    return folder / RESULTS


def require_same_set(folder: Path, truth: Truth) -> None:
    """Refuse an evaluation of another set.

    Raises:
        DataError: names it.
        RunError: the folder holds no evaluation.
    """
    if read_record(folder).annotations_sha256 != truth.fingerprint:
        raise DataError(
            f"{folder}: evaluated on other annotations or seen classes than {truth.path} holds now"
        )


def results_behind(
    job: Job, of: EvaluatedModel, model: BoxSegmenter, detector: Path, folder: Path
) -> list[Detection]:
    """The detector's results with this model's masks; a box for which it has no mask is left out.

    Args:
        detector: folder of the detector's evaluation.
        folder: of this one, where the boxes are kept as a COCO file.

    Raises:
        RunError: the detections cannot be read.
        DataError: one has a box that no file of boxes may have.
    """
    truth, (detections,) = of.on.truth, read_detections([detector]) or [[]]
    write_json(folder / BOXES, _document(truth, detections))
    boxes = Dataset.open(folder / BOXES, seen="all").for_evaluation()
    masks = masks_in_given_boxes(
        job, replace(of.on, truth=boxes), of.source, model, f"masks of {len(detections)} detections"
    )
    return _with_masks(detections, masks, truth)


def _document(truth: Truth, detections: list[Detection]) -> dict[str, Any]:
    images = truth.images.select(["image_id", "file_name", "height", "width"]).to_pylist()
    classes = zip(truth.classes.category_ids, truth.classes.names, strict=True)
    return {
        "images": [{"id": one.pop("image_id"), **one} for one in images],
        "categories": [{"id": id, "name": name} for id, name in classes],
        "annotations": [
            {"id": number, "iscrowd": 0, **{key: one[key] for key in ("image_id", "category_id", "bbox")}}
            for number, one in enumerate(detections, start=1)
        ],
    }


def _with_masks(detections: list[Detection], masks: pa.Table, truth: Truth) -> list[Detection]:
    columns = (truth.images[name].to_pylist() for name in ("image_id", "height", "width"))
    size_of = {image_id: list(size) for image_id, *size in zip(*columns, strict=True)}
    pairs = zip(masks["annotation_id"].to_pylist(), masks["rle_counts"].to_pylist(), strict=True)
    return [
        {
            **detections[number - 1],
            "segmentation": {
                "size": size_of[detections[number - 1]["image_id"]],
                "counts": counts.decode("ascii"),
            },
        }
        for number, counts in sorted(pairs)
    ]
