"""What the paper's protocols cost, counted on models without weights: FLOP, and days on GPUs.

A training pass is three forward passes. Of Deep-MAC the backbone, the heads on whole maps and the mask head
are counted, of Mask R-CNN the backbone, the proposal network, the box branch and the mask head; what is left
out (crops, losses, heads at single cells) is small beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deepmac_distill.chain import Role
from deepmac_distill.config import MaskRcnnConfig, ModelConfig, Pipeline, load_pipeline
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import equals
from deepmac_distill.errors import DataError
from deepmac_distill.experiments import appendix_b
from deepmac_distill.experiments.paper_plan import Runs, to_train
from deepmac_distill.experiments.paper_tables import PaperTable
from deepmac_distill.experiments.paper_trainings import pipeline_of
from deepmac_distill.models.build import build_model
from deepmac_distill.models.deepmac import mask_input_channels
from deepmac_distill.models.mask_rcnn import BOX_CROP
from deepmac_distill.report.table import Table, columns, names

# Of the 446 training photographs of the sample, as `masks_per_image` counts them
# (python benchmarks/paper.py cost --annotations FOLDER/instances_train.json).
MASKS_PER_IMAGE = {"voc": 4.03, "non-voc": 3.69, "all": 7.72}
FOREGROUND = 128  # of 512 sampled proposals that mask heads train on with proposals, at most
CLASSES = 80
TFLOPS = (
    100.0  # that a GPU is taken to reach in a training, of the 312 (A100) or 989 (H100) of its data sheet
)
TRAINING = 3  # a backward pass costs about two forward ones
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """One training at the paper's scale."""

    name: str
    images: int  # that pass the model
    flop_of_image: float  # in training, its masks included

    @property
    def flop(self) -> float:
        """Of the whole training."""
        return self.images * self.flop_of_image

    def days(self, gpus: int) -> float:
        """On GPUs that share it without loss."""
        return self.flop / (TFLOPS * 1e12) / DAY / gpus


def masks_per_image(annotations: Path) -> dict[str, float]:
    """Usable masks an image of an annotation file: of VOC's classes, of the others, and of all.

    Raises:
        DataError: the file cannot be read, or has no image.
    """
    truth = Dataset.open(annotations, seen="voc").for_evaluation()
    if not len(truth.images):
        raise DataError(f"{annotations}: no images; expected some whose masks can be counted")
    usable = truth.has_mask() & equals(truth.annotations, "status", "ok")
    voc = np.array(truth.classes.seen)[truth.class_index()]
    parts = {"voc": usable & voc, "non-voc": usable & ~voc, "all": usable}
    return {name: float(some.sum() / len(truth.images)) for name, some in parts.items()}


def cost_of(name: str, masks_an_image: Mapping[str, float] = MASKS_PER_IMAGE) -> TrainingCost | None:
    """What a training costs; None of what learns nothing.

    Args:
        masks_an_image: see `masks_per_image`; a training that sees one class is counted as one of VOC's.
    """
    pipeline = pipeline_of(name, "coco")
    return None if pipeline.teacher.segmenter else _cost(name, pipeline, "teacher", masks_an_image)


def appendix_b_costs(
    part: appendix_b.Part, masks_an_image: Mapping[str, float] = MASKS_PER_IMAGE
) -> list[TrainingCost]:
    """The trainings of appendix B; `b2` is table 13.

    Students learn from masks of all classes, drawn or the teacher's. Labeling, one forward pass of each
    photograph where a training has hundreds, is left out.
    """
    found = []
    for name, role in appendix_b.trainings(part):
        pipeline = load_pipeline(appendix_b.Runs("paper", "").recipe(name))
        found.append(_cost(f"{name}, {role}", pipeline, role, masks_an_image))
    return found


def _cost(name: str, pipeline: Pipeline, role: Role, masks_an_image: Mapping[str, float]) -> TrainingCost:
    train, model = getattr(pipeline, role).train, getattr(pipeline, role).model
    per_image, per_mask = forward_flop(replace(model, backbone_weights="none"), train.image_size_px)
    shown = "all" if role == "student" else pipeline.data.seen[0]
    masks = masks_an_image.get(shown, masks_an_image["voc"])
    if isinstance(model, MaskRcnnConfig) and model.mask_boxes == "proposals+gt":
        masks = FOREGROUND
    images = train.steps * train.batch_size * train.gradient_accumulation_steps
    return TrainingCost(name, images, TRAINING * (per_image + masks * per_mask))


def costs_of(
    of: PaperTable, runs: Runs, masks_an_image: Mapping[str, float] = MASKS_PER_IMAGE
) -> list[TrainingCost]:
    """Each training of a table that learns."""
    names = to_train(of.rows, runs)
    return [cost for name in names if (cost := cost_of(name, masks_an_image)) is not None]


def costs_table(title: str, found: Sequence[TrainingCost]) -> Table:
    """Some trainings, and their sum."""
    rows = [(one.name, *_cells(one.flop, one.days(1))) for one in found]
    total = sum(one.flop for one in found)
    rows.append(("all", *_cells(total, total / (TFLOPS * 1e12) / DAY)))
    headings = ("EFLOP", "days, 1 GPU", "days, 8 GPUs", "1/10: days, 1 GPU")
    return Table(title, (*names("training"), *columns("figure", headings)), tuple(rows))


def _cells(flop: float, days: float) -> tuple[str, str, str, str]:
    return f"{flop / 1e18:.1f}", f"{days:.1f}", f"{days / 8:.2f}", f"{days / 10:.2f}"


@cache
def forward_flop(model: ModelConfig, size_px: int) -> tuple[float, float]:
    """FLOP of a square image in a forward pass, and of a mask in it; a product with its sum is two."""
    with torch.device("meta"):
        built = build_model(model, CLASSES, load_weights=False).train()
        pixels = torch.empty((2, 3, size_px, size_px), dtype=torch.uint8)
        with FlopCounterMode(display=False) as of_images:
            features = built.get_submodule("backbone")(pixels)
            _dense_heads(built, features, model)
        with FlopCounterMode(display=False) as of_masks:
            _two_masks(built, model)
    stacks = 1 if isinstance(model, MaskRcnnConfig) else len(features)
    return of_images.get_total_flops() / 2, stacks * of_masks.get_total_flops() / 2


def _dense_heads(built: nn.Module, features: Any, model: ModelConfig) -> None:
    """The heads that go over whole maps, or over as many boxes whatever the image has; of two images."""
    if isinstance(model, MaskRcnnConfig):
        built.get_submodule("rpn.head")(list(features.values()))
        crops = torch.empty(2 * model.sampled_proposals, model.fpn_channels, BOX_CROP, BOX_CROP)
        built.get_submodule("roi.box_predictor")(built.get_submodule("roi.box_head")(crops))
        return
    for stack, map_of_stack in enumerate(features):
        built.get_submodule(f"heads.{stack}.pixel")(map_of_stack)
        if model.detection:
            built.get_submodule(f"heads.{stack}.center.heatmap")(map_of_stack)


def _two_masks(built: nn.Module, model: ModelConfig) -> None:
    head = built.get_submodule("mask_head")
    if isinstance(model, MaskRcnnConfig):
        crops = torch.empty(2, model.fpn_channels, model.mask_crop, model.mask_crop)
        weights = torch.empty(CLASSES, 5 * model.box_channels)  # of the box branch, a class
        head(crops, *((weights,) if model.mask_head == "weight-transfer" else ()))
        return
    channels = mask_input_channels(model.pixel_embedding, model.instance_embedding, model.coordinates)
    head(torch.empty(2, channels, model.mask_size, model.mask_size))
