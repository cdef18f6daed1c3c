"""How much of what human masks would give a student the teacher's masks give it.

Three students that differ in nothing but the masks they were shown: a, human masks of the seen classes;
b, the teacher's masks of the rest too; c, human masks of all classes. Retention is (b - a) / (c - a).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.coco import Annotations
from deepmac_distill.evaluation.average_precision import Detection, compare_average_precision
from deepmac_distill.evaluation.splits import SPLITS
from deepmac_distill.evaluation.summary import Means, interval, known, paired_ious

ARMS = ("a", "b", "c")
DIFFERENCES = {"b_minus_a": ("b", "a"), "c_minus_b": ("c", "b"), "c_minus_a": ("c", "a")}
RATIOS = {"retention": "c - a", "b_over_c": "c"}  # name: denominator


def retention_in_given_boxes(
    ious: Mapping[str, pa.Table], classes: Classes, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Mask IoU of the three students in given boxes; 95 % intervals from images resampled for all at once.

    Args:
        ious: each of `ARMS` -> its table of `mask_iou.IOU_SCHEMA`.

    Returns:
        {split: {"instances", "classes", "class_mean_iou" | "instance_mean_iou": figures}}, where figures are
        {each of `ARMS`: mean IoU, each of `DIFFERENCES`: {"value", "low", "high"},
         each of `RATIOS`: {"value", "low", "high", "undefined"}}
        A ratio is undefined unless the whole interval of its denominator is above zero; "undefined" then says
        why and the numbers are None. Its own interval leaves out the resamplings (2.5 % at most) in which the
        denominator is not above zero.

    Raises:
        DataError: the three were not judged on the same instances.
    """
    means = Means.of(paired_ious({arm: ious[arm] for arm in ARMS}), ARMS, classes, resamples, seed)
    return {
        split: {
            "instances": means.instances[split],
            "classes": means.classes[split],
            "class_mean_iou": _figures(means.class_means[split]),
            "instance_mean_iou": _figures(means.instance_means[split]),
        }
        for split in SPLITS
    }


def retention_in_detections(
    truth: Annotations,
    detections: Mapping[str, Sequence[Detection]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Mask AP of the three students: differences with 95 % intervals, ratios without.

    Args:
        truth: read with its hidden masks.
        detections: each of `ARMS` -> its COCO results.

    Returns:
        {split: figures as in `retention_in_given_boxes`}; a split without classes is None.
    """

    def compare(a: Sequence[Detection], b: Sequence[Detection]) -> dict[str, Any]:
        return compare_average_precision(truth, a, b, "segm", resamples=resamples, seed=seed)

    pairs = {name: compare(detections[a], detections[b]) for name, (a, b) in DIFFERENCES.items()}
    alone = compare(detections["c"], [])  # nothing found has an AP of 0: the difference is c itself
    return {split: alone[split] and _ap_figures(pairs, alone, split) for split in SPLITS}


def _figures(means: np.ndarray) -> dict[str, Any]:
    """Figures of (1 + R, 3) means of a, b and c."""
    a, b, c = means.T
    return {
        **dict(zip(ARMS, map(known, means[0]), strict=True)),
        "b_minus_a": interval(b - a),
        "c_minus_b": interval(c - b),
        "c_minus_a": interval(c - a),
        "retention": _ratio(b - a, c - a, RATIOS["retention"]),
        "b_over_c": _ratio(b, c, RATIOS["b_over_c"]),
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray, name: str) -> dict[str, Any]:
    """The ratio of two (1 + R,) arrays; `name` is the denominator's."""
    undefined = _why_undefined(interval(denominator), name)
    if undefined is not None:
        return {"value": None, "low": None, "high": None, "undefined": undefined}
    usable = denominator > 0
    return {**interval(numerator[usable] / denominator[usable]), "undefined": None}


def _ap_figures(pairs: Mapping[str, Any], alone: Mapping[str, Any], split: str) -> dict[str, Any]:
    found = {name: pair[split]["AP"] for name, pair in pairs.items()}
    arms = {"a": found["b_minus_a"]["b"], "b": found["b_minus_a"]["a"], "c": found["c_minus_a"]["a"]}
    differences = {name: row["a_minus_b"] for name, row in found.items()}
    tops = {"retention": differences["b_minus_a"]["value"], "b_over_c": arms["b"]}
    bottoms = {"retention": differences["c_minus_a"], "b_over_c": alone[split]["AP"]["a_minus_b"]}
    ratios = {}
    for name, denominator in RATIOS.items():
        undefined = _why_undefined(bottoms[name], denominator)
        value = tops[name] / bottoms[name]["value"] if undefined is None else None
        ratios[name] = {"value": value, "low": None, "high": None, "undefined": undefined}
    return {**arms, **differences, **ratios}


def _why_undefined(denominator: Mapping[str, float | None], name: str) -> str | None:
    """Why nothing may be divided by a figure with this interval; None where it may."""
    value, low, high = (denominator[key] for key in ("value", "low", "high"))
    if value is None or low is None:
        return f"{name}: nothing to judge"
    if min(value, low) > 0:
        return None
    return f"{name} = {value:.4f} [{low:.4f}, {high:.4f}]: expected an interval above zero"
