from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.inference import DetectedObjects, SegmentedBoxes
from deepmac_distill.labels.cut import DEFAULT_CUT, Cut
from deepmac_distill.labels.describe import (
    coco_results,
    given_box_masks,
    label_unit,
)
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.table import label_writer

HEIGHT, WIDTH = 20, 30
TRIANGLE = [2, 2, 12, 2, 2, 12]
RLE = {"size": [HEIGHT, WIDTH], "counts": [0, 40, HEIGHT * WIDTH - 40]}  # the first two columns
HUMAN, CROWD, LEFT, OVER, FLAT, HIDDEN_CROWD, LOST, LOST_HUMAN = 3, 4, 5, 6, 7, 8, 9, 10


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    def row(id: int, category: int, bbox: list[float], image: int = 1, **more: Any) -> dict[str, Any]:
        return {"id": id, "image_id": image, "category_id": category, "bbox": bbox, **more}

    rows = [
        row(LOST, 2, [0, 0, 5, 5], image=2),
        row(LOST_HUMAN, 1, [2, 2, 10, 10], image=2, segmentation=[TRIANGLE]),
        row(HUMAN, 1, [2, 2, 10, 10], segmentation=[TRIANGLE], area=50),
        row(CROWD, 1, [0, 0, 2, 20], segmentation=RLE, iscrowd=1),
        row(LEFT, 2, [4, 4, 8, 8], segmentation=[[0, 0, 9, 0, 9, 9]]),
        row(OVER, 2, [26, 16, 8, 8]),  # the image ends after 4 px of it, both ways
        row(FLAT, 2, [4, 4, 0, 8]),
        row(HIDDEN_CROWD, 2, [0, 0, 5, 5], segmentation=RLE, iscrowd=1),
    ]
    images = [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in (1, 2, 3)]
    raw = {
        "images": images,
        "annotations": rows,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(raw))
    return Dataset.open(tmp_path / "a.json", seen=["a"]).for_training()


def grid(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, np.uint8)


LEFT_HALF = grid([[255, 255, 0, 0]] * 4)  # cells of 2 px on LEFT's box: its first 4 columns
SLOPE = grid([[250, 200, 100, 20]] * 4)


def masks_of(**grids: np.ndarray) -> list[SegmentedBoxes]:
    """One batch for each annotation, `_5` of id 5; the ids of the fixture are 3 to 10, rows from 0."""
    return [segmented([int(name[1:]) - 3], grid[None]) for name, grid in grids.items()]


def segmented(rows: list[int], grids: np.ndarray, answered: bool = True) -> SegmentedBoxes:
    return SegmentedBoxes(np.array(rows, np.int64), grids, np.full(len(rows), answered))


def labeled(annotations: Annotations, keep_soft: bool = True, left: np.ndarray = LEFT_HALF) -> pa.Table:
    masks = masks_of(_5=left, _6=np.full((4, 4), 255, np.uint8), _3=np.zeros((4, 4), np.uint8))
    rows = range(0, len(annotations.annotations))
    unreadable = {2: "2.png: truncated"}
    return label_unit(
        annotations, rows, masks, unreadable, keep_soft=keep_soft, probabilities=True, lattice="centers"
    )


def recut_at(labels: pa.Table, cut: Cut, tmp_path: Path) -> pa.Table:
    with label_writer(tmp_path / "masks.parquet", {}) as writer:
        writer.write(labels)
    return (
        Labels.open(tmp_path / "masks.parquet").with_cut(cut).table.drop_columns(["quality", "quality_low"])
    )


def row_of(labels: pa.Table, id: int) -> dict[str, Any]:
    (row,) = [row for row in labels.to_pylist() if row["annotation_id"] == id]
    return row


def decoded(row: dict[str, Any]) -> np.ndarray:
    return coco_mask.decode({"size": [row["height"], row["width"]], "counts": row["rle_counts"]}).astype(bool)


def test_every_box_has_a_row_in_the_order_of_image_and_annotation(annotations: Annotations) -> None:
    labels = labeled(annotations)
    assert labels["annotation_id"].to_pylist() == [3, 4, 5, 6, 7, 8, 9, 10]
    assert labels["image_id"].to_pylist() == [1] * 6 + [2] * 2
    assert row_of(labels, OVER)["bbox"] == [26, 16, 8, 8]  # as in the source, not clipped
    assert {(row["height"], row["width"]) for row in labels.to_pylist()} == {(HEIGHT, WIDTH)}


@pytest.mark.parametrize(
    ("id", "source", "status", "reason"),
    [
        (HUMAN, "human", "labeled", ""),
        (CROWD, "human", "crowd", "iscrowd is 1"),
        (LEFT, "teacher", "labeled", ""),
        (FLAT, "none", "degenerate", "has no area"),
        (HIDDEN_CROWD, "none", "crowd", "iscrowd is 1"),
        (LOST, "none", "unreadable image", "2.png: truncated"),
        (LOST_HUMAN, "human", "labeled", ""),
    ],
)
def test_a_row_says_who_drew_its_mask_or_why_nobody_did(
    annotations: Annotations, id: int, source: str, status: str, reason: str
) -> None:
    row = row_of(labeled(annotations), id)
    assert (row["source"], row["status"], row["reason"]) == (source, status, reason)
    assert (row["rle_counts"] is None) == (source == "none")


def test_a_mask_lies_where_its_cells_say(annotations: Annotations) -> None:
    row = row_of(labeled(annotations), LEFT)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[4:12, 4:8] = True
    assert np.array_equal(decoded(row), expected)
    assert (row["mask_area"], row["mask_score"]) == (32, 1.0)
    assert row["mask_bbox_iou"] == pytest.approx(0.5)  # the tight box is half of the given one
    assert (row["soft_size"], row["soft_lattice"], row["soft"]) == (4, "centers", LEFT_HALF.tobytes())


def test_a_box_over_the_edge_is_filled_where_the_image_is(annotations: Annotations) -> None:
    row = row_of(labeled(annotations), OVER)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[16:20, 26:30] = True
    assert np.array_equal(decoded(row), expected)
    assert row["mask_bbox_iou"] == pytest.approx(16 / 64)  # against the box as given


def test_a_human_mask_is_kept_whatever_the_teacher_drew(annotations: Annotations) -> None:
    labels = labeled(annotations)
    polygon = coco_mask.frPyObjects([TRIANGLE], HEIGHT, WIDTH)[0]
    for id, rle in ((HUMAN, polygon), (CROWD, coco_mask.frPyObjects(RLE, HEIGHT, WIDTH))):
        row = row_of(labels, id)
        assert row["rle_counts"] == rle["counts"] and row["mask_area"] == coco_mask.area(rle)
        assert row["soft"] is row["soft_size"] is row["mask_score"] is row["mask_bbox_iou"] is None


SOFT = ["soft", "soft_size", "soft_lattice"]


def test_soft_grids_are_left_out_on_request(annotations: Annotations, tmp_path: Path) -> None:
    hard, soft = labeled(annotations, keep_soft=False), labeled(annotations)
    assert hard["soft"].null_count == hard["soft_size"].null_count == len(hard)
    assert hard.drop_columns(SOFT) == soft.drop_columns(SOFT)
    assert recut_at(hard, 0.5, tmp_path) == hard.drop_columns(["soft"])
    with pytest.raises(DataError, match="annotation 5: soft: got None, expected a soft grid for another cut"):
        recut_at(hard, 0.4, tmp_path)


def test_units_together_are_the_whole_and_an_empty_one_has_no_rows(annotations: Annotations) -> None:
    masks = masks_of(_5=LEFT_HALF, _6=LEFT_HALF)
    options = {"keep_soft": True, "probabilities": True, "lattice": "centers"}
    parts = [
        label_unit(annotations, rows, some, {}, **options)
        for rows, some in ((range(3), masks[:1]), (range(3, 3), []), (range(3, 8), masks[1:]))
    ]
    assert [len(part) for part in parts] == [3, 0, 5]
    assert pa.concat_tables(parts) == label_unit(annotations, range(8), masks, {}, **options)


def test_a_unit_in_which_the_teacher_drew_nothing_still_has_its_rows(annotations: Annotations) -> None:
    nothing = label_unit(annotations, range(2), [], {}, keep_soft=True, probabilities=True, lattice="centers")
    assert nothing["source"].to_pylist() == ["human", "human"]


def test_an_empty_mask_is_a_row_without_a_pixel(annotations: Annotations) -> None:
    row = row_of(labeled(annotations, left=np.zeros((4, 4), np.uint8)), LEFT)
    assert (row["source"], row["mask_area"], row["mask_score"], row["mask_bbox_iou"]) == ("teacher", 0, 0, 0)


def pasted(grid: np.ndarray, box: list[float]) -> np.ndarray:
    """Probability at every pixel center by torch's grid sampling: (HEIGHT, WIDTH) float64."""
    x1, y1, x2, y2 = box
    y, x = torch.meshgrid(
        (torch.arange(HEIGHT).double() + 0.5 - y1) / (y2 - y1) * 2 - 1,
        (torch.arange(WIDTH).double() + 0.5 - x1) / (x2 - x1) * 2 - 1,
        indexing="ij",
    )
    cells = torch.from_numpy(grid / 255)[None, None]
    where = torch.stack([x, y], -1)[None]
    sampled = F.grid_sample(cells, where, align_corners=False, padding_mode="zeros")[0, 0]
    inside = (x.abs() <= 1) & (y.abs() <= 1)
    return torch.where(inside, sampled, 0).numpy()


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 0.9])
def test_another_threshold_gives_the_masks_that_labeling_at_it_would_have_given(
    annotations: Annotations, tmp_path: Path, threshold: float
) -> None:
    labels = labeled(annotations, left=SLOPE)
    again = recut_at(labels, threshold, tmp_path)
    row = row_of(again, LEFT)
    expected = pasted(SLOPE, [4, 4, 12, 12]) > threshold
    assert np.array_equal(decoded(row), expected)
    assert row["mask_area"] == expected.sum() > 0
    inside = SLOPE[threshold < SLOPE / 255]
    assert row["mask_score"] == pytest.approx(inside.mean() / 255)
    for name in ("annotation_id", "bbox", "source", "status", "reason", "soft_size"):
        assert again[name] == labels[name]
    assert row["cut"] == np.float32(threshold)
    assert row_of(again, HUMAN) == row_of(
        labels.drop_columns(["soft"]), HUMAN
    )  # a person's mask has no threshold


def test_the_stored_threshold_changes_nothing(annotations: Annotations, tmp_path: Path) -> None:
    labels = labeled(annotations, left=SLOPE)
    assert recut_at(labels, DEFAULT_CUT, tmp_path) == labels.drop_columns(["soft"])


def test_each_mask_is_cut_at_its_own_best_when_read(annotations: Annotations, tmp_path: Path) -> None:
    labels = labeled(annotations, left=SLOPE)
    again = recut_at(labels, "expected-iou", tmp_path)
    row = row_of(again, LEFT)
    best = (250 + 200) / (2 * 255 + 100 + 20)  # of columns of four equal cells, the two largest
    assert row["expected_iou"] == pytest.approx(best) and row["cut"] == pytest.approx(best / (1 + best))
    assert np.array_equal(decoded(row), pasted(SLOPE, [4, 4, 12, 12]) > row["cut"])
    assert row["mask_score"] == pytest.approx((250 + 200) / 2 / 255)
    assert row_of(again, HUMAN) == row_of(labels.drop_columns(["soft"]), HUMAN)
    # What is cut so already is not cut again: no grids are needed for it, as they are for a number.
    without = again.append_column("soft", pa.nulls(len(again), pa.binary())).select(labels.schema.names)
    without = without.cast(labels.schema)
    assert recut_at(without, "expected-iou", tmp_path) == again
    with pytest.raises(DataError, match="soft: got None, expected a soft grid for another cut"):
        recut_at(without, 0.5, tmp_path)


def test_grids_that_are_no_probabilities_stay_where_they_were_cut(
    annotations: Annotations, tmp_path: Path
) -> None:
    hard = label_unit(
        annotations, range(8), masks_of(_5=SLOPE), {}, keep_soft=False, probabilities=False, lattice="centers"
    )
    assert recut_at(hard, "expected-iou", tmp_path) == hard.drop_columns(["soft"])


def test_there_and_back_again_is_where_it_was(annotations: Annotations, tmp_path: Path) -> None:
    labels = labeled(annotations, left=SLOPE)
    cuts: tuple[Cut, ...] = (0.3, 0.5, "expected-iou")
    for cut in cuts:
        again = recut_at(labels, cut, tmp_path)
        both = again.append_column("soft", labels["soft"]).select(labels.schema.names).cast(labels.schema)
        assert recut_at(both, DEFAULT_CUT, tmp_path) == labels.drop_columns(["soft"])


def test_the_expected_iou_is_the_share_of_the_probabilities_that_the_mask_holds(
    annotations: Annotations,
) -> None:
    row = row_of(labeled(annotations, left=SLOPE), LEFT)
    inside, outside = (250 + 200) * 4 / 255, (100 + 20) * 4 / 255
    assert row["expected_iou"] == pytest.approx(inside / (8 + outside))
    assert row_of(labeled(annotations), LEFT)["expected_iou"] == 1.0
    assert row_of(labeled(annotations), HUMAN)["expected_iou"] is None
    hard = label_unit(
        annotations, range(8), masks_of(_5=SLOPE), {}, keep_soft=True, probabilities=False, lattice="centers"
    )
    assert hard["expected_iou"].null_count == 8  # a grid that is no probability


def test_a_row_needs_no_join(annotations: Annotations) -> None:
    rows = [row_of(labeled(annotations), id) for id in (LEFT, LOST_HUMAN)]
    assert [(row["file_name"], row["category_name"]) for row in rows] == [("1.png", "b"), ("2.png", "a")]


def test_a_box_that_the_teacher_does_not_answer_has_a_row_that_says_so(annotations: Annotations) -> None:
    batches = [*masks_of(_6=LEFT_HALF), segmented([LEFT - 3], LEFT_HALF[None], answered=False)]
    rows = range(len(annotations.annotations))
    labels = label_unit(annotations, rows, batches, {}, keep_soft=True, probabilities=True, lattice="centers")
    row = row_of(labels, LEFT)
    assert (row["source"], row["status"], row["reason"]) == ("none", "unanswered", "the teacher gave no mask")
    assert row["rle_counts"] is None and row["soft"] is None and row["mask_score"] is None
    given = given_box_masks(annotations, batches, lattice="centers")
    assert given["annotation_id"].to_pylist() == [6]


def test_the_teacher_s_own_estimate_stands_in_its_row(annotations: Annotations) -> None:
    estimate = np.array([0.75], np.float32)
    batches = [
        SegmentedBoxes(np.array([LEFT - 3]), LEFT_HALF[None], np.array([True]), estimate),
        *masks_of(_6=LEFT_HALF),
    ]
    rows = range(len(annotations.annotations))
    labels = label_unit(
        annotations, rows, batches, {}, keep_soft=True, probabilities=False, lattice="centers"
    )
    assert row_of(labels, LEFT)["model_iou"] == 0.75 and row_of(labels, LEFT)["expected_iou"] is None
    assert row_of(labels, 6)["model_iou"] is None and row_of(labels, 3)["model_iou"] is None


def test_masks_in_given_boxes_are_found_by_row(annotations: Annotations) -> None:
    batches = [segmented([OVER - 3, LEFT - 3], np.stack([np.full((4, 4), 255, np.uint8), LEFT_HALF]))]
    table = given_box_masks(
        annotations, [*batches, segmented([], np.zeros((0, 4, 4), np.uint8))], lattice="centers"
    )
    labels = labeled(annotations)
    assert table.to_pylist() == [
        {"row": id - 3, "annotation_id": id, "rle_counts": row_of(labels, id)["rle_counts"]}
        for id in (OVER, LEFT)
    ]


def test_detections_become_coco_results_at_the_size_of_their_image(annotations: Annotations) -> None:
    found = DetectedObjects(
        image_ids=np.array([2, 1]),
        boxes_fraction=np.array([[3 / 30, 4 / 20, 11 / 30, 12 / 20], [0, 0, 1, 1]]),
        class_index=np.array([1, 0]),
        scores=np.array([0.75, 0.5], np.float32),
        grids=np.stack([LEFT_HALF, np.zeros((4, 4), np.uint8)]),
    )
    first, second = coco_results(annotations, [found], lattice="centers")
    assert (first["image_id"], first["category_id"], first["score"]) == (2, 2, 0.75)
    assert first["bbox"] == [3, 4, 8, 8] and second["bbox"] == [0, 0, 30, 20]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[4:12, 3:7] = True
    assert np.array_equal(coco_mask.decode(first["segmentation"]).astype(bool), expected)
    assert coco_mask.area(second["segmentation"]) == 0
    json.dumps([first, second])
