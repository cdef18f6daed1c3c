"""Everything that can be named in a pipeline, with its size: counted on the models, not typed.

Shapes alone are computed (the meta device), so that the largest takes no memory and a moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig, ModelConfig
from deepmac_distill.models.activations import saved_activations
from deepmac_distill.models.build import HOURGLASS_BACKBONES, RESNETS, build_model
from deepmac_distill.models.mask_heads import MASK_HEADS, build_mask_head
from deepmac_distill.models.spinenet import SPINENETS
from deepmac_distill.paper import Figure, figures

CROPS = (2, 50, 32, 32)  # what Deep-MAC's mask heads see; two, since a bottom of 1 x 1 has no variance alone
BACKBONE_PX = 512
TINY_WIDTH = 32  # as the demo has it
ROI_CHANNELS = 256  # of the maps that Mask R-CNN's mask heads see
ROI_HEADS = {  # cells a side of the crop, and channels after the first convolution
    "default": (14, 256),
    "default-batch-norm": (14, 256),
    "resnet-4": (14, 64),
    "hourglass-20": (16, 64),
    "hourglass-52": (32, 64),
    "shapemask": (32, 128),
    "cpmask": (14, 256),
}
SPINENET_ANCHOR_SCALES = (1.0, 1.26, 1.587)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a module takes, of a mask head for an instance and of a backbone for an image."""

    parameters: int
    gmacs: float | None  # multiply-adds in 10**9; None: not counted
    saved_mib: float | None  # float32 activations that training saves; None: not counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Size):
    """One thing with a name."""

    kind: str  # mask head | mask head of mask_rcnn | backbone | model
    name: str
    paper: str | None  # where the paper has it
    paper_figure: float | None  # mask AP of unseen classes, unless `paper` names others


def catalog() -> Iterator[Entry]:
    """Mask heads, backbones, and the models of the paper, as 80-class detectors."""
    for name in MASK_HEADS:
        with torch.device("meta"):
            head = build_mask_head(name, in_channels=CROPS[1])
            yield _entry("mask head", name, size_of(head, torch.empty(CROPS)))
    for name, (crop, _) in ROI_HEADS.items():
        with torch.device("meta"):
            model = build_model(_mask_rcnn("resnet50", name, "gt", True), 1, load_weights=False)
            crops = torch.empty(2, ROI_CHANNELS, crop, crop)
            yield _entry("mask head of mask_rcnn", name, size_of(model.get_submodule("mask_head"), crops))
    images = (1, 3, BACKBONE_PX, BACKBONE_PX)
    for trunk in _backbones():
        with torch.device("meta"):
            backbone = build_model(trunk, 1, load_weights=False).get_submodule("backbone")
            pixels = torch.empty(images, dtype=torch.uint8)
            yield _entry("backbone", trunk.backbone, size_of(backbone, pixels))
    for name, config in paper_models():
        with torch.device("meta"):
            model = build_model(config, 80, load_weights=False)
        yield _entry("model", name, Size(parameters=_parameters(model), gmacs=None, saved_mib=None))
    # Not built: it has no weights to count, and OpenCV need not be there.
    yield _entry("model", "grabcut", Size(parameters=0, gmacs=None, saved_mib=None))


def _backbones() -> Iterator[DeepMacConfig | MaskRcnnConfig]:
    yield DeepMacConfig(backbone="tiny", backbone_width=TINY_WIDTH, mask_head="resnet-4")
    for name in (*HOURGLASS_BACKBONES, *RESNETS):
        yield DeepMacConfig(backbone=name, mask_head="resnet-4")
    for name in SPINENETS:
        yield MaskRcnnConfig(backbone=name)


def paper_models() -> Iterator[tuple[str, ModelConfig]]:
    """Name and configuration of the paper's models."""
    for backbone, head in (
        ("hourglass-104", "resnet-4"),
        ("hourglass-104", "hourglass-20"),
        ("hourglass-104", "hourglass-52"),
        ("hourglass-104", "hourglass-100"),
        ("hourglass-52", "hourglass-52"),
        ("resnet101", "resnet-4"),
        ("resnet101", "hourglass-10"),
        ("resnet101", "hourglass-20"),
    ):
        yield f"deepmac {backbone}, {head}", DeepMacConfig(backbone=backbone, mask_head=head)
    for head in ("resnet-4", "hourglass-20", "hourglass-52"):
        config = DeepMacConfig(backbone="hourglass-104", mask_head=head, detection=False)
        yield f"deepmac hourglass-104, {head}, without detection", config
    rows: tuple[tuple[str, str, Literal["gt", "proposals+gt"]], ...] = (
        ("resnet50", "default-batch-norm", "proposals+gt"),
        ("resnet50", "default-batch-norm", "gt"),
        ("resnet101", "default-batch-norm", "proposals+gt"),
        ("resnet101", "default-batch-norm", "gt"),
        ("resnet101", "resnet-4", "gt"),
        ("resnet101", "hourglass-20", "gt"),
        ("resnet101", "hourglass-52", "gt"),
        ("spinenet-143", "hourglass-52", "gt"),
    )
    for backbone, head, mask_boxes in rows:
        yield f"mask_rcnn {backbone}, {head}, {mask_boxes}", _mask_rcnn(backbone, head, mask_boxes, True)
    for backbone, head in (
        ("resnet50", "default-batch-norm"),
        ("resnet101", "weight-transfer"),
        ("spinenet-143", "default-batch-norm"),
    ):
        name = f"mask_rcnn {backbone}, {head}, a mask for each class"
        yield name, _mask_rcnn(backbone, head, "proposals+gt", False)


def _mask_rcnn(
    backbone: str, head: str, mask_boxes: Literal["gt", "proposals+gt"], class_agnostic: bool
) -> MaskRcnnConfig:
    """With the crop and the width that the paper gives each head, and SpineNet's anchors."""
    crop, channels = ROI_HEADS.get(head, (14, 256))
    return MaskRcnnConfig(
        backbone=backbone,
        mask_head=head,
        mask_crop=crop,
        mask_channels=channels,
        mask_boxes=mask_boxes,
        class_agnostic=class_agnostic,
        anchor_scales=SPINENET_ANCHOR_SCALES if backbone in SPINENETS else (1.0,),
    )


def size_of(module: nn.Module, inputs: Tensor) -> Size:
    """Counted in one training pass of `module` over B `inputs`, both on the meta device."""
    with FlopCounterMode(display=False) as flops, saved_activations(module) as saved:
        _graph = module.train()(inputs)  # held, so that no saved tensor's storage is used again
    return Size(
        parameters=_parameters(module),
        gmacs=flops.get_total_flops() / 2 / len(inputs) / 1e9,
        saved_mib=sum(saved.values()) / len(inputs) / 2**20,
    )


def _entry(kind: str, name: str, size: Size) -> Entry:
    # A backbone may have the name of a mask head; the paper's figures are of Deep-MAC's heads and of models.
    figure = paper_figure(name) if kind in ("mask head", "model") else None
    where, value = (None, None) if figure is None else (figure.where, figure.value)
    return Entry(kind=kind, name=name, **asdict(size), paper=where, paper_figure=value)


def paper_figure(name: str) -> Figure | None:
    """What the paper has of a mask head or model; Deep-MAC on Hourglass-104 goes by its mask head alone."""
    return figures().get(name.removeprefix("deepmac hourglass-104, "))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
