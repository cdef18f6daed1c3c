"""An exponential moving average of the weights: what is reported instead of the last step's weights."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it by ``average += (1 - d) * (weights - average)`` at each update.

    The first update copies. After n of them d is min(decay, (1 + n) / (10 + n)) (as in TensorFlow's
    ExponentialMovingAverage), so that a short run is not an average with its own random start.
    Batch-norm statistics are averaged like weights.
    """

    def update(average, weights, updates):  # type: ignore[no-untyped-def]  # signature is torch's
        n = int(updates)
        return get_ema_avg_fn(min(decay, (1 + n) / (10 + n)))(average, weights, updates)

    return AveragedModel(model, avg_fn=update, use_buffers=True)
