"""The images of an annotation file, checked before any work: are they there, and of the size in the file?"""

from __future__ import annotations

from collections.abc import Iterator

from deepmac_distill.data.image_store import ImageFolder, ImageStore
from deepmac_distill.dataset.problems import Problem
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json


def find_image_problems(annotations: Annotations, images: ImageFolder) -> Iterator[Problem]:
    """Every image that is missing, cannot be decoded, or has another size than its annotations give.

    Images whose EXIF orientation would turn them are counted: annotations may be on either form.
    """
    if not images.folder.is_dir():
        yield Problem("error", str(images), "no such folder; expected the images")
        return
    turned = []
    for image in annotations.images.select(["image_id", "file_name", "height", "width"]).to_pylist():
        try:
            images.read_sized(image["file_name"], image["height"], image["width"])
            turned += images.turned([image["file_name"]])
        except DataError as error:
            yield Problem("error", f"{annotations.path}: image {image['image_id']}", str(error))
    if turned:
        how = "are read as stored" if images.exif == "as-stored" else "are turned"
        message = (
            f"{len(turned)} images have an EXIF orientation other than 1, such as {turned[0]}, and {how}; "
            "set data.exif (as-stored | apply) to the pixels that were annotated"
        )
        yield Problem("warning", str(images), message)


def images_sha256(annotations: Annotations, images: ImageStore) -> str:
    """A fingerprint of the images of a set: their names and sizes in bytes, not their pixels.

    It costs one look at each file, so that a missing image is found before any work and not after hours.

    Raises:
        DataError: an image is missing, or two names mean one.
    """
    return sha256_of_json(images.fingerprints(annotations.images["file_name"].to_pylist()))
