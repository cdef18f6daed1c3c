"""LabelMe: a JSON file for each image, a polygon for each connected part of a mask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deepmac_distill.exports.folders import file_for, require_stems
from deepmac_distill.exports.masks import MaskObject, MaskSet, Picture
from deepmac_distill.exports.polygons import Loss, outlined
from deepmac_distill.files import write_json

VERSION = "5.5.0"  # whose keys these are


def write_labelme(masks: MaskSet, folder: Path, tolerance_px: float) -> list[tuple[int, Loss]]:
    """Parts of one mask share a `group_id`; a box without a mask is a rectangle. Crowds are left out.

    `imagePath` leads from the file to the image where the images are known. `folder` may be renamed later, to
    a place beside it.
    """
    require_stems(masks)
    losses: list[tuple[int, Loss]] = []
    for picture in masks.pictures():
        shapes = []
        for thing in picture.objects:
            if thing.is_crowd:
                continue
            if thing.rle is None:
                x, y, width, height = thing.bbox
                shapes.append(_shape(masks, thing, "rectangle", [[x, y], [x + width, y + height]]))
                continue
            drawn = outlined(thing, picture, "centers", tolerance_px=tolerance_px)
            losses.append((thing.id, drawn.loss))
            shapes += [_shape(masks, thing, "polygon", ring.tolist()) for ring in drawn.rings]
        path = file_for(folder, picture, ".json")
        write_json(path, _file(masks, picture, shapes, path.parent))
    return losses


def _file(masks: MaskSet, picture: Picture, shapes: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    image = picture.file_name
    if masks.folder is not None:
        image = os.path.relpath((masks.folder / image).resolve(), folder.resolve())
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": picture.height,
        "imageWidth": picture.width,
    }


def _shape(masks: MaskSet, thing: MaskObject, kind: str, points: list[list[float]]) -> dict[str, Any]:
    facts = [f"{name} {value}" for name, value in thing.facts.items()]
    return {
        "label": masks.classes[thing.category_id],
        "points": points,
        "group_id": thing.id,
        "description": ", ".join([thing.source, *facts]),
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }
