"""Segment Anything (arXiv:2304.02643) as a teacher, by way of `transformers`, in a file of your own.

    [teacher]
    segmenter = "examples/sam_teacher.py:Sam"
    [teacher.arguments]
    weights = "facebook/sam-vit-base"

Run it with `deepmac run pipeline.toml --allow-code`. Deviation from the published preprocessing: padding is
black, not the mean color, since a segmenter is not told where the image ends on its canvas.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align
from transformers import SamModel

from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.structures import Instances

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of the published preprocessing, RGB 0 to 255


class Sam(nn.Module):
    """One mask for each box, with SAM's own estimate of its IoU.

    Args:
        weights: a name that `SamModel.from_pretrained` knows, or a folder.
        mask_size: cells a side of a mask.
    """

    def __init__(self, weights: str = "facebook/sam-vit-base", mask_size: int = 64) -> None:
        super().__init__()
        self.sam = SamModel.from_pretrained(weights)
        revision = _sha256_of(Path(weights)) if Path(weights).is_dir() else self.sam.config._commit_hash
        self.spec = ModelSpec(
            mask_size=mask_size,
            input_size_px=self.sam.config.vision_config.image_size,
            seen_mask_classes=None,  # SA-1B has masks of everything, and no class names
            identity=f"sam {weights}@{revision}, {mask_size} cells",
        )

    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        """Image by image: (B, 3, S, S) uint8 and N boxes to N masks."""
        mean, std = (images.new_tensor(c, dtype=torch.float32).view(3, 1, 1) for c in (MEAN, STD))
        size = self.spec.mask_size
        grids = torch.zeros(len(instances), size, size, device=images.device)
        iou = torch.zeros(len(instances), device=images.device)
        for index in instances.image_index.unique().tolist():
            mine = instances.image_index == index
            boxes = instances.boxes[mine]
            found = self.sam(
                pixel_values=((images[index] - mean) / std)[None],
                input_boxes=boxes[None],
                multimask_output=False,
            )
            logits = found.pred_masks[0].float()  # (n, 1, s, s) over the whole canvas
            scale = logits.shape[-1] / images.shape[-1]
            over_boxes = roi_align(
                logits, list(boxes[:, None] * scale), (size, size), sampling_ratio=1, aligned=True
            )
            grids[mine] = over_boxes[:, 0].sigmoid()
            iou[mine] = found.iou_scores[0, :, 0].float().clamp(0, 1)
        return SegmentedMasks(grids, torch.ones_like(iou, dtype=torch.bool), iou)


def _sha256_of(folder: Path) -> str:
    """Of the weights in a folder: what a label file says of a model must change with its masks."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
