"""The images of an annotation file, checked before any work: are they there, and of the size in the file?"""

from __future__ import annotations

from collections.abc import Iterator

from deepmac_distill.comparing import CONTENT
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.problems import Problem
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json
from deepmac_distill.progress import Progress


def find_image_problems(annotations: Annotations, images: ImageStore) -> Iterator[Problem]:
    """Every image that is missing, cannot be decoded, or has another size than its annotations give.

    Images whose EXIF orientation would turn them are counted: annotations may be on either form. One of a
    single value is a picture of nothing.
    """
    if not images.is_there():
        yield Problem("error", str(images), "no such folder; expected the images")
        return
    turned: list[str] = []
    rows = annotations.images.select(["image_id", "file_name", "height", "width"]).to_pylist()
    for row, found in zip(rows, images.sizes([row["file_name"] for row in rows]), strict=True):
        where = f"{annotations.path}: image {row['image_id']}"
        if isinstance(found, DataError):
            yield Problem("error", where, str(found))
            continue
        try:
            pixels = images.read_sized(row["file_name"], row["height"], row["width"])
        except DataError as error:
            yield Problem("error", where, str(error))
            continue
        if (value := pixels.min()) == pixels.max():
            at = f"{images}/{row['file_name']}"
            yield Problem("warning", where, f"{at}: all its pixels are {value}; expected a picture")
        turned += [row["file_name"]] if images.orientation_of(row["file_name"]) != 1 else []
    if turned:
        how = "are read as stored" if images.exif == "as-stored" else "are turned"
        message = (
            f"{len(turned)} images have an EXIF orientation other than 1, such as {turned[0]}, and "
            f"{how}; set data.exif (as-stored | apply) to the pixels that were annotated"
        )
        yield Problem("warning", str(images), message)


def repeated_pictures(annotations: Annotations, images: ImageStore, progress: Progress | None = None) -> str:
    """What to report of pictures that are there under several names: links or copies; empty where none is.

    What is labeled under one name is background under the other. Only files of one size are hashed.
    """
    names = sorted(set(annotations.images["file_name"].to_pylist()))
    by_size: dict[int, list[str]] = {}
    for name, size in zip(names, images.sizes(names), strict=True):
        if not isinstance(size, DataError):
            by_size.setdefault(size, []).append(name)
    alike = [name for some in by_size.values() if len(some) > 1 for name in some]
    first: dict[str, str] = {}
    again = [
        (first[sha256], name)
        for name, sha256 in zip(alike, images.contents(alike, progress), strict=True)
        if first.setdefault(sha256, name) != name
    ]
    if not again:
        return ""
    one, other = again[0]
    return (
        f"{len(again)} images are the bytes of another, such as {other} and {one}; expected one entry for a "
        "picture: what only one of them labels is background in the other"
    )


def images_sha256(annotations: Annotations, images: ImageStore) -> str:
    """A fingerprint of the images of a set: their names and sizes in bytes, not their pixels.

    It costs one look at each file, so that a missing image is found before any work and not after hours.

    Raises:
        DataError: an image is missing, or two names mean one.
    """
    return sha256_of_json(images.fingerprints(annotations.images["file_name"].to_pylist()))


def image_inputs(
    key: str, annotations: Annotations, images: ImageStore, progress: Progress | None = None
) -> dict[str, str]:
    """What a stage depends on that reads these images, by name: their names and sizes, then their content.

    Raises:
        DataError: as `images_sha256`.
    """
    inputs = {key: images_sha256(annotations, images)}
    names = annotations.images["file_name"].to_pylist()
    inputs[f"{key}{CONTENT}"] = sha256_of_json(images.versions(names, progress))
    return inputs | ({"data.exif": "apply"} if images.exif == "apply" else {})
