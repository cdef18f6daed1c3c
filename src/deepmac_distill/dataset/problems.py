"""What can be wrong with a COCO file, one problem at a time.

Every check is a generator over the parsed JSON. `read_coco` raises the first error, `find_problems` lists
them all: one set of rules, two readers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.geometry.rle import decode_counts

Level = Literal["error", "warning", "note"]
Finding = tuple[Level, str]

EDGE_TOLERANCE_PX = 1.0  # COCO's own boxes leave the image by rounding; nobody needs to hear of it
_COMPRESSED = re.compile(r"([P-o]{0,6}[0-O])+")  # COCO's digits: P to o say that more follow
_LARGEST = 1e15  # beyond it float64 loses whole pixels


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing the user should know; `where` names the file and the entry.

    >>> str(Problem("error", "a.json: annotation 17", "no bbox"))
    'a.json: annotation 17: no bbox'
    """

    level: Level
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def document_problems(raw: Any, path: Path) -> Iterator[Problem]:
    """The file as a whole; where this yields anything, the other checks cannot run."""
    if not isinstance(raw, dict):
        yield Problem("error", str(path), f"got {type(raw).__name__}, expected a JSON object")
        return
    for key in ("images", "annotations", "categories"):
        entries = raw.get(key)
        if not isinstance(entries, list):
            yield Problem("error", str(path), f"{key}: got {shown(entries)}, expected a list")
            continue
        for position, entry in enumerate(entries):
            if not isinstance(entry, dict):
                message = f"got {shown(entry)}, expected an object"
                yield Problem("error", f"{path}: {key}[{position}]", message)
    if raw.get("categories") == []:
        yield Problem("error", str(path), "categories: got none, expected at least one")


def category_problems(categories: list[dict[str, Any]], where: str) -> Iterator[Problem]:
    """Ids and names: whole numbers and words, none of them twice."""
    ids: set[int] = set()
    names: set[str] = set()
    for position, category in enumerate(categories):
        category_id, name = category.get("id"), category.get("name")
        at = f"{where}: categories[{position}]"
        if not is_id(category_id, bits=32):
            yield Problem("error", at, f"id {shown(category_id)}: expected a whole number")
        elif category_id in ids:
            yield Problem("error", at, f"id {category_id} is used twice; expected one category per id")
        if not (isinstance(name, str) and name.strip()):
            yield Problem("error", at, f"name {shown(name)}: expected a word")
        elif name in names:
            yield Problem("error", at, f"name {shown(name)} is used twice; expected one category per name")
        ids |= {category_id} if is_id(category_id) else set()
        names |= {name} if isinstance(name, str) else set()


def image_problems(images: list[dict[str, Any]], path: Path) -> Iterator[Problem]:
    """Ids, sizes and file names of the images."""
    ids: set[int] = set()
    for position, image in enumerate(images):
        image_id = image.get("id")
        at = f"{path}: image {image_id}" if is_id(image_id) else f"{path}: images[{position}]"
        if not is_id(image_id):
            yield Problem("error", at, f"id {shown(image_id)}: expected a whole number")
        elif image_id in ids:
            yield Problem("error", at, "its id is used twice; expected one image per id")
        else:
            ids.add(image_id)
        for key in ("height", "width"):
            if not _is_size(image.get(key)):
                yield Problem("error", at, f"{key} {shown(image.get(key))}: expected a whole number > 0")
        name = file_name_of(image)
        if not _stays_inside(name):
            message = f"file_name {shown(name)}: expected a path inside the image folder"
            yield Problem("error", at, message)


def annotation_problems(raw: dict[str, Any], path: Path, *, strict: bool = False) -> Iterator[Problem]:
    """Ids, references, boxes and masks of the annotations.

    What real files hold by nature is a warning, or an error where `strict`: a box without area, one that
    leaves its image by more than `EDGE_TOLERANCE_PX`, and polygon parts of fewer than three points. A mask
    that was hidden is not here to be judged.
    """
    sizes = {i["id"]: (i.get("height"), i.get("width")) for i in raw["images"] if is_id(i.get("id"))}
    category_ids = {c["id"] for c in raw["categories"] if is_id(c.get("id"))}
    ids: set[int] = set()
    for position, annotation in enumerate(raw["annotations"]):
        annotation_id = annotation.get("id")
        named = is_id(annotation_id)
        at = f"{path}: annotation {annotation_id}" if named else f"{path}: annotations[{position}]"
        if not named:
            yield Problem("error", at, f"id {shown(annotation_id)}: expected a whole number")
        elif annotation_id in ids:
            yield Problem("error", at, "its id is used twice; expected one annotation per id")
        else:
            ids.add(annotation_id)
        for level, message in _findings(annotation, sizes, category_ids, strict):
            yield Problem(level, at, message)


def _findings(
    annotation: dict[str, Any],
    sizes: dict[int, tuple[Any, Any]],
    category_ids: set[int],
    strict: bool,
) -> Iterator[Finding]:
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not (is_id(category_id) and category_id in category_ids):
        yield "error", f"category_id {shown(category_id)}: expected the id of a category of the file"
    if annotation.get("iscrowd") not in (None, 0, 1):
        yield "error", f"iscrowd {shown(annotation['iscrowd'])}: expected 0 or 1"
    for key in ("area", "mask_score"):
        if annotation.get(key) is not None and not is_number(annotation[key]):
            yield "error", f"{key} {shown(annotation[key])}: expected a finite number"
    if not (is_id(image_id) and image_id in sizes):
        yield "error", f"image_id {shown(image_id)}: expected the id of an image of the file"
        return
    height, width = sizes[image_id]
    level: Level = "error" if strict else "warning"
    if _is_size(height) and _is_size(width):
        yield from _box_findings(annotation.get("bbox"), height, width, level)
        yield from _mask_findings(annotation.get("segmentation"), height, width, level)


def _box_findings(bbox: Any, height: int, width: int, level: Level) -> Iterator[Finding]:
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox))):
        yield "error", f"bbox {shown(bbox)}: expected four finite numbers [x, y, width, height]"
    elif reason := degenerate_reason(bbox, height, width):
        yield (
            level,
            f"bbox {shown(bbox)} {reason}; expected w > 0 and h > 0 inside {height} x {width} (H x W)",
        )
    elif (over := overhang_px(bbox, height, width)) > EDGE_TOLERANCE_PX:
        yield (
            level,
            f"bbox {shown(bbox)} is {over:g} px over the edge; expected it inside {height} x {width} (H x W)",
        )


def degenerate_reason(bbox: list[float], height: int, width: int) -> str:
    """Why an xywh box holds no part of its image; empty for a box that does.

    >>> degenerate_reason([1, 1, 0, 4], 9, 9), degenerate_reason([9, 0, 3, 3], 9, 9)
    ('has no area', 'lies outside the image')
    """
    x, y, w, h = bbox
    if not (w > 0 and h > 0):
        return "has no area"
    inside = min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)
    return "" if inside else "lies outside the image"


def overhang_px(bbox: list[float], height: int, width: int) -> float:
    """How far an xywh box reaches over the edge of its image, in pixels; 0 for a box inside."""
    x, y, w, h = bbox
    return max(-x, -y, x + w - width, y + h - height, 0)


def _mask_findings(segmentation: Any, height: int, width: int, level: Level) -> Iterator[Finding]:
    if is_blank(segmentation):
        return
    if isinstance(segmentation, dict):
        try:
            runs_of(segmentation, height, width)
        except ValueError as error:
            yield "error", f"segmentation: {error}"
    elif isinstance(segmentation, list):
        errors = list(_polygon_errors(segmentation))
        yield from errors
        if not errors and (degenerate := degenerate_parts(segmentation)):
            rest = "" if drawn_parts(segmentation) else ", so no mask is left"
            got = f"{degenerate} of {len(segmentation)} polygon parts have fewer than 3 points{rest}"
            yield level, f"segmentation: {got}; expected an even count of at least 6 numbers"
    else:
        yield "error", f"segmentation {shown(segmentation)}: expected polygons or a run-length mask"


def _polygon_errors(parts: list[Any]) -> Iterator[Finding]:
    for part in parts:
        if not (isinstance(part, list) and len(part) % 2 == 0):
            got = f"{len(part)} numbers" if isinstance(part, list) else shown(part)
            yield "error", f"segmentation: polygon of {got}; expected an even count of at least 6"
        elif not all(map(is_number, part)):
            yield "error", f"segmentation: polygon {shown(part)}; expected finite numbers"


def drawn_parts(polygons: list[list[float]]) -> list[list[float]]:
    """The parts of a polygon mask that enclose anything: those of three points or more.

    >>> drawn_parts([[0, 0, 4, 0, 4, 4], [1, 1, 2, 2], []])
    [[0, 0, 4, 0, 4, 4]]
    """
    return [part for part in polygons if len(part) >= 6]


def degenerate_parts(segmentation: Any) -> int:
    """How many parts of a valid mask `drawn_parts` leaves out; none of a run-length mask."""
    return len(segmentation) - len(drawn_parts(segmentation)) if isinstance(segmentation, list) else 0


def is_blank(segmentation: Any) -> bool:
    """True where no mask was ever drawn: no key, null, an empty list, a list of empty polygons."""
    return segmentation is None or (isinstance(segmentation, list) and not any(segmentation))


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
    elif isinstance(counts, list) and all(is_id(count) for count in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        raise ValueError(f"counts {shown(counts)}: expected a COCO run-length string or a list of runs")
    pixels = height * width
    if ((runs < 0) | (runs > pixels)).any() or runs.sum() != pixels:
        raise ValueError(f"counts {shown(counts)}: expected runs that cover the image's {pixels} pixels")
    return runs


def file_name_of(image: dict[str, Any]) -> Any:
    """`file_name`, or where LVIS leaves it out, the folder and name at the end of `coco_url`.

    >>> file_name_of({"coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg"})
    'val2017/000000397133.jpg'
    """
    if "file_name" not in image and isinstance(image.get("coco_url"), str):
        return "/".join(PurePosixPath(image["coco_url"]).parts[-2:])
    return image.get("file_name")


def _stays_inside(name: Any) -> bool:
    if not (isinstance(name, str) and name.strip()) or "\0" in name:
        return False
    windows = PureWindowsPath(name)  # it splits at both kinds of slash
    return not (windows.anchor or ".." in windows.parts)


def is_id(value: Any, bits: int = 64) -> bool:
    """True for a whole number that fits a signed integer of `bits` bits; JSON's true and 1.0 are none."""
    return type(value) is int and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


def is_number(value: Any) -> bool:
    """True for a JSON number that is finite and of a size a pixel coordinate can have."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def _is_size(value: Any) -> bool:
    return is_id(value, bits=32) and value > 0


def shown(value: Any, limit: int = 60) -> str:
    """A value as JSON on one line, cut to `limit` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 3] + "..."
