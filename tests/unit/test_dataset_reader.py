from __future__ import annotations

import copy
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.classes import VOC_NAMES, Classes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations, TrainingView, require_seen_masks
from deepmac_distill.errors import DataError

# pycocotools.mask.decode predates numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PHOTOS = Path(__file__).parents[3] / "shared" / "data"
SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def plain(**changes: Any) -> dict[str, Any]:
    """Two images of 40 x 60 (H x W), a seen cat with a mask, an unseen yak with one, and a box-only cat."""
    document = {
        "images": [
            {"id": 20, "file_name": "b.jpg", "height": 40, "width": 60},
            {"id": 5, "file_name": "train/a.jpg", "height": 40, "width": 60},
            {"id": 7, "file_name": "empty.jpg", "height": 40, "width": 60},
        ],
        "categories": [{"id": 90, "name": "yak"}, {"id": 17, "name": "cat"}],
        "annotations": [
            box(3, image_id=20, category_id=90, segmentation=SQUARE, area=400.0),
            box(9, image_id=5, segmentation=SQUARE, area=400.0),
            box(2, image_id=5),
        ],
    }
    return document | changes


def box(annotation_id: int, **changes: Any) -> dict[str, Any]:
    bbox = [10.0, 10.0, 20.0, 20.0]
    return {"id": annotation_id, "image_id": 5, "category_id": 17, "bbox": bbox, "iscrowd": 0} | changes


def read(
    tmp_path: Path, document: Any, seen: str = "cat", *, strict: bool = False, hide_unseen: bool = True
) -> Annotations:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document))
    dataset = Dataset.open(path, seen=seen, strict=strict)
    return dataset.for_training() if hide_unseen else dataset.for_evaluation()


def test_no_byte_of_a_hidden_mask_goes_to_another_process(tmp_path: Path) -> None:
    document = plain()
    corner = 30.015625
    for entry, area in zip(document["annotations"], (123.25, 456.5, 0), strict=True):
        entry |= {"segmentation": [[10, 10, corner + entry["id"], 10, 20, 30]], "area": area} if area else {}
    view = read(tmp_path, document)
    sent = pickle.dumps(view)
    hidden, shown = document["annotations"][:2]
    for entry, there in ((hidden, False), (shown, True)):
        assert (struct.pack("<d", corner + entry["id"]) in sent) is there
        assert (struct.pack("<d", entry["area"]) in sent) is there
    again = pickle.loads(sent)
    assert isinstance(again, TrainingView) and again.annotations.equals(view.annotations)


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
    }


def test_a_mask_of_an_unseen_class_and_its_area_are_hidden(tmp_path: Path) -> None:
    hidden, shown = read(tmp_path, plain()), read(tmp_path, plain(), hide_unseen=False)
    assert hidden.has_mask().tolist() == [False, True, False]
    assert hidden.annotations["area"].to_pylist() == [None, 400, None]
    assert hidden.annotations["source"].to_pylist() == ["none", "human", "none"]
    assert shown.has_mask().tolist() == [False, True, True]
    assert shown.annotations["area"].to_pylist() == [None, 400, 400]


def test_hidden_masks_leave_no_trace_in_the_hash_even_where_they_are_garbage(tmp_path: Path) -> None:
    clean = read(tmp_path, plain())
    for garbage in ([[1, 2, 3]], {"size": [1, 1], "counts": "??"}, "nonsense", None):
        document = plain()
        document["annotations"][0] |= {"segmentation": garbage, "area": 1e9}
        assert read(tmp_path, document).fingerprint == clean.fingerprint
    document["annotations"][1]["segmentation"] = [[10, 10, 30, 10, 30, 31]]
    assert read(tmp_path, document).fingerprint != clean.fingerprint


def test_a_teachers_mask_of_an_unseen_class_is_ours_to_see(tmp_path: Path) -> None:
    document = plain(deepmac_distill={})
    document["annotations"][0] |= {"source": "teacher", "mask_score": 0.75}
    found = read(tmp_path, document)
    assert found.has_mask().tolist() == [False, True, True]
    assert found.annotations["source"].to_pylist() == ["none", "human", "teacher"]
    assert found.annotations["mask_score"].to_pylist() == [None, None, 0.75]


def test_raw_json_has_lost_hidden_masks_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(plain()))
    expected = plain()
    del expected["annotations"][0]["segmentation"], expected["annotations"][0]["area"]
    assert Dataset.open(path, seen="cat").for_training().document() == expected
    assert Dataset.open(path, seen="cat").for_evaluation().document() == plain()


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


def test_degenerate_parts_of_hidden_masks_are_not_even_counted(tmp_path: Path) -> None:
    document = plain()
    document["annotations"][0]["segmentation"] = [LINE]
    assert read(tmp_path, document).counts == read(tmp_path, plain()).counts
    assert read(tmp_path, document, hide_unseen=False).counts["degenerate_polygon_parts"] == 1


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


def test_reading_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    document = plain()
    turned = {key: value[::-1] for key, value in copy.deepcopy(document).items()}
    assert read(tmp_path, document).fingerprint == read(tmp_path, turned).fingerprint


def test_the_hash_tells_what_is_seen(tmp_path: Path) -> None:
    document = plain(annotations=[box(1)])
    assert read(tmp_path, document).fingerprint != read(tmp_path, document, "all").fingerprint


def categories(*names: str) -> list[dict[str, Any]]:
    return [{"id": i, "name": name} for i, name in enumerate(names, start=1)]


def test_voc_and_non_voc_split_the_file() -> None:
    names = categories("zebra", "tv", "person", "kite")
    voc, rest = (Classes.from_categories(names, seen) for seen in ("voc", "non-voc"))
    assert voc.seen_names == rest.unseen_names == ("tv", "person")
    assert len(VOC_NAMES) == len(set(VOC_NAMES)) == 20


@pytest.mark.parametrize("form", ["cat, hot dog", ["cat", "hot dog"], "file"])
def test_names_come_between_commas_in_a_list_or_in_a_file(tmp_path: Path, form: str | list[str]) -> None:
    if form == "file":
        form = str(tmp_path / "seen.txt")
        Path(form).write_text("cat\n\nhot dog\n")
    assert Classes.from_categories(categories("cat", "hot dog", "yak"), form).seen_names == ("cat", "hot dog")


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        ("zebr", 'seen class "zebr": no such class; expected one such as zebra'),
        ("voc", "seen classes 'voc': none is in the file"),
        ([], "none is in the file"),
        ("nowhere.txt", "nowhere.txt: list of seen classes"),
    ],
)
def test_seen_classes_that_do_not_fit_are_refused(seen: str | list[str], message: str) -> None:
    with pytest.raises(DataError) as error:
        Classes.from_categories(categories("zebra", "kite"), seen)
    assert message in str(error.value)


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
