"""What model is in a checkpoint of the authors: read from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.models.build import HOURGLASS_BACKBONES, build_model
from deepmac_distill.models.mask_heads import MASK_HEADS, build_mask_head
from deepmac_distill.weights.tensorflow.convert import Shape, TfModel, misfit
from deepmac_distill.weights.tensorflow.names import BACKBONE, HEADS, MASK_NET, TfPath

_HEAD = ("0", "layer_with_weights-1", "kernel")  # the last kernel of a head on the first stack
_COUNTER = "num_batches_tracked"
_MAX_CHANNELS = 8192


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model of ours that a checkpoint fills."""

    recipe: DeepMacConfig
    num_classes: int  # channels of its heatmap
    masks: bool  # whether it has a mask head; else it is a detector of boxes


def architecture_of(model: TfModel, mask_size: int) -> Architecture:
    """The Deep-MAC or CenterNet in a checkpoint.

    Args:
        mask_size: cells a side of crop and mask, which no tensor has.

    Raises:
        ValueError: it is another model.
    """
    stacks = model.count((*BACKBONE, "hourglass_network"))
    backbones = {count: name for name, count in HOURGLASS_BACKBONES.items()}
    if stacks not in backbones:
        raise ValueError(
            f"got a backbone of {stacks} hourglasses, expected {' or '.join(backbones.values())}: "
            "a Deep-MAC or CenterNet of the authors on hourglasses"
        )
    masks = model.key(("_mask_net", "project_out", "kernel")) is not None
    common = DeepMacConfig(
        backbone=backbones[stacks],
        backbone_width=_outputs(model, (*BACKBONE, "output_conv", "0", "conv", "kernel")),
        head_channels=_outputs(model, (*HEADS, "object_center", "0", "layer_with_weights-0", "kernel")),
        mask_size=mask_size,
        lattice="reference",
    )
    classes = _outputs(model, (*HEADS, "object_center", *_HEAD))
    return Architecture(_with_mask_head(model, common) if masks else common, classes, masks)


def tensors_of(architecture: Architecture, num_classes: int) -> dict[str, Shape]:
    """Name and shape of all tensors that a checkpoint has to fill; shapes alone are computed.

    Args:
        num_classes: channels of the heatmap that are kept.
    """
    with torch.device("meta"):
        model = build_model(architecture.recipe, num_classes, load_weights=False)
    shapes = _shapes(model)
    if architecture.masks:
        return shapes
    return {
        name: shape for name, shape in shapes.items() if name.startswith("backbone.") or ".center." in name
    }


def counters_of(names: Mapping[str, Shape]) -> list[str]:
    """Names of the counters of batch norms beside these tensors, which start from zero."""
    means = [name for name in names if name.endswith(".running_mean")]
    return [name.removesuffix("running_mean") + _COUNTER for name in means]


def _with_mask_head(model: TfModel, common: DeepMacConfig) -> DeepMacConfig:
    pixel, instance = (
        _outputs(model, (*HEADS, name, *_HEAD)) for name in ("PIXEL_EMBEDDING", "INSTANCE_EMBEDDING")
    )
    hourglass, residual = (
        (*MASK_NET, "conv_input", "conv_block", "conv", "kernel"),
        (*MASK_NET, "input_layer", "kernel"),
    )
    first = model.shape(hourglass) or model.shape(residual)
    if first is None or len(first) != 4:
        raise ValueError(f"{'/'.join(MASK_NET)}: got another mask head, expected an hourglass or a ResNet")
    inputs, width = (_channels(MASK_NET, count) for count in first[2:])
    if inputs - pixel - instance not in (0, 2):
        expected = pixel + instance + 2
        raise ValueError(f"{'/'.join(MASK_NET)}: got {inputs} channels of a crop, expected {expected}")
    name = _mask_head_of(model, inputs, width)
    return DeepMacConfig(
        backbone=common.backbone,
        backbone_width=common.backbone_width,
        head_channels=common.head_channels,
        mask_head=name,
        mask_width=width,
        mask_size=common.mask_size,
        pixel_embedding=pixel,
        instance_embedding=instance,
        coordinates=inputs > pixel + instance,
        lattice=common.lattice,
    )


def _mask_head_of(model: TfModel, inputs: int, width: int) -> str:
    """The largest mask head of ours that fits: the tensors of a small one can be among those of a larger."""
    best, most, closest = "", 0, ""
    for name in MASK_HEADS:
        if not name.startswith(("hourglass-", "resnet-")):
            continue
        with torch.device("meta"):
            head = build_mask_head(name, inputs, width)
        shapes = _shapes(nn.ModuleDict({"mask_head": head}))
        why = misfit(model, shapes)
        if why is None and len(shapes) > most:
            best, most = name, len(shapes)
        closest = closest or why or ""
    if not best:
        raise ValueError(f"got a mask head that is none of ours; of hourglass-10: {closest}")
    return best


def _shapes(module: nn.Module) -> dict[str, Shape]:
    return {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if not name.endswith(_COUNTER)
    }


def _outputs(model: TfModel, path: TfPath) -> int:
    """Channels that come out of the convolution at a path."""
    shape = model.shape(path)
    if shape is None or len(shape) != 4:
        raise ValueError(
            f"{'/'.join(path)}: got {'nothing' if shape is None else shape}, expected a kernel: "
            "a Deep-MAC or CenterNet of the authors on hourglasses"
        )
    return _channels(path, shape[3])


def _channels(path: TfPath, count: int) -> int:
    """So many, if a model can have them: shapes that a file states are built from."""
    if not 1 <= count <= _MAX_CHANNELS:
        raise ValueError(f"{'/'.join(path)}: got {count} channels, expected 1 to {_MAX_CHANNELS}")
    return count
