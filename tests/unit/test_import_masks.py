"""Corrected masks come back: matched, marked human, counted, and nothing else is touched."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError, RunError
from deepmac_distill.stages.export import export
from deepmac_distill.stages.import_masks import Imported, import_masks

H, W = 60, 80
Json = dict[str, Any]


def disk(x: float, y: float, radius: float = 8) -> np.ndarray:
    rows, columns = np.mgrid[:H, :W] + 0.5
    return np.hypot(columns - x, rows - y) < radius


def code(mask: np.ndarray) -> Json:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [H, W], "counts": rle["counts"].decode()}


def around(mask: np.ndarray) -> list[float]:
    return coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))).tolist()


def thing(id: int, mask: np.ndarray, category_id: int = 1, **more: Any) -> Json:
    held = {"bbox": around(mask), "segmentation": code(mask), "area": int(mask.sum()), "iscrowd": 0}
    return {"id": id, "image_id": 1, "category_id": category_id, **held, **more}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A person's disk 1, a teacher's 2 and 3, a box 4; a file of ours."""
    teacher = {"source": "teacher", "mask_score": 0.5}
    box = {"id": 4, "image_id": 1, "category_id": 2, "bbox": [52, 32, 16, 16], "area": 256, "iscrowd": 0}
    document = {
        "deepmac_distill": {"schema": 3, "seen_mask_classes": ["cat"]},
        "info": {"year": 2024},
        "images": [{"id": 1, "file_name": "sub/a.png", "height": H, "width": W}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "yak"}],
        "annotations": [
            thing(1, disk(12, 12), source="human", mask_score=None),
            thing(2, disk(40, 12), 2, **teacher),
            thing(3, disk(12, 40), 2, note="mine", **teacher),
            box | {"source": "none", "mask_score": None},
        ],
    }
    (tmp_path / "base.json").write_text(json.dumps(document))
    return tmp_path / "base.json"


def taken(base: Path, change: Any, **options: bool) -> tuple[Imported, dict[int, Json], dict[int, Json]]:
    """What an import did, the annotations after it, and those before it."""
    before = json.loads(base.read_text())
    document = copy.deepcopy(before)
    del document["deepmac_distill"]
    for one in document["annotations"]:
        del one["source"], one["mask_score"]
    change(document)
    (base.parent / "corrected.json").write_text(json.dumps(document))
    kept = base.read_bytes()
    done = import_masks(base.parent / "corrected.json", base, base.parent / "out.json", **options)
    assert base.read_bytes() == kept
    after = json.loads((base.parent / "out.json").read_text())
    assert {k: v for k, v in after.items() if k != "annotations"} == {
        k: v for k, v in before.items() if k != "annotations"
    }
    return done, *({one["id"]: one for one in file["annotations"]} for file in (after, before))


def counts(done: Imported) -> tuple[int, ...]:
    return done.changed, done.drawn, done.added, done.unchanged, done.relabeled, done.removed


def put(document: Json, id: int, mask: np.ndarray, **more: Any) -> None:
    (entry,) = (one for one in document["annotations"] if one["id"] == id)
    entry |= thing(id, mask, entry["category_id"]) | more


def test_a_file_that_comes_back_as_it_went_out_changes_nothing(base: Path) -> None:
    done, after, before = taken(base, lambda document: None)
    assert counts(done) == (0, 0, 0, 3, 0, 0) and after == before
    assert done.unmatched == {"without a mask": 1}


@pytest.mark.parametrize("name", ["coco-polygons", "coco-rle"])
def test_an_export_that_nobody_touched_changes_nothing(base: Path, name: str) -> None:
    export(base, name, base.parent / "exported.json")
    done = import_masks(base.parent / "exported.json", base, base.parent / "out.json")
    assert counts(done) == (0, 0, 0, 3, 0, 0)


def test_a_corrected_mask_is_human_with_its_own_box_and_area(base: Path) -> None:
    done, after, before = taken(base, lambda document: put(document, 3, disk(13, 41)))
    assert counts(done) == (1, 0, 0, 2, 0, 0)
    expected = thing(3, disk(13, 41), 2, note="mine", source="human", mask_score=None)
    assert after == before | {3: expected}


def test_a_mask_drawn_in_a_box_and_a_new_object(base: Path) -> None:
    def change(document: Json) -> None:
        put(document, 4, disk(60, 40))
        document["annotations"].append(thing(99, disk(70, 10)))

    done, after, before = taken(base, change)
    assert counts(done) == (0, 1, 1, 3, 0, 0)
    drawn = thing(4, disk(60, 40), 2, source="human", mask_score=None)
    assert after == before | {4: drawn, 5: thing(5, disk(70, 10), source="human", mask_score=None)}


def test_reviewed_masks_are_human_also_where_nobody_changed_them(base: Path) -> None:
    done, after, before = taken(base, lambda document: None, reviewed=True)
    assert done.unchanged == 3
    human = {"source": "human", "mask_score": None}
    assert after == before | {id: before[id] | human for id in (2, 3)}


@pytest.mark.parametrize("drop", [False, True])
def test_removed_objects_are_counted_and_go_where_that_is_asked_for(base: Path, drop: bool) -> None:
    done, after, before = taken(base, lambda d: d["annotations"].pop(1), drop_removed=drop)
    assert counts(done) == (0, 0, 0, 2, 0, 1)
    assert set(after) == set(before) - ({2} if drop else set())


def renumbered(document: Json) -> None:
    """As Label Studio and CVAT do: ids from 0 in another order, other category ids, paths of their own."""
    for category in document["categories"]:
        category["id"] += 10
    document["images"][0] |= {"id": 0, "file_name": "/data/local-files/?d=photos/0123abcd-a.png"}
    for id, one in enumerate(reversed(document["annotations"])):
        one |= {"id": id, "image_id": 0, "category_id": one["category_id"] + 10}


def test_objects_are_found_by_their_boxes_where_ids_are_others(base: Path) -> None:
    def change(document: Json) -> None:
        put(document, 2, disk(41, 13))
        renumbered(document)

    done, after, before = taken(base, change)
    assert counts(done) == (1, 0, 0, 2, 0, 0)
    assert {id for id in after if after[id] != before[id]} == {2}


def test_the_id_in_the_attributes_leads_back_from_far(base: Path) -> None:
    far = disk(46, 18)

    def change(document: Json) -> None:
        put(document, 2, far, attributes={"annotation_id": "2.0"})
        renumbered(document)

    done, after, _ = taken(base, change)
    assert counts(done) == (1, 0, 0, 2, 0, 0) and after[2]["bbox"] == around(far)


def test_another_class_and_classes_and_images_that_are_not_there(base: Path) -> None:
    def change(document: Json) -> None:
        document["categories"].append({"id": 3, "name": "gnu"})
        document["images"].append({"id": 2, "file_name": "b.png", "height": H, "width": W})
        document["annotations"][1]["category_id"] = 1
        document["annotations"] += [thing(7, disk(70, 50), 3), thing(8, disk(9, 9)) | {"image_id": 2}]

    done, after, before = taken(base, change)
    assert counts(done) == (0, 0, 0, 3, 1, 0) and done.unknown_classes == ("gnu",)
    assert done.unmatched == {"without a mask": 1, "of other classes": 1, "on other images": 1}
    assert after == before | {2: before[2] | {"category_id": 1}}


def test_the_result_is_read_as_human_where_it_is(base: Path) -> None:
    taken(base, lambda document: put(document, 2, disk(41, 13)))
    found = Dataset.open(base.parent / "out.json", seen="all").for_training()
    assert found.annotations["source"].to_pylist() == ["human", "human", "teacher", "none"]


def test_a_file_of_somebody_else_gets_human_masks_whatever_its_sources_are(base: Path) -> None:
    raw = json.loads(base.read_text())
    del raw["deepmac_distill"]
    raw["annotations"][1] |= {"source": "a web page", "mask_score": 7.5}
    base.write_text(json.dumps(raw))
    (base.parent / "same.json").write_text(json.dumps(raw))
    import_masks(base.parent / "same.json", base, base.parent / "out.json")
    found = Dataset.open(base.parent / "out.json", seen="all").for_training()
    assert found.annotations["source"].to_pylist() == ["human", "human", "human", "none"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["images"][0].update(width=W + 1), "corrected.json: image sub/a.png: got 60 x 81"),
        (lambda d: d["images"][0].update(file_name="z.png"), "corrected.json: none of its images is in the"),
        (lambda d: d.update(annotations=3), "corrected.json: annotations: got 3, expected a list"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3]]), "corrected.json: annotation 1: seg"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_file(base: Path, change: Any, says: str) -> None:
    def both(document: Json) -> None:
        change(document)
        if document["images"][0]["width"] != W:
            for one in document["annotations"]:
                one["segmentation"] = []

    with pytest.raises(DataError) as error:
        taken(base, both)
    assert says in str(error.value) and not (base.parent / "out.json").exists()


def test_nothing_is_written_over(base: Path) -> None:
    for out in (base, base.parent / "base.json"):
        with pytest.raises(RunError, match="is there already"):
            import_masks(base, base, out)
