"""A model on one image: masks of boxes that somebody gives, and what a detector finds by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deepmac_distill.contract import BoxSegmenter, Detector
from deepmac_distill.data.framed import framed_image
from deepmac_distill.data.frames import view_for
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.boxes import clip_boxes, has_area
from deepmac_distill.inference import SegmentedBoxes, detect_objects, segment_boxes
from deepmac_distill.labels.cut import DEFAULT_CUT, Cut, CutMasks, recut
from deepmac_distill.look import WHOLE_IMAGE, Look
from deepmac_distill.structures import Batch, Instances

WINDOWS_IN_A_BATCH = 16  # bounds memory


@dataclass(frozen=True, slots=True)
class ImageBoxes:
    """Masks of N given boxes of one image."""

    boxes: NDArray[np.float64]  # (N, 4) xyxy in pixels of the image, clipped to it
    segmented: SegmentedBoxes
    masks: CutMasks


@dataclass(frozen=True, slots=True)
class ImageObjects:
    """D objects that a detector found on one image, best first."""

    boxes: NDArray[np.float64]  # (D, 4) xyxy in pixels of the image
    class_index: NDArray[np.int64]  # (D,)
    scores: NDArray[np.float32]  # (D,)
    grids: NDArray[np.uint8]  # (D, S, S)
    masks: CutMasks


def segment_image(
    model: BoxSegmenter,
    image: Tensor,
    boxes: ArrayLike,
    cut: Cut,
    device: torch.device,
    class_index: NDArray[np.int64] | None = None,
    look: Look = WHOLE_IMAGE,
) -> ImageBoxes:
    """The masks of given boxes.

    Args:
        image: (3, H, W) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of the image; the part over the edge is cut off.
        cut: see `labels.cut.recut`.
        class_index: (N,) classes of the boxes, for a model whose masks belong to classes.
        look: how the model looks at the boxes.

    Raises:
        DataError: a box has no area in the image.
        ContractError: the model returned something else than it must.
    """
    height, width = image.shape[1:]
    given = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    inside = clip_boxes(given, height, width)
    for box, sound in zip(given.tolist(), has_area(inside), strict=True):
        if not sound:
            raise DataError(
                f"box {box}: no area in the {width} x {height} image; expected x1, y1, x2, y2 in it"
            )
    classes = np.zeros(len(inside), np.int64) if class_index is None else class_index
    group = framed_image(image, inside, classes, look, model.spec, WINDOWS_IN_A_BATCH)
    (segmented,) = segment_boxes(model, [group], device, autocast=False)
    sizes = np.tile([height, width], (len(inside), 1))
    spec = model.spec
    masks = recut(segmented.grids, inside, sizes, cut, spec.probabilities, lattice=spec.lattice)
    return ImageBoxes(inside, segmented, masks)


def detect_image(
    model: Detector,
    image: Tensor,
    device: torch.device,
    *,
    min_score: float = 0.3,
    max_detections: int = 100,
    cut: Cut = DEFAULT_CUT,
) -> ImageObjects:
    """What a detector finds on an image.

    Args:
        image: (3, H, W) uint8 RGB.
        min_score: objects below it are left out.
        cut: see `labels.cut.recut`.
    """
    height, width = image.shape[1:]
    view = view_for(model.spec, height, width)
    batch = Batch(view.image(image)[None], torch.tensor([view.fit]), (1,), Instances.empty(mask_size=1))
    (found,) = detect_objects(model, [batch], device, False, max_detections, min_score)
    boxes = found.boxes_fraction * (width, height, width, height)
    sizes = np.tile([height, width], (len(boxes), 1))
    spec = model.spec
    masks = recut(found.grids, boxes, sizes, cut, spec.probabilities, lattice=spec.lattice)
    return ImageObjects(boxes, found.class_index, found.scores, found.grids, masks)
