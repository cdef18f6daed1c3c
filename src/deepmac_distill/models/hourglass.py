"""The hourglass: an encoder-decoder with long skips, used as a mask head and as a backbone.

Deep-MAC, arXiv:2104.00613, Figure 8 and Tables 16-17; the block structure is CornerNet's, arXiv:1808.01244.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.models.blocks import ResidualBlock, residual_stack


class Hourglass(nn.Module):
    """One encoder-decoder: stage s runs at 1 / 2**s of the input's resolution and the last is the bottom.

    Each stage keeps a long skip at its own resolution and adds the decoder's output, upsampled to the
    nearest neighbor. The decoder's blocks run before the upsampling, at the lower resolution.

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
        below: Tensor = self.up(self.inner(self.down(x)))
        if self.factor > 1:
            below = F.interpolate(below, scale_factor=float(self.factor), mode="nearest")
        if self.skip is None:
            return below
        skipped: Tensor = self.skip(x)
        return skipped + below
