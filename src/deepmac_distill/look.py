"""How a model looks at the boxes it is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

    def words(self, image: str, window: str, *, in_image: bool, in_window: bool) -> str:
        """How one box is seen.

        Args:
            image, window: how wholes and windows are called.

        >>> Look(boxes="average").words("image 320 px", "window 128 px", in_image=True, in_window=True)
        'image 320 px + window 128 px x 1.5'
        """
        views = [image] * in_image + [f"{window} x {self.window_context:g}"] * in_window
        return " + ".join(views) + ", mirrored too" * self.mirror

    def summary(self, image: str, window: str) -> str:
        """How boxes are seen in general; see `words`.

        >>> Look(boxes="by-size", mirror=True).summary("image 320 px", "window 128 px")
        'by size image 320 px or window 128 px x 1.5, mirrored too'
        """
        words = self.words(image, window, in_image=self.in_images, in_window=self.in_windows)
        return f"by size {words.replace(' + ', ' or ')}" if self.boxes == "by-size" else words


WHOLE_IMAGE = Look()


def folder_name(changes: Mapping[str, object]) -> str:
    """How the folder of an evaluation ends that looks otherwise than the model does.

    >>> folder_name({"boxes": "by-size", "mirror": True, "window_context": 2.0})
    'by-size-mirror-context-2'
    """
    words = {"boxes": "", "window_context": "context-", "window_size_px": "px-", "image_from": "from-"}
    return "-".join(
        ("mirror" if value else "no-mirror") if key == "mirror" else f"{words[key]}{_short(value)}"
        for key, value in changes.items()
    )


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
