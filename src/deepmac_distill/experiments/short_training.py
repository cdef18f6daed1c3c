"""A training of an experiment made shorter than its recipe has it, as KEY=VALUE."""

from __future__ import annotations

from deepmac_distill.chain import Role
from deepmac_distill.config.training import TrainConfig


def a_tenth(role: Role, train: TrainConfig) -> list[str]:
    """A tenth of the steps, of the warm-up and of each decay; rate and batch stay.

    >>> a_tenth("student", TrainConfig(steps=100, warmup_steps=20, schedule="steps", decay_steps=(80,)))
    ['student.train.steps=10', 'student.train.warmup_steps=2', 'student.train.decay_steps=[8]']
    """
    decays = [step // 10 for step in train.decay_steps]
    scaled = {"steps": train.steps // 10, "warmup_steps": train.warmup_steps // 10, "decay_steps": decays}
    return [f"{role}.train.{key}={value}" for key, value in scaled.items()]
