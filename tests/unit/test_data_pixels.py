"""Pixels of any depth, any orientation and any format: scaled, turned and refused, never taken wrongly."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.images import ImageReader, orientation_of, read_image, size_of
from deepmac_distill.errors import DataError

RAMP = np.arange(20 * 30).reshape(20, 30) / (20 * 30 - 1)  # 0 to 1
BYTES = (RAMP * 255).astype(int)
COLORS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        ((RAMP * 4095).astype(np.uint16), "twelve.png"),
        ((RAMP * 4095).astype(np.uint16), "twelve.tif"),
        ((RAMP * 1023).astype(np.uint16), "ten.tif"),
        ((RAMP * 65535).astype(np.uint16), "sixteen.png"),
        ((RAMP * 2**20).clip(0, 2**20 - 1).astype(np.int32), "twenty.tif"),
        ((RAMP * 255).astype(np.int32), "eight.tif"),
        (RAMP.astype(np.float32), "share.tif"),
        ((RAMP * 255).astype(np.float32), "levels.tif"),
    ],
)
def test_deep_pixels_are_scaled_to_bytes(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    found = read_image(tmp_path / name).numpy().astype(int)
    assert np.abs(found - BYTES).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        ((RAMP * 3000 - 1024).astype(np.int32), "pixels from -1024 to"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "not finite"),
        ((RAMP - 0.5).astype(np.float32), "pixels from -0.5 to"),
        ((RAMP * 1e12).astype(np.float32), "pixels up to 1e+12"),
    ],
)
def test_pixels_without_a_scale_are_refused(tmp_path: Path, pixels: np.ndarray, says: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=f"cannot be decoded .*{says}".replace("+", r"\+")):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_color_of_twelve_bits_in_sixteen_is_refused_and_of_sixteen_read(tmp_path: Path, name: str) -> None:
    deep = COLORS.astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), deep * 257)
    assert np.array_equal(read_image(tmp_path / name).permute(1, 2, 0).numpy(), COLORS[..., ::-1])
    cv2.imwrite(str(tmp_path / name), deep * 16)
    with pytest.raises(DataError, match="16 bits a channel"):
        read_image(tmp_path / name)


def save_turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLORS).save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_acts_only_where_it_is_asked_for(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    """Pillow turns TIFF files by itself, which nobody asked for."""
    path = tmp_path / f"a.{suffix}"
    save_turned(path, orientation)
    assert orientation_of(path) == orientation
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), COLORS)
    turned = read_image(path, turned=True).permute(1, 2, 0).numpy()
    by_quarters = {
        1: COLORS,
        2: COLORS[:, ::-1],
        3: COLORS[::-1, ::-1],
        4: COLORS[::-1],
        5: COLORS.transpose(1, 0, 2),
        6: np.rot90(COLORS, -1),
        7: np.rot90(COLORS, 2).transpose(1, 0, 2),
        8: np.rot90(COLORS),
    }
    assert np.array_equal(turned, by_quarters[orientation])
    assert size_of(path) == (20, 30) and size_of(path, turned=True) == turned.shape[:2]
    assert (
        ImageFolder(tmp_path, "apply").read_sized(path.name, *turned.shape[:2]).shape[1:] == turned.shape[:2]
    )
    if orientation > 4:
        with pytest.raises(DataError, match=f'orientation is {orientation}, and data.exif = "apply"'):
            ImageFolder(tmp_path).read_sized(path.name, 30, 20)
        with pytest.raises(DataError, match=f'orientation is {orientation}, and data.exif = "as-stored"'):
            ImageFolder(tmp_path, "apply").read_sized(path.name, 20, 30)


def test_a_person_who_sees_an_image_turned_is_told(tmp_path: Path) -> None:
    save_turned(tmp_path / "a.jpg", 3)
    save_turned(tmp_path / "b.jpg", 1)
    assert "its EXIF orientation is 3" in ImageReader().note_of(tmp_path / "a.jpg")
    assert ImageReader("apply").note_of(tmp_path / "a.jpg") == ImageReader().note_of(tmp_path / "b.jpg") == ""


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "TGA"])
def test_other_formats_are_not_even_tried_whatever_the_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)
    Image.fromarray(COLORS).save(tmp_path / "a.jpg", format=kind)
    for look in (read_image, size_of):
        with pytest.raises(DataError, match=r"no JPEG, PNG, WEBP, BMP, TIFF or GIF"):
            look(tmp_path / "a.jpg")


def never_decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def load(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    return load


def test_sizes_and_megapixels_are_compared_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (15_000, 12_000)).save(tmp_path / "large.png")  # 22 KB that decode to 540 MB
    Image.fromarray(COLORS).save(tmp_path / "other.png")
    never_decoded(monkeypatch)
    with pytest.raises(
        DataError, match=r"image has 180 megapixels; expected at most 178 .data.max_megapixels"
    ):
        read_image(tmp_path / "large.png")
    with pytest.raises(DataError, match=r"image is 12000 x 15000 .H x W., its annotations give 48 x 64"):
        ImageFolder(tmp_path, max_megapixels=200).read_sized("large.png", 48, 64)
    with pytest.raises(DataError, match=r"image is 20 x 30"):
        ImageFolder(tmp_path).read_sized("other.png", 48, 64)


def test_the_limit_of_megapixels_can_be_raised_and_lowered(tmp_path: Path) -> None:
    Image.new("L", (1500, 1000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"image has 2 megapixels; expected at most 1"):
        read_image(tmp_path / "a.png", max_megapixels=1)
    assert size_of(tmp_path / "a.png", max_megapixels=10**6) == (1000, 1500)
    assert read_image(tmp_path / "a.png", max_megapixels=2).shape == (3, 1000, 1500)
