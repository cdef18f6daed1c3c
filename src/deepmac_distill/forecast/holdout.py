"""What a hold-out will take: its trainings and its masks, from a few passes of the real model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deepmac_distill.chain import HOLDOUT, TRAININGS
from deepmac_distill.config import TeacherConfig
from deepmac_distill.forecast.cost import MARGINS
from deepmac_distill.forecast.inventory import Inventory, take_inventory
from deepmac_distill.forecast.measuring import class_count, measured_rates
from deepmac_distill.forecast.needs import free_of
from deepmac_distill.forecast.stage_need import (
    ENTRY_BYTES,
    StageNeed,
    labeling_need,
    masks_trained_on,
    training_need,
)
from deepmac_distill.stages.holdout_plan import Plan, shorter
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.preflight import require_buildable, state_of


@dataclass(frozen=True, slots=True)
class HoldoutNeed:
    """What is to be done and how long it takes."""

    trainings: int
    masks: int  # that each teacher draws
    teachers: int
    seconds: float | None  # of the recipes: training and drawing; None: nothing is trained
    weights_bytes: float  # of the largest model that is trained
    state_bytes: float  # of its training


def holdout_need(job: Job) -> HoldoutNeed | None:
    """What the hold-out of a pipeline takes; None where it was done in this run.

    Raises:
        DataError: too few seen classes or masks.
        ConfigError, CheckpointError, ContractError: a teacher cannot be used or built.
    """
    if (job.run.path / "holdout").exists() and not job.force:
        return None
    plan = Plan.of(job)
    data = take_inventory(plan.split.annotations, plan.split.images, job.open)
    recipes = [one.recipe for one in plan.teachers if one.source is None and one.recipe]
    each = [_seconds(job, recipe, data, len(plan.folds)) for recipe in recipes]
    masks = plan.dataset.of_untaught([name for fold in plan.folds for name in fold])
    states = [state_of(one, class_count(data)) for one in recipes]
    return HoldoutNeed(
        trainings=plan.trainings,
        masks=int(masks.has_human_mask().sum()),
        teachers=len(plan.teachers),
        seconds=sum(each) if each else None,
        weights_bytes=max((state.weights for state in states), default=0.0),
        state_bytes=max((state.resumable for state in states), default=0.0),
    )


def holdout_stage_need(job: Job) -> StageNeed:
    """The hold-out as the first stage of a run. Its trials keep the weights of each training.

    Raises:
        DataError, ConfigError, CheckpointError, ContractError: as `holdout_need`.
    """
    if job.training_file() is None:  # scenes that no run has made yet
        return StageNeed(stage=HOLDOUT.name)
    need = holdout_need(job)
    if need is None:
        return StageNeed(stage=HOLDOUT.name, done=True)
    return StageNeed(
        stage=HOLDOUT.name,
        disk_bytes=need.trainings * need.weights_bytes + ENTRY_BYTES * need.masks * need.teachers,
        scratch_bytes=2.0 * need.state_bytes,
        seconds=need.seconds,
    )


def _seconds(job: Job, recipe: TeacherConfig, data: Inventory, folds: int) -> float:
    """Of a recipe: its trainings, and masks in as many boxes as have one."""
    one = shorter(recipe) if job.pipeline.holdout.quick else recipe
    asked = replace(job, pipeline=replace(job.pipeline, teacher=one))
    require_buildable(asked, "teacher")
    rates = measured_rates(asked, one, data, free_of(job).memory)
    state, masks = state_of(one, class_count(data)), masks_trained_on(one.model, data.seen, data.usable)
    name = TRAININGS["teacher"].name
    training = training_need(name, one, state, rates, masks, MARGINS[job.device.type])
    # The boxes that it labels here are those that have a mask.
    hidden = replace(data, usable=data.seen, seen=replace(data.seen, mean=0.0, most=0))
    drawing = labeling_need(name, one, hidden, False, rates)
    return folds * (training.seconds or 0.0) + (drawing.seconds or 0.0)
