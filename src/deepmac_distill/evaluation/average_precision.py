"""COCO average precision of detections, over all, seen and unseen classes.

hotcoco computes it (the same bits as pycocotools, much faster); pycocotools is the reference.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import hotcoco
import numpy as np
from numpy.typing import NDArray

from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.results import AveragePrecision, CocoStats, Interval, PairedStat, PairedStats
from deepmac_distill.evaluation.splits import BySplit, Split, split_classes
from deepmac_distill.geometry.rle import encode_boxes

IouType = Literal["segm", "bbox"]
KINDS: tuple[IouType, IouType] = ("segm", "bbox")
Detection = dict[
    str, Any
]  # COCO result: image_id, category_id, score, bbox (xywh) and, for segm, segmentation
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_average_precision(
    truth: Truth,
    detections: Sequence[Detection],
    iou_type: IouType,
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
    reference: bool = False,
) -> AveragePrecision:
    """The 12 COCO numbers (fractions) a split, and AP a class.

    A class without truth has no AP (None) and is left out of every mean; so is a size without instances.
    The size of a detection is that of its mask for segm and that of its box for bbox. In segm a truth
    without a mask is ignored as a crowd over its box: finding it is neither right nor wrong.

    Args:
        detections: COCO results; at most the best 100 of an image and class count.
        shown_elsewhere: names of classes whose masks the model saw elsewhere (see `splits`).
        reference: compute with pycocotools.

    Raises:
        DataError: a detection names an image or a category that the truth does not have.
    """
    if reference:
        evaluation = _evaluate_with_pycocotools(truth, detections, iou_type)
    else:
        evaluation = CocoTruth.of(truth, iou_type).evaluate(detections)
    precision, recall = (
        evaluation.eval["precision"],
        evaluation.eval["recall"],
    )  # (T, R, K, A, M), (T, K, A, M)
    position = {category_id: k for k, category_id in enumerate(evaluation.params.catIds)}
    rows = np.array([position[i] for i in truth.classes.category_ids], dtype=np.int64)  # class index -> K
    indices, ignored = truth.class_index(), _ignored(truth, iou_type)

    def stats(members: NDArray[np.int64]) -> CocoStats:
        inside = np.isin(indices, members)
        return CocoStats(
            **_stats(precision[:, :, rows[members]], recall[:, rows[members]]),
            instances=int((inside & ~ignored).sum()),
            ignored=int((inside & ignored).sum()),
        )

    per_class = tuple(_mean(precision[:, :, k, 0, -1]) for k in rows)
    return AveragePrecision(split_classes(truth.classes, shown_elsewhere).map(stats), per_class)


@dataclass(frozen=True, slots=True)
class CocoTruth:
    """The truth as one IoU type sees it: built once for any number of models and splits."""

    truth: Truth
    iou_type: IouType
    coco: hotcoco.COCO

    @classmethod
    def of(cls, truth: Truth, iou_type: IouType) -> CocoTruth:
        """Every mask is rasterized here, if the IoU type asks for masks."""
        return cls(truth, iou_type, hotcoco.COCO(_coco_dict(truth, iou_type)))

    def found(self, detections: Sequence[Detection]) -> hotcoco.COCO:
        """Detections ready for `evaluate_found`.

        Raises:
            DataError: a detection names an image or a category that the truth does not have.
        """
        _check_detections(self.truth, detections)
        return self.coco.load_res(_only(detections, self.iou_type))

    def evaluate(self, detections: Sequence[Detection]) -> hotcoco.COCOeval:
        """All classes."""
        return self.evaluate_found(self.found(detections))

    def evaluate_found(self, found: hotcoco.COCO, category_ids: list[int] | None = None) -> hotcoco.COCOeval:
        """Some classes, or all."""
        evaluation = hotcoco.COCOeval(self.coco, found, self.iou_type)
        if category_ids is not None:
            evaluation.params.cat_ids = category_ids
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation


def compare_average_precision(
    truth: CocoTruth,
    detections_a: Sequence[Detection],
    detections_b: Sequence[Detection],
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
    resamples: int = 1000,
    seed: int = 0,
) -> BySplit[PairedStats | None]:
    """Paired differences of two detectors' COCO numbers with 95 % intervals, images resampled.

    A resample costs one accumulation over its images: 1000 on 5000 images are far from interactive. A split
    without classes is None.
    """
    ids = np.array(truth.truth.classes.category_ids)
    found = [truth.found(detections) for detections in (detections_a, detections_b)]

    def compared(_: Split, members: NDArray[np.int64]) -> PairedStats | None:
        if not members.size:
            return None
        a, b = (truth.evaluate_found(one, ids[members].tolist()) for one in found)
        both = hotcoco.compare(b, a, n_bootstrap=resamples, seed=seed)
        return PairedStats(**{stat: _difference(both, stat) for stat in STATS})

    return split_classes(truth.truth.classes, shown_elsewhere).map_named(compared)


def _difference(found: dict[str, Any], stat: str) -> PairedStat:
    # hotcoco takes its first argument as the baseline, so its "b" is our a
    a, b, limits = found["metrics_b"][stat], found["metrics_a"][stat], found["ci"][stat]
    if min(a, b) < 0:  # COCO's mark for a mean over nothing
        return PairedStat(None, None, Interval(None))
    return PairedStat(a, b, Interval(found["deltas"][stat], limits["lower"], limits["upper"]))


def _stats(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float | None]:
    """`STATS` of precision (T, R, K, A, M) and recall (T, K, A, M): IoU, recall, class, area, detections."""
    average = [precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1]]
    average += [precision[..., area, -1] for area in (1, 2, 3)]
    average += [recall[..., 0, most] for most in (0, 1, 2)]
    average += [recall[..., area, -1] for area in (1, 2, 3)]
    return dict(zip(STATS, map(_mean, average), strict=True))


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else None


def _evaluate_with_pycocotools(truth: Truth, detections: Sequence[Detection], iou_type: IouType) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    _check_detections(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports to the terminal as it goes
        coco, found = COCO(), COCO()
        coco.dataset = _coco_dict(truth, iou_type)
        found.dataset = {**coco.dataset, "annotations": []}
        coco.createIndex()
        found.createIndex()
        if detections:  # loadRes cannot read an empty list
            found = coco.loadRes(_only(detections, iou_type))
        evaluation = COCOeval(coco, found, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _only(detections: Sequence[Detection], iou_type: IouType) -> list[Detection]:
    """Detections with one shape: given both, a COCO evaluator sizes masks by their boxes."""
    other = "bbox" if iou_type == "segm" else "segmentation"
    return [{key: value for key, value in d.items() if key != other} for d in detections]


def _ignored(truth: Truth, iou_type: IouType) -> NDArray[np.bool_]:
    """(N,) bool: truths that may be found or not without effect."""
    crowd: NDArray[np.bool_] = truth.annotations["iscrowd"].to_numpy()
    return crowd | ~truth.has_human_mask() if iou_type == "segm" else crowd


def _coco_dict(truth: Truth, iou_type: IouType) -> dict[str, Any]:
    """The truth as COCO JSON, with what one IoU type needs."""
    images = zip(*(truth.images[name].to_pylist() for name in ("image_id", "height", "width")), strict=True)
    names = zip(truth.classes.category_ids, truth.classes.names, strict=True)
    with_masks = iou_type == "segm"
    columns = ["image_id", "category_id", "bbox", "area"]
    rows = truth.annotations.select(columns).to_pylist()
    shapes: list[dict[str, Any]] = _segmentations(truth) if with_masks else [{} for _ in rows]
    annotations = []
    # Ids of our own: pycocotools takes a match with id 0 for no match.
    known = zip(rows, _ignored(truth, iou_type).tolist(), shapes, strict=True)
    for number, (row, ignored, shape) in enumerate(known, start=1):
        area = row["area"]
        if area is None:
            area = int(hotcoco.mask.area(shape)) if with_masks else row["bbox"][2] * row["bbox"][3]
        entry = {"id": number, "image_id": row["image_id"], "category_id": row["category_id"]}
        entry |= {"bbox": row["bbox"], "area": area, "iscrowd": int(ignored)}
        annotations.append(entry | ({"segmentation": shape} if with_masks else {}))
    return {
        "images": [{"id": i, "height": h, "width": w, "file_name": str(i)} for i, h, w in images],
        "categories": [{"id": i, "name": name} for i, name in names],
        "annotations": annotations,
    }


def _segmentations(truth: Truth) -> list[dict[str, Any]]:
    """Each annotation's mask as RLE; its box where it has none."""
    sizes = truth.image_sizes()
    boxes = encode_boxes(truth.boxes_xyxy(), *sizes.T)
    polygons, counts = (truth.annotations[name].to_pylist() for name in ("polygons", "rle_counts"))
    shapes = zip(polygons, counts, truth.has_human_mask(), boxes, sizes.tolist(), strict=True)
    return [mask_rle(*((p, c) if known else (None, box)), *size) for p, c, known, box, size in shapes]


def _check_detections(truth: Truth, detections: Sequence[Detection]) -> None:
    known = {
        "image_id": set(truth.images["image_id"].to_pylist()),
        "category_id": set(truth.classes.category_ids),
    }
    for position, detection in enumerate(detections):
        for key, ids in known.items():
            if detection[key] not in ids:
                raise DataError(
                    f"detection {position}: {key} {detection[key]}: expected one of those in {truth.path}"
                )
