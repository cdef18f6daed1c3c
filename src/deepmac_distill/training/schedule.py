"""Learning rate as a pure function of the optimizer step, so that a resumed run needs no state for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

Schedule = Callable[[int], float]  # optimizer step -> factor on the base learning rate


def make_schedule(
    kind: Literal["cosine", "steps", "constant"],
    steps: int,
    warmup_steps: int,
    decay_steps: Sequence[int] = (),
) -> Schedule:
    """Linear warm-up from 0, then cosine to 0 at `steps`, or x 0.1 at each decay step, or constant.

    The first step after a warm-up of w steps has factor 1; step 0 of a warm-up has factor 1 / w, not 0,
    so that no step is lost.

    >>> lr = make_schedule("cosine", steps=10, warmup_steps=2)
    >>> [round(lr(step), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        match kind:
            case "cosine":
                done = (step - warmup_steps) / max(steps - warmup_steps, 1)
                return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
            case "steps":
                return 0.1 ** sum(step >= at for at in decay_steps)
            case "constant":
                return 1.0

    return factor
