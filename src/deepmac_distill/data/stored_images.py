"""Images in a bucket or in archives: what is there is listed once, and each is read when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from torch import Tensor

from deepmac_distill.data.image_names import forms_of, matched, no_such_file
from deepmac_distill.data.images import (
    MAX_MEGAPIXELS,
    Exif,
    ImageBytes,
    orientation_of,
    read_image,
    require_whole,
    size_of,
)
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.storage.failures import Gone
from deepmac_distill.storage.location import Location, shown
from deepmac_distill.storage.store import Object, store_of

AT_ONCE = 16  # images that are read together where only their hashes are asked for
WORTH_A_BAR = 2**28  # bytes: seconds of a network


class Shelf(Protocol):
    """Named bytes that are listed and read."""

    def __hash__(self) -> int: ...

    def entries(self) -> Mapping[str, Object]:
        """Everything that is there, by name."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one of the entries."""
        ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """The objects below a place in a bucket."""

    place: Location

    def entries(self) -> Mapping[str, Object]:
        """See `Shelf.entries`; listed once in a process, which sees one state of it."""
        return _listed(self.place)

    def read(self, name: str) -> bytes:
        """See `Shelf.read`."""
        return store_of(self.place).read(self.place / name)


@lru_cache(maxsize=8)
def _listed(place: Location) -> Mapping[str, Object]:
    return store_of(place).listed(place)


@dataclass(frozen=True, slots=True)
class StoredImages:
    """The images of a shelf. A name is looked up among its entries, so it leads nowhere else."""

    shelf: Shelf = field(repr=False)
    folder: Path  # as it was named; a URI has lost a slash
    exif: Exif = "as-stored"
    max_megapixels: int = MAX_MEGAPIXELS

    def __str__(self) -> str:
        return shown(self.folder)

    def absolute(self) -> str:
        """See `ImageStore.absolute`."""
        return str(self) if "://" in str(self) else str(self.folder.absolute())

    def is_there(self) -> bool:
        """See `ImageStore.is_there`."""
        return bool(self.shelf.entries())

    def absent(self, names: Sequence[str]) -> list[str]:
        """See `ImageStore.absent`."""
        return [name for name in names if self._key(name) is None]

    def sizes(self, names: Sequence[str]) -> list[int | DataError]:
        """See `ImageStore.sizes`."""
        entries = self.shelf.entries()
        return [one if isinstance(one, DataError) else entries[one].size for one in self._matched(names)]

    def orientation_of(self, name: str) -> int:
        """See `ImageStore.orientation_of`."""
        return orientation_of(self._image(name))

    def read(self, name: str) -> Tensor:
        """See `ImageStore.read`."""
        turned = self.exif == "apply"
        return read_image(self._image(name), turned=turned, max_megapixels=self.max_megapixels)

    def read_sized(self, name: str, height: int, width: int) -> Tensor:
        """See `ImageStore.read_sized`."""
        return read_image(
            self._image(name),
            turned=self.exif == "apply",
            size=(height, width),
            max_megapixels=self.max_megapixels,
        )

    def require_whole(self, name: str, height: int, width: int) -> None:
        """See `ImageStore.require_whole`; the whole image is read."""
        require_whole(
            self._image(name),
            turned=self.exif == "apply",
            size=(height, width),
            max_megapixels=self.max_megapixels,
        )

    def size_of(self, name: str) -> tuple[int, int]:
        """See `ImageStore.size_of`; the whole image is read."""
        turned = self.exif == "apply"
        return size_of(self._image(name), turned=turned, max_megapixels=self.max_megapixels)

    def state_of(self, names: Sequence[str]) -> str:
        """See `ImageStore.state_of`."""
        entries, found = self.shelf.entries(), list[object]((self.absolute(), self.exif))
        for name in names:
            key = self._key(name)
            found.append(key and [entries[key].size, entries[key].changed_ns])
        return sha256_of_json(found)

    def fingerprints(self, names: Sequence[str]) -> list[list[object]]:
        """See `ImageStore.fingerprints`."""
        entries = self.shelf.entries()
        return [[name, entries[key].size] for name, key in zip(names, self._found(names), strict=True)]

    def contents(self, names: Sequence[str], progress: Progress | None = None) -> list[str]:
        """See `ImageStore.contents`; each is read, every time."""
        keys, entries = self._found(names), self.shelf.entries()
        large = sum(entries[key].size for key in keys) > WORTH_A_BAR
        shown_at = progress if progress is not None and large else Silent()
        hashes = []
        with (
            shown_at.bar("hashing images", len(keys), unit="image") as bar,
            ThreadPoolExecutor(AT_ONCE) as threads,
        ):
            for sha256 in threads.map(lambda key: hashlib.sha256(self.shelf.read(key)).hexdigest(), keys):
                hashes.append(sha256)
                bar.advance()
        return hashes

    def versions(self, names: Sequence[str], progress: Progress | None = None) -> list[str]:
        """See `ImageStore.versions`."""
        entries = self.shelf.entries()
        return [f"{entries[key].size} {entries[key].changed_ns}" for key in self._found(names)]

    def _image(self, name: str) -> ImageBytes:
        key = self._located(name)
        try:
            return ImageBytes(f"{self}/{key}", self.shelf.read(key))
        except Gone as error:  # since it was listed
            raise DataError(str(error)) from error

    def _key(self, name: str) -> str | None:
        entries = self.shelf.entries()
        return next((form for form in forms_of(name) if form in entries), None)

    def _located(self, name: str) -> str:
        if (key := self._key(name)) is None:
            raise no_such_file(f"{self}/{name}", self._near(name))
        return key

    def _near(self, name: str) -> str:
        """What is there under a name that differs in the case of letters alone; empty where nothing is."""
        folded = _folded(self.shelf)
        return next((folded[form.casefold()] for form in forms_of(name) if form.casefold() in folded), "")

    def _matched(self, names: Sequence[str]) -> list[str | DataError]:
        entries = self.shelf.entries()
        return matched(names, self._located, lambda key: "/" not in key, entries.__contains__, self)

    def _found(self, names: Sequence[str]) -> list[str]:
        found = self._matched(names)
        for one in found:
            if isinstance(one, DataError):
                raise one
        return [one for one in found if isinstance(one, str)]


@lru_cache(maxsize=8)
def _folded(shelf: Shelf) -> Mapping[str, str]:
    return {name.casefold(): name for name in shelf.entries()}
