"""A data set with one of each: a person's polygon, a ring, two parts, a box without a mask, a crowd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

H, W = 240, 320
CAT, YAK = "cat", "yak"


def _masks() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:H, :W] + 0.5
    square, two, crowd = (np.zeros((H, W), bool) for _ in range(3))
    square[40:120, 200:280] = True
    two[160:220, 20:80] = two[168:200, 120:176] = True
    crowd[200:232, 240:312] = True
    away = np.hypot(y - 80, x - 80)
    return {"polygon": square, "ring": (away < 56) & (away > 20), "two parts": two, "crowd": crowd}


MASKS = _masks()
BOX = [200.0, 136.0, 48.0, 48.0]  # of the object without a mask
BOXED = np.zeros((H, W), bool)
BOXED[136:184, 200:248] = True


def _code(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [H, W], "counts": rle["counts"].decode()}


def write_figures(folder: Path) -> Path:
    """Write the data set, marked as ours so that `source` is believed; returns its COCO file."""
    boxes = {
        name: coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))).tolist()
        for name, mask in MASKS.items()
    }
    x, y, w, h = boxes["polygon"]
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    teacher = {"source": "teacher", "mask_score": 0.75}
    annotations = [
        {"id": 11, "category_id": 1, "bbox": boxes["polygon"], "segmentation": polygon, "source": "human"},
        {"id": 12, "category_id": 2, "bbox": boxes["ring"], "segmentation": _code(MASKS["ring"]), **teacher},
        {"id": 13, "category_id": 2, "bbox": boxes["two parts"], "segmentation": _code(MASKS["two parts"])}
        | teacher,
        {"id": 14, "category_id": 1, "bbox": BOX, "source": "none"},
        {
            "id": 15,
            "category_id": 1,
            "bbox": boxes["crowd"],
            "segmentation": _code(MASKS["crowd"]),
            "iscrowd": 1,
        },
    ]
    document = {
        "deepmac_distill": {"schema": 3, "seen_mask_classes": []},
        "images": [
            {"id": 1, "file_name": "figures.png", "height": H, "width": W},
            {"id": 2, "file_name": "empty.png", "height": H, "width": W},
        ],
        "categories": [{"id": 1, "name": CAT}, {"id": 2, "name": YAK}],
        "annotations": [one | {"image_id": 1, "area": 1} for one in annotations],
    }
    (folder / "images").mkdir(parents=True)
    for name in ("figures.png", "empty.png"):
        Image.new("RGB", (W, H), (90, 120, 90)).save(folder / "images" / name)
    path = folder / "figures.json"
    path.write_text(json.dumps(document))
    return path
