from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.dataset.check import class_counts, find_problems, leaked_images
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def box(annotation_id: int, **changes: Any) -> dict[str, Any]:
    bbox = [10.0, 10.0, 20.0, 20.0]
    return {"id": annotation_id, "image_id": 1, "category_id": 1, "bbox": bbox, "iscrowd": 0} | changes


def write(path: Path, *annotations: dict[str, Any], **changes: Any) -> Path:
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "yak"}],
        "annotations": list(annotations),
    }
    path.write_text(json.dumps(document | changes))
    return path


def found(path: Path, seen: str = "cat", **options: Any) -> list[tuple[str, str]]:
    return [(p.level, str(p).removeprefix(f"{path}: ")) for p in find_problems(path, seen, **options)]


def test_a_sound_file_has_no_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", box(1, segmentation=SQUARE), box(2, category_id=2))
    assert found(path) == []


def test_all_errors_are_listed_not_only_the_first(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        box(1, bbox=None, category_id=9),
        box(1, segmentation=[[1, 2, 3]]),
        images=[{"id": 1, "file_name": "../a.jpg", "height": 40, "width": 60}],
    )
    assert [(level, message.split(":")[0]) for level, message in found(path, "dog")] == [
        ("error", 'seen class "dog"'),
        ("error", "image 1"),
        ("error", "annotation 1"),
        ("error", "annotation 1"),
        ("error", "annotation 1"),
        ("warning", "annotation 1"),  # the id is used twice
    ]


def test_the_first_error_is_the_one_the_reader_raises(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", box(1, segmentation=SQUARE), box(7, bbox=[1]), box(8, image_id=3))
    with pytest.raises(DataError) as error:
        Dataset.open(path, seen="cat").for_training()
    assert str(error.value) == str(find_problems(path, "cat")[0])


def test_errors_of_unseen_masks_are_reported_though_the_reader_never_meets_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", box(1, segmentation=SQUARE), box(2, category_id=2, segmentation="?"))
    Dataset.open(path, seen="cat").for_training()
    assert [level for level, _ in found(path)] == ["error"]


def test_files_that_cannot_be_read_are_a_problem_not_an_exception(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("{}")
    assert [level for level, _ in found(tmp_path / "a.json")] == ["error"]
    assert [level for level, _ in found(tmp_path / "b.json")] == ["error"] * 3
    assert "cannot be read" in found(tmp_path / "c.json")[0][1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [3, 3, 0, 5]}, "annotation 2: bbox [3, 3, 0, 5] has no area"),
        ({"bbox": [55, 5, 9, 9]}, "annotation 2: bbox [55, 5, 9, 9] is 4 px over the edge"),
        (
            {"segmentation": [[1, 1, 2, 2], *SQUARE]},
            "annotation 2: segmentation: 1 of 2 polygon parts have fewer than 3 points; expected an even",
        ),
        (
            {"segmentation": [[1, 1], [1, 1, 2, 2]]},
            "annotation 2: segmentation: 2 of 2 polygon parts have fewer than 3 points, so no mask is left",
        ),
        ({"bbox": [30, 20, 20, 20], "segmentation": SQUARE}, "no pixel of it is in bbox [30, 20, 20, 20]"),
        ({"bbox": [20, 10, 20, 20], "segmentation": SQUARE}, "with bbox [20.0, 10.0, 20.0, 20.0]"),
    ],
)
def test_doubtful_boxes_and_masks_are_warnings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.json", box(1, segmentation=SQUARE), box(2, **changes), box(3, category_id=2))
    [(level, text)] = found(path)
    assert level == "warning"
    assert message in text


def test_a_run_length_mask_elsewhere_than_its_box_is_found(tmp_path: Path) -> None:
    # 40 rows: two columns of background, then all of the third column.
    elsewhere = {"size": [40, 60], "counts": [80, 40, 2280]}
    path = write(
        tmp_path / "a.json", box(1, bbox=[0, 0, 20, 20], segmentation=elsewhere), box(3, category_id=2)
    )
    assert "its mask fills [2.0, 0.0, 1.0, 40.0]" in found(path)[0][1]


def test_classes_without_boxes_or_masks_and_empty_images_are_named(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in (1, 2)]
    path = write(tmp_path / "a.json", box(1, segmentation=SQUARE), images=images)
    assert found(path, "yak") == [
        ("warning", "no masks of the seen classes (yak); expected at least one"),
        ("note", "class yak: no usable boxes; nothing is learned or measured of it"),
        ("note", "1 masks of unseen classes are never trained on"),
        ("note", "1 images have no annotations"),
    ]
    path = write(path, box(1, segmentation=SQUARE), box(2, category_id=2))
    assert found(path, "all") == [("warning", "class yak: seen, but none of its 1 boxes has a mask")]


def test_images_that_two_files_share_are_found(tmp_path: Path) -> None:
    train = write(tmp_path / "train.json", box(1, segmentation=SQUARE), box(2, category_id=2))
    images = [{"id": 1, "coco_url": "http://x/val2017/b.jpg", "height": 40, "width": 60}]
    other = write(tmp_path / "other.json", images=images)
    assert leaked_images(train, other) == []
    [(level, message)] = found(train, other=train)
    assert (level, message) == ("warning", f"1 images are in {train} too, such as a.jpg; expected none")
    [(level, message)] = found(train, other=tmp_path / "absent.json")
    assert level == "error"
    assert "absent.json: cannot be read" in message


def test_the_count_table_has_a_row_for_every_class(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        box(1, segmentation=SQUARE),
        box(2),
        box(3, iscrowd=1, segmentation=SQUARE),
        box(4, bbox=[1, 1, 0, 0]),
    )
    assert class_counts(Dataset.open(path, seen="cat").for_training()).to_pylist() == [
        {"name": "cat", "seen": True, "boxes": 2, "masks": 1, "crowd": 1, "degenerate": 1},
        {"name": "yak", "seen": False, "boxes": 0, "masks": 0, "crowd": 0, "degenerate": 0},
    ]


@pytest.mark.parametrize("doubtful", [{"bbox": [55, 5, 9, 9]}, {"segmentation": [[1, 1, 2, 2], *SQUARE]}])
def test_strict_turns_doubtful_boxes_and_parts_into_errors(tmp_path: Path, doubtful: dict[str, Any]) -> None:
    path = write(tmp_path / "a.json", box(1, segmentation=SQUARE), box(2, **doubtful))
    assert [p.level for p in find_problems(path, "cat", strict=True)] == ["error"]
