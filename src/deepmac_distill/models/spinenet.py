"""SpineNet (arXiv:1912.05027): a backbone whose stages come in a searched order of scales.

Deviations from the published code: batch norm and initial kernels are torch's (momentum 0.1, eps 1e-5,
He normal); strided convolutions pad both sides alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.models.backbones import MultiScaleBackbone
from deepmac_distill.models.blocks import BottleneckBlock, ConvBlock, ResidualBlock, projection

_CHANNELS = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}  # of a level; four times as many in a bottleneck
_STEM_STAGES = 2  # bottlenecks at level 2 that the searched ones start from


@dataclass(frozen=True, slots=True)
class Stage:
    """One searched stage: its level, its kind of block, and which two earlier stages it sums."""

    level: int
    bottleneck: bool
    parents: tuple[int, int]  # 0 and 1 are the stem's
    output: bool = False

    @property
    def channels(self) -> int:
        """Of the stage's output."""
        return _CHANNELS[self.level] * (4 if self.bottleneck else 1)


_STEM = Stage(2, True, (0, 0))
_SEARCHED = (  # figure 3 and table 1
    Stage(2, True, (0, 1)),
    Stage(4, False, (0, 1)),
    Stage(3, True, (2, 3)),
    Stage(4, True, (2, 4)),
    Stage(6, False, (3, 5)),
    Stage(4, True, (3, 5)),
    Stage(5, False, (6, 7)),
    Stage(7, False, (6, 8)),
    Stage(5, True, (8, 9)),
    Stage(5, True, (8, 10)),
    Stage(4, True, (5, 10), output=True),
    Stage(3, True, (4, 10), output=True),
    Stage(5, True, (7, 12), output=True),
    Stage(7, True, (5, 14), output=True),
    Stage(6, True, (12, 14), output=True),
)
# Blocks per stage, and the share of channels that a connection keeps.
SPINENETS = {"spinenet-49": (1, 0.5), "spinenet-96": (2, 0.5), "spinenet-143": (3, 1.0)}


class SpineNet(nn.Module):
    """Normalized images to maps of 256 channels at levels 3 to 7.

    Args:
        repeats: blocks per stage.
        resample_share: of a parent's (narrow) channels that its connections keep.
        out_channels: of every map.
        drop_rate: stochastic depth of the last stage, falling linearly towards the first; 0.2 in Deep-MARC.
    """

    def __init__(
        self, repeats: int, resample_share: float, out_channels: int = 256, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        stages = (_STEM,) * _STEM_STAGES + _SEARCHED
        self.stem = ConvBlock(3, 64, kernel=7, stride=2)
        self.stem_stages = nn.ModuleList(
            _blocks(_STEM, 64 if i == 0 else _STEM.channels, repeats) for i in range(_STEM_STAGES)
        )
        self.stages = nn.ModuleList(
            _blocks(stage, stage.channels, repeats, drop_rate * i / len(_SEARCHED))
            for i, stage in enumerate(_SEARCHED, start=1)
        )
        self.connections = nn.ModuleList(Connections(stage, stages, resample_share) for stage in _SEARCHED)
        self.dangling = _dangling(stages)
        self.outputs = nn.ModuleList(
            ConvBlock(stage.channels, out_channels, kernel=1) for stage in _SEARCHED if stage.output
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), sides multiples of 128, to maps (B, out, H / 2**k, W / 2**k) for k = 3 to 7."""
        x = F.max_pool2d(self.stem(x), 3, stride=2, padding=1)
        maps: list[Tensor] = []
        for stem_stage in self.stem_stages:
            x = stem_stage(x)
            maps.append(x)
        for stage, blocks, connections, dangling in zip(
            _SEARCHED, self.stages, self.connections, self.dangling, strict=True
        ):
            parents = connections([maps[p] for p in stage.parents])
            maps.append(blocks(F.relu(sum(parents + [maps[i] for i in dangling]))))
        found = [(s.level, maps[_STEM_STAGES + i]) for i, s in enumerate(_SEARCHED) if s.output]
        outputs = [(level, output(x)) for (level, x), output in zip(found, self.outputs, strict=True)]
        return [x for _, x in sorted(outputs, key=lambda entry: entry[0])]


class SpineNetBackbone(MultiScaleBackbone):
    """SpineNet under the heads of Mask R-CNN: maps "3" to "7" of strides 8 to 128."""

    def __init__(self, name: str, channels: int = 256, drop_rate: float = 0.0) -> None:
        super().__init__(channels, stacks=1, size_divisibility=128)
        self.spinenet = SpineNet(*SPINENETS[name], channels, drop_rate)
        self.levels = self.crop_levels = tuple("34567")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) uint8 to maps (B, channels, H / 2**k, W / 2**k) under the name k."""
        return dict(zip(self.levels, self.spinenet(self.normalize(images)), strict=True))


class Resample(nn.Module):
    """One connection: fewer channels, the child's resolution, the child's channels."""

    def __init__(self, parent: Stage, child: Stage, share: float) -> None:
        super().__init__()
        kept = int(_CHANNELS[parent.level] * share)
        steps = child.level - parent.level
        self.reduce = ConvBlock(parent.channels, kept, kernel=1)
        self.stride = ConvBlock(kept, kept, stride=2) if steps > 0 else None
        self.poolings, self.upsampling = max(steps - 1, 0), 2.0 ** max(-steps, 0)
        self.expand = projection(kept, child.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of the parent to what the child sums."""
        x = self.reduce(x)
        if self.stride is not None:
            x = self.stride(x)
        for _ in range(self.poolings):
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        if self.upsampling > 1:
            x = F.interpolate(x, scale_factor=self.upsampling, mode="nearest")
        expanded: Tensor = self.expand(x)
        return expanded


class Connections(nn.ModuleList):
    """The two connections of a searched stage."""

    def __init__(self, stage: Stage, stages: Sequence[Stage], share: float) -> None:
        super().__init__(Resample(stages[parent], stage, share) for parent in stage.parents)

    def forward(self, parents: Sequence[Tensor]) -> list[Tensor]:
        """The maps of the two parents to what the stage sums."""
        return [connect(x) for connect, x in zip(self, parents, strict=True)]


def _blocks(stage: Stage, in_channels: int, repeats: int, drop_rate: float = 0.0) -> nn.Sequential:
    narrow = _CHANNELS[stage.level]
    ends = [in_channels, *[stage.channels] * (repeats - 1)]
    if stage.bottleneck:
        widths = (narrow, narrow, stage.channels)
        return nn.Sequential(*(BottleneckBlock(c, widths, drop_rate) for c in ends))
    return nn.Sequential(*(ResidualBlock(c, narrow, drop_rate=drop_rate) for c in ends))


def _dangling(stages: Sequence[Stage]) -> list[list[int]]:
    """For each searched stage, the earlier ones of its shape that nobody uses: an output sums them too."""
    used: set[int] = set()
    found: list[list[int]] = []
    for i, stage in enumerate(stages[_STEM_STAGES:], start=_STEM_STAGES):
        used |= set(stage.parents)
        shape = (stage.level, stage.channels)
        alike = [j for j, other in enumerate(stages[:i]) if (other.level, other.channels) == shape]
        found.append([j for j in alike if stage.output and j not in used])
        used |= set(found[-1])
    return found
