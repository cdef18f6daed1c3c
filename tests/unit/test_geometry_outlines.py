"""Outlines give the mask back, whoever fills them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from deepmac_distill.geometry.outlines import Ring, cut_open, joined, parts_of, signed_area

masks = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
cv2 = pytest.importorskip("cv2")


def by_pycocotools(rings: list[Ring], shape: tuple[int, int]) -> np.ndarray:
    codes = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], *shape)
    return coco_mask.decode(coco_mask.merge(codes)).astype(bool)


def by_opencv(rings: list[Ring], shape: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [ring.astype(np.int32) for ring in rings], 1)
    return canvas.astype(bool)


def by_pillow(rings: list[Ring], shape: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("1", shape[::-1])
    for ring in rings:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in ring.tolist()], fill=1, outline=1)
    return np.asarray(canvas)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(max_examples=60, deadline=None)
@given(masks)
def test_exact_outlines_give_the_mask_back_also_as_one_ring(mask: np.ndarray) -> None:
    rings = [cut_open(part) for part in parts_of(mask)]
    if rings:
        assert np.array_equal(by_pycocotools(rings, mask.shape), mask)
        assert np.array_equal(by_pycocotools([joined(rings)], mask.shape), mask)


@settings(max_examples=60, deadline=None)
@given(masks)
def test_rings_through_centers_give_parts_without_holes_back(mask: np.ndarray) -> None:
    parts = parts_of(mask, "centers")
    if parts and not any(part.holes for part in parts):
        rings = [part.outline for part in parts]
        assert np.array_equal(by_opencv(rings, mask.shape), mask)
        assert np.array_equal(by_pillow(rings, mask.shape), mask)


@settings(max_examples=60, deadline=None)
@given(masks, st.sampled_from(["edges", "centers"]), st.sampled_from([0.0, 0.4, 2.0]))
def test_outlines_run_clockwise_around_as_many_parts_as_opencv_counts(
    mask: np.ndarray, course, tolerance: float
) -> None:
    parts = parts_of(mask, course, tolerance)
    count, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    assert len(parts) == count - 1
    if course == "edges":
        assert all(signed_area(part.outline) > 0 for part in parts)
        assert all(signed_area(hole) < 0 for part in parts for hole in part.holes)
        if not tolerance:
            areas = [signed_area(ring) for part in parts for ring in (part.outline, *part.holes)]
            assert sum(areas) == mask.sum()


def disk(size: int = 60, radius: float = 22.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    return x**2 + y**2 < radius**2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_tolerance_below_half_a_pixel_saves_points_and_hardly_a_pixel() -> None:
    (exact,), (simple,) = parts_of(disk()), parts_of(disk(), "edges", 0.4)
    assert len(simple.outline) < len(exact.outline) * 0.6
    drawn = by_pycocotools([simple.outline], (60, 60))
    assert (drawn & disk()).sum() / (drawn | disk()).sum() > 0.99


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_hole_is_cut_open_and_stays_a_hole() -> None:
    mask = disk() & ~disk(60, 8)
    (part,) = parts_of(mask, "edges", 0.4)
    assert len(part.holes) == 1
    drawn = by_pycocotools([cut_open(part)], (60, 60))
    assert not drawn[30, 30] and (drawn & mask).sum() / (drawn | mask).sum() > 0.98
