"""Stage `check`: everything wrong with a data set, before any training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepmac_distill.data.images import find_image_problems
from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.classes import SeenSpec
from deepmac_distill.dataset.coco import read_coco
from deepmac_distill.dataset.problems import Problem


def check(
    annotations: Path, images: Path | None, seen: SeenSpec, strict: bool = False, against: Path | None = None
) -> Iterator[Problem]:
    """All problems, not the first: of the file, then (where the file is sound) of each image.

    Args:
        images: folder of the images; None leaves them unopened.
        against: another annotation file that should share no image with this one.
    """
    problems = list(find_problems(annotations, seen, against, strict=strict))
    yield from problems
    if images is not None and not any(problem.level == "error" for problem in problems):
        yield from find_image_problems(read_coco(annotations, seen, strict=strict), images)
