from __future__ import annotations

import numpy as np
import pytest
import torch

from deepmac_distill.data.augment import (
    Colors,
    View,
    change_colors,
    evaluation_view,
    evaluation_views,
    training_view,
    training_views,
)


def random_image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_evaluation_puts_the_long_side_on_the_canvas_and_the_image_at_the_top_left() -> None:
    view = evaluation_view(30, 40, 20)
    assert view.fit == (15, 20) and view.scale == (0.5, 0.5)
    canvas = view.image(torch.full((3, 30, 40), 200, dtype=torch.uint8))
    assert canvas.shape == (3, 20, 20)
    assert (canvas[:, :15] == 200).all() and (canvas[:, 15:] == 0).all()
    assert view.to_canvas(np.array([[10.0, 20, 40, 30]])).tolist() == [[5, 10, 20, 15]]


def test_the_edge_of_the_image_is_the_edge_of_the_fit_even_when_rounded() -> None:
    view = evaluation_view(33, 50, 20)
    assert view.fit == (13, 20)
    assert view.to_canvas(np.array([[0.0, 0, 50, 33]])).tolist() == [[0, 0, 20, 13]]


def test_a_view_of_the_whole_image_at_its_size_changes_no_pixel() -> None:
    image = random_image(16, 16)
    assert torch.equal(evaluation_view(16, 16, 16).image(image), image)


def test_a_crop_is_zero_where_it_leaves_the_image_and_exact_inside() -> None:
    image = random_image(6, 8)
    view = View(height=6, width=8, crop=(-2, 3, 8, 13), fit=(10, 10), size_px=10)
    expected = torch.zeros(3, 10, 10, dtype=torch.uint8)
    expected[:, :3, 2:] = image[:, 3:]
    assert torch.equal(view.image(image), expected)
    flipped = View(height=6, width=8, crop=(-2, 3, 8, 13), fit=(10, 10), size_px=10, flipped=True)
    assert torch.equal(flipped.image(image), expected.flip(-1))


def test_boxes_are_clipped_to_crop_and_image_and_one_outside_has_no_area() -> None:
    view = View(height=6, width=8, crop=(-2, 3, 5, 10), fit=(14, 14), size_px=14)
    clipped = view.clip(np.array([[1.0, 1, 7, 9], [6, 0, 8, 6]]))
    assert clipped[0].tolist() == [1, 3, 5, 6]
    assert clipped[1, 0] == clipped[1, 2]
    assert view.to_canvas(clipped[:1]).tolist() == [[6, 0, 14, 6]]


def test_a_flip_mirrors_boxes_within_the_fit() -> None:
    view = View(height=10, width=10, crop=(0, 0, 10, 10), fit=(20, 20), size_px=20, flipped=True)
    assert view.to_canvas(np.array([[1.0, 2, 4, 6]])).tolist() == [[12, 4, 18, 12]]
    grids = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    assert view.grids(grids).tolist() == [[[1, 0], [3, 2]]]


def test_no_boxes_are_an_ordinary_input() -> None:
    view, none = evaluation_view(30, 40, 20), np.zeros((0, 4))
    assert view.clip(none).shape == view.to_canvas(none).shape == (0, 4)


def test_training_crops_have_one_of_eight_sides_and_a_center_away_from_the_border() -> None:
    rng = np.random.default_rng(0)
    views = [training_view(rng, 480, 640, size_px=64) for _ in range(600)]
    sides = {v.crop[2] - v.crop[0] for v in views}
    assert sides == {384, 448, 512, 576, 640, 704, 768, 832}  # 0.6, 0.7 ... 1.3 of 640
    assert all(v.crop[3] - v.crop[1] == v.crop[2] - v.crop[0] for v in views)
    x = [(v.crop[0] + (v.crop[2] - v.crop[0]) // 2) for v in views]
    y = [(v.crop[1] + (v.crop[3] - v.crop[1]) // 2) for v in views]
    assert 128 <= min(x) < 135 and 505 < max(x) < 512  # 128 < 640 / 2
    assert 128 <= min(y) < 131 and 349 < max(y) < 352  # 128 < 480 / 2
    assert 0.4 < np.mean([v.flipped for v in views]) < 0.6
    hues = np.array(
        [(v.colors.hue, v.colors.contrast, v.colors.saturation, v.colors.brightness) for v in views]
    )
    assert np.allclose(hues.min(0), [-0.02, 0.8, 0.8, -0.2], atol=0.01)
    assert np.allclose(hues.max(0), [0.02, 1.25, 1.25, 0.2], atol=0.01)


def test_the_smallest_images_have_training_views() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 7), (2, 2), (300, 1)):
        for _ in range(20):
            assert training_view(rng, height, width, size_px=8).image(random_image(height, width)).shape == (
                3,
                8,
                8,
            )


def test_switching_the_jitter_off_leaves_crops_and_flips_as_they_were() -> None:
    plain = training_view(np.random.default_rng(1), 48, 64, size_px=32, color_jitter=False)
    jittered = training_views(32)(np.random.default_rng(1), 48, 64)
    assert (plain.crop, plain.flipped) == (jittered.crop, jittered.flipped)
    assert plain.colors is None and jittered.colors is not None


def test_an_evaluation_view_does_not_touch_the_generator() -> None:
    rng = np.random.default_rng(1)
    assert evaluation_views(20)(rng, 30, 40) == evaluation_view(30, 40, 20)
    assert rng.random() == np.random.default_rng(1).random()


def test_neutral_colors_change_nothing() -> None:
    image = random_image(9, 11)
    assert torch.equal(change_colors(image, Colors()), image)


def test_gray_keeps_its_gray_under_hue_and_saturation() -> None:
    gray = random_image(9, 11)[:1].repeat(3, 1, 1)
    assert torch.equal(change_colors(gray, Colors(hue=0.02, saturation=1.25)), gray)


def test_brightness_does_not_light_up_what_lies_outside_the_image() -> None:
    bright = Colors(brightness=0.2)
    view = View(height=6, width=8, crop=(-2, 0, 8, 10), fit=(10, 10), size_px=12, flipped=True, colors=bright)
    canvas = view.image(torch.zeros(3, 6, 8, dtype=torch.uint8))
    assert (canvas[:, :6, :8] == 51).all()  # 0.2 of 255
    assert canvas.sum() == 51 * 3 * 6 * 8


def test_an_image_of_another_size_than_the_views_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match=r"got \(3, 4, 5\), expected \(3, 30, 40\)"):
        evaluation_view(30, 40, 20).image(random_image(4, 5))
