from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.stages.sheet import EvaluatedMasks, Sheet, draw_sheet, worst_median_best

SIDE = 300
FLOOR = "ellipse in it: IoU 0.60"
LARGE, SMALL = 40, 31  # sides of boxes on either side of the limit of 32 x 32 px


def places(values: list[float], each: int) -> list[tuple[str, int, int]]:
    return [(pick.place, pick.rank, pick.index) for pick in worst_median_best(values, each)]


def test_one_of_each_of_five() -> None:
    assert places([0.9, 0.1, 0.4, 0.7, 0.5], 1) == [("worst", 1, 1), ("median", 3, 4), ("best", 5, 0)]


def test_of_two_middles_the_lower_one() -> None:
    assert places([0.4, 0.3, 0.2, 0.1], 1) == [("worst", 1, 3), ("median", 2, 2), ("best", 4, 0)]


def test_two_of_each_are_the_two_at_either_end_and_the_two_in_the_middle() -> None:
    assert places([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 2) == [
        *[("worst", 1, 7), ("worst", 2, 6)],
        *[("median", 4, 4), ("median", 5, 3)],
        *[("best", 7, 1), ("best", 8, 0)],
    ]


def test_equal_values_rank_as_they_are_given() -> None:
    assert places([0.5, 0.5, 0.5, 0.0, 0.0], 1) == [("worst", 1, 3), ("median", 3, 0), ("best", 5, 2)]


@pytest.mark.parametrize(
    ("values", "each", "found"),
    [
        ([], 1, []),
        ([0.3], 1, [("worst", 1, 0)]),
        ([0.3, 0.2], 5, [("worst", 1, 1), ("best", 2, 0)]),
        ([0.3, 0.2, 0.1], 5, [("worst", 1, 2), ("median", 2, 1), ("best", 3, 0)]),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 2, [("worst", 1, 4), ("median", 3, 2), ("best", 5, 0)]),
    ],
)
def test_too_few_values_give_fewer_of_each_and_none_twice(
    values: list[float], each: int, found: list[tuple[str, int, int]]
) -> None:
    assert places(values, each) == found


@given(st.lists(st.floats(0, 1), min_size=3, max_size=40), st.integers(1, 15))
def test_places_are_what_they_say(values: list[float], each: int) -> None:
    picks = worst_median_best(values, each)
    each = min(each, len(values) // 3)
    assert [pick.place for pick in picks] == ["worst"] * each + ["median"] * each + ["best"] * each
    assert len({pick.index for pick in picks}) == 3 * each
    assert [values[pick.index] for pick in picks] == [sorted(values)[pick.rank - 1] for pick in picks]
    assert (len(values) + 1) // 2 in [pick.rank for pick in picks if pick.place == "median"]
    assert picks[0].rank == 1 and picks[-1].rank == len(values)


def annotation_set(
    folder: Path, objects: list[tuple[int, str, int]], seen: tuple[str, ...] = ("cat",)
) -> Annotations:
    """Two black images, and on them one square figure for each (image, class, side), side by side."""
    names, annotations = ("bird", "cat", "dog"), []
    for id, (image, name, side) in enumerate(objects, start=1):
        x, y = 45 * ((id - 1) % 6), 60 * ((id - 1) // 6)
        corners = [x, y, x + side, y, x + side, y + side, x, y + side]
        annotations.append(
            {
                "id": id,
                "image_id": image,
                "category_id": 1 + names.index(name),
                "bbox": [x, y, side, side],
                "area": side**2,
                "iscrowd": 0,
                "segmentation": [corners],
            }
        )
    for image in (1, 2):
        Image.new("RGB", (SIDE, SIDE), (0, 0, 60 * image)).save(folder / f"{image}.png")
    raw = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": 1 + label, "name": name} for label, name in enumerate(names)],
    }
    (folder / "instances.json").write_text(json.dumps(raw))
    return Dataset.open(folder / "instances.json", seen=seen).for_evaluation()


def evaluated(truth: Annotations, ious: dict[int, float]) -> EvaluatedMasks:
    """An empty mask for each annotation id with an IoU."""
    counts = coco_mask.encode(np.zeros((SIDE, SIDE), np.uint8, order="F"))["counts"]
    row_of = {id: row for row, id in enumerate(truth.annotations["annotation_id"].to_pylist())}
    rows = pa.array([row_of[id] for id in ious], pa.int64())
    masks = pa.table({"row": rows, "rle_counts": pa.array([counts] * len(rows), pa.binary())})
    measured = {"iou": pa.array(ious.values(), pa.float64()), "ellipse_iou": pa.array([0.6] * len(rows))}
    return EvaluatedMasks.of(truth, masks, pa.table({"row": rows, **measured}))


def captions(sheet: Sheet) -> list[str]:
    return [row.caption for row in sheet.rows]


def test_each_model_has_its_worst_median_and_best_unseen_mask_and_small_boxes_are_left_out(
    tmp_path: Path,
) -> None:
    objects = [
        *[(1, "bird", LARGE), (1, "bird", SMALL), (1, "cat", LARGE)],
        *[(2, "dog", LARGE), (2, "bird", LARGE), (2, "dog", SMALL)],
    ]
    truth = annotation_set(tmp_path, objects)
    found = {
        "teacher": evaluated(truth, {1: 0.5, 2: 0.0, 3: 0.1, 4: 0.25, 5: 0.75, 6: 1.0}),
        "student": evaluated(truth, {1: 0.9, 2: 0.0, 3: 0.1, 4: 0.7, 5: 0.8, 6: 1.0}),
    }
    sheet = draw_sheet(truth, ImageFolder(tmp_path), found, each=1)
    assert captions(sheet) == [
        "teacher: worst, rank 1 of 3 unseen masks by IoU: dog",
        "teacher: median, rank 2 of 3 unseen masks by IoU: bird",
        "teacher: best, rank 3 of 3 unseen masks by IoU: bird",
        "student: worst, rank 1 of 3 unseen masks by IoU: dog",
        "student: median, rank 2 of 3 unseen masks by IoU: bird",
        "student: best, rank 3 of 3 unseen masks by IoU: bird",
    ]
    notes = [[panel.note for panel in row.columns.values()] for row in sheet.rows]
    assert notes[:3] == [
        [FLOOR, "", "IoU 0.25", "IoU 0.70"],
        [FLOOR, "", "IoU 0.50", "IoU 0.90"],
        [FLOOR, "", "IoU 0.75", "IoU 0.80"],
    ]
    assert notes[3:] == [notes[0], notes[2], notes[1]]
    assert sheet.note.endswith("unseen classes, boxes of 1024 px and more")


def test_a_row_shows_one_object_with_its_box_and_truth_on_its_image(tmp_path: Path) -> None:
    truth = annotation_set(tmp_path, [(1, "bird", LARGE), (1, "dog", LARGE), (2, "dog", LARGE)])
    sheet = draw_sheet(
        truth, ImageFolder(tmp_path), {"teacher": evaluated(truth, {1: 0.6, 2: 0.5, 3: 0.1})}, each=1
    )
    for row, id in zip(sheet.rows, (3, 2, 1), strict=True):
        assert list(row.columns) == ["given box", "truth", "teacher"]
        image = 2 if id == 3 else 1
        assert row.columns["given box"].note == FLOOR
        assert row.image.shape == (SIDE, SIDE, 3) and (row.image[..., 2] == 60 * image).all()
        (given,), (true,), (found,) = (panel.overlays for panel in row.columns.values())
        x = 45 * (id - 1)
        assert given.box == (x, 0, x + LARGE, LARGE) and given.counts is None
        area = coco_mask.area({"size": [SIDE, SIDE], "counts": true.counts})
        assert area == LARGE**2 and true.box is None
        assert coco_mask.area({"size": [SIDE, SIDE], "counts": found.counts}) == 0  # the model's own
        left, top, right, bottom = row.window
        assert left <= x and top <= 0 and right >= x + LARGE and bottom >= LARGE and right - left < SIDE / 2


def test_of_any_number_of_models_each_is_ranked_by_its_own_iou(tmp_path: Path) -> None:
    truth = annotation_set(tmp_path, [(1, "bird", LARGE)] * 2 + [(2, "dog", LARGE)] * 4)
    rising = {id: id / 10 for id in range(1, 7)}
    found = {
        "teacher": evaluated(truth, rising),
        "student, half": evaluated(truth, {id: 1 - iou for id, iou in rising.items()}),
        "student, all": evaluated(truth, dict.fromkeys(rising, 0.5)),
    }
    sheet = draw_sheet(truth, ImageFolder(tmp_path), found, each=2)
    assert len(sheet.rows) == 18
    shown = [row.columns["given box"].overlays[0].box[0] / 45 for row in sheet.rows]  # which object, from 0
    assert shown == [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5]
    assert captions(sheet)[7] == "student, half: worst, rank 2 of 6 unseen masks by IoU: dog"


def test_where_no_unseen_box_is_large_all_unseen_ones_are_ranked(tmp_path: Path) -> None:
    truth = annotation_set(tmp_path, [(1, "bird", SMALL), (1, "cat", LARGE)])
    sheet = draw_sheet(truth, ImageFolder(tmp_path), {"teacher": evaluated(truth, {1: 0.5, 2: 0.1})}, each=1)
    assert captions(sheet) == ["teacher: worst, rank 1 of 1 unseen masks by IoU: bird"]
    assert sheet.note.endswith("unseen classes, boxes of any size")


def test_where_every_class_is_seen_all_are_ranked_and_none_is_called_unseen(tmp_path: Path) -> None:
    truth = annotation_set(tmp_path, [(1, "bird", LARGE), (1, "cat", LARGE)], seen=("all",))
    sheet = draw_sheet(truth, ImageFolder(tmp_path), {"teacher": evaluated(truth, {1: 0.5, 2: 0.1})}, each=1)
    assert captions(sheet) == [
        "teacher: worst, rank 1 of 2 masks by IoU: cat",
        "teacher: best, rank 2 of 2 masks by IoU: bird",
    ]
    assert "all classes" in sheet.note and "unseen" not in sheet.note


def test_an_object_on_which_not_every_model_was_evaluated_is_not_ranked(tmp_path: Path) -> None:
    truth = annotation_set(tmp_path, [(1, "bird", LARGE), (1, "dog", LARGE)])
    found = {"teacher": evaluated(truth, {1: 0.5, 2: 0.1}), "student": evaluated(truth, {1: 0.5})}
    assert captions(draw_sheet(truth, ImageFolder(tmp_path), found, each=1)) == [
        "teacher: worst, rank 1 of 1 unseen masks by IoU: bird",
        "student: worst, rank 1 of 1 unseen masks by IoU: bird",
    ]
    assert (
        draw_sheet(
            truth, tmp_path, {"teacher": evaluated(truth, {}), "student": evaluated(truth, {1: 0.5})}, 1
        ).rows
        == []
    )


def test_a_class_that_a_model_saw_elsewhere_does_not_rank_as_unseen(tmp_path: Path) -> None:
    truth = annotation_set(tmp_path, [(1, "bird", LARGE), (1, "dog", LARGE)])
    found = {"teacher": evaluated(truth, {1: 0.5, 2: 0.1})}
    shown = captions(draw_sheet(truth, ImageFolder(tmp_path), found, 1, shown_elsewhere=frozenset({"dog"})))
    assert shown == ["teacher: worst, rank 1 of 1 unseen masks by IoU: bird"]
