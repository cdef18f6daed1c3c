"""Whether a data set is all there."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError
from deepmac_distill.forecast.inventory import (
    COCO_PAGE,
    LVIS_PAGE,
    Inventory,
    PerImage,
    download_page,
    take_inventory,
)


def document() -> dict[str, Any]:
    """Two cats, a kite and a crowd of cats on the first image, a cat on the second, nothing on the third."""
    boxes = [(1, 1, 0), (1, 1, 0), (1, 2, 0), (1, 1, 1), (2, 1, 0)]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 8} for i in (1, 2, 3)],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": [0, 0, 4, 4], "iscrowd": crowd}
            for k, (i, c, crowd) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "kite"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train2017").mkdir()
    (tmp_path / "a.json").write_text(json.dumps(document()))
    for i in (1, 2, 3):
        (tmp_path / "train2017" / f"{i}.png").touch()  # never opened
    return tmp_path


def take(annotations: Path, images: Path) -> Inventory:
    return take_inventory(annotations, ImageFolder(images), partial(Dataset.open, seen="cat"))


def test_a_complete_set_is_counted(folder: Path) -> None:
    found = take(folder / "a.json", folder / "train2017")
    assert found.missing == () and (found.images, found.boxes) == (3, 5)
    assert found.class_names == ("cat", "kite")
    assert found.usable == PerImage(mean=4 / 3, most=3) and found.seen == PerImage(mean=1.0, most=2)
    assert found.json_bytes == (folder / "a.json").stat().st_size


def test_the_fullest_batch_is_the_fullest_image_and_average_ones() -> None:
    assert PerImage(mean=2.0, most=9).in_batch(1) == 9
    assert PerImage(mean=2.0, most=9).in_batch(4) == 15


def test_every_missing_thing_is_named(folder: Path) -> None:
    gone = take(folder / "annotations" / "x.json", folder / "val2017")
    assert gone.missing == (f"{folder / 'annotations' / 'x.json'}", f"{folder / 'val2017'}/")
    assert gone.images == 0
    (folder / "train2017" / "2.png").unlink()
    some = take(folder / "a.json", folder / "train2017")
    assert some.missing == (f"1 of 3 images of {folder / 'train2017'}/, such as 2.png",)
    assert download_page(some.missing[0]) == COCO_PAGE
    assert download_page("data/lvis_v1_val.json") == LVIS_PAGE
    assert download_page(f"{folder / 'a.json'}") == ""


def test_images_are_found_where_training_finds_them(folder: Path) -> None:
    names = ["train2017/1.png", "1.png", "other/2.png", "other/9.png", "9.png"]
    for where in (folder, folder / "train2017"):
        absent = []
        for name in names:
            try:
                ImageFolder(where).locate(name)
            except DataError:
                absent.append(name)
        assert ImageFolder(where).absent(names) == absent
    assert ImageFolder(folder / "train2017").absent(names) == ["other/9.png", "9.png"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"categories": 3}, "categories: got 3, expected a list"),
        ({"images": [{"id": 1, "height": 8, "width": 8}]}, "image 1: file_name null"),
        ({"categories": [{"id": 1, "name": "dog"}]}, 'seen class "cat": no such class'),
    ],
)
def test_a_file_that_is_no_data_set_is_refused(folder: Path, change: dict[str, Any], says: str) -> None:
    (folder / "a.json").write_text(json.dumps(document() | change))
    with pytest.raises(DataError, match=says):
        take(folder / "a.json", folder / "train2017")


def test_masks_are_not_looked_at(folder: Path) -> None:
    raw = document()
    raw["annotations"][0]["segmentation"] = "garbage"
    (folder / "a.json").write_text(json.dumps(raw))
    assert take(folder / "a.json", folder / "train2017").missing == ()
