"""Where the authors' models keep what ours keep: each of our tensors has a path of names in theirs.

Of tensorflow/models, research/object_detection: `center_net_meta_arch`, `deepmac_meta_arch`,
`hourglass_network` and its residual mask heads, as they were from March to July 2021.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping

TfPath = tuple[str, ...]

BACKBONE: TfPath = ("_feature_extractor", "_network")
HEADS: TfPath = ("_prediction_head_dict",)
MASK_NET: TfPath = ("_mask_net", "_net")
HEATMAP_OUTPUT = re.compile(r"heads\.\d+\.center\.heatmap\.output\.")  # a channel for each class
FIRST_KERNEL = "backbone.stem.0.0.weight"  # of pixels: BGR there, RGB here
_MASK_HOURGLASS = "mask_head.body.2."
_FIRST_OF_BLOCK = re.compile(r"(.*\.)down\.\d+\.branch\.0\.0\.weight")  # what the stage begins with
_COUNTER = "num_batches_tracked"  # of our batch norms; theirs have none

_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_CONV = {"weight": "kernel", "bias": "bias"}
_CONV_BLOCK = {"0.weight": ("conv", "kernel")} | {f"1.{ours}": ("norm", it) for ours, it in _NORM.items()}
_RESIDUAL = {
    **{f"branch.0.{ours}": ("conv_block", *theirs) for ours, theirs in _CONV_BLOCK.items()},
    "branch.1.weight": ("conv", "kernel"),
    **{f"branch.2.{ours}": ("norm", theirs) for ours, theirs in _NORM.items()},
    **{f"shortcut.{ours}": ("skip", *theirs) for ours, theirs in _CONV_BLOCK.items()},
}
_HEAD_OF = {
    "center.heatmap": "object_center",
    "center.size": "box/scale",
    "center.offset": "box/offset",
    "instance": "INSTANCE_EMBEDDING",
    "pixel": "PIXEL_EMBEDDING",
}
_LAYER_OF = {"hidden": "layer_with_weights-0", "output": "layer_with_weights-1"}
_STACK_PARTS = {
    "outputs": "output_conv",
    "from_input": "intermediate_conv1",
    "from_output": "intermediate_conv2",
    "between": "intermediate_residual",
}
_STAGE_PARTS = {"skip": "encoder_block1", "down": "encoder_block2"}
# The layers of a residual mask head are numbered one after the other: five a block, or six where it projects.
_RESNET_LAYERS = ("norm", "branch.0.0", "branch.0.1", "branch.1.0", "branch.1.1", "project")


def tf_paths(names: Collection[str]) -> dict[str, TfPath]:
    """The path below the model of each tensor of a Deep-MAC of ours; counters of batch norms have none.

    Args:
        names: of all tensors of a backbone of hourglasses, of the heads on it, or of a mask head.

    Raises:
        ValueError: a tensor that the authors' models do not have.
    """
    known = frozenset(names)
    blocks = Counter(match[1] for name in known if (match := _FIRST_OF_BLOCK.fullmatch(name)))
    return {name: _path(name, known, blocks) for name in names if not name.endswith(_COUNTER)}


def _path(name: str, names: frozenset[str], blocks: Mapping[str, int]) -> TfPath:
    """Of one tensor; `blocks` is how many the encoder of each stage has, by what its names begin with."""
    part, _, rest = name.partition(".")
    if part == "backbone":
        return (*BACKBONE, *_in_backbone(rest, blocks))
    if part == "heads":
        stack, _, rest = rest.partition(".")
        head, layer, leaf = rest.rsplit(".", 2)
        return (*HEADS, _HEAD_OF[head], stack, _LAYER_OF[layer], _CONV[leaf])
    if name.startswith("mask_head.logits."):
        return ("_mask_net", "project_out", _CONV[name.rpartition(".")[2]])
    if name.startswith("mask_head.body."):
        part, _, rest = name.removeprefix("mask_head.body.").partition(".")
        if _MASK_HOURGLASS in blocks:
            return (*MASK_NET, *_in_hourglass_head(part, rest, blocks))
        return (*MASK_NET, *_in_resnet_head(part, rest, names))
    raise ValueError(f"{name}: the authors' models have no such tensor")


def _in_backbone(name: str, blocks: Mapping[str, int]) -> TfPath:
    part, at, rest = name.split(".", 2)
    if part == "stem":
        return ("downsample_input", *_of_stem(at, rest))
    if part == "hourglasses":
        return ("hourglass_network", at, *_in_hourglass(rest, f"backbone.{part}.{at}.", blocks))
    table = _RESIDUAL if part == "between" else _CONV_BLOCK
    return (_STACK_PARTS[part], at, *table[rest])


def _of_stem(at: str, rest: str) -> TfPath:
    return ("conv_block", *_CONV_BLOCK[rest]) if at == "0" else ("residual_block", *_RESIDUAL[rest])


def _in_hourglass(name: str, prefix: str, blocks: Mapping[str, int]) -> TfPath:
    """A tensor of an encoder-decoder, whose tensors all begin with `prefix`."""
    part, at, rest = name.split(".", 2)
    if part in _STAGE_PARTS:
        return (_STAGE_PARTS[part], at, *_RESIDUAL[rest])
    if part == "inner":
        if at.isdigit():
            return ("inner_block", at, *_RESIDUAL[rest])
        return ("inner_block", "0", *_in_hourglass(f"{at}.{rest}", f"{prefix}inner.", blocks))
    if at == "1":  # the last block changes the channels; ours stands by itself
        return ("decoder_block", str(blocks[prefix] - 1), *_RESIDUAL[rest])
    block, _, rest = rest.partition(".")
    return ("decoder_block", block, *_RESIDUAL[rest])


def _in_hourglass_head(at: str, rest: str, blocks: Mapping[str, int]) -> TfPath:
    match at:
        case "0" | "1":
            return ("conv_input", *_of_stem(at, rest))
        case "2":
            return ("hourglass_network", "0", *_in_hourglass(rest, _MASK_HOURGLASS, blocks))
        case _:
            return ("output_conv", "0", *_CONV_BLOCK[rest])


def _in_resnet_head(at: str, rest: str, names: frozenset[str]) -> TfPath:
    if at == "0":
        return ("input_layer", _CONV[rest])
    layer, _, leaf = rest.rpartition(".")
    leaves = _NORM if layer in ("norm", "branch.0.1", "branch.1.1") else _CONV
    number = _first_layer(int(at), names) + _RESNET_LAYERS.index(layer)
    return ("model", f"layer_with_weights-{number}", leaves[leaf])


def _first_layer(block: int, names: frozenset[str]) -> int:
    """Number of the first layer of a block of a residual mask head; the first block is 1."""
    projects = sum(f"mask_head.body.{before}.project.weight" in names for before in range(1, block))
    return (len(_RESNET_LAYERS) - 1) * (block - 1) + projects
