"""Which other format a file or folder may be, and the command that makes COCO of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from deepmac_distill.regular import opened

_HEAD_BYTES = 4096  # of a file that is no JSON
_IMPORTS = {  # words for a person: datumaro's name of the format
    "YOLO labels": "yolo",
    "Pascal VOC": "voc",
    "CVAT's XML": "cvat",
    "LabelMe's XML": "label_me",
    "Datumaro's own JSON": "datumaro",
    "VoTT's JSON": "vott_json",
    "TFRecord": "tf_detection_api",
    "a panoptic file": "coco_panoptic",
}
_BESIDE_IMAGES = ("Datumaro's own JSON", "a panoptic file")  # in a folder `annotations` of the one to name
_EXPORT_AGAIN = {  # formats that datumaro does not read: what does
    "labelme's JSON": "labelme's own script labelme2coco.py makes COCO of a folder of them",
    "Label Studio's JSON": "export it from Label Studio as COCO",
    "VIA's JSON": "export it from VIA as COCO",
    "Segment Anything's JSON": "its masks have no classes, and a data set needs one for each box",
    "COCO results": "results have no images and categories: name the file that they were computed on",
    "a file of captions": "name the file of instances",
    "an archive": "unpack it and name the JSON file in it",
}


def of_value(raw: Any) -> str:
    """The format of a JSON value that is no COCO document; empty where it is not known."""
    first = raw[0] if isinstance(raw, list) and raw else None
    if isinstance(first, dict):
        if "image_id" in first:
            return "COCO results"
        return "Label Studio's JSON" if {"annotations", "completions"} & first.keys() else ""
    if not isinstance(raw, dict):
        return ""
    if "shapes" in raw and "imagePath" in raw:
        return "labelme's JSON"
    if "items" in raw and "categories" in raw:
        return "Datumaro's own JSON"
    if "asset" in raw or "visitedAssets" in raw or "assets" in raw:
        return "VoTT's JSON"
    if "image" in raw and "annotations" in raw:
        return "Segment Anything's JSON"
    some = next(iter(raw.values()), None)
    if "_via_img_metadata" in raw or (isinstance(some, dict) and "regions" in some):
        return "VIA's JSON"
    return ""


def of_annotations(entries: list[dict[str, Any]]) -> str:
    """What other of COCO's tasks these annotations are for; empty where each may have a box."""
    if entries and all("bbox" not in entry and "category_id" not in entry for entry in entries):
        if all("segments_info" in entry for entry in entries):
            return "a panoptic file"
        return "a file of captions" if all("caption" in entry for entry in entries) else ""
    return ""


def of_file(path: Path) -> str:
    """The format of a file that is no JSON; empty where it is not known."""
    with opened(path) as file:
        head = file.read(_HEAD_BYTES)
    if head[:2] in (b"PK", b"\x1f\x8b"):
        return "an archive"
    if b"<annotations" in head:
        return "CVAT's XML"
    if b"<annotation" in head:
        return "LabelMe's XML" if b"<polygon" in head and b"<bndbox" not in head else "Pascal VOC"
    if path.suffix.lower() in (".record", ".tfrecord"):
        return "TFRecord"
    words = head.split(b"\n")[0].split()
    is_yolo = len(words) >= 5 and words[0].isdigit() and all(_is_number(word) for word in words)
    return "YOLO labels" if is_yolo or path.suffix.lower() in (".yaml", ".yml") else ""


def of_folder(path: Path) -> str:
    """The format of a folder; empty where it is not known."""
    if (path / "labels").is_dir() or (path / "data.yaml").is_file() or (path / "obj.data").is_file():
        return "YOLO labels"
    if (path / "Annotations").is_dir():
        return "Pascal VOC"
    for pattern in ("*.txt", "*.xml", "*.tfrecord", "*.record"):
        if (file := next(path.glob(pattern), None)) and (found := of_file(file)):
            return found
    return ""


def advice(kind: str, path: Path) -> str:
    """What a person can do with a format; empty for one that is not known.

    >>> advice("Pascal VOC", Path("my photos")).partition("makes COCO of it: ")[2]
    "datum convert -if voc -i 'my photos' -f coco_instances"
    """
    if kind in _EXPORT_AGAIN:
        return f"; it looks like {kind}: {_EXPORT_AGAIN[kind]}"
    if kind not in _IMPORTS:
        return ""
    folder = path if path.is_dir() or not path.suffix else path.parent
    if kind in _BESIDE_IMAGES and folder.name == "annotations":
        folder = folder.parent
    command = shlex.join(
        ["datum", "convert", "-if", _IMPORTS[kind], "-i", str(folder), "-f", "coco_instances"]
    )
    return f"; it looks like {kind}: datumaro (pip install 'datumaro[cli]') makes COCO of it: {command}"


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
