"""The keys under `labels`: who labels, where masks end, and which of them the student learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from deepmac_distill.config.holdout import RECIPE
from deepmac_distill.config.refusal import require


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsConfig:
    """What is stored about each box, and which masks the student learns from."""

    # Who labels: recipe (the pipeline's own teacher), another name of `holdout.teachers`, or best: the winner
    # of the run's hold-out
    teacher: str = RECIPE
    teacher_by_class: dict[str, Any] = field(default_factory=dict)  # class -> name: who labels it instead
    # Where a mask ends, in labels and evaluations: above a probability, or by the rule of labels/cut.py;
    # calibrated: the teacher's masks where its calibration in the run has chosen, all others by that rule
    cut: float | Literal["expected-iou", "calibrated"] = "calibrated"
    soft: bool = True  # keep the teacher's probabilities beside the mask
    unit_images: int = 64  # images per resumable unit and Parquet row group; batches never cross one
    batch_size: int = 8  # images per forward pass
    # An unreadable image stops labeling, or its boxes get rows with the reason. It always stops training.
    on_unreadable: Literal["error", "skip"] = "error"
    min_mask_score: float = 0.0  # below: rejected
    min_expected_iou: float = 0.0  # below, or without one: rejected
    min_mask_bbox_iou: float = 0.0  # below: rejected
    # A calibration by `deepmac calibrate`, with what it expects a mask's IoU to be; empty: the run's own
    calibration: str = ""
    min_quality: float = 0.0  # expected IoU; below, or without one: rejected
    on_rejected: Literal["keep_box", "drop", "ignore"] = "keep_box"
    mask_weight: Literal["none", "mask_score", "expected_iou", "quality"] = (
        "none"  # of a teacher's mask in the loss
    )
    targets: Literal["hard", "soft"] = "hard"  # the student learns the teacher's masks, or its probabilities

    def __post_init__(self) -> None:
        for name in ("min_mask_score", "min_expected_iou", "min_mask_bbox_iou", "min_quality"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        by_rule = isinstance(self.cut, str)
        words = "in [0, 1), expected-iou or calibrated"
        require(by_rule or 0 <= float(self.cut) < 1, "cut", self.cut, words)
        for name in ("unit_images", "batch_size"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        require(self.soft or self.targets == "hard", "soft", self.soft, 'true for targets = "soft"')
        require(self.soft or by_rule, "soft", self.soft, "true for a cut other than expected-iou")

    @property
    def by_calibration(self) -> bool:
        """Whether a calibration may choose where its teacher's masks end, which takes stored grids."""
        return self.cut == "calibrated" and self.soft

    @property
    def cut_alone(self) -> float | Literal["expected-iou"]:
        """Where masks end that no calibration has chosen for."""
        return "expected-iou" if self.cut == "calibrated" else self.cut
