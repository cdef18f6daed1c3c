"""PASCAL VOC: boxes in XML, masks in two pictures an image, of classes and of objects."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepmac_distill.errors import DataError
from deepmac_distill.exports.folders import child, file_for, require_stems
from deepmac_distill.exports.masks import MaskObject, MaskSet, Picture
from deepmac_distill.exports.polygons import Loss, crop_of

VOID, MOST = 255, 254  # the value of what does not count, and how many classes or objects a picture holds
CLASSES, OBJECTS = "SegmentationClass", "SegmentationObject"


def write_voc(masks: MaskSet, folder: Path, tolerance_px: float) -> list[tuple[int, Loss]]:
    """VOC's folders, and `labelmap.txt` as of CVAT and Datumaro, which refuses links to images elsewhere.

    A pixel belongs to one object: large masks are drawn first, and what smaller ones hide is lost. Crowds and
    regions to ignore are void, and `difficult` in the XML. Boxes there are COCO's, from 0 and half-open, as
    Datumaro reads them, where VOC itself counted pixels from 1.

    Raises:
        DataError: more classes, or objects on an image, than a picture has values for.
    """
    require_stems(masks)
    if len(masks.classes) > MOST:
        raise DataError(f"VOC: got {len(masks.classes)} classes, expected at most {MOST}")
    losses: list[tuple[int, Loss]] = []
    names = []
    for picture in masks.pictures():
        classes, objects = _drawn(masks, picture)
        losses += _losses(picture, objects)
        for kind, values in ((CLASSES, classes), (OBJECTS, objects)):
            made = Image.fromarray(values)
            made.putpalette(colors().ravel().tolist())
            made.save(file_for(folder / kind, picture, ".png"))
        tree = ElementTree.ElementTree(_annotation(masks, picture))
        ElementTree.indent(tree)
        tree.write(file_for(folder / "Annotations", picture, ".xml"), encoding="utf-8")
        names.append(str(Path(picture.file_name).with_suffix("")))
    listed = "".join(f"{name}\n" for name in names)
    for kind in ("Main", "Segmentation"):
        (folder / "ImageSets" / kind).mkdir(parents=True)
        (folder / "ImageSets" / kind / "train.txt").write_text(listed, encoding="utf-8")
    (folder / "labelmap.txt").write_text(_label_map(masks), encoding="utf-8")
    return losses


def colors() -> NDArray[np.uint8]:
    """(256, 3) VOC's colors: the bits of a number, dealt to red, green and blue from the top.

    >>> colors()[[1, 2, 255]].tolist()
    [[128, 0, 0], [0, 128, 0], [224, 224, 192]]
    """
    number = np.arange(256)[:, None]
    channel = np.arange(3)
    value = np.zeros((256, 3), np.int64)
    for digit in range(8):
        value |= ((number >> (3 * digit + channel)) & 1) << (7 - digit)
    return value.astype(np.uint8)


def _drawn(masks: MaskSet, picture: Picture) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(H, W) the class, and the object by its place in the XML, of each pixel; both from 1."""
    if len(picture.objects) > MOST:
        raise DataError(f"{picture.file_name}: got {len(picture.objects)} objects, VOC holds at most {MOST}")
    number = {category: index for index, category in enumerate(masks.classes, start=1)}
    classes, objects = (np.zeros((picture.height, picture.width), np.uint8) for _ in range(2))
    crops = [
        (place, thing, *crop_of(thing))
        for place, thing in enumerate(picture.objects, start=1)
        if thing.rle is not None
    ]
    for place, thing, mask, left, top in sorted(
        crops, key=lambda crop: (not crop[1].is_crowd, -crop[2].sum())
    ):
        height, width = mask.shape
        there = slice(top, top + height), slice(left, left + width)
        classes[there][mask] = VOID if thing.is_crowd else number[thing.category_id]
        objects[there][mask] = VOID if thing.is_crowd else place
    return classes, objects


def _held(name: str) -> str:
    """The name of a class as a label map can hold it, and as the XML has it too.

    >>> _held("a: b"), ascii(_held("#1"))
    ('a; b', "'\\\\ufffd1'")
    """
    held = "".join("\ufffd" if ord(one) < ord(" ") or one in "\x7f\x85\u2028\u2029" else one for one in name)
    return ("\ufffd" + held[1:] if held.startswith("#") else held).replace(":", ";")


def _losses(picture: Picture, objects: NDArray[np.uint8]) -> list[tuple[int, Loss]]:
    left = np.bincount(objects.ravel(), minlength=256)
    return [
        (thing.id, Loss(float(left[place] / max(crop_of(thing)[0].sum(), 1))))
        for place, thing in enumerate(picture.objects, start=1)
        if thing.rle is not None and not thing.is_crowd
    ]


def _annotation(masks: MaskSet, picture: Picture) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    child(root, "filename", picture.file_name)
    size = child(root, "size")
    for name, value in (("width", picture.width), ("height", picture.height), ("depth", 3)):
        child(size, name, value)
    child(root, "segmented", int(any(thing.rle is not None for thing in picture.objects)))
    for thing in picture.objects:
        _object(root, masks, thing)
    return root


def _object(root: ElementTree.Element, masks: MaskSet, thing: MaskObject) -> None:
    entry = child(root, "object")
    child(entry, "name", _held(masks.classes[thing.category_id]))
    child(entry, "difficult", int(thing.is_crowd))
    x, y, width, height = thing.bbox
    box = child(entry, "bndbox")
    for name, side in (("xmin", x), ("ymin", y), ("xmax", x + width), ("ymax", y + height)):
        child(box, name, side)
    attributes = child(entry, "attributes")
    for name, value in (("annotation_id", thing.id), *thing.attributes().items()):
        attribute = child(attributes, "attribute")
        child(attribute, "name", name)
        child(attribute, "value", value)


def _label_map(masks: MaskSet) -> str:
    palette = colors()
    names = [_held(name) for name in masks.classes.values()]
    if len(set(names)) < len(names):
        raise DataError("VOC: two classes have one name in a label map, which holds no ':' and no line ends")
    named = [("background", 0), *((name, index) for index, name in enumerate(names, start=1))]
    if "ignored" not in masks.classes.values():  # the void's name in Datumaro, which refuses unknown colors
        named.append(("ignored", VOID))
    lines = [f"{name}:{','.join(map(str, palette[index]))}::" for name, index in named]
    return "# label:color_rgb:parts:actions\n" + "".join(line + "\n" for line in lines)
