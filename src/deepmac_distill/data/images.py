"""Image files become RGB tensors, or an error that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from deepmac_distill.errors import DataError

# What Pillow raises for a broken file, by format and by what is broken.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path, *, turned: bool = False) -> Tensor:
    """Decode an image file: (3, H, W) uint8 RGB, of an animation the first frame.

    Gray and palette images are spread over three channels, transparency is dropped, 16 bits become 8. An EXIF
    orientation is applied only where `turned`: COCO's sizes, boxes and masks are on the pixels as stored.
    Pillow decodes, at 1.3 ms for a 512 px photograph; torchvision does in 0.9 ms, but is to lose its
    decoders.

    Raises:
        DataError: the file is missing, truncated, or no image.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an image")
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened) if turned else opened
            if image.mode.startswith("I;16"):  # Pillow would cut at 255 instead of scaling
                pixels = np.repeat((np.array(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            else:
                pixels = np.array(image.convert("RGB"))
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()).replace(f" '{path}'", "")
        raise DataError(f"{path}: cannot be decoded ({reason}); expected a whole image") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def orientation_of(path: Path) -> int:
    """The EXIF orientation of an image file, 1 to 8; 1, as stored, where the tag is absent or invalid."""
    try:
        with Image.open(path) as image:
            tag = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _UNREADABLE:
        return 1
    return tag if tag in range(1, 9) else 1


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of the pixels as stored, by the header of an image file.

    Raises:
        DataError: it is no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be decoded ({error}); expected an image") from error
