"""`deepmac check` on names, ids and numbers that look right: halves of characters, accents, corners, 1.0."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Raw = dict[str, Any]
HALF = "\ud83d"  # of an emoji that was cut: JSON can hold it, UTF-8 cannot
APART, ONE = "Cafe\u0301", "Caf\u00e9"


def document(objects: int = 1) -> Raw:
    box = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0}
    square = [[10, 10, 40, 10, 40, 40, 10, 40]]
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 64}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "yak"}],
        "annotations": [box | {"id": i + 1, "segmentation": square} for i in range(objects)],
    }


@pytest.fixture
def check(deepmac, tmp_path: Path) -> Callable[..., Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def run(content: Raw | bytes, *more: Any) -> Any:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / "a.json").write_bytes(text)
        seen = [] if "--seen" in more else ["--seen", "all"]
        return deepmac("check", tmp_path / "a.json", "--images", tmp_path, *seen, *more)

    return run


@pytest.mark.parametrize(("table", "key"), [("categories", "name"), ("images", "file_name")])
def test_a_name_that_holds_half_of_a_character_is_refused_by_its_place(check, table: str, key: str) -> None:
    raw = document()
    raw[table][0][key] = f"a{HALF}.png"
    ended = check(raw)
    assert ended.code == 2 and 'name "a\\ud83d.png": holds half of a character' in ended.out, ended.out
    assert ended.out.count("error: ") == 1


def test_what_nothing_reads_may_hold_half_of_a_character_and_keeps_it(check, deepmac, tmp_path) -> None:
    raw = document() | {"info": {"text": HALF}}
    raw["annotations"][0] |= {"id": f"x{HALF}", "caption": HALF}
    raw["images"][0]["note"] = HALF
    assert check(raw).code == 0
    file, out = tmp_path / "a.json", tmp_path / "b.json"
    assert deepmac("import-masks", file, "--into", file, "--out", out).code == 0
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert kept["annotations"][0]["caption"] == kept["info"]["text"] == kept["images"][0]["note"] == HALF


def test_accents_are_a_part_of_their_letters_wherever_a_name_stands(check, tmp_path: Path) -> None:
    raw = document()
    raw["categories"][0]["name"] = APART
    (tmp_path / "seen.txt").write_text(f"{APART}\r\nyak\r\n", encoding="utf-16")
    for seen in (ONE, APART, f"yak,{APART}", tmp_path / "seen.txt"):
        ended = check(raw, "--seen", seen)
        assert ended.code == 0 and "has accents apart from their letters" in ended.out, ended.out
    assert check(raw, "--seen", "all", "--hide", APART).code == 0
    assert check(raw, "--strict").code == 2
    raw["categories"][1]["name"] = ONE
    raw["annotations"].append(raw["annotations"][0] | {"id": 2, "category_id": 2})
    assert f'name "{ONE}" is used twice' in check(raw).out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("caf\u00e9\n".encode("latin-1"), "no text in UTF-8 or UTF-16: unexpected end of data at byte 3"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_list_of_names_that_cannot_be_read_is_named(check, tmp_path: Path, content: Any, says: str) -> None:
    if content:
        (tmp_path / "seen.txt").write_bytes(content[:4])
    ended = check(document(), "--seen", tmp_path / "seen.txt")
    assert ended.code == 2 and f"list of seen classes: {says}" in ended.out, ended.out


@pytest.mark.parametrize(("table", "key"), [("images", "image_id"), ("categories", "category_id")])
@pytest.mark.parametrize("reference", [1, 1.0])
def test_an_id_that_is_refused_is_one_error_however_many_refer_to_it(
    check, table: str, key: str, reference: float
) -> None:
    raw = document(objects=30)
    raw[table][0]["id"] = 1.0
    for annotation in raw["annotations"]:
        annotation[key] = reference
    ended = check(raw)
    assert ended.code == 2 and ended.out.count("error: ") == 1, ended.out
    assert f"{table}[0]: id 1.0: expected a whole number" in ended.out


@pytest.mark.parametrize(("key", "to"), [("image_id", "an image"), ("category_id", "a category")])
def test_what_is_missing_is_one_error_with_the_number_of_annotations_that_refer_to_it(
    check, key: str, to: str
) -> None:
    raw = document(objects=60)
    for number, annotation in enumerate(raw["annotations"]):
        annotation[key] = 901 + number % 30
    ended = check(raw)
    errors = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    assert len(errors) <= 21 and "30 errors" in ended.out  # a list is cut at 20 with a count
    assert f"{key} 901: expected the id of {to} of the file; 1 more annotations have it" in errors[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"images": ' + b"9" * 5000 + b"}", "not JSON: a whole number of thousands of digits"),
        (b"[" * 100_000, "not JSON: lists in lists in lists"),
        (b'{"a": [' + b'{"a": [' * 50_000, "not JSON: lists in lists in lists"),
    ],
)
def test_limits_of_the_parser_are_named_without_its_advice(check, content: bytes, says: str) -> None:
    ended = check(content)
    assert ended.code == 2 and says in ended.out
    assert "sys." not in ended.out and "recursion" not in ended.out


def boxes(*given: list[float]) -> Raw:
    raw = document(objects=len(given))
    for annotation, bbox in zip(raw["annotations"], given, strict=True):
        annotation |= {"bbox": bbox, "segmentation": []}
    return raw


def test_boxes_that_are_corners_are_named_once(check) -> None:
    ended = check(boxes([10, 10, 60, 40], [5, 20, 30, 47], [0, 0, 20, 20]))
    says = "bbox: 2 of 3 leave their image as [x, y, width, height], and all are inside as corners"
    assert ended.code == 0 and ended.out.count(says) == 1, ended.out
    assert check(boxes([10, 10, 60, 40], [5, 20, 30, 47], [0, 0, 20, 20]), "--strict").code == 2


def test_boxes_that_hold_a_middle_are_named_once(check) -> None:
    given = [[50, 30, 25, 30], [40, 20, 40, 30], *([20, 20, 30, 20] for _ in range(18))]
    says = "bbox: 2 of 20 leave their image as [x, y, width, height], and all are inside as middle and size"
    ended = check(boxes(*given))
    assert ended.code == 0 and ended.out.count(says) == 1, ended.out
    assert "inside as" not in check(boxes(*given, [1, 1, 30, 20])).out
    assert "inside as" not in check(boxes(*given[:19])).out  # too few to know


@pytest.mark.parametrize(
    "given",
    [
        [[10, 10, 60, 40], [5, 20, 30, 47], [30, 5, 10, 20]],  # the last is no pair of corners
        [[10, 10, 30, 30], [5, 5, 20, 30]],  # all are inside
        [[10, 10, 60, 40]],  # a single one
        [[0, 0, 70, 48], [1, 1, 62, 46]],  # outside either way
    ],
)
def test_boxes_that_may_be_what_they_are_read_as_are_not(check, given: list[list[float]]) -> None:
    assert "corners" not in check(boxes(*given)).out


@pytest.mark.parametrize(
    ("side", "reach", "count", "doubted"),
    [
        (256, 96, 20, True),
        (256, 96, 19, False),
        (256, 120, 20, False),
        (256, 60, 20, False),
        (150, 96, 20, False),
    ],
)
def test_boxes_that_may_be_in_percent_are_named_once(
    check, tmp_path: Path, side: int, reach: int, count: int, doubted: bool
) -> None:
    Image.effect_noise((side, side), 50).save(tmp_path / "a.png")
    raw = boxes(*([i, i, reach - i, reach - i] for i in range(count)))
    raw["images"][0] |= {"height": side, "width": side}
    ended = check(raw)
    assert ended.code == 0 and ended.out.count("are they in percent of the image?") == doubted, ended.out


def test_an_image_name_too_long_for_any_disk_is_one_image_of_many(check) -> None:
    raw = document()
    raw["images"] += [{"id": 2, "file_name": "b" * 300 + ".png", "height": 48, "width": 64}]
    raw["images"] += [{"id": 3, "file_name": "gone.png", "height": 48, "width": 64}]
    ended = check(raw)
    assert ended.code == 2 and ended.out.count("error: ") == 2, ended.out
    assert "File name too long; expected an image" in ended.out and "gone.png: no such file" in ended.out


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_pipeline_that_windows_wrote_is_read(deepmac, tmp_path: Path, encoding: str) -> None:
    pipeline = tmp_path / "p.toml"
    pipeline.write_bytes(f'# caf{ONE}\r\nseed = 3\r\n[data]\r\nsource = "nowhere"\r\n'.encode(encoding))
    ended = deepmac("run", pipeline, "--out", tmp_path / "run")
    assert ended.code == 2 and "data.source: got 'nowhere', expected one of" in ended.err, ended.err


def test_images_that_are_shared_under_other_names_are_found_by_their_bytes(deepmac, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
    for path in ("train/a.png", "train/b.png", "val/d.png"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / path)
    (tmp_path / "val" / "c.png").write_bytes((tmp_path / "train" / "b.png").read_bytes())
    for name, files in (("train", "ab"), ("val", "cd")):
        images = [
            {"id": i, "file_name": f"{file}.png", "height": 48, "width": 64}
            for i, file in enumerate(files, 1)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(document() | {"images": images}))
    given = ["check", tmp_path / "train.json", "--images", tmp_path / "train", "--seen", "all"]
    given += ["--against", tmp_path / "val.json"]
    ended = deepmac(*given, "--against-images", tmp_path / "val")
    says = "1 images are in "
    assert ended.code == 0 and says in ended.out and "under other names, such as b.png" in ended.out, (
        ended.out
    )
    ended = deepmac(*given)
    assert says not in ended.out and "expected their folder (--against-images)" in ended.out
