"""The images of a document: ids, names and sizes in one form, and what was wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from deepmac_distill.dataset.document import Entry
from deepmac_distill.dataset.findings import Finding
from deepmac_distill.dataset.identity import numbering, refused_ids
from deepmac_distill.dataset.problems import (
    file_name_of,
    image_problems,
    is_id,
    is_size,
    is_text,
    shown,
    stays_inside,
)
from deepmac_distill.dataset.tables import IMAGES
from deepmac_distill.errors import DataError

_IMAGE_KEYS = frozenset(("id", "file_name", "height", "width"))
Located = tuple[int, int, str, Finding]  # position in the file, row in the table, name, what


class SizeSource(Protocol):
    """Images that can be asked for their size; its `repr` names the place."""

    def state_of(self, names: Sequence[str]) -> str:
        """What changes when one of these images does, or another folder is meant."""
        ...

    def size_of(self, name: str) -> tuple[int, int]:
        """(height, width) of an image.

        Raises:
            DataError: it is missing or no image.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReadImages:
    """The images of a document as a table, and what reading changed."""

    table: pa.Table  # IMAGES, ascending ids
    numbers: dict[Any, int]  # of ids that cannot stand for themselves
    merged: int  # entries that repeat another one
    measured: int  # entries whose size is that of the image
    shared: int  # entries whose file is that of another one
    refused: frozenset[float]  # ids that are no ids
    findings: list[Located]


def read_images(given: Sequence[Entry], path: Path, sizes: SizeSource | None) -> ReadImages:
    """Sort and check images.

    Args:
        path: of the file, for what is found.
        sizes: gives the sizes that the file does not.
    """
    numbers = numbering([image.get("id") for image in given])
    if numbers:
        given = [image | {"id": numbers[image["id"]], "original_id": image["id"]} for image in given]
    entries, measured = _measured(given, sizes)
    kept = _unrepeated(entries)
    findings = [
        (-1, -1, problem.where.removeprefix(f"{path}: "), Finding("error", "entry", problem.message))
        for problem in image_problems(kept, path)
    ]
    shared = [(-1, -1, f"image {image_id}", finding) for image_id, finding in _shared_files(kept)]
    rows = [_row(position, image) for position, image in enumerate(kept) if is_id(image.get("id"))]
    rows.sort(key=lambda row: row["image_id"])
    table = pa.Table.from_pylist(rows, IMAGES)
    merged, refused = len(entries) - len(kept), refused_ids(kept)
    return ReadImages(table, numbers, merged, measured, len(shared), refused, findings + shared)


def _measured(images: Sequence[Entry], sizes: SizeSource | None) -> tuple[list[Entry], int]:
    """Entries with missing sizes filled in from their images, and how many those are."""
    lacking = [
        i
        for i, image in enumerate(images)
        if _is_missing(image.get("height")) or _is_missing(image.get("width"))
    ]
    filled, count_filled = list(images), 0
    for position in lacking if sizes is not None else ():
        name = file_name_of(images[position])
        with suppress(DataError):
            if sizes is not None and stays_inside(name):
                height, width = sizes.size_of(name.replace("\\", "/"))
                filled[position] = images[position] | {"height": height, "width": width}
                count_filled += 1
    return filled, count_filled


def _is_missing(side: Any) -> bool:
    """A converter that does not look at images writes 0."""
    return side is None or (type(side) is int and side == 0)


def _unrepeated(images: list[Entry]) -> list[Entry]:
    """Entries without those that repeat another's id, name and size; others of one id stay, to be refused."""
    seen: dict[Any, Entry] = {}
    kept = []
    for image in images:
        first = seen.setdefault(image["id"], image) if is_id(image.get("id")) else image
        same = all(first.get(key) == image.get(key) for key in ("height", "width"))
        if first is image or not (same and file_name_of(first) == file_name_of(image)):
            kept.append(image)
    return kept


def _shared_files(images: list[Entry]) -> Iterator[tuple[Any, Finding]]:
    first: dict[str, Any] = {}
    for image in images:
        name, image_id = file_name_of(image), image.get("id")
        if isinstance(name, str) and first.setdefault(name, image_id) != image_id:
            message = f"file_name {shown(name)} is that of image {first[name]} too; expected one image a file"
            yield image_id, Finding("doubt", "entry", message)


def _row(position: int, image: Entry) -> Entry:
    name = file_name_of(image)
    extra = {key: value for key, value in image.items() if key not in _IMAGE_KEYS}
    sides = {key: image[key] if is_size(image.get(key)) else 0 for key in ("height", "width")}
    return {
        "image_id": image["id"],
        "file_name": name.replace("\\", "/") if is_text(name) else "",  # as Windows writes paths
        **sides,
        "position": position,
        "extra": json.dumps(extra).encode() if extra else None,
    }
