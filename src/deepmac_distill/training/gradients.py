"""The gradient of one optimizer step: that of all passes of all processes, as if they were one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from deepmac_distill.errors import DivergedError
from deepmac_distill.ranks import Ranks
from deepmac_distill.structures import LOSS_UNITS, Batch, LossUnit
from deepmac_distill.training.precision import Precision

_BUCKET_BYTES = 64 * 2**20  # summed over the processes at once


def accumulate_gradients(
    model: nn.Module,
    batches: Iterator[Batch],
    passes: int,
    precision: Precision,
    ranks: Ranks,
    step: int,
) -> dict[str, float]:
    """Leave the gradient in the parameters; returns the losses, the part of this process of each.

    The batches are drawn first: what a pass weighs depends on what all others hold.

    Raises:
        DivergedError: a loss is not finite.
    """
    drawn = [next(batches) for _ in range(passes)]
    units: Mapping[str, LossUnit] = getattr(model, "loss_units", {})
    counts = _counts(drawn, ranks)
    step_losses: dict[str, float] = {}
    for batch, masks in zip(drawn, counts["masks"], strict=True):
        # One process stands in for the masks that no process has: the one whose image comes first.
        batch = replace(batch, placeholder=ranks.leads and (ranks.world == 1 or masks == 0))
        with precision.autocast():
            losses: dict[str, Tensor] = model(batch.to(precision.device))
        shares = {
            name: loss * _share(batch, counts, units.get(name, "images")) for name, loss in losses.items()
        }
        total = torch.stack(list(shares.values())).sum()
        if not total.isfinite():
            terms = ", ".join(f"{name} {float(loss.detach()):g}" for name, loss in losses.items())
            raise DivergedError(f"step {step}: loss is not finite: {terms}; expected finite; try a lower lr")
        torch.autograd.backward(precision.scaler.scale(total))
        for name, share in shares.items():
            step_losses[name] = step_losses.get(name, 0.0) + float(share.detach())
    sum_gradients(list(model.parameters()), ranks)
    return step_losses


def sum_gradients(parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """Turn the gradient of each parameter into the sum over all processes.

    Whatever has a gradient in one process has one in all of them afterwards; a parameter that no pass used
    has none, so that an optimizer leaves it alone. Gradients travel together, in buckets of one dtype.
    """
    if ranks.world == 1:
        return
    has = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
    used = ranks.gather(has).any(dim=0).tolist()
    bucket: list[Tensor] = []
    for parameter, is_used in zip(parameters, used, strict=True):
        if not is_used:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        grad = parameter.grad
        if bucket and (
            sum(some.nbytes for some in bucket) + grad.nbytes > _BUCKET_BYTES or grad.dtype != bucket[0].dtype
        ):
            _sum_bucket(bucket, ranks)
            bucket = []
        bucket.append(grad)
    if bucket:
        _sum_bucket(bucket, ranks)


def limit_gradient(model: nn.Module, max_norm: float, step: int, scaled: bool = False) -> float:
    """Clip the gradient to `max_norm`, if that is above 0; returns the norm that it had.

    Args:
        scaled: it is that of scaled losses, so that a step may be skipped: its norm counts as 0.

    Raises:
        DivergedError: it is not finite, so that the step would destroy the weights.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if scaled and not norm.isfinite():
        return 0.0
    if not norm.isfinite():
        raise DivergedError(f"step {step}: gradient norm {float(norm):g}; expected finite; try a lower lr")
    if max_norm:
        nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
    return float(norm)


def _sum_bucket(gradients: Sequence[Tensor], ranks: Ranks) -> None:
    flat = torch.cat([grad.reshape(-1) for grad in gradients])
    ranks.add(flat)
    for grad, summed in zip(gradients, torch.split(flat, [grad.numel() for grad in gradients]), strict=True):
        grad.copy_(summed.view(grad.shape))


def _counts(drawn: Sequence[Batch], ranks: Ranks) -> dict[LossUnit, list[int]]:
    """How many of each unit every pass holds, over all processes."""
    own = torch.tensor([[batch.count(unit) for batch in drawn] for unit in LOSS_UNITS])
    return dict(zip(LOSS_UNITS, ranks.gather(own).sum(dim=0).tolist(), strict=True))


def _share(batch: Batch, counts: Mapping[LossUnit, Sequence[int]], unit: LossUnit) -> float:
    """What turns a mean over the units of one batch into its part of the mean over those of all.

    A mean over none is a sum divided by one, as the models have it.
    """
    return max(batch.count(unit), 1) / max(sum(counts[unit]), 1)
