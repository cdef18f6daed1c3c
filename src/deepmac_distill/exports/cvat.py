"""CVAT for images 1.1: one XML file, masks as run lengths along the rows of their boxes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.exports.folders import child
from deepmac_distill.exports.masks import FACTS, MaskObject, MaskSet
from deepmac_distill.exports.polygons import Loss, crop_of

DRAWN = {"human": "manual", "teacher": "auto", "none": "manual"}  # CVAT's own word for who drew a shape
ATTRIBUTES = ("annotation_id", "source", "is_crowd", *FACTS)


def write_cvat(masks: MaskSet, path: Path, tolerance_px: float) -> list[tuple[int, Loss]]:
    """Masks as they are, boxes without one as boxes, and attributes that every label declares.

    `is_crowd` is what Datumaro makes COCO's `iscrowd` of. `annotation_id` leads back, since CVAT numbers
    shapes by itself.
    """
    losses = []
    with path.open("wb") as file:
        file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write(ElementTree.tostring(_meta(masks), encoding="unicode").encode() + b"\n")
        for number, picture in enumerate(masks.pictures()):
            image = ElementTree.Element("image")
            image.attrib |= {"id": str(number), "width": str(picture.width), "height": str(picture.height)}
            image.set("name", child(ElementTree.Element("t"), "t", picture.file_name).text or "")
            for thing in picture.objects:
                _shape(image, masks, thing)
                if thing.rle is not None and thing.source != "none":
                    losses.append((thing.id, Loss()))
            file.write(ElementTree.tostring(image, encoding="unicode").encode() + b"\n")
        file.write(b"</annotations>\n")
    return losses


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths along the rows, background first.

    >>> run_lengths(np.array([[1, 1, 0], [0, 1, 1]], bool))
    [0, 2, 2, 2]
    """
    flat = mask.ravel()
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.r_[0, borders, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def _shape(image: ElementTree.Element, masks: MaskSet, thing: MaskObject) -> None:
    common = {"label": masks.classes[thing.category_id], "source": DRAWN[thing.source]}
    common |= {"occluded": "0", "z_order": "0"}
    if thing.rle is None:
        x, y, width, height = thing.bbox
        shape = child(image, "box", **common, xtl=x, ytl=y, xbr=x + width, ybr=y + height)
    else:
        mask, left, top = crop_of(thing)
        height, width = mask.shape
        runs = ", ".join(map(str, run_lengths(mask)))
        shape = child(image, "mask", **common, rle=runs, left=left, top=top, width=width, height=height)
    values = {"annotation_id": thing.id, "is_crowd": thing.is_crowd, **thing.attributes()}
    for name in ATTRIBUTES:
        if name in values:
            child(shape, "attribute", values[name], name=name)


def _meta(masks: MaskSet) -> ElementTree.Element:
    meta = ElementTree.Element("meta")
    labels = child(child(meta, "task"), "labels")
    for class_name in masks.classes.values():
        label = child(labels, "label")
        child(label, "name", class_name)
        attributes = child(label, "attributes")
        for name in ATTRIBUTES:
            flag = name in ("is_crowd", "teacher_saw_class")
            attribute = child(attributes, "attribute")
            child(attribute, "name", name)
            child(attribute, "mutable", "False")
            child(attribute, "input_type", "checkbox" if flag else "text")
            child(attribute, "default_value", "false" if flag else "")
            child(attribute, "values", "false" if flag else "")
    return meta
