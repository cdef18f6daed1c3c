from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.dataset import views
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import require_seen_masks
from deepmac_distill.errors import DataError
from small_coco import SQUARE, box, plain, read

# pycocotools.mask.decode predates numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


PHOTOS = Path(__file__).parents[3] / "shared" / "data"


def test_rows_are_sorted_by_image_and_annotation_whatever_the_file_says(tmp_path: Path) -> None:
    found = read(tmp_path, plain())
    assert found.images["image_id"].to_pylist() == [5, 7, 20]
    assert found.annotations["annotation_id"].to_pylist() == [2, 9, 3]
    assert found.rows_by_image().tolist() == [0, 2, 2, 3]
    assert found.class_index().tolist() == [0, 0, 1]
    assert found.boxes_xyxy().tolist() == [[10, 10, 30, 30]] * 3
    assert found.classes == Classes(("cat", "yak"), (17, 90), (True, False))
    assert found.counts == {
        "images": 3,
        "images_without_annotations": 1,
        "annotations": 3,
        "crowd": 0,
        "degenerate": 0,
        "clipped": 0,
        "human_masks": 1,
        "teacher_masks": 0,
        "without_mask": 2,
        "degenerate_polygon_parts": 0,
        "unusable_masks": 0,
        "hidden_masks": 1,
        "merged_images": 0,
        "sizes_from_images": 0,
        "images_of_one_file": 0,
        "dropped_categories": 0,
        "renumbered_annotations": 0,
        "numbered_ids": 0,
        "boxes_in_first_pixel": 0,
    }


def test_both_kinds_of_run_length_mask_decode_to_the_same_pixels(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), dtype=np.uint8, order="F")
    mask[12:25, 11:29] = 1
    compressed = coco_mask.encode(mask)
    flat = mask.ravel(order="F")
    plain_counts = np.diff(np.r_[0, np.flatnonzero(np.diff(flat)) + 1, flat.size]).tolist()
    document = plain(
        annotations=[
            box(1, segmentation={"size": [40, 60], "counts": compressed["counts"].decode()}),
            box(2, segmentation={"size": [40, 60], "counts": plain_counts}),
            box(3, segmentation={"size": [40, 60], "counts": plain_counts}, iscrowd=1),
        ]
    )
    found = read(tmp_path, document)
    for counts in found.annotations["rle_counts"].to_pylist():
        assert np.array_equal(coco_mask.decode({"size": [40, 60], "counts": counts}), mask)
    assert found.annotations["status"].to_pylist() == ["ok", "ok", "crowd"]
    assert found.annotations["iscrowd"].to_pylist() == [False, False, True]


@pytest.mark.parametrize("nothing", [None, [], [[]], {"size": [40, 60], "counts": [2400]}])
def test_a_mask_that_was_never_drawn_is_no_mask(tmp_path: Path, nothing: Any) -> None:
    found = read(tmp_path, plain(annotations=[box(1, segmentation=nothing)]))
    assert not found.has_mask().any()
    assert found.annotations["source"].to_pylist() == ["none"]


def test_polygons_of_many_parts_are_kept(tmp_path: Path) -> None:
    parts = [*SQUARE, [1, 1, 5, 1, 5, 5]]
    found = read(tmp_path, plain(annotations=[box(1, segmentation=parts)]))
    assert found.annotations["polygons"].to_pylist() == [parts]


LINE, TRIANGLE = [1.0, 1.0, 5.0, 1.0], [1.0, 1.0, 5.0, 1.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("parts", "kept", "dropped"),
    [
        ([LINE, *SQUARE], SQUARE, 1),
        ([*SQUARE, [], LINE, TRIANGLE, [1, 1]], [*SQUARE, TRIANGLE], 3),
        ([LINE], None, 1),
        ([LINE, []], None, 2),
        ([[]], None, 0),  # never drawn
    ],
)
def test_polygon_parts_without_three_points_are_dropped_and_counted(
    tmp_path: Path, parts: list[list[float]], kept: list[list[float]] | None, dropped: int
) -> None:
    document = plain(annotations=[box(1, segmentation=parts), box(2)])
    found = read(tmp_path, document)
    assert found.annotations["polygons"].to_pylist() == [kept, None]
    assert found.counts["degenerate_polygon_parts"] == dropped
    assert found.counts["unusable_masks"] == (kept is None and dropped > 0)
    assert found.counts["without_mask"] == (1 if kept else 2)
    assert found.has_mask().tolist() == found.has_human_mask().tolist() == [bool(kept), False]
    assert found.annotations["status"].to_pylist() == ["ok", "ok"]  # the teacher labels what has no mask
    if dropped:
        with pytest.raises(DataError, match=f"annotation 1: segmentation: {dropped} of {len(parts)} polygon"):
            read(tmp_path, document, strict=True)
    else:
        read(tmp_path, document, strict=True)


def test_a_run_length_mask_without_a_pixel_is_counted_as_unusable(tmp_path: Path) -> None:
    empty = {"size": [40, 60], "counts": [2400]}
    found = read(tmp_path, plain(annotations=[box(1, segmentation=empty), box(2)]))
    assert (found.counts["unusable_masks"], found.counts["degenerate_polygon_parts"]) == (1, 0)


@pytest.mark.parametrize("missing", [{"iscrowd": None}, {}])
def test_an_annotation_that_does_not_say_is_no_crowd(tmp_path: Path, missing: dict[str, Any]) -> None:
    annotation = box(1)
    del annotation["iscrowd"]
    found = read(tmp_path, plain(annotations=[annotation | missing]), strict=True)
    assert found.annotations["iscrowd"].to_pylist() == [False]
    assert found.annotations["status"].to_pylist() == ["ok"]


def test_boxes_only_and_empty_files_are_ordinary(tmp_path: Path) -> None:
    boxes_only = read(tmp_path, plain(annotations=[box(1), box(2)]))
    assert boxes_only.counts["without_mask"] == 2
    empty = read(tmp_path, plain(annotations=[]))
    assert empty.boxes_xyxy().shape == (0, 4)
    assert empty.class_index().shape == empty.has_mask().shape == (0,)
    assert empty.rows_by_image().tolist() == [0, 0, 0, 0]
    for nothing in (boxes_only, empty):
        with pytest.raises(DataError, match="no masks of the seen classes"):
            require_seen_masks(nothing)
    require_seen_masks(read(tmp_path, plain()))


def test_a_crowds_mask_is_nothing_to_teach_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no masks of the seen classes"):
        require_seen_masks(read(tmp_path, plain(annotations=[box(1, iscrowd=1, segmentation=SQUARE)])))


def test_lvis_has_urls_for_names_and_no_crowds(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/val2017/000000397133.jpg"
    image = {"id": 397133, "height": 40, "width": 60, "coco_url": url, "not_exhaustive_category_ids": [914]}
    annotation = box(1, image_id=397133, category_id=1203, segmentation=SQUARE, area=400.0)
    del annotation["iscrowd"]
    category = {"id": 1203, "name": "zucchini", "synset": "zucchini.n.01", "frequency": "r", "image_count": 1}
    found = read(tmp_path, {"images": [image], "annotations": [annotation], "categories": [category]}, "all")
    assert found.images["file_name"].to_pylist() == ["val2017/000000397133.jpg"]
    assert found.annotations["iscrowd"].to_pylist() == [False]
    assert found.class_index().tolist() == [0]


def test_boxes_without_area_stay_and_say_why(tmp_path: Path) -> None:
    boxes = {1: [3, 3, 0, 5], 2: [3, 3, 5, -1], 3: [60, 0, 4, 4], 4: [-9, 0, 4, 4], 5: [59.5, 39.5, 9, 9]}
    document = plain(annotations=[box(key, bbox=value) for key, value in boxes.items()])
    found = read(tmp_path, document)
    assert found.annotations["reason"].to_pylist() == [
        "has no area",
        "has no area",
        "is outside the image",
        "is outside the image",
        "",
    ]
    assert found.annotations["bbox"].to_pylist() == list(boxes.values())
    assert (found.counts["degenerate"], found.counts["clipped"]) == (4, 1)
    assert found.boxes_xyxy()[-1].tolist() == [59.5, 39.5, 60, 40]


def test_what_is_computed_some_rows_at_a_time_is_that_of_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = plain()
    document["annotations"][1]["bbox"] = [40, 20, 90, 90]  # over the edge
    at_once = read(tmp_path, document)
    monkeypatch.setattr(views, "_ROWS_AT_ONCE", 2)
    found = read(tmp_path, document)
    assert found.boxes_xyxy().tobytes() == at_once.boxes_xyxy().tobytes()
    assert found.counts == at_once.counts and found.counts["clipped"] == 1
    assert found.class_index(range(1, 3)).tolist() == found.class_index()[1:3].tolist()


def test_reading_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    document = plain()
    turned = {key: value[::-1] for key, value in copy.deepcopy(document).items()}
    assert read(tmp_path, document).fingerprint == read(tmp_path, turned).fingerprint


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.exists(), reason="the photographs are not here")
@pytest.mark.parametrize("name", ["coco80/instances_train.json", "coco-tiny/instances.json"])
def test_the_tables_hold_what_the_file_says(name: str) -> None:
    raw = json.loads((PHOTOS / name).read_bytes())
    found = Dataset.open(PHOTOS / name, seen="all", strict=True).for_training()
    by_id = {a["id"]: a for a in raw["annotations"]}
    sizes = {i["id"]: [i["height"], i["width"]] for i in raw["images"]}
    assert found.counts["annotations"] == len(by_id) == found.counts["human_masks"]
    for row in found.annotations.to_pylist():
        annotation = by_id[row["annotation_id"]]
        size, segmentation = sizes[row["image_id"]], annotation["segmentation"]
        assert (row["bbox"], row["area"]) == (annotation["bbox"], annotation["area"])
        if row["polygons"] is not None:
            assert row["polygons"] == segmentation
        elif isinstance(segmentation, list):  # it crosses itself
            code = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
            assert row["rle_counts"] == code["counts"]
        elif isinstance(segmentation["counts"], str):
            assert row["rle_counts"].decode() == segmentation["counts"]
        else:
            expected = coco_mask.decode(coco_mask.frPyObjects(segmentation, *size))
            assert np.array_equal(coco_mask.decode({"size": size, "counts": row["rle_counts"]}), expected)
