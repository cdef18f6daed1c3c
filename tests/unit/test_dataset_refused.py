from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError
from small_coco import SQUARE, box, plain, read

# pycocotools.mask.decode predates numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(("bbox", "accepted"), [([3, 3, 0, 5], 0), ([55, 0, 6.5, 4], 0), ([55, 0, 6, 4], 1)])
def test_strict_refuses_boxes_without_area_or_more_than_a_pixel_over_the_edge(
    tmp_path: Path, bbox: list[float], accepted: bool
) -> None:
    document = plain(annotations=[box(1, bbox=bbox)])
    read(tmp_path, document)
    if accepted:
        assert read(tmp_path, document, strict=True).counts["clipped"] == 1
    else:
        with pytest.raises(DataError, match="annotation 1: bbox"):
            read(tmp_path, document, strict=True)


BAD_ANNOTATIONS = [
    ({"bbox": None}, "bbox null: expected four finite numbers"),
    ({"bbox": [4, 5, "3", 3]}, 'bbox [4, 5, "3", 3]: expected four finite numbers'),
    ({"bbox": [4, 5, 3]}, "bbox [4, 5, 3]"),
    ({"bbox": [4, 5, float("nan"), 3]}, "bbox [4, 5, NaN, 3]"),
    ({"bbox": [4, 5, 10**400, 3]}, "expected four finite numbers"),
    ({"bbox": [4, 5, True, 3]}, "bbox [4, 5, true, 3]"),
    ({"image_id": 6}, "image_id 6: expected the id of an image"),
    ({"image_id": [5]}, "image_id [5]"),
    ({"category_id": 18}, "category_id 18: expected the id of a category"),
    ({"category_id": {}}, "category_id {}"),
    ({"iscrowd": 2}, "iscrowd 2: expected 0 or 1"),
    ({"area": "big"}, 'area "big": expected a finite number'),
    ({"segmentation": "x"}, 'segmentation "x": expected polygons or a run-length mask'),
    ({"segmentation": [[1, 2, 3]]}, "polygon of 3 numbers; expected an even count of at least 6"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "polygon of 7 numbers"),
    ({"segmentation": [*SQUARE, None]}, "polygon of null; expected an even count"),
    ({"segmentation": [[1, 2], [1, "2"]]}, 'polygon [1, "2"]; expected finite numbers'),
    (
        {"segmentation": [1, 2, 3, 4, 5, 6]},
        "a flat list of numbers, [1, 2, 3, 4, 5, 6]; expected [[x1, y1, x2, y2, ...], ...]",
    ),
    ({"segmentation": [[1, 2, 3, 4, 5, float("inf")]]}, "expected finite numbers"),
    ({"segmentation": {}}, "mask of size null; expected the image's [40, 60]"),
    ({"segmentation": {"size": [60, 40], "counts": [2400]}}, "mask of size [60, 40]"),
    ({"segmentation": {"size": [40, 60], "counts": None}}, "counts null"),
    ({"segmentation": {"size": [40, 60], "counts": [2399]}}, "cover the image's 2400 pixels"),
    ({"segmentation": {"size": [40, 60], "counts": [-1, 2401]}}, "cover the image's 2400 pixels"),
    ({"segmentation": {"size": [40, 60], "counts": [2**62] * 4 + [2400]}}, "cover the image's 2400"),
    ({"segmentation": {"size": [40, 60], "counts": []}}, "cover the image's 2400 pixels"),
    ({"segmentation": {"size": [40, 60], "counts": [1.5, 2398.5]}}, "counts [1.5, 2398.5]"),
    ({"segmentation": {"size": [40, 60], "counts": ""}}, 'counts ""'),
    ({"segmentation": {"size": [40, 60], "counts": "~~é"}}, 'counts "~~é"'),
    ({"segmentation": {"size": [40, 60], "counts": "PPPPPPPPPPPP1"}}, "counts"),
    ({"segmentation": {"size": [40, 60], "counts": "52203"}}, "cover the image's 2400 pixels"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ANNOTATIONS)
def test_a_bad_annotation_is_named_on_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, plain(annotations=[box(1), box(17, **change)]), "all")
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/instances.json: annotation 17: ")
    assert "\n" not in str(error.value)


IMAGE = {"id": 5, "file_name": "a.jpg", "height": 40, "width": 60}
CAT, OTHER = {"id": 17, "name": "cat"}, {"id": 18, "name": "cat"}


BAD_DOCUMENTS = [
    ([], "got list, expected a JSON object"),
    ({}, "images: got null, expected a list"),
    (plain(annotations=None), "annotations: got null, expected a list"),
    (plain(categories={}), "categories: got {}, expected a list"),
    (plain(categories=[]), "categories: got none, expected at least one"),
    (plain(annotations=[3]), "annotations[0]: got 3, expected an object"),
    (
        plain(categories=[CAT, OTHER], annotations=[box(1), box(2, category_id=18)]),
        'name "cat" is used twice',
    ),
    (plain(categories=[CAT, {"id": 17, "name": "yak"}]), "id 17 is used twice"),
    (plain(categories=[CAT, {"id": "18", "name": "yak"}]), 'id "18": expected a whole number'),
    (plain(categories=[{"id": 17}]), "name null: expected a word"),
    (plain(categories=[{"id": 17, "name": "dog"}]), 'seen class "cat": no such class'),
    (plain(images=[IMAGE, IMAGE | {"width": 61}]), "image 5: its id is used twice"),
    (plain(images=[IMAGE | {"id": 5.0}]), "images[0]: id 5.0: expected a whole number"),
    (plain(images=[IMAGE | {"height": 0}]), "image 5: height 0: expected a whole number > 0"),
    (plain(images=[IMAGE | {"width": 60.0}]), "image 5: width 60.0: expected a whole number > 0"),
    (plain(images=[{"id": 5, "file_name": "a.jpg", "width": 60}]), "height null"),
    (plain(images=[IMAGE | {"file_name": None}]), "file_name null"),
    (plain(images=[IMAGE | {"file_name": "/etc/passwd"}]), 'file_name "/etc/passwd": expected a path inside'),
    (plain(images=[IMAGE | {"file_name": "x/../../a.jpg"}]), "expected a path inside the image folder"),
    (plain(images=[IMAGE | {"file_name": "C:\\a.jpg"}]), "expected a path inside the image folder"),
    (plain(images=[IMAGE | {"file_name": "..\\a.jpg"}]), "expected a path inside the image folder"),
    (plain(images=[IMAGE | {"file_name": "\\\\host\\a.jpg"}]), "expected a path inside the image folder"),
    (plain(annotations=[box(1), box(2) | {"id": "1"}]), 'annotation "1": id "1": expected a whole number'),
]


@pytest.mark.parametrize(("document", "message"), BAD_DOCUMENTS)
def test_a_bad_file_is_named_on_one_line(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, document)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/instances.json: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match="not JSON"):
        Dataset.open(tmp_path / "a.json", seen="all").for_training()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "a.json", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            Dataset.open(path, seen="all").for_training()
