"""Image files become RGB tensors, or an error that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepmac_distill.dataset.coco import Annotations
from deepmac_distill.dataset.problems import Problem
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json

# What Pillow raises for a broken file, by format and by what is broken.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path) -> Tensor:
    """Decode an image file: (3, H, W) uint8 RGB, of an animation the first frame.

    Gray and palette images are spread over three channels, transparency is dropped, 16 bits become 8. An EXIF
    orientation is not applied: COCO's sizes, boxes and masks are on the pixels as stored. Pillow decodes,
    at 1.3 ms for a 512 px photograph; torchvision does in 0.9 ms, but is to lose its decoders.

    Raises:
        DataError: the file is missing, truncated, or no image.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an image")
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):  # Pillow would cut at 255 instead of scaling
                pixels = np.repeat((np.array(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            else:
                pixels = np.array(image.convert("RGB"))
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()).replace(f" '{path}'", "")
        raise DataError(f"{path}: cannot be decoded ({reason}); expected a whole image") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_sized_image(path: Path, height: int, width: int) -> Tensor:
    """`read_image`, held to the size that the annotations were drawn on: (3, height, width) uint8 RGB.

    Raises:
        DataError: as `read_image`, or the image has another size.
    """
    image = read_image(path)
    if image.shape[1:] != (height, width):
        got = f"{image.shape[1]} x {image.shape[2]}"
        raise DataError(f"{path}: image is {got} (H x W), its annotations say {height} x {width}")
    return image


def resolve_image(folder: Path, file_name: str) -> Path:
    """Where an image is: `folder`/`file_name`, or directly in `folder` (`val2017/1.jpg` as `1.jpg`).

    Raises:
        DataError: in neither place.
    """
    for path in (folder / file_name, folder / PurePosixPath(file_name).name):
        if path.is_file():
            return path
    raise DataError(f"{folder / file_name}: no such file; expected an image")


def find_image_problems(annotation_set: Annotations, folder: Path) -> Iterator[Problem]:
    """Every image that is missing, cannot be decoded, or has another size than its annotations say."""
    if not folder.is_dir():
        yield Problem("error", str(folder), "no such folder; expected the images")
        return
    for image in annotation_set.images.to_pylist():
        try:
            read_sized_image(resolve_image(folder, image["file_name"]), image["height"], image["width"])
        except DataError as error:
            yield Problem("error", f"{annotation_set.path}: image {image['image_id']}", str(error))


def images_sha256(annotation_set: Annotations, folder: Path) -> str:
    """A fingerprint of the images of a set: their names and sizes in bytes, not their pixels.

    It costs one look at each file, so that a missing image is found before any work and not after hours.

    Raises:
        DataError: an image is missing.
    """
    names = annotation_set.images["file_name"].to_pylist()
    return sha256_of_json([[name, resolve_image(folder, name).stat().st_size] for name in names])
