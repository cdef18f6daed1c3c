"""Boxes that a person gives: on the command line, or in a COCO file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.images import ImageReader
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError

AS_STORED = ImageReader()


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """An image and N boxes in it to segment."""

    path: Path
    image_id: int
    boxes_xywh: NDArray[np.float64]  # (N, 4) pixels of the image as it is read
    class_index: NDArray[np.int64]  # (N,) among the names of `GivenBoxes`
    annotation_ids: NDArray[np.int64]  # (N,)


@dataclass(frozen=True, slots=True)
class GivenBoxes:
    """Boxes on some images, and their classes."""

    images: tuple[BoxedImage, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    named: bool  # whether the boxes came with classes
    left_out: int = 0  # crowds and boxes without area of the file
    sources: tuple[Path, ...] = ()  # the file

    @property
    def files(self) -> list[Path]:
        """The images, in their order."""
        return [image.path for image in self.images]


def the_same_in_each(images: Sequence[Path], boxes_xywh: ArrayLike) -> GivenBoxes:
    """The same boxes on each image, of one class `object`, since none was given."""
    boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    some = [
        BoxedImage(
            path=path,
            image_id=position + 1,
            boxes_xywh=boxes,
            class_index=np.zeros(len(boxes), np.int64),
            annotation_ids=np.arange(len(boxes)) + 1 + position * len(boxes),
        )
        for position, path in enumerate(images)
    ]
    return GivenBoxes(tuple(some), ("object",), (1,), named=False)


def boxes_of_file(file: Path, given: Sequence[Path] = (), reader: ImageReader = AS_STORED) -> GivenBoxes:
    """The boxes of a COCO file.

    Args:
        given: image files, which choose images of the file by name, and folders where its images are. None
            is the folder of the file.
        reader: how the images are read that give sizes which the file lacks.

    Raises:
        DataError: the file is not COCO, has no box, or an image is not there.
    """
    folder = next((path for path in given if path.is_dir()), file.parent)
    sizes = ImageFolder(folder, reader.exif, reader.max_megapixels)
    truth = Dataset.open(file, seen=("all",), sizes=sizes).for_training()
    usable = np.asarray(truth.annotations["status"]) == "ok"
    images = tuple(_boxed(truth, usable, given or [file.parent]))
    if not images:
        raise DataError(f"{file}: no box on the images given; expected at least one")
    left_out = int((~usable).sum())
    classes = truth.classes
    return GivenBoxes(images, classes.names, classes.category_ids, True, left_out, (file,))


def _boxed(truth: Annotations, usable: NDArray[np.bool_], given: Sequence[Path]) -> Iterator[BoxedImage]:
    chosen = {path.name: path for path in given if not path.is_dir()}
    folders = [path for path in given if path.is_dir()]
    offsets, index, ids = truth.rows_by_image(), truth.class_index(), truth.annotations["annotation_id"]
    boxes = np.asarray(truth.annotations["bbox"].to_pylist(), dtype=np.float64).reshape(-1, 4)
    names, image_ids = (truth.images[name].to_pylist() for name in ("file_name", "image_id"))
    for position, name in enumerate(names):
        rows = np.arange(offsets[position], offsets[position + 1])
        rows = rows[usable[rows]]
        path = chosen.get(Path(name).name) or (_found(folders, name) if folders and len(rows) else None)
        if path is not None and len(rows):
            yield BoxedImage(
                path, image_ids[position], boxes[rows], index[rows], np.asarray(ids)[rows].astype(np.int64)
            )


def _found(folders: Sequence[Path], name: str) -> Path:
    for folder in folders[:-1]:
        try:
            return ImageFolder(folder).locate(name)
        except DataError:
            continue
    return ImageFolder(folders[-1]).locate(name)
