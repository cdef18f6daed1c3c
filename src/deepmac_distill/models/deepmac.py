"""Deep-MAC: a CenterNet detector with a deep class-agnostic mask head (arXiv:2104.00613, section 4).

For each box the mask head sees a crop of a pixel embedding, the embedding of the box's center and the
coordinates of the cells; it never sees the class. It trains on given boxes only, and only those with a
mask are learned from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.contract import ModelSpec, SegmentedMasks, require_finite
from deepmac_distill.geometry.crop import cell_coordinates, crop_features
from deepmac_distill.geometry.heatmap import centers
from deepmac_distill.lattice import Lattice
from deepmac_distill.models.backbones import STRIDE_PX, Backbone, parameter_groups
from deepmac_distill.models.blocks import precise
from deepmac_distill.models.centernet import (
    CenterHeads,
    PredictionHead,
    boxes_of,
    cells_inside,
    center_targets,
    patches_at,
)
from deepmac_distill.models.mask_heads import FullyConnectedMaskHead, MaskHead
from deepmac_distill.models.mask_targets import masked_instances
from deepmac_distill.structures import Batch, Detections, Instances, LossUnit

LOSS_WEIGHTS = {"center": 1.0, "size": 0.1, "offset": 1.0, "mask": 5.0}
_CROPS_AT_ONCE = 32  # in inference: bounds memory, and keeps a CPU's caches warm


class StackHeads(nn.Module):
    """The heads on one stack's map. The mask head is not among them: all stacks share it."""

    def __init__(self, in_channels: int, hidden: int, num_classes: int, pixel: int, instance: int) -> None:
        super().__init__()
        self.center = CenterHeads(in_channels, hidden, num_classes) if num_classes else None
        self.pixel = PredictionHead(in_channels, hidden, pixel)
        self.instance = PredictionHead(in_channels, hidden, instance) if instance else None


class DeepMac(nn.Module):
    """Boxes to masks, and images to boxes with masks.

    Attributes:
        spec: what a caller must know; whoever loads weights completes it (`models.load`).
        target_mask_size: cells a side of the mask grids it trains on.
        loss_units: what each loss is a mean over.

    Args:
        backbone: stride-4 maps of the images.
        num_classes: classes of the detector.
        mask_head: (N, C, S, S) crops to (N, S, S) logits, for `mask_input_channels(...)` channels.
        head_channels: hidden channels of every prediction head.
        pixel_embedding: channels of the map that is cropped.
        instance_embedding: channels of the box center's embedding; 0 switches it off.
        coordinates: whether the mask head sees the cells' coordinates.
        crop_size: cells a side of crop and mask.
        detection: without it there are no detection heads and losses (paper, section 6).
        loss_weights: of `center`, `size`, `offset` and `mask`.
        mask_instances_per_image: masks trained on per image at most, first come; None for all.
        batch_norm_boxes: whose crops pass the mask head, and so its batch norm, in training: those with a
            mask (`masked`), or `all`. The paper's code passes all and fills them up to 100 an image with the
            crop of an empty box, which is left out here.
        lattice: where the cells of crops, and so of masks, sample their boxes.

    Raises:
        ValueError: the crop size is not a multiple of the mask head's `size_multiple`.
    """

    loss_units: Mapping[str, LossUnit] = {
        "center": "boxes",
        "size": "boxes",
        "offset": "boxes",
        "mask": "images",  # of the mean over an image's masks
    }

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        mask_head: MaskHead | FullyConnectedMaskHead,
        *,
        head_channels: int = 256,
        pixel_embedding: int = 16,
        instance_embedding: int = 32,
        coordinates: bool = True,
        crop_size: int = 32,
        detection: bool = True,
        loss_weights: Mapping[str, float] = LOSS_WEIGHTS,
        mask_instances_per_image: int | None = None,
        batch_norm_boxes: Literal["masked", "all"] = "masked",
        lattice: Lattice = "centers",
    ) -> None:
        super().__init__()
        if crop_size % mask_head.size_multiple:
            raise ValueError(f"crop_size: got {crop_size}, expected a multiple of {mask_head.size_multiple}")
        self.backbone, self.mask_head = backbone, mask_head
        self.num_classes, self.crop_size, self.target_mask_size = num_classes, crop_size, crop_size
        self.spec = ModelSpec(
            mask_size=crop_size,
            input_size_px=None,
            size_divisibility=backbone.size_divisibility,
            lattice=lattice,
            detects=detection,
            seen_mask_classes=(),
            identity="deepmac, untrained",
        )
        self.coordinates, self.loss_weights = coordinates, dict(loss_weights)
        self.mask_instances_per_image, self.batch_norm_boxes = mask_instances_per_image, batch_norm_boxes
        self.heads = nn.ModuleList(
            StackHeads(
                backbone.out_channels,
                head_channels,
                num_classes if detection else 0,
                pixel_embedding,
                instance_embedding,
            )
            for _ in range(backbone.stacks)
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted scalar losses: `mask`, and with detection `center`, `size` and `offset`.

        Each is the mean over the stacks. Boxes without a mask count in detection only: the content of
        their `masks` is never read. A batch that is not complete, as of windows, trains no detection.
        """
        instances = masked_instances(batch, self.crop_size, self.mask_instances_per_image)
        passing = self._passing(instances, batch.instances)
        targets = center_targets(batch, self.num_classes) if self.spec.detects and batch.complete else None
        stacks = []
        for heads, features in zip(self._heads_of_stacks(), self.backbone(batch.images), strict=True):
            logits = self.mask_head(self._crops(heads, features, *passing))[: len(instances)]
            losses = {"mask": mask_loss(logits, instances, len(batch.images))}
            if targets is not None and heads.center is not None:
                losses |= heads.center.losses(features, targets)
            stacks.append(losses)
        return {
            name: self.loss_weights[name] * torch.stack([losses[name] for losses in stacks]).mean()
            for name in stacks[0]
        }

    def parameter_groups(self) -> dict[Literal["pretrained", "new"], list[nn.Parameter]]:
        """All parameters: those that others' weights can fill, and the rest."""
        return parameter_groups(self, self.backbone)

    @torch.no_grad()
    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        """Mask probabilities for given boxes, by the last stack.

        Args:
            images: (B, 3, H, W) uint8.
            instances: N boxes; their classes and masks are not looked at.

        Returns:
            N masks in the order of `instances`.
        """
        features = self.backbone(images)[-1]
        return SegmentedMasks.of(self._mask_probs(features, instances.boxes, instances.image_index))

    @torch.no_grad()
    def detect(
        self, images: Tensor, image_sizes: Tensor, max_detections: int = 100, min_score: float = 0.0
    ) -> Detections:
        """Boxes of all classes with their masks, by the last stack; no NMS.

        Args:
            images: (B, 3, H, W) uint8.
            image_sizes: (B, 2) int64 height and width of each image on the canvas.
            max_detections: per image.
            min_score: objects below it are left out before there are masks, which are most of the work.

        Raises:
            ValueError: the model was built without detection.
            ContractError: scores or boxes are no numbers.
        """
        center = self._heads_of_stacks()[-1].center
        if center is None:
            raise ValueError("DeepMac.detect: this model has no detection heads")
        features = self.backbone(images)[-1]
        inside = cells_inside(image_sizes, *features.shape[-2:])
        peaks = center.peaks(features, inside, max_detections).of_at_least(min_score)
        sizes, offsets = center.boxes_at(features, peaks.image_index, peaks.cells)
        require_finite("boxes", sizes, offsets)
        boxes = boxes_of(peaks.cells, sizes, offsets, image_sizes[peaks.image_index])
        masks = self._mask_probs(features, boxes, peaks.image_index)
        return Detections(peaks.image_index, boxes, peaks.class_index, peaks.scores, masks)

    def _heads_of_stacks(self) -> list[StackHeads]:
        return [heads for heads in self.heads if isinstance(heads, StackHeads)]

    def _passing(self, masked: Instances, instances: Instances) -> tuple[Tensor, Tensor]:
        """(N, 4) boxes and (N,) image_index of the crops that pass the mask head, the masked ones first."""
        if self.batch_norm_boxes == "masked":
            return masked.boxes, masked.image_index
        others = instances.select(~instances.has_mask)
        return torch.cat((masked.boxes, others.boxes)), torch.cat((masked.image_index, others.image_index))

    def _mask_probs(self, features: Tensor, boxes: Tensor, image_index: Tensor) -> Tensor:
        crops = self._crops(self._heads_of_stacks()[-1], features, boxes, image_index)
        logits = torch.cat([self.mask_head(some) for some in torch.split(crops, _CROPS_AT_ONCE)])
        return logits.float().sigmoid()

    def _crops(self, heads: StackHeads, features: Tensor, boxes: Tensor, image_index: Tensor) -> Tensor:
        """(N, C, S, S) input of the mask head: coordinates, pixel embedding, instance embedding."""
        boxes, size = boxes / STRIDE_PX, self.crop_size
        everywhere = (len(boxes), -1, size, size)
        parts = [crop_features(heads.pixel(features), boxes, image_index, size, self.spec.lattice)]
        if self.coordinates:
            parts.insert(0, cell_coordinates(size, device=boxes.device).expand(everywhere))
        if heads.instance is not None:
            cells = centers(boxes, *features.shape[-2:])
            embedding = heads.instance.at(patches_at(features, image_index, cells))  # (N, E)
            parts.append(embedding[:, :, None, None].expand(everywhere))
        return torch.cat(parts, dim=1)


def mask_input_channels(pixel_embedding: int, instance_embedding: int, coordinates: bool) -> int:
    """Channels of a crop as the mask head sees it."""
    return pixel_embedding + instance_embedding + 2 * coordinates


def mask_loss(logits: Tensor, instances: Instances, num_images: int) -> Tensor:
    """Sigmoid cross-entropy against coverage: mean over cells, then an image's instances, then images.

    Images without masks count as zero, as in the paper's code. Targets are soft, in [0, 1].

    Args:
        logits: (N, S, S).
        instances: the same N, all with a mask; each is multiplied by its `mask_weight`.
        num_images: of the batch.
    """
    logits = precise(logits)
    target = instances.masks.to(logits.dtype) / 255
    per_cell = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    per_instance = per_cell.mean(dim=(1, 2)) * instances.mask_weight  # (N,)
    in_image = torch.bincount(instances.image_index, minlength=num_images)[instances.image_index]  # (N,)
    return (per_instance / in_image).sum() / num_images
