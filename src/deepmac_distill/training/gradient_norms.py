"""The norms of a training's gradients: the largest for the log, and a note where one jumps."""

from __future__ import annotations

import statistics
from typing import Any

_WINDOW_STEPS = 100  # whose median a norm is compared with
_FIRST_COMPARED = 20  # steps; fewer have no median worth the name
_JUMP = 100.0  # times the median; in the trainings of the recipes no norm was above 10 times
_QUIET_STEPS = 1000  # after a note


class GradientNorms:
    """Sees the norm of every step's gradient; its state belongs to what a training resumes from.

    Args:
        limit: that gradients are clipped to; 0: they are not.
    """

    def __init__(self, limit: float = 0.0) -> None:
        self.limit = limit
        self._recent: list[float] = []
        self._largest_since_line = 0.0
        self._highest = (0.0, 0)  # norm and step, of those that no note has compared yet
        self._quiet_until = 0  # step

    def add(self, step: int, norm: float) -> str | None:
        """Take the norm of a step in; returns a note if one is far above the median of the steps before.

        The first steps are compared as soon as there are enough of them, so a jump at step 0 is noted too.
        """
        self._largest_since_line = max(self._largest_since_line, norm)
        self._highest = max(self._highest, (norm, step))
        self._recent = [*self._recent, norm][-_WINDOW_STEPS:]
        if len(self._recent) < _FIRST_COMPARED or step < self._quiet_until:
            return None
        (highest, at), usual = self._highest, statistics.median(self._recent)
        self._highest = (0.0, step)
        if not usual or highest <= _JUMP * usual:  # most steps had nothing to learn: no norm is usual
            return None
        self._quiet_until = step + _QUIET_STEPS
        return (
            f"step {at}: gradient norm {highest:.3g}, where the median of {len(self._recent)} steps is "
            f"{usual:.3g}; such a step can spoil a training: see grad_norm in metrics.jsonl; {self._advice}"
        )

    @property
    def _advice(self) -> str:
        if not self.limit:
            return "train.max_grad_norm limits it"
        return f"train.max_grad_norm has limited it to {self.limit:g}; a lower train.lr may help"

    def take_largest(self) -> float:
        """The largest norm since this was asked last."""
        largest, self._largest_since_line = self._largest_since_line, 0.0
        return largest

    def state_dict(self) -> dict[str, Any]:
        """The state by name."""
        return {name: value for name, value in vars(self).items() if name != "limit"}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take a state back."""
        vars(self).update(state_dict)
