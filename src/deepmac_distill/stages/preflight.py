"""What can be known before a stage starts is known before it starts: asked here, in seconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from deepmac_distill import devices
from deepmac_distill.chain import Role, Stage
from deepmac_distill.config import ModelConfig, RoleConfig
from deepmac_distill.dataset.views import Annotations, Truth, equals
from deepmac_distill.errors import CheckpointError, ConfigError, DataError, MachineError
from deepmac_distill.models.build import build_model, require_backbone_weights
from deepmac_distill.models.compiled import require_compiler
from deepmac_distill.stages.data_files import image_folder
from deepmac_distill.stages.image_preflight import require_images
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.quality import require_quality_to_come
from deepmac_distill.stages.sources import source_of
from deepmac_distill.storage.fetching import fetched
from deepmac_distill.training.event_file import require_tensorboard
from deepmac_distill.training.state_bytes import StateBytes, state_bytes
from deepmac_distill.weights import transfer
from deepmac_distill.weights.card import read_card_if_any, require_lattice

BYTES_OF_A_BOX = 50  # in a label file, less than any takes
LONGEST_PATH = 3800  # of 4096, less the longest name that a stage writes
PIXEL_BYTES = 3 + 3 * 4  # of a batch in memory: as bytes, and as floats


def require_ready(job: Job, stages: Sequence[Stage]) -> None:
    """Refuse what these stages of a run would fail on later; those that are done are not done again.

    Raises:
        ConfigError, CheckpointError, ContractError: a model cannot be built, its initial weights not used, or
            a tracker is not installed.
        DataError: the training data lack images or boxes.
        MachineError: the output cannot be written to, or memory or disk is too small for it.
    """
    with job.ranks.one_first():
        _require_ready(job, stages)


def _require_ready(job: Job, stages: Sequence[Stage]) -> None:
    to_do = [stage for stage in stages if job.force or not (job.run.path / stage.name).exists()]
    if to_do:
        require_writable(job.run.path)
    roles = dict.fromkeys(stage.role for stage in stages if stage.kind in ("train", "label"))
    for role in roles:
        require_buildable(job, role)
    trainings = [stage for stage in to_do if stage.kind == "train"]
    if trainings and "tensorboard" in job.pipeline.log.to:
        require_tensorboard()
    for role in dict.fromkeys(stage.role for stage in trainings):
        require_even_parts(job, role)
        require_compilable(job, role)
    boxes = 0
    data = job.pipeline.data
    path = job.training_file()
    if trainings and data.source != "scenes" and path is not None:
        annotations = job.read(path)
        require_boxes(annotations)
        boxes = len(annotations.annotations)
        require_images(job, annotations, image_folder(data, data.train_images))
    if any(stage.kind == "label" for stage in to_do):
        require_quality_to_come(job.pipeline.labels, job.run.path, job.pipeline.holds_out)
    for role in roles:  # what may have to be fetched comes after what is here
        _require_imagenet(job, role)
    states = [(stage, state_of(getattr(job.pipeline, stage.role), classes=1)) for stage in trainings]
    _require_memory(job, states)
    _require_disk(job.run.path, [state for _, state in states], boxes)


def require_buildable(job: Job, role: Role) -> None:
    """Refuse a model that cannot be built or started, or a canvas that does not fit it, before any work.

    ImageNet weights are not asked for: see `_require_imagenet`.

    Raises:
        ConfigError: names the key.
        CheckpointError: weights to start from cannot be read or do not fit.
        ContractError: the teacher's segmenter does not keep the contract.
    """
    if role == "teacher" and not job.trains_teacher:
        source_of(job, "teacher")
        return
    recipe: RoleConfig = getattr(job.pipeline, role)
    try:
        with torch.device("meta"):  # shapes alone: no memory, no time
            model = build_model(recipe.model, num_classes=1, load_weights=False)
        if recipe.model.backbone_weights != "imagenet":
            require_backbone_weights(model, recipe.model)
    except (ConfigError, CheckpointError) as error:
        raise type(error)(f"{role}.{error}") from None
    sizes = {f"{role}.train.image_size_px": recipe.train.image_size_px}
    if recipe.look.in_windows:
        sizes[f"{role}.look.window_size_px"] = recipe.look.window_size_px
    if recipe.train.views != "images":
        key = "train" if recipe.train.window_size_px else "look"
        sizes[f"{role}.{key}.window_size_px"] = recipe.window_size_px
    for key, size_px in sizes.items():
        if size_px % (multiple := model.spec.size_divisibility):
            raise ConfigError(f"{key}: got {size_px}, expected a multiple of {multiple} for this backbone")
    if not recipe.train.init_from:
        return
    key, path = f"{role}.train.init_from", fetched(recipe.train.init_from)
    try:
        require_lattice(path, read_card_if_any(path), getattr(recipe.model, "lattice", None))
        transfer.what_fits(model, transfer.read_weights(path), str(path))
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from None


def _require_imagenet(job: Job, role: Role) -> None:
    """Fetch ImageNet weights that are not in the local cache, to see that they can be had."""
    model: ModelConfig = getattr(job.pipeline, role).model
    if model.backbone_weights != "imagenet" or (role == "teacher" and not job.trains_teacher):
        return
    try:
        with torch.device("meta"):
            built = build_model(model, num_classes=1, load_weights=False)
        require_backbone_weights(built, model)
    except (ConfigError, CheckpointError) as error:
        raise type(error)(f"{role}.{error}") from None


def require_even_parts(job: Job, role: Role) -> None:
    """Refuse a batch that the processes cannot share in equal parts."""
    size, world = getattr(job.pipeline, role).train.batch_size, job.ranks.world
    if size % world:
        raise ConfigError(
            f"{role}.train.batch_size: got {size} for {world} processes, expected a multiple of {world}, "
            "so that each takes an equal part"
        )


def require_compilable(job: Job, role: Role) -> None:
    """Refuse `train.compile` where it cannot act: in several processes, or without a compiler."""
    key = f"{role}.train.compile"
    if not getattr(job.pipeline, role).train.compile:
        return
    if job.ranks.world > 1:
        raise ConfigError(f"{key}: got true for {job.ranks.world} processes, expected one, or false")
    require_compiler(job.device, key)


def require_writable(run: Path) -> None:
    """Refuse a run whose folder cannot be made or written to. Nothing is written.

    Raises:
        MachineError: names the folder.
    """
    run = run.absolute()
    there = _first_that_exists(run)
    if len(os.fsencode(run)) > LONGEST_PATH:
        raise MachineError(f"{run}: is too long; expected a path of at most {LONGEST_PATH} bytes")
    if _only_read(there):
        raise MachineError(f"{run}: cannot be written to; expected an output directory (--out) that can")


def require_boxes(annotations: Annotations) -> None:
    """Refuse a set without an image, or without a box that can be used.

    Raises:
        DataError: names the file.
    """
    if not len(annotations.images):
        raise DataError(f"{annotations.path}: no images; expected at least one to train on")
    if not equals(annotations.annotations, "status", "ok").any():
        raise DataError(f"{annotations.path}: no box that can be used; expected at least one to train on")


def require_evaluable(truth: Truth) -> None:
    """Refuse a set on which nothing can be evaluated.

    Raises:
        DataError: it has no image, no mask of a usable box, or a negative id.
    """
    if not len(truth.images):
        raise DataError(f"{truth.path}: no images; expected at least one to evaluate on")
    for kind, ids in (
        ("image", truth.images["image_id"].to_numpy()),
        ("category", np.array(truth.classes.category_ids)),
    ):
        if ids.min() < 0:
            raise DataError(f"{truth.path}: {kind} id {ids.min()}: expected 0 or more, as COCO's tools do")
    usable = equals(truth.annotations, "status", "ok")
    if not (truth.has_human_mask() & usable).any():
        raise DataError(
            f"{truth.path}: no mask that a person drew; expected at least one to evaluate on, or no "
            "validation set"
        )


def state_of(recipe: RoleConfig, classes: int) -> StateBytes:
    """What is in memory while a recipe trains, counted on a model on the meta device."""
    with torch.device("meta"):
        model = build_model(recipe.model, classes, load_weights=False)
    settings = recipe.train
    return state_bytes(model, settings.optimizer, settings.momentum, averaged=bool(settings.ema_decay))


def _require_memory(job: Job, states: Sequence[tuple[Stage, StateBytes]]) -> None:
    """Of less than weights, gradients and one batch no training gets by."""
    free = devices.free_bytes(job.device)
    for stage, state in states:
        train = getattr(job.pipeline, stage.role).train
        need = state.total + train.batch_size * train.image_size_px**2 * PIXEL_BYTES
        if free is not None and need > free:
            raise MachineError(
                f"{stage.name}: needs more than {_gigabytes(need)} of memory on {job.device}, "
                f"{_gigabytes(free)} are free; expected a smaller model, or less of "
                f"{stage.role}.train.batch_size, {stage.role}.train.image_size_px"
            )


def _require_disk(run: Path, states: Sequence[StateBytes], boxes: int) -> None:
    """The weights of all trainings stay; a state is written beside the one before; labels beside units."""
    resumable = max((state.resumable for state in states), default=0)
    need = sum(state.weights for state in states) + 2 * max(resumable, boxes * BYTES_OF_A_BOX)
    free = shutil.disk_usage(_first_that_exists(run.absolute())).free
    if states and need > free:
        raise MachineError(
            f"{run}: needs more than {_gigabytes(need)} of disk, {_gigabytes(free)} are free; expected that "
            "much, or another --out"
        )


def _only_read(folder: Path) -> bool:
    """Whether nothing can be made in a folder; whoever may do anything still cannot write to a disk that is
    mounted to be read.
    """
    mounted = hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    return mounted or not os.access(folder, os.W_OK | os.X_OK)


def _first_that_exists(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
