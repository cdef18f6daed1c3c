"""Shapes of the masks that a training may see, for the model that weighs them: ShapeMask's."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from deepmac_distill.data.dataset import AnnotatedImages
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.labels.lesson import Lesson
from deepmac_distill.models.shapemask import ShapeMaskHead

MASKS = 10_000  # at most, evenly spread over the annotations


def learn_shapes(model: nn.Module, lesson: Lesson, images: ImageStore) -> None:
    """Fill the shapes of a ShapeMask with those of the lesson's masks; another model has none."""
    head = getattr(model, "mask_head", None)
    if not isinstance(head, ShapeMaskHead):
        return
    source = AnnotatedImages(lesson.annotations, images, mask_size=head.shapes.shape[-1], soft=lesson.soft)
    rows = source.masked_rows()
    kept = rows[np.linspace(0, len(rows) - 1, min(MASKS, len(rows)), dtype=np.int64)] if len(rows) else rows
    head.learn_shapes(torch.from_numpy(source.mask_grids(kept)).float() / 255)
