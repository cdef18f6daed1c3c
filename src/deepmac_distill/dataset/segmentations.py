"""The masks of some thousand annotations, of whatever kind the file has, as Arrow columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.findings import degenerate_parts, drawn_parts, has_pixels, is_blank, runs_of
from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.polygons import POLYGONS, FlatPolygons

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_NUMBERS = {int, float}


@dataclass(frozen=True, slots=True)
class Segmentations:
    """N masks; a mask with an error, or without a pixel, is null in both columns."""

    polygons: pa.ListArray  # (N,) POLYGONS, drawn parts alone
    counts: pa.BinaryArray  # (N,) compressed COCO counts
    suspects: Bools  # (N,) at least those with findings
    drawn: Bools  # (N,) not blank
    lost_parts: Ints  # (N,) parts of fewer than three points
    verbatim: Bools  # (N,) the columns hold all of the file's value

    @property
    def held(self) -> Bools:
        """(N,) where there is a mask of at least one pixel."""
        return _valid(self.polygons) | _valid(self.counts)


def read_segmentations(given: Sequence[Any], sizes: Ints) -> Segmentations:
    """Sort masks by kind, and screen them.

    Args:
        given: N values of `segmentation`.
        sizes: (N, 2) height and width of the images; 0 where not known, and no mask is held there.
    """
    drawn = np.array([not is_blank(value) for value in given], dtype=bool)
    known = sizes.all(axis=1)
    is_list = np.array([type(value) is list for value in given], dtype=bool) & drawn
    is_dict = np.array([type(value) is dict for value in given], dtype=bool)
    suspects = drawn & ~is_list & ~is_dict
    polygons, odd, lost_parts, crossing = _polygons(given, is_list & known, sizes)
    counts, bad = _counts(given, is_dict & known, sizes)
    polygons = _as_codes(polygons, crossing, counts, sizes)
    whole = _valid(polygons) & (lost_parts == 0)
    whole |= np.array(
        [
            code is not None and type(value) is dict and type(value["counts"]) is str
            for code, value in zip(counts, given, strict=True)
        ],
        dtype=bool,
    )
    absent = np.array([value is None for value in given], dtype=bool)
    return Segmentations(
        polygons, pa.array(counts, pa.binary()), suspects | odd | bad, drawn, lost_parts, whole | absent
    )


def _polygons(given: Sequence[Any], wanted: Bools, sizes: Ints) -> tuple[pa.ListArray, Bools, Ints, Bools]:
    """The column, its suspects, how many parts of each row are too short, and which rows cross themselves."""
    kept: list[Any] = [value if take else None for value, take in zip(given, wanted, strict=True)]
    suspects, lost_parts = np.zeros(len(kept), dtype=bool), np.zeros(len(kept), dtype=np.int64)
    column = _converted(kept, suspects)
    flat = FlatPolygons.of(column)
    if (bad := flat.rows_with(flat.malformed())).any() or flat.null_values:
        _drop(kept, bad, suspects)
        column = _converted(kept, suspects)
        flat = FlatPolygons.of(column)
    if (short := flat.rows_with(flat.lengths < 6)).any():
        for row in np.flatnonzero(short).tolist():
            lost_parts[row] = degenerate_parts(kept[row])
            kept[row] = drawn_parts(kept[row]) or None
        suspects |= short
        column = _converted(kept, suspects)
        flat = FlatPolygons.of(column)
    bad = flat.too_large(sizes)
    unsure = np.flatnonzero(_valid(column) & ~bad & ~flat.surely_drawn(sizes)).tolist()
    for row in unsure:
        bad[row] = not has_pixels(kept[row], *sizes[row].tolist())
    if bad.any():
        _drop(kept, bad, suspects)
        column = _converted(kept, suspects)
    return column, suspects, lost_parts, flat.rows_with(~flat.turn_once) & _valid(column)


def _as_codes(
    polygons: pa.ListArray, crossing: Bools, counts: list[bytes | None], sizes: Ints
) -> pa.ListArray:
    """Polygons without those that cross themselves; these become codes, in place.

    Where an outline winds twice around a pixel, it is inside for one rasterizer and outside for another. The
    code is that of pycocotools, by which all evaluation goes.
    """
    if not crossing.any():
        return polygons
    for row in np.flatnonzero(crossing).tolist():
        counts[row] = mask_rle(polygons[row].as_py(), None, *sizes[row].tolist())["counts"]
    return pc.if_else(pa.array(crossing), pa.scalar(None, POLYGONS), polygons)


def _drop(kept: list[Any], rows: Bools, suspects: Bools) -> None:
    for row in np.flatnonzero(rows).tolist():
        kept[row] = None
    suspects |= rows


def _converted(kept: list[Any], suspects: Bools) -> pa.ListArray:
    """An Arrow column of lists of numbers; rows that are none are set to None, in place, and suspected."""
    if _are_numbers(kept):
        try:
            return pa.array(kept, POLYGONS)
        except (pa.ArrowException, TypeError):
            pass
    for row, value in enumerate(kept):
        if value is not None and not _is_polygons(value):
            kept[row], suspects[row] = None, True
    return pa.array(kept, POLYGONS)


def _are_numbers(kept: Iterable[Any]) -> bool:
    parts = chain.from_iterable(value for value in kept if value is not None)
    try:
        return set(map(type, chain.from_iterable(parts))) <= _NUMBERS
    except TypeError:
        return False


def _is_polygons(value: list[Any]) -> bool:
    if not all(type(part) is list for part in value) or not _are_numbers([value]):
        return False
    try:
        pa.array([value], POLYGONS)
    except pa.ArrowException:  # an integer that float64 cannot hold
        return False
    return True


def _counts(given: Sequence[Any], wanted: Bools, sizes: Ints) -> tuple[list[bytes | None], Bools]:
    """Compressed counts of run-length masks, and the suspects: those with errors or without a pixel."""
    found: list[bytes | None] = [None] * len(given)
    suspects = np.zeros(len(given), dtype=bool)
    for row in np.flatnonzero(wanted).tolist():
        try:
            empty = not runs_of(given[row], *sizes[row].tolist())[1::2].any()
        except ValueError:
            empty = True
        if empty:
            suspects[row] = True
        else:
            found[row] = _compressed(given[row])
    return found, suspects


def _compressed(rle: dict[str, Any]) -> bytes:
    if isinstance(rle["counts"], str):
        return rle["counts"].encode("ascii")
    counts: bytes = coco_mask.frPyObjects(rle, *rle["size"])["counts"]
    return counts


def _valid(column: pa.Array) -> Bools:
    found: Bools = column.is_valid().to_numpy(zero_copy_only=False)
    return found
