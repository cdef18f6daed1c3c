"""The files that the keys of `data` name: paths, or URIs of what is in a bucket."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.config import DataConfig
from deepmac_distill.data.image_places import images_at
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.storage.failures import Gone
from deepmac_distill.storage.fetching import fetched
from deepmac_distill.storage.location import joined


def annotation_file(data: DataConfig, named: str) -> Path:
    """An annotation file; what is in a bucket is fetched.

    Raises:
        StorageError: it cannot be.
    """
    return fetched(joined(data.root, named))


def annotation_file_if_any(data: DataConfig, named: str) -> Path | None:
    """The same; None where nothing is named, or nothing is there.

    Raises:
        StorageError: its store cannot be reached.
    """
    try:
        path = annotation_file(data, named) if named else None
    except Gone:
        return None
    return path if path is not None and path.exists() else None


def image_folder(data: DataConfig, named: str) -> ImageStore:
    """Images, read as the keys ask for."""
    return images_at(joined(data.root, named), data.exif, data.max_megapixels)
