"""A COCO document becomes tables and a list of what is wrong with it; nothing is hidden yet."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepmac_distill.dataset.category_entries import ReadCategories, read_categories
from deepmac_distill.dataset.chunk import STORED, Places, chunk_of
from deepmac_distill.dataset.document import KEY_TWICE, Document, Head, parse_document, parse_plainly
from deepmac_distill.dataset.findings import Finding
from deepmac_distill.dataset.identity import (
    annotation_ids,
    numbered,
    numbering,
    refused_ids,
    whole_numbers,
)
from deepmac_distill.dataset.image_entries import Located, ReadImages, SizeSource, read_images
from deepmac_distill.dataset.parquet import is_parquet, parse_parquet
from deepmac_distill.dataset.problems import is_id, shown
from deepmac_distill.dataset.tables import ANNOTATIONS_FILE, FINDINGS, Tables, open_table, write_table
from deepmac_distill.dataset.units import OtherForms, Percent, Shares

ROWS_AT_ONCE = 20_000  # bounds what is held as Python objects
MARK = "deepmac_distill"  # the key of a file that this package wrote
_MASK_KEYS = frozenset(("segmentation", "area", "size", "counts"))


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
    categories = read_categories(document.categories, heads)
    images = read_images(document.images, path, sizes)
    places, located, renumbered, numbers = _places(heads, images, categories)
    shares, forms, percent = Shares(), OtherForms(), Percent()
    with write_table(folder / ANNOTATIONS_FILE, STORED) as file:
        for start in range(0, len(places.positions), ROWS_AT_ONCE):
            at = places.part(slice(start, start + ROWS_AT_ONCE))
            entries = document.annotations.at(at.positions.tolist())
            found = _repeated(document.annotations.twice(at.positions.tolist(), entries))
            if numbers:
                entries = [entry | {"original_id": entry["id"]} for entry in entries]
            chunk = chunk_of(entries, at, marked=MARK in document.other)
            file.write_batch(chunk.rows)
            located += _located([*found, *chunk.findings], start, at.positions, heads)
            forms.add(chunk.boxes, at.sizes)
            percent.add(chunk.boxes, at.sizes)
            shares.add(start, chunk.boxes, at.sizes)
    of_shares = list(shares.findings())
    located += _located(of_shares, 0, places.positions, heads)
    located += [(-1, -1, "annotations", finding) for finding in (*forms.findings(), *percent.findings())]
    located.sort(key=lambda entry: entry[0])
    return Tables(
        images=images.table,
        annotations=open_table(folder / ANNOTATIONS_FILE),
        categories=categories.entries,
        other=document.other,
        findings=_findings_table([*images.findings, *categories.findings], located),
        counts={
            "merged_images": images.merged,
            "sizes_from_images": images.measured,
            "images_of_one_file": images.shared,
            "boxes_in_first_pixel": len(of_shares),
            "dropped_categories": categories.dropped,
            "renumbered_annotations": renumbered,
            "numbered_ids": sum(map(len, (images.numbers, categories.numbers, numbers))),
        },
    )


def _repeated(found: list[tuple[int, str]]) -> list[tuple[int, Finding]]:
    """What is wrong with entries that hold a key twice."""
    return [
        (row, Finding("error", "mask" if key in _MASK_KEYS else "entry", KEY_TWICE.format(shown(key))))
        for row, key in found
    ]


def _places(
    heads: Sequence[Head], images: ReadImages, categories: ReadCategories
) -> tuple[Places, list[Located], int, dict[Any, int]]:
    """Where annotations stand, in the order of the table: by image, then by id."""
    own = [head.id for head in heads]
    ids, numbers = annotation_ids(own), numbering(own)
    image_id, image_known = whole_numbers(numbered([head.image_id for head in heads], images.numbers))
    category_id, category_known = whole_numbers(
        numbered([head.category_id for head in heads], categories.numbers)
    )
    known_ids = images.table["image_id"].to_numpy()
    row = np.minimum(np.searchsorted(known_ids, image_id), max(len(known_ids) - 1, 0))
    image_known &= (known_ids[row] == image_id) if len(known_ids) else False
    sized = image_known.copy()
    image_known |= _refused_already(heads, "image_id", images.refused)  # the image's own error is enough
    category_ids = [c["id"] for c in categories.entries if is_id(c.get("id"), bits=32)]
    category_known &= np.isin(category_id, category_ids)
    category_id = np.where(category_known, category_id, 0)
    category_known |= _refused_already(heads, "category_id", refused_ids(categories.entries, 32))
    sides = [images.table[name].to_numpy().astype(np.int64) for name in ("height", "width")]
    sizes = np.stack([side[row] if len(side) else row for side in sides], axis=1)
    sizes[~sized] = 0
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
    return places, located, ids.renumbered, numbers


def _refused_already(heads: Sequence[Head], key: str, refused: frozenset[float]) -> NDArray[np.bool_]:
    """(N,) references to an entry whose own id is refused, such as 1.0: one error is enough."""
    if not refused:
        return np.zeros(len(heads), dtype=bool)
    values = (getattr(head, key) for head in heads)
    return np.array([type(value) in (int, float) and value in refused for value in values], dtype=bool)


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
