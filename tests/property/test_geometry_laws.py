import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from deepmac_distill.geometry.boxes import clip_boxes, has_area, move_sides
from deepmac_distill.geometry.codes import extents_of
from deepmac_distill.geometry.rasterize import rasterize_polygons, rasterize_rle
from deepmac_distill.geometry.rle import (
    decode_counts,
    encode_and_measure_grids,
    encode_boxes,
    encode_ellipses,
    encode_grids,
)

# pycocotools hands its buffers to numpy in a way that numpy 2 means to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

sizes = st.integers(1, 24)
coordinates = st.floats(-8, 32, allow_nan=False).map(lambda v: round(v, 3))
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates).map(
    lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
)
boxes_with_area = boxes.filter(lambda b: b[2] - b[0] > 0.01 and b[3] - b[1] > 0.01)
grids = st.integers(1, 6).flatmap(lambda s: arrays(np.uint8, (s, s)))


def decode(code: bytes, height: int, width: int) -> np.ndarray:
    return coco_mask.decode({"size": [height, width], "counts": code}).astype(bool)


def bilinear(grid: np.ndarray, v: float, u: float) -> float:
    """Interpolation at row v and column u of cell centers, zero outside, one neighbor after the other."""
    total = 0.0
    for i in (int(np.floor(v)), int(np.floor(v)) + 1):
        for j in (int(np.floor(u)), int(np.floor(u)) + 1):
            if 0 <= i < len(grid) and 0 <= j < len(grid):
                total += (1 - abs(v - i)) * (1 - abs(u - j)) * float(grid[i, j])
    return total


@settings(max_examples=150, deadline=None)
@given(grids, boxes_with_area, sizes, sizes)
def test_a_pixel_is_foreground_where_its_center_is(
    grid: np.ndarray, box: list, height: int, width: int
) -> None:
    x1, y1, x2, y2 = box
    mask = decode(encode_grids(grid[None], [box], height, width)[0], height, width)
    for y, x in np.ndindex(height, width):
        if not (x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2):
            assert not mask[y, x]
            continue
        v, u = (y + 0.5 - y1) * len(grid) / (y2 - y1) - 0.5, (x + 0.5 - x1) * len(grid) / (x2 - x1) - 0.5
        value = bilinear(grid, v, u)
        assert mask[y, x] == (value > 127.5) or abs(value - 127.5) < 1e-3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(boxes, sizes, sizes), max_size=6), st.integers(0, 2**32 - 1))
def test_a_batch_is_its_masks_one_by_one(items: list, seed: int) -> None:
    grids = np.random.default_rng(seed).integers(0, 256, (len(items), 5, 5), dtype=np.uint8)
    frames = [np.array(part) for part in zip(*items, strict=True)] or [np.zeros((0, 4)), [], []]
    for encode, first in ((encode_grids, [grids]), (encode_boxes, []), (encode_ellipses, [])):
        together = encode(*first, *frames)
        alone = [
            encode(*(a[i : i + 1] for a in first), [box], height, width)[0]
            for i, (box, height, width) in enumerate(items)
        ]
        assert together == alone


@settings(max_examples=150, deadline=None)
@given(grids, boxes, sizes, sizes)
def test_codes_are_in_the_one_form_pycocotools_writes(
    grid: np.ndarray, box: list, height: int, width: int
) -> None:
    for code in (
        *encode_grids(grid[None], [box], height, width),
        *encode_boxes([box], height, width),
        *encode_ellipses([box], height, width),
    ):
        assert decode_counts(code).sum() == height * width
        mask = np.asfortranarray(decode(code, height, width), dtype=np.uint8)
        assert coco_mask.encode(mask)["counts"] == code


@settings(max_examples=100, deadline=None)
@given(boxes, boxes_with_area, st.integers(1, 12))
def test_polygon_coverage_sums_to_the_area_inside_the_box(inner: list, box: list, size: int) -> None:
    x1, y1, x2, y2 = inner
    across = max(min(x2, box[2]) - max(x1, box[0]), 0)
    down = max(min(y2, box[3]) - max(y1, box[1]), 0)
    share = across * down / ((box[2] - box[0]) * (box[3] - box[1]))
    coverage = rasterize_polygons([[x1, y1, x2, y1, x2, y2, x1, y2]], box, size)
    assert abs(coverage.mean() / 255 - share) <= 0.51 / 255


@settings(max_examples=100, deadline=None)
@given(arrays(np.bool_, st.tuples(sizes, sizes)), st.data())
def test_a_code_and_its_pixels_drawn_as_polygons_cover_alike(mask: np.ndarray, data: st.DataObject) -> None:
    height, width = mask.shape
    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    box = data.draw(boxes_with_area)
    squares = [[x, y, x + 1, y, x + 1, y + 1, x, y + 1] for y, x in np.argwhere(mask)]
    from_pixels = rasterize_polygons(squares, box, 6).astype(int)
    assert abs(rasterize_rle(code, height, width, box, 6) - from_pixels).max() <= 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(boxes_with_area, min_size=1, max_size=5), st.floats(0, 0.499), st.integers(0, 2**32 - 1), sizes
)
def test_moved_sides_stay_in_reach_in_the_image_and_apart(
    some: list, share: float, seed: int, side: int
) -> None:
    inside = clip_boxes(some, side, side)
    inside = inside[has_area(inside)]
    moves = np.random.default_rng(seed).uniform(-share, share, inside.shape)
    moved = move_sides(inside, moves, side, side)
    assert has_area(moved).all() and moved.min(initial=0) >= 0 and moved.max(initial=0) <= side
    reach = share * np.tile(inside[:, 2:] - inside[:, :2], 2) + 1e-9
    assert (np.abs(moved - inside) <= reach).all()


@given(st.integers(0, 2**32 - 1))
def test_masks_are_measured_as_they_are_encoded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 6))
    corner, sizes = rng.uniform(-3, 20, (n, 2)), rng.integers(5, 30, (n, 2))
    boxes = np.clip(np.c_[corner, corner + rng.uniform(0, 25, (n, 2))], 0, sizes[:, [1, 0, 1, 0]])
    grids = (rng.random((n, 4, 4)) * rng.random((n, 1, 1)) * 256).astype(np.uint8)
    codes, extents = encode_and_measure_grids(grids, boxes, *sizes.T, 0.4)
    decoded = extents_of(codes, sizes[:, 0])
    assert codes == encode_grids(grids, boxes, *sizes.T, 0.4)
    assert np.array_equal(extents.areas, decoded.areas)
    assert np.array_equal(extents.boxes_xywh, decoded.boxes_xywh)
