"""Pictures that a person gives, and the names of what is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.stages.outputs import OURS

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


def files_of(given: Sequence[Path]) -> list[Path]:
    """The files that are named, and the image files directly in the folders that are named, by name.

    Raises:
        DataError: a folder holds no image file.
    """
    found: list[Path] = []
    for path in given:
        inside = (
            sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise DataError(f"{path}: holds no images; expected files such as .jpg or .png")
        found += inside
    return list(dict.fromkeys(found))


def picture_names(files: Sequence[Path]) -> list[str]:
    """A name for each file's picture: its own without suffix, or with it where two would be the same.

    Raises:
        ConfigError: two files have the same whole name.

    >>> picture_names([Path("a/1.jpg"), Path("a/2.jpg"), Path("b/2.png")])
    ['1', '2.jpg', '2.png']
    """
    stems = Counter(file.stem for file in files)
    names = [file.stem if stems[file.stem] == 1 else file.name for file in files]
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(
                f"{name}: {count} images have this name; expected one, or a call for each folder"
            )
    return names


def document_of(
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    how: Mapping[str, Any],
) -> dict[str, Any]:
    """A COCO file that names its maker.

    Args:
        how: which model drew its masks, and how.
    """
    return {"info": {**OURS, **how}, "images": images, "annotations": annotations, "categories": categories}
