"""In which numbers a training computes its passes. Weights and their gradients are float32 always."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from deepmac_distill.errors import DivergedError

_LEAST_SCALE = 2.0**-10  # of float16's loss: with less its gradients were no longer the problem


@dataclass(frozen=True, slots=True)
class Precision:
    """How the passes of one training compute.

    float16 has few exponents, so losses are scaled up (Micikevicius et al., arXiv:1710.03740, 3.2): a step
    whose gradient overflows is skipped and lowers the scale.
    """

    device: torch.device
    dtype: torch.dtype | None  # of autocast; None: float32
    scaler: torch.amp.GradScaler  # does nothing unless `dtype` is float16

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype | None) -> Precision:
        """A new one, with the scale to begin with."""
        return cls(device, dtype, torch.amp.GradScaler(device.type, enabled=dtype is torch.float16))

    @property
    def scales(self) -> bool:
        """Whether losses are scaled, and steps may be skipped."""
        return self.scaler.is_enabled()

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        dtype = torch.bfloat16 if self.dtype is None else self.dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.dtype is not None)

    def step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """One step of the optimizer, unless the gradient has overflown.

        Raises:
            DivergedError: it overflows at every scale.
        """
        self.scaler.step(optimizer)
        self.scaler.update()
        if self.scales and not self.scaler.get_scale() >= _LEAST_SCALE:
            raise DivergedError(
                f"step {step}: gradient is not finite in float16 at a loss scale of 2^"
                f'{math.log2(self.scaler.get_scale() or 1e-300):.0f}; expected finite; try autocast = "off"'
            )
