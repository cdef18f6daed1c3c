"""Where images are: what a place of images can be asked, and the folder that most are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from torch import Tensor

from deepmac_distill.data.image_hashes import sha256_of_files
from deepmac_distill.data.image_names import forms_of, matched, no_such_file
from deepmac_distill.data.images import (
    MAX_MEGAPIXELS,
    Exif,
    orientation_of,
    read_image,
    require_whole,
    size_of,
)
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

    def require_whole(self, name: str, height: int, width: int) -> None:
        """Refuse what is no image of this size, or an image whose end is missing; see `images.require_whole`.

        Raises:
            DataError: as `read_sized`.
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
        raise no_such_file(self.folder / name, self._near(name))

    def _near(self, name: str) -> str:
        """What is there under this name or one in another case of letters; empty where nothing is."""
        for path in _places(self.folder, name):
            if found := _folded(path.parent, _changed_ns(path.parent)).get(path.name.casefold()):
                return found
        return ""

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

    def require_whole(self, name: str, height: int, width: int) -> None:
        """See `ImageStore.require_whole`."""
        require_whole(
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


def _places(folder: Path, name: str) -> Iterator[Path]:
    return (folder / form for form in forms_of(name))


def _changed_ns(folder: Path) -> int:
    return folder.stat().st_mtime_ns if folder.is_dir() else 0


@lru_cache(maxsize=8)
def _folded(folder: Path, changed_ns: int) -> Mapping[str, str]:
    """The names in a folder as it was at a time, by the names without case; one listing for all misses."""
    return {path.name.casefold(): path.name for path in folder.iterdir()} if changed_ns else {}
