"""The lattice "reference" against its definition, written out sample by sample.

Crops: Deep-MAC's public code (arXiv:2104.00613) multiplies the map by hat functions at
`(y1 + (y2 - y1) i / (S - 1)) (H - 1)`, with sides as shares of the canvas. Pastes: it samples the mask at the
pixels of the image, with bilinear `crop_and_resize` and zeros outside.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from deepmac_distill.geometry.axis import covered_boxes
from deepmac_distill.geometry.crop import crop_features
from deepmac_distill.geometry.rasterize import rasterize_rle
from deepmac_distill.geometry.rle import encode_grids

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def hats(low: float, high: float, cells: int, size: int) -> np.ndarray:
    """(size, cells) weights of the cells of a map in each sample of a box; sides are shares of the map."""
    at = (low + (high - low) * np.arange(size) / (size - 1)) * (cells - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells)))


def test_a_crop_is_the_map_times_hat_functions() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 9, 13))
    corner = rng.uniform(-2, 6, (40, 2))
    boxes, index = np.c_[corner, corner + rng.uniform(0.1, 8, (40, 2))], rng.integers(0, 2, 40)
    expected = [
        hats(y1 / 9, y2 / 9, 9, 5) @ features[i] @ hats(x1 / 13, x2 / 13, 13, 5).T
        for (x1, y1, x2, y2), i in zip(boxes, index, strict=True)
    ]
    got = crop_features(torch.tensor(features), torch.tensor(boxes), torch.tensor(index), 5, "reference")
    np.testing.assert_allclose(got.numpy(), np.stack(expected), rtol=0, atol=1e-12)


def sampled(grid: np.ndarray, low: float, high: float, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, S) weights of the grid's rows in each pixel, and which pixels are in the box."""
    pixel = np.arange(pixels) / (pixels - 1) if pixels > 1 else np.array([0.5])
    at = (pixel - low / pixels) / ((high - low) / pixels) * (len(grid) - 1)
    within = (at > -1e-9) & (at < len(grid) - 1 + 1e-9)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(len(grid)))), within


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5])
def test_a_paste_samples_the_grid_at_every_pixel(threshold: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(150):
        height, width = rng.integers(1, 40, 2)
        corner = rng.uniform(-3, 25, 2)
        box = np.r_[corner, corner + rng.uniform(0.5, 20, 2)]
        if rng.random() < 0.3:  # sides that lie on the edge of the image
            box = np.clip(box, 0, [width, height, width, height])
        if not (box[2] > box[0] and box[3] > box[1]):
            continue
        grid = rng.random((6, 6)) * rng.random()
        (code,) = encode_grids(grid[None], [box], height, width, threshold, "reference")
        mask = coco_mask.decode({"size": [int(height), int(width)], "counts": code}).astype(bool)
        down, rows = sampled(grid, box[1], box[3], height)
        across, columns = sampled(grid, box[0], box[2], width)
        value = down @ grid @ across.T
        clear = np.abs(value - threshold) > 1e-6
        inside = rows[:, None] & columns
        assert np.array_equal(mask & clear, (value > threshold) & inside & clear)


def test_a_grid_of_one_cell_has_no_two_edges() -> None:
    with pytest.raises(ValueError, match="got 1 cells a side, expected 2 or more on reference"):
        encode_grids(np.ones((1, 1, 1)), [[0, 0, 4, 4]], 5, 5, lattice="reference")


def disks(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Masks of 200 x 240 pixels and their boxes."""
    rng, (y, x) = np.random.default_rng(2), np.mgrid[:200, :240] + 0.5
    found = []
    for _ in range(count):
        cy, cx, a, b = *rng.uniform(50, 150, 2), *rng.uniform(20, 50, 2)
        mask = ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 <= 1
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        found.append((mask, np.array([columns[0], rows[0], columns[-1] + 1.0, rows[-1] + 1.0])))
    return found


def test_masks_survive_their_own_lattice_and_suffer_on_the_other() -> None:
    """Why one switch turns crop and paste together."""
    ious: dict[tuple[str, str], list[float]] = {}
    for mask, box in disks(20):
        code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
        for drawn in ("centers", "reference"):
            grid = rasterize_rle(code, 200, 240, covered_boxes(box[None], 16, drawn)[0], 16)
            for pasted in ("centers", "reference"):
                (again,) = encode_grids(grid[None], [box], 200, 240, 0.5, pasted)
                other = coco_mask.decode({"size": [200, 240], "counts": again}).astype(bool)
                iou = (mask & other).sum() / (mask | other).sum()
                ious.setdefault((drawn, pasted), []).append(iou)
    mean = {pair: np.mean(values) for pair, values in ious.items()}
    assert min(mean["centers", "centers"], mean["reference", "reference"]) > 0.965
    assert max(mean["centers", "reference"], mean["reference", "centers"]) < 0.93
