"""Stage `forecast`: what a pipeline will need, and whether data and machine have it; nothing is written.

Memory that holds all along is counted. Activations and time are measured on a few small passes and scaled.
Disk is bounded from above. All but the count is an estimate.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deepmac_distill import devices
from deepmac_distill.chain import Role
from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig, ModelConfig, RoleConfig
from deepmac_distill.config.schema import EvaluationConfig
from deepmac_distill.data.synthetic import SCENE_CLASSES
from deepmac_distill.errors import DataError, DeviceError, DistillError, RunError
from deepmac_distill.forecast.cost import (
    INFERENCE_SHARE,
    MARGINS,
    Load,
    Pass,
    Rates,
    StateBytes,
    measure_pass,
    rates_of,
    sample_batch,
    state_bytes,
    training_bytes,
)
from deepmac_distill.forecast.inventory import (
    JSON_IN_MEMORY,
    Inventory,
    PerImage,
    download_page,
    take_inventory,
)
from deepmac_distill.models.build import build_model
from deepmac_distill.stages.job import Job, Split, validation_split
from deepmac_distill.stages.train import require_buildable

ENTRY_BYTES = 500  # of a mask with its box and numbers in a file, more than most take
SCENE_SHAPES = PerImage(mean=5, most=7)  # of a generated scene
FIRST_CANVAS_PX = 128  # of the passes that are measured; larger ones follow while they are short
LONGEST_PASS_SECONDS = 10.0
CLASSES_OF_COCO = 80  # where the annotations are not there to be counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is free, in bytes; None where the system does not tell."""

    memory: int | None  # where tensors live
    ram: int | None
    disk: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNeed:
    """What one stage takes."""

    stage: str
    memory_bytes: float | None = None  # None: less than the trainings
    kept_disk_bytes: float = 0.0
    passing_disk_bytes: float = 0.0  # gone when the stage is done
    seconds: float | None = None  # None: not known
    done: bool = False  # in this run, before


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
        """The most that lies on the disk at once."""
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
    for role in roles:
        require_buildable(job, role)
    devices.use_threads(job.pipeline.threads)
    machine = machine or free_of(job)
    inventories, problems = _inventories(job, machine)
    needs = []
    for role in roles:
        needs += _role_needs(job, role, inventories, machine, labels=len(roles) > 1)
    problems += _disk_problem(job, needs, machine) + _memory_problem(job, needs, machine)
    return Forecast(
        data=tuple(inventories),
        needs=tuple(needs),
        machine=machine,
        device=str(job.device),
        problems=tuple(problems),
    )


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


def peak_disk_bytes(needs: Iterable[StageNeed]) -> float:
    """The most at once: what the stages before left, and all of the one at work.

    >>> first = StageNeed(stage="teacher", kept_disk_bytes=1, passing_disk_bytes=6)
    >>> peak_disk_bytes([first, StageNeed(stage="student", kept_disk_bytes=2, passing_disk_bytes=3)])
    7
    """
    kept = peak = 0
    for need in needs:
        peak = max(peak, kept + need.kept_disk_bytes + need.passing_disk_bytes)
        kept += need.kept_disk_bytes
    return peak


def _inventories(job: Job, machine: Machine) -> tuple[list[Inventory], list[DistillError]]:
    """The training set, then the validation set if there is one; and what is wrong with them."""
    data, root = job.pipeline.data, Path(job.pipeline.data.root)
    if data.source == "scenes":
        return [_scenes(name, getattr(data.scenes, f"{name}_images")) for name in ("train", "val")], []
    splits = [Split(root / data.train_annotations, root / data.train_images), validation_split(job)]
    inventories, problems = [], []
    for split in filter(None, splits):
        json_bytes = split.annotations.stat().st_size if split.annotations.is_file() else 0
        if machine.ram is not None and JSON_IN_MEMORY * json_bytes > machine.ram:
            inventories.append(
                Inventory(annotations=split.annotations, folder=split.images, json_bytes=json_bytes)
            )
            problems.append(
                DeviceError(
                    f"{split.annotations}: reading it takes about "
                    f"{in_words(JSON_IN_MEMORY * json_bytes)} of RAM, {in_words(machine.ram)} are free; "
                    "expected that much"
                )
            )
        else:
            inventories.append(take_inventory(split.annotations, split.images, data.seen))
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
    job: Job, role: Role, inventories: Sequence[Inventory], machine: Machine, labels: bool
) -> list[StageNeed]:
    """Training, evaluation if there is a validation set, and for a teacher with `labels` the labeling."""
    recipe: RoleConfig = getattr(job.pipeline, role)
    train, evaluated = inventories[0], inventories[1:]
    state = _state_of(recipe, len(train.class_names) or CLASSES_OF_COCO)
    names = [role, *([f"evaluate-{role}"] if evaluated else [])]
    names += ["pseudolabel", "select"] if role == "teacher" and labels else []
    done = {name for name in names if (job.run.path / name).exists()}
    fits = machine.memory is None or 2 * state.weights < machine.memory
    measurable = state.gradients > 0 and fits and done != set(names)  # GrabCut has nothing to train
    rates = _measured(job, recipe, train, machine) if measurable else None
    masks = masks_trained_on(recipe.model, train.seen if role == "teacher" else train.usable)
    needs = [training_need(role, recipe, state, rates, masks, MARGINS[job.device.type])]
    if evaluated:
        settings = job.pipeline.evaluation
        needs.append(evaluation_need(role, recipe, evaluated[0], settings, rates))
    if "pseudolabel" in names:
        needs += labeling_needs(recipe, train, job.pipeline.labels.soft, rates)
    return [StageNeed(stage=need.stage, done=True) if need.stage in done else need for need in needs]


def training_need(
    stage: str,
    recipe: RoleConfig,
    state: StateBytes,
    rates: Rates | None,
    masks: PerImage,
    margin: float,
) -> StageNeed:
    """Of a training; a state is written beside the one before it."""
    settings = recipe.train
    images = settings.batch_size
    fullest = Load(images=images, size_px=settings.image_size_px, masks=masks.in_batch(images))
    usual = replace(fullest, masks=masks.mean * images)
    passes = settings.steps * settings.gradient_accumulation_steps
    return StageNeed(
        stage=stage,
        memory_bytes=state.total if rates is None else training_bytes(state, rates, fullest, margin),
        kept_disk_bytes=state.weights,
        passing_disk_bytes=2 * state.saved,
        seconds=None if rates is None else passes * rates.seconds(usual),
    )


def evaluation_need(
    role: Role, recipe: RoleConfig, data: Inventory, settings: EvaluationConfig, rates: Rates | None
) -> StageNeed:
    """Of masks in given boxes and, where the model has it and it is not switched off, of detection."""
    known = rates is not None and data.images > 0
    detects = _detects(recipe.model) and not settings.gt_boxes_only
    found = settings.max_detections if detects else 0  # for each image
    views = 2 if detects else 1
    size_px = recipe.train.image_size_px
    load = Load(images=views * data.images, size_px=size_px, masks=data.images * (data.usable.mean + found))
    return StageNeed(
        stage=f"evaluate-{role}",
        kept_disk_bytes=ENTRY_BYTES * (data.boxes + data.images * found),
        seconds=INFERENCE_SHARE * rates.seconds(load) if known else None,
    )


def labeling_needs(recipe: RoleConfig, data: Inventory, soft: bool, rates: Rates | None) -> list[StageNeed]:
    """Of `pseudolabel`, whose units lie beside the file that is put together of them, and of `select`."""
    known = rates is not None and data.images > 0
    wanted = max(data.usable.mean - data.seen.mean, 0.0)
    grid_bytes = _mask_cells(recipe.model) ** 2 if soft else 0
    file_bytes = ENTRY_BYTES * data.boxes + grid_bytes * wanted * data.images
    load = Load(images=data.images, size_px=recipe.train.image_size_px, masks=data.images * wanted)
    seconds = INFERENCE_SHARE * rates.seconds(load) if known else None
    return [
        StageNeed(
            stage="pseudolabel", kept_disk_bytes=file_bytes, passing_disk_bytes=file_bytes, seconds=seconds
        ),
        StageNeed(stage="select", kept_disk_bytes=data.json_bytes + ENTRY_BYTES * data.boxes, seconds=0.0),
    ]


def masks_trained_on(model: ModelConfig, given: PerImage) -> PerImage:
    """Masks in a pass for each image, where the data give so many."""
    if isinstance(model, MaskRcnnConfig) and model.mask_boxes == "proposals+gt":
        sampled = model.sampled_proposals // 4  # at most a quarter lie on objects, whatever the data give
        return PerImage(mean=sampled, most=sampled)
    cap = model.mask_instances_per_image if isinstance(model, DeepMacConfig) else 0
    return PerImage(mean=min(given.mean, cap), most=min(given.most, cap)) if cap else given


def _detects(model: ModelConfig) -> bool:
    return isinstance(model, MaskRcnnConfig) or (isinstance(model, DeepMacConfig) and model.detection)


def _mask_cells(model: ModelConfig) -> int:
    return 2 * model.mask_crop if isinstance(model, MaskRcnnConfig) else model.mask_size


def _state_of(recipe: RoleConfig, classes: int) -> StateBytes:
    with torch.device("meta"):
        model = build_model(recipe.model, classes, load_weights=False)
    settings = recipe.train
    return state_bytes(model, settings.optimizer, settings.momentum, averaged=bool(settings.ema_decay))


def _measured(job: Job, recipe: RoleConfig, data: Inventory, machine: Machine) -> Rates:
    """A few passes of the real model: small ones first, larger canvases while they are short and fit."""
    config = recipe.model
    if isinstance(config, MaskRcnnConfig):  # of proposals there are as many masks whatever is given
        config = replace(config, mask_boxes="gt")
    model = build_model(config, len(data.class_names) or CLASSES_OF_COCO, load_weights=False)
    model.to(job.device).train()
    autocast = devices.autocast_allowed(job.device, recipe.train.autocast)
    free = math.inf if machine.memory is None else machine.memory
    masks = max(1, round(masks_trained_on(recipe.model, PerImage(mean=1, most=1)).mean))

    def measured(images: int, size_px: int, masks: int) -> Pass:
        batch = sample_batch(images, size_px, masks, model.target_mask_size)
        return measure_pass(model, batch, job.device, autocast)

    multiple, size_px = model.size_divisibility, recipe.train.image_size_px
    first = min(size_px, -(-FIRST_CANVAS_PX // multiple) * multiple)
    measured(2, first, masks)  # the first pass sets up what the others use
    small, more_masks, more_images = (
        measured(2, first, masks),
        measured(2, first, masks + max(masks, 4)),
        measured(4, first, masks),
    )
    largest = small
    while largest.load.size_px < size_px:
        following = min(2 * largest.load.size_px, size_px)
        growth = (following / largest.load.size_px) ** 2
        if growth * largest.seconds > LONGEST_PASS_SECONDS or 2 * growth * largest.kept_bytes > free:
            break
        largest = measured(2, following, masks)
    return rates_of(small, more_masks, more_images, largest)


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
