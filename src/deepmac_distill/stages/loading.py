"""A trained model from its weights file, and a data set as that model wants to see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deepmac_distill import config
from deepmac_distill.config import ModelConfig
from deepmac_distill.data.augment import evaluation_views
from deepmac_distill.data.dataset import BoxDataset
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.coco import Annotations
from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.files import sha256_of_file
from deepmac_distill.models.build import build_model
from deepmac_distill.weights.card import ModelCard, load_weights, read_card, require_classes


def sha256_of_weights(weights: Path) -> str:
    """Hash of a weights file.

    Raises:
        CheckpointError: no such file, or not weights of ours.
    """
    read_card(weights)
    return sha256_of_file(weights)


def load_model(
    weights: Path,
    device: torch.device,
    classes: Classes | None = None,
    seen: tuple[bool, ...] | None = None,
) -> tuple[nn.Module, ModelCard]:
    """The model in a weights file, ready to use, and its card.

    Args:
        classes: what the model must know; None takes any.
        seen: (K,) classes whose masks it must have been shown, if not those that `classes` says.

    Raises:
        CheckpointError: not weights of ours, weights that do not fit the card, or (where `classes` are
            given) a model of other classes.
    """
    card = read_card(weights)
    if classes is not None:
        require_classes(weights, card, classes.names, classes.seen if seen is None else seen)
    recipe = config.build(ModelConfig, card.model, str(weights))
    try:
        model = build_model(recipe, len(card.class_names), load_weights=False)
    except ConfigError as error:
        raise CheckpointError(f"{weights}: {error}") from None
    load_weights(weights, model)
    return model.to(device).eval(), card


def boxes_for(
    card: ModelCard, annotations: Annotations, images: Path, wanted: NDArray[np.bool_] | None = None
) -> BoxDataset:
    """Whole images at the size the model was trained at, with all usable boxes or the (N,) `wanted` ones."""
    return BoxDataset(
        annotations,
        images,
        mask_size=1,  # without masks no size is better than another
        view_of=evaluation_views(card.image_size_px),
        with_masks=False,
        wanted=wanted,
    )
