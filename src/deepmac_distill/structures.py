"""The tensor types that cross rooms: instances over a batch of images, the batch, and detections.

Boxes are xyxy, half-open, in pixels of the network input (pixel i has its center at i + 0.5).
A mask is a square grid over its own box, never an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import torch
from torch import Tensor

LossUnit = Literal["images", "boxes", "masks"]  # what a loss is a mean over
LOSS_UNITS: tuple[LossUnit, ...] = get_args(LossUnit)


@dataclass(frozen=True, slots=True)
class Instances:
    """N instances packed over the images of a batch.

    Raises:
        ValueError: the fields disagree in length, or a shape or dtype is not the one stated here.
    """

    image_index: Tensor  # (N,) int64, position of the image in the batch
    rows: Tensor  # (N,) int64, row numbers in the data set's table of annotations
    boxes: Tensor  # (N, 4) float32, xyxy in network-input pixels, clipped to the image
    class_index: Tensor  # (N,) int64, contiguous class index
    masks: Tensor  # (N, S, S) uint8, coverage of each cell, 255 = all; zero where has_mask is False
    has_mask: Tensor  # (N,) bool
    mask_weight: Tensor  # (N,) float32, >= 0, weight of the mask in the loss

    def __post_init__(self) -> None:
        n = self.image_index.shape[0]
        _expect("image_index", self.image_index, (n,), torch.int64)
        _expect("rows", self.rows, (n,), torch.int64)
        _expect("boxes", self.boxes, (n, 4), torch.float32)
        _expect("class_index", self.class_index, (n,), torch.int64)
        size = self.masks.shape[-1]
        _expect("masks", self.masks, (n, size, size), torch.uint8)
        _expect("has_mask", self.has_mask, (n,), torch.bool)
        _expect("mask_weight", self.mask_weight, (n,), torch.float32)

    def __len__(self) -> int:
        return self.image_index.shape[0]

    @classmethod
    def empty(cls, mask_size: int) -> Instances:
        """No instances, with mask grids of `mask_size` cells a side."""
        return cls(
            image_index=torch.zeros(0, dtype=torch.int64),
            rows=torch.zeros(0, dtype=torch.int64),
            boxes=torch.zeros(0, 4),
            class_index=torch.zeros(0, dtype=torch.int64),
            masks=torch.zeros(0, mask_size, mask_size, dtype=torch.uint8),
            has_mask=torch.zeros(0, dtype=torch.bool),
            mask_weight=torch.zeros(0),
        )

    @classmethod
    def of_boxes(cls, boxes: Sequence[Tensor], class_index: Sequence[Tensor], mask_size: int) -> Instances:
        """Boxes without masks: B x (n, 4) xyxy and B x (n,) class_index, one entry for each image."""
        counts = torch.tensor([len(some) for some in boxes])
        packed, n = torch.cat(list(boxes)), int(counts.sum())
        device = packed.device
        return cls(
            image_index=torch.arange(len(boxes)).repeat_interleave(counts).to(device),
            rows=torch.arange(n, device=device),
            boxes=packed.float(),
            class_index=torch.cat(list(class_index)),
            masks=torch.zeros(n, mask_size, mask_size, dtype=torch.uint8, device=device),
            has_mask=torch.zeros(n, dtype=torch.bool, device=device),
            mask_weight=torch.zeros(n, device=device),
        )

    def select(self, index: Tensor) -> Instances:
        """The instances at `index`: (M,) int64 positions or (N,) bool."""
        return Instances(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> Instances:
        """The same instances on `device`."""
        return Instances(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Batch:
    """Images on one canvas and what is known about them.

    Raises:
        ValueError: shapes or dtypes differ from those stated here.
    """

    images: Tensor  # (B, 3, H, W) uint8 RGB; each image is at the top left, zero elsewhere
    image_sizes: Tensor  # (B, 2) int64, (height, width) of the image on the canvas
    image_ids: tuple[int, ...]  # B source ids
    instances: Instances
    complete: bool = True  # whether all objects on the canvases are among the instances
    mirrored: bool = False  # whether masks of the boxes are to be mirrored to be those of the images
    placeholder: bool = True  # whether training without a mask passes one that counts for nothing

    def __post_init__(self) -> None:
        b, _, h, w = self.images.shape
        _expect("images", self.images, (b, 3, h, w), torch.uint8)
        _expect("image_sizes", self.image_sizes, (b, 2), torch.int64)
        if len(self.image_ids) != b:
            raise ValueError(f"Batch.image_ids: got {len(self.image_ids)} ids, expected {b}")

    def count(self, unit: LossUnit) -> int:
        """How many the batch holds: boxes that detection can learn from, or masks that may be seen."""
        match unit:
            case "images":
                return len(self.images)
            case "boxes":
                return len(self.instances) if self.complete else 0
            case "masks":
                return int(self.instances.has_mask.sum())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            image_sizes=self.image_sizes.to(device, non_blocking=True),
            instances=self.instances.to(device),
        )


@dataclass(frozen=True, slots=True)
class Detections:
    """D detections packed over the images of a batch, best first within an image.

    Raises:
        ValueError: the fields disagree in length, or a shape is not the one stated here.
    """

    image_index: Tensor  # (D,) int64
    boxes: Tensor  # (D, 4) float32, xyxy in network-input pixels, clipped to the image
    class_index: Tensor  # (D,) int64
    scores: Tensor  # (D,) float32 in [0, 1]
    masks: Tensor  # (D, S, S) float32 probabilities over the box

    def __post_init__(self) -> None:
        n = self.image_index.shape[0]
        _expect("image_index", self.image_index, (n,), torch.int64)
        _expect("boxes", self.boxes, (n, 4), torch.float32)
        _expect("class_index", self.class_index, (n,), torch.int64)
        _expect("scores", self.scores, (n,), torch.float32)
        _expect("masks", self.masks, (n, *self.masks.shape[1:]), torch.float32)


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"{name}: got {tuple(tensor.shape)} {tensor.dtype}, expected {shape} {dtype}")
