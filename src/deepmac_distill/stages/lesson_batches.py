"""What a training sees, pass after pass: whole images, windows around instances, or both in turn."""

from __future__ import annotations

from collections.abc import Iterator

from deepmac_distill.config import RoleConfig
from deepmac_distill.data.augment import training_views
from deepmac_distill.data.dataset import AnnotatedImages, BoxDataset
from deepmac_distill.data.loader import WHOLE, alternating_batches, training_batches
from deepmac_distill.data.windows import WindowDataset
from deepmac_distill.structures import Batch
from deepmac_distill.training.loop import LOG_EVERY_STEPS


def lesson_batches(
    recipe: RoleConfig, source: AnnotatedImages, seed: int, first: int, workers: int, part: slice = WHOLE
) -> Iterator[Batch]:
    """Batches without end from pass `first` on, by the views of a recipe.

    Args:
        part: which places of each batch, see `training_batches`.

    Raises:
        DataError: there is no image, or no mask for windows, or an image cannot be read.
    """
    size = recipe.train.batch_size
    match recipe.train.views:
        case "images":
            return training_batches(_images(recipe, source, seed), size, seed, first, workers, part)
        case "windows":
            return training_batches(_windows(recipe, source, seed), size, seed, first, workers, part)
        case "both":
            images, windows = _images(recipe, source, seed), _windows(recipe, source, seed)
            return alternating_batches(images, windows, size, seed, first, workers, part)


def log_every(recipe: RoleConfig) -> int:
    """Steps from one line of the log to the next.

    Where a step holds an odd number of passes that alternate, every second step begins with windows; an odd
    number of steps shows both.
    """
    alternates = recipe.train.views == "both" and recipe.train.gradient_accumulation_steps % 2
    return LOG_EVERY_STEPS + 1 if alternates else LOG_EVERY_STEPS


def _images(recipe: RoleConfig, source: AnnotatedImages, seed: int) -> BoxDataset:
    train = recipe.train
    views = training_views(train.image_size_px, train.scale_range, train.flip_fraction, train.color_jitter)
    jitter = 0.0 if recipe.detects else train.box_jitter  # detection learns boxes as they are
    return BoxDataset(source, views, seed, box_jitter=jitter)


def _windows(recipe: RoleConfig, source: AnnotatedImages, seed: int) -> WindowDataset:
    train = recipe.train
    return WindowDataset(
        source,
        size_px=recipe.window_size_px,
        context=recipe.window_context,
        scale_range=train.window_scale_range,
        shift=train.window_shift,
        box_jitter=train.box_jitter,
        flip_fraction=train.flip_fraction,
        color_jitter=train.color_jitter,
        seed=seed,
    )
