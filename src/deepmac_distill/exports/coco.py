"""COCO JSON, masks as polygons or as compressed run-length codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from deepmac_distill.dataset.ingest import MARK
from deepmac_distill.exports.masks import MaskObject, MaskSet, Picture
from deepmac_distill.exports.polygons import Loss, flat, outlined
from deepmac_distill.labels.export import SEEN_MASK_CLASSES
from deepmac_distill.labels.table import SCHEMA_VERSION

Json = dict[str, Any]


def write_polygons(masks: MaskSet, path: Path, tolerance_px: float) -> list[tuple[int, Loss]]:
    """A mask is a list of polygons, one for each connected part; those that people drew stay as they are."""
    losses: list[tuple[int, Loss]] = []

    def annotation(thing: MaskObject, picture: Picture) -> Json:
        if thing.rle is None:
            return _entry(thing, picture, [])
        shape = outlined(thing, picture, tolerance_px=tolerance_px)
        if thing.source != "none":
            losses.append((thing.id, shape.loss))
        return _entry(thing, picture, [flat(ring) for ring in shape.rings])

    _write(masks, path, (annotation(thing, p) for p in masks.pictures() for thing in p.objects))
    return losses


def write_rle(masks: MaskSet, path: Path, tolerance_px: float) -> list[tuple[int, Loss]]:
    """A mask is its code; nothing is lost, and there is no tolerance to apply."""
    losses: list[tuple[int, Loss]] = []

    def annotation(thing: MaskObject, picture: Picture) -> Json:
        if thing.rle is None:
            return _entry(thing, picture, [])
        if thing.source != "none":
            losses.append((thing.id, Loss()))
        code = {"size": list(thing.rle["size"]), "counts": thing.rle["counts"].decode("ascii")}
        return _entry(thing, picture, code)

    _write(masks, path, (annotation(thing, p) for p in masks.pictures() for thing in p.objects))
    return losses


def _entry(thing: MaskObject, picture: Picture, segmentation: Any) -> Json:
    """`source` and `mask_score` as in our own COCO files, and under `attributes` for Datumaro and CVAT."""
    area = thing.bbox[2] * thing.bbox[3] if thing.rle is None else int(coco_mask.area(thing.rle))
    return {
        "id": thing.id,
        "image_id": picture.id,
        "category_id": thing.category_id,
        "bbox": list(thing.bbox),
        "area": area,
        "iscrowd": int(thing.is_crowd),
        "segmentation": segmentation,
        "source": thing.source,
        "mask_score": thing.facts.get("mask_score"),
        "attributes": {"annotation_id": thing.id, **thing.attributes()},
    }


def _write(masks: MaskSet, path: Path, annotations: Iterator[Json]) -> None:
    """One annotation after the other, so that they are never all in memory."""
    mark = {
        "schema": SCHEMA_VERSION,
        SEEN_MASK_CLASSES: masks.seen_mask_classes,
        "provenance": dict(masks.provenance),
    }
    head = {
        "info": {"description": "masks for boxes, by deepmac-distill"},
        MARK: mark,
        "categories": [{"id": id, "name": name} for id, name in masks.classes.items()],
        "images": [
            {"id": row["image_id"], **{name: row[name] for name in ("file_name", "height", "width")}}
            for row in masks.images.select(["image_id", "file_name", "height", "width"]).to_pylist()
        ],
    }
    with path.open("w", encoding="utf-8") as file:
        file.write(_json(head)[:-1] + ',"annotations":[')
        separator = "\n"
        for annotation in annotations:
            file.write(separator + _json(annotation))
            separator = ",\n"
        file.write("\n]}\n")


def _json(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
