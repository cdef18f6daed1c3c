from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError
from deepmac_distill.labels.export import write_instances_json
from deepmac_distill.labels.rules import Rules
from deepmac_distill.labels.table import SCHEMA_VERSION, label_table

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
CROWD = {"size": [40, 60], "counts": [80, 40, 2280]}
RULES = Rules(min_mask_score=0.5)


def box(annotation_id: int, **changes: Any) -> dict[str, Any]:
    bbox = [10.0, 10.0, 20.0, 20.0]
    return {"id": annotation_id, "image_id": 4, "category_id": 2, "bbox": bbox, "iscrowd": 0} | changes


def source() -> dict[str, Any]:
    """1 a person's mask, 2 a person's crowd, 3 labeled, 4 labeled badly, 5 an unlabeled crowd."""
    return {
        "info": {"year": 2017},
        "licenses": [{"id": 1}],
        "extra": [1],
        "images": [{"id": 4, "file_name": "a.jpg", "height": 40, "width": 60, "license": 1}],
        "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "yak"}],
        "annotations": [
            box(1, category_id=1, segmentation=SQUARE, area=399.5, note="mine"),
            box(2, category_id=1, segmentation=CROWD, area=40, iscrowd=1),
            box(3, note="theirs"),
            box(4),
            box(5, iscrowd=1),
        ],
    }


def teacher_counts() -> tuple[bytes, int]:
    mask = np.zeros((40, 60), dtype=np.uint8, order="F")
    mask[12:29, 11:30] = 1
    return coco_mask.encode(mask)["counts"], int(mask.sum())


def labels(ids: tuple[int, ...] = (1, 2, 3, 4, 5), **changes: list[Any]) -> pa.Table:
    counts, area = teacher_counts()
    drawn = [i in (3, 4) for i in ids]
    columns: dict[str, list[Any]] = {
        "annotation_id": list(ids),
        "image_id": [4] * len(ids),
        "category_id": [2] * len(ids),
        "file_name": ["a.jpg"] * len(ids),
        "category_name": ["yak"] * len(ids),
        "bbox": [[10.0, 10.0, 20.0, 20.0]] * len(ids),
        "height": [40] * len(ids),
        "width": [60] * len(ids),
        "source": ["teacher" if d else "human" if i < 3 else "none" for i, d in zip(ids, drawn, strict=True)],
        "status": ["labeled" if i != 5 else "crowd" for i in ids],
        "reason": [""] * len(ids),
        "rle_counts": [counts if d else None for d in drawn],
        "mask_area": [area if d else None for d in drawn],
        "mask_score": [{3: 0.9, 4: 0.1}.get(i) for i in ids],
        "mask_bbox_iou": [0.8 if d else None for d in drawn],
    }
    return label_table(columns | changes)


def export(tmp_path: Path, rules: Rules = RULES) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    write_instances_json(source(), labels(), rules, tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    return {annotation["id"]: annotation for annotation in written["annotations"]}, written


def test_human_masks_are_copied_as_they_were(tmp_path: Path) -> None:
    written, _ = export(tmp_path)
    for original in source()["annotations"][:2]:
        assert written[original["id"]] == original | {"source": "human", "mask_score": None}


def test_a_teachers_mask_has_its_true_area_and_tells_its_source(tmp_path: Path) -> None:
    written, _ = export(tmp_path)
    counts, area = teacher_counts()
    assert written[3] == source()["annotations"][2] | {
        "segmentation": {"size": [40, 60], "counts": counts.decode()},
        "area": area,
        "source": "teacher",
        "mask_score": 0.9,
    }


def test_everything_else_in_the_source_is_kept_and_the_source_is_left_alone(tmp_path: Path) -> None:
    _, written = export(tmp_path)
    expected = source()
    ours = {
        "annotations": written["annotations"],
        "deepmac_distill": {"schema": SCHEMA_VERSION, "seen_mask_classes": None},
    }
    assert written == expected | ours
    given = copy.deepcopy(expected)
    write_instances_json(given, labels(), RULES, tmp_path / "out.json")
    assert given == expected


def test_a_rejected_mask_leaves_the_box_nothing_or_a_region_to_ignore(tmp_path: Path) -> None:
    kept, _ = export(tmp_path)
    common = {"source": "none", "area": 400.0}
    assert kept[4] == box(4) | common | {"mask_score": 0.1}
    assert kept[5] == box(5, iscrowd=1) | common | {"mask_score": None}
    dropped, _ = export(tmp_path, Rules(min_mask_score=0.5, on_rejected="drop"))
    assert sorted(dropped) == [1, 2, 3]
    ignored, _ = export(tmp_path, Rules(min_mask_score=0.5, on_rejected="ignore"))
    box_mask = np.zeros((40, 60), dtype=np.uint8, order="F")
    box_mask[10:30, 10:30] = 1
    for key in (4, 5):
        assert ignored[key]["iscrowd"] == 1
        assert ignored[key]["segmentation"]["counts"] == coco_mask.encode(box_mask)["counts"].decode()


@pytest.mark.parametrize(("on_rejected", "written"), [("keep_box", 5), ("drop", 3), ("ignore", 5)])
def test_every_box_is_accounted_for(tmp_path: Path, on_rejected: Any, written: int) -> None:
    rules = Rules(min_mask_score=0.5, on_rejected=on_rejected)
    counts = write_instances_json(source(), labels(), rules, tmp_path / "out.json")
    assert counts == {"human": 2, "teacher": 1, "rejected": 1, "unlabeled": 1, "written": written}


def test_a_human_mask_without_an_area_gets_the_masks(tmp_path: Path) -> None:
    given = source()
    square = coco_mask.frPyObjects(SQUARE, 40, 60)
    column = {"size": [40, 60], "counts": [400, 40, 1960]}
    forms = [SQUARE, column, {"size": [40, 60], "counts": square[0]["counts"].decode()}]
    given["annotations"] = [box(i, category_id=1, segmentation=s) for i, s in enumerate(forms, start=1)]
    write_instances_json(given, labels((1, 2, 3)), RULES, tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())["annotations"]
    expected = coco_mask.area(square).item()
    assert [annotation["area"] for annotation in written] == [expected, 40, expected]


def test_a_human_mask_keeps_its_degenerate_parts_and_one_without_others_gives_way(tmp_path: Path) -> None:
    line = [1.0, 1.0, 5.0, 1.0]  # first: what makes pycocotools take the parts for boxes
    given = source()
    given["annotations"] = [
        box(1, category_id=1, segmentation=[line, *SQUARE], iscrowd=None),
        box(3, category_id=1, segmentation=[line], area=1.0),
        box(4, category_id=1, segmentation=[line], area=1.0),
    ]
    counts = write_instances_json(given, labels((1, 3, 4)), RULES, tmp_path / "out.json")
    assert counts == {"human": 1, "teacher": 1, "rejected": 1, "unlabeled": 0, "written": 3}
    human, teacher, rejected = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert (human["source"], human["segmentation"]) == ("human", [line, *SQUARE])
    assert human["area"] == coco_mask.area(coco_mask.frPyObjects(SQUARE, 40, 60)).item()
    assert human["iscrowd"] == 0
    assert (teacher["source"], teacher["area"]) == ("teacher", teacher_counts()[1])
    assert rejected["source"] == "none" and "segmentation" not in rejected
    found = Dataset.open(tmp_path / "out.json", seen="cat").for_training()
    assert found.annotations["polygons"].to_pylist() == [SQUARE, None, None]
    assert found.annotations["source"].to_pylist() == ["human", "teacher", "none"]


@pytest.mark.parametrize("on_rejected", ["keep_box", "drop", "ignore"])
def test_our_reader_takes_what_the_export_wrote(tmp_path: Path, on_rejected: Any) -> None:
    export(tmp_path, Rules(min_mask_score=0.5, on_rejected=on_rejected))
    found = Dataset.open(tmp_path / "out.json", seen="cat").for_training().annotations.to_pylist()
    assert [row["source"] for row in found][:3] == ["human", "human", "teacher"]
    assert found[0]["polygons"] == SQUARE
    assert found[2]["rle_counts"] == teacher_counts()[0]
    assert found[2]["mask_score"] == pytest.approx(0.9)
    assert all(row["source"] == "none" and row["rle_counts"] is None for row in found[3:])


@pytest.mark.parametrize("on_rejected", ["keep_box", "drop", "ignore"])
def test_exporting_again_with_the_same_labels_changes_nothing(tmp_path: Path, on_rejected: Any) -> None:
    rules = Rules(min_mask_score=0.5, on_rejected=on_rejected)
    written, _ = export(tmp_path, rules)
    again = Dataset.open(tmp_path / "out.json", seen="cat").for_training().document()
    write_instances_json(again, labels(tuple(written)), rules, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(
        (tmp_path / "out.json").read_text()
    )


def test_labels_of_another_file_are_refused(tmp_path: Path) -> None:
    cases = [
        (labels((1, 2, 3, 4)), "annotation 5: no row"),
        (labels((1, 2, 3, 4, 5, 6)), "got 6 rows, expected the source's 5"),
        (labels(width=[60, 60, 61, 60, 60]), "annotation 3: [image_id, height, width]: got [4, 40, 61]"),
    ]
    for table, message in cases:
        with pytest.raises(DataError) as error:
            write_instances_json(source(), table, RULES, tmp_path / "out.json")
        assert message in str(error.value)
        assert not (tmp_path / "out.json").exists()


def test_lvis_images_get_the_file_name_other_tools_need(tmp_path: Path) -> None:
    given = source()
    given["images"] = [{"id": 4, "height": 40, "width": 60, "coco_url": "http://x/val2017/b.jpg"}]
    write_instances_json(given, labels(), RULES, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["images"][0]["file_name"] == "val2017/b.jpg"
