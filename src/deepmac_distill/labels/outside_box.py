"""What boxes cut off of a teacher's masks: counted unit by unit, since a mask itself ends with its box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmac_distill.inference import SegmentedBoxes

KEY = "outside_box"  # in the metadata of a label file, and of a unit
_MUCH = 0.1  # of a mask


@dataclass(frozen=True, slots=True)
class OutsideBox:
    """Of masks whose teacher states what its boxes cut off."""

    masks: int = 0
    shares: float = 0.0  # their sum
    above_a_tenth: int = 0  # masks that lose more

    @classmethod
    def of(cls, batches: Iterable[SegmentedBoxes]) -> OutsideBox:
        """Of the boxes that were answered."""
        some = [batch.outside[batch.answered] for batch in batches if batch.outside is not None]
        shares = np.concatenate([np.zeros(0, np.float32), *some]).astype(np.float64)
        return cls(len(shares), float(shares.sum()), int((shares > _MUCH).sum()))

    @classmethod
    def of_facts(cls, facts: Iterable[Mapping[str, Any]]) -> OutsideBox:
        """Of several units, by what each kept."""
        kept = [fact[KEY] for fact in facts if KEY in fact]
        masks, shares, above = (sum(column) for column in zip(*kept, strict=True)) if kept else (0, 0.0, 0)
        return cls(masks, shares, above)

    def facts(self) -> dict[str, Any]:
        """What a unit keeps; nothing where no teacher states it.

        >>> OutsideBox(4, 0.5, 1).facts(), OutsideBox().facts()
        ({'outside_box': [4, 0.5, 1]}, {})
        """
        return {KEY: [self.masks, self.shares, self.above_a_tenth]} if self.masks else {}

    def summary(self) -> dict[str, Any]:
        """What a label file keeps.

        >>> OutsideBox(4, 0.5, 1).summary()
        {'outside_box': {'masks': 4, 'mean_share': 0.125, 'above_a_tenth': 1}}
        """
        if not self.masks:
            return {}
        mean = self.shares / self.masks
        return {KEY: {"masks": self.masks, "mean_share": mean, "above_a_tenth": self.above_a_tenth}}

    def words(self) -> str:
        """For a person; empty where there is nothing to report.

        >>> OutsideBox(4000, 500, 1).words()
        'boxes cut off 12.5 % of a mask on average, and more than a tenth of 1 of 4,000 masks'
        """
        if not self.masks:
            return ""
        return (
            f"boxes cut off {100 * self.shares / self.masks:.1f} % of a mask on average, and more than a "
            f"tenth of {self.above_a_tenth:,} of {self.masks:,} masks"
        )
