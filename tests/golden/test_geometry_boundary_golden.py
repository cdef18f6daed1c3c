"""Boundary IoU against the definition of its public code: OpenCV erodes the whole image, one ring a time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.geometry.boundary import boundary_distance, decode_patch, mask_boundary, patch_iou

Mask = NDArray[np.uint8]


def rings_taken_off(mask: Mask) -> Mask:
    """What is left of a mask in an image after as many erosions by 3 x 3, all beyond the image empty."""
    left = np.pad(mask, 1)
    for _ in range(boundary_distance(*mask.shape)):
        left = cv2.erode(left, np.ones((3, 3), np.uint8))
    return left[1:-1, 1:-1]


def code(mask: Mask) -> bytes:
    return coco_mask.encode(np.asfortranarray(mask))["counts"]


def some_mask(rng: np.random.Generator, height: int, width: int) -> Mask:
    """Rectangles over the edge, one in another, with a hole of a pixel; some are empty or full."""
    mask = np.full((height, width), rng.random() < 0.05, np.uint8)
    for _ in range(rng.integers(0, 4)):
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[y : y + rng.integers(1, 90), x : x + rng.integers(1, 90)] = 1
    if rng.random() < 0.5:
        mask[rng.integers(0, height), rng.integers(0, width)] = 0
    return mask


def whole(patch, height: int, width: int) -> Mask:
    image = np.zeros((height, width), np.uint8)
    columns, rows = patch.pixels.shape
    image[patch.top : patch.top + rows, patch.left : patch.left + columns] = patch.pixels.T
    return image


@pytest.mark.parametrize("seed", range(60))
def test_boundaries_and_their_iou_are_those_of_whole_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 200, 2))
    masks = [some_mask(rng, height, width) for _ in range(2)]
    masks.append(np.roll(masks[0], 2, axis=1))
    patches = []
    for mask in masks:
        assert np.array_equal(whole(decode_patch(code(mask), height), height, width), mask)
        patches.append(mask_boundary(code(mask), height, width))
        assert np.array_equal(whole(patches[-1], height, width), mask - rings_taken_off(mask))
    boundaries = [mask - rings_taken_off(mask) for mask in masks]
    for a in range(3):
        for b in range(3):
            union = np.count_nonzero(boundaries[a] | boundaries[b])
            expected = np.count_nonzero(boundaries[a] & boundaries[b]) / union if union else 0.0
            assert patch_iou(patches[a], patches[b]) == expected


def test_the_distance_is_two_percent_of_the_diagonal_and_at_least_a_pixel() -> None:
    assert boundary_distance(300, 400) == 10
    assert [boundary_distance(1, width) for width in (1, 74, 76, 126)] == [1, 1, 2, 3]


def test_a_mask_that_is_all_boundary_has_its_mask_iou() -> None:
    a, b = np.zeros((2, 300, 400), np.uint8)
    a[50:70, 60:80], b[55:75, 60:80] = 1, 1  # 20 pixels wide, boundaries of 10
    assert patch_iou(*(mask_boundary(code(mask), 300, 400) for mask in (a, b))) == 15 / 25


def test_an_edge_that_is_off_costs_more_than_the_mask_says() -> None:
    a, b = np.zeros((2, 300, 400), np.uint8)
    a[50:250, 60:260], b[55:245, 65:255] = 1, 1
    mask_iou, boundary_iou = 190**2 / 200**2, patch_iou(*(mask_boundary(code(m), 300, 400) for m in (a, b)))
    assert boundary_iou < mask_iou - 0.3
