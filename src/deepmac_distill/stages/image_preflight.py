"""The images of a set before a stage works on them: can they be read, and is each picture there once?"""

from __future__ import annotations

from deepmac_distill.data.header_check import require_readable
from deepmac_distill.data.image_check import repeated_pictures
from deepmac_distill.data.image_store import ImageFolder, ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.stages.job import Job


def require_images(job: Job, annotations: Annotations, images: ImageStore) -> None:
    """Refuse a set of which an image cannot be read, in seconds; note pictures that several entries show.

    Generated scenes are sound. In a bucket or an archive pictures are not compared: each would have to be
    read for it.

    Raises:
        DataError: names an image.
    """
    if job.pipeline.data.source == "scenes":
        return
    require_readable(annotations, images, job.progress)
    if isinstance(images, ImageFolder) and (found := repeated_pictures(annotations, images, job.progress)):
        job.note_once(f"{annotations.path}: {found}")
