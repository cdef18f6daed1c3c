"""Image files become RGB tensors, or an error that names the file."""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from deepmac_distill.data.pixels import misread, rgb_of
from deepmac_distill.errors import DataError, MachineError
from deepmac_distill.machine import is_of_the_machine, refused_by_the_machine

Exif = Literal["as-stored", "apply"]
# Others that Pillow knows start programs (EPS), or are so rare that their decoders are hardly tried.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_MEGAPIXELS = 178  # Pillow's own limit: more is a mistake, or meant to exhaust memory
# What Pillow raises for a broken file, by format and by what is broken; some of it is the machine's.
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError),
    *(MemoryError, struct.error, zlib.error),
)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors reach the terminal as well
_LAST_OF_PNG = bytes.fromhex("00000000 49454e44 ae426082")  # the chunk that ends it
_TURN = {  # EXIF orientation: what makes stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURN_BACK = _TURN | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An image that is no file of its own."""

    name: str  # for messages
    content: bytes

    def __str__(self) -> str:
        return self.name


def read_image(
    path: Path | ImageBytes,
    *,
    turned: bool = False,
    size: tuple[int, int] | None = None,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Tensor:
    """Decode an image file: (3, H, W) uint8 RGB, of an animation the first frame.

    Gray and palette images are spread over three channels, transparency is dropped, deeper pixels become
    bytes (see `pixels.rgb_of`). An EXIF orientation is applied only where `turned`: COCO's sizes, boxes and
    masks are on the pixels as stored. Pillow decodes, at 1.3 ms for a 512 px photograph; torchvision does in
    0.9 ms, but is to lose its decoders.

    Args:
        size: (height, width) that the image must have; compared before anything is decoded.
        max_megapixels: a larger image is refused before it is decoded.

    Raises:
        DataError: the file is missing, truncated, no image of `FORMATS`, too large, or of another size.
        MachineError: memory, a limit of open files, a permission or the disk does not let it be read.
    """
    with _opened(path, max_megapixels) as opened:
        orientation = _orientation(opened)
        if size is not None:
            _require_size(path, opened, size, turned)
        upright = opened.format == "TIFF"  # Pillow turns these by itself
        turns = {} if upright == turned else _TURN if turned else _TURN_BACK
        pixels = rgb_of(opened, turns.get(orientation))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def orientation_of(path: Path | ImageBytes) -> int:
    """The EXIF orientation of an image file, 1 to 8; 1, as stored, where the tag is absent or invalid."""
    try:
        with without_warnings(), Image.open(_source(path), formats=FORMATS) as image:
            return _orientation(image)
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        _refuse_for_the_machine(path, error)
        return 1


def size_of(
    path: Path | ImageBytes, *, turned: bool = False, max_megapixels: int = MAX_MEGAPIXELS
) -> tuple[int, int]:
    """(height, width) of an image file, by its header alone.

    Args:
        turned: whether its EXIF orientation is applied.

    Raises:
        DataError: it is no image.
        MachineError: as `read_image`.
    """
    with _opened(path, max_megapixels) as image:
        return _size(image, _orientation(image), turned)


def require_whole(
    path: Path | ImageBytes,
    *,
    turned: bool = False,
    size: tuple[int, int],
    max_megapixels: int = MAX_MEGAPIXELS,
) -> None:
    """Refuse a file as `read_image` would, by its header and its last bytes.

    One that does not end as its format does may still be whole (cameras append to a JPEG), so it is decoded.

    Raises:
        DataError, MachineError: as `read_image`.
    """
    with _opened(path, max_megapixels) as opened:
        _require_size(path, opened, size, turned)
        ends = _ends_whole(path, opened.format)
    if not ends:
        read_image(path, turned=turned, size=size, max_megapixels=max_megapixels)


def _ends_whole(path: Path | ImageBytes, kind: str | None) -> bool:
    """Whether a file ends as its format does; True where that cannot be seen, as of a TIFF."""
    source = _source(path)
    with source.open("rb") if isinstance(source, Path) else source as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(max(length - len(_LAST_OF_PNG), 0))
        last = file.read()
        file.seek(4)
        stated = int.from_bytes(file.read(4), "little")
    match kind:
        case "JPEG":
            return last.endswith(b"\xff\xd9")
        case "PNG":
            return last == _LAST_OF_PNG
        case "WEBP":
            return length >= stated + 8
        case "GIF":
            return last.endswith(b";")
        case "BMP":
            return False
    return True


def _require_size(path: Path | ImageBytes, image: Image.Image, size: tuple[int, int], turned: bool) -> None:
    orientation = _orientation(image)
    if (got := _size(image, orientation, turned)) != size:
        raise DataError(_size_message(path, got, size, orientation, turned))


@dataclass(frozen=True, slots=True)
class ImageReader:
    """How images are read that are no part of a data set."""

    exif: Exif = "as-stored"
    max_megapixels: int = MAX_MEGAPIXELS

    def read(self, path: Path) -> Tensor:
        """See `read_image`."""
        return read_image(path, turned=self.exif == "apply", max_megapixels=self.max_megapixels)

    def note_of(self, path: Path) -> str:
        """What a person should know who sees the image turned; empty where that is not so."""
        tag = orientation_of(path)
        if tag == 1 or self.exif == "apply":
            return ""
        return (
            f"{path}: its EXIF orientation is {tag}; boxes and masks are on the pixels as stored, "
            "--exif apply turns it as viewers do"
        )


@contextmanager
def _opened(path: Path | ImageBytes, max_megapixels: int) -> Iterator[ImageFile.ImageFile]:
    """An image whose header is read; what fails on it is an error on one line that names the file."""
    if isinstance(path, Path) and not _is_file(path):
        raise DataError(f"{path}: no such file; expected an image")
    if max_megapixels > MAX_MEGAPIXELS:
        allowed = max_megapixels * 500_000  # Pillow refuses what has twice as many
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, allowed)
    try:
        with without_warnings(), Image.open(_source(path), formats=FORMATS) as image:
            if (pixels := image.width * image.height) > max_megapixels * 1_000_000:
                raise Image.DecompressionBombError(f"{pixels} pixels")
            if odd := misread(image):
                raise ValueError(f"{odd}; write it as RGB, or as gray with black as zero")
            yield image
    except UnidentifiedImageError:
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise DataError(f"{path}: cannot be decoded (no {kinds}); expected a whole image") from None
    except Image.DecompressionBombError as error:
        got = re.search(r"\d+", str(error))
        raise DataError(
            f"{path}: image has {int(got[0]) / 1e6 if got else 0:.0f} megapixels; expected at most "
            f"{max_megapixels} (data.max_megapixels)"
        ) from None
    except _UNREADABLE as error:
        _refuse_for_the_machine(path, error)
        reason = " ".join(str(error).split()).replace(f" '{path}'", "") or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({reason}); expected a whole image") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        _refuse_for_the_machine(path, error)
        raise


def _refuse_for_the_machine(path: Path | ImageBytes, error: BaseException) -> None:
    """What another machine, or this one at another time, would read is no broken image, and never skipped."""
    if is_of_the_machine(error):
        reason = (refused_by_the_machine(error) or "").removeprefix(f"{path}: ")
        raise MachineError(f"{path}: {reason}") from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """Pillow warns of large images, damaged EXIF and palettes on lines that name no file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _source(path: Path | ImageBytes) -> Path | io.BytesIO:
    return path if isinstance(path, Path) else io.BytesIO(path.content)


def _orientation(image: Image.Image) -> int:
    """Of the header; a PNG may hold its own behind the pixels, for which Pillow would decode them all."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    tag = image.getexif().get(ExifTags.Base.Orientation, 1)
    return tag if tag in range(1, 9) else 1


def _size(image: Image.Image, orientation: int, turned: bool) -> tuple[int, int]:
    """(height, width) before decoding; of a TIFF Pillow gives that of the turned image."""
    swapped = (image.format == "TIFF" and orientation > 4) != (turned and orientation > 4)
    return (image.width, image.height) if swapped else (image.height, image.width)


def _size_message(
    path: Path | ImageBytes, got: tuple[int, int], expected: tuple[int, int], orientation: int, turned: bool
) -> str:
    reason = ""
    if got == expected[::-1] and orientation > 4:
        other = "as-stored" if turned else "apply"
        reason = f'; its EXIF orientation is {orientation}, and data.exif = "{other}" turns it to this size'
    got_words, expected_words = (f"{height} x {width}" for height, width in (got, expected))
    return f"{path}: image is {got_words} (H x W), its annotations give {expected_words}{reason}"
