"""A trained model's backbone, frozen: its maps of a few views of every image, made once and kept.

What learns on them sees the same views as everything else that does, and pays for no backbone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from deepmac_distill.config import Pipeline
from deepmac_distill.contract import ModelSpec
from deepmac_distill.data.augment import training_views
from deepmac_distill.data.dataset import AnnotatedImages, BoxDataset, Key, Sample
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.loader import collate, evaluation_batches, training_keys
from deepmac_distill.dataset.views import Annotations, Truth
from deepmac_distill.inference import boxes_for
from deepmac_distill.models.load import Weights
from deepmac_distill.structures import Batch
from deepmac_distill.weights.card import ModelCard, require_classes

Maps = list[Tensor] | dict[str, Tensor]  # what a backbone gives


class Shown(nn.Module):
    """Stands in for a backbone: the maps it was given, whatever the images."""

    maps: Maps

    def forward(self, _images: Tensor) -> Maps:
        """What the backbone would give."""
        return self.maps


@dataclass(frozen=True, slots=True)
class Frozen:
    """A trained model and the maps of its backbone, float16, of every image and view."""

    card: ModelCard
    spec: ModelSpec
    state: dict[str, Tensor]
    pipeline: Pipeline  # where the images are, and how views are drawn
    training: Annotations
    truth: Truth
    views: int  # of every training image
    training_maps: dict[Key, Maps]
    validation_maps: list[Maps]

    @classmethod
    def of(cls, weights: Path, pipeline: Pipeline, training: Annotations, truth: Truth, views: int) -> Frozen:
        """Run the backbone of some weights over every image, and over so many `views` of those to train on.

        Raises:
            CheckpointError: not weights of ours, or of other classes.
            DataError: an image cannot be read.
        """
        source = Weights.read(weights)
        card = source.card
        require_classes(weights, card, training.classes.names, training.classes.seen)
        model = source.model(torch.device("cpu"))
        dataset = _views(training, pipeline, card, mask_size=1)
        keys = [(position, draw) for draw in range(views) for position in range(len(dataset))]
        whole = boxes_for(model.spec, truth, images_of(pipeline, "val"))
        backbone = model.get_submodule("backbone")
        with torch.inference_mode():
            return cls(
                card,
                model.spec,
                model.state_dict(),
                pipeline,
                training,
                truth,
                views,
                {key: _half(backbone(dataset[key].image[None])) for key in keys},
                [_half(backbone(batch.images)) for batch in evaluation_batches(whole, 1)],
            )

    def training_batches(
        self, shown: Shown, mask_size: int, batch_size: int, seed: int, first_step: int = 0
    ) -> Iterator[Batch]:
        """Batches without end in the order of `seed`; with each, `shown` shows its maps.

        Args:
            mask_size: cells a side of the mask grids.
        """
        dataset = _views(self.training, self.pipeline, self.card, mask_size)
        samples = {key: _without_pixels(dataset[key]) for key in self.training_maps}
        for step in count(first_step):
            drawn = training_keys(len(dataset), batch_size, seed, step)
            keys = [(position, draw % self.views) for position, draw in drawn]
            shown.maps = _stacked([self.training_maps[key] for key in keys])
            yield collate([samples[key] for key in keys])

    def validation_batches(self, shown: Shown) -> Iterator[Batch]:
        """The validation images one by one; with each, `shown` shows its maps."""
        whole = boxes_for(self.spec, self.truth, images_of(self.pipeline, "val"))
        for maps, batch in zip(self.validation_maps, evaluation_batches(whole, 1), strict=True):
            shown.maps = _stacked([maps])
            yield batch


def images_of(pipeline: Pipeline, split: Literal["train", "val"]) -> ImageFolder:
    """The folder of a split's images."""
    data = pipeline.data
    named = data.train_images if split == "train" else data.val_images or data.train_images
    return ImageFolder(Path(data.root) / named, data.exif)


def _views(annotations: Annotations, pipeline: Pipeline, card: ModelCard, mask_size: int) -> BoxDataset:
    """The training views, drawn by the pipeline's seed: the same whoever learns on them."""
    views = training_views(card.image_size_px, pipeline.teacher.train.scale_range)
    images = images_of(pipeline, "train")
    source = AnnotatedImages(annotations, images, mask_size=mask_size)
    return BoxDataset(source, views, pipeline.seed)


def _without_pixels(sample: Sample) -> Sample:
    """The backbone has seen them; the canvas keeps its shape and takes no memory."""
    return replace(sample, image=torch.zeros((), dtype=torch.uint8).expand(sample.image.shape))


def _half(maps: Maps) -> Maps:
    """The maps of one image, of the last stack where there are several."""
    if isinstance(maps, dict):
        return {name: level[0].half() for name, level in maps.items()}
    return [maps[-1][0].half()]


def _stacked(maps: Sequence[Maps]) -> Maps:
    """The maps of several images as the backbone would give them."""
    if isinstance(maps[0], dict):
        named = [some for some in maps if isinstance(some, dict)]
        return {name: torch.stack([some[name] for some in named]).float() for name in maps[0]}
    return [torch.stack([some[0] for some in maps if isinstance(some, list)]).float()]
