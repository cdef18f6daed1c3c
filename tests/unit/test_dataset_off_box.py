"""A mask of which no pixel is in its box is none: training on it would teach that the box is background."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.off_box import has_human_mask, off_box
from deepmac_distill.dataset.segmentations import read_segmentations
from deepmac_distill.errors import DataError

SIZE = (64, 80)
ALONE = [10, 10, 30, 30]
FAR = [[50, 50, 60, 50, 60, 60, 50, 60]]
HOOK = [[0, 0, 60, 0, 60, 60, 50, 60, 50, 8, 0, 8]]  # around the box, with a tight box that holds it
CROSSED = [[50, 50, 60, 60, 60, 50, 50, 60]]


def rle(polygons: Any) -> dict[str, Any]:
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZE))
    return {"size": list(SIZE), "counts": merged["counts"].decode()}


def write(path: Path, **changed: Any) -> Path:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": ALONE, "segmentation": FAR, "area": 100}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [annotation | changed],
    }
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("mask", [FAR, HOOK, CROSSED, rle(FAR), rle(HOOK)])
def test_a_mask_outside_its_box_is_none_and_a_doubt(tmp_path: Path, mask: Any) -> None:
    path = write(tmp_path / "a.json", segmentation=mask)
    found = Dataset.open(path, seen="cat").for_training()
    assert (found.has_mask().tolist(), found.has_human_mask().tolist()) == ([False], [False])
    assert (found.counts["unusable_masks"], found.counts["without_mask"]) == (1, 1)
    assert found.document()["annotations"][0]["segmentation"] == mask  # exports have it as it was drawn
    with pytest.raises(DataError, match="annotation 1: segmentation: no pixel of it is in bbox"):
        Dataset.open(path, seen="cat", strict=True).for_training()


@pytest.mark.parametrize(
    "changed",
    [
        {"segmentation": [[38, 38, 60, 38, 60, 60, 38, 60]]},  # a corner of 2 px
        {"segmentation": [*HOOK, [20, 20, 24, 20, 24, 24, 20, 24]]},
        {"bbox": [50.6, 50.6, 0.3, 0.3]},  # no center of a pixel in it
        {"bbox": [49.2, 49.3, 11.4, 11.1]},
        {"iscrowd": 1, "segmentation": rle(FAR)},
        {"bbox": None},
    ],
)
def test_a_mask_with_a_pixel_in_its_box_and_that_of_a_crowd_stay(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    found = Dataset.open(write(tmp_path / "a.json", **changed), seen="cat").for_training()
    assert (found.has_mask().tolist(), found.counts["unusable_masks"]) == ([True], 0)


def test_of_a_hidden_class_nothing_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json")
    found = Dataset.open(path, seen="dog", strict=True).for_training()
    assert found.counts["unusable_masks"] == 0


def test_what_is_off_its_box_is_what_drawing_all_masks_finds() -> None:
    draw = np.random.default_rng(0)
    n, drawn, boxes = 400, [], []
    for _ in range(n):
        x, y, w, h = draw.integers(0, 40, 2).tolist() + draw.integers(1, 24, 2).tolist()
        drawn.append([[x, y, x + w, y, x + w, y + h] + ([x, y + h] if draw.random() < 0.5 else [])])
        boxes.append([*draw.integers(0, 40, 2), *draw.integers(1, 24, 2)])
    given = [rle(mask) if draw.random() < 0.5 else mask for mask in drawn]
    sizes = np.tile(SIZE, (n, 1))
    masks = read_segmentations(given, sizes)
    found = off_box(masks, np.array(boxes, float), sizes, np.ones(n, bool))
    for mask, (x, y, w, h), held, off in zip(drawn, boxes, masks.held, found, strict=True):
        pixels = coco_mask.decode(rle(mask))[y : y + h, x : x + w]
        assert off == (held and not pixels.any()), (mask, (x, y, w, h))
    assert 50 < found.sum() < n - 50
    entries = [{"segmentation": g, "bbox": b} for g, b in zip(given, boxes, strict=True)]
    assert has_human_mask(entries, sizes).tolist() == (masks.held & ~found).tolist()
    stated = [entry | {"source": "teacher"} for entry in entries]
    assert not has_human_mask(stated, sizes).any()
