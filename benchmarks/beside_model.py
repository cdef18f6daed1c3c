"""Everything beside the model, each part alone: CPU milliseconds an image and boxes a second of one core.

    python benchmarks/beside_model.py [--images 200] [--json benchmarks/results/beside_model.json]

Photographs of 640 x 480 are made of smoothed noise and stored as JPEG (quality 90), seven boxes in each.
`decode` reads and decodes them, `view` brings them onto a canvas of 1024 px, `windows` cuts a window of
192 px around each box. The last two are of a unit of images at once, as in labeling: `encode` makes masks of
grids of 32 x 32 by the default rule, and the last one also makes rows and a part of them. The median of
three goes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from codec import make_grids
from deepmac_distill.contract import ModelSpec
from deepmac_distill.data.dataset import AnnotatedImages
from deepmac_distill.data.framed import FramedBoxes
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from deepmac_distill.inference import SegmentedBoxes
from deepmac_distill.labels.cut import EXPECTED_IOU, recut
from deepmac_distill.labels.describe import label_unit
from deepmac_distill.labels.table import write_unit
from deepmac_distill.look import Look

HEIGHT, WIDTH, BOXES, UNIT = 480, 640, 7, 50  # of an image, boxes in it, images of a unit
REPEATS = 3
SPEC = ModelSpec(mask_size=32, input_size_px=1024, any_size=True, identity="none")


def write_data(folder: Path, images: int) -> Path:
    """Photographs in ``images``, and their annotation file, which is returned."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    entries, annotations = [], []
    for number in range(images):
        noise = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        photo = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        photo.save(folder / "images" / f"{number}.jpg", quality=90)
        entries.append({"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH})
        for _ in range(BOXES):
            w, h = rng.uniform(20, 250, 2).round(1).tolist()
            x, y = (rng.uniform(0, 1, 2) * (WIDTH - w, HEIGHT - h)).round(1).tolist()
            annotations.append({"id": len(annotations), "image_id": number, "bbox": [x, y, w, h]})
            annotations[-1]["category_id"] = 1
    document = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(document))
    return folder / "instances.json"


def parts(folder: Path, images: int) -> dict[str, Callable[[int], Any]]:
    """What is measured, by name: each does an image, and `write` a unit."""
    view = Dataset.open(write_data(folder, images), seen="all").for_training()
    store, rng = ImageFolder(folder / "images"), np.random.default_rng(0)
    source = AnnotatedImages(view, store, mask_size=1, with_masks=False)
    names = view.images["file_name"].to_pylist()
    pixels = [store.read(names[0])] * images
    grids = (make_grids(rng, UNIT * BOXES) * 255).round().astype(np.uint8)
    boxes, sizes, offsets = view.boxes_xyxy(), view.image_sizes(), view.rows_by_image()

    class Ready(AnnotatedImages):
        def read(self, position: int) -> torch.Tensor:
            return pixels[position]

    ready = Ready(view, store, mask_size=1, with_masks=False)
    whole = FramedBoxes(ready, Look(boxes="image"), SPEC)
    windows = FramedBoxes(ready, Look(boxes="windows"), SPEC)

    def encode(unit: int) -> None:
        rows = slice(offsets[unit * UNIT], offsets[(unit + 1) * UNIT])
        recut(grids, boxes[rows], sizes[rows], EXPECTED_IOU, lattice="centers")

    def write(unit: int) -> None:
        rows = np.arange(offsets[unit * UNIT], offsets[(unit + 1) * UNIT])
        drawn = SegmentedBoxes(rows, grids[: len(rows)], np.ones(len(rows), np.bool_))
        table = label_unit(
            *(view, range(int(rows[0]), int(rows[-1]) + 1), [drawn], {}),
            keep_soft=True,
            probabilities=True,
            lattice="centers",
        )
        write_unit(folder / "units", unit, table)

    return {
        "decode": source.read,
        "view": whole.__getitem__,
        "windows": windows.__getitem__,
        "encode": encode,
        "encode, make rows and write": write,
    }


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for part, do in parts(Path(name), given.images).items():
            each, took = UNIT if "encode" in part else 1, []
            do(0)
            for _ in range(REPEATS):
                began = time.process_time()
                for number in range(given.images // each):
                    do(number)
                took.append(1000 * (time.process_time() - began) / given.images)
            ms = statistics.median(took)
            rows.append(
                {"part": part, "cpu_ms_per_image": ms, "boxes_per_second_of_a_core": 1000 * BOXES / ms}
            )
            print(f"{part:30}{ms:8.2f} ms an image{1000 * BOXES / ms:10.0f} boxes/s of a core", flush=True)
    if given.json:
        write_json(given.json, {"environment": environment(), "boxes_of_an_image": BOXES, "rows": rows})


if __name__ == "__main__":
    main()
