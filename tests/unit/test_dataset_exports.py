"""Files as tools of the field write them are read without editing, and what was changed is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.rasterize import rasterize_polygons, rasterize_rle

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]
BOX = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "iscrowd": 0, "area": 400.0}
IMAGE = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}


def taco() -> dict[str, Any]:
    """An id twice, boxes of infinity beside sound masks, keys of its own."""
    infinite = BOX | {"id": 3, "bbox": [float("inf"), float("inf"), float("-inf"), float("-inf")]}
    return {
        "info": {"year": 2019},
        "images": [IMAGE | {"file_name": "batch_1/000006.jpg", "license": None, "flickr_url": "https://x/y"}],
        "annotations": [
            BOX | {"id": 1, "segmentation": [SQUARE]},
            BOX | {"id": 1, "segmentation": [SQUARE]},
            infinite | {"segmentation": [SQUARE]},
            infinite | {"id": 4, "segmentation": [[]]},
        ],
        "scene_annotations": [{"image_id": 1, "background_ids": [3]}],
        "categories": [{"id": 1, "name": "Can", "supercategory": "Can"}],
        "scene_categories": [{"id": 0, "name": "Clean"}],
    }


def lvis() -> dict[str, Any]:
    """No file names, no crowds, lists of classes that nobody looked for."""
    return {
        "images": [
            {
                **{
                    "id": 1,
                    "height": 40,
                    "width": 60,
                    "neg_category_ids": [1],
                    "not_exhaustive_category_ids": [],
                },
                "coco_url": "http://images.cocodataset.org/val2017/a.jpg",
            }
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [10, 10, 20, 20],
                "segmentation": [SQUARE],
                "area": 4,
            }
        ],
        "categories": [{"id": 1, "name": "owl", "synset": "owl.n.01", "frequency": "r", "synonyms": ["owl"]}],
    }


def roboflow() -> dict[str, Any]:
    """A root category of the same name without boxes, ids from 0, an area that is no mask's."""
    return {
        "info": {"year": "2026", "url": "https://universe.roboflow.com/x"},
        "images": [IMAGE | {"id": 0, "license": 1, "extra": {"name": "a.jpg"}}],
        "annotations": [BOX | {"id": 0, "image_id": 0, "area": 7.5, "segmentation": [SQUARE]}],
        "categories": [
            {"id": 0, "name": "weed", "supercategory": "none"},
            {"id": 1, "name": "weed", "supercategory": "weed"},
        ],
    }


def cvat() -> dict[str, Any]:
    """Attributes, a `source` that is no teacher of ours, an uncompressed code, a crowd that is a mask."""
    rle = {"size": [40, 60], "counts": [410, 20, 1970]}
    return {
        "images": [IMAGE | {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}],
        "annotations": [
            BOX | {"id": 1, "segmentation": [SQUARE], "attributes": {"occluded": False}, "source": "manual"},
            BOX | {"id": 2, "bbox": [10, 10, 1, 20], "segmentation": rle, "source": "semi-auto"},
        ],
        "categories": [{"id": 1, "name": "bolt", "supercategory": ""}],
    }


def label_studio() -> dict[str, Any]:
    """Sizes missing, backslashes, ids from 0, ignore, an annotation without an id and one without a box."""
    return {
        "images": [{"id": 0, "file_name": "images\\a.jpg"}],
        "annotations": [
            BOX | {"id": 0, "image_id": 0, "category_id": 0, "segmentation": [SQUARE], "ignore": 0},
            BOX | {"image_id": 0, "category_id": 0, "segmentation": []},
            {"id": 7, "image_id": 0, "category_id": 0, "segmentation": [SQUARE]},
        ],
        "categories": [{"id": 0, "name": "bolt"}],
    }


def strings() -> dict[str, Any]:
    """Ids that are strings everywhere."""
    return {
        "images": [IMAGE | {"id": "frame-1"}],
        "annotations": [
            BOX | {"id": "o-1", "image_id": "frame-1", "category_id": "c", "segmentation": [SQUARE]}
        ],
        "categories": [{"id": "c", "name": "bolt"}],
    }


def opened(tmp_path: Path, document: dict[str, Any], **options: Any) -> Truth:
    for name in ("a.jpg", "batch_1/000006.jpg", "val2017/a.jpg", "images/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "a.json").write_text(json.dumps(document))
    images = ImageFolder(tmp_path)
    truth = Dataset.open(tmp_path / "a.json", seen="all", sizes=images, **options).for_evaluation()
    for row in truth.images.to_pylist():
        images.read_sized(row["file_name"], row["height"], row["width"])
    return truth


@pytest.mark.parametrize(
    ("document", "masks", "counts"),
    [
        (taco(), 3, {"renumbered_annotations": 1, "degenerate": 1}),
        (lvis(), 1, {}),
        (roboflow(), 1, {"dropped_categories": 1}),
        (cvat(), 2, {}),
        (label_studio(), 2, {"sizes_from_images": 1, "renumbered_annotations": 1}),
        (strings(), 1, {"numbered_ids": 3}),
    ],
    ids=["TACO", "LVIS", "Roboflow", "CVAT", "Label Studio", "strings"],
)
def test_an_export_is_read_as_it_is(
    tmp_path: Path, document: dict[str, Any], masks: int, counts: dict[str, int]
) -> None:
    truth = opened(tmp_path, document)
    assert truth.has_human_mask().sum() == masks
    assert {name: truth.counts[name] for name in counts} == counts
    assert not [
        p
        for p in find_problems(tmp_path / "a.json", "all", sizes=ImageFolder(tmp_path))
        if p.level == "error"
    ]


@pytest.mark.parametrize("document", [taco(), label_studio()], ids=["TACO", "Label Studio"])
def test_what_was_changed_is_refused_where_strict(tmp_path: Path, document: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        opened(tmp_path, document, strict=True)


def test_keys_of_other_tools_are_written_again(tmp_path: Path) -> None:
    document = cvat()
    assert opened(tmp_path, document).document() == document


TWICE = [[*SQUARE, 12.0, 12.0, 28.0, 12.0, 28.0, 28.0, 12.0, 28.0, 10.0, 10.0]]  # an inner loop, wound alike
EIGHT = [[5.0, 5.0, 30.0, 35.0, 30.0, 5.0, 5.0, 35.0]]
LOBES = [EIGHT[0], [20.0, 10.0, 32.0, 10.0, 32.0, 30.0, 20.0, 30.0]]  # a part over a lobe of the other sign


@pytest.mark.parametrize("polygons", [TWICE, EIGHT, LOBES], ids=["twice", "eight", "lobes"])
def test_an_outline_that_crosses_itself_is_one_mask_for_training_and_evaluation(
    tmp_path: Path, polygons: list[list[float]]
) -> None:
    document = taco() | {"annotations": [BOX | {"id": 1, "bbox": [0, 0, 40, 40], "segmentation": polygons}]}
    truth = opened(tmp_path, document)
    row = truth.annotations.to_pylist()[0]
    assert row["polygons"] is None  # a training would see other pixels in it
    code = coco_mask.merge(coco_mask.frPyObjects(polygons, 40, 60))
    assert row["rle_counts"] == code["counts"]
    assert truth.document()["annotations"][0]["segmentation"] == polygons  # exported as it was drawn
    grid = rasterize_rle(row["rle_counts"], 40, 60, (0, 0, 40, 40), 40)
    assert np.array_equal(grid > 127, coco_mask.decode(code)[:40, :40] == 1)


def test_windings_of_parts_and_outlines_do_not_matter(tmp_path: Path) -> None:
    """Parts are united whatever their direction, in training and by pycocotools alike."""
    inner = [15.0, 15.0, 15.0, 25.0, 25.0, 25.0, 25.0, 15.0]
    other_way = [30.0, 30.0, 30.0, 10.0, 10.0, 10.0, 10.0, 30.0]
    grids = []
    for polygons in ([SQUARE, inner], [other_way, inner]):
        document = taco() | {"annotations": [BOX | {"id": 1, "segmentation": polygons}]}
        row = opened(tmp_path, document).annotations.to_pylist()[0]
        assert row["polygons"] == polygons
        grids.append(rasterize_polygons(row["polygons"], (10, 10, 30, 30), 20))
        assert coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons, 40, 60))) == 400
    assert (grids[0] == 255).all() and np.array_equal(*grids)
