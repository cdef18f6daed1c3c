from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from deepmac_distill.data.image_check import find_image_problems
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.images import ImageBytes, orientation_of, read_image, size_of
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError, MachineError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
BROKEN = ("truncated.jpg", "truncated.png", "text.jpg", "empty.jpg", "missing.jpg")


def test_an_image_is_read_as_opencv_reads_it(tmp_path: Path) -> None:
    smooth = Image.fromarray(PIXELS).resize((64, 48), Image.Resampling.BICUBIC)
    for mode, ending, levels in (
        ("RGB", "png", 0),
        ("L", "png", 0),
        ("P", "png", 0),
        ("RGB", "jpg", 4),
        ("L", "jpg", 1),
    ):
        path = tmp_path / f"image.{ending}"
        smooth.convert(mode).save(path)
        expected = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        assert np.abs(read_image(path).permute(1, 2, 0).numpy() - expected).max() <= levels, (mode, ending)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    clear = np.concatenate([PIXELS, np.full((20, 30, 1), 7, dtype=np.uint8)], axis=2)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert np.array_equal(read_image(tmp_path / "clear.png").permute(1, 2, 0).numpy(), PIXELS)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png")[1].numpy(), PIXELS[..., 0])


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(PIXELS).convert("P"), Image.fromarray(255 - PIXELS).convert("P")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    expected = np.asarray(frames[0].convert("RGB"))
    assert np.array_equal(read_image(tmp_path / "moving.gif").permute(1, 2, 0).numpy(), expected)


def test_exif_orientation_is_not_applied_because_boxes_are_on_stored_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter when shown
    Image.fromarray(PIXELS).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (3, 20, 30)


def write_broken(folder: Path) -> None:
    Image.fromarray(PIXELS).save(folder / "whole.jpg")
    Image.fromarray(PIXELS).save(folder / "whole.png")
    for name in ("jpg", "png"):
        whole = (folder / f"whole.{name}").read_bytes()
        (folder / f"truncated.{name}").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not an image at all")
    (folder / "empty.jpg").write_bytes(b"")


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_image_is_an_error_on_one_line_that_names_the_file(
    tmp_path: Path, name: str
) -> None:
    write_broken(tmp_path)
    path = tmp_path / name
    with pytest.raises(DataError, match="expected") as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_than_its_annotations_is_refused_with_both_sizes(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"20 x 30 \(H x W\).*30 x 20"):
        ImageFolder(tmp_path).read_sized("a.png", 30, 20)


def test_an_image_is_found_by_its_path_or_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "1.jpg").touch()
    (tmp_path / "2.jpg").touch()
    assert ImageFolder(tmp_path).locate("val2017/1.jpg") == tmp_path / "val2017" / "1.jpg"
    assert ImageFolder(tmp_path).locate("val2017/2.jpg") == tmp_path / "2.jpg"
    with pytest.raises(DataError, match=r"3\.jpg: no such file"):
        ImageFolder(tmp_path).locate("3.jpg")


def test_every_image_problem_is_found_not_only_the_first(tmp_path: Path) -> None:
    write_broken(tmp_path)
    names = ("whole.jpg", "truncated.jpg", "missing.jpg", "whole.png")
    images = [{"id": i, "file_name": n, "height": 20, "width": 30} for i, n in enumerate(names)]
    images[3]["width"] = 31
    raw = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(raw))
    problems = list(
        find_image_problems(
            Dataset.open(tmp_path / "a.json", seen="all").for_training(), ImageFolder(tmp_path)
        )
    )
    assert [p.where.rsplit(" ", 1)[1] for p in problems] == ["1", "2", "3"]
    assert {p.level for p in problems} == {"error"}


def test_damaged_exif_is_no_warning_of_another_library(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "photo.jpg"
    Image.fromarray(PIXELS).save(path, exif=exif)
    whole = path.read_bytes()
    assert orientation_of(path) == 6
    at = whole.index(b"MM\x00*") + 8
    path.write_bytes(whole[:at] + b"\x00\x09" + whole[at + 2 :])  # nine entries, of which one is there
    assert (read_image(path).shape, size_of(path), orientation_of(path)) == ((3, 20, 30), (20, 30), 6)
    assert recwarn.list == []


def test_what_pillow_logs_of_a_broken_file_does_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    path = tmp_path / "photo.tif"
    Image.fromarray(PIXELS).save(path)
    whole = path.read_bytes()
    samples = whole.index(b"\x15\x01\x03\x00")  # the tag of samples per pixel
    path.write_bytes(whole[: samples + 8] + b"\x00\x08" + whole[samples + 10 :])
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        *((OSError(n, os.strerror(n)), os.strerror(n)) for n in (errno.EMFILE, errno.EIO, errno.ENFILE)),
        *((OSError(n, os.strerror(n)), os.strerror(n)) for n in (errno.EACCES, errno.ESTALE)),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out of memory: Cannot allocate memory"),
        (MemoryError(), "out of memory: MemoryError"),
    ],
)
@pytest.mark.parametrize("read", [read_image, size_of, orientation_of])
def test_what_the_machine_refuses_is_no_broken_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str, read: Any
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)

    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(Image, "open", fail)
    for image in (path, ImageBytes("s3://bucket/photo.png", path.read_bytes())):
        with pytest.raises(MachineError) as ended:
            read(image)
        assert str(ended.value).startswith(f"{image}: {reason}; expected ")


@pytest.mark.parametrize("failure", [OSError("truncated"), OSError(errno.EINVAL, "Invalid argument")])
def test_what_pillow_raises_for_a_broken_file_stays_an_error_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)

    def fail(*_: Any, **__: Any) -> None:
        raise failure  # such as a place before the start of a file, which a damaged TIFF names

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(path)
