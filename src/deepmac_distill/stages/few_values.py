"""A note where batch norms of a mask head would see too few values to learn their statistics."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from deepmac_distill.chain import Role
from deepmac_distill.config import DeepMacConfig, RoleConfig
from deepmac_distill.models.blocks import MIN_VALUES, BatchNorm
from deepmac_distill.models.build import build_model
from deepmac_distill.models.deepmac import DeepMac, mask_input_channels


def few_values_note(recipe: RoleConfig, role: Role) -> str:
    """What a user should know of the masks in a pass, if anything; empty where nobody knows how many.

    On the 1 x 1 maps of a deep hourglass a pass of 8 masks has 8 values a channel, so these batch norms use
    their running statistics, which then stay as they began (see `models.blocks.BatchNorm`).
    """
    model, masks = recipe.model, _masks_at_most(recipe)
    if masks is None or not isinstance(model, DeepMacConfig):
        return ""
    needed = [-(-MIN_VALUES // cells) for cells in _cells_of_batch_norms(model)]
    few = sum(masks < least for least in needed)
    if not few:
        return ""
    return (
        f"{role}.train.batch_size = {recipe.train.batch_size}: {few} of {len(needed)} batch norms of the "
        f"mask head see fewer than {MIN_VALUES} values a channel in a pass of {masks} masks, so their "
        f"statistics stay as they began; {max(needed)} masks in a pass are enough"
    )


def _masks_at_most(recipe: RoleConfig) -> int | None:
    """That pass a mask head at once, where the recipe alone decides it."""
    model, train = recipe.model, recipe.train
    if not isinstance(model, DeepMacConfig):
        return None
    if train.views == "windows":
        return train.batch_size
    cap = model.mask_instances_per_image
    return train.batch_size * cap if cap else None


def _cells_of_batch_norms(config: DeepMacConfig) -> list[int]:
    """Cells of the map of one crop that each batch norm of the mask head sees."""
    cells: list[int] = []

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        cells.append(given[0].shape[2] * given[0].shape[3])

    channels = mask_input_channels(config.pixel_embedding, config.instance_embedding, config.coordinates)
    light = replace(config, backbone="tiny", backbone_weights="none")
    with torch.device("meta"):  # shapes alone
        model = build_model(light, num_classes=1, load_weights=False).eval()
        crop = torch.empty(1, channels, config.mask_size, config.mask_size)
    assert isinstance(model, DeepMac)
    for part in model.mask_head.modules():
        if isinstance(part, BatchNorm):
            part.register_forward_pre_hook(count)
    model.mask_head(crop)
    return cells
