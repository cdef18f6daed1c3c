"""How much of what human masks would give a student the teacher's masks give it.

Three students that differ in nothing but the masks they learn from: human_seen, human masks of the seen
classes; pseudo, the teacher's masks of the rest too; human_all, human masks of all classes. Retention is
(pseudo - human_seen) / (human_all - human_seen). A ratio has an interval only over several seeds: training
noise is as large as the gain it divides by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import pyarrow as pa

from deepmac_distill.chain import Arm
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.evaluation.average_precision import CocoTruth, Detection, compare_average_precision
from deepmac_distill.evaluation.means import Floats, Means, interval, known
from deepmac_distill.evaluation.results import Interval, PairedStats, Ratio
from deepmac_distill.evaluation.retention_results import (
    Retention,
    RetentionDetected,
    RetentionFigures,
    RetentionIoU,
)
from deepmac_distill.evaluation.seed_noise import (
    fieller,
    mean_over_seeds,
    paired_noise,
    why_undefined,
    widened,
)
from deepmac_distill.evaluation.sizes import BySize, of_size
from deepmac_distill.evaluation.splits import BySplit, Split, split_classes
from deepmac_distill.evaluation.summary import MEASURES, paired_ious

ARMS: tuple[Arm, ...] = get_args(Arm)
GAIN, WHOLE = "human_all - human_seen", "human_all"  # denominators of the two ratios


def retention_in_given_boxes(
    ious: Mapping[Arm, pa.Table], classes: Classes, resamples: int = 1000, seed: int = 0
) -> BySplit[RetentionIoU]:
    """Mask IoU of the three students in given boxes; 95 % intervals from images resampled for all at once.

    A ratio has a value only where the whole interval of its denominator is above zero, and no interval: that
    of one seed would leave out training noise.

    Args:
        ious: each of `ARMS` -> its table of `mask_iou.IOU_SCHEMA`.

    Raises:
        DataError: the three were not evaluated on the same instances.
    """
    paired, splits = paired_ious({arm: ious[arm] for arm in ARMS}, MEASURES), split_classes(classes)

    def means_of(table: pa.Table) -> Means:
        columns = [f"{arm} {measure}" for measure in MEASURES for arm in ARMS]
        return Means.of(table, columns, classes, resamples, seed, splits)

    whole, sizes = means_of(paired), BySize.of(lambda size: means_of(of_size(paired, size)))
    mask, boundary = slice(0, len(ARMS)), slice(len(ARMS), None)
    return splits.map_named(
        lambda split, _: RetentionIoU(
            instances=whole.instances[split],
            classes=whole.classes[split],
            class_mean_iou=_figures(whole.class_means[split][:, mask]),
            instance_mean_iou=_figures(whole.instance_means[split][:, mask]),
            boundary=_figures(whole.class_means[split][:, boundary]),
            by_size=sizes.map(lambda means: _figures(means.class_means[split][:, mask])),
        )
    )


def retention_in_detections(
    truth: CocoTruth,
    detections: Mapping[Arm, Sequence[Detection]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> BySplit[RetentionFigures | None]:
    """Mask AP of the three students: differences with 95 % intervals of images, ratios without.

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


def retention_over_seeds(
    each: Mapping[int, Retention], in_boxes: BySplit[RetentionIoU] | None = None
) -> Retention:
    """Retention of the means over seeds; intervals hold training noise, and retention has one (Fieller's).

    The noise is that of a difference of two arms of one seed, pooled over the three differences.

    Args:
        each: the retention of each seed.
        in_boxes: `retention_in_given_boxes` of the means over seeds. Without it the image part of an interval
            is that of one seed, a little too wide.
    """
    mean = mean_over_seeds(list(each.values()))

    def of_split(split: Split, whole: RetentionIoU) -> RetentionIoU:
        found = {seed: one.given_boxes[split] for seed, one in each.items()}
        sizes = [one.by_size for one in (whole, *found.values()) if one.by_size is not None]
        return replace(
            whole,
            class_mean_iou=_over_seeds(
                whole.class_mean_iou, {seed: one.class_mean_iou for seed, one in found.items()}
            ),
            instance_mean_iou=_over_seeds(
                whole.instance_mean_iou, {seed: one.instance_mean_iou for seed, one in found.items()}
            ),
            boundary=_if_all(whole.boundary, {seed: one.boundary for seed, one in found.items()}),
            by_size=BySize.of(
                lambda size: _over_seeds(
                    sizes[0][size], {seed: of[size] for seed, of in zip(found, sizes[1:], strict=True)}
                )
            )
            if len(sizes) == 1 + len(found)
            else None,
        )

    def of_ap(split: Split, whole: RetentionFigures | None) -> RetentionFigures | None:
        figures = {seed: one.detected.segm[split] for seed, one in each.items() if one.detected.segm}
        found = {seed: one for seed, one in figures.items() if one is not None}
        return _over_seeds(whole, found) if whole is not None and found else None

    segm = mean.detected.segm
    return replace(
        mean,
        seeds=tuple(each),
        given_boxes=(in_boxes or mean.given_boxes).map_named(of_split),
        detected=RetentionDetected(segm.map_named(of_ap) if segm else None),
    )


def _if_all(
    whole: RetentionFigures | None, each: Mapping[int, RetentionFigures | None]
) -> RetentionFigures | None:
    """`_over_seeds`, where an earlier version did not leave one of them out."""
    known = {seed: one for seed, one in each.items() if one is not None}
    return _over_seeds(whole, known) if whole is not None and len(known) == len(each) else None


def _over_seeds(whole: RetentionFigures, each: Mapping[int, RetentionFigures]) -> RetentionFigures:
    arms = [{seed: getattr(one, arm) for seed, one in each.items()} for arm in ARMS]
    if any(value is None for arm in arms for value in arm.values()):
        return whole
    noise = paired_noise(arms)
    undefined = next((why for one in each.values() if (why := one.pseudo_over_human_all.undefined)), None)

    def difference(name: str) -> Interval:
        return widened(getattr(whole, name), [getattr(one, name) for one in each.values()], noise)

    added, missing, gain = map(
        difference, ("pseudo_minus_human_seen", "human_all_minus_pseudo", "human_all_minus_human_seen")
    )
    return replace(
        whole,
        pseudo_minus_human_seen=added,
        human_all_minus_pseudo=missing,
        human_all_minus_human_seen=gain,
        retention=fieller(added, gain, missing, GAIN) if noise.df else whole.retention,
        pseudo_over_human_all=Ratio(None, undefined=undefined)
        if undefined is not None or whole.pseudo is None or not whole.human_all
        else Ratio(whole.pseudo / whole.human_all),
    )


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
        retention=_ratio(known(pseudo[0] - human_seen[0]), interval(human_all - human_seen), GAIN),
        pseudo_over_human_all=_ratio(known(pseudo[0]), interval(human_all), WHOLE),
    )


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
        retention=_ratio(added.AP.a_minus_b.value, gain.AP.a_minus_b, GAIN),
        pseudo_over_human_all=_ratio(pseudo, alone.AP.a_minus_b, WHOLE),
    )


def _ratio(numerator: float | None, denominator: Interval, name: str) -> Ratio:
    undefined = why_undefined(denominator, name)
    if undefined is not None or numerator is None or denominator.value is None:
        return Ratio(None, undefined=undefined)
    return Ratio(numerator / denominator.value)
