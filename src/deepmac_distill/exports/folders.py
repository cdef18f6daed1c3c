"""Folders of files by image: names that lead nowhere else, and links to the images."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from deepmac_distill.errors import DataError
from deepmac_distill.exports.masks import MaskSet, Picture


def file_for(folder: Path, picture: Picture, suffix: str) -> Path:
    """The file of an image, in a folder that mirrors the images'; its parents are made."""
    path = folder / PurePosixPath(picture.file_name).with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def require_stems(masks: MaskSet) -> None:
    """Refuse images that differ in their suffix alone, since their files would be one.

    Raises:
        DataError: names two.
    """
    first: dict[PurePosixPath, str] = {}
    for name in masks.images["file_name"].to_pylist():
        other = first.setdefault(PurePosixPath(name).with_suffix(""), name)
        if other != name:
            raise DataError(
                f"{name}: has one name with {other} but for the suffix; expected another, or COCO"
            )


def link_image(masks: MaskSet, picture: Picture, folder: Path) -> None:
    """A link to an image in a folder of the export, where the images are known and the image is there."""
    if masks.folder is None or not (source := masks.folder / picture.file_name).is_file():
        return
    link = folder / picture.file_name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(source.resolve())


def child(
    parent: ElementTree.Element, tag: str, text: object = None, **attributes: object
) -> ElementTree.Element:
    """A new element, its text and attributes without characters that XML 1.0 cannot hold."""
    made = ElementTree.SubElement(parent, tag, {name: _xml(value) for name, value in attributes.items()})
    if text is not None:
        made.text = _xml(text)
    return made


def _xml(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(c if c in "\t\n" or (c >= " " and c not in "\ufffe\uffff") else "\ufffd" for c in text)
