"""Center heatmaps: one Gaussian per box on the map of its class."""

from __future__ import annotations

import torch
from torch import Tensor

_BOXES_AT_ONCE = 64  # bounds memory: each box needs an H x W sheet of its own


def gaussian_radius(height: Tensor, width: Tensor, min_iou: float = 0.7) -> Tensor:
    """How far, in map pixels, a corner may move before the box counts as another one; >= 0.

    CornerNet (arXiv:1808.01244, 3.2) asks for the largest r that keeps IoU >= min_iou when both corners
    move by up to r: the least root of three quadratics. Its public code, CenterNet's and Deep-MAC's divide
    by 2 where the quadratic formula has 2a, which makes r up to about 3 times too large. Published
    results were trained with it, so it is kept.

    Args:
        height, width: of the boxes in map pixels, any one shape.

    >>> gaussian_radius(torch.tensor([32.0]), torch.tensor([32.0])).round(decimals=2).tolist()
    [8.75]
    """
    side_sum, area = height + width, height * width
    shift = (side_sum + (side_sum**2 - 4 * area * (1 - min_iou) / (1 + min_iou)).sqrt()) / 2
    shrink = side_sum + (side_sum**2 - 4 * area * (1 - min_iou)).sqrt()
    linear = min_iou * side_sum
    grow = -linear + (linear**2 + 4 * min_iou * (1 - min_iou) * area).sqrt()
    return torch.minimum(torch.minimum(shift, shrink), grow).clamp(min=0)


def centers(boxes: Tensor, height: int, width: int) -> Tensor:
    """(N, 2) int64 y, x of the map cell that holds each box's center, kept inside the map.

    Args:
        boxes: (N, 4) xyxy in map pixels.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2) x, y
    limit = torch.tensor([height - 1, width - 1], device=boxes.device)
    return middle.flip(1).floor().long().clamp(min=0).minimum(limit)


def center_heatmap(
    boxes: Tensor, class_index: Tensor, image_index: Tensor, shape: tuple[int, int, int, int]
) -> Tensor:
    """(B, K, H, W) target: exactly 1 at each box's center cell, falling off as a Gaussian around it.

    sigma = (2 * floor(radius) + 1) / 6, cut nowhere; where boxes of one class overlap the larger value
    holds. CenterNet (arXiv:1904.07850, 3), which cuts the Gaussian at the radius; Deep-MAC's code does not.

    Args:
        boxes: (N, 4) float xyxy in map pixels.
        class_index: (N,) int64 in [0, K).
        image_index: (N,) int64 in [0, B).
        shape: (B, K, H, W).
    """
    b, k, h, w = shape
    target = boxes.new_zeros(b * k, h, w)
    radius = gaussian_radius(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0])
    sigma = (2 * radius.floor() + 1) / 6  # (N,)
    y, x = centers(boxes, h, w)[:, :, None].unbind(1)  # each (N, 1)
    falloff = -0.5 / sigma[:, None] ** 2
    down = torch.exp(falloff * (torch.arange(h, device=boxes.device) - y) ** 2)  # (N, H)
    across = torch.exp(falloff * (torch.arange(w, device=boxes.device) - x) ** 2)  # (N, W)
    sheets = image_index * k + class_index  # (N,)
    for rows in torch.split(torch.arange(len(boxes), device=boxes.device), _BOXES_AT_ONCE):
        gaussians = down[rows, :, None] * across[rows, None, :]  # (n, H, W)
        target.scatter_reduce_(0, sheets[rows, None, None].expand_as(gaussians), gaussians, reduce="amax")
    return target.view(b, k, h, w)
