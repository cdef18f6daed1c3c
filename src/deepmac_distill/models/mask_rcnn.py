"""Mask R-CNN (arXiv:1703.06870), composed from torchvision's parts, for data in which some masks are missing.

What Deep-MAC (arXiv:2104.00613, sections 3 and 5) needs is an argument here: which boxes the mask branch
trains on, and whether a mask belongs to a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import MultiScaleRoIAlign

from deepmac_distill.contract import ModelSpec, SegmentedMasks, require_finite
from deepmac_distill.models.backbones import MultiScaleBackbone, parameter_groups
from deepmac_distill.models.guided_mask_heads import GuidedMaskHead
from deepmac_distill.models.mask_rcnn_heads import WeightTransferHead, default_roi_mask_head
from deepmac_distill.models.mask_targets import masked_instances, seen_from
from deepmac_distill.models.proposals import proposal_network
from deepmac_distill.structures import Batch, Detections, Instances, LossUnit

BOX_CROP = 7  # cells a side of the box branch's crops
# Cells a side of the masks that targets for proposals are sampled from: fine enough that a proposal of half
# the box's size still has several of them in each of its 28 cells.
PROPOSAL_TARGET_SIZE = 112


class MaskRcnn(nn.Module):
    """Images to boxes with masks, and given boxes to masks.

    The defaults are those of torchvision's `maskrcnn_resnet50_fpn`. Where we deviate from it:

    - The images come on a square canvas, as `Batch` has them; nothing is resized here. What is padding is
      black, not the mean color.
    - Only instances that have a mask enter the mask branch's training, and its loss is the mean over them;
      boxes without a mask train the proposals and the box branch as all others do.
    - Mask targets come from grids over the boxes, with pixel centers at i + 0.5; torchvision's come from
      image-sized masks, half a pixel off.
    - There is no mask of the background class.
    - Everything learns, batch norm from the batch too; torchvision's model, when it starts from ImageNet,
      freezes the first layers and all batch norms.
    - A mask is a grid over its box and is not pasted here.
    - `mask_boxes="gt"` and `class_agnostic` are choices of Deep-MARC.

    Where Deep-MARC's published code (TensorFlow) has other numbers, torchvision's stand: four samples a cell
    of a crop, theirs one, at the cell's center; 2000 proposals before NMS in training and 1000 in inference,
    theirs 5000 in inference; the mask loss is the mean over instances, theirs over all their pixels; weight
    decay is the recipe's, theirs spares the body of a deep mask head.

    Args:
        backbone: maps of several strides.
        num_classes: classes, the background not among them.
        class_agnostic: one mask for all classes; else one for each.
        mask_boxes: the mask branch trains on sampled proposals that match an object, ground-truth boxes
            among them (`proposals+gt`), or on the ground-truth boxes alone (`gt`).
        mask_head: (N, C, crop, crop) to (N, masks, 2 * crop, 2 * crop) logits, one mask or as many as
            classes; a `WeightTransferHead` is given the box branch's weights too, a `GuidedMaskHead` the
            masks. `default_roi_mask_head` where none is given.
        mask_crop: cells a side of the mask branch's crops; masks have twice as many.
        anchor_sizes: px, one for each level of the backbone, finest first.
        anchor_ratios: height / width.
        anchor_scales: each size times each of these.
        proposals: kept after NMS in inference for each image; in training twice as many.
        sampled_proposals: the box branch trains on for each image, at most a quarter of them on objects.
        box_channels: of the box branch's two layers.
        score_threshold, nms_threshold: of detections.

    Attributes:
        spec: what a caller must know; whoever loads weights completes it (`models.load`).
        target_mask_size: cells a side of the mask grids it trains on.
        loss_units: what each loss is a mean over. Of sampled anchors and proposals there are as many in every
            image that has enough of them. Proposals that match an object are counted by none of the units:
            their masks' loss is taken as a mean over images, which it is not.
    """

    def __init__(
        self,
        backbone: MultiScaleBackbone,
        num_classes: int,
        *,
        class_agnostic: bool = False,
        mask_boxes: Literal["proposals+gt", "gt"] = "proposals+gt",
        mask_head: nn.Module | None = None,
        mask_crop: int = 14,
        anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        anchor_scales: Sequence[float] = (1.0,),
        proposals: int = 1000,
        sampled_proposals: int = 512,
        box_channels: int = 1024,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if len(anchor_sizes) != len(backbone.levels):
            raise ValueError(f"anchor_sizes: got {len(anchor_sizes)} sizes, expected {len(backbone.levels)}")
        channels = backbone.out_channels
        self.backbone, self.num_classes = backbone, num_classes
        self.mask_boxes, self.mask_size = mask_boxes, 2 * mask_crop
        self.spec = ModelSpec(
            mask_size=self.mask_size,
            input_size_px=None,
            size_divisibility=backbone.size_divisibility,
            class_agnostic=class_agnostic,
            detects=True,
            seen_mask_classes=(),
            identity="mask_rcnn, untrained",
        )
        self.target_mask_size = self.mask_size if mask_boxes == "gt" else PROPOSAL_TARGET_SIZE
        anchors = AnchorGenerator(
            tuple(tuple(size * scale for scale in anchor_scales) for size in anchor_sizes),
            (tuple(anchor_ratios),) * len(anchor_sizes),
        )
        self.rpn = proposal_network(channels, anchors, proposals)
        levels = list(backbone.crop_levels)
        self.roi = RoIHeads(
            MultiScaleRoIAlign(levels, BOX_CROP, sampling_ratio=2),
            TwoMLPHead(channels * BOX_CROP**2, box_channels),
            FastRCNNPredictor(box_channels, 1 + num_classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=sampled_proposals,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=100,
        )
        self.mask_pool = MultiScaleRoIAlign(levels, mask_crop, sampling_ratio=2)
        masks = 1 if class_agnostic else num_classes
        self.mask_head = mask_head or default_roi_mask_head(channels, masks)
        others = self.mask_head.loss_names if isinstance(self.mask_head, GuidedMaskHead) else ()
        unit: LossUnit = "masks" if mask_boxes == "gt" else "images"
        self.loss_units: dict[str, LossUnit] = dict.fromkeys(("mask", *others), unit)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar losses: `objectness`, `proposal_box`, `class`, `box` and `mask`, each with weight one.

        A `GuidedMaskHead` adds its own.

        The content of `masks` is never read where `has_mask` is False.

        Raises:
            ValueError: the masks are not `target_mask_size` cells a side.
        """
        features, instances = self.backbone(batch.images), _by_image(batch)
        counts = torch.bincount(instances.image_index, minlength=len(batch.images)).tolist()
        truth = [  # of each image, as torchvision takes it; its class 0 is the background
            {"boxes": boxes, "labels": classes}
            for boxes, classes in zip(
                torch.split(instances.boxes, counts),
                torch.split(instances.class_index + 1, counts),
                strict=True,
            )
        ]
        proposals, found = self.rpn(_image_list(batch.images, batch.image_sizes), features, truth)
        rois, matched, classes, regression = self.roi.select_training_samples(proposals, truth)
        predicted = self._box_branch(features, rois, batch.images)
        class_loss, box_loss = fastrcnn_loss(*predicted, classes, regression)
        if self.mask_boxes == "proposals+gt":
            instances = seen_from(instances, counts, rois, matched, classes, self.mask_size)
        instances = masked_instances(replace(batch, instances=instances), self.mask_size)
        return {
            "objectness": found["loss_objectness"],
            "proposal_box": found["loss_rpn_box_reg"],
            "class": class_loss,
            "box": box_loss,
            **self._mask_losses(features, instances, batch.images),
        }

    def parameter_groups(self) -> dict[Literal["pretrained", "new"], list[nn.Parameter]]:
        """All parameters: those that others' weights can fill, and the rest."""
        return parameter_groups(self, self.backbone)

    @torch.no_grad()
    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        """Mask probabilities for given boxes.

        Args:
            images: (B, 3, H, W) uint8.
            instances: N boxes in any order of images, and their classes where masks belong to classes.

        Returns:
            N masks in the order of `instances`.
        """
        logits = self._mask_branch(self.backbone(images), instances, images)
        return SegmentedMasks.of(logits.float().sigmoid())

    @torch.no_grad()
    def detect(
        self, images: Tensor, image_sizes: Tensor, max_detections: int = 100, min_score: float = 0.0
    ) -> Detections:
        """Boxes of all classes with their masks.

        Args:
            images: (B, 3, H, W) uint8.
            image_sizes: (B, 2) int64 height and width of each image on the canvas.
            max_detections: per image.
            min_score: objects below it are left out, beside those below the model's own `score_threshold`.

        Raises:
            ContractError: scores or boxes are no numbers.
        """
        features = self.backbone(images)
        require_finite("features", *features.values())
        proposals, _ = self.rpn(_image_list(images, image_sizes), features)
        self.roi.detections_per_img = max_detections
        found_in_boxes = self._box_branch(features, proposals, images)
        require_finite("boxes", *found_in_boxes)
        boxes, scores, classes = self.roi.postprocess_detections(
            *found_in_boxes, proposals, [tuple(size) for size in image_sizes.tolist()]
        )
        found = Instances.of_boxes(boxes, [index - 1 for index in classes], self.mask_size)
        score = torch.cat(scores)
        kept = score >= min_score
        found = found.select(kept)
        masks = self._mask_branch(features, found, images).float().sigmoid()
        return Detections(found.image_index, found.boxes, found.class_index, score[kept], masks)

    def _class_weights(self) -> Tensor:
        """(K, 5 * box_channels): what the box branch scores each class by, then what moves its boxes."""
        predictor, k = self.roi.box_predictor, 1 + self.num_classes
        return torch.cat((predictor.cls_score.weight, predictor.bbox_pred.weight.view(k, -1)), dim=1)[1:]

    def _box_branch(
        self, features: dict[str, Tensor], rois: list[Tensor], images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, 1 + K) class logits and (N, 4 * (1 + K)) box regressions of the N rois of all images."""
        crops = self.roi.box_roi_pool(features, rois, _canvas_sizes(images))
        logits, regression = self.roi.box_predictor(self.roi.box_head(crops))
        return logits.float(), regression.float()

    def _mask_losses(
        self, features: dict[str, Tensor], instances: Instances, images: Tensor
    ) -> dict[str, Tensor]:
        """Of N instances with a mask, in the order of the images."""
        if not isinstance(self.mask_head, GuidedMaskHead):
            return {"mask": mask_loss(self._mask_branch(features, instances, images), instances)}
        crops, masks = self._mask_crops(features, instances, images), instances.masks.float() / 255
        logits, others = self.mask_head.learn(crops, masks)
        weight = instances.mask_weight / max(len(instances), 1)
        return {
            "mask": mask_loss(logits[:, 0], instances),
            **{name: (each * weight).sum() for name, each in others.items()},
        }

    def _mask_crops(self, features: dict[str, Tensor], instances: Instances, images: Tensor) -> Tensor:
        """(N, C, crop, crop) of N boxes in the order of the images."""
        counts = torch.bincount(instances.image_index, minlength=len(images)).tolist()
        rois = torch.split(instances.boxes, counts)
        crops: Tensor = self.mask_pool(features, rois, _canvas_sizes(images))
        return crops

    def _mask_branch(self, features: dict[str, Tensor], instances: Instances, images: Tensor) -> Tensor:
        """(N, S, S) mask logits of the N boxes, each of its own class where masks belong to classes."""
        order = torch.argsort(instances.image_index, stable=True)
        crops = self._mask_crops(features, instances.select(order), images)
        extra = (self._class_weights(),) if isinstance(self.mask_head, WeightTransferHead) else ()
        logits: Tensor = self.mask_head(crops, *extra)[torch.argsort(order)]  # (N, K or 1, S, S)
        if self.spec.class_agnostic:
            return logits[:, 0]
        return logits[torch.arange(len(logits), device=logits.device), instances.class_index]


def mask_loss(logits: Tensor, instances: Instances) -> Tensor:
    """Sigmoid cross-entropy against coverage: mean over all cells, each instance times its `mask_weight`.

    Args:
        logits: (N, S, S).
        instances: the same N, all with a mask of S cells a side.
    """
    target = instances.masks.float() / 255
    per_cell = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (per_cell.mean(dim=(1, 2)) * instances.mask_weight).sum() / max(len(instances), 1)


def _by_image(batch: Batch) -> Instances:
    return batch.instances.select(torch.argsort(batch.instances.image_index, stable=True))


def _image_list(images: Tensor, image_sizes: Tensor) -> ImageList:
    return ImageList(images, [tuple(size) for size in image_sizes.tolist()])


def _canvas_sizes(images: Tensor) -> list[tuple[int, int]]:
    """What a pooler takes for the images' sizes: it infers strides from them, so the canvas's."""
    height, width = images.shape[-2:]
    return [(height, width)] * len(images)
