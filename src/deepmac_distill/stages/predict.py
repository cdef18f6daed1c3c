"""Stage `predict`: masks for boxes that a person gives (paper, figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac_distill.contract import BoxSegmenter
from deepmac_distill.data.images import ImageReader
from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.evaluation.how_evaluated import HowEvaluated
from deepmac_distill.evaluation.results import to_json
from deepmac_distill.files import write_json
from deepmac_distill.geometry.boxes import clip_boxes, has_area, xywh_to_xyxy, xyxy_to_xywh
from deepmac_distill.labels.cut import Cut, CutMasks, box_ious, note_of
from deepmac_distill.models.load import Source, segmenter_for
from deepmac_distill.one_image import ImageBoxes, segment_image
from deepmac_distill.progress import Progress
from deepmac_distill.report.contact_sheet import OVERLAY_PX, overlay_png
from deepmac_distill.report.drawing import Overlay, color_of
from deepmac_distill.stages.given_boxes import BoxedImage, GivenBoxes
from deepmac_distill.stages.outputs import require_ours
from deepmac_distill.stages.pictures import document_of, picture_names
from deepmac_distill.stages.sources import cut_at, source_at
from deepmac_distill.weights import starter

AS_STORED = ImageReader()
RESULTS = "masks.json"
FOLDER = Path("masks")
NO_MODEL = (
    "no --model: the starter's masks, for a first look; a teacher of your own images comes from deepmac teach"
)


def outputs_of(files: Sequence[Path], out: Path | None) -> tuple[list[Path], Path]:
    """The pictures and the COCO file that are written: a pair beside each other for one image, else a folder.

    >>> outputs_of([Path("photos/dog.jpg")], None)[1], outputs_of([Path("a.jpg"), Path("b.jpg")], None)[1]
    (PosixPath('dog-masks.json'), PosixPath('masks/masks.json'))
    """
    if len(files) != 1:
        folder = out or FOLDER
        return [folder / f"{name}.png" for name in picture_names(files)], folder / RESULTS
    stem = out or Path(f"{files[0].stem}-masks")
    stem = stem.with_suffix("") if stem.suffix in (".png", ".json") else stem
    return [stem.with_name(f"{stem.name}.png")], stem.with_name(f"{stem.name}.json")


def predict(
    model_at: Path | None,
    device: torch.device,
    given: GivenBoxes,
    out: Path | None,
    progress: Progress,
    allow_code: bool = False,
    look: Mapping[str, object] = MappingProxyType({}),
    cut: Cut | None = None,
    reader: ImageReader = AS_STORED,
    longest_px: int | None = OVERLAY_PX,
) -> dict[str, Any]:
    """Write a picture of each image with numbered boxes and masks, and one COCO file; returns the latter.

    All images and boxes are looked at before anything is written.

    Args:
        model_at: weights, a run directory (its teacher), or None: the starter.
        out: see `outputs_of`.
        look: what differs from how the model looks at boxes.
        cut: see `labels.cut.recut`; None: that of the run, or the default.
        reader: how the images are read; boxes are on the pixels that it gives.
        longest_px: what the longer side of a picture is at most; None: the image's own size.

    Raises:
        DataError: an image cannot be read, or a box has no area in it.
        ConfigError: the model has a mask for each class, and the boxes have no class.
        CheckpointError: it has a mask for each class, and lacks one of these.
        RunError: an output would replace an input, or a file of somebody else.
    """
    pictures, results = outputs_of(given.files, out)
    require_ours([*pictures, results], [*given.files, *given.sources, *([model_at] if model_at else [])])
    _look_at(given.images, reader, progress)
    if model_at is None:
        progress.note(NO_MODEL)
    if note := starter.note_of(model_at):
        progress.note(note)
    source = source_at(model_at or starter.WEIGHTS, allow_code=allow_code).looking(look)
    cut = cut_at(model_at, source) if cut is None else cut
    model = _segmenter(source, device, given)
    for note in filter(None, (note_of(cut, model.spec), source.look_note)):
        progress.note(note)
    results.parent.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, picture in zip(given.images, pictures, strict=True):
        pixels = reader.read(image.path)
        boxes, size = _boxes_in(image, pixels), {"height": pixels.shape[1], "width": pixels.shape[2]}
        drawn = segment_image(model, pixels, boxes, cut, device, image.class_index, source.look)
        masks = drawn.masks
        images.append({"id": image.image_id, "file_name": image.path.name, **size})
        found = _annotations(image, masks, given.category_ids, source.role, list(size.values()))
        annotations += _with_ious(found, drawn, model.spec.probabilities)
        overlay_png(pixels.permute(1, 2, 0).numpy(), _numbered(boxes, masks), picture, longest_px)
    pairs = zip(given.category_ids, given.class_names, strict=True)
    categories = [{"id": id, "name": name} for id, name in pairs]
    how = to_json(HowEvaluated(source.identity, source.look, cut))
    document = document_of(images, annotations, categories, {"model": source.name, **how})
    write_json(results, document)
    return document


def _with_ious(found: list[dict[str, Any]], drawn: ImageBoxes, probabilities: bool) -> list[dict[str, Any]]:
    """The annotations with what the grids expect of each mask, and what the model does, where they do."""
    expected = drawn.masks.expected_iou if probabilities else None
    for name, values in (("expected_iou", expected), ("model_iou", drawn.segmented.iou)):
        if values is not None:
            found = [one | {name: value} for one, value in zip(found, values.tolist(), strict=True)]
    return found


def _segmenter(source: Source, device: torch.device, given: GivenBoxes) -> BoxSegmenter:
    if given.named:
        return segmenter_for(source, device, given.class_names)
    model = source.model(device)
    if not model.spec.class_agnostic:
        raise ConfigError(
            f"{source.name}: has a mask for each class, and a box alone has no class; "
            "expected weights of a class-agnostic mask head, or boxes with classes in a COCO file (--boxes)"
        )
    return model


def _boxes_in(image: BoxedImage, pixels: Tensor) -> NDArray[np.float64]:
    """(N, 4) xyxy, clipped to the image.

    Raises:
        DataError: a box has no area in it.
    """
    height, width = pixels.shape[1:]
    boxes = clip_boxes(xywh_to_xyxy(image.boxes_xywh), height, width)
    for bbox, sound in zip(image.boxes_xywh.tolist(), has_area(boxes), strict=True):
        if not sound:
            raise DataError(f"{image.path}: box {bbox}: no area in the {width} x {height} image (x, y, w, h)")
    return boxes


def _look_at(images: Sequence[BoxedImage], reader: ImageReader, progress: Progress) -> None:
    """Note what a person may not expect of images and their boxes."""
    for image in images:
        _note_clipped(image, _boxes_in(image, reader.read(image.path)), progress)
        if note := reader.note_of(image.path):
            progress.note(note)


def _note_clipped(image: BoxedImage, boxes: NDArray[np.float64], progress: Progress) -> None:
    """Note each box of which more than half a pixel is over the edge."""
    inside = xyxy_to_xywh(boxes)
    for number, (asked, left) in enumerate(zip(image.boxes_xywh, inside, strict=True), start=1):
        if np.abs(asked - left).max() > 0.5:
            at = [round(side, 2) for side in left.tolist()]
            progress.note(f"{image.path}: box {number} {asked.tolist()}: over the edge, clipped to {at}")


def _numbered(boxes: NDArray[np.float64], masks: CutMasks) -> list[Overlay]:
    return [
        Overlay(color_of(row), counts, (box[0], box[1], box[2], box[3]), str(row + 1))
        for row, (counts, box) in enumerate(zip(masks.counts, boxes.tolist(), strict=True))
    ]


def _annotations(
    image: BoxedImage, masks: CutMasks, category_ids: Sequence[int], role: str, size: list[int]
) -> list[dict[str, Any]]:
    columns = zip(
        *(image.annotation_ids.tolist(), image.class_index.tolist(), image.boxes_xywh.tolist()),
        *(masks.areas.tolist(), masks.scores.tolist(), masks.cuts.tolist(), masks.counts),
        box_ious(masks.tight_boxes, xywh_to_xyxy(image.boxes_xywh)).tolist(),
        strict=True,
    )
    return [
        {
            "id": id,
            "image_id": image.image_id,
            "category_id": category_ids[index],
            "bbox": bbox,
            "area": area,
            "iscrowd": 0,
            "source": role,
            "cut": cut,
            "mask_score": score,
            "mask_bbox_iou": iou,
            "segmentation": {"size": size, "counts": counts.decode("ascii")},
        }
        for id, index, bbox, area, score, cut, counts, iou in columns
    ]
