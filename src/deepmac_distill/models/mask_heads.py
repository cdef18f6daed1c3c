"""Class-agnostic mask heads: (N, C, S, S) crops of an instance to (N, S, S) mask logits.

Deep-MAC, arXiv:2104.00613, appendix A.2. All heads keep the resolution of the crop. The number in a
name counts the convolutions on the main path (or the fully connected layers), as in the paper's tables.
What the paper leaves open, and how it is read here:

- `resnet-20` ends in two blocks 3 wide, as in the published code; the paper's table prints 2.
- `bottleneck-*` are standard bottlenecks (1 x 1 to f, 3 x 3 at f, 1 x 1 to 4f, ReLU after the sum), and
  the last block of `bottleneck-21` ends 4 x 192 wide. The paper prints f, 4f, f and once 384:
  `bottleneck-*-literal` are built so.
- `resnet-20-dilated-10` dilates the first ten convolutions; `resnet-20-dilated-10-late` the last ten.
- `fully-connected-4` has four layers 1024 wide; the published code has the one of two layers only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.models.blocks import (
    BatchNorm,
    BottleneckBlock,
    ConvBlock,
    ResidualBlock,
    init_glorot,
)
from deepmac_distill.models.hourglass import Hourglass

# Residual blocks per stage, and channels per stage in units of the head's width. Tables 16 and 17.
_HOURGLASSES = {
    "hourglass-10": ((1, 1), (2, 2)),
    "hourglass-20": ((1, 2, 2), (2, 2, 3)),
    "hourglass-32": ((2, 2, 2, 2), (2, 2, 3, 3)),
    "hourglass-52": ((2, 2, 2, 2, 2, 4), (2, 2, 3, 3, 3, 4)),
    "hourglass-100": ((4, 4, 4, 4, 4, 8), (2, 2, 3, 3, 3, 4)),
}
# Channels of each block in units of the head's width. Table 14.
_RESNETS = {
    "resnet-4": (2,) * 2,
    "resnet-8": (2,) * 4,
    "resnet-12": (2,) * 6,
    "resnet-16": (2,) * 8,
    "resnet-20": (2,) * 8 + (3,) * 2,
}
# How many of the 20 convolutions of resnet-20 are dilated, counted from the first or from the last. Table 6.
_DILATED = {
    "resnet-20-dilated-10": slice(0, 10),
    "resnet-20-dilated-10-late": slice(10, 20),
    "resnet-20-dilated-20": slice(0, 20),
}
# Narrow channels f of each block in units of the width (table 14), or of a quarter of it (table 15).
_BOTTLENECKS = {
    "bottleneck-6": (2,) * 2,
    "bottleneck-9": (2,) * 3,
    "bottleneck-12": (2,) * 4,
    "bottleneck-15": (2,) * 5,
    "bottleneck-21": (2,) * 6 + (3,),
}
_QUARTER_BOTTLENECKS = {
    "bottleneck-quarter-6": (2,) * 2,
    "bottleneck-quarter-12": (2,) * 4,
    "bottleneck-quarter-21": (2,) * 6 + (3,),
    "bottleneck-quarter-30": (2,) * 5 + (3,) * 5,
    "bottleneck-quarter-51": (2,) * 6 + (3,) * 8 + (4,) * 3,
}
_FULLY_CONNECTED = {"fully-connected-2": 2, "fully-connected-4": 4}
_FULLY_CONNECTED_WIDTH = 1024  # of every layer between the crop and the mask


class MaskHead(nn.Module):
    """A body that keeps the resolution, then a 1 x 1 convolution to one logit per cell.

    Attributes:
        size_multiple: the crop size must be a multiple of this.
    """

    def __init__(self, body: nn.Module, out_channels: int, size_multiple: int = 1) -> None:
        super().__init__()
        self.body = body
        self.logits = nn.Conv2d(out_channels, 1, 1)
        self.size_multiple = size_multiple
        init_glorot(self)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S) to (N, S, S) logits."""
        # Channels last is the fastest layout for CPU and GPU convolutions; the numbers are the same.
        logits: Tensor = self.logits(self.body(crops.contiguous(memory_format=torch.channels_last)))
        return logits[:, 0]


class FullyConnectedMaskHead(nn.Module):
    """A 1 x 1 convolution, then fully connected layers from all cells to all cells; for one crop size.

    Kernels of the layers are glorot normal, as the paper states for these heads alone (A.2.2).

    Attributes:
        size_multiple: the crop size itself.
    """

    def __init__(self, in_channels: int, width: int, layers: int, size: int) -> None:
        super().__init__()
        self.size_multiple = size
        self.reduce = nn.Conv2d(in_channels, width, 1)
        init_glorot(self)
        sides = [width * size**2, *[_FULLY_CONNECTED_WIDTH] * (layers - 1), size**2]
        linear = [nn.Linear(a, b) for a, b in itertools.pairwise(sides)]
        self.layers = nn.ModuleList(linear)
        for layer in linear:
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S) to (N, S, S) logits."""
        x = self.reduce(crops).flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        logits: Tensor = self.layers[-1](x).view(len(crops), *crops.shape[-2:])
        return logits


class PreActivationBlock(nn.Module):
    """The residual block of the paper's ResNet heads: ReLU before the sum and none after it.

    Batch norm is the hourglass's (momentum 0.1, eps 1e-5); the published code has 0.01 and 1.001e-5 here.
    """

    def __init__(
        self, in_channels: int, out_channels: int, project: bool, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.norm = BatchNorm(in_channels)
        self.project = nn.Conv2d(in_channels, out_channels, 1) if project else None
        self.branch = nn.Sequential(
            ConvBlock(in_channels, out_channels, dilation=dilations[0]),
            ConvBlock(out_channels, out_channels, dilation=dilations[1]),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, S, S) to (N, out, S, S)."""
        active = F.relu(self.norm(x), inplace=True)
        total: Tensor = self.branch(active) + (x if self.project is None else self.project(active))
        return total


def build_mask_head(
    name: str, in_channels: int, width: int = 64, size: int = 32
) -> MaskHead | FullyConnectedMaskHead:
    """The mask head of that name, with the weights it starts from.

    Args:
        name: one of `MASK_HEADS`.
        in_channels: channels of a crop; 50 in the paper (2 coordinates, 16 pixel, 32 instance embedding).
        width: channels after the first convolution, of which the others are multiples; 64 in the paper.
        size: cells a side of crop and mask; only fully connected heads are made for one size.

    Raises:
        ValueError: an unknown name.
    """
    if name not in _BUILDERS:
        raise ValueError(f"mask head: got {name!r}, expected one of {', '.join(MASK_HEADS)}")
    return _BUILDERS[name](in_channels, width, size)


def _hourglass_head(
    blocks: Sequence[int],
    multiples: Sequence[int],
    in_channels: int,
    width: int,
    _size: int,
    long_skips: bool = True,
    encoder_decoder: bool = True,
) -> MaskHead:
    channels = [width * m for m in multiples]
    body = nn.Sequential(
        ConvBlock(in_channels, width),
        ResidualBlock(width, channels[0], project=True),
        Hourglass(blocks, channels, long_skips, encoder_decoder),
        ConvBlock(channels[0], channels[0]),
    )
    return MaskHead(body, channels[0], 2 ** (len(blocks) - 1) if encoder_decoder else 1)


def _resnet_head(
    multiples: Sequence[int], in_channels: int, width: int, _size: int, dilated: slice = slice(0)
) -> MaskHead:
    channels = [width, *(width * m for m in multiples)]
    dilations = [1] * (2 * len(multiples))
    dilations[dilated] = [2] * len(dilations[dilated])
    blocks = [
        # Every stack, that is every change of multiple, opens with a projection.
        PreActivationBlock(c_in, c_out, i == 0 or c_in != c_out, (dilations[2 * i], dilations[2 * i + 1]))
        for i, (c_in, c_out) in enumerate(itertools.pairwise(channels))
    ]
    return MaskHead(nn.Sequential(nn.Conv2d(in_channels, width, 1), *blocks), channels[-1])


def _bottleneck_head(
    multiples: Sequence[int], quarter: bool, literal: bool, in_channels: int, width: int, _size: int
) -> MaskHead:
    width = width // 4 if quarter else width
    narrow = [width * m for m in multiples]
    if literal:  # as printed: the last block of bottleneck-21 is 192, 384, 192
        wide = [2 * f if m == 3 and not quarter else 4 * f for f, m in zip(narrow, multiples, strict=True)]
        widths = [(f, w, f) for f, w in zip(narrow, wide, strict=True)]
    else:
        widths = [(f, f, 4 * f) for f in narrow]
    ends = [width, *(last for _, _, last in widths)]
    blocks = [BottleneckBlock(c_in, block) for c_in, block in zip(ends[:-1], widths, strict=True)]
    return MaskHead(nn.Sequential(nn.Conv2d(in_channels, width, 1), *blocks), ends[-1])


def _fully_connected_head(layers: int, in_channels: int, width: int, size: int) -> FullyConnectedMaskHead:
    return FullyConnectedMaskHead(in_channels, width, layers, size)


def _builders() -> dict[str, Callable[[int, int, int], MaskHead | FullyConnectedMaskHead]]:
    """Name -> builder from channels in, width and size."""
    found: dict[str, Callable[[int, int, int], MaskHead | FullyConnectedMaskHead]] = {}
    for name, stages in _HOURGLASSES.items():
        found[name] = partial(_hourglass_head, *stages)
        found[f"{name}-no-long-skips"] = partial(_hourglass_head, *stages, long_skips=False)
        found[f"{name}-no-encoder-decoder"] = partial(_hourglass_head, *stages, encoder_decoder=False)
    found |= {name: partial(_resnet_head, multiples) for name, multiples in _RESNETS.items()}
    for name, dilated in _DILATED.items():
        found[name] = partial(_resnet_head, _RESNETS["resnet-20"], dilated=dilated)
    for quarter, family in ((False, _BOTTLENECKS), (True, _QUARTER_BOTTLENECKS)):
        for name, multiples in family.items():
            found[name] = partial(_bottleneck_head, multiples, quarter, False)
            found[f"{name}-literal"] = partial(_bottleneck_head, multiples, quarter, True)
    found |= {name: partial(_fully_connected_head, layers) for name, layers in _FULLY_CONNECTED.items()}
    return found


_BUILDERS = _builders()
MASK_HEADS: tuple[str, ...] = tuple(_BUILDERS)
