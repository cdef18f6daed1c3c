"""What one stage needs: arithmetic on measured rates, counts of the data and the recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import mean

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig, ModelConfig, RoleConfig
from deepmac_distill.config.schema import EvaluationConfig
from deepmac_distill.forecast.cost import INFERENCE_SHARE, Load, Rates, training_bytes
from deepmac_distill.forecast.inventory import Inventory, PerImage
from deepmac_distill.training.state_bytes import StateBytes

CARD_BYTES = 4_000  # before the weights, more than most have
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


@dataclass(frozen=True, slots=True)
class _Passes:
    """One kind of pass of a training."""

    fullest: Load
    usual: Load


def _training_passes(recipe: RoleConfig, masks: PerImage) -> list[_Passes]:
    """The kinds of passes of a training, each of which is as frequent as the others."""
    settings, canvases = recipe.train, recipe.train.batch_size
    fullest = Load(images=canvases, size_px=settings.image_size_px, masks=masks.in_batch(canvases))
    images = _Passes(fullest, replace(fullest, masks=masks.mean * canvases))
    window = Load(images=canvases, size_px=recipe.window_size_px, masks=canvases)
    windows = _Passes(window, window)
    return {"images": [images], "windows": [windows], "both": [images, windows]}[settings.views]


def _looking(recipe: RoleConfig, images: int, boxes: float) -> list[Load]:
    """What is looked at for masks of given boxes.

    A window is a canvas of its own: a backbone pass for each box instead of one for each image. By size the
    count is from above, as if every box were small and every image had a large one too.
    """
    look, loads = recipe.look, []
    if look.in_images:
        shown = 0.0 if look.boxes == "by-size" else boxes
        loads.append(Load(images=images, size_px=recipe.train.image_size_px, masks=shown))
    if look.in_windows:
        loads.append(Load(images=math.ceil(boxes), size_px=look.window_size_px, masks=boxes))
    return loads * (1 + look.mirror)


def _inference_seconds(loads: Iterable[Load], rates: Rates | None) -> float | None:
    return None if rates is None else INFERENCE_SHARE * sum(map(rates.seconds, loads))


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
    passes = settings.steps * settings.gradient_accumulation_steps
    kinds = _training_passes(recipe, masks)
    memory = [training_bytes(state, rates, kind.fullest, margin) for kind in kinds] if rates else []
    return StageNeed(
        stage=stage,
        memory_bytes=max(memory, default=state.total),
        disk_bytes=state.weights + CARD_BYTES,
        scratch_bytes=2 * state.resumable,
        seconds=passes * mean(rates.seconds(kind.usual) for kind in kinds) if rates else None,
    )


def evaluation_need(
    stage: str, recipe: RoleConfig, data: Inventory, settings: EvaluationConfig, rates: Rates | None
) -> StageNeed:
    """Of masks in given boxes and, where the model has it and it is not switched off, of detection."""
    detects = _detects(recipe.model) and not settings.gt_boxes_only
    found = settings.max_detections if detects else 0  # for each image
    loads = _looking(recipe, data.images, data.images * data.usable.mean)
    if detects:
        whole = Load(images=data.images, size_px=recipe.train.image_size_px, masks=data.images * found)
        loads.append(whole)
    return StageNeed(
        stage=stage,
        disk_bytes=ENTRY_BYTES * (data.boxes + data.images * found),
        seconds=_inference_seconds(loads, rates) if data.images else None,
    )


def labeling_need(
    stage: str, recipe: RoleConfig, data: Inventory, soft: bool, rates: Rates | None
) -> StageNeed:
    """Of the label file; its units are beside it while it is put together."""
    wanted = max(data.usable.mean - data.seen.mean, 0.0)
    grid_bytes = _mask_cells(recipe.model) ** 2 if soft else 0
    file_bytes = ENTRY_BYTES * data.boxes + grid_bytes * wanted * data.images
    loads = _looking(recipe, data.images, data.images * wanted)
    seconds = _inference_seconds(loads, rates) if data.images else None
    return StageNeed(stage=stage, disk_bytes=file_bytes, scratch_bytes=file_bytes, seconds=seconds)


def selection_need(stage: str, data: Inventory) -> StageNeed:
    """Of the COCO file that the rules make of the labels."""
    return StageNeed(stage=stage, disk_bytes=data.json_bytes + ENTRY_BYTES * data.boxes, seconds=0.0)


def masks_trained_on(model: ModelConfig, given: PerImage, boxes: PerImage) -> PerImage:
    """Crops that pass the mask head for each image, where the data give so many masks and boxes."""
    if isinstance(model, DeepMacConfig) and model.batch_norm_boxes == "all":
        return boxes
    if isinstance(model, MaskRcnnConfig) and model.mask_boxes == "proposals+gt":
        sampled = model.sampled_proposals // 4  # at most a quarter lie on objects, whatever the data give
        return PerImage(mean=sampled, most=sampled)
    cap = model.mask_instances_per_image if isinstance(model, DeepMacConfig) else 0
    return PerImage(mean=min(given.mean, cap), most=min(given.most, cap)) if cap else given


def _detects(model: ModelConfig) -> bool:
    return isinstance(model, MaskRcnnConfig) or (isinstance(model, DeepMacConfig) and model.detection)


def _mask_cells(model: ModelConfig) -> int:
    return 2 * model.mask_crop if isinstance(model, MaskRcnnConfig) else model.mask_size
