"""The training loop: one screen, no hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from deepmac_distill.models.compiled import compile_backbone
from deepmac_distill.models.recompute import recompute_blocks
from deepmac_distill.models.synchronized import synchronize
from deepmac_distill.progress import Progress
from deepmac_distill.ranks import ONE, Ranks
from deepmac_distill.stopping import Stopped, signals_wait
from deepmac_distill.structures import Batch
from deepmac_distill.training.checkpoint import SCALER, Stateful, TrainingState
from deepmac_distill.training.ema import averaged
from deepmac_distill.training.gradient_norms import GradientNorms
from deepmac_distill.training.gradients import accumulate_gradients, limit_gradient
from deepmac_distill.training.metrics_log import NO_LOG, MetricsLog
from deepmac_distill.training.precision import Precision
from deepmac_distill.training.schedule import Schedule
from deepmac_distill.training.sinks import Pace, Sink, closing, write_to

LOG_EVERY_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """Plain values of one training run; `config.TrainConfig` documents each."""

    steps: int
    gradient_accumulation_steps: int
    max_grad_norm: float
    ema_decay: float
    checkpoint_every: int
    autocast: torch.dtype | None = None  # of the passes; None: float32
    recompute: bool = False
    compile: bool = False
    images: int = 0  # of a step, in all processes
    log_every: int = LOG_EVERY_STEPS
    seed: int = 0  # of the random numbers that each of several processes draws


def train(
    model: nn.Module,
    batches_from: Callable[[int], Iterator[Batch]],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    settings: LoopSettings,
    device: torch.device,
    folder: Path,
    progress: Progress,
    ranks: Ranks = ONE,
    sinks_from: Callable[[int], Sequence[Sink]] = lambda first_step: (),
) -> dict[str, Tensor]:
    """Train `model` in place and return the weights to report: the average if there is one, else the last.

    `model(batch)` gives a dict of scalar losses, already weighted; each is a mean over the images, or over
    what `model.loss_units` names for it. `batches_from(k)` iterates from the k-th forward pass on, and
    `sinks_from(k)` opens trackers from the k-th step on. The loop saves its state to `folder`/state.pt every
    `checkpoint_every` steps and resumes from there, with the bits of a training that was not stopped (CPU,
    same threads). Several processes do what one would do with all of their batches, pass by pass; the first
    one alone touches the folder, and its state goes on in any number of them.

    Raises:
        Stopped: a signal has asked for it; the state after the step that was under way is saved.
        DivergedError: a loss or the gradient is not finite; names each term and the step.
    """
    model.to(device).train()
    synchronize(model, ranks)
    average = averaged(model, settings.ema_decay) if settings.ema_decay else None
    _change_passes(model, settings)  # not those of the copy, which computes nothing
    precision, norms = Precision.of(device, settings.autocast), GradientNorms(settings.max_grad_norm)
    state = _state_of(folder / "state.pt", model, optimizer, norms, average, precision)
    first_step = state.restore(ranks)
    batches = batches_from(first_step * settings.gradient_accumulation_steps)
    sinks, pace = sinks_from(first_step) if ranks.leads else (), Pace(settings.images, first_step, device)
    with (
        closing(sinks),
        MetricsLog(folder / "metrics.jsonl", first_step) if ranks.leads else NO_LOG as log,
        progress.bar("training", settings.steps, done=first_step, unit="step") as bar,
        signals_wait() as asked,
    ):
        for step in range(first_step, settings.steps):
            rate = _set_rates(optimizer, schedule(step))
            losses, norm = _learn(model, batches, optimizer, settings, precision, ranks, step)
            if average:
                average.update_parameters(model)
            if jump := norms.add(step, norm):
                progress.note(jump)
            losses, stop = _agreed(ranks, losses, asked.number)
            if step % settings.log_every == 0 or step == settings.steps - 1:
                figures = {"lr": rate, "grad_norm": norms.take_largest(), **losses}
                log.write(step, **figures)
                write_to(sinks, step, figures, pace)
            bar.advance(1, loss=sum(losses.values()))
            if ((step + 1) % settings.checkpoint_every == 0 or stop is not None) and ranks.leads:
                state.save(step + 1)
            if stop is not None:
                ranks.wait()  # for the state: who ends a process often ends the others with it
                raise Stopped(stop, f"saved after step {step + 1} of {settings.steps}")
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


def _change_passes(model: nn.Module, settings: LoopSettings) -> None:
    """Have the model compute the same in less memory, or in less time."""
    if settings.recompute:
        recompute_blocks(model)
    if settings.compile:
        compile_backbone(model)


def _learn(
    model: nn.Module,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    settings: LoopSettings,
    precision: Precision,
    ranks: Ranks,
    step: int,
) -> tuple[dict[str, float], float]:
    """One optimizer step; the losses, the part of this process of each, and the norm of the gradient."""
    _draw_apart(ranks, settings.seed, step)
    optimizer.zero_grad(set_to_none=True)
    passes = settings.gradient_accumulation_steps
    losses = accumulate_gradients(model, batches, passes, precision, ranks, step)
    precision.scaler.unscale_(optimizer)
    norm = limit_gradient(model, settings.max_grad_norm, step, precision.scales)
    precision.step(optimizer, step)
    return losses, norm


def _state_of(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    norms: GradientNorms,
    average: nn.Module | None,
    precision: Precision,
) -> TrainingState:
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "gradient_norms": norms}
    parts |= {"average": average} if average else {}
    parts |= {SCALER: precision.scaler} if precision.scales else {}
    return TrainingState(path, parts)


def _set_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale the rates that a training began with; returns the largest."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _draw_apart(ranks: Ranks, seed: int, step: int) -> None:
    """Give each of several processes random numbers of its own, which depend on seed, step and rank alone.

    One process goes on with the stream that it has, which its state keeps.
    """
    if ranks.world > 1:
        (drawn,) = np.random.SeedSequence([seed, step, ranks.rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(drawn))


def _agreed(ranks: Ranks, losses: dict[str, float], asked: int | None) -> tuple[dict[str, float], int | None]:
    """The losses of all processes, and the signal that any of them has heard: all end after the same step."""
    if ranks.world == 1:
        return losses, asked
    own = torch.tensor([float(asked or 0), *losses.values()], dtype=torch.float64)
    every = ranks.gather(own)  # (world, 1 + losses)
    signal = int(every[:, 0].max())
    return dict(zip(losses, every[:, 1:].sum(dim=0).tolist(), strict=True)), signal or None
