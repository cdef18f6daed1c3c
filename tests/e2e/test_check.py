"""`deepmac check`: what it finds, names and ends with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from deepmac_distill.data.synthetic import SEEN_SHAPES

SEEN = ",".join(SEEN_SHAPES)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_check_finds_nothing_wrong_with_the_scenes(chain, deepmac) -> None:
    scenes = chain[0] / "scenes-train"
    ended = deepmac(
        *("check", scenes / "instances.json", "--images", scenes / "images", "--seen", SEEN),
        *("--against", chain[0] / "scenes-val" / "instances.json"),
    )
    assert ended.code == 0 and "0 errors" in ended.out
    assert "images are in" in ended.out  # both sets call their first image 000001.png


def test_check_names_every_problem_and_ends_with_two(chain, deepmac, tmp_path) -> None:
    raw = read(chain[0] / "scenes-train" / "instances.json")
    raw["annotations"][0]["bbox"][0] = None
    raw["annotations"][1]["category_id"] = 99
    raw["annotations"][2]["bbox"][2] = 0
    (tmp_path / "a.json").write_text(json.dumps(raw))
    ended = deepmac("check", tmp_path / "a.json", "--seen", "all")
    assert ended.code == 2
    ids = [annotation["id"] for annotation in raw["annotations"]]
    for level, id in zip(("error", "error", "warning"), ids, strict=False):
        assert f"{level}: {tmp_path / 'a.json'}: annotation {id}: " in ended.out
    assert ended.out.endswith("a.json: 2 errors, 1 warnings\n")


def test_check_is_strict_on_request_and_opens_the_images(chain, deepmac, tmp_path) -> None:
    raw = read(chain[0] / "scenes-train" / "instances.json")
    raw["annotations"][0]["bbox"][2] = 0
    (tmp_path / "a.json").write_text(json.dumps(raw))
    assert deepmac("check", tmp_path / "a.json", "--seen", "all").code == 0
    assert deepmac("check", tmp_path / "a.json", "--seen", "all", "--strict").code == 2
    shutil.copytree(chain[0] / "scenes-train" / "images", tmp_path / "images")
    (tmp_path / "images" / "000002.png").write_bytes(b"no picture")
    ended = deepmac("check", tmp_path / "a.json", "--seen", "all", "--images", tmp_path / "images")
    assert ended.code == 2 and "image 2: " in ended.out and "cannot be decoded" in ended.out


def test_check_says_what_cannot_be_read_and_ends_with_two(deepmac, tmp_path: Path) -> None:
    ended = deepmac("check", tmp_path / "gone.json")
    assert ended.code == 2 and "gone.json: cannot be read" in ended.out
