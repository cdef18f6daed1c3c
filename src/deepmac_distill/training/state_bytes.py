"""What a training keeps in memory, counted from shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes:
    """What stays in memory during all of a training."""

    weights: int  # parameters and buffers
    gradients: int
    optimizer: int
    average: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.average

    @property
    def resumable(self) -> int:
        """Of it what a resumable state holds: all but the gradients."""
        return self.total - self.gradients


def state_bytes(
    model: nn.Module, optimizer: Literal["adamw", "adam", "sgd"], momentum: float, averaged: bool
) -> StateBytes:
    """Counted from the shapes alone, so that `model` may be on the meta device.

    Left out are counters of a few bytes: an optimizer's steps, the number of averaged updates.
    """
    trained = _bytes(model.parameters())
    weights = trained + _bytes(model.buffers())
    slots = {"adamw": 2, "adam": 2, "sgd": 1 if momentum else 0}[optimizer]
    return StateBytes(
        weights=weights, gradients=trained, optimizer=slots * trained, average=weights if averaged else 0
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
