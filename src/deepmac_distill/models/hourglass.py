"""The hourglass: an encoder-decoder with long skips, used as a mask head and as a backbone.

Deep-MAC, arXiv:2104.00613, Figure 8 and Tables 16-17; the block structure is CornerNet's, arXiv:1808.01244.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that falls back on its running statistics where a batch has one value per channel.

    A 1 x 1 map of a single instance has no variance, and torch refuses it. The published code ran
    with Keras momentum 0.1, which is 0.9 here and remembers little more than the last batch; it was
    surely meant as torch's 0.1, the value used here.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ConvBlock(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; the map keeps its size at stride 1."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, dilation: int = 1
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False),
            BatchNorm(out_channels),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, ReLU after the sum.

    The shortcut is a 1 x 1 convolution where the shape changes, or where `project` asks for one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            ConvBlock(in_channels, out_channels, stride=stride),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm(out_channels),
        )
        self.stride = stride
        self.shortcut = (
            projection(in_channels, out_channels)
            if project or stride > 1 or in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H / stride, W / stride)."""
        # Not a 1 x 1 convolution with a stride: channels last, and with fewer channels in than a vector
        # register holds, oneDNN's backward pass writes past its buffer (uxlfoundation/oneDNN issue 6035).
        every = x[:, :, :: self.stride, :: self.stride]
        return F.relu(self.branch(x).add_(self.shortcut(every)), inplace=True)


class Hourglass(nn.Module):
    """One encoder-decoder: stage s runs at 1 / 2**s of the input's resolution and the last is the bottom.

    Each stage keeps a long skip at its own resolution and adds the decoder's output, upsampled to the
    nearest neighbour. The decoder's blocks run before the upsampling, at the lower resolution.

    Args:
        blocks: residual blocks per stage, at least two stages.
        channels: channels per stage; input and output have the first.
        long_skips: without them a stage is what comes up from below alone (No LRS of Table 5).
        encoder_decoder: without it every stage runs at the input's resolution (No ED of Table 5).
    """

    def __init__(
        self,
        blocks: Sequence[int],
        channels: Sequence[int],
        long_skips: bool = True,
        encoder_decoder: bool = True,
    ) -> None:
        super().__init__()
        count, (here, below) = blocks[0], channels[:2]
        self.factor = 2 if encoder_decoder else 1
        self.skip = residual_stack(count, here, here) if long_skips else None
        self.down = residual_stack(count, here, below, stride=self.factor)
        self.inner = (
            Hourglass(blocks[1:], channels[1:], long_skips, encoder_decoder)
            if len(blocks) > 2
            else residual_stack(blocks[1], below, below)
        )
        self.up = nn.Sequential(residual_stack(count - 1, below, below), ResidualBlock(below, here))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; H and W are multiples of 2 ** (stages - 1), or of 1."""
        below = self.up(self.inner(self.down(x)))
        if self.factor > 1:
            below = F.interpolate(below, scale_factor=float(self.factor), mode="nearest")
        return below if self.skip is None else self.skip(x) + below


def residual_stack(count: int, in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """`count` residual blocks; the first one takes the stride and the change of channels."""
    shapes = [(in_channels, stride), *[(out_channels, 1)] * (count - 1)][:count]
    return nn.Sequential(*(ResidualBlock(c, out_channels, s) for c, s in shapes))


def projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """1 x 1 convolution without bias and batch norm."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), BatchNorm(out_channels))


def init_glorot(module: nn.Module) -> None:
    """Glorot uniform kernels and zero biases in every convolution: the defaults of the published code."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
