"""Images that training and validation share: figures on them are not of new images."""

from __future__ import annotations

from collections.abc import Sequence

from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.progress import Progress
from deepmac_distill.stages.data_files import image_folder
from deepmac_distill.stages.job import Job


def note_overlap(job: Job, validation: Annotations, images: ImageStore) -> None:
    """Note the validation images that the training set has too, by their bytes, else by their name.

    Without the training file here, and on generated scenes, there is nothing to compare.
    """
    training, data = job.training_file(), job.pipeline.data
    if training is None or data.source == "scenes":
        return
    ours = validation.images["file_name"].to_pylist()
    theirs = job.open(training).tables.images["file_name"].to_pylist()
    same = shared_by_content(ours, images, theirs, image_folder(data, data.train_images), job.progress)
    named = sorted(set(ours) & set(theirs) - set(same))
    if same:
        job.note_once(
            f"{validation.path}: {len(same)} of {len(ours)} images are in {training} too, such as {same[0]}: "
            "figures on them are not of new images"
        )
    if named:
        job.note_once(
            f"{validation.path}: {len(named)} of {len(ours)} images are named as in {training}, such as "
            f"{named[0]}, and differ in their bytes or are not there: are they new images?"
        )


def shared_by_content(
    names: Sequence[str],
    images: ImageStore,
    others: Sequence[str],
    other_images: ImageStore,
    progress: Progress | None = None,
) -> list[str]:
    """The names of images that are, byte for byte, also among the others; what is missing counts as other.

    Only files of one size are hashed.
    """
    ours, theirs = _by_size(names, images), _by_size(others, other_images)
    both = ours.keys() & theirs.keys()
    hashes = set(other_images.contents(sorted(name for size in both for name in theirs[size]), progress))
    alike = sorted(name for size in both for name in ours[size])
    return [
        name for name, sha256 in zip(alike, images.contents(alike, progress), strict=True) if sha256 in hashes
    ]


def _by_size(names: Sequence[str], images: ImageStore) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, size in zip(names, images.sizes(names), strict=True):
        if not isinstance(size, DataError):
            found.setdefault(size, []).append(name)
    return found
