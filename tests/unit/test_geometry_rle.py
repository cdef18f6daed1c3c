import numpy as np
import pytest

from deepmac_distill.geometry.rasterize import rasterize_polygons, rasterize_rle
from deepmac_distill.geometry.rle import decode_counts, encode_boxes, encode_ellipses, encode_grids


def test_an_empty_mask_is_one_run_of_background() -> None:
    (code,) = encode_grids(np.zeros((1, 4, 4), np.float32), [[1, 1, 5, 5]], 6, 7)
    assert decode_counts(code).tolist() == [42]


def test_a_full_image_is_no_background_and_one_run() -> None:
    assert decode_counts(encode_boxes([[-1, -1, 9, 9]], 6, 7)[0]).tolist() == [0, 42]


def test_a_box_is_one_run_a_column() -> None:
    assert decode_counts(encode_boxes([[1, 2, 3, 4]], 6, 4)[0]).tolist() == [8, 2, 4, 2, 8]


@pytest.mark.parametrize(
    "box", [[3, 3, 3, 8], [8, 3, 2, 4], [-5, -5, -1, -1], [50, 50, 60, 60], [2.6, 0, 3.4, 9]]
)
def test_a_box_that_holds_no_pixel_center_gives_an_empty_mask(box: list[float]) -> None:
    for (code,) in (
        encode_grids(np.ones((1, 4, 4), np.float32), [box], 10, 10),
        encode_boxes([box], 10, 10),
        encode_ellipses([box], 10, 10),
    ):
        assert decode_counts(code).tolist() == [100]


def test_no_masks_give_no_codes() -> None:
    assert encode_grids(np.zeros((0, 4, 4), np.uint8), np.zeros((0, 4)), 5, 5) == []
    assert encode_boxes(np.zeros((0, 4)), [], []) == encode_ellipses([], 5, 5) == []


def test_each_mask_has_its_own_image_size() -> None:
    first, second = encode_boxes([[0, 0, 1, 1], [0, 0, 1, 1]], [3, 5], [2, 7])
    assert decode_counts(first).tolist() == [0, 1, 5]
    assert decode_counts(second).tolist() == [0, 1, 34]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="grids"):
        encode_grids(np.zeros((2, 4, 4)), [[0, 0, 1, 1]], 5, 5)
    with pytest.raises(ValueError, match="threshold"):
        encode_grids(np.zeros((1, 4, 4)), [[0, 0, 1, 1]], 5, 5, threshold=1.0)
    with pytest.raises(ValueError, match="counts: got 42 pixels"):
        rasterize_rle(encode_boxes([[0, 0, 1, 1]], 6, 7)[0], 5, 5, (0, 0, 1, 1), 4)
    with pytest.raises(ValueError, match="box"):
        rasterize_polygons([], (1, 1, 1, 5), 4)


def test_disjoint_and_overlapping_parts_are_united() -> None:
    square, other = [0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 2, 6, 6, 6, 6, 2]  # wound in opposite directions
    coverage = rasterize_polygons([square, other], (0, 0, 8, 8), 4)
    assert (coverage // 255).tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_a_triangle_covers_half_of_the_cells_on_its_slope() -> None:
    coverage = rasterize_polygons([[0, 0, 4, 4, 0, 4]], (0, 0, 4, 4), 4)
    assert coverage.tolist() == [[128, 0, 0, 0], [255, 128, 0, 0], [255, 255, 128, 0], [255, 255, 255, 128]]


def test_a_polygon_far_larger_than_the_box_fills_it() -> None:
    far = [-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6]
    assert (rasterize_polygons([far], (3.2, 4.1, 3.21, 4.13), 8) == 255).all()
    assert (rasterize_polygons([], (0, 0, 1, 1), 8) == 0).all()
