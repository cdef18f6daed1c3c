"""Extractors: what others have designed, as maps at strides 4, 8, 16 (and 32) for a backbone to stand on."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn
from torchvision.models import ResNet

from deepmac_distill.errors import ConfigError
from deepmac_distill.models.backbones import (
    HOURGLASS_MEAN,
    HOURGLASS_STD,
    Extractor,
    HourglassBackbone,
)
from deepmac_distill.models.blocks import ConvBlock, ResidualBlock, init_glorot

_STRIDES = (4, 8, 16, 32)


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

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.channels = tuple(resnet.fc.in_features // 2**i for i in (3, 2, 1, 0))
        for name, part in resnet.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, part)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to maps at strides 4, 8, 16 and 32."""
        for name in ("conv1", "bn1", "relu", "maxpool"):
            x = self.get_submodule(name)(x)
        maps = [self.get_submodule("layer1")(x)]
        for name in ("layer2", "layer3", "layer4"):
            maps.append(self.get_submodule(name)(maps[-1]))
        return maps


class HourglassFeatures(nn.Module):
    """The last map of a stacked hourglass, and three coarser ones by max pooling.

    Ours: the hourglass has one map, and Mask R-CNN needs several.
    """

    def __init__(self, hourglass: HourglassBackbone) -> None:
        super().__init__()
        self.hourglass = hourglass

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to maps at strides 4, 8, 16 and 32."""
        maps = [self.hourglass.maps(x)[-1]]
        for _ in _STRIDES[1:]:
            maps.append(F.max_pool2d(maps[-1], 2))
        return maps


def tiny_extractor(width: int) -> Extractor:
    """The small features of the demo: strides 4, 8 and 16, from `width` channels up."""
    features = TinyFeatures(width)
    return Extractor(features, features.channels)


def hourglass_extractor(stacks: int, width: int) -> Extractor:
    """A stacked hourglass, seen as maps of four strides."""
    backbone = HourglassBackbone(stacks, width)
    channels = (width,) * len(_STRIDES)
    return Extractor(
        HourglassFeatures(backbone), channels, HOURGLASS_MEAN, HOURGLASS_STD, backbone.size_divisibility
    )


def resnet_extractor(name: str) -> Extractor:
    """torchvision's `resnet18` to `resnet152`, without weights.

    Deviation: the published R101 flavor takes BGR minus a mean; this one takes torchvision's RGB.
    """
    features = ResNetFeatures(torchvision.models.get_model(name, weights=None))
    return Extractor(features, features.channels)


def timm_extractor(
    name: str, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Extractor:
    """Any timm model with maps at strides 4, 8, 16 and 32, without weights.

    Args:
        name: as timm knows it.
        mean, std: of RGB pixels on the scale 0 to 255; timm's for that model where not given.

    Raises:
        ConfigError: timm does not know the name, or the model has other strides.
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
    features = timm.create_model(name, features_only=True, out_indices=indices)
    own = features.pretrained_cfg
    mean = [255 * value for value in own["mean"]] if mean is None else mean
    std = [255 * value for value in own["std"]] if std is None else std
    return Extractor(features, tuple(features.feature_info.channels()), mean, std)


def import_timm() -> ModuleType:
    """timm, imported when it is first needed: that takes a second, and most models do without."""
    return importlib.import_module("timm")


def _timm_strides(timm: ModuleType, name: str) -> list[int]:
    try:
        with torch.device("meta"):
            return list(timm.create_model(name, features_only=True).feature_info.reduction())
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ConfigError(f"model.backbone: timm's {name} gives no feature maps ({error})") from error
