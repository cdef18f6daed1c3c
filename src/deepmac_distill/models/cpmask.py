"""CPMask's mask branch (arXiv:2007.12387), for one mask of all classes.

What objects of all classes have in common is learned twice: their boundaries, by a branch of its own that
is gated into the mask's; and which cells belong together, by attention whose weights are supervised. The
structure, losses and their weights are those of the branch that the first author wrote for detectron2 (his
FewX); the paper's text was not at hand. Where ours differs:

- The detector is this project's Mask R-CNN; theirs is an FCOS.
- The supervision of attention reaches the weights; there it is computed from numbers without a gradient.
- Queries and keys are standardized by layer norm: 1e-5 is added to the variance, which may be zero after a
  ReLU, and the variance is divided by C, not C - 1.
- Targets are coverage; a boundary is where its slope (Scharr's) is above half the steepest, as there.
- A cell of the attention belongs to the object where at least half of it is covered; there, where the first
  of its four cells is.
- A loss is the mean over an instance's cells, then over instances.
- Group norm has 32 groups where the channels divide by 32, else as many as divide both.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.models.blocks import BatchNorm, precise
from deepmac_distill.models.guided_mask_heads import GuidedMaskHead, cross_entropy_of_each, halved

LAYERS = 4  # 3 x 3 convolutions of each of the two branches
GROUPS = 32  # of group norm
BOUNDARY_WEIGHT, AFFINITY_WEIGHT = 0.5, 0.5  # of the losses; that of the mask has one
_SCHARR = ((3.0, 10.0, 3.0), (0.0, 0.0, 0.0), (-3.0, -10.0, -3.0))


class CpMaskHead(GuidedMaskHead):
    """A boundary branch, gated into a mask branch with supervised attention.

    Args:
        channels: of the crops, and of every layer.
    """

    loss_names = ("boundary", "affinity")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.boundary = _convolutions(channels)
        self.boundary_upsample, self.boundary_logits = _upsample(channels), nn.Conv2d(channels, 1, 1)
        self.gate = nn.Conv2d(2 * channels, 1, 1)
        self.fuse = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.GroupNorm(math.gcd(GROUPS, channels), channels),
            nn.ReLU(inplace=True),
        )
        self.body = _convolutions(channels)
        self.attention = Attention(channels)
        self.upsample, self.logits = _upsample(channels), nn.Conv2d(channels, 1, 1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        for last in (self.boundary_logits, self.logits):
            nn.init.normal_(last.weight, std=0.001)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S) to (N, 1, 2S, 2S) logits."""
        features, _ = self.attention(self.body(self._with_boundaries(crops, self.boundary(crops))))
        logits: Tensor = self.logits(self.upsample(features))
        return logits

    def learn(self, crops: Tensor, masks: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and `boundary` and `affinity` of each instance."""
        boundary = self.boundary(crops)
        features, affinity = self.attention(self.body(self._with_boundaries(crops, boundary)))
        edges: Tensor = self.boundary_logits(self.boundary_upsample(boundary))
        losses = {
            "boundary": BOUNDARY_WEIGHT * cross_entropy_of_each(edges[:, 0], boundaries(masks)),
            "affinity": AFFINITY_WEIGHT * affinity_loss(affinity, halved(masks) >= 0.5),
        }
        return self.logits(self.upsample(features)), losses

    def _with_boundaries(self, crops: Tensor, boundary: Tensor) -> Tensor:
        gate = self.gate(torch.cat((crops, boundary), dim=1)).sigmoid()
        fused: Tensor = self.fuse(crops + boundary * gate)
        return fused


class Attention(nn.Module):
    """A non-local block (arXiv:1711.07971) on standardized queries and keys, and the weights of its cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (
            nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True)) for _ in range(4)
        )
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, S, S) to the same shape, and (N, S * S, S * S) weights: rows sum to one."""
        query, key = (_standardized(part(x)) for part in (self.query, self.key))
        value = self.value(x).flatten(2)  # (N, C, S * S)
        weights = (query @ key.transpose(1, 2) * x.shape[1] ** -0.5).softmax(dim=-1)
        related = (value @ weights.transpose(1, 2).to(value.dtype)).view_as(x)
        return x + self.norm(self.output(related)), weights


def boundaries(masks: Tensor) -> Tensor:
    """(N, S, S) coverage to (N, S, S) ones where its slope is above half the steepest of the instance."""
    down = masks.new_tensor(_SCHARR)
    kernels = torch.stack((down, down.T))[:, None]  # (2, 1, 3, 3)
    rimmed = F.pad(masks[:, None].float(), (1, 1, 1, 1), mode="replicate")
    slope = F.conv2d(rimmed, kernels.float()).square().sum(dim=1).sqrt()
    return (slope > slope.amax(dim=(1, 2), keepdim=True) / 2).float()


def affinity_loss(weights: Tensor, inside: Tensor) -> Tensor:
    """How much of the attention of an object's cells leaves the object, a mean over its cells: (N,).

    Args:
        weights: (N, S * S, S * S), rows sum to one.
        inside: (N, S, S) the object's cells; without any the loss is zero.
    """
    cells = inside.flatten(1).float()
    kept = (precise(weights) * cells[:, None]).sum(dim=2)  # no product of matrices: autocast would round it
    return ((1 - kept) * cells).sum(dim=1) / cells.sum(dim=1).clamp(min=1)


def _standardized(x: Tensor) -> Tensor:
    """(N, C, S, S) to (N, S * S, C): of each cell, mean zero and spread one over its channels."""
    return F.layer_norm(precise(x).flatten(2).transpose(1, 2), x.shape[1:2])


def _convolutions(channels: int) -> nn.Sequential:
    layers = ((nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)) for _ in range(LAYERS))
    return nn.Sequential(*(part for pair in layers for part in pair))


def _upsample(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(channels, channels, 2, stride=2), nn.ReLU(inplace=True))
