"""What an evaluation finds, as types: everything that its `summary.json` holds.

IoU and AP are fractions; None stands where there is nothing to average. The JSON of a result has the names
of its fields as keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.how_evaluated import HowEvaluated
from deepmac_distill.evaluation.sizes import BySize
from deepmac_distill.evaluation.splits import BySplit
from deepmac_distill.regular import MOST_TEXT_BYTES, read_small

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % interval, of resampled images and, over several seeds, of training noise."""

    value: float | None
    low: float | None = None
    high: float | None = None
    seeds_half: float | None = None  # what half its width is of training noise alone; None: of one seed
    seeds_df: int = 0  # degrees of freedom of that noise; 0: of one seed


@dataclass(frozen=True, slots=True)
class MeanIoU:
    """Mean IoU of the model's masks, of the boxes as masks and of the ellipses inscribed in them."""

    model: float | None
    box: float | None
    ellipse: float | None


@dataclass(frozen=True, slots=True)
class BoundaryIoU:
    """Boundary IoU (arXiv:2103.16562) of the same masks."""

    class_mean_iou: MeanIoU
    instance_mean_iou: MeanIoU
    model: Interval  # this and the next are means over classes
    model_minus_ellipse: Interval


@dataclass(frozen=True, slots=True)
class SizeIoU:
    """Masks in given boxes whose truth has one size; None of what earlier versions did not measure."""

    class_mean_iou: MeanIoU
    instance_mean_iou: MeanIoU
    instances: int
    classes: int  # with at least one instance
    model_minus_ellipse: Interval | None = None
    boundary: BoundaryIoU | None = None


@dataclass(frozen=True, slots=True)
class SplitIoU:
    """Masks in given boxes of one split."""

    class_mean_iou: MeanIoU
    instance_mean_iou: MeanIoU
    instances: int
    classes: int  # with at least one instance
    truth_outside_boxes: float | None  # share of the truth's pixels that no mask in its box can reach
    model: Interval  # this and the next two are means over classes
    model_minus_box: Interval
    model_minus_ellipse: Interval
    by_size: BySize[SizeIoU]
    boundary: BoundaryIoU | None = None  # None: an earlier version did not measure it


@dataclass(frozen=True, slots=True)
class CocoStats:
    """The 12 COCO numbers of one split."""

    AP: float | None
    AP50: float | None
    AP75: float | None
    APs: float | None
    APm: float | None
    APl: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    ARs: float | None
    ARm: float | None
    ARl: float | None
    instances: int
    ignored: int  # crowds, and for masks boxes without one


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """COCO average precision of one kind of shape."""

    splits: BySplit[CocoStats]
    per_class: tuple[float | None, ...]  # K, by class index


@dataclass(frozen=True, slots=True)
class Detected:
    """COCO numbers of detected masks and boxes; None where the model does not detect."""

    segm: BySplit[CocoStats] | None = None
    bbox: BySplit[CocoStats] | None = None


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Everything that is known of one class."""

    name: str
    category_id: int
    seen: bool
    instances: int
    model: float | None  # mean IoU in given boxes, as are the next two
    box: float | None
    ellipse: float | None
    segm_AP: float | None
    bbox_AP: float | None
    shown_elsewhere: bool = False
    boundary: float | None = None  # mean boundary IoU of the model in given boxes


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that one evaluation finds: `evaluate-*/summary.json`."""

    given_boxes: BySplit[SplitIoU]
    detected: Detected
    per_class: tuple[ClassRow, ...]  # by class index


@dataclass(frozen=True, slots=True)
class Pair:
    """A mean of two models."""

    a: float | None
    b: float | None


@dataclass(frozen=True, slots=True)
class PairedMeans:
    """One measure of two models on the same instances."""

    class_mean_iou: Pair
    instance_mean_iou: Pair
    a_minus_b: Interval  # of class means


@dataclass(frozen=True, slots=True)
class PairedSize:
    """Masks in given boxes of two models whose truth has one size."""

    instances: int
    classes: int
    mask: PairedMeans
    boundary: PairedMeans


@dataclass(frozen=True, slots=True)
class PairedIoU:
    """Masks in given boxes of two models on the same instances of one split."""

    class_mean_iou: Pair
    instance_mean_iou: Pair
    instances: int
    classes: int
    a_minus_b: Interval  # of class means
    boundary: PairedMeans | None = None  # None, as the next: an earlier version did not measure it
    by_size: BySize[PairedSize] | None = None


@dataclass(frozen=True, slots=True)
class PairedStat:
    """One COCO number of two models."""

    a: float | None
    b: float | None
    a_minus_b: Interval


@dataclass(frozen=True, slots=True)
class PairedStats:
    """The 12 COCO numbers of two models in one split."""

    AP: PairedStat
    AP50: PairedStat
    AP75: PairedStat
    APs: PairedStat
    APm: PairedStat
    APl: PairedStat
    AR1: PairedStat
    AR10: PairedStat
    AR100: PairedStat
    ARs: PairedStat
    ARm: PairedStat
    ARl: PairedStat


@dataclass(frozen=True, slots=True)
class PairedDetections:
    """COCO numbers of two models; None for a split without classes."""

    segm: BySplit[PairedStats | None]
    bbox: BySplit[PairedStats | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations of one validation set."""

    given_boxes: BySplit[PairedIoU]
    detected: PairedDetections | None = None  # None unless both models detect
    seeds: tuple[int, ...] = ()  # of the trainings; intervals of several hold training noise
    how: tuple[HowEvaluated, HowEvaluated] | None = None  # None: an earlier version did not record it


@dataclass(frozen=True, slots=True)
class Report:
    """Teacher and student side by side: `report/summary.json`."""

    teacher: Evaluation
    student: Evaluation
    student_minus_teacher: Comparison
    data: dict[str, int]  # what the validation set holds, by nature


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio with its 95 % interval; without a value where its denominator may be zero."""

    value: float | None
    low: float | None = None
    high: float | None = None
    undefined: str | None = None  # why there is no value


def to_json(result: object) -> Any:
    """A result as plain JSON values."""
    return msgspec.to_builtins(result)


def from_json(value: Any, kind: type[R], where: object) -> R:
    """The result of type `kind` in plain JSON values.

    Raises:
        RunError: a key is missing or a value has another type; `where` is named.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RunError(f"{where}: {error}; expected {_name(kind)} figures of deepmac") from None


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def read_result(path: Path, kind: type[R], most: int = MOST_TEXT_BYTES) -> R:
    """The result in a JSON file.

    Args:
        most: bytes that such a file may hold.

    Raises:
        RunError: the file cannot be read, is not JSON, or holds something else.
    """
    try:
        value = msgspec.json.decode(read_small(path, most))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; expected a readable file") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RunError(f"{path}: not JSON: {error}; expected {kind.__name__} figures of deepmac") from None
    return from_json(value, kind, path)
