"""ShapeMask's mask branch (arXiv:1904.03239), for one mask of all classes.

A mask is found in three steps: a mean of known shapes, which the crop weighs; a coarse mask of crop and
shape; a fine mask of how far each cell's features are from the mean of the coarse mask's. The structure,
widths, losses and their weights are those of the authors' public code (tensorflow/tpu). Where ours differs:

- The detector is this project's Mask R-CNN; theirs is a RetinaNet.
- Crops are the boxes; theirs are 1.25 times as large, and masks may leave the box.
- The fine mask has twice as many cells as the crop; theirs has four times as many.
- Every instance with a mask is learned from; theirs samples 8 an image.
- A loss is the mean over an instance's cells, then over instances.
- Boxes are jittered by no more than what `mask_boxes` gives; theirs move by 2.5 %.
- The number of shapes is not in their code, which reads them from a file: it is 100 here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepmac_distill.models.blocks import ConvBlock, precise
from deepmac_distill.models.guided_mask_heads import GuidedMaskHead, cross_entropy_of_each, halved

SHAPES = 100  # of all classes together
LAYERS = 4  # 3 x 3 convolutions of each of the two decoders
SHAPE_WEIGHT, COARSE_WEIGHT = 0.1, 1.0  # of the losses; that of the fine mask has one
_RARE = -math.log((1 - 0.01) / 0.01)  # bias of a logit: a cell is foreground once in a hundred
_CLUSTERING_ROUNDS = 25  # of Lloyd's algorithm, at most


class ShapeMaskHead(GuidedMaskHead):
    """Shapes, a coarse mask and a fine one.

    Args:
        in_channels: of the crops.
        channels: of the branch; 128 in the paper's code.
        crop_size: cells a side of the crops and of the shapes; 32 in the paper's code.
    """

    loss_names = ("shape", "coarse_mask")
    shapes: Tensor  # (SHAPES, S, S) coverage: zero until `learn_shapes`

    def __init__(self, in_channels: int, channels: int, crop_size: int) -> None:
        super().__init__()
        self.register_buffer("shapes", torch.zeros(SHAPES, crop_size, crop_size))
        self.reduce = nn.Conv2d(in_channels, channels, 1)
        self.weights = nn.Linear(channels, SHAPES)
        self.shape_features = nn.Conv2d(1, channels, 1)
        self.coarse = _decoder(channels)
        self.coarse_logits = nn.Conv2d(channels, 1, 1)
        self.coarse_features = nn.Conv2d(1, channels, 1)
        self.fine = _decoder(channels)
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, 1, 1)
        self._initialize()

    def _initialize(self) -> None:
        for part in (self.reduce, self.shape_features, self.coarse_features, self.upsample):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]  # they have one
        small = (self.coarse, self.fine, self.weights, self.coarse_logits, self.logits)
        for layer in (layer for net in small for layer in net.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(self.weights.bias)
        for last in (self.coarse_logits, self.logits):
            nn.init.constant_(last.bias, _RARE)  # type: ignore[arg-type]

    def learn_shapes(self, masks: Tensor) -> None:
        """Take the means of like masks, (M, S, S) coverage in [0, 1], for the shapes; none: they stay."""
        if len(masks):
            self.shapes.copy_(common_shapes(masks, SHAPES))

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S) to (N, 1, 2S, 2S) logits."""
        return self._found(crops)[-1]

    def learn(self, crops: Tensor, masks: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and `shape` (squared error of the mean shape) and `coarse_mask` of each instance."""
        shape, coarse, logits = self._found(crops)
        small = halved(masks)
        errors = (precise(shape) - small).square().mean(dim=(1, 2))
        losses = {
            "shape": SHAPE_WEIGHT * errors,
            "coarse_mask": COARSE_WEIGHT * cross_entropy_of_each(coarse[:, 0], small),
        }
        return logits, losses

    def _found(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, S, S) mean shapes, (N, 1, S, S) coarse and (N, 1, 2S, 2S) fine logits."""
        features = self.reduce(crops)
        weights = self.weights(features.mean(dim=(2, 3))).softmax(dim=1)
        shape = torch.einsum("nk,khw->nhw", weights, self.shapes.to(weights.dtype))
        conditioned = features + self.shape_features(shape[:, None])
        coarse: Tensor = self.coarse_logits(self.coarse(conditioned))
        apart = features - _mean_inside(features, coarse > 0) + self.coarse_features(coarse.sigmoid())
        logits: Tensor = self.logits(self.upsample(self.fine(apart)))
        return shape, coarse, logits


def common_shapes(masks: Tensor, count: int) -> Tensor:
    """Means (count, S, S) of like masks: k-means from evenly spread masks, always the same.

    With fewer masks than shapes a mask is a shape, some of them twice.

    Args:
        masks: (M, S, S) in [0, 1], M at least 1.
    """
    flat = masks.flatten(1).float()
    order = flat.sum(dim=1).argsort(stable=True)  # by area: the first shapes differ
    centers = flat[order[torch.arange(count) * len(flat) // count]].clone()
    if len(flat) <= count:
        return centers.view(count, *masks.shape[1:])
    nearest = None
    for _ in range(_CLUSTERING_ROUNDS):
        found = torch.cdist(flat, centers).argmin(dim=1)
        if nearest is not None and torch.equal(found, nearest):
            break
        nearest = found
        sums = torch.zeros_like(centers).index_add_(0, nearest, flat)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centers = torch.where(sizes > 0, sums / sizes.clamp(min=1), centers)  # an empty one stays
    return centers.view(count, *masks.shape[1:])


def _mean_inside(features: Tensor, inside: Tensor) -> Tensor:
    """(N, C, 1, 1) mean of (N, C, S, S) features over the cells of (N, 1, S, S); zero where there is none."""
    cells = inside.to(features.dtype)
    total = (features * cells).sum(dim=(2, 3), keepdim=True)
    return total / cells.sum(dim=(2, 3), keepdim=True).clamp(min=1)


def _decoder(channels: int) -> nn.Sequential:
    return nn.Sequential(*(ConvBlock(channels, channels) for _ in range(LAYERS)))
