"""A COCO document becomes tables and a list of what is wrong with it; nothing is hidden yet."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepmac_distill.dataset.chunk import STORED, Places, chunk_of
from deepmac_distill.dataset.document import Document, Entry, Head, parse_document, parse_plainly
from deepmac_distill.dataset.findings import Finding
from deepmac_distill.dataset.identity import annotation_ids, numbered, numbering, whole_numbers
from deepmac_distill.dataset.parquet import is_parquet, parse_parquet
from deepmac_distill.dataset.problems import (
    file_name_of,
    image_problems,
    is_id,
    is_size,
    shown,
    stays_inside,
)
from deepmac_distill.dataset.tables import ANNOTATIONS_FILE, FINDINGS, IMAGES, Tables, open_table, write_table
from deepmac_distill.errors import DataError

ROWS_AT_ONCE = 20_000  # bounds what is held as Python objects
MARK = "deepmac_distill"  # the key of a file that this package wrote
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


def ingest(path: Path, folder: Path, sizes: SizeSource | None = None) -> Tables:
    """Read a file into tables under `folder`; entries with errors are in them too, and in `findings`.

    Args:
        sizes: gives the sizes that the file does not.

    Raises:
        BrokenDocument: the file is no COCO document.
    """
    with _no_garbage_collection():
        if is_parquet(path):
            return _ingest(parse_parquet(path), path, folder, sizes)
        document = parse_document(path)
        try:
            return _ingest(document, path, folder, sizes)
        except ValueError:  # text that only the parser of Python takes, met late
            return _ingest(parse_plainly(path), path, folder, sizes)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of lists are made here and none in a circle; looking for circles takes a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _ingest(document: Document, path: Path, folder: Path, sizes: SizeSource | None) -> Tables:
    heads = document.annotations.heads()
    categories, category_numbers, dropped = _categories(document.categories, heads)
    listed, measured = _measured(document.images, sizes)
    images = _images(listed, path)
    places, located, renumbered, numbers = _places(heads, images, categories, category_numbers)
    with write_table(folder / ANNOTATIONS_FILE, STORED) as file:
        for start in range(0, len(places.positions), ROWS_AT_ONCE):
            at = places.part(slice(start, start + ROWS_AT_ONCE))
            entries = document.annotations.at(at.positions.tolist())
            if numbers:
                entries = [entry | {"original_id": entry["id"]} for entry in entries]
            chunk = chunk_of(entries, at, marked=MARK in document.other)
            file.write_batch(chunk.rows)
            located += _located(chunk.findings, start, at.positions, heads)
    located.sort(key=lambda entry: entry[0])
    return Tables(
        images=images.table,
        annotations=open_table(folder / ANNOTATIONS_FILE),
        categories=categories,
        other=document.other,
        findings=_findings_table(images.findings, located),
        counts={
            "merged_images": images.merged,
            "sizes_from_images": measured,
            "dropped_categories": dropped,
            "renumbered_annotations": renumbered,
        },
    )


@dataclass(frozen=True, slots=True)
class _Images:
    table: pa.Table  # IMAGES, ascending ids
    numbers: dict[str, int]
    merged: int  # entries that repeat another one
    findings: list[Located]


def _images(given: list[Entry], path: Path) -> _Images:
    numbers = numbering([image.get("id") for image in given])
    if numbers:
        given = [image | {"id": numbers[image["id"]], "original_id": image["id"]} for image in given]
    kept = _unrepeated(given)
    findings = [
        (-1, -1, problem.where.removeprefix(f"{path}: "), Finding("error", "entry", problem.message))
        for problem in image_problems(kept, path)
    ]
    findings += [(-1, -1, f"image {image_id}", finding) for image_id, finding in _shared_files(kept)]
    rows = [_image_row(position, image) for position, image in enumerate(kept) if is_id(image.get("id"))]
    rows.sort(key=lambda row: row["image_id"])
    return _Images(pa.Table.from_pylist(rows, IMAGES), numbers, len(given) - len(kept), findings)


def _measured(images: list[Entry], sizes: SizeSource | None) -> tuple[list[Entry], int]:
    """Entries with missing sizes filled in from their images, and how many those are."""
    lacking = [
        i for i, image in enumerate(images) if image.get("height") is None or image.get("width") is None
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


def _image_row(position: int, image: Entry) -> Entry:
    name = file_name_of(image)
    extra = {key: value for key, value in image.items() if key not in _IMAGE_KEYS}
    sides = {key: image[key] if is_size(image.get(key)) else 0 for key in ("height", "width")}
    return {
        "image_id": image["id"],
        "file_name": name.replace("\\", "/") if isinstance(name, str) else "",  # as Windows writes paths
        **sides,
        "position": position,
        "extra": json.dumps(extra).encode() if extra else None,
    }


def _categories(given: list[Entry], heads: Sequence[Head]) -> tuple[list[Entry], dict[str, int], int]:
    """Categories with numbers for ids, without repeated names that no box uses; and how many that were."""
    numbers = numbering([category.get("id") for category in given])
    if numbers:
        given = [c | {"id": numbers[c["id"]], "original_id": c["id"]} for c in given]
    names = [category.get("name") for category in given]
    if len({repr(name) for name in names}) == len(names):
        return given, numbers, 0
    used = set(whole_numbers(numbered([head.category_id for head in heads], numbers))[0].tolist())
    kept = [c for c in given if names.count(c.get("name")) == 1 or c.get("id") in used]
    return kept, numbers, len(given) - len(kept)


def _places(
    heads: Sequence[Head], images: _Images, categories: list[Entry], category_numbers: dict[str, int]
) -> tuple[Places, list[Located], int, dict[str, int]]:
    """Where annotations stand, in the order of the table: by image, then by id."""
    ids = annotation_ids([head.id for head in heads])
    image_id, image_known = whole_numbers(numbered([head.image_id for head in heads], images.numbers))
    category_id, category_known = whole_numbers(
        numbered([head.category_id for head in heads], category_numbers)
    )
    known_ids = images.table["image_id"].to_numpy()
    row = np.minimum(np.searchsorted(known_ids, image_id), max(len(known_ids) - 1, 0))
    image_known &= (known_ids[row] == image_id) if len(known_ids) else False
    category_ids = [c["id"] for c in categories if is_id(c.get("id"), bits=32)]
    category_known &= np.isin(category_id, category_ids)
    category_id = np.where(category_known, category_id, 0)
    sides = [images.table[name].to_numpy().astype(np.int64) for name in ("height", "width")]
    sizes = np.stack([side[row] if len(side) else row for side in sides], axis=1)
    sizes[~image_known] = 0
    order = np.lexsort((ids.ids, image_id)).astype(np.int64)
    everything = Places(
        np.arange(len(heads)), ids.ids, image_id, category_id, sizes, image_known, category_known
    )
    places = Places(*(getattr(everything, name)[order] for name in Places.__slots__))
    rows = np.empty(len(order), dtype=np.int64)
    rows[order] = np.arange(len(order))
    located = [
        (position, int(rows[position]), _name(heads[position].id, position), finding)
        for position, finding in ids.findings
    ]
    return places, located, ids.renumbered, numbering([head.id for head in heads])


def _located(
    findings: list[tuple[int, Finding]], start: int, positions: NDArray[np.int64], heads: Sequence[Head]
) -> Iterator[Located]:
    for row, finding in findings:
        position = int(positions[row])
        yield position, start + row, _name(heads[position].id, position), finding


def _name(annotation_id: Any, position: int) -> str:
    if is_id(annotation_id) or isinstance(annotation_id, str):
        return f"annotation {annotation_id if is_id(annotation_id) else shown(annotation_id)}"
    return f"annotations[{position}]"


def _findings_table(of_images: list[Located], of_annotations: list[Located]) -> pa.Table:
    rows = [
        {"row": row, "where": where, "level": f.level, "about": f.about, "message": f.message}
        for _, row, where, f in (*of_images, *of_annotations)
    ]
    return pa.Table.from_pylist(rows, FINDINGS)
