"""What a mask branch trains on: the instances that have a mask, and their masks over other boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from deepmac_distill.structures import Batch, Instances


def masked_instances(batch: Batch, mask_size: int, limit_per_image: int | None = None) -> Instances:
    """The instances that have a mask, the first `limit_per_image` of each image.

    A batch without masks gives one instance of weight zero, the canvas of the first image, so that every
    parameter has a gradient; none where the batch is a part of one that has masks (`Batch.placeholder`).

    Raises:
        ValueError: the masks are not `mask_size` cells a side.
    """
    instances = batch.instances.select(batch.instances.has_mask)
    if limit_per_image is not None:
        same_image = instances.image_index[:, None] == instances.image_index  # (N, N)
        instances = instances.select(same_image.tril().sum(1) <= limit_per_image)
    if len(instances) == 0 and batch.placeholder:
        return _placeholder(batch.images, mask_size)
    if instances.masks.shape[-1] != mask_size:
        raise ValueError(f"masks: got {instances.masks.shape[-1]} cells a side, expected {mask_size}")
    return instances


def masks_over(masks: Tensor, boxes: Tensor, rois: Tensor, size: int) -> Tensor:
    """Masks that live in their boxes, seen from other boxes; zero where a box ends.

    A cell is the mean over samples no farther apart than the cells of the mask, as in `roi_align` with
    `aligned=True` on an image of the mask.

    Args:
        masks: (N, S, S) coverage in [0, 1] of each cell of `boxes`.
        boxes: (N, 4) xyxy, with area.
        rois: (N, 4) xyxy in the same pixels.
        size: cells a side of the result.

    Returns:
        (N, size, size) in [0, 1].
    """
    cells = masks.shape[-1]
    corner, side = boxes[:, :2].repeat(1, 2), (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    in_grid = (rois - corner) / side * cells + 1  # past a rim of zeros: roi_align repeats the border
    numbers = torch.arange(len(rois), device=rois.device, dtype=rois.dtype)
    rimmed = F.pad(masks[:, None], (1, 1, 1, 1))
    seen: Tensor = roi_align(rimmed, torch.column_stack((numbers, in_grid)), (size, size), aligned=True)
    return seen[:, 0]


def seen_from(
    instances: Instances,
    counts: Sequence[int],
    rois: Sequence[Tensor],
    matched: Sequence[Tensor],
    classes: Sequence[Tensor],
    size: int,
) -> Instances:
    """The rois that match an object, as instances: their boxes, and the object's mask over them.

    Args:
        instances: N, in the order of the images.
        counts: B, how many of them each image has.
        rois: B x (R, 4) xyxy.
        matched: B x (R,) the object of the image that each roi matches best.
        classes: B x (R,) the class plus 1; 0 where a roi matches none.
        size: cells a side of the new masks.
    """
    first = [sum(counts[:i]) for i in range(len(counts))]
    rows = torch.cat([m[k > 0] + start for m, k, start in zip(matched, classes, first, strict=True)])
    boxes = torch.cat([r[k > 0] for r, k in zip(rois, classes, strict=True)])
    seen = instances.select(rows)
    masks = masks_over(seen.masks.float() / 255, seen.boxes, boxes, size)
    return replace(seen, boxes=boxes, masks=(masks * 255).round().to(torch.uint8))


def _placeholder(images: Tensor, mask_size: int) -> Instances:
    height, width = images.shape[-2:]
    zero = torch.zeros(1, dtype=torch.int64)
    return Instances(
        image_index=zero,
        rows=zero,
        boxes=torch.tensor([[0.0, 0.0, width, height]]),
        class_index=zero,
        masks=torch.zeros(1, mask_size, mask_size, dtype=torch.uint8),
        has_mask=torch.ones(1, dtype=torch.bool),
        mask_weight=torch.zeros(1),
    ).to(images.device)
