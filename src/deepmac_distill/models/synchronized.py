"""Batch norm over the values of all processes that train together, on every device.

torch's own SyncBatchNorm takes no tensors of the CPU and has no law for few values (see `models.blocks`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.models.blocks import BatchNorm
from deepmac_distill.ranks import Ranks

_EACH = (0, 2, 3)  # dimensions of the values of a channel
_WIDE = (None, slice(None), None, None)  # (C,) beside (N, C, H, W)


class SynchronizedBatchNorm(nn.Module):
    """What a batch norm does, with the statistics of all processes; its tensors are those of the norm.

    Means and variances are combined by Chan's formula in double precision, in the order of the ranks, so that
    all processes hold the same running statistics to the bit. A process may have no values at all.

    Args:
        norm: what it takes the place of. timm's adds `drop` and `act`, which follow the norm.
        ranks: the processes.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d, ranks: Ranks) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum, self.ranks = norm.eps, norm.momentum, ranks
        self.min_values = norm.min_values if isinstance(norm, BatchNorm) else 0
        self.drop: nn.Module | None = getattr(norm, "drop", None)
        self.act: nn.Module | None = getattr(norm, "act", None)
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalized."""
        if self.training:
            normal = self._of_all(x)
        else:
            normal = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        for part in (self.drop, self.act):
            normal = normal if part is None else part(normal)
        return normal

    def _of_all(self, x: Tensor) -> Tensor:
        running = (self.running_mean, self.running_var)
        mean, variance, count = _statistics(x.detach(), self.ranks)
        few = count < self.min_values
        used = [torch.where(few, old, new) for old, new in zip(running, (mean, variance), strict=True)]
        with torch.no_grad():
            share = (~few).to(mean.dtype) * (self.momentum or 0.0)
            unbiased = variance * (count / (count - 1).clamp(min=1)).to(variance.dtype)
            for old, new in zip(running, (mean, unbiased), strict=True):
                old.copy_(torch.where(few, old, (1 - share) * old + share * new))
            self.num_batches_tracked += ~few
        weight = torch.where(few, 0.0, 1 / count.clamp(min=1)).to(mean.dtype)  # of a value in the statistics
        normal: Tensor = _Normalize.apply(x, self.weight, self.bias, *used, weight, self.eps, self.ranks)
        return normal


class _Normalize(torch.autograd.Function):
    """Normalize by given statistics, which are those of all values: the gradient reaches every process."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        share: Tensor,
        eps: float,
        ranks: Ranks,
    ) -> Tensor:
        """Args:
        share: () of each value in the statistics; 0 where they are not of these values.
        """
        ctx.save_for_backward(x, weight, mean, variance, share)
        ctx.eps, ctx.ranks = eps, ranks
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps) if x.numel() else x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias; the last two of the values of this process alone."""
        x, weight, mean, variance, share = ctx.saved_tensors
        (grad,) = grads
        scale = torch.rsqrt(variance + ctx.eps)
        if x.numel():
            direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        else:
            direct, of_weight, of_bias = grad, torch.zeros_like(mean), torch.zeros_like(mean)
        sums = torch.stack((of_bias, of_weight))  # of the gradient, and of it times the normalized values
        ctx.ranks.add(sums)
        outer = scale * share if weight is None else weight * scale * share
        slope = (outer * sums[1] * scale)[_WIDE]
        through = (x - mean[_WIDE]) * slope + (outer * sums[0])[_WIDE]
        of_x = (direct - through).to(x.dtype)
        trained = (None, None) if weight is None else (of_weight, of_bias)
        return of_x, *trained, None, None, None, None, None


def synchronize(model: nn.Module, ranks: Ranks) -> None:
    """Put a synchronized batch norm in the place of each of a model's, where there are several processes.

    Parameters, buffers and the names of both stay.
    """
    if ranks.world == 1:
        return
    for part in list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, SynchronizedBatchNorm(child, ranks))


def _statistics(x: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """(C,) mean and (C,) biased variance of each channel over all processes, and () its number of values."""
    channels = x.shape[1]
    precise = torch.promote_types(x.dtype, torch.float32)
    count = x.numel() // channels
    own = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
    if count:
        variance, mean = torch.var_mean(x.to(precise), dim=_EACH, correction=0)
        own[:channels], own[channels:-1], own[-1] = mean, variance, count
    every = ranks.gather(own)  # (world, 2 C + 1)
    means, variances, counts = every[:, :channels], every[:, channels:-1], every[:, -1:]
    total = counts.sum()
    mean = (means * counts).sum(0) / total.clamp(min=1)
    variance = ((variances + (means - mean).square()) * counts).sum(0) / total.clamp(min=1)
    return mean.to(precise), variance.to(precise), total
