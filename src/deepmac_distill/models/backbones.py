"""Backbones: uint8 RGB images (B, 3, H, W) to what a model's heads read.

CenterNet's heads read stride-4 maps, one per stack (`HourglassBackbone`, `PyramidBackbone`); Mask R-CNN's
read maps of several strides (`MultiScaleBackbone`). Each backbone knows
the mean and the spread of the pixels it was made for and applies them itself, on the device. Canvas sides
must be multiples of its `size_divisibility`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from deepmac_distill.models.blocks import (
    ConvBlock,
    ResidualBlock,
    init_glorot,
    projection,
)
from deepmac_distill.models.hourglass import Hourglass

STRIDE_PX = 4
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, 0 to 255
# Of the published CenterNet configurations, turned from BGR into RGB.
HOURGLASS_MEAN, HOURGLASS_STD = (119.916596, 114.034223, 104.013626), (70.915071, 69.890821, 73.602767)


@dataclass(frozen=True, slots=True)
class Extractor:
    """A module from normalized images (B, 3, H, W) to maps at strides 4, 8, 16 and so on."""

    module: nn.Module
    channels: tuple[int, ...]  # of its maps, finest first
    mean: Sequence[float] = IMAGENET_MEAN  # of RGB pixels on the scale 0 to 255
    std: Sequence[float] = IMAGENET_STD
    size_divisibility: int = 0  # of the images' sides; 0: the stride of the coarsest map

    @property
    def multiple(self) -> int:
        """What the images' sides must be multiples of."""
        return self.size_divisibility or STRIDE_PX * 2 ** (len(self.channels) - 1)


class Backbone(nn.Module):
    """What the heads need to know of a backbone.

    Attributes:
        out_channels: channels of every map.
        stacks: predictions made; all are supervised, the last one counts.
        size_divisibility: H and W of the images must be multiples of this.
    """

    def __init__(
        self,
        out_channels: int,
        stacks: int,
        size_divisibility: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.out_channels, self.stacks, self.size_divisibility = out_channels, stacks, size_divisibility
        self.mean = nn.Buffer(torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(std).view(3, 1, 1), persistent=False)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Those that others' weights can fill."""
        return self.parameters()

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to float, channels last in memory."""
        multiple = self.size_divisibility
        if images.shape[-2] % multiple or images.shape[-1] % multiple:
            raise ValueError(f"images: got {tuple(images.shape[-2:])}, expected multiples of {multiple}")
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class HourglassBackbone(Backbone):
    """CornerNet's stacked hourglasses, as in CenterNet and Deep-MAC.

    One stack is Hourglass-52, two are Hourglass-104. The paper is silent on the width of its
    Hourglass-52; its code has a helper at half width (`width=128`), here the default is the full one.

    Args:
        stacks: hourglasses in a row.
        width: channels of the stride-4 maps; 256 in the paper. A multiple of 4.
    """

    def __init__(self, stacks: int, width: int = 256) -> None:
        super().__init__(width, stacks, STRIDE_PX * 2**5, HOURGLASS_MEAN, HOURGLASS_STD)
        channels = [width * m // 2 for m in (2, 2, 3, 3, 3, 4)]
        self.stem = nn.Sequential(
            ConvBlock(3, width // 2, kernel=7, stride=2), ResidualBlock(width // 2, width, stride=2)
        )
        self.hourglasses = nn.ModuleList(Hourglass((2, 2, 2, 2, 2, 4), channels) for _ in range(stacks))
        self.outputs = nn.ModuleList(ConvBlock(width, width) for _ in range(stacks))
        self.from_input = nn.ModuleList(projection(width, width) for _ in range(stacks - 1))
        self.from_output = nn.ModuleList(projection(width, width) for _ in range(stacks - 1))
        self.between = nn.ModuleList(ResidualBlock(width, width) for _ in range(stacks - 1))
        init_glorot(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) uint8 to `stacks` maps (B, width, H / 4, W / 4)."""
        return self.maps(self.normalize(images))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The same from normalized images."""
        x = self.stem(x)
        maps = []
        for i, (hourglass, output) in enumerate(zip(self.hourglasses, self.outputs, strict=True)):
            maps.append(output(hourglass(x)))
            if i + 1 < self.stacks:
                x = self.between[i](F.relu(self.from_input[i](x) + self.from_output[i](maps[-1])))
        return maps


class PyramidBackbone(Backbone):
    """A feature extractor and a light top-down path to stride 4 (CenterNet's ResNet-FPN flavor).

    The coarsest map becomes `channels[0]` wide by a 1 x 1 convolution. Then, for each finer map: double
    the resolution, add the finer map through a 1 x 1 convolution, convolve 3 x 3 to the next width.

    Args:
        extractor: the maps it stands on.
        channels: width of each step, coarsest first; one fewer than maps. The last is also the output's.
    """

    def __init__(self, extractor: Extractor, channels: Sequence[int] = (256, 128, 64)) -> None:
        levels = len(extractor.channels)
        if len(channels) != levels - 1:
            raise ValueError(f"channels: got {len(channels)} widths, expected {levels - 1}")
        super().__init__(channels[-1], 1, extractor.multiple, extractor.mean, extractor.std)
        *finer, coarsest = extractor.channels
        self.extractor = extractor.module
        self.top = nn.Conv2d(coarsest, channels[0], 1)
        self.lateral = nn.ModuleList(
            nn.Conv2d(c, width, 1) for c, width in zip(reversed(finer), channels, strict=True)
        )
        self.merge = nn.ModuleList(
            ConvBlock(width, after)
            for width, after in zip(channels, (*channels[1:], channels[-1]), strict=True)
        )
        for part in (self.top, self.lateral, self.merge):
            init_glorot(part)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """The extractor's."""
        return self.extractor.parameters()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) uint8 to one map (B, channels[-1], H / 4, W / 4)."""
        *finer, coarsest = self.extractor(self.normalize(images))
        x = self.top(coarsest)
        for lateral, merge, fine in zip(self.lateral, self.merge, reversed(finer), strict=True):
            x = merge(F.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(fine))
        return [x]


class MultiScaleBackbone(Backbone):
    """A backbone that gives maps of several strides, by name.

    Attributes:
        levels: names of its maps, finest first.
        crop_levels: those of them that boxes are cropped from.
    """

    levels: tuple[str, ...] = ()
    crop_levels: tuple[str, ...] = ()


class FpnBackbone(MultiScaleBackbone):
    """torchvision's feature pyramid on an extractor, and one coarser level by subsampling."""

    def __init__(self, extractor: Extractor, channels: int = 256) -> None:
        super().__init__(channels, 1, extractor.multiple, extractor.mean, extractor.std)
        self.crop_levels = tuple(str(level) for level in range(len(extractor.channels)))
        self.levels = (*self.crop_levels, "pool")
        self.extractor = extractor.module
        self.pyramid = FeaturePyramidNetwork(list(extractor.channels), channels, LastLevelMaxPool())

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """The extractor's."""
        return self.extractor.parameters()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) uint8 to maps (B, channels, H / s, W / s) for s = 4, 8, ... of `levels`."""
        maps = self.extractor(self.normalize(images))
        pyramid: dict[str, Tensor] = self.pyramid(dict(zip(self.crop_levels, maps, strict=True)))
        return pyramid


def parameter_groups(
    model: nn.Module, backbone: Backbone
) -> dict[Literal["pretrained", "new"], list[nn.Parameter]]:
    """All parameters of a model: those of its backbone that others' weights can fill, and the rest."""
    pretrained = list(backbone.pretrained_parameters())
    theirs = set(map(id, pretrained))
    return {"pretrained": pretrained, "new": [p for p in model.parameters() if id(p) not in theirs]}
