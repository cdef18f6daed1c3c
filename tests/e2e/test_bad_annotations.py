"""Annotation files and images that cannot be used: code 2, one line: where, what, got, expected."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from refusals import Raw, assert_refused, document


def test_the_data_as_they_are_make_a_run(teach, tmp_path: Path) -> None:
    assert teach(command="run").code == 0
    assert (tmp_path / "run" / "student" / "weights.safetensors").exists()


def test_a_box_whose_mask_is_drawn_elsewhere_is_the_teachers(teach, data: Path, tmp_path: Path) -> None:
    raw = document()
    raw["annotations"][0]["segmentation"] = [[50, 30, 60, 30, 60, 40, 50, 40]]
    (data / "train.json").write_text(json.dumps(raw))
    ended = teach(command="run")
    assert ended.code == 0, ended.err
    labels = json.loads((tmp_path / "run" / "select" / "instances.json").read_text())
    written = {one["id"]: one for one in labels["annotations"]}
    assert [written[number]["source"] for number in (2, 4)] == ["teacher", "human"]
    strict = teach("--strict", "--force")
    assert (
        strict.code == 2
        and "annotation 2: segmentation: no pixel of it is in bbox [8, 8, 24, 16]" in strict.err
    )


def first(**changed: Any) -> Callable[[Raw], None]:
    """The first annotation with other values; None of a key's value is JSON's null."""
    return lambda raw: raw["annotations"][0].update(changed)


def of_image(**changed: Any) -> Callable[[Raw], None]:
    return lambda raw: raw["images"][0].update(changed)


def put(key: str, value: Any) -> Callable[[Raw], None]:
    return lambda raw: raw.update({key: value})


def without_masks(raw: Raw) -> None:
    for annotation in raw["annotations"]:
        annotation.pop("segmentation", None)


ANNOTATION, IMAGE = "train.json: annotation 2: ", "train.json: image 1: "


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("categories", []), "train.json: categories: got none, expected at least one"),
        (lambda raw: raw.pop("categories"), "train.json: categories: got null, expected a list"),
        (lambda raw: raw.pop("images"), "train.json: images: got null, expected a list"),
        (put("annotations", {"1": 2}), "train.json: annotations: got"),
        (put("images", [3]), "train.json: images[0]: got 3, expected an object"),
        (put("categories", [{"id": i, "name": "cat"} for i in (1, 2)]), '"cat" is used twice'),
        (put("categories", [{"id": 1, "name": n} for n in ("cat", "kite")]), "id 1 is used twice"),
        (without_masks, "train.json: no masks of the seen classes (cat); expected at least one"),
        (
            first(bbox=[1, 2, float("nan"), 4], segmentation=[]),
            ANNOTATION + "bbox [1, 2, NaN, 4]: expected four finite",
        ),
        (first(bbox=[1, 2, "3", 4]), ANNOTATION + 'bbox [1, 2, "3", 4]: expected four finite numbers'),
        (first(bbox=[1, 2, 3]), ANNOTATION + "bbox [1, 2, 3]: expected four"),
        (first(bbox=None, segmentation=[]), ANNOTATION + "bbox null: expected four"),
        (first(id=3.0), "annotations[0]: id 3.0: expected a whole number"),
        (first(id="2"), 'annotation "2": id "2": expected a whole number'),
        (first(image_id=99), ANNOTATION + "image_id 99: expected the id of an image"),
        (first(category_id=99), ANNOTATION + "category_id 99: expected the id of a category"),
        (first(segmentation=[[1, 2, 3]]), ANNOTATION + "segmentation: polygon of 3 numbers"),
        (first(segmentation={"size": [9, 9], "counts": [81]}), ANNOTATION + "segmentation: mask of size"),
        (first(iscrowd="no"), ANNOTATION + 'iscrowd "no": expected 0 or 1'),
        (of_image(id=2), "image 2: its id is used twice"),
        (of_image(height=-1), IMAGE + "height -1: expected a whole number > 0"),
        (of_image(file_name="../1.png"), IMAGE + 'file_name "../1.png": expected a path inside'),
        (of_image(file_name="/etc/passwd"), IMAGE + 'file_name "/etc/passwd": expected a path inside'),
        (of_image(neg_category_ids={"1": 2}), IMAGE + 'neg_category_ids {"1": 2}: expected a list of ids'),
        (of_image(file_name="gone.png"), "gone.png: no such file; expected an image"),
        (of_image(width=65), "1.png: image is 48 x 64 (H x W), its annotations give 48 x 65"),
        (put("images", []), "image_id 1: expected the id of an image of the file"),
    ],
)
def test_a_file_that_is_not_what_coco_says_is_refused(
    teach, data: Path, tmp_path: Path, change: Callable[[Raw], Any], says: str
) -> None:
    raw = document()
    change(raw)
    (data / "train.json").write_text(json.dumps(raw))
    assert_refused(teach(), says, tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '"text"', '{"images": [1,]}', b"\xff\xfe\x00", b"\x89PNG"]
)
def test_a_file_that_is_no_json_object_is_refused(
    teach, data: Path, tmp_path: Path, content: str | bytes
) -> None:
    (data / "train.json").write_bytes(content.encode() if isinstance(content, str) else content)
    assert_refused(teach(), f"{data / 'train.json'}: ", tmp_path)


def broken(how: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        match how:
            case "truncated":
                path.write_bytes(path.read_bytes()[:2000])
            case "no image":
                path.write_bytes(b"<html>404</html>")
            case "empty":
                path.write_bytes(b"")
            case "folder":
                path.unlink()
                path.mkdir()

    return change


@pytest.mark.parametrize("how", ["truncated", "no image", "empty", "folder"])
def test_an_image_that_cannot_be_read_is_refused_by_name(teach, data: Path, tmp_path: Path, how: str) -> None:
    broken(how)(data / "images" / "3.png")
    assert_refused(teach(), f"{data / 'images' / '3.png'}: ", tmp_path)


def test_boxes_without_area_are_counted_by_default_and_refused_where_strict(
    teach, data: Path, tmp_path: Path
) -> None:
    raw = document()
    raw["annotations"][1]["bbox"] = [8, 8, 0, 16]
    (data / "train.json").write_text(json.dumps(raw))
    ended = teach("--set", "data.strict=true")
    assert_refused(ended, "annotation 3: bbox [8, 8, 0, 16] has no area; expected w > 0 and h > 0", tmp_path)
    assert teach().code == 0
    assert teach(command="pseudolabel").code == 0
    table = pq.read_table(tmp_path / "run" / "pseudolabel" / "masks.parquet").to_pylist()
    assert [row["status"] for row in table if row["annotation_id"] == 3] == ["degenerate"]
    assert json.loads((tmp_path / "run" / "select" / "counts.json").read_text())["unlabeled"] == 1


def test_a_mask_of_two_points_is_reported_and_labeled_like_a_box_without_one(
    teach, deepmac, data: Path, tmp_path: Path
) -> None:
    raw = document()
    raw["annotations"][0] |= {"segmentation": [[8, 8, 32, 24]], "iscrowd": None}
    raw["annotations"][2]["segmentation"].append([8, 8])
    (data / "train.json").write_text(json.dumps(raw))
    says = "annotation 2: segmentation: 1 of 1 polygon parts have fewer than 3 points, so no mask is left; "
    assert_refused(teach("--strict"), says, tmp_path)
    checked = deepmac("check", data / "train.json", "--seen", "cat")
    assert checked.code == 0 and says in checked.out and "0 errors, 2 warnings" in checked.out
    ended = teach()
    assert ended.code == 0 and "2 degenerate polygon parts, 1 unusable masks" in ended.err
    assert teach(command="pseudolabel").code == 0
    written = json.loads((tmp_path / "run" / "select" / "instances.json").read_text())["annotations"]
    by_id = {annotation["id"]: annotation for annotation in written}
    assert (by_id[2]["source"], by_id[4]["source"]) == ("teacher", "human")
    assert by_id[4]["segmentation"] == raw["annotations"][2]["segmentation"]


def test_an_unreadable_image_stops_labeling_by_default_and_has_rows_that_say_why_on_request(
    teach, data: Path, tmp_path: Path
) -> None:
    assert teach().code == 0
    broken("no image")(data / "images" / "3.png")
    ended = teach(command="pseudolabel")
    assert ended.code == 2 and f"deepmac: {data / 'images' / '3.png'}: cannot be decoded" in ended.err
    ended = teach("--set", "labels.on_unreadable=skip", command="pseudolabel")
    assert ended.code == 0, ended.err
    rows = pq.read_table(tmp_path / "run" / "pseudolabel" / "masks.parquet").to_pylist()
    assert len(rows) == 8
    lost = {row["annotation_id"]: row for row in rows if row["image_id"] == 3}
    assert (lost[6]["source"], lost[7]["source"]) == ("human", "none")
    assert lost[7]["status"] == "unreadable image" and "3.png: cannot be decoded" in lost[7]["reason"]


def test_images_are_looked_at_before_any_training(
    deepmac, small_toml: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last image of the validation set too, and though nothing else would be read of it for hours."""
    trained: list[Any] = []
    monkeypatch.setattr("deepmac_distill.stages.run.teach", trained.append)
    (data / "val.json").write_text((data / "train.json").read_text())
    shutil.copytree(data / "images", data / "val")
    last = data / "val" / "4.png"
    last.write_bytes(last.read_bytes()[:-2000])
    given = ["--data", data, "--annotations", "train.json", "--images", "images", "--seen", "cat"]
    of_validation = ["--val-annotations", "val.json", "--val-images", "val"]
    ended = deepmac("run", small_toml, "--out", tmp_path / "run", *given, *of_validation)
    assert_refused(ended, "val/4.png: cannot be decoded", tmp_path)
    assert trained == []


def test_one_picture_under_several_names_is_reported(teach, deepmac, data: Path) -> None:
    folder = data / "images"
    for name in ("2.png", "3.png", "4.png"):
        (folder / name).unlink()
    (folder / "2.png").symlink_to("1.png")
    (folder / "3.png").hardlink_to(folder / "1.png")
    shutil.copy(folder / "1.png", folder / "4.png")
    said = "3 images are the bytes of another, such as 2.png and 1.png"
    ended = deepmac("check", data / "train.json", "--images", folder, "--seen", "cat")
    assert ended.code == 0 and f"warning: {data / 'train.json'}: {said}" in ended.out
    assert said in teach().err


def test_a_name_in_other_letter_case_is_named(teach, data: Path, tmp_path: Path) -> None:
    (data / "images" / "3.png").rename(data / "images" / "3.PNG")
    if (data / "images" / "3.png").exists():
        pytest.skip("this file system takes either")
    assert_refused(teach(), "3.png: no such file (3.PNG is there, in other letter case); expected", tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_named(teach, data: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    (data / "images" / "3.png").unlink()
    make(data / "images" / "3.png")
    assert_refused(teach(), "3.png: is no regular file, but a folder, a pipe or a device; expected", tmp_path)
