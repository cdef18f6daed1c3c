"""Stage `check`: everything wrong with a data set, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from deepmac_distill.data.image_check import find_image_problems
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.images import ImageReader
from deepmac_distill.dataset.check import class_statistics as statistics_of
from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.classes import SeenSpec
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.problems import Problem

AS_STORED = ImageReader()


def check(
    annotations: Path,
    images: Path | None,
    seen: SeenSpec,
    strict: bool = False,
    against: Path | None = None,
    hide: Sequence[str] = (),
    reader: ImageReader = AS_STORED,
) -> Iterator[Problem]:
    """All problems, not the first: of the file, then (where the file is sound) of each image.

    Args:
        images: folder of the images; None leaves them unopened.
        against: another annotation file that should share no image with this one.
        hide: seen classes that count as unseen.
        reader: how the images are read.

    Raises:
        DataError: `hide` names what is no seen class.
    """
    store = None if images is None else ImageFolder(images, reader.exif, reader.max_megapixels)
    problems = find_problems(annotations, seen, against, hide=hide, strict=strict, sizes=store)
    yield from problems
    if store is not None and not any(problem.level == "error" for problem in problems):
        dataset = Dataset.open(annotations, seen=seen, strict=strict, sizes=store)
        yield from find_image_problems(dataset.for_evaluation(), store)


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
    sizes = None if images is None else ImageFolder(images, reader.exif, reader.max_megapixels)
    dataset = Dataset.open(annotations, seen=seen, sizes=sizes)
    return statistics_of(dataset.for_evaluation(dataset.hidden_names(hide)))
