"""How fast masks are encoded and targets rasterized, beside what others do, in one run on one thread.

    python benchmarks/codec.py [--masks 1000] [--rounds 3] [--json codec.json]

Encoding: soft masks over boxes of about 5 % of a 640 x 480 image to COCO codes. Peers: torchvision's paste,
and a paste restated after detectron2's (grid_sample inside the box grown by a pixel), both followed by
pycocotools. The truth is grid_sample in float64 at every pixel center of the box, then pycocotools.
Targets: polygons to coverage grids. Peers: pycocotools on the polygon scaled into the box, at 1x and 4x.
The truth is the same at 64x, averaged. Rates are of process CPU time, the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image

from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from deepmac_distill.geometry.rasterize import rasterize_polygons
from deepmac_distill.geometry.rle import encode_grids

HEIGHT, WIDTH, SIZE, PER_CALL = 480, 640, 32, 50


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


def time_in_turn(methods: dict[str, Callable[[], object]], n: int, rounds: int) -> dict[str, float]:
    """Median items a second of process CPU time; methods take turns so that they share the weather."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            start = time.process_time()
            method()
            seconds[name].append(time.process_time() - start)
    return {name: n / statistics.median(values) for name, values in seconds.items()}


def compare_encoders(rng: np.random.Generator, n: int, rounds: int) -> dict[str, dict[str, float]]:
    """Rate, share of codes identical to the truth's, most pixels off and mean IoU with it, per method."""
    grids, boxes = make_grids(rng, n), make_boxes(rng, n)
    parts = [slice(i, i + PER_CALL) for i in range(0, n, PER_CALL)]
    methods: dict[str, Callable[[], list[bytes]]] = {
        "deepmac_distill": lambda: [
            code for p in parts for code in encode_grids(grids[p], boxes[p], HEIGHT, WIDTH)
        ],
        "detectron2-style paste": lambda: encode_canvases(
            [paste_like_detectron2(grid, box) for grid, box in zip(grids, boxes, strict=True)]
        ),
        "torchvision paste": lambda: [
            code for p in parts for code in encode_canvases(list(paste_like_torchvision(grids[p], boxes[p])))
        ],
    }
    rates = time_in_turn(methods, n, rounds)
    truth = [encode_canvases([paste_exactly(grid, box)])[0] for grid, box in zip(grids, boxes, strict=True)]
    return {name: {"per_second": rates[name], **agreement(methods[name](), truth)} for name in methods}


def agreement(codes: list[bytes], truth: list[bytes]) -> dict[str, float]:
    """How near codes are to the true ones."""
    pairs = [
        [{"size": [HEIGHT, WIDTH], "counts": c} for c in pair] for pair in zip(codes, truth, strict=True)
    ]
    ious = [coco_mask.iou([a], [b], [0])[0, 0] for a, b in pairs]
    wrong = [
        int((coco_mask.decode(a) != coco_mask.decode(b)).sum())
        for a, b in pairs
        if a["counts"] != b["counts"]
    ]
    same = 1 - len(wrong) / len(codes)
    return {
        "identical_fraction": same,
        "most_pixels_off": max(wrong, default=0),
        "mean_iou": float(np.mean(ious)),
    }


def compare_rasterizers(rng: np.random.Generator, n: int, rounds: int) -> dict[str, dict[str, float]]:
    """Rate and mean soft IoU with the truth, per method; the truth is taken on the first 100."""
    boxes = make_boxes(rng, n)
    pairs = list(zip(make_polygons(rng, boxes), boxes, strict=True))
    methods: dict[str, Callable[[list], list[np.ndarray]]] = {
        "deepmac_distill": lambda some: [rasterize_polygons([p], b, SIZE) / 255 for p, b in some],
        "pycocotools, 1x": lambda some: [rasterize_by_pycocotools(p, b, 1) for p, b in some],
        "pycocotools, 4x": lambda some: [rasterize_by_pycocotools(p, b, 4) for p, b in some],
    }
    rates = time_in_turn({name: lambda m=method: m(pairs) for name, method in methods.items()}, n, rounds)
    truth = [rasterize_by_pycocotools(p, b, 64) for p, b in pairs[:100]]
    ious = {
        name: [
            np.minimum(a, t).sum() / np.maximum(a, t).sum()
            for a, t in zip(m(pairs[:100]), truth, strict=True)
        ]
        for name, m in methods.items()
    }
    return {name: {"per_second": rates[name], "mean_iou": float(np.mean(ious[name]))} for name in methods}


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """One line per method under the names of its numbers."""
    names = list(next(iter(rows.values())))
    print(f"\n{title}\n{'':24}" + "".join(f"{name:>20}" for name in names))
    for method, values in rows.items():
        print(f"{method:24}" + "".join(f"{values[name]:>20,.4f}".replace(".0000", "") for name in names))


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    result = {
        "environment": environment(),
        "masks": args.masks,
        "rounds": args.rounds,
        "encode": compare_encoders(rng, args.masks, args.rounds),
        "rasterize": compare_rasterizers(rng, args.masks, args.rounds),
    }
    print_table(
        f"encode {args.masks} soft masks of {SIZE} x {SIZE}, {WIDTH} x {HEIGHT} image", result["encode"]
    )
    print_table(f"rasterize {args.masks} polygons to {SIZE} x {SIZE}", result["rasterize"])
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
