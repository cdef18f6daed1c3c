"""Masks that show nothing of their object: whole boxes and empty ones, counted unit by unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepmac_distill.dataset.views import boxes_xywh
from deepmac_distill.geometry.boxes import clip_boxes, xywh_to_xyxy

KEY = "plain_masks"  # among the facts of a unit
_FULL = 0.98  # of the pixels of a box; an ellipse fills 0.79
_LEAST_PX = 8  # of both sides of a box: a smaller one has so few pixels that many masks fill it
_NEARLY_ALL, _LEAST_MASKS = 0.9, 20  # a model that gives one answer is then likelier than objects like boxes


@dataclass(frozen=True, slots=True)
class PlainMasks:
    """Of a teacher's masks in boxes that are not tiny: how many, which fill their box, which are empty."""

    masks: int = 0
    full: int = 0
    empty: int = 0

    @classmethod
    def of(cls, rows: pa.Table) -> PlainMasks:
        """Of the rows of a label file that a teacher drew."""
        drawn = rows.filter(pc.equal(rows["source"], "teacher"))
        sides = (drawn[name].to_numpy() for name in ("height", "width"))
        boxes = np.ceil(clip_boxes(xywh_to_xyxy(boxes_xywh(drawn)), *sides) - 0.5)  # to centers of pixels
        size = boxes[:, 2:] - boxes[:, :2]
        large = (size >= _LEAST_PX).all(axis=1)
        pixels, areas = size.prod(axis=1)[large], drawn["mask_area"].to_numpy()[large]
        return cls(int(large.sum()), int((areas >= _FULL * pixels).sum()), int((areas == 0).sum()))

    @classmethod
    def of_facts(cls, facts: Iterable[Mapping[str, Any]]) -> PlainMasks:
        """Of several units, by what each kept; units of an earlier version kept nothing."""
        kept = [fact[KEY] for fact in facts if KEY in fact]
        return cls(*(sum(column) for column in zip(*kept, strict=True)))

    def facts(self) -> dict[str, Any]:
        """What a unit keeps."""
        return {KEY: [self.masks, self.full, self.empty]}

    def words(self) -> str:
        """For a person; empty where most masks show a shape, or too few are there to know.

        >>> PlainMasks(40, 38, 1).words().partition(":")[0]
        'of 40 masks 38 fill their box and 1 are empty'
        >>> PlainMasks(40, 20, 1).words(), PlainMasks(4, 4, 0).words()
        ('', '')
        """
        if self.masks < _LEAST_MASKS or self.full + self.empty < _NEARLY_ALL * self.masks:
            return ""
        return (
            f"of {self.masks:,} masks {self.full:,} fill their box and {self.empty:,} are empty: nearly none "
            "shows a shape; look at them (deepmac show)"
        )
