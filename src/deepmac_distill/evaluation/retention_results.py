"""What a comparison of three students finds, as types: `retention/summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepmac_distill.chain import Arm
from deepmac_distill.evaluation.results import Interval, Ratio
from deepmac_distill.evaluation.sizes import BySize
from deepmac_distill.evaluation.splits import BySplit


@dataclass(frozen=True, slots=True)
class RetentionFigures:
    """One figure of three students: what their masks are worth."""

    human_seen: float | None
    pseudo: float | None
    human_all: float | None
    pseudo_minus_human_seen: Interval
    human_all_minus_pseudo: Interval
    human_all_minus_human_seen: Interval
    retention: Ratio  # (pseudo - human_seen) / (human_all - human_seen)
    pseudo_over_human_all: Ratio


@dataclass(frozen=True, slots=True)
class RetentionIoU:
    """Masks in given boxes of the three students in one split."""

    instances: int
    classes: int
    class_mean_iou: RetentionFigures
    instance_mean_iou: RetentionFigures
    boundary: RetentionFigures | None = None  # class means, as the next; None: of an earlier version
    by_size: BySize[RetentionFigures] | None = None


@dataclass(frozen=True, slots=True)
class RetentionDetected:
    """Mask AP of the three students; None where they do not detect, and for a split without classes."""

    segm: BySplit[RetentionFigures | None] | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """What the teacher's masks are worth to the student: `retention/summary.json`."""

    arms: Mapping[Arm, str]  # the stage that trains each student
    unseen_without_human_masks: tuple[str, ...]  # classes of which human_all is no upper bound
    given_boxes: BySplit[RetentionIoU]
    detected: RetentionDetected
    seeds: tuple[int, ...] = ()  # of the trainings; intervals of several hold training noise
