"""Where a model sees a box, whichever way it looks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.data.augment import View
from deepmac_distill.data.frames import Frame, frames_of, look_words, view_for, window_view
from deepmac_distill.geometry.boxes import clip_boxes
from deepmac_distill.geometry.crop import crop_features
from deepmac_distill.inference import segment_boxes
from deepmac_distill.look import Look
from deepmac_distill.one_image import segment_image
from deepmac_distill.structures import Batch, Instances

SPEC = ModelSpec(mask_size=16, input_size_px=96, any_size=True, identity="x")
LOOKS = [
    Look(boxes=boxes, mirror=mirror, window_size_px=64)
    for boxes in ("image", "windows", "by-size", "average")
    for mirror in (False, True)
]


def some_boxes(rng: np.random.Generator, height: int, width: int, n: int) -> NDArray[np.float64]:
    """Boxes of all sizes, some of less than a pixel and some at the image's edge."""
    sides = np.exp(rng.uniform(np.log(0.3), np.log([width, height]), (n, 2)))
    corners = rng.uniform(-0.3 * sides, [width, height] - 0.7 * sides)
    boxes = clip_boxes(np.c_[corners, corners + sides], height, width)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_every_box_is_shown_as_often_as_the_look_says_and_wholly(look: Look) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = (int(side) for side in rng.integers(5, 400, 2))
        boxes = some_boxes(rng, height, width, 8)
        frames = frames_of(look, SPEC, boxes, height, width)
        times = {"image": 1, "windows": 1, "by-size": 1, "average": 2}[look.boxes] * (1 + look.mirror)
        shown = np.concatenate([frame.shown for frame in frames])
        assert (np.bincount(shown, minlength=len(boxes)) == times).all()
        for frame in frames:
            # What is visible of a box is the box: a grid means the same cells of the image in each frame.
            visible = frame.view.clip(boxes[frame.shown])
            np.testing.assert_allclose(visible, boxes[frame.shown], rtol=0, atol=1e-9)
            assert frame.whole or len(frame.shown) == 1


def test_a_window_is_square_scaled_alike_on_both_axes_and_centered_on_its_box() -> None:
    view = window_view(np.array([40.0, 60.0, 80.0, 70.0]), 100, 200, context=1.5, size_px=30)
    assert view.crop == (30, 35, 90, 95) and view.scale == (0.5, 0.5)
    assert view.to_canvas(np.array([[40.0, 60.0, 80.0, 70.0]])).tolist() == [[5, 12.5, 25, 17.5]]


def test_a_window_over_the_edge_is_black_there() -> None:
    view = window_view(np.array([0.0, 0.0, 40.0, 40.0]), 100, 100, context=1.5, size_px=60)
    canvas = view.image(torch.full((3, 100, 100), 200, dtype=torch.uint8))
    assert view.crop == (-10, -10, 50, 50)
    assert not canvas[:, :10].any() and not canvas[:, :, :10].any() and (canvas[:, 10:, 10:] == 200).all()


def test_a_tiny_box_is_not_blown_up_without_bound() -> None:
    view = window_view(np.array([10.0, 10.0, 10.5, 10.5]), 100, 100, context=1.5, size_px=96)
    assert view.crop[2] - view.crop[0] == 24


def test_by_size_large_boxes_are_seen_in_the_image_and_the_others_in_windows() -> None:
    boxes = np.array([[0.0, 0.0, 50.0, 5.0], [0.0, 0.0, 49.0, 49.0], [10.0, 20.0, 20.0, 90.0]])
    image, *windows = frames_of(Look(boxes="by-size", image_from=0.5), SPEC, boxes, 100, 60)
    assert image.whole and image.shown.tolist() == [0, 2]
    assert [(frame.whole, frame.shown.tolist()) for frame in windows] == [(False, [1])]


def test_the_image_is_what_it_is_without_windows() -> None:
    boxes = np.array([[0.0, 0.0, 50.0, 5.0]])
    for of in (boxes, boxes[:0]):  # an image without boxes too: it stays in its batch
        (frame,) = frames_of(Look(), SPEC, of, 100, 60)
        assert frame.view == view_for(SPEC, 100, 60) and frame.shown.tolist() == list(range(len(of)))
    assert frames_of(Look(boxes="windows"), SPEC, boxes[:0], 100, 60) == []


def test_a_model_of_one_canvas_size_gets_windows_of_that_size() -> None:
    look = Look(boxes="windows", window_size_px=64)
    sizes = {(None, False): 64, (96, True): 64, (96, False): 96}
    for (input_size_px, any_size), expected in sizes.items():
        spec = ModelSpec(mask_size=8, input_size_px=input_size_px, any_size=any_size, identity="x")
        assert spec.window_size_px(look) == expected
        (frame,) = frames_of(look, spec, np.array([[0.0, 0.0, 9.0, 9.0]]), 20, 20)
        assert frame.view.size_px == expected


IMAGE, WINDOW = "image 96 px", "window 128 px x 1.5"


def test_words_name_the_views_of_each_box() -> None:
    boxes, sizes = np.array([[0.0, 0.0, 50.0, 5.0], [0.0, 0.0, 9.0, 9.0]]), np.array([[100, 60], [30, 20]])
    native = ModelSpec(mask_size=8, input_size_px=None, identity="x")
    words = {
        Look(): [IMAGE] * 2,
        Look(boxes="windows", window_context=2.0): ["window 128 px x 2"] * 2,
        Look(boxes="by-size", mirror=True): [
            "image 96 px, mirrored too",
            "window 128 px x 1.5, mirrored too",
        ],
        Look(boxes="average"): [f"{IMAGE} + {WINDOW}"] * 2,
    }
    for look, expected in words.items():
        assert look_words(look, SPEC, boxes, sizes) == expected
    assert look_words(Look(), native, boxes, sizes) == ["image"] * 2


class ReadsRed:
    """Takes for the object what is red; a model whose masks do not depend on how it looks."""

    spec = SPEC

    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        red = images[:, :1].float() / 255
        crops = crop_features(red, instances.boxes, instances.image_index, self.spec.mask_size)
        return SegmentedMasks.of(crops[:, 0])


def batch_of(frame: Frame, image: Tensor, boxes: NDArray[np.float64]) -> Batch:
    on_canvas = torch.from_numpy(frame.view.to_canvas(boxes[frame.shown])).float()
    n = len(on_canvas)
    instances = Instances.of_boxes([on_canvas], [torch.zeros(n, dtype=torch.int64)], 1)
    instances.rows[:] = torch.from_numpy(frame.shown)
    canvas, size = frame.view.image(image)[None], torch.tensor([frame.view.fit])
    return Batch(canvas, size, (1,), instances, mirrored=frame.view.flipped)


def two_colors(height: int, width: int) -> tuple[Tensor, NDArray[np.bool_]]:
    """A red ellipse that is symmetric in no axis, and where it is."""
    y, x = np.mgrid[:height, :width]
    u, v = (x - 0.45 * width) / (0.42 * width), (y - 0.55 * height) / (0.35 * height)
    inside = (u + 0.4 * v) ** 2 + (1.2 * v) ** 2 < 1
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0], image[2] = torch.from_numpy(255 * inside), torch.from_numpy(255 * ~inside)
    return image, inside


BOXES = {
    "whole": [0.0, 0.0, 150.0, 90.0],
    "part": [20.0, 15.0, 90.0, 80.0],
    "small": [10.0, 30.0, 34.0, 50.0],
    "at the edge": [0.0, 20.0, 60.0, 90.0],
    "flat": [0.0, 45.0, 150.0, 55.0],
    "tiny": [13.25, 40.5, 15.5, 42.25],
}


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_a_model_that_reads_colors_gives_the_same_masks_however_it_looks(look: Look) -> None:
    image, inside = two_colors(90, 150)
    boxes = np.array(list(BOXES.values()))
    group = [batch_of(frame, image, boxes) for frame in frames_of(look, SPEC, boxes, 90, 150)]
    (found,) = segment_boxes(ReadsRed(), [group], torch.device("cpu"), autocast=False)
    assert sorted(found.rows.tolist()) == list(range(len(boxes)))
    for row, grid in zip(found.rows.tolist(), found.grids, strict=True):
        x1, y1, x2, y2 = boxes[row]
        cells = (np.arange(16) + 0.5) / 16
        x, y = (x1 + (x2 - x1) * cells).astype(int), (y1 + (y2 - y1) * cells).astype(int)
        expected = inside[np.ix_(y, x)]
        # Where the outline is nearer than a pixel and a half of the canvas, either answer is right.
        reach = 1.5 * max(1, 150 / 96)
        sure = np.stack(
            [
                inside[np.ix_(np.clip(y + dy, 0, 89), np.clip(x + dx, 0, 149))] == expected
                for dy in (-round(reach), 0, round(reach))
                for dx in (-round(reach), 0, round(reach))
            ]
        ).all(0)
        assert sure.sum() > 100 or list(BOXES)[row] == "tiny"
        assert ((grid > 127) == expected)[sure].all(), list(BOXES)[row]


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_one_image_is_looked_at_as_every_other(look: Look) -> None:
    image, _ = two_colors(90, 150)
    boxes = np.array(list(BOXES.values()))
    group = [batch_of(frame, image, boxes) for frame in frames_of(look, SPEC, boxes, 90, 150)]
    (expected,) = segment_boxes(ReadsRed(), [group], torch.device("cpu"), autocast=False)
    found = segment_image(ReadsRed(), image, boxes, 0.5, torch.device("cpu"), look=look)
    assert np.array_equal(found.segmented.rows, np.arange(len(boxes)))
    np.testing.assert_array_equal(found.segmented.grids, expected.grids[np.argsort(expected.rows)])


def test_a_mirrored_frame_is_the_frame_mirrored_with_the_image_at_the_top_left() -> None:
    image, _ = two_colors(90, 150)
    boxes = np.array([BOXES["part"]])
    plain, mirrored = frames_of(Look(mirror=True), SPEC, boxes, 90, 150)
    height, width = plain.view.fit
    assert isinstance(mirrored.view, View) and mirrored.view.flipped
    canvas = plain.view.image(image)
    assert torch.equal(mirrored.view.image(image)[:, :height, :width], canvas[:, :height, :width].flip(-1))
