"""Where images are: what a place of images can be asked, and the folder that most are in."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from torch import Tensor

from deepmac_distill.data.image_hashes import sha256_of_files
from deepmac_distill.data.images import MAX_MEGAPIXELS, Exif, orientation_of, read_image, size_of
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json
from deepmac_distill.progress import Progress


class ImageStore(Protocol):
    """Images by the names that an annotation file gives them."""

    @property
    def folder(self) -> Path:
        """Where they are: a folder, the beginning of keys in a bucket, or archives."""
        ...

    @property
    def exif(self) -> Exif:
        """Whether images are turned by their EXIF orientation."""
        ...

    @property
    def max_megapixels(self) -> int:
        """A larger image is refused."""
        ...

    def absolute(self) -> str:
        """The place by a name that holds in every working directory."""
        ...

    def is_there(self) -> bool:
        """Whether the place itself is there."""
        ...

    def absent(self, names: Sequence[str]) -> list[str]:
        """The names that no image has, by listing alone."""
        ...

    def sizes(self, names: Sequence[str]) -> list[int | DataError]:
        """Bytes of each image, or why one is not to be used.

        Without its folders an image is looked for only where no other of the file has the same last part:
        else two would be one.
        """
        ...

    def orientation_of(self, name: str) -> int:
        """The EXIF orientation of an image; 1, as stored, where it has none."""
        ...

    def size_of(self, name: str) -> tuple[int, int]:
        """(height, width) of an image, by its header alone.

        Raises:
            DataError: it is missing or no image.
        """
        ...

    def state_of(self, names: Sequence[str]) -> str:
        """See `SizeSource.state_of`: a hash of the place and of each image's size in bytes and time."""
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

    def versions(self, names: Sequence[str], progress: Progress | None = None) -> list[str]:
        """What changes with the bytes of each file: of a folder `contents`; in a bucket or an archive, which
        would have to be read whole for that, its size and when it was written.

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

    def absolute(self) -> str:
        """See `ImageStore.absolute`."""
        return str(self.folder.resolve())

    def is_there(self) -> bool:
        """See `ImageStore.is_there`."""
        return self.folder.is_dir()

    def absent(self, names: Sequence[str]) -> list[str]:
        """See `ImageStore.absent`; one listing of each folder."""
        listed: dict[Path, frozenset[str]] = {}

        def there(path: Path) -> bool:
            if path.parent not in listed:
                entries = path.parent.iterdir() if path.parent.is_dir() else ()
                listed[path.parent] = frozenset(entry.name for entry in entries)
            return path.name in listed[path.parent]

        return [name for name in names if not any(map(there, _places(self.folder, name)))]

    def sizes(self, names: Sequence[str]) -> list[int | DataError]:
        """See `ImageStore.sizes`."""
        found = self.find(names)
        return [one if isinstance(one, DataError) else one.stat().st_size for one in found]

    def orientation_of(self, name: str) -> int:
        """See `ImageStore.orientation_of`."""
        return orientation_of(self.locate(name))

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
        """`locate` for all images of a file, or why one is not to be used; see `ImageStore.sizes`."""

        def flat(path: Path) -> bool:
            return path.parent == self.folder

        return matched(names, self.locate, flat, lambda name: (self.folder / name).is_file(), self.folder)

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
        """See `ImageStore.size_of`."""
        turned = self.exif == "apply"
        return size_of(self.locate(name), turned=turned, max_megapixels=self.max_megapixels)

    def state_of(self, names: Sequence[str]) -> str:
        """See `ImageStore.state_of`."""
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

    versions = contents

    def _found(self, names: Sequence[str]) -> list[Path]:
        found = self.find(names)
        for one in found:
            if isinstance(one, DataError):
                raise one
        return [one for one in found if isinstance(one, Path)]


Key = TypeVar("Key")


def matched(
    names: Sequence[str],
    locate: Callable[[str], Key],
    flat: Callable[[Key], bool],
    as_named: Callable[[str], bool],
    place: object,
) -> list[Key | DataError]:
    """Where each image of a file is, or why it is not to be used: no two names may mean one image.

    Args:
        locate: where one is; raises DataError.
        flat: whether that is directly in the place.
        as_named: whether an image is there under its whole name.
        place: where they are, for messages.
    """
    by_last_part: dict[str, set[str]] = {}
    for name in names:
        by_last_part.setdefault(PurePosixPath(name).name, set()).add(name)
    name_of: dict[Key, str] = {}
    found: list[Key | DataError] = []
    for name in names:
        others = by_last_part[PurePosixPath(name).name] - {name}
        try:
            key = locate(name)
        except DataError as error:
            found.append(error)
            continue
        if (first := name_of.setdefault(key, name)) != name:
            found.append(DataError(f"{key}: is both {first} and {name}; expected one name"))
        elif others and flat(key) and "/" in name:
            found.append(_ambiguous(name, key, min(others), as_named, place))
        else:
            found.append(key)
    return found


def _ambiguous(
    name: str, key: object, other: str, as_named: Callable[[str], bool], place: object
) -> DataError:
    first, second = sorted((name, other))
    if not as_named(other):
        return DataError(f"{key}: is both {first} and {second}; expected one name")
    return DataError(f"{place}/{name}: no such file; {key} may be {other} as well, expected it in its folder")


def forms_of(name: str) -> Iterator[str]:
    """What an image may be called: as named, without its folders, with accents of one or two characters."""
    forms = [name] if name.isascii() else [name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD"))]
    for form in forms:
        yield form
        yield PurePosixPath(form).name


def _places(folder: Path, name: str) -> Iterator[Path]:
    return (folder / form for form in forms_of(name))
