"""Activations that are computed again in the backward pass instead of kept: less memory, more time.

Of each residual block only the input is kept (Chen et al., arXiv:1604.06174, one segment a block).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck

from deepmac_distill.models.blocks import BottleneckBlock, ResidualBlock
from deepmac_distill.models.mask_heads import PreActivationBlock
from deepmac_distill.models.synchronized import SynchronizedBatchNorm

_BLOCKS = (ResidualBlock, BottleneckBlock, PreActivationBlock, BasicBlock, Bottleneck)
_NORMS = (nn.BatchNorm2d, SynchronizedBatchNorm)


def recompute_blocks(model: nn.Module) -> int:
    """Have all residual blocks of ours and of torchvision computed again; returns how many there are.

    Blocks of timm are left as they are. Numbers stay the same to the bit: statistics of batch norm move once.
    """
    blocks = [part for part in model.modules() if isinstance(part, _BLOCKS)]
    for block in blocks:
        vars(block)["forward"] = _Recomputed(block)  # in place of the method, for this block alone
    return len(blocks)


class _Recomputed:
    """The forward method of a block; a copy of the block has one of its own."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, x: Tensor) -> Tensor:
        forward = type(self.block).forward
        if not torch.is_grad_enabled():
            plain: Tensor = forward(self.block, x)
            return plain
        found: Tensor = checkpoint(forward, self.block, x, use_reentrant=False, context_fn=self._contexts)
        return found

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _keeping_statistics(self.block)


@contextmanager
def _keeping_statistics(block: nn.Module) -> Iterator[None]:
    """With a momentum of zero a pass leaves running statistics as they are, to the bit."""
    norms = [part for part in block.modules() if isinstance(part, _NORMS)]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    before = [None if count is None else count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count, old in zip(norms, momenta, counts, before, strict=True):
            norm.momentum = momentum
            if count is not None and old is not None:
                count.copy_(old)
