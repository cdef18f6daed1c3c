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
from pycocotools import mask as coco_mask

from codec_peers import (
    HEIGHT,
    SIZE,
    WIDTH,
    encode_canvases,
    make_boxes,
    make_grids,
    make_polygons,
    paste_exactly,
    paste_like_detectron2,
    paste_like_torchvision,
    rasterize_by_pycocotools,
)
from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from deepmac_distill.geometry.rasterize import rasterize_polygons
from deepmac_distill.geometry.rle import encode_grids

PER_CALL = 50  # masks, where a method takes many at once


def time_in_turn(methods: dict[str, Callable[[], object]], n: int, rounds: int) -> dict[str, float]:
    """Median items a second of process CPU time; they take turns so that load affects all alike."""
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
