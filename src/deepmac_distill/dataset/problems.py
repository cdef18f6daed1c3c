"""What can be wrong with a COCO file as a whole, its categories and its images, one problem at a time.

Opening a file raises the first error, `check` lists them all: one set of rules, two readers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from deepmac_distill.dataset import foreign
from deepmac_distill.files import in_utf8

Level = Literal["error", "warning", "note"]

NEGATIVE, NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"  # of LVIS's images
_PLAIN = re.compile(r"\w[\w./ -]*")
_HALF = "holds half of a character (a lone surrogate); expected characters that UTF-8 has"
MAX_NAME = 4096  # characters: no file system takes more in a path, and looking at paths is quadratic
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
    kind = foreign.of_value(raw)
    if kind or not isinstance(raw, dict):
        got = "got " + (kind or type(raw).__name__)
        yield Problem("error", str(path), f"{got}, expected a JSON object{foreign.advice(kind, path)}")
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
    annotations = raw.get("annotations")
    entries = annotations if isinstance(annotations, list) else []
    if all(isinstance(entry, dict) for entry in entries) and (kind := foreign.of_annotations(entries)):
        message = f"annotations: got none with a box{foreign.advice(kind, path)}"
        yield Problem("error", str(path), message)
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
        elif len(name) > MAX_NAME:
            yield Problem("error", at, f"name {shown(name)}: {_too_long(name)}")
        elif not is_text(name):
            yield Problem("error", at, f"name {shown(name)}: {_HALF}")
        elif name in names:
            yield Problem("error", at, f"name {shown(name)} is used twice; expected one category per name")
        if isinstance(category_id, int) and is_id(category_id):
            ids.add(category_id)
        if isinstance(name, str):
            names.add(name)


def image_problems(images: list[dict[str, Any]], path: Path) -> Iterator[Problem]:
    """Ids, sizes and file names of the images."""
    ids: set[int] = set()
    for position, image in enumerate(images):
        image_id: Any = image.get("id")
        at = f"{path}: image {image_id}" if is_id(image_id) else f"{path}: images[{position}]"
        if not is_id(image_id):
            yield Problem("error", at, f"id {shown(image_id)}: {expected_whole(image_id)}")
        elif image_id in ids:
            yield Problem("error", at, "its id is used twice; expected one image per id")
        else:
            ids.add(image_id)
        for key in ("height", "width"):
            if not is_size(image.get(key)):
                decimal = ", without a decimal point" if type(image.get(key)) is float else ""
                message = f"{key} {shown(image.get(key))}: expected a whole number > 0{decimal}"
                yield Problem("error", at, message)
        name = file_name_of(image)
        if isinstance(name, str) and len(name) > MAX_NAME:
            yield Problem("error", at, f"file_name {shown(name)}: {_too_long(name)}")
        elif not stays_inside(name):
            last = PureWindowsPath(name).name if isinstance(name, str) else ""
            such = f", such as {shown(last)}" if stays_inside(last) else ""
            message = f"file_name {shown(name)}: expected a path inside the image folder{such}"
            yield Problem("error", at, message)
        elif not is_text(name):
            yield Problem("error", at, f"file_name {shown(name)}: {_HALF}")
        for key in (NEGATIVE, NOT_EXHAUSTIVE):
            if not are_ids(image.get(key, [])):
                yield Problem("error", at, f"{key} {shown(image[key])}: expected a list of ids of categories")


def _too_long(name: str) -> str:
    return f"{len(name)} characters; expected at most {MAX_NAME}"


def are_ids(value: Any) -> bool:
    """True for a list of ids as a category may have them: whole numbers or words."""
    return isinstance(value, list) and all(is_id(one) or isinstance(one, str) for one in value)


def file_name_of(image: dict[str, Any]) -> Any:
    """`file_name`, or where LVIS leaves it out, the folder and name at the end of `coco_url`.

    >>> file_name_of({"coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg"})
    'val2017/000000397133.jpg'
    """
    if "file_name" not in image and isinstance(image.get("coco_url"), str):
        return "/".join(PurePosixPath(image["coco_url"][-2 * MAX_NAME :]).parts[-2:])
    return image.get("file_name")


def stays_inside(name: Any) -> bool:
    """True for a name that leads to no place outside the folder of images, and may be looked at."""
    if not (isinstance(name, str) and name.strip()) or "\0" in name or len(name) > MAX_NAME:
        return False
    if _PLAIN.fullmatch(name) and ".." not in name:
        return True  # nearly all are; looking at paths takes ten times as long
    windows = PureWindowsPath(name)  # it splits at both kinds of slash
    return not (windows.anchor or ".." in windows.parts)


def is_text(value: Any) -> bool:
    """True for words that UTF-8 can hold, as every table and file does."""
    return isinstance(value, str) and in_utf8(value) == value


def is_id(value: Any, bits: int = 64) -> bool:
    """True for a whole number that fits a signed integer of `bits` bits; JSON's true and 1.0 are none."""
    return type(value) is int and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


def expected_whole(value: Any) -> str:
    """What was expected of an id that is none, with the cause where it is easily overlooked.

    >>> expected_whole("7"), expected_whole(7.0)
    ('expected a whole number', 'expected a whole number, without a decimal point')
    """
    if type(value) is float and value == value // 1:
        return "expected a whole number, without a decimal point"
    return "expected a whole number" + (" of 64 bits" if type(value) is int else "")


def is_number(value: Any) -> bool:
    """True for a JSON number that is finite and of a size a pixel coordinate can have."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def is_size(value: Any) -> bool:
    """True for what a side of an image can be, in pixels."""
    return is_id(value, bits=32) and value > 0


def shown(value: Any, limit: int = 60) -> str:
    """A value as JSON on one line, cut to `limit` characters."""
    if isinstance(value, str):
        value = value[: limit + 1]
    text = in_utf8(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= limit else text[: limit - 3] + "..."
