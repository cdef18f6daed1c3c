"""Where images are: a folder today; whatever has these few methods tomorrow."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from torch import Tensor

from deepmac_distill.data.images import orientation_of, read_image, size_of
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json

Exif = Literal["as-stored", "apply"]


class ImageStore(Protocol):
    """Images by the names that an annotation file gives them."""

    def read(self, name: str) -> Tensor:
        """(3, H, W) uint8 RGB.

        Raises:
            DataError: the image is missing or cannot be decoded.
        """
        ...

    def read_sized(self, name: str, height: int, width: int) -> Tensor:
        """`read`, held to the size that the annotations were drawn on.

        Raises:
            DataError: as `read`, or the image has another size.
        """
        ...

    def fingerprints(self, names: Sequence[str]) -> list[list[object]]:
        """Names and sizes in bytes: a change of an image shows in them at the price of one look at each.

        Raises:
            DataError: an image is missing, or two names mean one image.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images in a folder."""

    folder: Path
    exif: Exif = "as-stored"  # COCO's sizes, boxes and masks are on the pixels as stored

    def __str__(self) -> str:
        return str(self.folder)

    def locate(self, name: str) -> Path:
        """`folder`/`name`, or directly in `folder` (`val2017/1.jpg` as `1.jpg`), in any Unicode form.

        Raises:
            DataError: in neither place.
        """
        for path in _places(self.folder, name):
            if path.is_file():
                return path
        raise DataError(f"{self.folder / name}: no such file; expected an image")

    def read(self, name: str) -> Tensor:
        """See `ImageStore.read`."""
        return read_image(self.locate(name), turned=self.exif == "apply")

    def read_sized(self, name: str, height: int, width: int) -> Tensor:
        """See `ImageStore.read_sized`."""
        path = self.locate(name)
        image = read_image(path, turned=self.exif == "apply")
        if image.shape[1:] != (height, width):
            got = f"{image.shape[1]} x {image.shape[2]}"
            reason = ""
            if image.shape[1:] == (width, height) and (tag := orientation_of(path)) > 4:
                other = "apply" if self.exif == "as-stored" else "as-stored"
                reason = f'; its EXIF orientation is {tag}, and data.exif = "{other}" turns it to this size'
            raise DataError(
                f"{path}: image is {got} (H x W), its annotations give {height} x {width}{reason}"
            )
        return image

    def size_of(self, name: str) -> tuple[int, int]:
        """(height, width) of an image, by its header alone.

        Raises:
            DataError: it is missing or no image.
        """
        path = self.locate(name)
        height, width = size_of(path)
        turned = self.exif == "apply" and orientation_of(path) > 4
        return (width, height) if turned else (height, width)

    def state_of(self, names: Sequence[str]) -> str:
        """See `SizeSource.state_of`: a hash of the folder and of each image's size in bytes and time."""
        found: list[object] = [str(self.folder.resolve()), self.exif]
        for name in names:
            path = next((path for path in _places(self.folder, name) if path.is_file()), None)
            stat = path.stat() if path else None
            found.append(stat and [stat.st_size, stat.st_mtime_ns, stat.st_ino])
        return sha256_of_json(found)

    def fingerprints(self, names: Sequence[str]) -> list[list[object]]:
        """See `ImageStore.fingerprints`."""
        found: list[list[object]] = []
        name_of: dict[Path, str] = {}
        for name in names:
            path = self.locate(name)
            if name_of.setdefault(path, name) != name:
                raise DataError(f"{path}: is both {name_of[path]} and {name}; expected one name")
            found.append([name, path.stat().st_size])
        return found

    def turned(self, names: Sequence[str]) -> list[str]:
        """The names of images with an EXIF orientation other than 1."""
        return [name for name in names if orientation_of(self.locate(name)) != 1]


def absent_images(names: Sequence[str], folder: Path) -> list[str]:
    """The names that `ImageFolder.locate` would not find, by one listing of each folder."""
    listed: dict[Path, frozenset[str]] = {}

    def there(path: Path) -> bool:
        if path.parent not in listed:
            entries = path.parent.iterdir() if path.parent.is_dir() else ()
            listed[path.parent] = frozenset(entry.name for entry in entries)
        return path.name in listed[path.parent]

    return [name for name in names if not any(map(there, _places(folder, name)))]


def _places(folder: Path, name: str) -> Iterator[Path]:
    """Where an image may be: as named, without its folders, and with accents in one or in two characters."""
    forms = [name] if name.isascii() else [name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD"))]
    for form in forms:
        yield folder / form
        yield folder / PurePosixPath(form).name
