"""Pixels of any depth, any orientation and any format: scaled, turned and refused, never taken wrongly."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
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


def tiff(
    pixels: np.ndarray, photometric: int, sample_format: int = 1, deflate: bool = False, **more: int
) -> bytes:
    """A TIFF of one strip with tags that no writer at hand writes; `more`: such as `t530=1`, then twice."""
    height, width, *rest = pixels.shape
    channels, strip = (rest or [1])[0], pixels.tobytes()
    strip = zlib.compress(strip) if deflate else strip
    tags = {
        **{256: [width], 257: [height], 258: [8 * pixels.itemsize] * channels, 259: [8 if deflate else 1]},
        **{262: [photometric], 273: [8], 277: [channels], 278: [height], 279: [len(strip)], 284: [1]},
        339: [sample_format] * channels,
        **{int(tag[1:]): [value] * (2 if tag == "t530" else 1) for tag, value in more.items()},
    }
    start = 8 + len(strip) + len(strip) % 2
    entries, far = b"", b""
    for tag, values in sorted(tags.items()):
        raw = struct.pack(f"<{len(values)}I", *values)
        if len(raw) > 4:
            far, raw = far + raw, struct.pack("<I", start + 2 + 12 * len(tags) + 4 + len(far))
        entries += struct.pack("<HHI", tag, 4, len(values)) + raw
    return b"".join(
        (b"II*\0", struct.pack("<I", start), strip, b"\0" * (len(strip) % 2)),
    ) + b"".join((struct.pack("<H", len(tags)), entries, b"\0" * 4, far))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(
    ("pixels", "tags", "says"),
    [
        ((RAMP * 65535).astype(np.uint16), {"photometric": 0}, "white is zero"),
        (RAMP.astype(np.float32), {"photometric": 0, "sample_format": 3}, "white is zero"),
        (
            (RAMP * 255 - 128).astype(np.int8),
            {"photometric": 1, "sample_format": 2},
            "signed pixels of 8 bits",
        ),
        (np.dstack([COLORS, COLORS[..., 0]]), {"photometric": 5, "t332": 2}, "inks that are not CMYK"),
    ],
)
def test_pixels_that_pillow_would_take_for_others_are_refused_by_the_header(
    tmp_path: Path, deflate: bool, pixels: np.ndarray, tags: dict[str, int], says: str
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(pixels, deflate=deflate, **tags))
    for look in (read_image, size_of):
        with pytest.raises(DataError, match=f"a.tif: cannot be decoded .*{says}"):
            look(path)


@pytest.mark.parametrize("deflate", [False, True])
def test_white_as_zero_in_eight_bits_is_turned_round(tmp_path: Path, deflate: bool) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(BYTES.astype(np.uint8), 0, deflate=deflate))
    assert np.array_equal(read_image(tmp_path / "a.tif")[0].numpy(), 255 - BYTES)


def test_coarser_colors_without_compression_are_refused_and_full_ones_read(tmp_path: Path) -> None:
    gray = np.stack([BYTES, *2 * [np.full_like(BYTES, 128)]], -1).astype(np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(gray, 6, t530=1))
    assert np.abs(read_image(tmp_path / "a.tif")[0].numpy() - BYTES).max() <= 1
    (tmp_path / "a.tif").write_bytes(tiff(gray, 6, t530=2))
    with pytest.raises(DataError, match="colors at another resolution"):
        read_image(tmp_path / "a.tif")


def test_inks_of_a_jpeg_without_adobes_marker_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.dstack([COLORS, COLORS[..., 0]]), "CMYK").save(path)
    assert read_image(path).shape == (3, 20, 30)
    marked = path.read_bytes()
    start = marked.index(b"Adobe") - 4
    path.write_bytes(
        marked[:start] + marked[start + 2 + int.from_bytes(marked[start + 2 : start + 4], "big") :]
    )
    with pytest.raises(DataError, match="CMYK without Adobe's marker"):
        read_image(path)
