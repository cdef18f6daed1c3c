import numpy as np
import pytest

from deepmac_distill.geometry.boxes import box_area, clip_boxes, has_area, xywh_to_xyxy, xyxy_to_xywh


def test_xywh_and_xyxy_undo_each_other() -> None:
    boxes_xywh = np.array([[1.5, 2, 3, 4], [0, 0, 0, 0]])
    assert xywh_to_xyxy(boxes_xywh).tolist() == [[1.5, 2, 4.5, 6], [0, 0, 0, 0]]
    assert np.array_equal(xyxy_to_xywh(xywh_to_xyxy(boxes_xywh)), boxes_xywh)


def test_conversion_leaves_its_input_alone() -> None:
    boxes_xywh = np.array([[1.0, 2, 3, 4]])
    xywh_to_xyxy(boxes_xywh)
    assert boxes_xywh.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("convert", [xywh_to_xyxy, xyxy_to_xywh, lambda b: clip_boxes(b, 5, 5)])
def test_no_boxes_are_ordinary(convert) -> None:
    assert convert([]).shape == (0, 4)


def test_clipping_keeps_what_lies_inside_each_boxs_own_image() -> None:
    boxes = [[-2, -3, 50, 60], [1, 2, 3, 4], [100, 100, 110, 110]]
    assert clip_boxes(boxes, 20, 10).tolist() == [[0, 0, 10, 20], [1, 2, 3, 4], [10, 20, 10, 20]]
    per_box = clip_boxes(boxes, [20, 3, 105], [10, 2, 101])
    assert per_box.tolist() == [[0, 0, 10, 20], [1, 2, 2, 3], [100, 100, 101, 105]]


def test_a_turned_over_or_flat_box_has_no_area() -> None:
    boxes = [[0, 0, 2, 3], [2, 0, 0, 3], [1, 1, 1, 5], [2, 3, 0, 0]]
    assert has_area(boxes).tolist() == [True, False, False, False]
    assert box_area(boxes).tolist() == [6, 0, 0, 0]
