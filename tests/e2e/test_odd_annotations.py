"""`deepmac check` and `teach` on files that public reports tell of: each slip is named, nothing is silent."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Raw = dict[str, Any]
SQUARE = [[10, 10, 40, 10, 40, 40, 10, 40]]


def document(objects: int = 1) -> Raw:
    box = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 64}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "yak"}],
        "annotations": [box | {"id": i + 1, "segmentation": SQUARE} for i in range(objects)],
    }


@pytest.fixture
def check(deepmac, tmp_path: Path) -> Callable[..., Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def run(content: Any, *more: Any) -> Any:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / "a.json").write_bytes(text)
        seen = [] if "--seen" in more else ["--seen", "all"]
        return deepmac("check", tmp_path / "a.json", "--images", tmp_path, *seen, *more)

    return run


def first(**changed: Any) -> Raw:
    raw = document()
    raw["annotations"][0] |= changed
    return raw


def image(**changed: Any) -> Raw:
    raw = document()
    raw["images"][0] |= changed
    return raw


@pytest.mark.parametrize(
    "nothing",
    [
        [[10, 10, 10, 10, 10, 10]],
        [[-60, -20, -50, -20, -50, -30]],
        [[10, 10, 40, 40, 10, 10]],
        [[64, 0, 70, 0, 70, 40, 64, 40]],
        SQUARE * 1 + [],
        {"size": [48, 64], "counts": [3072]},
        {"size": [48, 64], "counts": "PP3"},
    ],
)
def test_a_mask_without_a_pixel_is_a_warning_and_no_mask(check, nothing: Any) -> None:
    if nothing == SQUARE:  # drawn twice in one outline: inside twice is outside
        nothing = [SQUARE[0] * 2]
    ended = check(first(segmentation=nothing))
    assert ended.code == 0 and "it covers no pixel" in ended.out
    assert "no masks of the seen classes" in ended.out
    ended = check(first(segmentation=nothing), "--strict")
    assert ended.code == 2 and "error: " in ended.out


@pytest.mark.parametrize(
    "hostile",
    [
        [[8, 8, 4294967295, 8, 8, 24]],
        [[8, 8, -1e9, 8, 8, 24]],
        [[8, 8, 1e300, 8, 8, 24]],
        [[value for y in range(600) for value in (-9_999, y % 48, 9_999, y % 48)]],
        {"size": [48, 64], "counts": [2**40]},
        {"size": [48, 64], "counts": [-5, 3077]},
        {"size": [48, 64], "counts": "o" * 40 + "0"},
        {"size": [2**31, 2**31], "counts": [3072]},
        {"size": [48, 64], "counts": [2**63, -(2**63), 3072]},
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_hostile_masks_are_refused_before_any_code_in_c(check, hostile: Any, hidden: bool) -> None:
    raw = first(segmentation=hostile, category_id=2 if hidden else 1)
    ended = check(raw, "--seen", "cat")
    assert ended.code == 2 and "annotation 1: segmentation: " in ended.out


@pytest.mark.parametrize(
    "odd", [[{}], [0], [None], [False], [""], {}, False, "", [[None]], [[[]]], [[], None]]
)
def test_what_is_neither_a_mask_nor_nothing_is_an_error(check, odd: Any) -> None:
    ended = check(first(segmentation=odd))
    assert ended.code == 2 and "annotation 1: segmentation" in ended.out


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (first(segmentation=[10, 10, 40, 10, 40, 40]), "a flat list of numbers, [10, 10, 40, 10, 40, 40]"),
        (first(segmentation=[[10, 10], [40, 10], [40, 40]]), "polygon as pairs, [[10, 10], [40, 10]"),
        (first(segmentation=[[[10, 10], [40, 10], [40, 40]]]), "polygon as pairs, [[10, 10], [40, 10]"),
        (first(segmentation=[{"x": 1, "y": 2}]), 'polygon of {"x": 1, "y": 2}'),
        (first(image_id=1.0), "image_id 1.0: expected a whole number, without a decimal point"),
        (first(category_id=1.0), "category_id 1.0: expected a whole number, without a decimal point"),
        (first(id=1.0), "id 1.0: expected a whole number, without a decimal point"),
        (image(width=64.0), "width 64.0: expected a whole number > 0, without a decimal point"),
        (first(image_id="1"), 'image_id "1": expected the id of an image of the file'),
        (first(bbox=["10", "10", "30", "30"]), 'bbox ["10", "10", "30", "30"]: expected four finite numbers'),
        (image(file_name="C:\\Users\\me\\a.png"), 'a path inside the image folder, such as "a.png"'),
        (image(file_name="..\\..\\media\\a.png"), 'a path inside the image folder, such as "a.png"'),
        (image(file_name="/data/local-files/?d=x/a.png"), 'inside the image folder, such as "a.png"'),
    ],
)
def test_the_cause_is_named_on_one_line(check, raw: Raw, says: str) -> None:
    ended = check(raw)
    errors = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    assert ended.code == 2 and len(errors) == 1 and says in errors[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda i: {"segmentation": [10 + i, 10, 40, 10, 40, 40]},
        lambda i: {"segmentation": [[10, 10 + i], [40, 10], [40, 40]]},
        lambda i: {"category_id": f"{'abcdefgh'[i % 8]}{i}"},
        lambda i: {"bbox": [i, "x" * (i % 30), 3, 4]},
        lambda i: {"image_id": 100 + i},
    ],
)
def test_one_slip_is_cut_at_twenty_lines_with_a_count(check, change: Callable[[int], Raw]) -> None:
    raw = document(50)
    for i, annotation in enumerate(raw["annotations"]):
        annotation |= change(i)
    ended = check(raw)
    lines = ended.out.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 21
    assert "error: ... and 30 more like the last" in lines and "50 errors, 0 warnings" in lines[-1]


def test_missing_images_are_cut_too(check) -> None:
    raw = document()
    raw["images"] = [
        raw["images"][0] | {"id": i, "file_name": f"{'abc'[i % 3]} {i}/x.png"} for i in range(1, 41)
    ]
    assert "error: ... and 20 more like the last" in check(raw).out


def test_numbers_beyond_64_bits_are_numbered_as_strings_are(check, tmp_path: Path) -> None:
    raw = document()
    raw["images"][0]["id"] = raw["annotations"][0]["image_id"] = 2**63 + 5
    raw["annotations"][0]["id"] = 2**64 + 1
    assert check(raw).code == 0


@pytest.mark.parametrize(
    ("table", "text", "key"),
    [
        ("annotations", '"bbox": [1, 1, 9, 9], "bbox": [2, 2, 9, 9]', "bbox"),
        ("annotations", '"bbox": [1, 1, 9, 9], "category_id": 2, "category_id": 1', "category_id"),
        ("annotations", '"bbox": [1, 1, 9, 9], "segmentation": {"size": [9, 9], "size": [48, 64]}', "size"),
        ("annotations", '"bbox": [1, 1, 9, 9], "note": "a:b", "attributes": {"a": 1, "a": 2}', "a"),
        ("images", '"file_name": "b.png", "file_name": "a.png"', "file_name"),
        ("categories", '"name": "dog", "name": "cat"', "name"),
        ("", '"annotations": []', "annotations"),
    ],
)
@pytest.mark.parametrize("plainly", [False, True])
def test_a_key_that_stands_twice_is_an_error(check, table: str, text: str, key: str, plainly: bool) -> None:
    """Also where NaN leaves the file to the parser of Python."""
    held = {
        "images": '{"id": 1, "height": 48, "width": 64, "file_name": "a.png"}',
        "annotations": '{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}',
        "categories": '{"id": 1, "name": "cat"}',
    }
    ids = '"id": 1, "image_id": 1, "category_id": 1, ' if table == "annotations" else '"id": 1, '
    sizes = '"height": 48, "width": 64, ' if table == "images" else ""
    parts = [
        f'"{name}": [{"{" + ids + sizes + text + "}" if name == table else entry}]'
        for name, entry in held.items()
    ]
    if not table:
        parts.append(text)
    if plainly:
        parts.append('"info": NaN')
    if key == "category_id":
        parts[1] = parts[1].replace('"category_id": 1, ', "", 1)
    ended = check(("{" + ", ".join(parts) + "}").encode())
    assert ended.code == 2 and f'key "{key}" stands twice' in ended.out


@pytest.mark.parametrize(
    "plain",
    [
        {"note": "a: b: c", "when": "12:30:01"},
        {"attributes": {"a": {"b": [{"c": ":"}, {"d": 1}]}, "e:f": "g:h"}},
        {"segmentation": {"size": [48, 64], "counts": "`i0:00000000000000"}, "area": None},
        {"name": "\\u003a and \u003a"},
    ],
)
def test_colons_elsewhere_are_no_keys(check, plain: Raw) -> None:
    assert "stands twice" not in check(first(**plain)).out


def test_boxes_in_shares_of_the_image_are_refused(check) -> None:
    raw = document(3)
    for annotation in raw["annotations"]:
        annotation |= {"bbox": [0.15, 0.2, 0.46, 0.62], "segmentation": []}
    ended = check(raw)
    assert ended.code == 2 and "is inside the first pixel, as is every box: shares of the image" in ended.out
    raw["annotations"][0]["bbox"] = [10, 10, 20, 20]
    ended = check(raw)
    assert ended.code == 0 and ended.out.count("is it in shares of the image? expected pixels") == 2
    raw["annotations"][1:] = [raw["annotations"][1] | {"bbox": [0, 0, 1, 1]}]
    assert "first pixel" not in check(raw).out  # one whole pixel may be meant


@pytest.mark.parametrize(
    ("boxes", "others", "refused"),
    [
        ([[0.1, 0.1, 0.2, 0.2]] * 19, [[10, 10, 20, 20]], "as are 19 of 20: shares of the image"),
        ([[0.1, 0.1, 0.2, 0.2]] * 18, [[10, 10, 20, 20]] * 2, ""),
        ([[0.7, 0.6, 0.3, 0.2]], [[0.8, 0.7, 0.4, 0.6]], "as are 1 of 2: shares of the image"),  # middles
        ([[0.1, 0.1, 0.2, 0.2]], [[-0.01, 0, 1.02, 1]], "as are 1 of 2: shares of the image"),
        ([[0.1, 0.1, 0.2, 0.2]], [[0, 0, 1, 1]] * 2, ""),  # whole pixels, most of them
        ([[0.5, 0.5, 0.4, 0.3]], [[1, 1, 9, 9]], ""),  # a speck in the corner of a real set
    ],
)
def test_an_odd_box_hides_no_shares(check, boxes: list[Any], others: list[Any], refused: str) -> None:
    raw = document(len(boxes) + len(others))
    for annotation, bbox in zip(raw["annotations"], boxes + others, strict=True):
        annotation |= {"bbox": bbox, "segmentation": []}
    ended = check(raw)
    assert (ended.code, refused in ended.out) == (2 if refused else 0, True), ended.out


def test_a_mask_in_shares_of_the_image_is_named(check) -> None:
    ended = check(first(segmentation=[[0.15, 0.2, 0.6, 0.2, 0.6, 0.8]]))
    assert "its points are inside the first one, as shares of the image are" in ended.out


def test_blanks_around_names_are_no_part_of_them(check) -> None:
    raw = document()
    raw["categories"] = [{"id": 1, "name": "cat "}, {"id": 2, "name": "\tcap, red"}]
    for seen in ("cat", "cat ", " cat", "cap, red", "cat,cap, red"):
        ended = check(raw, "--seen", seen)
        assert ended.code == 0 and 'name "cat " has blanks around it: read as "cat"' in ended.out, ended.out
    assert check(raw, "--seen", "all", "--hide", "cap, red").code == 0
    raw["categories"][1]["name"] = "cat"
    raw["annotations"].append(raw["annotations"][0] | {"id": 2, "category_id": 2})
    ended = check(raw)
    assert ended.code == 2 and 'name "cat" is used twice' in ended.out


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_files_of_windows_are_read(check, encoding: str, tmp_path: Path) -> None:
    raw = image(file_name=".\\a.png")
    raw["categories"][0]["name"] = "caf\u00e9"
    (tmp_path / "seen.txt").write_bytes("caf\u00e9\r\nyak\r\n".encode("utf-8-sig"))
    text = json.dumps(raw, ensure_ascii=False, indent=1).replace("\n", "\r\n").encode(encoding)
    ended = check(text, "--seen", tmp_path / "seen.txt")
    assert ended.code == 0, ended.out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"version": "5", "shapes": [], "imagePath": "a.jpg"}, "labelme's JSON"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}], "COCO results"),
        ([{"id": 1, "annotations": [], "data": {"image": "a.jpg"}}], "Label Studio's JSON"),
        ({"a.jpg123": {"filename": "a.jpg", "regions": []}}, "VIA's JSON"),
        ({"info": {}, "categories": {}, "items": []}, "datum convert -if datumaro"),
        (b"0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.1 0.1\n", "datum convert -if yolo"),
        (b"<annotation><object><bndbox/></object></annotation>", "datum convert -if voc"),
        (b"<annotation><object><polygon/></object></annotation>", "datum convert -if label_me"),
        (b'<?xml version="1.0"?><annotations><image/></annotations>', "datum convert -if cvat"),
        (b"PK\x03\x04", "an archive"),
    ],
)
def test_other_formats_are_named_with_what_makes_coco_of_them(check, content: Any, says: str) -> None:
    ended = check(content)
    lines = ended.out.splitlines()
    assert ended.code == 2 and len(lines) == 2 and says in lines[0]


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (
            {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 3, "category_id": 1}]},
            "coco_panoptic",
        ),
        ({"id": 1, "image_id": 1, "caption": "a cat"}, "a file of captions"),
    ],
)
def test_files_of_other_tasks_are_named_once(
    deepmac, check, annotation: Raw, says: str, tmp_path: Path
) -> None:
    raw = document() | {"annotations": [annotation] * 30}
    ended = check(raw)
    assert ended.code == 2 and len(ended.out.splitlines()) == 2 and says in ended.out
    given = [
        "--annotations",
        tmp_path / "a.json",
        "--images",
        tmp_path,
        "--out",
        tmp_path / "run",
        "--seen",
        "cat",
    ]
    ended = deepmac("teach", *given)
    assert ended.code == 2 and says in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["labels/1.txt", "data.yaml"], "datum convert -if yolo"),
        (["Annotations/1.xml"], "datum convert -if voc"),
    ],
)
def test_folders_of_other_formats_are_named(deepmac, tmp_path: Path, names: list[str], says: str) -> None:
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text("0 0.5 0.5 0.2 0.2")
    ended = deepmac("check", tmp_path / "set")
    assert ended.code == 2 and says in ended.out


def test_a_limit_of_open_files_is_no_broken_image(check, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Image, "open", full)
    ended = check(document())
    assert ended.code == 2 and "cannot be decoded" not in ended.out + ended.err
    assert "a.png: Too many open files; expected a higher limit of open files (ulimit -n)" in ended.err


def test_names_that_no_file_system_takes_are_refused_in_no_time(check) -> None:
    for name in ("../" * 400_000 + "a.png", "n" * 5000):
        ended = check(image(file_name=name))
        lines = [line for line in ended.out.splitlines() if line.startswith("error: ")]
        assert ended.code == 2 and len(lines) == 1 and len(lines[0]) < 400
        assert f"{len(name)} characters; expected at most 4096" in lines[0]
    raw = document()
    raw["categories"][0]["name"] = "cat, " * 1000
    ended = check(raw)
    assert ended.code == 2 and "4999 characters; expected at most 4096" in ended.out
    raw["categories"] = [{"id": i, "name": f"{i}" + "ab" * 2000} for i in (1, 2)]
    ended = check(raw, "--seen", "1" + "ba" * 2000)
    assert ended.code == 2 and max(map(len, ended.out.splitlines())) < 5000


def test_a_class_may_have_the_name_of_a_preset_a_file_or_a_fold(check, tmp_path: Path) -> None:
    names = ["voc", "seen.txt", "all", "with-masks", "name:odd", "fold:0/2"]
    raw = document(len(names))
    raw["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    for annotation in raw["annotations"]:
        annotation["category_id"] = annotation["id"]
    for name in names:
        ended = check(raw, "--seen", f"name:{name}")
        assert ended.code == 0 and "5 masks of unseen classes" in ended.out, (name, ended.out)
    assert check(raw, "--seen", "name:odd").code == 0
    ended = check(raw, "--seen", "name:voc,name:seen.txt,all", "--hide", "name:voc")
    assert ended.code == 0 and "4 masks of unseen classes" in ended.out
    ended = check(raw, "--seen", "name:cat")
    assert ended.code == 2 and 'seen class "cat": no such class' in ended.out


@pytest.mark.parametrize(
    "name", ["cat\u200b", "c\u00a0at", "\ufeffcat", "c\u00adat", "ca\u202et", "ca\x07t", "c\u200dt"]
)
def test_characters_that_nobody_sees_in_a_name_are_a_warning(check, name: str) -> None:
    raw = document()
    raw["categories"][0]["name"] = name
    ended = check(raw)
    assert ended.code == 0 and "has characters that nobody sees (\\" in ended.out
    assert check(raw, "--strict").code == 2
    raw["categories"][0]["name"] = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # a joiner of Persian
    assert check(raw, "--strict").code == 0


def test_a_pipe_in_place_of_a_file_is_refused_at_once(deepmac, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")  # nobody writes to it: to open it would wait for ever
    ended = deepmac("check", tmp_path / "a.json", "--seen", "all")
    assert ended.code == 2 and "a.json: cannot be read: Is a pipe or a device" in ended.out
