"""COCO average precision of detections, over all, seen and unseen classes.

hotcoco computes it (the same bits as pycocotools, much faster); pycocotools is the reference.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import hotcoco
import numpy as np
from numpy.typing import NDArray

from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.federated import Federated
from deepmac_distill.evaluation.results import AveragePrecision, CocoStats
from deepmac_distill.evaluation.splits import NO_SPLITS, BySplit, Named, split_classes
from deepmac_distill.geometry.rle import encode_boxes

IouType = Literal["segm", "bbox"]
KINDS: tuple[IouType, IouType] = ("segm", "bbox")
Detection = dict[
    str, Any
]  # COCO result: image_id, category_id, score, bbox (xywh) and, for segm, segmentation
RANKS = (1, 10, 100)  # best detections of an image and class that AR1, AR10 and AR100 look at
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_average_precision(
    truth: Truth,
    detections: Sequence[Detection],
    iou_type: IouType,
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
    named: Named = NO_SPLITS,
    reference: bool = False,
) -> AveragePrecision:
    """The 12 COCO numbers (fractions) a split, and AP a class.

    A class without truth has no AP (None) and is left out of every mean; so is a size without instances.
    The size of a detection is that of its mask for segm and that of its box for bbox. In segm a truth
    without a mask is ignored as a crowd over its box: finding it is neither right nor wrong.

    A file with LVIS's lists of classes is evaluated by its federated rule (`federated`).

    Args:
        detections: COCO results. All count; AR1, AR10 and AR100 look at so many of an image and class.
        shown_elsewhere: names of classes whose masks the model saw elsewhere (see `splits`).
        named: classes of more splits, each with figures of its own.
        reference: compute with pycocotools.

    Raises:
        DataError: a detection names an image or a category that the truth does not have.
    """
    if reference:
        evaluation = _evaluate_with_pycocotools(truth, detections, iou_type)
    else:
        evaluation = CocoTruth.of(truth, iou_type).evaluate(detections)
    indices, ignored = truth.class_index(), _ignored(truth, iou_type)

    def with_counts(members: NDArray[np.int64], stats: dict[str, float | None]) -> CocoStats:
        inside = np.isin(indices, members)
        return CocoStats(
            **stats,
            instances=int((inside & ~ignored).sum()),
            ignored=int((inside & ignored).sum()),
        )

    splits = split_classes(truth.classes, shown_elsewhere, named)
    found = stats_by_split(truth, evaluation, splits)
    precision, rows = evaluation.eval["precision"], _rows(truth, evaluation)
    return AveragePrecision(
        splits.map_named(lambda split, members: with_counts(members, found[split])),
        tuple(_mean(precision[:, :, k, 0, -1]) if k >= 0 else None for k in rows),
    )


def ranks_of(detections: Sequence[Detection]) -> tuple[int, ...]:
    """COCO's `maxDets` such that all detections count, of an image and class those that it has.

    >>> ranks_of([{"image_id": 1, "category_id": 1}] * 101), ranks_of([])
    ((1, 10, 100, 101), (1, 10, 100))
    """
    found = Counter((one["image_id"], one["category_id"]) for one in detections)
    most = max(found.values(), default=0)
    return (*RANKS, most) if most > RANKS[-1] else RANKS


def stats_by_split(
    truth: Truth, evaluation: Any, splits: BySplit[NDArray[np.int64]]
) -> BySplit[dict[str, float | None]]:
    """`STATS` over the classes of each split, of an evaluation of all classes that have a truth."""
    found, rows = evaluation.eval, _rows(truth, evaluation)  # hotcoco makes its arrays anew at each access
    precision, recall = found["precision"], found["recall"]  # (T, R, K, A, M), (T, K, A, M)
    there = splits.map(lambda members: rows[members][rows[members] >= 0])
    return there.map(lambda k: _stats(precision[:, :, k], recall[:, k]))


def _rows(truth: Truth, evaluation: Any) -> NDArray[np.int64]:
    """(K,) class index -> position in an evaluation's arrays; -1 of a class that is not in it."""
    position = {category_id: k for k, category_id in enumerate(evaluation.params.catIds)}
    return np.array([position.get(i, -1) for i in truth.classes.category_ids], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class CocoTruth:
    """The truth as one IoU type sees it: built once for any number of models and splits."""

    truth: Truth
    iou_type: IouType
    coco: hotcoco.COCO
    image_ids: NDArray[np.int64]  # ascending
    federated: Federated | None
    cells: frozenset[tuple[int, int]]  # image and category of every truth, those to ignore included

    @classmethod
    def of(cls, truth: Truth, iou_type: IouType) -> CocoTruth:
        """Every mask is rasterized here, if the IoU type asks for masks."""
        federated = Federated.of(truth)
        data = _coco_dict(truth, iou_type, federated)
        cells = frozenset((one["image_id"], one["category_id"]) for one in data["annotations"])
        image_ids = np.sort(truth.images["image_id"].to_numpy())
        return cls(truth, iou_type, hotcoco.COCO(data), image_ids, federated, cells)

    @property
    def categories(self) -> set[int]:
        """Ids of the classes that have a truth; no other has a figure."""
        return {category_id for _, category_id in self.cells}

    def that_count(self, detections: Sequence[Detection]) -> Sequence[Detection]:
        """Those of classes that somebody looked for in the image.

        Raises:
            DataError: a detection names an image or a category that the truth does not have.
        """
        return _that_count(self.truth, detections, self.federated)

    def found(self, detections: Sequence[Detection]) -> hotcoco.COCO:
        """Detections of `that_count`, ready for `matched`; their ids are their positions from 1."""
        return self.coco.load_res(_only(detections, self.iou_type))

    def evaluate(self, detections: Sequence[Detection]) -> hotcoco.COCOeval:
        """Precision and recall of all classes that have a truth.

        Raises:
            DataError: a detection names an image or a category that the truth does not have.
        """
        counted, classes = self.that_count(detections), sorted(self.categories) or None
        evaluation = self.matched(self.found(counted), ranks_of(counted), classes)
        evaluation.accumulate()
        return evaluation

    def matched(
        self, found: hotcoco.COCO, ranks: Sequence[int], category_ids: list[int] | None = None
    ) -> hotcoco.COCOeval:
        """Which detections of some classes, or of all, match which truths; `ranks` is COCO's `maxDets`."""
        evaluation = hotcoco.COCOeval(self.coco, found, self.iou_type)
        evaluation.params.max_dets = list(ranks)
        if category_ids is not None:
            evaluation.params.cat_ids = category_ids
        evaluation.evaluate()
        return evaluation


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

    federated = Federated.of(truth)
    detections = _that_count(truth, detections, federated)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports to the terminal as it goes
        coco, found = COCO(), COCO()
        coco.dataset = _coco_dict(truth, iou_type, federated)
        found.dataset = {**coco.dataset, "annotations": []}
        coco.createIndex()
        found.createIndex()
        if detections:  # loadRes cannot read an empty list
            found = coco.loadRes(_only(detections, iou_type))
        evaluation = COCOeval(coco, found, iou_type)
        evaluation.params.maxDets = list(ranks_of(detections))
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


def _coco_dict(truth: Truth, iou_type: IouType, federated: Federated | None) -> dict[str, Any]:
    """The truth as COCO JSON, with what one IoU type needs.

    Where not all objects of a class are marked, a crowd over the whole image takes what matches none of them.
    """
    columns = (truth.images[name].to_pylist() for name in ("image_id", "height", "width"))
    sizes = {image_id: size for image_id, *size in zip(*columns, strict=True)}
    names = zip(truth.classes.category_ids, truth.classes.names, strict=True)
    with_masks = iou_type == "segm"
    rows = truth.annotations.select(["image_id", "category_id", "bbox", "area"]).to_pylist()
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
    for image_id, category_id in sorted(federated.not_exhaustive if federated else ()):
        crowd = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id, "iscrowd": 1}
        height, width = sizes[image_id]
        annotations.append(crowd | _over_image(height, width, with_masks))
    return {
        "images": [{"id": i, "height": h, "width": w, "file_name": str(i)} for i, (h, w) in sizes.items()],
        "categories": [{"id": i, "name": name} for i, name in names],
        "annotations": annotations,
    }


def _over_image(height: int, width: int, with_mask: bool) -> dict[str, Any]:
    """A shape that covers every mask of an image, and every box that begins or ends not far from it."""
    shape = {"bbox": [-width, -height, 3 * width, 3 * height], "area": height * width}
    counts = encode_boxes([[0, 0, width, height]], height, width)[0]
    return shape | ({"segmentation": {"size": [height, width], "counts": counts}} if with_mask else {})


def _segmentations(truth: Truth) -> list[dict[str, Any]]:
    """Each annotation's mask as RLE; its box where it has none."""
    sizes = truth.image_sizes()
    boxes = encode_boxes(truth.boxes_xyxy(), *sizes.T)
    polygons, counts = (truth.annotations[name].to_pylist() for name in ("polygons", "rle_counts"))
    shapes = zip(polygons, counts, truth.has_human_mask(), boxes, sizes.tolist(), strict=True)
    return [mask_rle(*((p, c) if known else (None, box)), *size) for p, c, known, box, size in shapes]


def _that_count(
    truth: Truth, detections: Sequence[Detection], federated: Federated | None
) -> Sequence[Detection]:
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
    if federated is None:
        return detections
    pairs = federated.looked_for
    return [one for one in detections if (one["image_id"], one["category_id"]) in pairs]
