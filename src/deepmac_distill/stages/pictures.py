"""Pictures that a person gives, and files that are written for them: never over what is not ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deepmac_distill.errors import ConfigError, DataError, RunError
from deepmac_distill.report.contact_sheet import SOFTWARE

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


def require_ours(outputs: Iterable[Path], inputs: Sequence[Path]) -> None:
    """Refuse to write over an input, or over a file that this program did not make.

    Raises:
        RunError: names the file.
    """
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise RunError(f"{path}: is an input; expected another --out")
        if path.exists() and not _is_ours(path):
            raise RunError(f"{path}: is there and deepmac did not make it; expected another --out")


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
    about = {"description": SOFTWARE, **how}
    return {"info": about, "images": images, "annotations": annotations, "categories": categories}


def _is_ours(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            return bool(json.loads(path.read_bytes())["info"]["description"] == SOFTWARE)
        with Image.open(path) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, LookupError, TypeError):  # no picture, no JSON, or JSON of another shape
        return False
