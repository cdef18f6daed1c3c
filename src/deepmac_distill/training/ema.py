"""An exponential moving average of the weights, which training returns instead of the last step's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it by ``average += (1 - d) * (weights - average)`` at each update.

    The first update copies. After n of them d is min(decay, (1 + n) / (10 + n)) (as in TensorFlow's
    ExponentialMovingAverage), so that a short run is not an average with its own random start.
    Batch-norm statistics are averaged like weights.
    """

    @torch.no_grad()
    def update(average: Tensor, weights: Tensor, updates: Tensor | int) -> Tensor:
        n = int(updates)
        kept = min(decay, (1 + n) / (10 + n))
        return kept * average + (1 - kept) * weights

    return AveragedModel(model, avg_fn=update, use_buffers=True)
