"""What can be wrong with one annotation, in words. Reading screens all rows; only suspects come here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.problems import expected_whole, is_id, is_number, shown
from deepmac_distill.geometry.rle import decode_counts

EDGE_TOLERANCE_PX = 1.0  # COCO's own boxes leave the image by rounding; nobody needs to hear of it
FAR_PX = 10_000.0  # a polygon may leave its image by so much; pycocotools runs out of memory far outside
LONGEST_PX = (
    1e7  # along the outlines of a mask; pycocotools holds some 40 bytes for each, and ends without a word
)
_POLYGONS = "[[x1, y1, x2, y2, ...], ...], a list of polygons"
_COMPRESSED = re.compile(r"([P-o]{0,6}[0-O])+")  # COCO's digits: after P to o more follow
Polygons = list[list[float]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about an annotation. A doubt is a warning, and an error where the user is strict."""

    level: Literal["error", "doubt"]
    about: Literal["entry", "mask"]  # what is about a mask is nobody's business where the mask is hidden
    message: str


def annotation_findings(
    annotation: dict[str, Any], size: tuple[int, int] | None, *, known_image: bool, known_category: bool
) -> Iterator[Finding]:
    """References, numbers, box and mask of an annotation.

    Args:
        size: (height, width) of its image; None where it is not known.
    """
    if not known_category:
        message = f"category_id {shown(annotation.get('category_id'))}: " + _expected_reference(
            annotation.get("category_id"), "a category"
        )
        yield Finding("error", "entry", message)
    if not is_flag(annotation.get("iscrowd")):
        yield Finding("error", "entry", f"iscrowd {shown(annotation['iscrowd'])}: expected 0 or 1")
    for key in ("area", "mask_score"):
        if annotation.get(key) is not None and not is_number(annotation[key]):
            message = f"{key} {shown(annotation[key])}: expected a finite number"
            yield Finding("error", "mask" if key == "area" else "entry", message)
    if not known_image:
        image_id = annotation.get("image_id")
        message = f"image_id {shown(image_id)}: {_expected_reference(image_id, 'an image')}"
        yield Finding("error", "entry", message)
    elif size is not None:
        bbox, segmentation = annotation.get("bbox"), annotation.get("segmentation")
        if is_lost_box(bbox) and not is_blank(segmentation):
            yield Finding(
                "doubt", "mask", f"bbox {shown(bbox)}: taken from its mask; expected four finite numbers"
            )
        else:
            yield from _box_findings(bbox, *size)
        yield from mask_findings(segmentation, *size)


def _expected_reference(value: Any, to: str) -> str:
    """What was expected of a reference; a number with a decimal point may stand for the right one."""
    return expected_whole(value) if type(value) is float else f"expected the id of {to} of the file"


def off_box_finding(bbox: Any) -> Finding:
    """Of a mask that is drawn elsewhere."""
    message = (
        f"segmentation: no pixel of it is in bbox {shown(bbox)}, so no mask is left; expected at least one"
    )
    return Finding("doubt", "mask", message)


def is_flag(value: Any) -> bool:
    """Whether this is a valid `iscrowd`; None counts as no."""
    return value in (None, 0, 1)


def is_lost_box(bbox: Any) -> bool:
    """Whether there is no box, or one with a number that is not finite: a mask can still give one."""
    if bbox is None:
        return True
    four = isinstance(bbox, list) and len(bbox) == 4 and all(type(value) in (int, float) for value in bbox)
    return four and not all(map(is_number, bbox))


def is_box_of_nothing(bbox: Any) -> bool:
    """Whether all numbers are infinite: the least and largest of no points at all, as tools compute them."""
    four = isinstance(bbox, list) and len(bbox) == 4
    return four and all(type(value) is float and math.isinf(value) for value in bbox)


def _box_findings(bbox: Any, height: int, width: int) -> Iterator[Finding]:
    inside = f"inside {height} x {width} (H x W)"
    if is_box_of_nothing(bbox):
        message = f"bbox {shown(bbox)}: the box of nothing, left out; expected four finite numbers"
        yield Finding("doubt", "entry", message)
    elif not (isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox))):
        message = f"bbox {shown(bbox)}: expected four finite numbers [x, y, width, height]"
        yield Finding("error", "mask" if is_lost_box(bbox) else "entry", message)
    elif reason := degenerate_reason(bbox, height, width):
        yield Finding("doubt", "entry", f"bbox {shown(bbox)} {reason}; expected w > 0 and h > 0 {inside}")
    elif (over := overhang_px(bbox, height, width)) > EDGE_TOLERANCE_PX:
        message = f"bbox {shown(bbox)} is {over:g} px over the edge; expected it {inside}"
        yield Finding("doubt", "entry", message)


def degenerate_reason(bbox: Sequence[float], height: int, width: int) -> str:
    """Why an xywh box holds no part of its image; empty for a box that does.

    >>> degenerate_reason([1, 1, 0, 4], 9, 9), degenerate_reason([9, 0, 3, 3], 9, 9)
    ('has no area', 'is outside the image')
    """
    x, y, w, h = bbox
    if not (w > 0 and h > 0):
        return "has no area"
    inside = min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)
    return "" if inside else "is outside the image"


def overhang_px(bbox: Sequence[float], height: int, width: int) -> float:
    """How far an xywh box reaches over the edge of its image, in pixels; 0 for a box inside."""
    x, y, w, h = bbox
    return max(-x, -y, x + w - width, y + h - height, 0)


def mask_findings(segmentation: Any, height: int, width: int) -> Iterator[Finding]:
    """What is wrong with a mask on an image of this size."""
    if is_blank(segmentation):
        return
    if not isinstance(segmentation, dict | list):
        message = f"segmentation {shown(segmentation)}: expected polygons or a run-length mask"
        yield Finding("error", "mask", message)
        return
    try:
        if isinstance(segmentation, dict):
            empty = not runs_of(segmentation, height, width)[1::2].any()
        else:
            yield from _part_findings(segmentation, height, width)
            parts = drawn_parts(segmentation)
            empty = bool(parts) and not has_pixels(parts, height, width)
    except ValueError as error:
        yield Finding("error", "mask", f"segmentation: {error}")
        return
    if empty:
        shares = isinstance(segmentation, list) and are_shares(drawn_parts(segmentation))
        why = ": its points are inside the first one, as shares of the image are" if shares else ""
        message = f"segmentation: it covers no pixel{why}, so no mask is left; expected at least one"
        yield Finding("doubt", "mask", message)


def _part_findings(segmentation: list[Any], height: int, width: int) -> Iterator[Finding]:
    if len(segmentation) > 2 and all(isinstance(part, list) and len(part) == 2 for part in segmentation):
        raise ValueError(f"polygon as pairs, {shown(segmentation)}; expected {_POLYGONS}")
    if all(map(is_number, segmentation)):
        raise ValueError(f"a flat list of numbers, {shown(segmentation)}; expected {_POLYGONS}")
    for part in segmentation:
        if isinstance(part, list) and any(isinstance(value, list) for value in part):
            raise ValueError(f"polygon as pairs, {shown(part)}; expected {_POLYGONS}")
        if not (isinstance(part, list) and len(part) % 2 == 0):
            got = f"{len(part)} numbers" if isinstance(part, list) else shown(part)
            raise ValueError(f"polygon of {got}; expected an even count of at least 6 numbers")
        if not all(map(is_number, part)):
            raise ValueError(f"polygon {shown(part)}; expected finite numbers")
        if far := [v for v, side in _coordinates(part, height, width) if not -FAR_PX <= v <= side + FAR_PX]:
            raise ValueError(
                f"polygon leaves the image at {far[0]:g}; expected at most {FAR_PX:g} px outside "
                f"{height} x {width} (H x W)"
            )
    if (length := sum(map(_outline_px, segmentation))) > LONGEST_PX:
        raise ValueError(f"polygon has an outline of {length:.3g} px; expected at most {LONGEST_PX:.0e}")
    if few := degenerate_parts(segmentation):
        rest = "" if drawn_parts(segmentation) else ", so no mask is left"
        got = f"{few} of {len(segmentation)} polygon parts have fewer than 3 points{rest}"
        yield Finding("doubt", "mask", f"segmentation: {got}; expected an even count of at least 6 numbers")


def _outline_px(part: list[float]) -> float:
    points = list(zip(part[0::2], part[1::2], strict=True))
    return sum(map(math.dist, points, [*points[1:], *points[:1]]))


def _coordinates(part: list[float], height: int, width: int) -> Iterator[tuple[float, int]]:
    return ((value, height if position % 2 else width) for position, value in enumerate(part))


def has_pixels(polygons: Polygons, height: int, width: int) -> bool:
    """Whether polygons cover a pixel of their image, by the rasterizer of all evaluation (pycocotools).

    Those in shares of the image cover none: at most the first pixel, which nobody meant.
    """
    return not are_shares(polygons) and bool(coco_mask.area(mask_rle(polygons, None, height, width)) > 0)


def are_shares(polygons: Polygons) -> bool:
    """Whether all points are inside the first pixel and not all on its corners.

    >>> are_shares([[0, 0, 1, 0, 1, 1]]), are_shares([[0.1, 0.2, 0.6, 0.2, 0.6, 1]])
    (False, True)
    """
    values = [value for part in polygons for value in part]
    return all(0 <= value <= 1 for value in values) and any(0 < value < 1 for value in values)


def drawn_parts(polygons: Polygons) -> Polygons:
    """The parts of a polygon mask that can enclose anything: those of three points or more.

    >>> drawn_parts([[0, 0, 4, 0, 4, 4], [1, 1, 2, 2], []])
    [[0, 0, 4, 0, 4, 4]]
    """
    return [part for part in polygons if len(part) >= 6]


def degenerate_parts(segmentation: Any) -> int:
    """How many parts of a valid mask `drawn_parts` leaves out; none of a run-length mask."""
    return len(segmentation) - len(drawn_parts(segmentation)) if isinstance(segmentation, list) else 0


def is_blank(segmentation: Any) -> bool:
    """True where no mask was ever drawn: no key, null, an empty list, a list of empty polygons."""
    if type(segmentation) is not list:
        return segmentation is None
    return not any(segmentation) and all(part == [] for part in segmentation)


def runs_of(rle: dict[str, Any], height: int, width: int) -> NDArray[np.int64]:
    """Run lengths of a COCO RLE of either kind, background first, down the columns: (R,) int64.

    Raises:
        ValueError: the size is not the image's, or the runs do not cover the image exactly.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise ValueError(f"mask of size {shown(size)}; expected the image's [{height}, {width}]")
    if isinstance(counts, str) and _COMPRESSED.fullmatch(counts):
        runs = decode_counts(counts.encode())
    elif isinstance(counts, list) and all(is_id(run) for run in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        raise ValueError(f"counts {shown(counts)}: expected a COCO run-length string or a list of runs")
    pixels = height * width
    if ((runs < 0) | (runs > pixels)).any() or runs.sum() != pixels:
        raise ValueError(f"counts {shown(counts)}: expected runs that cover the image's {pixels} pixels")
    return runs
