"""Stage `detect`: a student on new pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepmac_distill.chain import WEIGHTS
from deepmac_distill.data.images import ImageReader
from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.files import write_json
from deepmac_distill.geometry.boxes import xyxy_to_xywh
from deepmac_distill.labels.cut import Cut
from deepmac_distill.models.deepmac import DeepMac
from deepmac_distill.models.load import Weights
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.one_image import ImageObjects, detect_image
from deepmac_distill.progress import Progress
from deepmac_distill.report.contact_sheet import OVERLAY_PX, overlay_png
from deepmac_distill.report.drawing import Overlay, color_of
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.outputs import require_ours
from deepmac_distill.stages.pictures import document_of, files_of, picture_names
from deepmac_distill.stages.sources import cut_at
from deepmac_distill.weights.card import ModelCard

AS_STORED = ImageReader()
RESULTS = "detections.json"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found on the pictures of one call."""

    results: Path  # COCO: images, categories, and an annotation with a score for each object
    images: int  # that were looked at
    objects: int
    unreadable: int


def detect(
    model: Path,
    device: torch.device,
    given: Sequence[Path],
    out: Path,
    progress: Progress,
    *,
    min_score: float = 0.3,
    max_detections: int = 100,
    cut: Cut | None = None,
    reader: ImageReader = AS_STORED,
    longest_px: int | None = OVERLAY_PX,
) -> Found:
    """Write ``<out>/<name>.png`` for each image, objects drawn, and ``<out>/detections.json``.

    Args:
        model: weights, or a run directory: its student.
        given: image files, and folders of them. What cannot be read is noted and left out.
        min_score: objects below it are left out.
        max_detections: per image.
        cut: see `labels.cut.recut`; None: that of the run, or the default.
        reader: how the images are read.
        longest_px: what the longer side of a picture is at most; None: the image's own size.

    Raises:
        DataError: no image can be read.
        ConfigError: the model was trained without detection.
        RunError: an output would replace an input, or a file of somebody else.
    """
    files = files_of(given)
    pictures = [out / f"{name}.png" for name in picture_names(files)]
    require_ours([*pictures, out / RESULTS], [*files, model])
    detector, source, cut = detector_of(model, device, cut)
    card = source.card
    out.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with progress.bar("detection", len(files), unit="image") as bar:
        for file, picture in zip(files, pictures, strict=True):
            bar.advance()
            if (image := _read(file, reader, progress)) is None:
                continue
            found = detect_image(
                detector, image, device, min_score=min_score, max_detections=max_detections, cut=cut
            )
            height, width = image.shape[1:]
            images.append({"id": len(images) + 1, "file_name": file.name, "height": height, "width": width})
            annotations += _annotations(found, card, images[-1], first_id=len(annotations) + 1)
            _draw(image, found, card, picture, longest_px)
    if not images:
        raise DataError(f"{files[0]}: none of {len(files)} images can be read; expected at least one")
    categories = [
        {"id": id, "name": name} for id, name in zip(card.category_ids, card.class_names, strict=True)
    ]
    how = {"model": source.name, "identity": source.identity, "cut": cut}
    write_json(out / RESULTS, document_of(images, annotations, categories, how))
    return Found(out / RESULTS, len(images), len(annotations), len(files) - len(images))


def detector_of(
    model: Path, device: torch.device, cut: Cut | None
) -> tuple[DeepMac | MaskRcnn, Weights, Cut]:
    """The detector of weights or of a run's student, and where its masks end.

    Raises:
        ConfigError: it was trained without detection.
    """
    weights = RunDir(model).output("student", WEIGHTS) if model.is_dir() else model
    source = Weights.read(weights)
    detector = source.model(device)
    if not detector.spec.detects:
        raise ConfigError(f"{weights}: was trained without detection; expected a model that detects")
    return detector, source, cut_at(model) if cut is None else cut


def _read(file: Path, reader: ImageReader, progress: Progress) -> Tensor | None:
    """An image, with a note of what a person may not expect of it; None where it cannot be read."""
    try:
        image = reader.read(file)
    except DataError as error:
        progress.note(str(error))
        return None
    if note := reader.note_of(file):
        progress.note(note)
    return image


def _draw(image: Tensor, found: ImageObjects, card: ModelCard, picture: Path, longest_px: int | None) -> None:
    overlay_png(image.permute(1, 2, 0).numpy(), _overlays(found, card.class_names), picture, longest_px)


def _annotations(
    found: ImageObjects, card: ModelCard, image: dict[str, Any], first_id: int
) -> list[dict[str, Any]]:
    columns = zip(
        *(xyxy_to_xywh(found.boxes).tolist(), found.class_index.tolist(), found.scores.tolist()),
        *(found.masks.areas.tolist(), found.masks.counts),
        strict=True,
    )
    return [
        {
            "id": id,
            "image_id": image["id"],
            "category_id": card.category_ids[index],
            "bbox": [round(side, 3) for side in bbox],
            "area": area,
            "iscrowd": 0,
            "score": score,
            "segmentation": {"size": [image["height"], image["width"]], "counts": counts.decode("ascii")},
        }
        for id, (bbox, index, score, area, counts) in enumerate(columns, start=first_id)
    ]


def _overlays(found: ImageObjects, names: Sequence[str]) -> list[Overlay]:
    """The best object is drawn last, so that it is on top."""
    columns = zip(
        found.boxes.tolist(),
        found.class_index.tolist(),
        found.scores.tolist(),
        found.masks.counts,
        strict=True,
    )
    drawn = [
        Overlay(color_of(index), counts, (box[0], box[1], box[2], box[3]), f"{names[index]} {score:.2f}")
        for box, index, score, counts in columns
    ]
    return drawn[::-1]
