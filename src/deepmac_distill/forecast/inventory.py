"""Whether a data set is all there, and how much of it: lists are compared, no image is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from deepmac_distill.dataset.classes import Classes, SeenSpec
from deepmac_distill.dataset.coco import parse_json
from deepmac_distill.dataset.problems import document_problems, file_name_of, image_problems
from deepmac_distill.errors import DataError

JSON_IN_MEMORY = 6  # bytes at most for each of the file while it is read; 5.8 on polygons of COCO
COCO_PAGE, LVIS_PAGE = "https://cocodataset.org/#download", "https://www.lvisdataset.org/dataset"


@dataclass(frozen=True, slots=True)
class PerImage:
    """Boxes of an image."""

    mean: float = 0.0
    most: int = 0

    def in_batch(self, images: int) -> float:
        """As many as the fullest of very many batches has: the fullest image and average ones."""
        return self.most + (images - 1) * self.mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What there is of an annotation file and its images."""

    annotations: Path
    folder: Path
    missing: tuple[str, ...] = ()  # what is not there, in words; empty where all is
    json_bytes: int = 0
    images: int = 0  # that the file names
    boxes: int = 0  # crowds among them
    class_names: tuple[str, ...] = ()
    usable: PerImage = field(default_factory=PerImage)  # boxes that are no crowds
    seen: PerImage = field(default_factory=PerImage)  # of them those of seen classes


def take_inventory(annotations: Path, folder: Path, seen: SeenSpec) -> Inventory:
    """Compare an annotation file with the listing of its folder of images.

    Masks are not looked at. `deepmac check` is the thorough way.

    Raises:
        DataError: the file is there and is no COCO file, or its classes do not fit `seen`.
    """
    lacking = [str(annotations)] if not annotations.is_file() else []
    if not folder.is_dir():
        lacking.append(f"{folder}/")
    if not annotations.is_file():
        return Inventory(annotations=annotations, folder=folder, missing=tuple(lacking))
    raw = parse_json(annotations)
    for problem in document_problems(raw, annotations):
        raise DataError(str(problem))
    for problem in image_problems(raw["images"], annotations):
        raise DataError(str(problem))
    classes = Classes.from_categories(raw["categories"], seen, str(annotations))
    names = [file_name_of(image) for image in raw["images"]]
    if folder.is_dir() and (absent := absent_images(names, folder)):
        lacking.append(f"{len(absent)} of {len(names)} images of {folder}/, such as {absent[0]}")
    usable = [box for box in raw["annotations"] if not box.get("iscrowd")]
    seen_ids = {i for i, shown in zip(classes.category_ids, classes.seen, strict=True) if shown}
    shown = [box for box in usable if box.get("category_id") in seen_ids]
    return Inventory(
        annotations=annotations,
        folder=folder,
        missing=tuple(lacking),
        json_bytes=annotations.stat().st_size,
        images=len(names),
        boxes=len(raw["annotations"]),
        class_names=classes.names,
        usable=_per_image(usable, len(names)),
        seen=_per_image(shown, len(names)),
    )


def absent_images(names: Sequence[str], folder: Path) -> list[str]:
    """The names that `data.images.resolve_image` would not find, by one listing of each folder."""
    listed: dict[Path, frozenset[str]] = {}

    def there(path: Path) -> bool:
        if path.parent not in listed:
            entries = path.parent.iterdir() if path.parent.is_dir() else ()
            listed[path.parent] = frozenset(entry.name for entry in entries)
        return path.name in listed[path.parent]

    return [name for name in names if not (there(folder / name) or there(folder / PurePosixPath(name).name))]


def download_page(missing: str) -> str:
    """Where what is missing can be had, if its name is one that COCO or LVIS gave it; else empty.

    >>> download_page("data/annotations/instances_val2017.json"), download_page("my/train.json")
    ('https://cocodataset.org/#download', '')
    """
    if "lvis" in missing.lower():
        return LVIS_PAGE
    return COCO_PAGE if "train2017" in missing or "val2017" in missing else ""


def _per_image(boxes: Sequence[dict[str, Any]], images: int) -> PerImage:
    counts = Counter(box.get("image_id") for box in boxes)
    return PerImage(mean=len(boxes) / max(images, 1), most=max(counts.values(), default=0))
