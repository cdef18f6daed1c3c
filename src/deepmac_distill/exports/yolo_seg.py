"""YOLO segmentation: a text file for each image, a line for each object, one polygon each."""

from __future__ import annotations

import json
from pathlib import Path

from deepmac_distill.exports.folders import file_for, link_image, require_stems
from deepmac_distill.exports.masks import MaskSet
from deepmac_distill.exports.polygons import Loss, outlined


def write_yolo_seg(masks: MaskSet, folder: Path, tolerance_px: float) -> list[tuple[int, Loss]]:
    """`labels/`, links to the images in `images/`, and `data.yaml`; images without objects get empty files.

    A line that holds a box among lines that hold polygons makes trainers drop all polygons, so every line is
    a mask. Crowds are left out: the format has none. Coordinates are shares of the image's width and height.
    """
    require_stems(masks)
    number = {category: index for index, category in enumerate(masks.classes)}
    losses = []
    for picture in masks.pictures():
        lines = []
        for thing in picture.objects:
            if thing.rle is None or thing.is_crowd:
                continue
            shape = outlined(thing, picture, "centers", single=True, tolerance_px=tolerance_px)
            losses.append((thing.id, shape.loss))
            shares = (shape.rings[0] / (picture.width, picture.height)).clip(0, 1).ravel()
            lines.append(" ".join([str(number[thing.category_id]), *(f"{share:.6f}" for share in shares)]))
        text = "".join(line + "\n" for line in lines)
        file_for(folder / "labels", picture, ".txt").write_text(text, encoding="ascii")
        link_image(masks, picture, folder / "images")
    names = [
        f"  {index}: {json.dumps(name, ensure_ascii=False)}"
        for index, name in enumerate(masks.classes.values())
    ]
    head = ["train: images", "val: images  # name your validation images here", "names:"]
    (folder / "data.yaml").write_text("\n".join([*head, *names]) + "\n", encoding="utf-8")
    return losses
