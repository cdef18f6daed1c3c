"""What the mask heads of the comparison cost: parameters, multiply-adds, saved activations, milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from deepmac_distill.config import DeepMacConfig
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


def costs(model: DeepMacConfig, heads: Iterable[str]) -> dict[str, Cost]:
    """Of each mask head in a model, for one instance: its size, ms of a forward and of a training pass."""
    channels = mask_input_channels(model.pixel_embedding, model.instance_embedding, model.coordinates)
    shape = (COST_CROPS, channels, model.mask_size, model.mask_size)
    found = {}
    for name in heads:
        recipe = replace(model, mask_head=name, backbone_weights="none")
        with torch.device("meta"):
            shapes = build_model(recipe, 1, load_weights=False).get_submodule("mask_head")
            size = size_of(shapes, torch.empty(shape))
        head = build_model(recipe, 1, load_weights=False).get_submodule("mask_head")
        forward_ms, training_ms = _milliseconds(head, torch.randn(shape))
        found[name] = Cost(**asdict(size), forward_ms=forward_ms, training_ms=training_ms)
    return found


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
