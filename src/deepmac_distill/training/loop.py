"""The training loop: one screen, no hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from deepmac_distill.errors import DivergedError
from deepmac_distill.progress import Progress
from deepmac_distill.stopping import Stopped, signals_wait
from deepmac_distill.structures import Batch, LossUnit
from deepmac_distill.training.checkpoint import Stateful, TrainingState
from deepmac_distill.training.ema import averaged
from deepmac_distill.training.gradient_norms import GradientNorms
from deepmac_distill.training.metrics_log import MetricsLog
from deepmac_distill.training.schedule import Schedule

LOG_EVERY_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """Plain values of one training run; `config.TrainConfig` documents each."""

    steps: int
    gradient_accumulation_steps: int
    max_grad_norm: float
    ema_decay: float
    checkpoint_every: int
    autocast: bool
    log_every: int = LOG_EVERY_STEPS


def train(
    model: nn.Module,
    batches_from: Callable[[int], Iterator[Batch]],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    settings: LoopSettings,
    device: torch.device,
    folder: Path,
    progress: Progress,
) -> dict[str, Tensor]:
    """Train `model` in place and return the weights to report: the average if there is one, else the last.

    `model(batch)` gives a dict of scalar losses, already weighted; each is a mean over the images, or over
    what `model.loss_units` names for it. `batches_from(k)` iterates from the k-th forward pass on. The loop
    saves its state to `folder`/state.pt every `checkpoint_every` steps and resumes from there, with the bits
    of a training that was not stopped (CPU, same threads).

    Raises:
        Stopped: a signal has asked for it; the state after the step that was under way is saved.
        DivergedError: a loss or the gradient is not finite; names each term and the step.
    """
    model.to(device).train()
    average = averaged(model, settings.ema_decay) if settings.ema_decay else None
    norms = GradientNorms(settings.max_grad_norm)
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "gradient_norms": norms}
    if average:
        parts["average"] = average
    state = TrainingState(folder / "state.pt", parts)
    first_step = state.restore()
    base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    batches = batches_from(first_step * settings.gradient_accumulation_steps)
    with (
        MetricsLog(folder / "metrics.jsonl", first_step) as log,
        progress.bar("training", settings.steps, done=first_step, unit="step") as bar,
        signals_wait() as asked,
    ):
        for step in range(first_step, settings.steps):
            for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = base_lr * schedule(step)
            optimizer.zero_grad(set_to_none=True)
            losses = _accumulate_gradients(model, batches, settings, device, step)
            if jump := norms.add(step, _limit_gradient(model, settings.max_grad_norm, step)):
                progress.note(jump)
            optimizer.step()
            if average:
                average.update_parameters(model)
            if step % settings.log_every == 0 or step == settings.steps - 1:
                lr = max(group["lr"] for group in optimizer.param_groups)
                log.write(step, lr=lr, grad_norm=norms.take_largest(), **losses)
            bar.advance(1, loss=sum(losses.values()))
            if (step + 1) % settings.checkpoint_every == 0 or asked.number is not None:
                state.save(step + 1)
            if asked.number is not None:
                raise Stopped(asked.number, f"saved after step {step + 1} of {settings.steps}")
    return (average.module if average else model).state_dict()


def make_optimizer(
    model: nn.Module,
    kind: Literal["adamw", "adam", "sgd"],
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    slow: Iterable[nn.Parameter] = (),
    slow_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """An optimizer over `model`: weight decay on tensors of two or more dimensions only, and `slow_factor`
    times the learning rate for the parameters in `slow`."""
    slow_ids = set(map(id, slow))
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for parameter in model.parameters():
        groups.setdefault((id(parameter) in slow_ids, parameter.ndim >= 2), []).append(parameter)
    param_groups = [
        {
            "params": parameters,
            "lr": lr * (slow_factor if slow else 1.0),
            "initial_lr": lr * (slow_factor if slow else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (slow, decays), parameters in groups.items()
    ]
    match kind:
        case "adamw":
            return torch.optim.AdamW(param_groups)
        case "adam":
            return torch.optim.Adam(param_groups)
        case "sgd":
            return torch.optim.SGD(param_groups, momentum=momentum)


def _accumulate_gradients(
    model: nn.Module, batches: Iterator[Batch], settings: LoopSettings, device: torch.device, step: int
) -> dict[str, float]:
    """Gradients of the losses over `gradient_accumulation_steps` batches as if they were one; returns them.

    The batches are drawn first: what a pass weighs depends on what the others hold.
    """
    drawn = [next(batches) for _ in range(settings.gradient_accumulation_steps)]
    units: Mapping[str, LossUnit] = getattr(model, "loss_units", {})
    step_losses: dict[str, float] = {}
    for batch in drawn:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.autocast):
            losses: dict[str, Tensor] = model(batch.to(device))
        shares = {
            name: loss * _share(batch, drawn, units.get(name, "images")) for name, loss in losses.items()
        }
        total = torch.stack(list(shares.values())).sum()
        if not total.isfinite():
            terms = ", ".join(f"{name} {float(loss.detach()):g}" for name, loss in losses.items())
            raise DivergedError(f"step {step}: loss is not finite: {terms}; expected finite; try a lower lr")
        torch.autograd.backward(total)
        for name, share in shares.items():
            step_losses[name] = step_losses.get(name, 0.0) + float(share.detach())
    return step_losses


def _share(batch: Batch, drawn: Sequence[Batch], unit: LossUnit) -> float:
    """What turns a mean over the units of one batch into its part of the mean over those of all.

    A mean over none is a sum divided by one, as the models have it.
    """
    return max(batch.count(unit), 1) / max(sum(other.count(unit) for other in drawn), 1)


def _limit_gradient(model: nn.Module, max_norm: float, step: int) -> float:
    """Clip the gradient to `max_norm`, if that is above 0; returns the norm that it had.

    Raises:
        DivergedError: it is not finite, so that the step would destroy the weights.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if not norm.isfinite():
        raise DivergedError(f"step {step}: gradient norm {float(norm):g}; expected finite; try a lower lr")
    if max_norm:
        nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
    return float(norm)
