"""The images at a path or URI: a folder, the objects of a bucket, or archives."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.data.archives import Archives, is_archives
from deepmac_distill.data.image_store import ImageFolder, ImageStore
from deepmac_distill.data.images import MAX_MEGAPIXELS, Exif
from deepmac_distill.data.stored_images import Bucket, StoredImages
from deepmac_distill.storage.location import Location, place_of


def images_at(named: Path, exif: Exif = "as-stored", max_megapixels: int = MAX_MEGAPIXELS) -> ImageStore:
    """Images by where they are; nothing is looked at yet.

    Args:
        named: a folder, s3://BUCKET/KEYS, or what ends in .tar, of a path or URI, in whose last part * stands
            for any characters.

    Raises:
        ConfigError: a URI that cannot be used.
    """
    place = place_of(named)
    if is_archives(named):
        local = named if isinstance(place, Location) else place
        return StoredImages(Archives(local), local, exif, max_megapixels)
    if isinstance(place, Location):
        return StoredImages(Bucket(place), named, exif, max_megapixels)
    return ImageFolder(place, exif, max_megapixels)
