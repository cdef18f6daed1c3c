"""A few passes of the real model, from which the rest of a training is reckoned."""

from __future__ import annotations

import math
from dataclasses import replace

from deepmac_distill import devices
from deepmac_distill.config import MaskRcnnConfig, RoleConfig
from deepmac_distill.forecast.cost import (
    Pass,
    Rates,
    measure_pass,
    rates_of,
    sample_batch,
)
from deepmac_distill.forecast.inventory import Inventory, PerImage
from deepmac_distill.forecast.stage_need import masks_trained_on
from deepmac_distill.models.build import build_model
from deepmac_distill.models.recompute import recompute_blocks
from deepmac_distill.stages.job import Job

FIRST_CANVAS_PX = 128  # of the passes that are measured; larger ones follow while they are short
LONGEST_PASS_SECONDS = 10.0
CLASSES_OF_COCO = 80  # where the annotations are not there to be counted


def class_count(data: Inventory) -> int:
    """How many classes a model for these data has."""
    return len(data.class_names) or CLASSES_OF_COCO


def measured_rates(job: Job, recipe: RoleConfig, data: Inventory, free_bytes: int | None) -> Rates:
    """A few passes of the real model: small ones first, larger canvases while they are short and fit."""
    config = recipe.model
    if isinstance(config, MaskRcnnConfig):  # of proposals there are as many masks whatever is given
        config = replace(config, mask_boxes="gt")
    model = build_model(config, class_count(data), load_weights=False)
    model.to(job.device).train()
    autocast = devices.training_dtype(job.device, recipe.train.autocast)
    if recipe.train.recompute:
        recompute_blocks(model)
    free = math.inf if free_bytes is None else free_bytes
    one = PerImage(mean=1, most=1)
    masks = max(1, round(masks_trained_on(recipe.model, one, one).mean))

    def measured(images: int, size_px: int, masks: int) -> Pass:
        batch = sample_batch(images, size_px, masks, model.target_mask_size)
        return measure_pass(model, batch, job.device, autocast)

    multiple, size_px = model.spec.size_divisibility, _largest_canvas(recipe)
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
        if growth * largest.seconds > LONGEST_PASS_SECONDS or 2 * growth * largest.saved_bytes > free:
            break
        largest = measured(2, following, masks)
    return rates_of(small, more_masks, more_images, largest)


def _largest_canvas(recipe: RoleConfig) -> int:
    """Side of the largest canvas that a recipe trains on."""
    sizes = {"images": recipe.train.image_size_px, "windows": recipe.window_size_px}
    return sizes.get(recipe.train.views, max(sizes.values()))
