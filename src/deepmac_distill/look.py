"""How a model looks at the boxes it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

BoxesIn = Literal["image", "windows", "by-size", "average"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a model sees of an image when it draws the masks of given boxes.

    Raises:
        ValueError: a value is out of range.
    """

    # image: the whole image with all boxes | windows: each box in a square window around it |
    # by-size: the whole image for large boxes, a window for each other | average: the mean of both
    boxes: BoxesIn = "image"
    window_context: float = 1.5  # side of a window / longer side of its box
    window_size_px: int = 128  # side of a window's canvas; a model of one canvas size gets that instead
    image_from: float = 0.5  # by-size: a box is large from this longer side / longer side of the image
    mirror: bool = False  # the mean with the mirrored view: twice the cost

    def __post_init__(self) -> None:
        for name, least in (("window_context", 1), ("window_size_px", 1), ("image_from", 0)):
            value = getattr(self, name)
            if not (value >= least and math.isfinite(value)):
                raise ValueError(f"{name}: got {value!r}, expected at least {least}")

    @property
    def in_windows(self) -> bool:
        """Whether any box is seen in a window."""
        return self.boxes != "image"

    @property
    def in_images(self) -> bool:
        """Whether any box is seen in the whole image."""
        return self.boxes != "windows"


WHOLE_IMAGE = Look()
