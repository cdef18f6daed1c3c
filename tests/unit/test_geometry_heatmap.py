import math

import numpy as np
import pytest
import torch

from deepmac_distill.geometry.heatmap import center_heatmap, centers, gaussian_radius


def radius_in_the_published_code(height: float, width: float, min_iou: float) -> float:
    """The three quadratics a r^2 + b r + c = 0 with (b + sqrt(disc)) / 2, as CenterNet trains with."""
    s, p = height + width, height * width
    quadratics = [
        (1, s, p * (1 - min_iou) / (1 + min_iou)),
        (4, 2 * s, (1 - min_iou) * p),
        (4 * min_iou, -2 * min_iou * s, (min_iou - 1) * p),
    ]
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in quadratics)


@pytest.mark.parametrize("height, width", [(1, 1), (32, 32), (3.7, 90.2), (128, 0.4)])
@pytest.mark.parametrize("min_iou", [0.3, 0.7])
def test_radius_is_the_one_published_results_used(height: float, width: float, min_iou: float) -> None:
    got = gaussian_radius(torch.tensor(height, dtype=torch.float64), torch.tensor(width), min_iou)
    assert got.item() == pytest.approx(radius_in_the_published_code(height, width, min_iou), rel=1e-6)


def test_a_box_without_area_has_radius_zero() -> None:
    assert gaussian_radius(torch.zeros(1), torch.zeros(1)).tolist() == [0]


def test_centers_are_cells_inside_the_map() -> None:
    boxes = torch.tensor([[0.0, 0, 3, 5], [8, 4, 8, 4], [-9, -9, -1, -1]])
    assert centers(boxes, 4, 8).tolist() == [[2, 1], [3, 7], [0, 0]]
    assert centers(boxes[:0], 4, 8).shape == (0, 2)


def test_heatmap_matches_a_loop_in_float64() -> None:
    rng = np.random.default_rng(3)
    b, k, h, w, n = 2, 3, 14, 18, 150  # more boxes than are drawn at once
    corners = np.sort(rng.uniform(0, (w, h), (n, 2, 2)), axis=1).reshape(n, 4)
    labels, image_index = rng.integers(k, size=n), rng.integers(b, size=n)
    expected = np.zeros((b, k, h, w))
    for (x1, y1, x2, y2), label, image in zip(corners, labels, image_index, strict=True):
        sigma = (2 * math.floor(radius_in_the_published_code(y2 - y1, x2 - x1, 0.7)) + 1) / 6
        cy, cx = int((y1 + y2) / 2), int((x1 + x2) / 2)
        for y in range(h):
            for x in range(w):
                value = math.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2))
                expected[image, label, y, x] = max(expected[image, label, y, x], value)
    got = center_heatmap(
        torch.from_numpy(corners), torch.from_numpy(labels), torch.from_numpy(image_index), (b, k, h, w)
    )
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_the_target_is_exactly_one_at_centers_alone() -> None:
    boxes = torch.tensor([[1.3, 2.1, 9.9, 7.7], [10, 10, 10.5, 11]])
    heatmap = center_heatmap(boxes, torch.tensor([0, 1]), torch.tensor([0, 0]), (1, 2, 16, 16))
    assert (heatmap == 1).nonzero().tolist() == [[0, 0, 4, 5], [0, 1, 10, 10]]


def test_no_boxes_give_an_empty_map() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert not center_heatmap(torch.zeros(0, 4), none, none, (2, 3, 4, 5)).any()
