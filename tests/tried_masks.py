"""Made-up masks of hidden classes, whose IoU rises with their score."""

from __future__ import annotations

import numpy as np

from deepmac_distill.calibration.calibration import HeldOut
from deepmac_distill.calibration.tried import TriedMasks

HELD_OUT = HeldOut(
    teacher="recipe",
    identity="abc",
    trained=True,
    made_with={"teacher_card.steps": 480, "look": {"mirror": True}},
    data_sha256="d",
    quick=False,
    folds=2,
    classes=("c0",),
    masks=9,
)


def tried(classes: int = 8, each: int = 30, seed: int = 0, lead: float = 0.0, class_noise: float = 0.05):
    """Masks whose IoU rises with their score; cut at 0.25 they are better by `lead`."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(classes), each)
    score = rng.uniform(0.2, 0.95, len(index))
    iou = 0.15 + 0.7 * score + rng.normal(0, class_noise, classes)[index] + rng.normal(0, 0.08, len(index))
    iou = np.clip(iou, 0, 1)
    nothing = np.full(len(index), np.nan)
    noisy = score + rng.normal(0, 0.3, len(index))
    return TriedMasks(
        scores={
            "expected_iou": score,
            "model_iou": nothing,
            "mask_score": noisy,
            "mask_bbox_iou": rng.uniform(0, 1, len(index)),
        },
        cuts=("expected-iou", 0.25),
        ious=np.stack([iou, np.clip(iou + lead, 0, 1)], axis=1),
        classes=index,
        images=rng.integers(0, 60, len(index)),
        folds=index % 2,
        class_names=tuple(f"c{i}" for i in range(classes)),
    )
