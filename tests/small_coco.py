"""A small COCO document that tests of the reader change, and what is read of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def plain(**changes: Any) -> dict[str, Any]:
    """Two images of 40 x 60 (H x W), a seen cat with a mask, an unseen yak with one, and a box-only cat."""
    document = {
        "images": [
            {"id": 20, "file_name": "b.jpg", "height": 40, "width": 60},
            {"id": 5, "file_name": "train/a.jpg", "height": 40, "width": 60},
            {"id": 7, "file_name": "empty.jpg", "height": 40, "width": 60},
        ],
        "categories": [{"id": 90, "name": "yak"}, {"id": 17, "name": "cat"}],
        "annotations": [
            box(3, image_id=20, category_id=90, segmentation=SQUARE, area=400.0),
            box(9, image_id=5, segmentation=SQUARE, area=400.0),
            box(2, image_id=5),
        ],
    }
    return document | changes


def box(annotation_id: int, **changes: Any) -> dict[str, Any]:
    bbox = [10.0, 10.0, 20.0, 20.0]
    return {"id": annotation_id, "image_id": 5, "category_id": 17, "bbox": bbox, "iscrowd": 0} | changes


def read(
    tmp_path: Path, document: Any, seen: str = "cat", *, strict: bool = False, hide_unseen: bool = True
) -> Annotations:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document))
    dataset = Dataset.open(path, seen=seen, strict=strict)
    return dataset.for_training() if hide_unseen else dataset.for_evaluation()
