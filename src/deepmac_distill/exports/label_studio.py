"""Label Studio: tasks with polygons in percent, and the labeling interface that they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from deepmac_distill.exports.folders import child
from deepmac_distill.exports.masks import MaskObject, MaskSet, Picture
from deepmac_distill.exports.polygons import Loss, outlined
from deepmac_distill.files import write_json

LOCAL_FILES = "/data/local-files/?d="  # how Label Studio names files of a local storage


def write_label_studio(masks: MaskSet, folder: Path, tolerance_px: float) -> list[tuple[int, Loss]]:
    """`tasks.json` to import and `interface.xml` for the project's labeling interface.

    A region is one polygon, so the parts of a mask are joined. Crowds are left out.
    """
    losses: list[tuple[int, Loss]] = []
    tasks = []
    for picture in masks.pictures():
        regions = []
        for thing in picture.objects:
            if thing.is_crowd:
                continue
            if thing.rle is None:
                regions.append(_region(masks, thing, picture, "rectanglelabels", _box(thing, picture)))
                continue
            shape = outlined(thing, picture, single=True, tolerance_px=tolerance_px)
            losses.append((thing.id, shape.loss))
            (ring,) = shape.rings
            points = (ring * (100 / picture.width, 100 / picture.height)).round(5).tolist()
            value = {"points": points, "closed": True}
            regions.append(_region(masks, thing, picture, "polygonlabels", value))
        data = {"image": LOCAL_FILES + quote(picture.file_name), "image_id": picture.id}
        tasks.append({"id": picture.id, "data": data, "annotations": [{"result": regions}]})
    write_json(folder / "tasks.json", tasks)
    _write_interface(masks, folder / "interface.xml")
    return losses


def _box(thing: MaskObject, picture: Picture) -> dict[str, Any]:
    x, y, width, height = thing.bbox
    across, down = 100 / picture.width, 100 / picture.height
    return {"x": x * across, "y": y * down, "width": width * across, "height": height * down, "rotation": 0}


def _region(
    masks: MaskSet, thing: MaskObject, picture: Picture, kind: str, value: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": str(thing.id),
        "from_name": kind.removesuffix("labels"),
        "to_name": "image",
        "type": kind,
        "original_width": picture.width,
        "original_height": picture.height,
        "image_rotation": 0,
        "value": value | {kind: [masks.classes[thing.category_id]]},
        "meta": {"text": [f"{name}: {fact}" for name, fact in thing.attributes().items()]},
    }


def _write_interface(masks: MaskSet, path: Path) -> None:
    view = ElementTree.Element("View")
    child(view, "Image", name="image", value="$image")
    for tag, name in (("PolygonLabels", "polygon"), ("RectangleLabels", "rectangle")):
        labels = child(view, tag, name=name, toName="image")
        for class_name in masks.classes.values():
            child(labels, "Label", value=class_name)
    ElementTree.indent(view)
    ElementTree.ElementTree(view).write(path, encoding="utf-8")
