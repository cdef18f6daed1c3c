"""What a model must be: its spec, what it returns, and the three protocols.

`BoxSegmenter` is all that a teacher needs. `Detector` finds boxes by itself, `Trainable` learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from deepmac_distill.errors import ContractError
from deepmac_distill.lattice import LATTICES, LEAST_CELLS, Lattice
from deepmac_distill.look import Look
from deepmac_distill.structures import Batch, Detections, Instances


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a caller must know of a model before it gives it an image.

    Raises:
        ValueError: a value is out of range.
    """

    mask_size: int  # cells a side of the grids it returns
    input_size_px: int | None  # side of its square canvas; None: images at their own size, one by one
    any_size: bool = False  # takes square canvases of other sides too, such as those of windows
    size_divisibility: int = 1  # the canvas's side must be a multiple of this
    stretched: bool = False  # a whole image fills the canvas; else it keeps its shape, at the top left
    padding_rgb: tuple[int, int, int] = (0, 0, 0)  # of the canvas beyond the image
    lattice: Lattice = "centers"  # where the cells of its grids sample their boxes
    probabilities: bool = True  # whether grids are probabilities; else they are only cut
    class_agnostic: bool = True  # False: `segment` reads the classes of the boxes
    detects: bool = False  # whether it is a `Detector`
    seen_mask_classes: tuple[str, ...] | None = None  # names; (): it has seen no mask; None: unknown
    identity: str  # what the provenance calls it: changes whenever its masks may change
    name: str = ""  # what messages call it; empty: as its identity

    def __post_init__(self) -> None:
        for name in ("mask_size", "size_divisibility"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected at least 1")
        if self.lattice not in LATTICES:
            raise ValueError(f"lattice: got {self.lattice!r}, expected one of {', '.join(LATTICES)}")
        if self.lattice == "reference" and self.mask_size < LEAST_CELLS:
            raise ValueError(f"mask_size: got {self.mask_size}, expected {LEAST_CELLS} or more on reference")
        if self.input_size_px is not None and self.input_size_px % self.size_divisibility:
            raise ValueError(
                f"input_size_px: got {self.input_size_px}, expected a multiple of {self.size_divisibility}"
            )
        if not self.identity:
            raise ValueError("identity: got nothing, expected a name that changes with the model's masks")

    def window_size_px(self, look: Look) -> int:
        """Side of the canvas of a window: the look's, but for a model that takes one size alone."""
        return look.window_size_px if self.any_size or self.input_size_px is None else self.input_size_px


@dataclass(frozen=True, slots=True)
class SegmentedMasks:
    """Masks of N given boxes, in the order of the boxes."""

    grids: Tensor  # (N, S, S) float32 in [0, 1], over each box
    answered: Tensor  # (N,) bool; where False the grid counts for nothing
    iou: Tensor | None = None  # (N,) float32 in [0, 1], the model's own estimate of each mask's IoU
    outside: Tensor | None = None  # (N,) float32 in [0, 1], share of each mask that its box has cut off

    @classmethod
    def of(cls, grids: Tensor) -> SegmentedMasks:
        """The grids of a model that answers every box."""
        return cls(grids, grids.new_ones(len(grids)).bool())


class BoxSegmenter(Protocol):
    """A model that gives a mask for a box: all that a teacher must be."""

    @property
    def spec(self) -> ModelSpec:
        """What the model is and which inputs it takes."""

    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        """(B, 3, H, W) uint8 RGB and N boxes in pixels of the canvas to N masks."""


class Detector(BoxSegmenter, Protocol):
    """A model that finds boxes, classes and masks by itself."""

    def detect(
        self, images: Tensor, image_sizes: Tensor, max_detections: int, min_score: float
    ) -> Detections:
        """(B, 3, H, W) uint8 RGB and (B, 2) height and width to at most `max_detections` an image.

        What scores below `min_score` is left out, so it costs no mask.
        """


class Trainable(BoxSegmenter, Protocol):
    """A model that learns from boxes and masks."""

    @property
    def target_mask_size(self) -> int:
        """Cells a side of the mask grids that it trains on."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar losses by name, already weighted."""

    def parameter_groups(self) -> Mapping[Literal["pretrained", "new"], list[nn.Parameter]]:
        """All parameters: those that others' weights can fill, and the rest."""


def require_finite(what: str, *values: Tensor) -> None:
    """Refuse values among which objects would be lost without a word: not a number is no peak and no box.

    Raises:
        ContractError: some are not finite.
    """
    if not all(bool(some.isfinite().all()) for some in values):
        raise ContractError(f"detect: {what}: got values that are not finite, expected numbers")
