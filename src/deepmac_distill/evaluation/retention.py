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

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepmac_distill.chain import Arm
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.evaluation.average_precision import STATS, CocoTruth, Detection
from deepmac_distill.evaluation.mean_result import mean_result
from deepmac_distill.evaluation.means import Floats, Means, interval, known
from deepmac_distill.evaluation.paired_precision import resampled_stats
from deepmac_distill.evaluation.results import Interval, Ratio
from deepmac_distill.evaluation.retention_results import (
    Retention,
    RetentionDetected,
    RetentionFigures,
    RetentionIoU,
)
from deepmac_distill.evaluation.seed_noise import fieller, why_undefined
from deepmac_distill.evaluation.sizes import BySize, of_size
from deepmac_distill.evaluation.splits import BySplit, Split, split_classes
from deepmac_distill.evaluation.summary import MEASURES, OfSeeds, columns_of, means_over_seeds, paired_ious
from deepmac_distill.progress import Progress

ARMS: tuple[Arm, ...] = get_args(Arm)
GAIN, WHOLE = "human_all - human_seen", "human_all"  # denominators of the two ratios


def retention_in_given_boxes(
    ious: Mapping[Arm, OfSeeds], classes: Classes, resamples: int = 1000, seed: int = 0
) -> BySplit[RetentionIoU]:
    """Mask IoU of the three students in given boxes; 95 % intervals from images resampled for all at once.

    A ratio has a value only where the whole interval of its denominator is above zero. Of several seeds
    retention has an interval (Fieller's); that of one would leave out training noise.

    Args:
        ious: each of `ARMS` -> its table of `mask_iou.IOU_SCHEMA`, or those of each seed in one order.

    Raises:
        DataError: the three were not evaluated on the same instances.
    """
    paired, splits = paired_ious({arm: ious[arm] for arm in ARMS}, MEASURES), split_classes(classes)

    def means_of(table: pa.Table) -> Means:
        return means_over_seeds(table, classes, resamples, seed, splits)

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
    detections: Mapping[Arm, Sequence[Sequence[Detection]]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> BySplit[RetentionFigures | None]:
    """Mask AP of the three students: differences with 95 % intervals; ratios as those of mask IoU.

    A split without classes is None.

    Args:
        truth: of masks, from annotations read with their hidden masks.
        detections: each of `ARMS` -> its COCO results of each seed.
    """
    splits = split_classes(truth.truth.classes)
    arms = [
        resampled_stats(truth, detections[arm], splits, resamples=resamples, seed=seed, progress=progress)
        for arm in ARMS
    ]

    def figures(split: Split, members: NDArray[np.int64]) -> RetentionFigures | None:
        average_precision = STATS.index("AP")
        return (
            _figures(np.stack([arm[split][average_precision] for arm in arms], axis=1))
            if members.size
            else None
        )

    return splits.map_named(figures)


def mean_retention(each: Mapping[int, Retention]) -> Retention:
    """Retention of the means over seeds, where the instances of each are not kept.

    The image part of an interval is that of one seed, a little too wide.

    Args:
        each: the retention of each seed.
    """
    if len(each) == 1:
        return next(iter(each.values()))
    mean = mean_result(list(each.values()))
    segm = mean.detected.segm
    return replace(
        mean,
        seeds=tuple(each),
        given_boxes=mean.given_boxes.map(
            lambda row: replace(
                row,
                class_mean_iou=_with_ratios(row.class_mean_iou),
                instance_mean_iou=_with_ratios(row.instance_mean_iou),
                boundary=row.boundary and _with_ratios(row.boundary),
                by_size=row.by_size and row.by_size.map(_with_ratios),
            )
        ),
        detected=RetentionDetected(segm and segm.map(lambda row: row and _with_ratios(row))),
    )


def _with_ratios(mean: RetentionFigures) -> RetentionFigures:
    """Means over seeds, with the ratios of these means."""
    of_whole = Ratio(None, undefined=f"{WHOLE}: may be zero in one of the seeds")
    if mean.pseudo_over_human_all.value is not None and mean.pseudo is not None and mean.human_all:
        of_whole = Ratio(mean.pseudo / mean.human_all)
    return replace(
        mean,
        retention=_retention(
            mean.pseudo_minus_human_seen, mean.human_all_minus_human_seen, mean.human_all_minus_pseudo
        ),
        pseudo_over_human_all=of_whole,
    )


def _figures(means: Floats) -> RetentionFigures:
    """Figures of (1 + R, 3, S) means of the three students."""
    human_seen, pseudo, human_all = columns_of(means)
    added, missing, gain = (
        interval(a - b) for a, b in ((pseudo, human_seen), (human_all, pseudo), (human_all, human_seen))
    )
    return RetentionFigures(
        human_seen=known(human_seen[0].mean()),
        pseudo=known(pseudo[0].mean()),
        human_all=known(human_all[0].mean()),
        pseudo_minus_human_seen=added,
        human_all_minus_pseudo=missing,
        human_all_minus_human_seen=gain,
        retention=_retention(added, gain, missing),
        pseudo_over_human_all=_ratio(known(pseudo[0].mean()), interval(human_all), WHOLE),
    )


def _retention(added: Interval, gain: Interval, missing: Interval) -> Ratio:
    """With an interval where the differences are of several seeds."""
    return fieller(added, gain, missing, GAIN) if gain.seeds_df else _ratio(added.value, gain, GAIN)


def _ratio(numerator: float | None, denominator: Interval, name: str) -> Ratio:
    undefined = why_undefined(denominator, name)
    if undefined is not None or numerator is None or denominator.value is None:
        return Ratio(None, undefined=undefined)
    return Ratio(numerator / denominator.value)
