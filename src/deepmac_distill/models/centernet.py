"""CenterNet's heads, targets, losses and decoding: a box is a peak of its class's heatmap.

Objects as Points, arXiv:1904.07850, in the form Deep-MAC's public code gives it. Positions are cells of
the stride-4 map, (y, x) order; sizes and offsets are in cells too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.contract import require_finite
from deepmac_distill.geometry.heatmap import center_heatmap, centers
from deepmac_distill.models.backbones import STRIDE_PX
from deepmac_distill.models.blocks import init_glorot, precise
from deepmac_distill.structures import Batch

RARE_LOGIT = -2.19  # sigmoid gives 0.1: no peak anywhere at first, so the first steps do not blow up


class PredictionHead(nn.Module):
    """3 x 3 convolution, ReLU, 1 x 1 convolution: densely over a map, or only at the cells asked for."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, bias: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(in_channels, hidden_channels, 3, padding=1)
        self.output = nn.Conv2d(hidden_channels, out_channels, 1)
        init_glorot(self)
        if self.output.bias is not None:
            nn.init.constant_(self.output.bias, bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H, W)."""
        predicted: Tensor = self.output(F.relu(self.hidden(features), inplace=True))
        return predicted

    def at(self, patches: Tensor) -> Tensor:
        """(N, C, 3, 3) patches of the map to (N, out): what `forward` gives at their centers."""
        hidden = F.conv2d(patches, self.hidden.weight, self.hidden.bias)  # (N, hidden, 1, 1)
        predicted: Tensor = self.output(F.relu(hidden, inplace=True))
        return predicted[:, :, 0, 0]


class CenterHeads(nn.Module):
    """Class heatmap, box size and sub-cell offset on one stack's map."""

    def __init__(self, in_channels: int, hidden_channels: int, num_classes: int) -> None:
        super().__init__()
        self.heatmap = PredictionHead(in_channels, hidden_channels, num_classes, RARE_LOGIT)
        self.size = PredictionHead(in_channels, hidden_channels, 2)  # height, width
        self.offset = PredictionHead(in_channels, hidden_channels, 2)  # y, x

    def losses(self, features: Tensor, targets: CenterTargets) -> dict[str, Tensor]:
        """Scalars `center`, `size` and `offset`, each a sum over the batch per box, unweighted.

        Sizes and offsets are read and computed at the center cells only, so only there is work done.
        """
        boxes = max(len(targets.cells), 1)
        sizes, offsets = self.boxes_at(features, targets.image_index, targets.cells)
        return {
            "center": focal_loss(self.heatmap(features), targets.heatmap, targets.inside) / boxes,
            "size": (sizes - targets.sizes).abs().sum() / boxes,
            "offset": (offsets - targets.offsets).abs().sum() / boxes,
        }

    def peaks(self, features: Tensor, inside: Tensor, max_detections: int) -> Peaks:
        """The best peaks of each image among the cells `inside`, (B, 1, H, W) bool.

        In float32 under autocast too: in bfloat16 neighbors round to the same score, and both are peaks.
        """
        with _float32(features):
            probs = self.heatmap(precise(features)).sigmoid()
        require_finite("scores", probs)
        return find_peaks(probs * inside, max_detections)

    def boxes_at(self, features: Tensor, image_index: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 2) heights and widths, and (N, 2) offsets (y, x), of the boxes centered in N cells.

        In float32 under autocast too: above 128 cells the numbers of bfloat16 are a whole cell apart.
        """
        with _float32(features):
            patches = precise(patches_at(features, image_index, cells))
            return self.size.at(patches), self.offset.at(patches)


@dataclass(frozen=True, slots=True)
class CenterTargets:
    """The targets of the three heads for a batch of N boxes on a map of H x W cells."""

    heatmap: Tensor  # (B, K, H, W) float32, 1 at centers
    inside: Tensor  # (B, 1, H, W) bool, False on padding
    image_index: Tensor  # (N,) int64
    cells: Tensor  # (N, 2) int64, y x of the center's cell
    sizes: Tensor  # (N, 2) float32, height width
    offsets: Tensor  # (N, 2) float32, y x of the center within its cell


@dataclass(frozen=True, slots=True)
class Peaks:
    """D local maxima of a batch's heatmaps, best first within an image."""

    image_index: Tensor  # (D,) int64
    class_index: Tensor  # (D,) int64
    cells: Tensor  # (D, 2) int64, y x
    scores: Tensor  # (D,) float32

    def of_at_least(self, min_score: float) -> Peaks:
        """Those with this score or a higher one."""
        kept = self.scores >= min_score
        return Peaks(self.image_index[kept], self.class_index[kept], self.cells[kept], self.scores[kept])


def _float32(features: Tensor) -> torch.autocast:
    return torch.autocast(features.device.type, enabled=False)


def center_targets(batch: Batch, num_classes: int) -> CenterTargets:
    """Targets for every box of the batch, whether or not it has a mask."""
    b, _, height, width = batch.images.shape
    h, w = height // STRIDE_PX, width // STRIDE_PX
    instances = batch.instances
    boxes = instances.boxes / STRIDE_PX
    cells = centers(boxes, h, w)
    middle = (boxes[:, :2] + boxes[:, 2:]).flip(1) / 2  # (N, 2) y, x
    return CenterTargets(
        heatmap=center_heatmap(boxes, instances.class_index, instances.image_index, (b, num_classes, h, w)),
        inside=cells_inside(batch.image_sizes, h, w),
        image_index=instances.image_index,
        cells=cells,
        sizes=(boxes[:, 2:] - boxes[:, :2]).flip(1),
        offsets=middle - cells,
    )


def cells_inside(image_sizes: Tensor, h: int, w: int) -> Tensor:
    """(B, 1, h, w) bool: the cells that hold any of the image, from (B, 2) heights and widths in pixels."""
    rows, columns = (image_sizes / STRIDE_PX).ceil()[:, :, None].unbind(1)  # each (B, 1)
    y, x = torch.arange(h, device=image_sizes.device), torch.arange(w, device=image_sizes.device)
    return (y < rows)[:, None, :, None] & (x < columns)[:, None, None, :]


def patches_at(features: Tensor, image_index: Tensor, cells: Tensor) -> Tensor:
    """(N, C, 3, 3): the map around each of (N, 2) cells, zero beyond its edges."""
    around = torch.arange(3, device=cells.device)
    padded = F.pad(features, (1, 1, 1, 1)).permute(0, 2, 3, 1)  # (B, H + 2, W + 2, C)
    y, x = cells[:, :1] + around, cells[:, 1:] + around  # each (N, 3)
    return padded[image_index[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def focal_loss(logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Sum of the penalty-reduced focal loss: alpha 2, beta 4 (CornerNet, arXiv:1808.01244, 3.2).

    Args:
        logits, target: (B, K, H, W); a cell is a positive where the target is exactly 1.
        inside: (B, 1, H, W) bool; other cells do not count.
    """
    limit = math.log((1 - 1e-4) / 1e-4)  # of the published code: probabilities stay in [1e-4, 1 - 1e-4]
    logits = precise(logits).contiguous().clamp(-limit, limit)
    weight = (1 - target).square().square() * inside  # zero at positives
    negative = weight * logits.sigmoid().square() * F.softplus(logits)
    at_centers = logits[target == 1]
    positive = (-at_centers).sigmoid().square() * F.softplus(-at_centers)
    return positive.sum() + negative.sum()


def find_peaks(probs: Tensor, max_detections: int) -> Peaks:
    """The highest 3 x 3 local maxima of each image over all classes; zero is never a peak.

    Args:
        probs: (B, K, H, W) in [0, 1].
        max_detections: kept per image at most.
    """
    b, k, h, w = probs.shape
    is_peak = probs == F.max_pool2d(probs, 3, stride=1, padding=1)
    scores, flat = torch.where(is_peak, probs, 0.0).flatten(1).topk(min(max_detections, k * h * w))  # (B, D)
    image_index = torch.arange(b, device=probs.device)[:, None].expand_as(flat)
    cells = torch.stack((flat // w % h, flat % w), dim=-1)  # (B, D, 2)
    kept = scores > 0
    return Peaks(image_index[kept], (flat // (h * w))[kept], cells[kept], scores[kept])


def boxes_of(cells: Tensor, sizes: Tensor, offsets: Tensor, limits: Tensor) -> Tensor:
    """(D, 4) xyxy in pixels, clipped to the image.

    Deviation: the published code crops features by the unclipped box and pastes into the clipped one,
    which stretches masks at the border; here there is one box.

    Args:
        cells, sizes, offsets: (D, 2) in (y, x) or (height, width) order, in map cells.
        limits: (D, 2) height and width of each detection's image in pixels.
    """
    middle, half = cells + offsets, sizes.clamp(min=0) / 2
    corners = torch.cat(((middle - half).flip(1), (middle + half).flip(1)), dim=1) * STRIDE_PX
    return corners.clamp(min=0).minimum(limits.flip(1).repeat(1, 2).to(corners.dtype))
