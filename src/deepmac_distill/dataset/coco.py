"""A COCO file read in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

from deepmac_distill.dataset.classes import SeenSpec
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations, TrainingView, Truth, require_seen_masks

__all__ = ["Annotations", "TrainingView", "Truth", "read_coco", "require_seen_masks"]


@overload
def read_coco(
    path: Path, seen: SeenSpec, *, strict: bool = False, hide_unseen: Literal[True] = True
) -> TrainingView: ...
@overload
def read_coco(path: Path, seen: SeenSpec, *, strict: bool = False, hide_unseen: Literal[False]) -> Truth: ...


def read_coco(path: Path, seen: SeenSpec, *, strict: bool = False, hide_unseen: bool = True) -> Annotations:
    """The training view of a file, or with `hide_unseen` False its truth.

    Raises:
        DataError: the first thing wrong with the file: where, what was got, what was expected.
    """
    dataset = Dataset.open(path, seen=seen, strict=strict)
    return dataset.for_training() if hide_unseen else dataset.for_evaluation()
