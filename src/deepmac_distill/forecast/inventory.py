"""Whether a data set is all there, and how much of it: lists are compared, no image is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.parquet import files_of
from deepmac_distill.errors import DataError

JSON_IN_MEMORY = 3  # bytes at most for each of the file while it is read; 2.3 on polygons of COCO
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


def take_inventory(annotations: Path, images: ImageStore, open_file: Callable[[Path], Dataset]) -> Inventory:
    """Compare an annotation file with the listing of its folder of images.

    Errors of masks are left to `deepmac check`, which is the thorough way.

    Args:
        open_file: opens an annotation file as the stages do.

    Raises:
        DataError: the file is there and something but its masks is wrong, or its classes do not fit `seen`.
    """
    folder = images.folder
    lacking = [str(annotations)] if not annotations.exists() else []
    there = images.is_there()
    if not there:
        lacking.append(f"{images}/")
    if not annotations.exists():
        return Inventory(annotations=annotations, folder=folder, missing=tuple(lacking))
    dataset = open_file(annotations)
    names = dataset.tables.images["file_name"].to_pylist()
    if there and (absent := images.absent(names)):
        lacking.append(f"{len(absent)} of {len(names)} images of {images}/, such as {absent[0]}")
    _require_one_file_each(names, images)
    table, classes = dataset.tables.annotations, dataset.classes
    usable = ~table["iscrowd"].to_numpy()
    seen_ids = [i for i, shown in zip(classes.category_ids, classes.seen, strict=True) if shown]
    of_seen = np.isin(table["category_id"].to_numpy(), seen_ids)
    image_ids = table["image_id"].to_numpy()
    return Inventory(
        annotations=annotations,
        folder=folder,
        missing=tuple(lacking),
        json_bytes=sum(file.stat().st_size for file in files_of(annotations)),
        images=len(names),
        boxes=len(table),
        class_names=classes.names,
        usable=_per_image(image_ids[usable], len(names)),
        seen=_per_image(image_ids[usable & of_seen], len(names)),
    )


def _require_one_file_each(names: Sequence[str], images: ImageStore) -> None:
    """Refuse images that differ in their folders alone and are one file, as the stages do."""
    last_parts = Counter(PurePosixPath(name).name for name in set(names))
    for found in images.sizes([name for name in names if last_parts[PurePosixPath(name).name] > 1]):
        if isinstance(found, DataError):
            raise found


def download_page(missing: str) -> str:
    """Where what is missing can be had, if its name is one that COCO or LVIS gave it; else empty.

    >>> download_page("data/annotations/instances_val2017.json"), download_page("my/train.json")
    ('https://cocodataset.org/#download', '')
    """
    if "lvis" in missing.lower():
        return LVIS_PAGE
    return COCO_PAGE if "train2017" in missing or "val2017" in missing else ""


def _per_image(image_ids: NDArray[np.int64], images: int) -> PerImage:
    """Of the images of boxes, one entry for each box."""
    most = int(np.unique(image_ids, return_counts=True)[1].max(initial=0))
    return PerImage(mean=len(image_ids) / max(images, 1), most=most)
