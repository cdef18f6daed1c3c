"""Backbones: uint8 RGB images (B, 3, H, W) to a list of stride-4 maps, one per stack.

Each backbone knows the mean and the spread of the pixels it was made for and applies them itself, on the
device. Canvas sides must be multiples of its `canvas_multiple`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn

from deepmac_distill.errors import ConfigError
from deepmac_distill.models.hourglass import (
    ConvBlock,
    Hourglass,
    ResidualBlock,
    init_glorot,
    projection,
)

STRIDE_PX = 4
_STRIDES = (4, 8, 16, 32)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, 0 to 255
# Of the published CenterNet configurations, turned from BGR into RGB.
HOURGLASS_MEAN, HOURGLASS_STD = (119.916596, 114.034223, 104.013626), (70.915071, 69.890821, 73.602767)


class Backbone(nn.Module):
    """What the heads need to know of a backbone.

    Attributes:
        out_channels: channels of every map.
        stacks: maps returned; all are supervised, the last one predicts.
        canvas_multiple: H and W of the images must be multiples of this.
        pretrained_prefix: how the names of those parameters begin that weights of others can fill.
    """

    pretrained_prefix = ""

    def __init__(
        self,
        out_channels: int,
        stacks: int,
        canvas_multiple: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.out_channels, self.stacks, self.canvas_multiple = out_channels, stacks, canvas_multiple
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to float, channels last in memory."""
        multiple = self.canvas_multiple
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
        x = self.stem(self.normalise(images))
        maps = []
        for i, (hourglass, output) in enumerate(zip(self.hourglasses, self.outputs, strict=True)):
            maps.append(output(hourglass(x)))
            if i + 1 < self.stacks:
                x = self.between[i](F.relu(self.from_input[i](x) + self.from_output[i](maps[-1])))
        return maps


class PyramidBackbone(Backbone):
    """A feature extractor and a light top-down path to stride 4 (CenterNet's ResNet-FPN flavour).

    The coarsest map becomes `channels[0]` wide by a 1 x 1 convolution. Then, for each finer map: double
    the resolution, add the finer map through a 1 x 1 convolution, convolve 3 x 3 to the next width.

    Args:
        extractor: normalised images to maps at strides 4, 8, 16 and so on.
        extractor_channels: channels of those maps.
        channels: width of each step, coarsest first; one fewer than maps. The last is also the output's.
        mean, std: of RGB pixels on the scale 0 to 255.
    """

    pretrained_prefix = "extractor."

    def __init__(
        self,
        extractor: nn.Module,
        extractor_channels: Sequence[int],
        channels: Sequence[int] = (256, 128, 64),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        levels = len(extractor_channels)
        if len(channels) != levels - 1:
            raise ValueError(f"channels: got {len(channels)} widths, expected {levels - 1}")
        super().__init__(channels[-1], 1, STRIDE_PX * 2 ** (levels - 1), mean, std)
        *finer, coarsest = extractor_channels
        self.extractor = extractor
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

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) uint8 to one map (B, channels[-1], H / 4, W / 4)."""
        *finer, coarsest = self.extractor(self.normalise(images))
        x = self.top(coarsest)
        for lateral, merge, fine in zip(self.lateral, self.merge, reversed(finer), strict=True):
            x = merge(F.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(fine))
        return [x]


class TinyFeatures(nn.Module):
    """A few convolutions to strides 4, 8 and 16: enough for generated scenes, minutes on two cores."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = (width, 2 * width, 4 * width)
        self.stem = nn.Sequential(ConvBlock(3, width // 2, stride=2), ConvBlock(width // 2, width, stride=2))
        self.fine = ResidualBlock(width, width)
        self.middle = ResidualBlock(width, 2 * width, stride=2)
        self.coarse = ResidualBlock(2 * width, 4 * width, stride=2)
        init_glorot(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to maps at strides 4, 8 and 16."""
        fine = self.fine(self.stem(x))
        middle = self.middle(fine)
        return [fine, middle, self.coarse(middle)]


class ResNetFeatures(nn.Module):
    """The four stages of a torchvision ResNet, with torchvision's parameter names."""

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.channels = tuple(resnet.fc.in_features // 2**i for i in (3, 2, 1, 0))
        for name, part in resnet.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, part)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to maps at strides 4, 8, 16 and 32."""
        maps = [self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))]
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps


def tiny_backbone(width: int) -> PyramidBackbone:
    """The small backbone of the demo: strides 4, 8 and 16, `width` channels out."""
    features = TinyFeatures(width)
    return PyramidBackbone(features, features.channels, (2 * width, width))


def resnet_backbone(name: str, channels: Sequence[int]) -> PyramidBackbone:
    """torchvision's `resnet18` to `resnet152`, without weights.

    Deviation: the published R101 flavour takes BGR minus a mean; this one takes torchvision's RGB.
    """
    features = ResNetFeatures(torchvision.models.get_model(name, weights=None))
    return PyramidBackbone(features, features.channels, channels)


def timm_backbone(
    name: str,
    channels: Sequence[int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> PyramidBackbone:
    """Any timm model with maps at strides 4, 8, 16 and 32, without weights.

    Args:
        name: as timm knows it.
        channels: widths of the top-down path.
        mean, std: of RGB pixels on the scale 0 to 255; timm's for that model where not given.

    Raises:
        ConfigError: timm is not installed, does not know the name, or the model has other strides.
    """
    timm = import_timm()
    if not timm.is_model(name):
        raise ConfigError(
            f"model.backbone: got {name!r}, expected tiny, hourglass-52, hourglass-104, "
            f"resnet18 to resnet152, or the name of a timm model"
        )
    strides = _timm_strides(timm, name)
    if not set(_STRIDES) <= set(strides):
        raise ConfigError(
            f"model.backbone: {name} has strides {strides}, expected 4, 8, 16 and 32 among them"
        )
    indices = [strides.index(stride) for stride in _STRIDES]
    extractor = timm.create_model(name, features_only=True, out_indices=indices)
    own = extractor.pretrained_cfg
    mean = [255 * value for value in own["mean"]] if mean is None else mean
    std = [255 * value for value in own["std"]] if std is None else std
    return PyramidBackbone(extractor, extractor.feature_info.channels(), channels, mean, std)


def import_timm() -> ModuleType:
    """The timm package, imported when it is first needed.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ConfigError(
            "model.backbone: this backbone needs timm; install it with `pip install deepmac-distill[timm]`"
        ) from error


def _timm_strides(timm: ModuleType, name: str) -> list[int]:
    try:
        with torch.device("meta"):
            return timm.create_model(name, features_only=True).feature_info.reduction()
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ConfigError(f"model.backbone: timm's {name} gives no feature maps ({error})") from error
