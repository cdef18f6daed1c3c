"""What the mask heads of the comparison cost: parameters, multiply-adds, saved activations, milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig, ModelConfig
from deepmac_distill.experiments.mask_head_rows import ROWS
from deepmac_distill.experiments.mask_heads import head_config
from deepmac_distill.models.build import build_model
from deepmac_distill.models.catalog import size_of
from deepmac_distill.models.deepmac import mask_input_channels

COST_CROPS, COST_ROUNDS = 32, 5


@dataclass(frozen=True, slots=True)
class Cost:
    """What one mask head costs for one instance."""

    parameters: int
    gmacs: float  # multiply-adds in 10**9
    saved_mib: float  # float32 activations that training saves
    forward_ms: float
    training_ms: float  # of a forward and backward pass


def costs(base_models: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, Cost]:
    """Of each row's mask head, for one instance: its size, and the ms of a forward and of a training pass."""
    found = {}
    for name in names:
        row = ROWS[name]
        recipe = head_config(row, base_models[row.base])
        shape = (COST_CROPS, *_crop_shape(recipe))
        with torch.device("meta"):
            shapes = build_model(recipe, 1, load_weights=False).get_submodule("mask_head")
            size = size_of(shapes, torch.empty(shape))
        head = build_model(recipe, 1, load_weights=False).get_submodule("mask_head")
        forward_ms, training_ms = _milliseconds(head, torch.randn(shape))
        found[name] = Cost(**asdict(size), forward_ms=forward_ms, training_ms=training_ms)
    return found


def _crop_shape(recipe: ModelConfig) -> tuple[int, int, int]:
    """Channels and sides of what a mask head gets of one instance."""
    match recipe:
        case DeepMacConfig():
            channels = mask_input_channels(
                recipe.pixel_embedding, recipe.instance_embedding, recipe.coordinates
            )
            return channels, recipe.mask_size, recipe.mask_size
        case MaskRcnnConfig():
            return recipe.fpn_channels, recipe.mask_crop, recipe.mask_crop
    raise ValueError(f"{recipe}: has no mask head")


def _milliseconds(head: nn.Module, crops: Tensor) -> tuple[float, float]:
    """Of a forward pass and of a forward and backward pass, for one crop; medians."""

    def forward() -> None:
        with torch.inference_mode():
            head.eval()(crops)

    def training() -> None:
        head.train()(crops).mean().backward()

    return 1000 * _median_seconds(forward) / len(crops), 1000 * _median_seconds(training) / len(crops)


def _median_seconds(work: Callable[[], None]) -> float:
    """Of `COST_ROUNDS` rounds after one that is not timed."""
    work()
    rounds = []
    for _ in range(COST_ROUNDS):
        started = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - started)
    return statistics.median(rounds)
