"""How much of what human masks would give a student the teacher's masks give it.

Three students that differ in nothing but the masks they learn from: human_seen, human masks of the seen
classes; pseudo, the teacher's masks of the rest too; human_all, human masks of all classes. Retention is
(pseudo - human_seen) / (human_all - human_seen).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import pyarrow as pa

from deepmac_distill.chain import Arm
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.evaluation.average_precision import CocoTruth, Detection, compare_average_precision
from deepmac_distill.evaluation.means import Floats, Means, interval, known
from deepmac_distill.evaluation.results import Interval, PairedStats, Ratio
from deepmac_distill.evaluation.retention_results import RetentionFigures, RetentionIoU
from deepmac_distill.evaluation.splits import BySplit, Split, split_classes
from deepmac_distill.evaluation.summary import paired_ious

ARMS: tuple[Arm, ...] = get_args(Arm)
GAIN, WHOLE = "human_all - human_seen", "human_all"  # denominators of the two ratios


def retention_in_given_boxes(
    ious: Mapping[Arm, pa.Table], classes: Classes, resamples: int = 1000, seed: int = 0
) -> BySplit[RetentionIoU]:
    """Mask IoU of the three students in given boxes; 95 % intervals from images resampled for all at once.

    A ratio has a value only where the whole interval of its denominator is above zero. Its own interval
    leaves out the resamplings (2.5 % at most) in which the denominator is not above zero.

    Args:
        ious: each of `ARMS` -> its table of `mask_iou.IOU_SCHEMA`.

    Raises:
        DataError: the three were not evaluated on the same instances.
    """
    paired, splits = paired_ious({arm: ious[arm] for arm in ARMS}), split_classes(classes)
    columns = [f"{arm} iou" for arm in ARMS]
    means = Means.of(paired, columns, classes, resamples, seed, splits)
    return splits.map_named(
        lambda split, _: RetentionIoU(
            instances=means.instances[split],
            classes=means.classes[split],
            class_mean_iou=_figures(means.class_means[split]),
            instance_mean_iou=_figures(means.instance_means[split]),
        )
    )


def retention_in_detections(
    truth: CocoTruth,
    detections: Mapping[Arm, Sequence[Detection]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> BySplit[RetentionFigures | None]:
    """Mask AP of the three students: differences with 95 % intervals, ratios without.

    A split without classes is None.

    Args:
        truth: of masks, from annotations read with their hidden masks.
        detections: each of `ARMS` -> its COCO results.
    """

    def compare(a: Sequence[Detection], b: Sequence[Detection]) -> BySplit[PairedStats | None]:
        return compare_average_precision(truth, a, b, resamples=resamples, seed=seed)

    human_seen, pseudo, human_all = (detections[arm] for arm in ARMS)
    added, missing = compare(pseudo, human_seen), compare(human_all, pseudo)
    gain = compare(human_all, human_seen)
    alone = compare(human_all, [])  # nothing found has an AP of 0: the difference is human_all itself

    def figures(split: Split, whole: PairedStats | None) -> RetentionFigures | None:
        first, second, third = added[split], missing[split], gain[split]
        if first is None or second is None or third is None or whole is None:
            return None
        return _ap_figures(first, second, third, whole)

    return alone.map_named(figures)


def _figures(means: Floats) -> RetentionFigures:
    """Figures of (1 + R, 3) means of the three students."""
    human_seen, pseudo, human_all = means.T
    return RetentionFigures(
        human_seen=known(human_seen[0]),
        pseudo=known(pseudo[0]),
        human_all=known(human_all[0]),
        pseudo_minus_human_seen=interval(pseudo - human_seen),
        human_all_minus_pseudo=interval(human_all - pseudo),
        human_all_minus_human_seen=interval(human_all - human_seen),
        retention=_ratio(pseudo - human_seen, human_all - human_seen, GAIN),
        pseudo_over_human_all=_ratio(pseudo, human_all, WHOLE),
    )


def _ratio(numerator: Floats, denominator: Floats, name: str) -> Ratio:
    """The ratio of two (1 + R,) arrays; `name` is the denominator's."""
    undefined = _why_undefined(interval(denominator), name)
    if undefined is not None:
        return Ratio(None, undefined=undefined)
    usable = denominator > 0
    found = interval(numerator[usable] / denominator[usable])
    return Ratio(found.value, found.low, found.high)


def _ap_figures(
    added: PairedStats, missing: PairedStats, gain: PairedStats, alone: PairedStats
) -> RetentionFigures:
    pseudo = added.AP.a
    return RetentionFigures(
        human_seen=added.AP.b,
        pseudo=pseudo,
        human_all=gain.AP.a,
        pseudo_minus_human_seen=added.AP.a_minus_b,
        human_all_minus_pseudo=missing.AP.a_minus_b,
        human_all_minus_human_seen=gain.AP.a_minus_b,
        retention=_point_ratio(added.AP.a_minus_b.value, gain.AP.a_minus_b, GAIN),
        pseudo_over_human_all=_point_ratio(pseudo, alone.AP.a_minus_b, WHOLE),
    )


def _point_ratio(numerator: float | None, denominator: Interval, name: str) -> Ratio:
    undefined = _why_undefined(denominator, name)
    if undefined is not None or numerator is None or denominator.value is None:
        return Ratio(None, undefined=undefined)
    return Ratio(numerator / denominator.value)


def _why_undefined(denominator: Interval, name: str) -> str | None:
    """Why nothing may be divided by a figure with this interval; None where it may."""
    value, low, high = denominator.value, denominator.low, denominator.high
    if value is None or low is None or high is None:
        return f"{name}: nothing to evaluate"
    if min(value, low) > 0:
        return None
    return f"{name} = {value:.4f} [{low:.4f}, {high:.4f}]: expected an interval above zero"
