"""A hash of the visible values of tables, whatever their layout in memory."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepmac_distill.dataset.classes import Classes

_OF_IMAGES = ("image_id", "file_name", "height", "width")
_OF_ANNOTATIONS = (
    "annotation_id",
    "image_id",
    "category_id",
    "bbox",
    "area",
    "iscrowd",
    "status",
    "polygons",
)
_OF_MASKS = ("rle_counts", "source", "mask_score")


def fingerprint_of(images: pa.Table, annotations: pa.Table, classes: Classes) -> str:
    """Hex SHA-256 of the classes and of the columns that stages read; values under nulls do not count."""
    digest = hashlib.sha256(json.dumps([classes.names, classes.category_ids, classes.seen]).encode())
    for table, names in ((images, _OF_IMAGES), (annotations, _OF_ANNOTATIONS + _OF_MASKS)):
        for name in names:
            digest.update(_column_sha256(table[name]))
    return digest.hexdigest()


def _column_sha256(column: pa.ChunkedArray) -> bytes:
    """One hash for each level of nesting, so that it does not matter where chunks begin."""
    levels: list[hashlib._Hash] = []
    for chunk in column.chunks:
        _update(levels, 0, chunk)
    return hashlib.sha256(b"".join(level.digest() for level in levels)).digest()


def _update(levels: list[hashlib._Hash], depth: int, values: pa.Array) -> None:
    while len(levels) <= depth:
        levels.append(hashlib.sha256())
    digest, kind = levels[depth], values.type
    digest.update(np.asarray(values.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    values = values.drop_null() if values.null_count else values
    if pa.types.is_list(kind):
        digest.update(pc.list_value_length(values).to_numpy().tobytes())
        _update(levels, depth + 1, values.flatten())
    elif pa.types.is_fixed_size_list(kind):
        _update(levels, depth + 1, values.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        digest.update(pc.binary_length(values).to_numpy().tobytes())
        digest.update(b"".join(values.cast(pa.binary()).to_pylist()))
    else:
        digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).tobytes())
