import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from deepmac_distill.geometry.rasterize import rasterize_polygons, rasterize_rle
from deepmac_distill.geometry.rle import decode_counts, encode_boxes, encode_ellipses, encode_grids

# pycocotools hands its buffers to numpy in a way that numpy 2 means to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "coco-tiny" / "instances.json"


def decode(counts: bytes, height: int, width: int) -> np.ndarray:
    return coco_mask.decode({"size": [height, width], "counts": counts}).astype(bool)


def encode(mask: np.ndarray) -> bytes:
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def soft_grids(n: int, size: int, seed: int) -> np.ndarray:
    """Smooth random probabilities that cross one half many times."""
    noise = torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.sigmoid(3 * F.interpolate(noise, (size, size), mode="bicubic"))[:, 0].numpy()


def random_boxes(n: int, height: int, width: int, seed: int, beyond: float = 0.2) -> np.ndarray:
    """Float boxes, some of them over the edge of the image."""
    limits = np.array([width, height])
    corners = np.random.default_rng(seed).uniform(-beyond * limits, (1 + beyond) * limits, (n, 2, 2))
    return np.sort(corners, axis=1).reshape(n, 4)


def pasted(grid: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) probability at every pixel center of the box, in float64; zero outside the box."""
    x = (np.arange(width) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (np.arange(height) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    at = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1))[None]
    cells = torch.from_numpy(grid.astype(np.float64))[None, None]
    probs = F.grid_sample(cells, at, padding_mode="zeros", align_corners=False)[0, 0].numpy()
    return probs * (((y >= -1) & (y < 1))[:, None] & ((x >= -1) & (x < 1)))


@pytest.mark.parametrize("height, width, size", [(60, 80, 32), (97, 41, 7), (480, 640, 28)])
def test_codes_are_those_of_pasting_exactly_and_encoding(height: int, width: int, size: int) -> None:
    grids, boxes = soft_grids(200, size, 1), random_boxes(200, height, width, 2)
    codes = encode_grids(grids, boxes, height, width)
    truth = [pasted(grid, box, height, width) > 0.5 for grid, box in zip(grids, boxes, strict=True)]
    wrong = [
        int((decode(code, height, width) != mask).sum())
        for code, mask in zip(codes, truth, strict=True)
        if code != encode(mask)
    ]
    assert len(wrong) <= 1  # at least 99.5 % byte for byte; the rest are ties in the last bit
    assert max(wrong, default=0) <= 1


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.9])
def test_bytes_mean_probability_over_255_at_any_threshold(threshold: float) -> None:
    grids, boxes = (soft_grids(100, 16, 3) * 255).astype(np.uint8), random_boxes(100, 50, 70, 4)
    codes = encode_grids(grids, boxes, 50, 70, threshold)
    for code, grid, box in zip(codes, grids, boxes, strict=True):
        probs = pasted(grid / 255, box, 50, 70)
        assert not ((decode(code, 50, 70) != (probs > threshold)) & (abs(probs - threshold) > 1e-5)).any()


def test_boxes_and_ellipses_hold_the_pixels_whose_center_they_hold() -> None:
    height, width, boxes = 45, 60, random_boxes(100, 45, 60, 5)
    y, x = np.mgrid[:height, :width] + 0.5
    codes = zip(encode_boxes(boxes, height, width), encode_ellipses(boxes, height, width), boxes, strict=True)
    for box_code, ellipse_code, (x1, y1, x2, y2) in codes:
        assert box_code == encode((x >= x1) & (x < x2) & (y >= y1) & (y < y2))
        offset = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2
        assert ellipse_code == encode(offset < 1)


def test_run_lengths_are_read_as_pycocotools_writes_them() -> None:
    rng = np.random.default_rng(6)
    for fill in (0.0, 0.02, 0.5, 1.0):
        mask = rng.random((37, 53)) < fill
        flat = np.concatenate(([0], mask.T.ravel(), [2]))  # background first, and an end
        expected = np.diff(np.flatnonzero(np.diff(flat)), prepend=0)
        got = decode_counts(encode(mask))
        assert got[got > 0].tolist() == expected[expected > 0].tolist()
        assert got[0] == 0 if mask[0, 0] else got[0] > 0


def overlaps(low: float, high: float, pixels: int, size: int) -> np.ndarray:
    """(size, pixels) share of each of `size` cells from low to high that each pixel makes up."""
    edges = np.linspace(low, high, size + 1)
    pixel = np.arange(pixels)
    shared = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(pixel, edges[:-1, None])
    return np.clip(shared, 0, None) * size / (high - low)


def coverage_of_pixels(mask: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """(size, size) covered share of each cell, by weighing every pixel of the image."""
    height, width = mask.shape
    return overlaps(box[1], box[3], height, size) @ mask @ overlaps(box[0], box[2], width, size).T


def test_a_code_covers_cells_by_the_area_of_its_pixels() -> None:
    rng, (height, width) = np.random.default_rng(7), (50, 40)
    boxes = random_boxes(60, height, width, 8, beyond=0.1)
    for box in boxes:
        mask = rng.random((height, width)) < rng.uniform()
        mask[:, 10:14] |= rng.random() < 0.5  # runs that go on over several columns
        got = rasterize_rle(encode(mask), height, width, box, 9)
        assert abs(got - 255 * coverage_of_pixels(mask, box, 9)).max() <= 0.501


def test_polygons_cover_cells_as_a_grid_64_times_as_fine() -> None:
    rng, size, finer = np.random.default_rng(9), 16, 64
    for _ in range(30):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 30)))[:: rng.choice([-1, 1])]
        circle = np.stack((np.cos(angles), np.sin(angles)), axis=1)
        part = 50 + 45 * circle * rng.uniform(0.4, 1, (len(angles), 1))
        box = random_boxes(1, 100, 100, int(rng.integers(1000)), beyond=0)[0]
        box[2:] = np.maximum(box[2:], box[:2] + 10)
        scaled = (part - box[:2]) / (box[2:] - box[:2]) * size * finer
        fine = coco_mask.frPyObjects([scaled.ravel().tolist()], size * finer, size * finer)
        expected = coco_mask.decode(fine)[..., 0].reshape(size, finer, size, finer).mean(axis=(1, 3))
        got = rasterize_polygons([part.ravel().tolist()], box, size) / 255
        assert abs(got - expected).max() < 0.04  # what a border cell may lose to a grid of 64
        assert abs(got - expected).mean() < 0.002


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.exists(), reason="no real photographs here")
def test_real_masks_cover_their_boxes_by_the_area_of_their_pixels() -> None:
    source = json.loads(PHOTOS.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in source["images"]}
    for annotation in [a for a in source["annotations"] if not a["iscrowd"]][:150]:
        height, width = sizes[annotation["image_id"]]
        parts = coco_mask.frPyObjects(annotation["segmentation"], height, width)
        counts = coco_mask.merge(parts)["counts"]
        x, y, w, h = annotation["bbox"]
        box = np.array([x, y, x + w, y + h])
        got = rasterize_rle(counts, height, width, box, 32)
        assert abs(got - 255 * coverage_of_pixels(decode(counts, height, width), box, 32)).max() <= 0.501
