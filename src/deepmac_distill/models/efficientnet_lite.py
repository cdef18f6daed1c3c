"""EfficientNet-Lite: EfficientNet (arXiv:1905.11946) without squeeze-and-excitation, with ReLU6.

A trained teacher on this backbone works without timm. Names, order and initial values of the tensors are
timm's, so weights files and seeds give what they gave with it.

Deviation: Google's code pads to "same" at any size; here the sides are even before every stride, which makes
the padding a constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

_BATCH_NORM_EPS = 1e-3  # TensorFlow's
_STEM_CHANNELS = 32
_MAPS = (1, 2, 4, 6)  # stages whose outputs are the maps of strides 4, 8, 16 and 32


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one width; the first one takes the stride and the change of channels."""

    expansion: int  # of the channels inside a block
    channels: int
    blocks: int
    stride: int
    kernel: int


_STAGES = (  # table 1 of the paper
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


class EfficientNetLite0(nn.Module):
    """The features of EfficientNet-Lite0, without its classifier.

    Attributes:
        channels: of its maps, finest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels = tuple(_STAGES[index].channels for index in _MAPS)
        self.conv_stem = SameConv(3, _STEM_CHANNELS, 3, stride=2)
        self.bn1 = _batch_norm(_STEM_CHANNELS)
        for _ in range(2):  # timm draws two such, unused: a seed gives the heads the values it gave before
            nn.Conv2d(8, 8, 1)
        before = (_STEM_CHANNELS, *(stage.channels for stage in _STAGES))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(*_blocks(channels, stage))
                for channels, stage in zip(before[:-1], _STAGES, strict=True)
            )
        )
        for conv in (part for part in self.modules() if isinstance(part, nn.Conv2d)):
            fan_out = conv.weight[0, 0].numel() * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, 0.0, math.sqrt(2.0 / fan_out))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), sides multiples of 32, to maps at strides 4, 8, 16 and 32."""
        x = F.relu6(self.bn1(self.conv_stem(x)), inplace=True)
        maps = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in _MAPS:
                maps.append(x)
        return maps


class SameConv(nn.Conv2d):
    """A convolution without bias on even sides that divides them by its stride, padded as TensorFlow does.

    With a stride of 2 the longer half of the padding is at the bottom and on the right.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        both = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride, both, groups=groups, bias=False)
        total = kernel - stride
        self.pads = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H / stride, W / stride)."""
        return super().forward(x if self.stride[0] == 1 else F.pad(x, self.pads))


class DepthwiseBlock(nn.Module):
    """A depthwise and a pointwise convolution: the first stage's block, which expands nothing."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = SameConv(in_channels, in_channels, kernel, groups=in_channels)
        self.bn1 = _batch_norm(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = _batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H, W)."""
        x = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        return self.bn2(self.conv_pw(x))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Pointwise up, depthwise, pointwise down; a shortcut where the shape stays (arXiv:1801.04381)."""

    def __init__(self, in_channels: int, out_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inside = in_channels * stage.expansion
        self.conv_pw = nn.Conv2d(in_channels, inside, 1, bias=False)
        self.bn1 = _batch_norm(inside)
        self.conv_dw = SameConv(inside, inside, stage.kernel, stride, groups=inside)
        self.bn2 = _batch_norm(inside)
        self.conv_pwl = nn.Conv2d(inside, out_channels, 1, bias=False)
        self.bn3 = _batch_norm(out_channels)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H / stride, W / stride)."""
        inside = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        inside = F.relu6(self.bn2(self.conv_dw(inside)), inplace=True)
        out: Tensor = self.bn3(self.conv_pwl(inside))
        return out + x if self.shortcut else out


def _blocks(in_channels: int, stage: Stage) -> Iterator[nn.Module]:
    if stage.expansion == 1:
        yield DepthwiseBlock(in_channels, stage.channels, stage.kernel)
        return
    yield InvertedResidual(in_channels, stage.channels, stage, stage.stride)
    for _ in range(stage.blocks - 1):
        yield InvertedResidual(stage.channels, stage.channels, stage, 1)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS)
