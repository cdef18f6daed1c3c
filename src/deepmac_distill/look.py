"""How a model looks at the boxes it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

BoxesIn = Literal["image", "windows", "by-size", "average"]
# Beyond these a window is no view of its box, and its canvas or its zero margin would fill the memory.
RANGES = {"window_context": (1, 20), "window_size_px": (1, 4096), "image_from": (0, 2)}


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
        if self.boxes not in get_args(BoxesIn):
            raise ValueError(f"boxes: got {self.boxes!r}, expected one of {', '.join(get_args(BoxesIn))}")
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name}: got {value!r}, expected {least} to {most}")

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


def differences(look: Look, other: Look) -> dict[str, object]:
    """What of a look is otherwise in another one, by key.

    >>> differences(Look(mirror=True), Look())
    {'mirror': True}
    """
    values = {field.name: getattr(look, field.name) for field in fields(Look)}
    return {key: value for key, value in values.items() if value != getattr(other, key)}


def folder_name(changes: Mapping[str, object]) -> str:
    """How the folder of an evaluation ends that looks otherwise than the model does.

    >>> folder_name({"mirror": True, "boxes": "by-size", "window_context": 2.0})
    'by-size-context-2-mirror'
    """
    order = [field.name for field in fields(Look)]
    words = {"boxes": "", "window_context": "context-", "window_size_px": "px-", "image_from": "from-"}
    return "-".join(
        ("mirror" if value else "no-mirror") if key == "mirror" else f"{words[key]}{_short(value)}"
        for key, value in sorted(changes.items(), key=lambda item: order.index(item[0]))
    )


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
