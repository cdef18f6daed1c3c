from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from deepmac_distill.look import WHOLE_IMAGE, Look


def test_a_model_looks_at_whole_images_unless_it_is_told_otherwise() -> None:
    assert (WHOLE_IMAGE.boxes, WHOLE_IMAGE.mirror, WHOLE_IMAGE.in_windows) == ("image", False, False)
    with pytest.raises(FrozenInstanceError):
        WHOLE_IMAGE.mirror = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"window_context": 0.9}, "window_context: got 0.9, expected 1 to 20"),
        ({"window_context": math.inf}, "window_context: got inf"),
        ({"window_context": math.nan}, "window_context: got nan"),
        ({"window_size_px": 0}, "window_size_px: got 0, expected 1 to 4096"),
        ({"image_from": -0.1}, "image_from: got -0.1, expected 0 to 2"),
        ({"window_context": 1e6}, "window_context: got 1000000.0, expected 1 to 20"),
        ({"window_size_px": 100_000}, "window_size_px: got 100000, expected 1 to 4096"),
        ({"boxes": "window"}, "boxes: got 'window', expected one of image, windows"),
    ],
)
def test_a_look_out_of_range_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Look(**values)
