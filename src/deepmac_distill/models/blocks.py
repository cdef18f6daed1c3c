"""What the networks are made of: convolution, batch norm and residual blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

MIN_VALUES = 16  # of a channel, for statistics of their own: chosen by benchmarks/batch_norm.py


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where a pass has few values per channel.

    On the 1 x 1 maps of a deep hourglass a pass of two masks has two values per channel. They normalize to
    plus and minus one, whatever they are, and over some layers the gradient grows to 1e10. Deep-MAC's public
    code never meets this: it normalizes over all 100 slots of 128 images.

    That code ran with Keras momentum 0.1, which is 0.9 here and remembers little more than the last batch; it
    was surely meant as torch's 0.1, the value used here.

    Attributes:
        min_values: per channel, over instances and cells; with fewer the running statistics are used.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.min_values = MIN_VALUES

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalized."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] < self.min_values:
            return self._by_running_statistics(x)
        return super().forward(x)

    def _by_running_statistics(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)


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

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        project: bool = False,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            ConvBlock(in_channels, out_channels, stride=stride),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm(out_channels),
            *_dropped(drop_rate),
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


class BottleneckBlock(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut, ReLU after the sum.

    Args:
        in_channels: where they are as many as the last convolution's the shortcut is the input itself.
        widths: channels of the three convolutions.
        drop_rate: how often, in training, an instance skips the convolutions (arXiv:1603.09382).
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int], drop_rate: float = 0.0) -> None:
        super().__init__()
        first, middle, last = widths
        self.branch = nn.Sequential(
            ConvBlock(in_channels, first, kernel=1),
            ConvBlock(first, middle),
            projection(middle, last),
            *_dropped(drop_rate),
        )
        self.shortcut = nn.Identity() if in_channels == last else projection(in_channels, last)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, last, H, W)."""
        return F.relu(self.branch(x) + self.shortcut(x))


def residual_stack(count: int, in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """`count` residual blocks; the first one takes the stride and the change of channels."""
    shapes = [(in_channels, stride), *[(out_channels, 1)] * (count - 1)][:count]
    return nn.Sequential(*(ResidualBlock(c, out_channels, s) for c, s in shapes))


def precise(x: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 where that is what they are in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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


def _dropped(rate: float) -> list[nn.Module]:
    return [StochasticDepth(rate, "row")] if rate else []
