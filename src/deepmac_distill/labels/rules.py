"""Which of the teacher's masks are good enough: pure rules, applied when the labels are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

OnRejected = Literal["keep_box", "drop", "ignore"]
THRESHOLDS = {  # and the column that each is about
    "min_mask_score": "mask_score",
    "min_expected_iou": "expected_iou",
    "min_mask_bbox_iou": "mask_bbox_iou",
    "min_quality": "quality",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The least a mask must reach, and what becomes of a box whose mask does not.

    Raises:
        ValueError: a threshold outside [0, 1], or an unknown `on_rejected`.
    """

    min_mask_score: float = 0.0  # mean probability inside the mask
    min_expected_iou: float = 0.0  # IoU that the mask's own grid expects
    min_mask_bbox_iou: float = 0.0  # the mask's tight box against the given box
    min_quality: float = 0.0  # expected IoU by a calibration
    on_rejected: OnRejected = "keep_box"  # keep the box without a mask | drop it | ignore its region (crowd)

    def __post_init__(self) -> None:
        for name in THRESHOLDS:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 to 1")
        if self.on_rejected not in get_args(OnRejected):
            raise ValueError(f"on_rejected: got {self.on_rejected!r}, expected one of {get_args(OnRejected)}")

    def accept(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Label rows whose mask is the teacher's, has a pixel, and reaches every threshold: (N,) bool.

        A score that is missing counts as zero.
        """
        asked = {column: getattr(self, name) for name, column in THRESHOLDS.items() if getattr(self, name)}
        accepted: NDArray[np.bool_] = (
            np.asarray(pc.equal(rows["source"], "teacher"))
            & np.asarray(pc.equal(rows["status"], "labeled"))
            & np.asarray(pc.is_valid(rows["rle_counts"]))
            & np.asarray(pc.greater(pc.fill_null(rows["mask_area"], 0), 0))
        )
        for column, least in asked.items():
            accepted &= np.asarray(pc.fill_null(rows[column], 0)) >= np.float32(least)
        return accepted
