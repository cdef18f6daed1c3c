"""What a run knows of its images: turned, changed, shared with validation, two names for one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

RNG = np.random.default_rng(0)
ORIENTATION = 0x0112


def save(path: Path, orientation: int = 1, size: tuple[int, int] = (48, 64)) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, exif=exif)


def document(*names: str) -> dict[str, Any]:
    square = [[8, 8, 32, 8, 32, 24, 8, 24]]
    return {
        "images": [{"id": i, "file_name": name, "height": 48, "width": 64} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 24, 16], "segmentation": square}
            for i in range(len(names))
        ],
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four training images and two of validation, as BMP: a change of pixels is no change of length."""
    for name in ("1.bmp", "2.bmp", "3.bmp", "4.bmp", "5.bmp", "6.bmp"):
        save(tmp_path / "images" / name)
    (tmp_path / "train.json").write_text(json.dumps(document("1.bmp", "2.bmp", "3.bmp", "4.bmp")))
    (tmp_path / "val.json").write_text(json.dumps(document("5.bmp", "6.bmp")))
    return tmp_path


@pytest.fixture
def stage(deepmac, data: Path, small_toml: Path) -> Callable[..., Any]:
    def run(command: str, *more: Any, to: str = "run") -> Any:
        given = ["--data", data, "--annotations", "train.json", "--images", "images", "--seen", "cat"]
        pipeline = [small_toml] if command in ("run", "forecast") else ["--config", small_toml]
        steps = ["--set", "teacher.train.steps=2", "--set", "teacher.train.warmup_steps=1"]
        return deepmac(command, *pipeline, "--out", data / to, *given, *steps, *more)

    return run


def test_changed_pixels_of_the_same_length_are_noticed(stage, data: Path) -> None:
    assert stage("teach").code == 0
    assert "done before, skipped" in stage("teach").err
    length = (data / "images" / "2.bmp").stat().st_size
    save(data / "images" / "2.bmp")
    assert (data / "images" / "2.bmp").stat().st_size == length
    ended = stage("teach")
    assert ended.code == 2 and "made with data.train_images (content) = " in ended.err.splitlines()[-1]


def test_a_run_of_before_images_were_hashed_is_as_good(stage, data: Path) -> None:
    assert stage("teach").code == 0
    done = data / "run" / "teacher" / "done.json"
    record = json.loads(done.read_text())
    del record["inputs"]["data.train_images (content)"]
    done.write_text(json.dumps(record))
    assert "done before, skipped" in stage("teach").err


def test_copied_and_touched_images_are_the_same(stage, data: Path) -> None:
    assert stage("teach").code == 0
    shutil.copytree(data / "images", data / "copies")  # other times, other files
    shutil.rmtree(data / "images")
    (data / "copies").rename(data / "images")
    assert "done before, skipped" in stage("teach").err


def test_turning_images_acts_and_makes_another_teacher(stage, data: Path) -> None:
    save(data / "images" / "2.bmp")
    shutil.move(data / "images" / "2.bmp", data / "images" / "old.bmp")
    save(data / "images" / "2.tif", orientation=6, size=(64, 48))
    raw = document("1.bmp", "2.tif", "3.bmp", "4.bmp")
    (data / "train.json").write_text(json.dumps(raw))
    ended = stage("teach")
    assert ended.code == 2 and 'data.exif = "apply" turns it to this size' in ended.err.splitlines()[-1]
    assert stage("teach", "--set", "data.exif=apply").code == 0
    ended = stage("teach")
    assert ended.code == 2
    ended = stage("teach", "--set", "data.exif=sideways")
    assert ended.code == 2 and "data.exif: got 'sideways', expected one of as-stored, apply" in ended.err


def test_one_folder_of_turned_images_makes_two_teachers(stage, data: Path) -> None:
    """Turned by half: the size fits both ways, so only the key tells the two runs apart."""
    save(data / "images" / "2.tif", orientation=3)
    (data / "train.json").write_text(json.dumps(document("1.bmp", "2.tif")))
    assert stage("teach").code == 0
    ended = stage("teach", "--set", "data.exif=apply")
    assert ended.code == 2 and "teacher was made with data.exif = None, now 'apply'" in ended.err


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_validation_images_that_were_trained_on_are_noted(stage, data: Path, command: str) -> None:
    shutil.copy(data / "images" / "3.bmp", data / "images" / "6.bmp")  # one image under two names
    given = ["--val-annotations", "val.json"]
    if command == "evaluate":
        assert stage("teach").code == 0
        given += ["--model", data / "run"]
    ended = stage(command, *given)
    assert ended.code == 0, ended.err
    said = [line for line in ended.err.splitlines() if "are in " in line]
    assert len(said) == 1 and "1 of 2 images are in" in said[0] and "such as 6.bmp" in said[0]


def test_validation_that_is_training_is_noted(stage, data: Path) -> None:
    assert stage("teach").code == 0
    ended = stage("evaluate", "--model", data / "run", "--val-annotations", "train.json")
    assert "4 of 4 images are in" in ended.err
    assert (
        "images are in" not in stage("evaluate", "--model", data / "run", "--val-annotations", "val.json").err
    )


def test_the_same_name_in_another_folder_is_asked_about(stage, data: Path) -> None:
    assert stage("teach").code == 0
    for name in ("1.bmp", "2.bmp"):
        save(data / "elsewhere" / name)
    (data / "val.json").write_text(json.dumps(document("1.bmp", "2.bmp")))
    ended = stage(
        "evaluate", "--model", data / "run", "--val-annotations", "val.json", "--val-images", "elsewhere"
    )
    assert ended.code == 0, ended.err
    assert "2 of 2 images are named as in" in ended.err and "images are in " not in ended.err


def test_two_names_for_one_file_are_refused_by_every_command(stage, deepmac, data: Path) -> None:
    for names, says in (
        (("old/1.bmp", "new/1.bmp"), "1.bmp: is both new/1.bmp and old/1.bmp; expected one name"),
        (("images/1.bmp", "new/1.bmp"), "may be images/1.bmp as well, expected it in its folder"),
    ):
        shutil.rmtree(data / "images" / "images", ignore_errors=True)
        if "images/1.bmp" in names:
            save(data / "images" / "images" / "1.bmp")
        (data / "train.json").write_text(json.dumps(document(*names)))
        checked = deepmac("check", data / "train.json", "--images", data / "images", "--seen", "cat")
        assert checked.code == 2 and says in checked.out
        for command in ("teach", "forecast"):
            ended = stage(command)
            assert ended.code == 2 and says in ended.err.splitlines()[-1], (command, ended.err)


def test_check_counts_turned_images_and_names_those_of_one_value(deepmac, data: Path) -> None:
    save(data / "images" / "7.tif", orientation=3)
    Image.new("RGB", (64, 48), (7, 7, 7)).save(data / "images" / "8.png")
    (data / "train.json").write_text(json.dumps(document("7.tif", "8.png")))
    ended = deepmac("check", data / "train.json", "--images", data / "images", "--seen", "cat")
    assert ended.code == 0
    assert "1 images have an EXIF orientation other than 1, such as 7.tif" in ended.out
    assert "8.png: all its pixels are 7; expected a picture" in ended.out


def test_predict_notes_a_turned_image_and_turns_it_on_request(deepmac, data: Path) -> None:
    save(data / "images" / "p.tif", orientation=6, size=(64, 48))
    given = ["predict", data / "images" / "p.tif", "--box", "4,4,20,20", "--device", "cpu"]
    sizes = []
    for number, more in enumerate(([], ["--exif", "apply"])):
        ended = deepmac(*given, "--out", data / f"out-{number}", *more)
        assert ended.code == 0, ended.err
        assert ("its EXIF orientation is 6" in ended.err) == (not more)
        (image,) = json.loads((data / f"out-{number}.json").read_text())["images"]
        sizes.append((image["height"], image["width"]))
    assert sizes == [(64, 48), (48, 64)]
    ended = deepmac(*given, "--exif", "twice")
    assert ended.code == 2 and "--exif twice: expected as-stored or apply" in ended.err
    ended = deepmac(*given, "--max-megapixels", "0")
    assert ended.code == 2
