"""Keys of a pipeline file about data: where they are, and which masks may be seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deepmac_distill.config.limits import MAX_SEED, MAX_THREADS
from deepmac_distill.config.refusal import require


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesConfig:
    """Generated scenes, used where no data set is named."""

    train_images: int = 800
    val_images: int = 200
    size_px: int = 128  # square images
    seed: int = -1  # of the scenes, which several seeds of a recipe share; -1: the run's own

    def __post_init__(self) -> None:
        require(self.seed >= -1, "seed", self.seed, "at least -1")
        require(self.seed <= MAX_SEED, "seed", self.seed, f"at most {MAX_SEED}")
        require(self.train_images > 0 and self.val_images > 0, "train_images, val_images: expected > 0")
        require(self.size_px >= 32, "size_px", self.size_px, "at least 32")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where images and annotations are, and which classes may show their masks."""

    source: Literal["coco", "scenes"] = "coco"  # COCO JSON on disk | scenes generated into the run
    root: str = ""  # the paths below are relative to it; itself relative to the working directory
    train_annotations: str = "instances_train.json"
    train_images: str = "images"
    val_annotations: str = ""  # empty: nothing is evaluated
    val_images: str = ""  # empty: same as train_images
    # A preset (voc, non-voc, all, with-masks), class names, or a file of names
    seen: tuple[str, ...] = ("voc",)
    min_masks: int = 10  # what a class needs to be seen under with-masks
    hide: tuple[str, ...] = ()  # seen classes that are treated as unseen: names, or a fold such as fold:0/2
    exif: Literal["as-stored", "apply"] = "as-stored"  # whether images are turned by their EXIF tag
    max_megapixels: int = 178  # a larger image is refused before it is decoded
    strict: bool = False  # refuse boxes without area or over the edge, and polygon parts of 2 points or less
    workers: int = 0  # processes that decode images; 0 decodes in the training process
    scenes: ScenesConfig = field(default_factory=ScenesConfig)

    def __post_init__(self) -> None:
        require(0 <= self.workers <= MAX_THREADS, "workers", self.workers, f"0 to {MAX_THREADS}")
        for name in ("min_masks", "max_megapixels"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        require(len(self.seen) > 0, "seen: expected at least one class or a preset")
