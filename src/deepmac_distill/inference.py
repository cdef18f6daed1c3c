"""A model over a data set: iterators that hold one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac_distill.structures import Batch, Detections, Instances


class BoxSegmenter(Protocol):
    """A model that gives a mask for a box."""

    def segment(self, images: Tensor, instances: Instances) -> Tensor:
        """(B, 3, H, W) uint8 and N boxes -> (N, S, S) probabilities."""


class Detector(Protocol):
    """A model that finds boxes, classes and masks by itself."""

    def detect(self, images: Tensor, image_sizes: Tensor, max_detections: int) -> Detections:
        """(B, 3, H, W) uint8 -> at most `max_detections` per image."""


@dataclass(frozen=True, slots=True)
class SegmentedBoxes:
    """Masks of the boxes of one batch, as arrays."""

    rows: NDArray[np.int64]  # (N,) row numbers in the data set
    grids: NDArray[np.uint8]  # (N, S, S), 255 = certain foreground


@dataclass(frozen=True, slots=True)
class DetectedObjects:
    """Detections of one batch; boxes are fractions of their image's width and height."""

    image_ids: np.ndarray  # (D,) int64
    boxes_fraction: np.ndarray  # (D, 4) float64 xyxy in [0, 1]
    class_index: np.ndarray  # (D,) int64
    scores: np.ndarray  # (D,) float32
    grids: np.ndarray  # (D, S, S) uint8


def segment_boxes(
    model: BoxSegmenter, batches: Iterable[Batch], device: torch.device, autocast: bool
) -> Iterator[SegmentedBoxes]:
    """One mask grid per box, in the order of the batches.

    Probabilities are rounded to 1/255 here, so that a mask made now and a mask made later from the stored
    grid are the same mask.
    """
    for batch in batches:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            probs = model.segment(batch.images.to(device), batch.instances.to(device))  # (N, S, S)
        yield SegmentedBoxes(batch.instances.rows.numpy(), _quantized(probs))


def detect_objects(
    model: Detector, batches: Iterable[Batch], device: torch.device, autocast: bool, max_detections: int
) -> Iterator[DetectedObjects]:
    """Detections per batch. Boxes leave as fractions: only the caller knows the original image sizes."""
    for batch in batches:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            found = model.detect(batch.images.to(device), batch.image_sizes.to(device), max_detections)
        index = found.image_index.cpu()
        size_hw = batch.image_sizes[index]  # (D, 2)
        scale = (
            torch.stack([size_hw[:, 1], size_hw[:, 0]], 1).repeat(1, 2).double()
        )  # (D, 4) width, height twice
        yield DetectedObjects(
            image_ids=np.asarray(batch.image_ids, dtype=np.int64)[index.numpy()],
            boxes_fraction=(found.boxes.cpu().double() / scale).numpy(),
            class_index=found.class_index.cpu().numpy(),
            scores=found.scores.cpu().numpy(),
            grids=_quantized(found.masks),
        )


def _quantized(probs: Tensor) -> np.ndarray:
    return (probs.float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
