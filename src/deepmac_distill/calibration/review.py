"""Which masks a person should draw next, and what that is expected to be worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWN = 1.0  # IoU that a mask counts once a person has drawn it


@dataclass(frozen=True, slots=True)
class ClassGain:
    """What drawing a class is expected to be worth."""

    name: str
    masks: int  # of a teacher
    quality: float  # their mean
    gain: float  # masks x (1 - quality): summed IoU, if a person drew all of them
    listed: int  # of its masks in the list


@dataclass(frozen=True, slots=True)
class Review:
    """A list of masks to draw: an estimate, by quality alone."""

    rows: NDArray[np.int64]  # of the masks, the lowest bound first
    by_class: tuple[ClassGain, ...]  # the largest gain first
    masks: int
    before: float  # expected mean IoU of the teacher's masks, over masks
    after: float  # the same once those in the list are drawn
    class_before: float  # over classes
    class_after: float


def review_of(
    quality: Floats, low: Floats, classes: NDArray[np.int64], names: tuple[str, ...], budget: int
) -> Review:
    """The `budget` masks with the lowest bound, of N with quality.

    Args:
        classes: (N,) of `names`.
    """
    order = np.lexsort((np.arange(len(low)), quality, low))[:budget]
    drawn = np.zeros(len(low), bool)
    drawn[order] = True
    after = np.where(drawn, DRAWN, quality)
    gains = [
        ClassGain(
            name=names[at],
            masks=int(inside.sum()),
            quality=float(quality[inside].mean()),
            gain=float((DRAWN - quality[inside]).sum()),
            listed=int(drawn[inside].sum()),
        )
        for at in range(len(names))
        if (inside := classes == at).any()
    ]
    return Review(
        rows=order,
        by_class=tuple(sorted(gains, key=lambda one: (-one.gain, one.name))),
        masks=len(low),
        before=float(quality.mean()),
        after=float(after.mean()),
        class_before=_class_mean(quality, classes),
        class_after=_class_mean(after, classes),
    )


def _class_mean(values: Floats, classes: NDArray[np.int64]) -> float:
    _, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return float((np.bincount(index, values) / counts).mean())
