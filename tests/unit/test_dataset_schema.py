"""What a file may leave open is decided once: ids, names, sizes, boxes, turned images, other tools' keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepmac_distill.data.image_check import find_image_problems, images_sha256
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import TrainingView
from deepmac_distill.errors import DataError

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
BOX = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "iscrowd": 0, "segmentation": SQUARE}
IMAGE = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}
CAT = {"id": 1, "name": "cat"}


def write(path: Path, *annotations: dict[str, Any], **changes: Any) -> Path:
    document = {"images": [IMAGE], "categories": [CAT], "annotations": list(annotations)}
    path.write_text(json.dumps(document | changes), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> TrainingView:
    return Dataset.open(path, seen="cat", **options).for_training()


def test_string_ids_are_numbered_and_kept(tmp_path: Path) -> None:
    found = read(
        write(
            tmp_path / "a.json",
            BOX | {"id": "x9", "image_id": "b", "category_id": "c1"},
            BOX | {"id": "x1", "image_id": "a", "category_id": "c1"},
            images=[IMAGE | {"id": "b"}, IMAGE | {"id": "a", "file_name": "b.jpg"}],
            categories=[CAT | {"id": "c1"}],
        )
    )
    assert found.images["image_id"].to_pylist() == [1, 2]
    assert found.annotations["image_id"].to_pylist() == [1, 2]
    assert [entry["original_id"] for entry in found.document()["annotations"]] == ["x9", "x1"]
    assert [entry["original_id"] for entry in found.document()["images"]] == ["b", "a"]
    assert found.has_mask().all()


def test_missing_and_repeated_ids_are_replaced_and_counted_and_refused_where_strict(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", BOX | {"id": 7}, BOX | {"id": 7}, BOX, BOX | {"id": 3})
    found = read(path)
    assert found.annotations["annotation_id"].to_pylist() == [3, 7, 8, 9]
    assert found.counts["renumbered_annotations"] == 2
    with pytest.raises(DataError, match="annotation 7: its id is used twice"):
        read(path, strict=True)


def test_images_said_twice_are_one_and_different_ones_of_an_id_are_refused(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.json", BOX | {"id": 1}, images=[IMAGE, IMAGE]))
    assert (len(found.images), found.counts["merged_images"]) == (1, 1)
    with pytest.raises(DataError, match="image 1: its id is used twice"):
        read(write(tmp_path / "b.json", BOX | {"id": 1}, images=[IMAGE, IMAGE | {"height": 41}]))


def test_one_file_under_two_ids_is_a_doubt(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", BOX | {"id": 1}, images=[IMAGE, IMAGE | {"id": 2}])
    read(path)
    with pytest.raises(DataError, match=r'image 2: file_name "a.jpg" is that of image 1 too'):
        read(path, strict=True)


def test_a_repeated_category_without_boxes_is_dropped(tmp_path: Path) -> None:
    root = {"id": 0, "name": "cat"}
    found = read(write(tmp_path / "a.json", BOX | {"id": 1}, categories=[root, CAT]))
    assert (found.classes.category_ids, found.counts["dropped_categories"]) == ((1,), 1)
    both = (BOX | {"id": 1}, BOX | {"id": 2, "category_id": 0})
    with pytest.raises(DataError, match='name "cat" is used twice'):
        read(write(tmp_path / "b.json", *both, categories=[root, CAT]))


@pytest.mark.parametrize("bbox", [None, [float("inf"), 1, 2, 3], [1, 2, float("nan"), 4]])
def test_a_box_that_is_missing_comes_from_the_mask(tmp_path: Path, bbox: Any) -> None:
    rle = {"size": [40, 60], "counts": [80, 40, 2280]}
    path = write(
        tmp_path / "a.json",
        BOX | {"id": 1, "bbox": bbox},
        BOX | {"id": 2, "bbox": bbox, "segmentation": rle},
    )
    found = read(path)
    assert found.annotations["bbox"].to_pylist() == [[10, 10, 20, 20], [2, 0, 1, 40]]
    assert found.annotations["box_from_mask"].to_pylist() == [True, True]
    assert [problem.level for problem in find_problems(path, "cat")] == ["warning", "warning"]


@pytest.mark.parametrize(
    "nothing",
    [[[10, 10, 10, 10, 10, 10]], [[-60, -20, -50, -20, -50, -30]], [[1.2, 1.2, 1.3, 1.2, 1.3, 1.3]]],
)
def test_a_polygon_that_covers_no_pixel_is_no_mask(tmp_path: Path, nothing: Any) -> None:
    path = write(tmp_path / "a.json", BOX | {"id": 1, "segmentation": nothing})
    found = read(path)
    assert (found.has_mask().tolist(), found.counts["unusable_masks"]) == ([False], 1)
    assert found.annotations["source"].to_pylist() == ["none"]
    assert "covers no pixel" in str(find_problems(path, "cat")[0])


@pytest.mark.parametrize("far", [4294967295, -1e9, 1e9])
def test_a_vertex_far_outside_is_an_error_before_any_code_in_c(tmp_path: Path, far: float) -> None:
    path = write(tmp_path / "a.json", BOX | {"id": 1, "segmentation": [[8, 8, far, 8, 8, 24]]})
    with pytest.raises(DataError, match="annotation 1: segmentation: polygon leaves the image at"):
        read(path)


def test_an_outline_that_is_too_long_is_an_error_before_any_code_in_c(tmp_path: Path) -> None:
    zigzag = [value for y in range(600) for value in (-9_999, y % 48, 9_999, y % 48)]
    across = IMAGE | {"height": 30_000_000, "width": 30_000_000}
    bow_tie = [0, 0, 29_999_999, 29_999_999, 29_999_999, 0, 0, 29_999_999]
    for image, outline in ((IMAGE, zigzag), (across, bow_tie)):
        path = write(tmp_path / "a.json", BOX | {"id": 1, "segmentation": [outline]}, images=[image])
        with pytest.raises(DataError, match=r"annotation 1: segmentation: polygon has an outline of .* px"):
            read(path)


@pytest.mark.parametrize("odd", [[{}], [0], [None], [[10, 10], [40, 10], [40, 40]]])
def test_what_is_neither_a_mask_nor_nothing_is_refused(tmp_path: Path, odd: Any) -> None:
    with pytest.raises(DataError, match="annotation 1: segmentation"):
        read(write(tmp_path / "a.json", BOX | {"id": 1, "segmentation": odd}))


def test_a_source_that_another_tool_wrote_says_nothing_of_ours(tmp_path: Path) -> None:
    foreign = BOX | {"id": 1, "source": "teacher", "mask_score": 0.5}
    found = read(write(tmp_path / "a.json", foreign))
    assert found.annotations["source"].to_pylist() == ["human"]
    assert found.document()["annotations"] == [foreign]
    ours = read(write(tmp_path / "b.json", foreign, deepmac_distill={}))
    assert ours.annotations["source"].to_pylist() == ["teacher"]
    assert ours.document()["annotations"] == [foreign]


def test_a_byte_order_mark_and_the_slashes_of_windows_are_read_past(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", BOX | {"id": 1}, images=[IMAGE | {"file_name": "train\\a.jpg"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path).images["file_name"].to_pylist() == ["train/a.jpg"]


def test_names_are_found_in_any_unicode_form_and_two_names_for_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "caf\u00e9.jpg").touch()
    assert ImageFolder(tmp_path).locate("cafe\u0301.jpg").name == "caf\u00e9.jpg"
    assert ImageFolder(tmp_path).absent(["cafe\u0301.jpg", "x.jpg"]) == ["x.jpg"]
    (tmp_path / "f.jpg").touch()
    images = [IMAGE | {"id": i, "file_name": f"{part}/f.jpg"} for i, part in ((1, "train"), (2, "val"))]
    twice = read(write(tmp_path / "a.json", BOX | {"id": 1}, images=images))
    with pytest.raises(DataError, match=r"f.jpg: is both train/f.jpg and val/f.jpg"):
        images_sha256(twice, ImageFolder(tmp_path))


def test_turned_images_are_counted_named_in_errors_and_turned_on_request(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.tile(np.arange(120, dtype=np.uint8), 60).reshape(60, 40, 3)).save(
        tmp_path / "a.jpg", exif=exif
    )
    path = write(tmp_path / "a.json", BOX | {"id": 1})
    with pytest.raises(DataError, match=r'its EXIF orientation is 6, and data.exif = "apply" turns it'):
        ImageFolder(tmp_path).read_sized("a.jpg", 40, 60)
    turned = ImageFolder(tmp_path, "apply")
    assert turned.read_sized("a.jpg", 40, 60).shape == (3, 40, 60)
    [problem] = find_image_problems(read(path), turned)
    assert "1 images have an EXIF orientation other than 1" in problem.message


def test_sizes_that_the_file_lacks_come_from_the_images_where_they_are_given(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    path = write(tmp_path / "a.json", BOX | {"id": 1}, images=[{"id": 1, "file_name": "a.jpg"}])
    with pytest.raises(DataError, match="image 1: height null"):
        read(path)
    for _ in range(2):  # parsed, then from the cache
        found = read(path, sizes=ImageFolder(tmp_path))
        assert found.image_sizes().tolist() == [[40, 60]]
        assert found.counts["sizes_from_images"] == 1
    with pytest.raises(DataError, match="image 1: height null"):
        read(path, sizes=ImageFolder(tmp_path / "nowhere"))
    of_a_converter = {"id": 1, "file_name": "a.jpg", "height": 0, "width": 0}
    path = write(tmp_path / "b.json", BOX | {"id": 1}, images=[of_a_converter])
    assert read(path, sizes=ImageFolder(tmp_path)).image_sizes().tolist() == [[40, 60]]
    with pytest.raises(DataError, match="image 1: height 0"):
        read(path)
