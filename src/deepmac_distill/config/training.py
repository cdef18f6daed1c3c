"""The keys of `[teacher.train]` and `[student.train]`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from deepmac_distill.config.refusal import require
from deepmac_distill.look import RANGES


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Where figures of trainings go beside metrics.jsonl."""

    to: tuple[Literal["tensorboard"], ...] = ()  # event files in tensorboard/ of the run

    def __post_init__(self) -> None:
        require(len(set(self.to)) == len(self.to), "to", self.to, "each name once")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How long, how fast and on which views one model is trained."""

    # Whole model to start from: a run's weights.safetensors, or another .safetensors / .pth; what fits
    # is loaded, and the rest is skipped with a reason. Empty: from scratch, or from model.backbone_weights.
    init_from: str = ""
    steps: int = 50_000  # optimizer steps
    batch_size: int = 8  # images or windows per forward pass
    # Forward passes per optimizer step: for the losses one larger batch (docs/design.md has the exception),
    # for batch norm several
    gradient_accumulation_steps: int = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-3
    backbone_lr_factor: float = 1.0  # learning rate of what can be pretrained, relative to the rest
    weight_decay: float = 0.0  # on weights of two or more dimensions; not on biases and norms
    momentum: float = 0.9  # sgd only
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup_steps: int = 0  # linear from 0
    decay_steps: tuple[int, ...] = ()  # schedule = "steps": lr x 0.1 at each
    max_grad_norm: float = 0.0  # largest gradient norm; 0 = no clipping
    ema_decay: float = 0.0  # 0 = the reported weights are the last ones
    autocast: Literal["auto", "off"] = "auto"  # bfloat16 on a GPU, float16 on one without; never on a CPU
    compile: bool = False  # the backbone by torch.compile: the first steps compile
    recompute: bool = False  # residual blocks compute again in the backward pass: less memory
    # Whole images, windows around the instances with a mask as `look` has them, or passes of both in turn
    views: Literal["images", "windows", "both"] = "images"
    image_size_px: int = 512  # side of the square canvas
    scale_range: tuple[float, float] = (0.6, 1.3)  # side of the random square crop / longer side of the image
    flip_fraction: float = 0.5
    color_jitter: bool = True
    window_context: float = 0.0  # side of a window in training / longer side of its box; 0: as in `look`
    window_size_px: int = 0  # side of its canvas; 0: as in `look`
    window_scale_range: tuple[float, float] = (0.8, 1.25)  # random factor on the context
    window_shift: float = 0.1  # a window moves by at most this share of its side, along each axis
    # Masks are learned in boxes each side of which moves by at most this share of the box's width or height
    box_jitter: float = 0.0
    checkpoint_every: int = 500  # optimizer steps between resumable states

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "gradient_accumulation_steps",
            "checkpoint_every",
            "image_size_px",
        ):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        for name in ("backbone_lr_factor", "weight_decay", "max_grad_norm"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(self.lr > 0, "lr", self.lr, "> 0")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        upto = f"0 to steps, {self.steps}"
        require(0 <= self.warmup_steps <= self.steps, "warmup_steps", self.warmup_steps, upto)
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        require(0 <= self.flip_fraction <= 1, "flip_fraction", self.flip_fraction, "in [0, 1]")
        require(0 <= self.window_shift <= 1, "window_shift", self.window_shift, "in [0, 1]")
        require(0 <= self.box_jitter < 0.5, "box_jitter", self.box_jitter, "in [0, 0.5)")
        for name in ("window_context", "window_size_px"):
            value, (low, high) = getattr(self, name), RANGES[name]
            require(value == 0 or low <= value <= high, name, value, f"{low} to {high}, or 0 for the look's")
        for name in ("scale_range", "window_scale_range"):
            value = getattr(self, name)
            low_high = len(value) == 2 and 0 < value[0] <= value[1] < math.inf
            require(low_high, name, value, "two numbers, 0 < low <= high")
        require(not (self.compile and self.recompute), "compile", True, "false beside recompute = true")
        needs_decay = (self.schedule == "steps") == bool(self.decay_steps)
        require(needs_decay, "decay_steps", self.decay_steps, 'steps exactly when schedule = "steps"')
