"""Feature crops: the cells of a box, sampled from a feature map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepmac_distill.lattice import Lattice


def crop_features(
    features: Tensor, boxes: Tensor, image_index: Tensor, size: int, lattice: Lattice = "centers"
) -> Tensor:
    """One bilinear sample for each of size x size cells of every box, where the lattice has it.

    On "centers" equal to `torchvision.ops.roi_align(sampling_ratio=1, aligned=True)`, forward and backward,
    for boxes inside the map, in one `grid_sample` call per image that never copies features. Beyond the
    centers of the outermost pixels the border is repeated. "reference" samples as the paper's public code
    does (arXiv:2104.00613, its `matmul_crop_and_resize`): from edge to edge, with aligned corners and zeros
    outside. Masks are pasted with the lattice that their crops have, so that both cover the same cells.

    Args:
        features: (B, C, H, W) floating point, on any device; gradients flow to them, not to the boxes.
        boxes: (N, 4) xyxy in feature pixels, in any order of images.
        image_index: (N,) int64, the map of each box, among the B.
        size: cells a side; at least 2 on "reference".
        lattice: where a cell samples its box.

    Returns:
        (N, C, size, size) in the dtype of `features`, in the order of `boxes`.
    """
    b, c, h, w = features.shape
    # Sampling positions in half precision would be off by up to a pixel.
    precise = torch.promote_types(features.dtype, torch.float32)
    order = torch.argsort(image_index, stable=True)
    counts = torch.bincount(image_index, minlength=b).tolist()
    grid_of_box = _sampling_grid(boxes.detach()[order].to(precise), h, w, size, lattice)  # (N, S, S, 2)
    crops = [
        F.grid_sample(
            features[i : i + 1].to(precise),
            grid.reshape(1, -1, size, 2),  # (1, n * S, S, 2): the boxes of an image stacked as one tall grid
            mode="bilinear",
            padding_mode="zeros" if lattice == "reference" else "border",
            align_corners=lattice == "reference",
        ).reshape(c, -1, size, size)
        for i, grid in enumerate(torch.split(grid_of_box, counts))  # B x (n, S, S, 2)
        if len(grid)
    ]  # of (C, n, S, S)
    if not crops:
        return features[:0].reshape(0, c, size, size)  # a part of the graph: processes stay in step
    return torch.cat(crops, dim=1)[:, torch.argsort(order)].transpose(0, 1).to(features.dtype)


def cell_coordinates(
    size: int, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """(2, size, size): the y, then the x of every cell, from -1 to 1 inclusive, the same for every box.

    The coordinate embedding of arXiv:2104.00613, 3.2.
    """
    line = torch.linspace(-1.0, 1.0, size, device=device)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))


def _sampling_grid(boxes: Tensor, height: int, width: int, size: int, lattice: Lattice) -> Tensor:
    """(N, S, S, 2): x, y of the samples of (N, 4) boxes, where -1 and 1 are the edges of the map."""
    if lattice == "reference":
        cells = torch.linspace(0, 1, size, dtype=boxes.dtype, device=boxes.device)  # (S,)
    else:
        cells = (torch.arange(size, dtype=boxes.dtype, device=boxes.device) + 0.5) / size
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)  # each (N, 1)
    x = 2 / width * (x1 + (x2 - x1) * cells) - 1  # (N, S)
    y = 2 / height * (y1 + (y2 - y1) * cells) - 1
    n = len(boxes)
    return torch.stack((x[:, None, :].expand(n, size, size), y[:, :, None].expand(n, size, size)), dim=-1)
