from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation import mask_iou
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA, given_box_ious, with_names

HEIGHT, WIDTH = 20, 30


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def rle(rows: slice, columns: slice) -> bytes:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[rows, columns] = 1
    return coco_mask.encode(mask)["counts"]


@pytest.fixture
def truth(tmp_path: Path) -> Annotations:
    box = [4.0, 4.0, 10.0, 10.0]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": square(4, 4, 10)},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": box, "segmentation": square(4, 4, 5)},
        {
            "id": 3,
            "image_id": 2,
            "category_id": 2,
            "bbox": box,
            "segmentation": square(4, 4, 10),
            "iscrowd": 0,
        },
        {"id": 4, "image_id": 2, "category_id": 1, "bbox": box},
        {
            "id": 5,
            "image_id": 2,
            "category_id": 1,
            "bbox": box,
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle(slice(4, 14), slice(4, 14)).decode()},
        },
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in (1, 2)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    for annotation in annotations:
        annotation.setdefault("iscrowd", 0)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return Dataset.open(path, seen="cat").for_evaluation()


def predictions(counts: dict[int, bytes | None]) -> pa.Table:
    """Masks by annotation id; annotation 1 is row 0."""
    rows, values = pa.array([i - 1 for i in counts], pa.int64()), pa.array(list(counts.values()), pa.binary())
    return pa.table({"row": rows, "rle_counts": values})


def test_iou_is_intersection_over_union_in_image_pixels(truth: Annotations) -> None:
    left_half = rle(slice(4, 14), slice(4, 9))
    ious = given_box_ious(truth, predictions({1: left_half, 2: left_half, 3: left_half}))
    assert ious.schema == IOU_SCHEMA
    assert ious["row"].to_pylist() == [0, 1, 2]
    assert ious["annotation_id"].to_pylist() == [1, 2, 3]  # not the one without a mask, not the crowd
    assert ious["area"].to_pylist() == [100, 25, 100]
    assert ious["outside_box"].to_pylist() == [0, 0, 0]
    assert ious["iou"].to_pylist() == [50 / 100, 25 / 50, 50 / 100]
    assert ious["box_baseline_iou"].to_pylist() == [1.0, 0.25, 1.0]
    # Boundaries are a pixel wide here: 26 pixels of the half, 36 of the whole square, 18 of both.
    assert ious["boundary_iou"].to_pylist()[::2] == [18 / (26 + 36 - 18)] * 2
    assert ious["box_boundary_iou"].to_pylist()[::2] == [1.0, 1.0]


def test_rows_that_are_kept_name_their_image_and_class(truth: Annotations) -> None:
    ious = with_names(truth, given_box_ious(truth, predictions({1: None})))
    assert ious.column_names == [*IOU_SCHEMA.names, "file_name", "category_name"]
    entries = {one["id"]: one for one in truth.document()["annotations"]}
    files = {one["id"]: one["file_name"] for one in truth.document()["images"]}
    named = {one["id"]: one["name"] for one in truth.document()["categories"]}
    for row in ious.to_pylist():
        entry = entries[row["annotation_id"]]
        assert row["file_name"] == files[entry["image_id"]]
        assert row["category_name"] == named[entry["category_id"]]


def test_missing_prediction_counts_zero_and_keeps_its_baselines(truth: Annotations) -> None:
    ious = given_box_ious(truth, predictions({2: None}))
    assert ious["iou"].to_pylist() == ious["boundary_iou"].to_pylist() == [0.0, 0.0, 0.0]
    assert ious["box_baseline_iou"].to_pylist() == [1.0, 0.25, 1.0]
    assert 0.74 < ious["ellipse_iou"][0].as_py() < 0.82  # a disk fills pi / 4 of its square


def test_no_predictions_at_all_is_ordinary(truth: Annotations) -> None:
    assert given_box_ious(truth, predictions({}))["iou"].to_pylist() == [0.0, 0.0, 0.0]


def test_order_of_predictions_and_chunking_do_not_matter(
    truth: Annotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = {i: rle(slice(4, 4 + i), slice(4, 9)) for i in (3, 1, 5, 2, 4)}
    whole = given_box_ious(truth, predictions(masks))
    monkeypatch.setattr(mask_iou, "ROWS_AT_ONCE", 2)
    assert given_box_ious(truth, predictions(dict(sorted(masks.items())))).equals(whole)


@pytest.mark.parametrize("row", [-1, 5])
def test_mask_of_an_unknown_row_is_refused_by_its_number(truth: Annotations, row: int) -> None:
    with pytest.raises(DataError, match=rf"truth\.json: predicted mask of row {row}, expected a row below 5"):
        given_box_ious(truth, predictions({row + 1: None}))


def test_two_masks_for_one_row_are_refused_by_its_number(truth: Annotations) -> None:
    twice = pa.concat_tables([predictions({1: None, 2: None}), predictions({2: None})])
    with pytest.raises(DataError, match=r"masks of row 1: got more than one, expected one"):
        given_box_ious(truth, twice)


def test_truth_outside_the_given_box_is_counted(tmp_path: Path) -> None:
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]  # 10 x 10 px, of which the box below holds the left half
    raw = {
        "deepmac_distill": {"schema": 2},  # our own file, whose sources are believed
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 20}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {
                "id": i,
                "image_id": 1,
                "category_id": 1,
                "bbox": [2, 2, 5, 10],
                "segmentation": square,
                "source": who,
            }
            for i, who in ((1, "human"), (2, "teacher"))
        ],
    }
    (tmp_path / "loose.json").write_text(json.dumps(raw), encoding="utf-8")
    ious = given_box_ious(Dataset.open(tmp_path / "loose.json", seen="all").for_training(), predictions({}))
    assert ious["annotation_id"].to_pylist() == [1]  # a teacher's mask is no truth
    assert ious["outside_box"].to_pylist() == [50]
