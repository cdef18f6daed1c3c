"""A mask on the whole canvas becomes a grid over its box, and what is outside the box is counted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

SAMPLES = 2  # of a cell, along each side; 4 bring masks no nearer to those of the published post-processing


def grids_over_boxes(logits: Tensor, boxes: Tensor, canvas_px: int, size: int) -> Tensor:
    """Mean probability in each cell of a grid over each box.

    Logits are interpolated, as in the published post-processing, at 2 x 2 points of a cell. A cell on an edge
    is then worth the share of it that is inside, so that the edge is found again between the cells' centers.

    Args:
        logits: (N, s, s) over the square canvas.
        boxes: (N, 4) xyxy in pixels of the canvas.
        canvas_px: its side.
        size: cells a side, S.

    Returns:
        (N, S, S) in [0, 1].
    """
    numbers = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
    places = torch.cat([numbers[:, None], boxes * (logits.shape[-1] / canvas_px)], dim=1)  # (N, 5)
    fine = roi_align(logits[:, None], places, (size * SAMPLES,) * 2, sampling_ratio=1, aligned=True)
    return F.avg_pool2d(fine.sigmoid(), SAMPLES)[:, 0]


def shares_outside(logits: Tensor, boxes: Tensor, canvas_px: int) -> Tensor:
    """(N,) the share of each mask (logits above 0) that is outside its box; 0 of an empty one.

    A cell of the logits that an edge of the box crosses is inside by the share of it that is.

    Args:
        logits, boxes, canvas_px: as in `grids_over_boxes`.
    """
    side = logits.shape[-1]
    left, top, right, bottom = (boxes * (side / canvas_px)).T[:, :, None]  # (N, 1) each
    start = torch.arange(side, device=boxes.device, dtype=boxes.dtype)  # (s,)
    in_x = (right.minimum(start + 1) - left.maximum(start)).clamp(min=0)  # (N, s)
    in_y = (bottom.minimum(start + 1) - top.maximum(start)).clamp(min=0)
    mask = (logits > 0).to(boxes.dtype)
    inside = torch.einsum("nyx,ny,nx->n", mask, in_y, in_x)
    return (1 - inside / mask.sum((1, 2)).clamp(min=1)).clamp(0, 1) * mask.any(2).any(1)
