from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest

from deepmac_distill.look import WHOLE_IMAGE, Look


def test_a_model_looks_at_whole_images_unless_it_is_told_otherwise() -> None:
    assert (WHOLE_IMAGE.boxes, WHOLE_IMAGE.mirror, WHOLE_IMAGE.in_windows) == ("image", False, False)
    with pytest.raises(FrozenInstanceError):
        WHOLE_IMAGE.mirror = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"window_context": 0.9}, "window_context: got 0.9, expected at least 1"),
        ({"window_context": math.inf}, "window_context: got inf"),
        ({"window_context": math.nan}, "window_context: got nan"),
        ({"window_size_px": 0}, "window_size_px: got 0, expected at least 1"),
        ({"image_from": -0.1}, "image_from: got -0.1, expected at least 0"),
    ],
)
def test_a_look_out_of_range_is_refused(values: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Look(**values)
