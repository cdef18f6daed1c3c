"""What `codec.py` measures on, and the peers it measures: pastes and rasterizers, restated or called."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image

HEIGHT, WIDTH, SIZE = 480, 640, 32


def make_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 4) xyxy, 5 % of the image on average, sides in the ratio of a log-normal."""
    area = np.minimum(rng.exponential(0.053, n) + 1e-3, 0.5) * HEIGHT * WIDTH
    ratio = np.exp(rng.normal(0, 0.4, n))
    width, height = np.minimum(np.sqrt(area * ratio), WIDTH), np.minimum(np.sqrt(area / ratio), HEIGHT)
    x, y = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
    return np.stack((x, y, x + width, y + height), axis=1)


def make_outlines(rng: np.random.Generator, n: int, angles: np.ndarray) -> np.ndarray:
    """(n, angles) radius of wavy closed outlines that fill most of the square from -1 to 1."""
    order = np.arange(1, 7)[:, None]
    waves = rng.normal(0, 0.12, (n, 6)) @ np.cos(order * angles + rng.uniform(0, 2 * np.pi, (6, 1)))
    return np.clip(0.8 + waves, 0.2, 1.2)


def make_grids(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, SIZE, SIZE) float32 probabilities, soft at a wavy outline."""
    line = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    outline = make_outlines(rng, n, np.arctan2(y, x).ravel()).reshape(n, SIZE, SIZE)
    return (1 / (1 + np.exp(-12 * (outline - np.hypot(y, x))))).astype(np.float32)


def paste_exactly(grid: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(HEIGHT, WIDTH) bool: the grid sampled in float64 at the pixel centers inside the box."""
    x = (np.arange(WIDTH) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (np.arange(HEIGHT) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    at = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1))[None]
    probs = F.grid_sample(torch.from_numpy(grid)[None, None].double(), at, align_corners=False)[0, 0].numpy()
    inside = ((y >= -1) & (y < 1))[:, None] & ((x >= -1) & (x < 1))
    return (probs > 0.5) & inside


def paste_like_detectron2(grid: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(HEIGHT, WIDTH) bool: grid_sample in the box grown to whole pixels and one more."""
    left, top = np.maximum(np.floor(box[:2]).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(box[2:]).astype(int) + 1, (WIDTH, HEIGHT))
    x1, y1, x2, y2 = torch.from_numpy(box.astype(np.float32))
    x = (torch.arange(left, right, dtype=torch.float32) + 0.5 - x1) / (x2 - x1) * 2 - 1
    y = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - y1) / (y2 - y1) * 2 - 1
    shape = (len(y), len(x))
    at = torch.stack((x[None, :].expand(shape), y[:, None].expand(shape)), dim=-1)[None]
    probs = F.grid_sample(torch.from_numpy(grid)[None, None], at, align_corners=False)[0, 0]
    canvas = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    canvas[top:bottom, left:right] = probs >= 0.5
    return canvas.numpy()


def paste_like_torchvision(grids: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n, HEIGHT, WIDTH) bool by torchvision's own function: boxes cut to whole pixels."""
    masks = torch.from_numpy(grids)[:, None]
    return (paste_masks_in_image(masks, torch.from_numpy(boxes), (HEIGHT, WIDTH))[:, 0] >= 0.5).numpy()


def encode_canvases(canvases: list[np.ndarray]) -> list[bytes]:
    """One pycocotools code per full-image mask."""
    return [coco_mask.encode(np.asfortranarray(canvas, dtype=np.uint8))["counts"] for canvas in canvases]


def make_polygons(rng: np.random.Generator, boxes: np.ndarray) -> list[list[float]]:
    """One flat polygon of 29 corners per box."""
    angles = np.linspace(0, 2 * np.pi, 29, endpoint=False)
    unit = (
        np.stack((np.cos(angles), np.sin(angles)), axis=1) * make_outlines(rng, len(boxes), angles)[..., None]
    )
    middle, half = (
        (boxes[:, None, :2] + boxes[:, None, 2:]) / 2,
        (boxes[:, None, 2:] - boxes[:, None, :2]) / 2,
    )
    return (middle + half * unit.clip(-1, 1)).reshape(len(boxes), -1).tolist()


def rasterize_by_pycocotools(polygon: list[float], box: np.ndarray, finer: int) -> np.ndarray:
    """(SIZE, SIZE) float coverage: pycocotools on a grid `finer` times as fine, averaged."""
    scaled = (np.reshape(polygon, (-1, 2)) - box[:2]) / (box[2:] - box[:2]) * (SIZE * finer)
    fine = coco_mask.decode(coco_mask.frPyObjects([scaled.ravel().tolist()], SIZE * finer, SIZE * finer))
    return fine.reshape(SIZE, finer, SIZE, finer).mean(axis=(1, 3))
