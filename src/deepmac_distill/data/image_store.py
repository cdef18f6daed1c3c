"""Where images are: a folder today; whatever has these few methods tomorrow."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from torch import Tensor

from deepmac_distill.data.image_hashes import sha256_of_files
from deepmac_distill.data.images import MAX_MEGAPIXELS, Exif, read_image, size_of
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json
from deepmac_distill.progress import Progress


class ImageStore(Protocol):
    """Images by the names that an annotation file gives them."""

    @property
    def exif(self) -> Exif:
        """Whether images are turned by their EXIF orientation."""
        ...

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
        """Names and sizes in bytes, at the price of one look at each file.

        Raises:
            DataError: an image is missing, or two names mean one image.
        """
        ...

    def contents(self, names: Sequence[str], progress: Progress | None = None) -> list[str]:
        """SHA-256 of each file; only what changed since it was hashed is read, under a bar where it is much.

        Raises:
            DataError: as `fingerprints`.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images in a folder."""

    folder: Path
    exif: Exif = "as-stored"  # COCO's sizes, boxes and masks are on the pixels as stored
    max_megapixels: int = MAX_MEGAPIXELS  # a larger image is refused

    def __str__(self) -> str:
        return str(self.folder)

    def locate(self, name: str) -> Path:
        """`folder`/`name`, or directly in `folder` (`val2017/1.jpg` as `1.jpg`), in any Unicode form.

        Raises:
            DataError: in neither place.
        """
        try:
            for path in _places(self.folder, name):
                if path.is_file():
                    return path
        except OSError as error:  # such as a name too long for any file system
            reason = f"{error.strerror}; expected an image"
            raise DataError(f"{self.folder / name}: {reason}") from error
        raise DataError(f"{self.folder / name}: no such file; expected an image")

    def find(self, names: Sequence[str]) -> list[Path | DataError]:
        """`locate` for all images of a file, or why one is not to be used.

        Without its folders an image is looked for only where no other of the file has the same last part:
        else two would be one.
        """
        by_last_part: dict[str, set[str]] = {}
        for name in names:
            by_last_part.setdefault(PurePosixPath(name).name, set()).add(name)
        name_of: dict[Path, str] = {}
        found: list[Path | DataError] = []
        for name in names:
            others = by_last_part[PurePosixPath(name).name] - {name}
            try:
                path = self.locate(name)
            except DataError as error:
                found.append(error)
                continue
            if (first := name_of.setdefault(path, name)) != name:
                found.append(DataError(f"{path}: is both {first} and {name}; expected one name"))
            elif others and path.parent == self.folder and "/" in name:
                found.append(self._ambiguous(name, path, min(others)))
            else:
                found.append(path)
        return found

    def _ambiguous(self, name: str, path: Path, other: str) -> DataError:
        first, second = sorted((name, other))
        if not (self.folder / other).is_file():
            return DataError(f"{path}: is both {first} and {second}; expected one name")
        return DataError(
            f"{self.folder / name}: no such file; {path} may be {other} as well, expected it in its folder"
        )

    def read(self, name: str) -> Tensor:
        """See `ImageStore.read`."""
        turned = self.exif == "apply"
        return read_image(self.locate(name), turned=turned, max_megapixels=self.max_megapixels)

    def read_sized(self, name: str, height: int, width: int) -> Tensor:
        """See `ImageStore.read_sized`."""
        return read_image(
            self.locate(name),
            turned=self.exif == "apply",
            size=(height, width),
            max_megapixels=self.max_megapixels,
        )

    def size_of(self, name: str) -> tuple[int, int]:
        """(height, width) of an image, by its header alone.

        Raises:
            DataError: it is missing or no image.
        """
        turned = self.exif == "apply"
        return size_of(self.locate(name), turned=turned, max_megapixels=self.max_megapixels)

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
        pairs = zip(names, self._found(names), strict=True)
        return [[name, path.stat().st_size] for name, path in pairs]

    def contents(self, names: Sequence[str], progress: Progress | None = None) -> list[str]:
        """See `ImageStore.contents`."""
        return sha256_of_files(self.folder, self._found(names), progress)

    def _found(self, names: Sequence[str]) -> list[Path]:
        found = self.find(names)
        for one in found:
            if isinstance(one, DataError):
                raise one
        return [one for one in found if isinstance(one, Path)]


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
