"""Class-agnostic mask heads: (N, C, S, S) crops of an instance to (N, S, S) mask logits.

Deep-MAC, arXiv:2104.00613, appendix A.2. All heads keep the resolution of the crop. The number in a
name counts the convolutions on the main path, as in the paper's tables.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.models.hourglass import BatchNorm, ConvBlock, Hourglass, ResidualBlock, init_glorot

# Residual blocks per stage, and channels per stage in units of the head's width. Tables 16 and 17.
_HOURGLASSES = {
    "hourglass-10": ((1, 1), (2, 2)),
    "hourglass-20": ((1, 2, 2), (2, 2, 3)),
    "hourglass-32": ((2, 2, 2, 2), (2, 2, 3, 3)),
    "hourglass-52": ((2, 2, 2, 2, 2, 4), (2, 2, 3, 3, 3, 4)),
    "hourglass-100": ((4, 4, 4, 4, 4, 8), (2, 2, 3, 3, 3, 4)),
}
# Channels of each block in units of the head's width. Table 14, but for the last two blocks of
# resnet-20, which the paper prints as 2 and the published code makes 3.
_RESNETS = {
    "resnet-4": (2,) * 2,
    "resnet-8": (2,) * 4,
    "resnet-12": (2,) * 6,
    "resnet-16": (2,) * 8,
    "resnet-20": (2,) * 8 + (3,) * 2,
}
MASK_HEADS: tuple[str, ...] = (*_HOURGLASSES, *_RESNETS)


class MaskHead(nn.Module):
    """A body that keeps the resolution, then a 1 x 1 convolution to one logit per cell.

    Attributes:
        size_multiple: the crop size must be a multiple of this.
    """

    def __init__(self, body: nn.Module, out_channels: int, size_multiple: int) -> None:
        super().__init__()
        self.body = body
        self.logits = nn.Conv2d(out_channels, 1, 1)
        self.size_multiple = size_multiple
        init_glorot(self)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S) to (N, S, S) logits."""
        # Channels last is the layout CPU and GPU convolutions want; the numbers are the same.
        return self.logits(self.body(crops.contiguous(memory_format=torch.channels_last)))[:, 0]


class PreActivationBlock(nn.Module):
    """The residual block of the paper's ResNet heads: ReLU before the sum and none after it.

    Batch norm is the hourglass's (momentum 0.1, eps 1e-5); the published code has 0.01 and 1.001e-5 here.
    """

    def __init__(self, in_channels: int, out_channels: int, project: bool) -> None:
        super().__init__()
        self.norm = BatchNorm(in_channels)
        self.project = nn.Conv2d(in_channels, out_channels, 1) if project else None
        self.branch = nn.Sequential(
            ConvBlock(in_channels, out_channels), ConvBlock(out_channels, out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, S, S) to (N, out, S, S)."""
        active = F.relu(self.norm(x), inplace=True)
        return self.branch(active) + (x if self.project is None else self.project(active))


def build_mask_head(name: str, in_channels: int, width: int = 64) -> MaskHead:
    """The mask head of that name, with glorot uniform weights.

    Args:
        name: one of `MASK_HEADS`.
        in_channels: channels of a crop; 50 in the paper (2 coordinates, 16 pixel, 32 instance embedding).
        width: channels after the first convolution, of which the others are multiples; 64 in the paper.

    Raises:
        ValueError: an unknown name.
    """
    if name in _HOURGLASSES:
        return _hourglass_head(name, in_channels, width)
    if name in _RESNETS:
        return _resnet_head(name, in_channels, width)
    raise ValueError(f"mask head: got {name!r}, expected one of {', '.join(MASK_HEADS)}")


def _hourglass_head(name: str, in_channels: int, width: int) -> MaskHead:
    blocks, multiples = _HOURGLASSES[name]
    channels = [width * m for m in multiples]
    body = nn.Sequential(
        ConvBlock(in_channels, width),
        ResidualBlock(width, channels[0], project=True),
        Hourglass(blocks, channels),
        ConvBlock(channels[0], channels[0]),
    )
    return MaskHead(body, channels[0], size_multiple=2 ** (len(blocks) - 1))


def _resnet_head(name: str, in_channels: int, width: int) -> MaskHead:
    channels = [width, *(width * m for m in _RESNETS[name])]
    blocks = [
        # Every stack, that is every change of multiple, opens with a projection.
        PreActivationBlock(c_in, c_out, project=i == 0 or c_in != c_out)
        for i, (c_in, c_out) in enumerate(itertools.pairwise(channels))
    ]
    body = nn.Sequential(nn.Conv2d(in_channels, width, 1), *blocks)
    return MaskHead(body, channels[-1], size_multiple=1)
