"""What one stage needs: arithmetic on measured rates, counts of the data and the recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig, ModelConfig, RoleConfig
from deepmac_distill.config.schema import EvaluationConfig
from deepmac_distill.forecast.cost import INFERENCE_SHARE, Load, Rates, StateBytes, training_bytes
from deepmac_distill.forecast.inventory import Inventory, PerImage

ENTRY_BYTES = 500  # of a mask with its box and numbers in a file, more than most take


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNeed:
    """What one stage takes."""

    stage: str
    memory_bytes: float | None = None  # None: less than the trainings
    disk_bytes: float = 0.0
    scratch_bytes: float = 0.0  # gone when the stage is done
    seconds: float | None = None  # None: not known
    done: bool = False  # in this run, before


def peak_disk_bytes(needs: Iterable[StageNeed]) -> float:
    """The most at once: what the stages before left, and all of the one at work.

    >>> first = StageNeed(stage="teacher", disk_bytes=1, scratch_bytes=6)
    >>> peak_disk_bytes([first, StageNeed(stage="student", disk_bytes=2, scratch_bytes=3)])
    7.0
    """
    kept = peak = 0.0
    for need in needs:
        peak = max(peak, kept + need.disk_bytes + need.scratch_bytes)
        kept += need.disk_bytes
    return peak


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
        disk_bytes=state.weights,
        scratch_bytes=2 * state.resumable,
        seconds=None if rates is None else passes * rates.seconds(usual),
    )


def evaluation_need(
    stage: str, recipe: RoleConfig, data: Inventory, settings: EvaluationConfig, rates: Rates | None
) -> StageNeed:
    """Of masks in given boxes and, where the model has it and it is not switched off, of detection."""
    detects = _detects(recipe.model) and not settings.gt_boxes_only
    found = settings.max_detections if detects else 0  # for each image
    views = 2 if detects else 1
    size_px = recipe.train.image_size_px
    load = Load(images=views * data.images, size_px=size_px, masks=data.images * (data.usable.mean + found))
    return StageNeed(
        stage=stage,
        disk_bytes=ENTRY_BYTES * (data.boxes + data.images * found),
        seconds=INFERENCE_SHARE * rates.seconds(load) if rates is not None and data.images else None,
    )


def labeling_need(
    stage: str, recipe: RoleConfig, data: Inventory, soft: bool, rates: Rates | None
) -> StageNeed:
    """Of the label file; its units are beside it while it is put together."""
    wanted = max(data.usable.mean - data.seen.mean, 0.0)
    grid_bytes = _mask_cells(recipe.model) ** 2 if soft else 0
    file_bytes = ENTRY_BYTES * data.boxes + grid_bytes * wanted * data.images
    load = Load(images=data.images, size_px=recipe.train.image_size_px, masks=data.images * wanted)
    seconds = INFERENCE_SHARE * rates.seconds(load) if rates is not None and data.images else None
    return StageNeed(stage=stage, disk_bytes=file_bytes, scratch_bytes=file_bytes, seconds=seconds)


def selection_need(stage: str, data: Inventory) -> StageNeed:
    """Of the COCO file that the rules make of the labels."""
    return StageNeed(stage=stage, disk_bytes=data.json_bytes + ENTRY_BYTES * data.boxes, seconds=0.0)


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
