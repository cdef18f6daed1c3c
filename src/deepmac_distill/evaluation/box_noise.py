"""Box noise: how masks in given boxes fare where the boxes are loose, as those that people draw are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deepmac_distill.dataset.views import Truth
from deepmac_distill.evaluation.how_evaluated import HowEvaluated
from deepmac_distill.evaluation.results import SplitIoU
from deepmac_distill.evaluation.splits import BySplit
from deepmac_distill.geometry.boxes import move_sides, xyxy_to_xywh

MOST = 50  # percent: from there on a side could pass the one opposite
_STREAM = 2  # sets these draws apart from others of the same seed


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """Masks in boxes of one looseness; `box` and `ellipse` are those of the noisy boxes."""

    percent: float
    given_boxes: BySplit[SplitIoU]


@dataclass(frozen=True, slots=True)
class BoxNoise:
    """One model in boxes of growing looseness: `box-noise-*/summary.json`."""

    levels: tuple[NoiseLevel, ...]  # in the order asked for
    seed: int
    how: HowEvaluated = field(default_factory=HowEvaluated)


def with_box_noise(truth: Truth, percent: float, seed: int) -> Truth:
    """The same masks in other boxes: each side moves by itself, uniformly within a share of the box.

    Left and right move by at most `percent` of the box's width, top and bottom of its height; what leaves the
    image is cut off. Noise of every strength moves each side in the same direction and in proportion, so that
    levels of one seed differ in nothing but strength. At 0 nothing changes, to the last bit.

    Args:
        percent: at least 0, below `MOST`, so that no box vanishes.
    """
    if not percent:
        return truth
    boxes, (height, width) = truth.boxes_xyxy(), truth.image_sizes().T
    moves = np.random.default_rng([seed, _STREAM]).uniform(-1, 1, boxes.shape) * percent / 100
    return truth.with_boxes(xyxy_to_xywh(move_sides(boxes, moves, height, width)))
