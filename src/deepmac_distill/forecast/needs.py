"""Stage `forecast`: what a pipeline will need, and whether data and machine have it; nothing is written.

Memory that holds all along is counted. Activations and time are measured on a few small passes and scaled.
Disk is bounded from above. All but the count is an estimate.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from deepmac_distill import devices
from deepmac_distill.chain import HOLDOUT, Role, Stage, planned
from deepmac_distill.config import RoleConfig
from deepmac_distill.config.holdout import BEST
from deepmac_distill.data.synthetic import SCENE_CLASSES
from deepmac_distill.errors import DataError, DeviceError, DistillError, RunError
from deepmac_distill.forecast.cost import MARGINS
from deepmac_distill.forecast.inventory import (
    JSON_IN_MEMORY,
    Inventory,
    PerImage,
    download_page,
    take_inventory,
)
from deepmac_distill.forecast.measuring import class_count, measured_rates
from deepmac_distill.forecast.stage_need import (
    StageNeed,
    evaluation_need,
    labeling_need,
    masks_trained_on,
    peak_disk_bytes,
    selection_need,
    training_need,
)
from deepmac_distill.stages.chosen_teacher import choosing
from deepmac_distill.stages.job import Job, training_split, validation_split
from deepmac_distill.stages.preflight import require_buildable, state_of

SCENE_SHAPES = PerImage(mean=5, most=7)  # of a generated scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is free, in bytes; None where the system reports none."""

    memory: int | None  # where tensors live
    ram: int | None
    disk: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """All of it; `problems` are in the order data, disk, memory."""

    data: tuple[Inventory, ...]
    needs: tuple[StageNeed, ...]
    machine: Machine
    device: str
    problems: tuple[DistillError, ...]

    @property
    def disk_bytes(self) -> float:
        """The largest use of the disk at one time."""
        return peak_disk_bytes(self.needs)


def forecast(
    job: Job, roles: Sequence[Role] = ("teacher", "student"), machine: Machine | None = None
) -> Forecast:
    """What the stages of these roles need, with every problem that would stop them.

    Args:
        roles: of both, the labeling between them is part.
        machine: what is free; None looks.

    Raises:
        ConfigError: a model cannot be built.
        DataError: a file is there and is no COCO file.
    """
    job = _with_its_teacher(job)
    for role in roles:
        require_buildable(job, role)
    devices.use_threads(job.pipeline.threads)
    machine = machine or free_of(job)
    inventories, problems = _inventories(job, machine)
    stages = planned(
        evaluated=len(inventories) > 1,
        roles=tuple(roles),
        segmenter=not job.trains_teacher,
    )
    needs = []
    for role in roles:
        own = [stage for stage in stages if stage.role == role and stage.kind != "report"]
        needs += _role_needs(job, role, inventories, machine, own)
    problems += _disk_problem(job, needs, machine) + _memory_problem(job, needs, machine)
    return Forecast(
        data=tuple(inventories),
        needs=tuple(needs),
        machine=machine,
        device=str(job.device),
        problems=tuple(problems),
    )


def _with_its_teacher(job: Job) -> Job:
    """The job with the teacher that labels; before a hold-out has named it, with the pipeline's own."""
    unnamed = job.pipeline.labels.teacher == BEST and not (job.run.path / HOLDOUT.name).exists()
    return job if unnamed else choosing(job)


def free_of(job: Job) -> Machine:
    """What is free on this machine, on the disk of the run."""
    there = next(
        path for path in (job.run.path.absolute(), *job.run.path.absolute().parents) if path.exists()
    )
    return Machine(
        memory=devices.free_bytes(job.device),
        ram=devices.free_bytes(torch.device("cpu")),
        disk=shutil.disk_usage(there).free,
    )


def _inventories(job: Job, machine: Machine) -> tuple[list[Inventory], list[DistillError]]:
    """The training set, then the validation set if there is one; and what is wrong with them."""
    data = job.pipeline.data
    if data.source == "scenes":
        return [_scenes(name, getattr(data.scenes, f"{name}_images")) for name in ("train", "val")], []
    splits = [
        training_split(job),
        validation_split(job),
    ]
    inventories: list[Inventory] = []
    problems: list[DistillError] = []
    for split in filter(None, splits):
        json_bytes = split.annotations.stat().st_size if split.annotations.is_file() else 0
        if machine.ram is not None and JSON_IN_MEMORY * json_bytes > machine.ram:
            inventories.append(
                Inventory(annotations=split.annotations, folder=split.images.folder, json_bytes=json_bytes)
            )
            problems.append(
                DeviceError(
                    f"{split.annotations}: reading it takes about "
                    f"{in_words(JSON_IN_MEMORY * json_bytes)} of RAM, {in_words(machine.ram)} are free; "
                    "expected that much"
                )
            )
        else:
            inventories.append(take_inventory(split.annotations, split.images, job.open))
    missing = [what for inventory in inventories for what in inventory.missing]
    if missing:
        pages = sorted({page for what in missing if (page := download_page(what))})
        where = f"; to be had from {' and '.join(pages)}" if pages else ""
        problems.insert(0, DataError(f"data: missing {', '.join(missing)}; expected all of it{where}"))
    return inventories, problems


def _scenes(split: str, images: int) -> Inventory:
    name = Path(f"scenes-{split}")
    return Inventory(
        annotations=name / "instances.json",
        folder=name / "images",
        images=images,
        boxes=images * SCENE_SHAPES.most,
        class_names=SCENE_CLASSES,
        usable=SCENE_SHAPES,
        seen=SCENE_SHAPES,
    )


def _role_needs(
    job: Job, role: Role, inventories: Sequence[Inventory], machine: Machine, stages: Sequence[Stage]
) -> list[StageNeed]:
    """What the stages of a role need, in their order; those that are done need nothing."""
    recipe: RoleConfig = getattr(job.pipeline, role)
    train, val = inventories[0], inventories[-1]
    untrained = role == "teacher" and not job.trains_teacher
    state = state_of(recipe, class_count(train))
    done = {stage.name for stage in stages if (job.run.path / stage.name).exists()}
    fits = machine.memory is None or 2 * state.weights < machine.memory
    measurable = not untrained and fits and len(done) < len(stages)
    rates = measured_rates(job, recipe, train, machine.memory) if measurable else None
    given = train.seen if role == "teacher" else train.usable
    masks = masks_trained_on(recipe.model, given, train.usable)

    def need_of(stage: Stage) -> StageNeed:
        match stage.kind:
            case "train":
                return training_need(stage.name, recipe, state, rates, masks, MARGINS[job.device.type])
            case "evaluate":
                return evaluation_need(stage.name, recipe, val, job.pipeline.evaluation, rates)
            case "label":
                return labeling_need(stage.name, recipe, train, job.pipeline.labels.soft, rates)
            case _:
                return selection_need(stage.name, train)

    return [
        StageNeed(stage=stage.name, done=True) if stage.name in done else need_of(stage) for stage in stages
    ]


def _memory_problem(job: Job, needs: Sequence[StageNeed], machine: Machine) -> list[DistillError]:
    for need in needs:
        if need.memory_bytes and machine.memory is not None and need.memory_bytes > machine.memory:
            return [
                DeviceError(
                    f"{job.device}: {need.stage}: needs about {in_words(need.memory_bytes)} of memory, "
                    f"{in_words(machine.memory)} are free; expected that much, or a smaller "
                    f"{need.stage}.train.batch_size and a larger gradient_accumulation_steps"
                )
            ]
    return []


def _disk_problem(job: Job, needs: Sequence[StageNeed], machine: Machine) -> list[DistillError]:
    peak = peak_disk_bytes(needs)
    if machine.disk is None or peak <= machine.disk:
        return []
    return [
        RunError(
            f"{job.run.path}: needs up to {in_words(peak)} of disk, {in_words(machine.disk)} are free; "
            "expected that much, or a smaller labels file (labels.soft = false)"
        )
    ]


def in_words(count: float) -> str:
    """Bytes for a person.

    >>> in_words(3.21e9), in_words(4e5)
    ('3.2 GB', '0.4 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
