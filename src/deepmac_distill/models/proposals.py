"""Mask R-CNN's proposals: torchvision's network, exact under autocast."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from deepmac_distill.contract import require_finite


class _ExactRPNHead(RPNHead):  # type: ignore[misc]  # torchvision has no types
    """Its answers in float32 under autocast too: boxes in bfloat16 would be off by pixels."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, boxes = super().forward(x)
        logits, boxes = [part.float() for part in logits], [part.float() for part in boxes]
        if not self.training:
            require_finite("proposals", *logits, *boxes)
        return logits, boxes


def proposal_network(channels: int, anchors: AnchorGenerator, proposals: int) -> RegionProposalNetwork:
    """torchvision's, with its training settings: 256 anchors an image, half of them on objects."""
    kept = {"training": 2 * proposals, "testing": proposals}
    return RegionProposalNetwork(
        anchors,
        _ExactRPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=kept,
        post_nms_top_n=kept,
        nms_thresh=0.7,
    )
