"""A training that an override makes shorter gets a warm-up and decays that fit into it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deepmac_distill.config.training import TrainConfig

Tree = dict[str, Any]


def fit_schedules(tree: Tree, before: Tree, overridden: Collection[str]) -> list[str]:
    """Scale warm-up and decays by the steps where `overridden` steps end before them; report each change.

    What a pipeline file contradicts by itself, or an override names itself, stays, to be refused.

    >>> tree = {"teacher": {"train": {"steps": 30, "warmup_steps": 200}}}
    >>> before = {"teacher": {"train": {"steps": 600, "warmup_steps": 200}}}
    >>> fit_schedules(tree, before, ["teacher.train.steps"])
    ['teacher.train.warmup_steps: 10 instead of 200, as steps are 30 instead of 600']
    >>> tree["teacher"]["train"]["warmup_steps"]
    10
    """
    notes = []
    for role in ("teacher", "student"):
        if f"{role}.train.steps" not in overridden:
            continue
        train, steps_before = _train_of(tree, role), _train_of(before, role).get("steps", TrainConfig().steps)
        for key in ("warmup_steps", "decay_steps"):
            old, name = train.get(key), f"{role}.train.{key}"
            if name in overridden or not _ends_before(train["steps"], old, steps_before):
                continue
            new = _scaled(old, train["steps"], steps_before)
            train[key] = new
            notes.append(
                f"{name}: {new} instead of {old}, as steps are {train['steps']} instead of {steps_before}"
            )
    return notes


def _train_of(tree: Tree, role: str) -> Tree:
    role_table = tree.get(role, {})
    train = role_table.get("train", {}) if isinstance(role_table, dict) else {}
    return train if isinstance(train, dict) else {}


def _ends_before(steps: Any, moments: Any, steps_before: Any) -> bool:
    """Whether a moment was inside the training and no longer is; False for what is no number of steps."""
    latest = max(moments, default=0) if isinstance(moments, list) and _whole(*moments) else moments
    return _whole(steps, latest, steps_before) and 0 < steps < latest <= steps_before


def _scaled(moments: Any, steps: int, steps_before: int) -> Any:
    if isinstance(moments, list):
        return [_scaled(moment, steps, steps_before) for moment in moments]
    return moments * steps // steps_before


def _whole(*values: Any) -> bool:
    return all(type(value) is int for value in values)
