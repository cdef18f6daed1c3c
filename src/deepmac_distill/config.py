"""A pipeline file becomes frozen dataclasses; every default lives here and nowhere else.

TOML is read strictly: an unknown key, a wrong type or a value out of range is an error that names the
full key, such as ``teacher.train.lr``. Overrides (``--set teacher.train.lr=1e-4``) go the same way.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from deepmac_distill.errors import ConfigError

_LOSS_WEIGHTS = ("center_weight", "size_weight", "offset_weight", "mask_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesConfig:
    """Generated scenes, used where no data set is named."""

    train_images: int = 800
    val_images: int = 200
    size_px: int = 128  # square images

    def __post_init__(self) -> None:
        _require(self.train_images > 0 and self.val_images > 0, "train_images, val_images: expected > 0")
        _require(self.size_px >= 32, "size_px", self.size_px, "at least 32")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where images and annotations are, and which classes may show their masks."""

    source: Literal["coco", "scenes"] = "coco"  # COCO JSON on disk | scenes generated into the run
    root: str = ""  # the paths below are relative to it; itself relative to the working directory
    train_annotations: str = "instances_train.json"
    train_images: str = "images"
    val_annotations: str = ""  # empty: nothing is evaluated
    val_images: str = ""  # empty: same as train_images
    seen: tuple[str, ...] = ("voc",)  # a preset (voc, non-voc, all), class names, or a file of names
    strict: bool = False  # refuse boxes without area or over the image's edge instead of counting them
    workers: int = 0  # processes that decode images; 0 decodes in the training process
    scenes: ScenesConfig = field(default_factory=ScenesConfig)

    def __post_init__(self) -> None:
        _require(self.workers >= 0, "workers", self.workers, "at least 0")
        _require(len(self.seen) > 0, "seen: expected at least one class or a preset")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One Deep-MAC: a backbone, CenterNet heads, and a class-agnostic mask head."""

    architecture: Literal["deepmac"] = "deepmac"
    backbone: str = "hourglass-104"  # tiny | hourglass-52|104 | resnet50|101 | any timm model
    backbone_weights: str = "none"  # none | imagenet | wheel | path to .safetensors or .pth
    backbone_width: int = 256  # channels of the tiny and hourglass backbones
    pyramid_channels: tuple[int, ...] = (256, 128, 64)  # top-down path of resnet and timm backbones
    head_channels: int = 256  # hidden channels of every prediction head
    mask_head: str = "hourglass-52"  # hourglass-10|20|32|52|100 | resnet-4|8|12|16|20
    mask_width: int = 64  # channels after the mask head's first convolution; 64 in the paper
    mask_size: int = 32  # cells a side of crop and mask
    pixel_embedding: int = 16
    instance_embedding: int = 32  # 0 switches it off
    coordinates: bool = True
    detection: bool = True  # False: no detection losses (paper, section 6)
    center_weight: float = 1.0
    size_weight: float = 0.1
    offset_weight: float = 1.0
    mask_weight: float = 5.0
    mask_instances_per_image: int = 0  # cap on masks trained on per image; 0 = all

    def __post_init__(self) -> None:
        _require(
            self.mask_width % 4 == 0 and self.mask_width > 0, "mask_width", self.mask_width, "a multiple of 4"
        )
        for name in ("backbone_width", "head_channels", "pixel_embedding"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        for name in ("instance_embedding", "mask_instances_per_image", *_LOSS_WEIGHTS):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        _require(self.mask_size >= 4, "mask_size", self.mask_size, "at least 4")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How long, how fast and on which views one model is trained."""

    steps: int = 50_000  # optimizer steps
    batch_size: int = 8  # images per forward pass
    accumulate: int = 1  # forward passes per optimizer step
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-3
    backbone_lr_factor: float = 1.0  # learning rate of what can be pretrained, relative to the rest
    weight_decay: float = 0.0  # on weights of two or more dimensions; not on biases and norms
    momentum: float = 0.9  # sgd only
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup_steps: int = 0  # linear from 0
    decay_steps: tuple[int, ...] = ()  # schedule = "steps": lr x 0.1 at each
    clip_norm: float = 0.0  # largest gradient norm; 0 = no clipping
    ema_decay: float = 0.0  # 0 = the reported weights are the last ones
    autocast: Literal["auto", "off"] = "auto"  # bfloat16 on a GPU that has it; never on a CPU
    image_size_px: int = 512  # side of the square canvas
    scale_range: tuple[float, ...] = (0.6, 1.3)  # side of the random square crop / longer side of the image
    flip_fraction: float = 0.5
    colour_jitter: bool = True
    checkpoint_every: int = 500  # optimizer steps between resumable states

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "image_size_px"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        for name in ("backbone_lr_factor", "weight_decay", "clip_norm"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        _require(self.lr > 0, "lr", self.lr, "> 0")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        upto = f"0 to steps, {self.steps}"
        _require(0 <= self.warmup_steps <= self.steps, "warmup_steps", self.warmup_steps, upto)
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        _require(0 <= self.flip_fraction <= 1, "flip_fraction", self.flip_fraction, "in [0, 1]")
        low_high = len(self.scale_range) == 2 and 0 < self.scale_range[0] <= self.scale_range[1]
        _require(low_high, "scale_range", self.scale_range, "two numbers, 0 < low <= high")
        needs_decay = (self.schedule == "steps") == bool(self.decay_steps)
        _require(needs_decay, "decay_steps", self.decay_steps, 'steps exactly when schedule = "steps"')


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleConfig:
    """A model and its training, for the teacher or the student."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsConfig:
    """What is stored about each box, and which masks the student is shown."""

    threshold: float = 0.5  # foreground where the teacher's probability is above it
    soft: bool = True  # keep the teacher's probabilities beside the mask
    unit_images: int = 64  # images per resumable unit and Parquet row group; batches never cross one
    batch_size: int = 8  # images per forward pass
    # An image that cannot be read stops labelling, or gets rows that say so. Training always stops.
    on_unreadable: Literal["error", "skip"] = "error"
    min_mask_score: float = 0.0  # below: rejected
    min_box_fill_iou: float = 0.0  # below: rejected
    on_rejected: Literal["keep_box", "drop", "ignore"] = "keep_box"

    def __post_init__(self) -> None:
        for name in ("threshold", "min_mask_score", "min_box_fill_iou"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        for name in ("unit_images", "batch_size"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        _require(self.soft or self.threshold == 0.5, "soft", self.soft, "true for a threshold other than 0.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How models are judged. The validation set is read here and nowhere else."""

    batch_size: int = 8
    max_detections: int = 100  # per image
    bootstrap: int = 1000  # resamples of the images behind each 95 % interval
    reference: bool = False  # average precision by pycocotools instead of hotcoco
    min_lead_over_box: float = 0.0  # gate on the teacher's lead on unseen classes, a fraction; 0 = none
    sheet_images: int = 6  # rows of the contact sheet

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_detections", "bootstrap", "sheet_images"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")


def _default_student() -> RoleConfig:
    return RoleConfig(model=ModelConfig(mask_head="resnet-4"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One experiment: data, teacher, labels, student, evaluation."""

    name: str = "run"
    purpose: str = ""  # the claim this file makes; for the reader
    seed: int = 0
    threads: int = 0  # CPU threads of torch; 0 = torch's choice. Part of what makes CPU runs repeatable
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    data: DataConfig = field(default_factory=DataConfig)
    teacher: RoleConfig = field(default_factory=RoleConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    student: RoleConfig = field(default_factory=_default_student)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        for name in ("seed", "threads"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")


def load_pipeline(path: Path | None, overrides: list[str] | None = None) -> Pipeline:
    """Read a pipeline file (None: all defaults) and apply ``key=value`` overrides in order.

    A file that ends in .json is the resolved form that a run keeps.

    Raises:
        ConfigError: the file is missing or is not TOML, or a key or value is refused, by its full name.
    """
    tree = {} if path is None else _read_tree(path)
    where = "--set" if path is None else str(path)
    for override in overrides or []:
        _apply_override(tree, override)
    return build(Pipeline, tree, where)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A config dataclass as ``{"teacher.train.lr": 0.001, ...}``, the form in which runs compare inputs."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


Built = TypeVar("Built")


def build(cls: type[Built], tree: Any, where: str) -> Built:
    """Make the config dataclass `cls` from nested dicts, strictly; what they leave out is the default.

    Raises:
        ConfigError: names `where`, the full key, what was got and what was expected.
    """
    return _changed(cls(), tree, where, "")


def _changed(default: Built, tree: Any, where: str, prefix: str) -> Built:
    """`default` with the values of `tree`: a table that names one key leaves its neighbours alone."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: {prefix.rstrip('.')}: got {tree!r}, expected a table")
    hints = get_type_hints(type(default))
    for key in tree:
        if key not in hints:
            raise ConfigError(f"{where}: {prefix}{key}: unknown key{_did_you_mean(key, hints)}")
    values = {
        key: _changed(getattr(default, key), value, where, f"{prefix}{key}.")
        if dataclasses.is_dataclass(hints[key])
        else _convert(hints[key], value, where, f"{prefix}{key}")
        for key, value in tree.items()
    }
    try:
        return dataclasses.replace(default, **values)
    except _Refused as refused:
        raise ConfigError(f"{where}: {prefix}{refused}") from None


def _read_tree(path: Path) -> dict[str, Any]:
    read = json.loads if path.suffix == ".json" else tomllib.loads
    try:
        return read(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: no such pipeline file; expected a TOML file") from None
    except ValueError as error:  # what both readers and the decoder raise
        raise ConfigError(f"{path}: cannot be read: {error}; expected TOML") from None


class _Refused(Exception):
    """A value that a dataclass refuses; `build` adds the file and the full key."""


def _require(holds: bool, name: str, got: Any = None, expected: str = "") -> None:
    if not holds:
        raise _Refused(f"{name}: got {got!r}, expected {expected}" if expected else name)


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            options = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{where}: {key}: got {value!r}, expected one of {options}")
        return value
    if get_origin(hint) is tuple:
        if isinstance(value, str) and get_args(hint)[0] is str:
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list):
            raise ConfigError(f"{where}: {key}: got {value!r}, expected a list")
        return tuple(_convert(get_args(hint)[0], item, where, key) for item in value)
    if get_origin(hint) in (Union, types.UnionType):
        raise TypeError(f"{key}: config fields have one type")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: {key}: got {value!r}, expected {hint.__name__}")
    return value


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set {override}: expected key=value, such as teacher.train.lr=1e-4")
    node = tree
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {part} is a value, expected a table")
    node[path[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string: --set data.seen=voc needs no quotes


def _did_you_mean(key: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"
