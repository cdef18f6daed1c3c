"""Mask heads of a region that learn from more than the mask: each has losses of its own beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn


class GuidedMaskHead(nn.Module, ABC):
    """(N, C, S, S) crops to (N, 1, 2S, 2S) logits of a mask for all classes.

    Attributes:
        loss_names: of the losses beside that of the mask.
    """

    loss_names: tuple[str, ...]

    @abstractmethod
    def learn(self, crops: Tensor, masks: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and the other losses of each instance, weighted.

        Args:
            crops: (N, C, S, S).
            masks: (N, 2S, 2S) coverage in [0, 1], what is to be found.

        Returns:
            (N, 1, 2S, 2S) logits, and name -> (N,).
        """


def halved(masks: Tensor) -> Tensor:
    """(N, 2S, 2S) coverage on half as many cells a side: (N, S, S)."""
    return F.avg_pool2d(masks[:, None], 2)[:, 0]


def cross_entropy_of_each(logits: Tensor, masks: Tensor) -> Tensor:
    """(N, S, S) logits against coverage in [0, 1]: (N,) means over cells."""
    each = F.binary_cross_entropy_with_logits(logits.float(), masks.float(), reduction="none")
    return each.mean(dim=(1, 2))
