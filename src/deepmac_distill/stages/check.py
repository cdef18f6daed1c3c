"""Stage `check`: everything wrong with a data set, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from deepmac_distill.data.image_check import find_image_problems, repeated_pictures
from deepmac_distill.data.image_places import images_at
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.data.images import ImageReader
from deepmac_distill.dataset.check import class_statistics as statistics_of
from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.classes import SeenSpec
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.problems import Problem
from deepmac_distill.errors import DataError
from deepmac_distill.progress import Progress
from deepmac_distill.stages.overlap import shared_by_content

AS_STORED = ImageReader()


def check(
    annotations: Path,
    images: Path | None,
    seen: SeenSpec,
    strict: bool = False,
    against: Path | None = None,
    hide: Sequence[str] = (),
    reader: ImageReader = AS_STORED,
    against_images: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[Problem]:
    """All problems, not the first: of the file, then (where the file is sound) of each image.

    Args:
        images: folder of the images; None leaves them unopened.
        against: another annotation file that should share no image with this one, by name; where images are
            given, byte for byte either.
        hide: seen classes that count as unseen.
        reader: how the images are read.
        against_images: folder of the other file's images; None: `images`.
        progress: shows a bar where many images are compared.

    Raises:
        DataError: `hide` names what is no seen class.
    """
    store = None if images is None else images_at(images, reader.exif, reader.max_megapixels)
    problems = find_problems(annotations, seen, against, hide=hide, strict=strict, sizes=store)
    yield from problems
    if store is not None and not any(problem.level == "error" for problem in problems):
        dataset = Dataset.open(annotations, seen=seen, strict=strict, sizes=store)
        truth = dataset.for_evaluation()
        yield from find_image_problems(truth, store)
        if repeated := repeated_pictures(truth, store, progress):
            yield Problem("warning", str(annotations), repeated)
        if against is not None:
            others = images_at(against_images or store.folder, reader.exif, reader.max_megapixels)
            yield from _same_images(
                dataset, store, Dataset.open(against, seen="all", sizes=others), others, progress
            )


def _same_images(
    ours: Dataset, images: ImageStore, theirs: Dataset, other_images: ImageStore, progress: Progress | None
) -> Iterator[Problem]:
    """A warning where images of two files are the same ones; those of one name are known by their names."""
    names, others = (one.tables.images["file_name"].to_pylist() for one in (ours, theirs))
    same = shared_by_content(names, images, others, other_images, progress)
    if renamed := [name for name in same if name not in set(others)]:
        message = (
            f"{len(renamed)} images are in {theirs.path} too, under other names, such as {renamed[0]}; "
            "expected none"
        )
        yield Problem("warning", str(ours.path), message)
    if others and all(isinstance(found, DataError) for found in other_images.sizes(others)):
        message = f"none of its images is in {other_images}; expected their folder (--against-images)"
        yield Problem("note", str(theirs.path), message)


def class_statistics(
    annotations: Path,
    seen: SeenSpec,
    hide: Sequence[str] = (),
    images: Path | None = None,
    reader: ImageReader = AS_STORED,
) -> pa.Table:
    """What is in a sound file, a row for each class: see `dataset.check.class_statistics`.

    Raises:
        DataError: the file is not sound, or the classes do not fit.
    """
    sizes = None if images is None else images_at(images, reader.exif, reader.max_megapixels)
    dataset = Dataset.open(annotations, seen=seen, sizes=sizes)
    return statistics_of(dataset.for_evaluation(dataset.hidden_names(hide)))
