"""Stage `predict`: masks for boxes that a person gives (paper, figure 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepmac_distill.data.images import read_image
from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.files import write_json
from deepmac_distill.geometry.boxes import clip_boxes, has_area, xywh_to_xyxy
from deepmac_distill.inference import segment_boxes, view_for
from deepmac_distill.labels.cut import LABELING_CUT, CutMasks, box_ious, recut
from deepmac_distill.report.contact_sheet import overlay_png
from deepmac_distill.report.drawing import Overlay, color_of
from deepmac_distill.stages.sources import source_at
from deepmac_distill.structures import Batch, Instances


def predict(
    model_at: Path,
    device: torch.device,
    image_path: Path,
    boxes_xywh: np.ndarray,
    out: Path,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Write ``<out>.png``, the image with boxes and masks, and ``<out>.json``, COCO; returns the latter.

    Args:
        boxes_xywh: (N, 4) in pixels of the image as stored; the part over the edge is cut off.

    Raises:
        DataError: the image cannot be read, or a box has no area in it.
        ConfigError: the model has a mask for each class, so a box alone is not enough.
    """
    image = read_image(image_path)
    height, width = image.shape[1:]
    boxes = clip_boxes(xywh_to_xyxy(boxes_xywh), height, width)
    for bbox, sound in zip(boxes_xywh.tolist(), has_area(boxes), strict=True):
        if not sound:
            raise DataError(f"{image_path}: box {bbox}: no area in the {width} x {height} image (x, y, w, h)")
    source = source_at(model_at, allow_code=allow_code)
    model = source.model(device)
    if not model.spec.class_agnostic:
        raise ConfigError(
            f"{source.name}: has a mask for each class, and a box alone has no class; "
            "expected weights of a class-agnostic mask head"
        )
    view = view_for(model.spec, height, width)
    batch = Batch(
        images=view.image(image)[None],
        image_sizes=torch.tensor([view.fit]),
        image_ids=(1,),
        instances=Instances.of_boxes(
            [torch.from_numpy(view.to_canvas(boxes))],
            [torch.zeros(len(boxes), dtype=torch.int64)],
            mask_size=1,
        ),
    )
    (segmented,) = segment_boxes(model, [batch], device, autocast=False)
    sizes = np.tile([height, width], (len(boxes), 1))
    masks = recut(segmented.grids, boxes, sizes, LABELING_CUT)
    document = _coco(image_path.name, height, width, boxes_xywh, masks, source.role)
    overlays = [
        Overlay(color=color_of(row), counts=counts, box=tuple(box))
        for row, (counts, box) in enumerate(zip(masks.counts, boxes, strict=True))
    ]
    overlay_png(image.permute(1, 2, 0).numpy(), overlays, out.with_name(f"{out.name}.png"))
    write_json(out.with_name(f"{out.name}.json"), document)
    return document


def _coco(
    name: str, height: int, width: int, boxes_xywh: np.ndarray, masks: CutMasks, source: str
) -> dict[str, Any]:
    """The masks as a COCO file of one class, `object`: the mask head knows no classes."""
    scores = zip(
        masks.scores.tolist(), box_ious(masks.tight_boxes, xywh_to_xyxy(boxes_xywh)).tolist(), strict=True
    )
    annotations = [
        {
            "id": row,
            "image_id": 1,
            "category_id": 1,
            "bbox": bbox,
            "area": area,
            "iscrowd": 0,
            "source": source,
            "mask_score": mask_score,
            "mask_bbox_iou": mask_bbox_iou,
            "segmentation": {"size": [height, width], "counts": counts.decode("ascii")},
        }
        for row, (bbox, area, counts, (mask_score, mask_bbox_iou)) in enumerate(
            zip(boxes_xywh.tolist(), masks.areas.tolist(), masks.counts, scores, strict=True), start=1
        )
    ]
    return {
        "images": [{"id": 1, "file_name": name, "height": height, "width": width}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
