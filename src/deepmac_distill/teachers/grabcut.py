"""Mask GrabCut: OpenCV's GrabCut started from the box. Needs no training and knows no classes.

A row that Deep-MAC (arXiv:2104.00613, table 8) compares with. The paper gives no settings; these are ours.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_align

from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.errors import ConfigError
from deepmac_distill.structures import Instances

SMALLEST_SIDE_PX = 2  # of a box that GrabCut can segment
EMPTY_AT = 0.5  # coverage at which its masks, which are no probabilities, are cut


class GrabCut:
    """Masks for given boxes from colors alone: outside the box is background, inside is in question.

    What pads an image on its square canvas counts as black background. A box in which no color differs from
    those around it is not answered, unless there is a fallback.

    Args:
        iterations: of the graph cut.
        context: how far around the box colors of the background are taken from, in sides of the box.
        mask_size: cells a side of a mask.
        input_size_px: the longer side of an image is scaled to this; 0 leaves images as they are.
        fallback: "box" answers with the whole box where no cell of a mask is foreground, as most who use
            GrabCut would; "none" does not.

    Raises:
        ConfigError: an argument is out of range, or OpenCV is not installed.
    """

    def __init__(
        self,
        iterations: int = 5,
        context: float = 0.5,
        mask_size: int = 64,
        input_size_px: int = 512,
        fallback: str = "none",
    ) -> None:
        for name, got, least in (("iterations", iterations, 1), ("mask_size", mask_size, 4)):
            if not isinstance(got, int) or got < least:
                raise ConfigError(f"{name}: got {got!r}, expected a whole number of at least {least}")
        for name, value in (("context", context), ("input_size_px", input_size_px)):
            if not isinstance(value, int | float):
                raise ConfigError(f"{name}: got {value!r}, expected a number")
        if context <= 0 or input_size_px < 0:
            raise ConfigError(f"context, input_size_px: got {context}, {input_size_px}, expected > 0, >= 0")
        if fallback not in ("none", "box"):
            raise ConfigError(f"fallback: got {fallback!r}, expected none or box")
        self.iterations, self.context, self.fallback = iterations, context, fallback
        self.spec = ModelSpec(
            mask_size=mask_size,
            input_size_px=input_size_px or None,
            probabilities=False,
            seen_mask_classes=(),
            identity=f"grabcut, {iterations} iterations, context {context:g}, {mask_size} cells, "
            f"{input_size_px or 'native'} px, OpenCV {_import_cv2().__version__}"
            + (", the box where it has no answer" if fallback == "box" else ""),
        )

    @torch.no_grad()
    def segment(self, images: Tensor, instances: Instances) -> SegmentedMasks:
        """Coverage of the boxes' cells by what GrabCut takes for foreground.

        A box without background around it, or smaller than two pixels, is foreground altogether.

        Args:
            images: (B, 3, H, W) uint8 RGB.
            instances: N boxes; their classes and masks are not looked at.

        Returns:
            N masks; without a fallback, one without foreground is no answer.
        """
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        masks = [
            self._mask(pixels[image], box)
            for image, box in zip(instances.image_index.tolist(), instances.boxes.cpu(), strict=True)
        ]
        grids = torch.stack(masks) if masks else torch.zeros(0, self.spec.mask_size, self.spec.mask_size)
        if self.fallback == "box":
            empty = (grids <= EMPTY_AT).flatten(1).all(1)
            grids = torch.where(empty[:, None, None], 1.0, grids)
        return SegmentedMasks(grids.to(images.device), grids.flatten(1).any(1).to(images.device))

    def _mask(self, image: NDArray[np.uint8], box: Tensor) -> Tensor:
        """(S, S) of one box in one (H, W, 3) image."""
        cv2 = _import_cv2()
        size = self.spec.mask_size
        (left, top, right, bottom), window = box.tolist(), _around(box, self.context, *image.shape[:2])
        x, y, x2, y2 = window
        inside = np.zeros((y2 - y, x2 - x), dtype=bool)
        inside[_cells(top - y, bottom - y), _cells(left - x, right - x)] = True
        if inside.all() or min(right - left, bottom - top) < SMALLEST_SIDE_PX:
            return torch.ones(size, size)
        cut = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        models = np.zeros((2, 1, 65))  # of colors, of background and foreground
        cv2.setRNGSeed(0)  # it clusters colors from random starts
        crop = np.ascontiguousarray(image[y:y2, x:x2])
        cv2.grabCut(crop, cut, None, *models, self.iterations, cv2.GC_INIT_WITH_MASK)
        found = torch.from_numpy(np.isin(cut, (cv2.GC_FGD, cv2.GC_PR_FGD))).float()
        moved = box - torch.tensor([x, y, x, y])
        covered: Tensor = roi_align(found[None, None], [moved[None]], (size, size), aligned=True)[0, 0]
        return covered.clamp(0, 1)  # rounding errors of its mean


def _around(box: Tensor, context: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Whole pixels of the box and `context` of its sides around it, within the image: x1, y1, x2, y2."""
    left, top, right, bottom = box.tolist()
    dx, dy = context * (right - left), context * (bottom - top)
    return (
        max(int(np.floor(left - dx)), 0),
        max(int(np.floor(top - dy)), 0),
        min(int(np.ceil(right + dx)), width),
        min(int(np.ceil(bottom + dy)), height),
    )


def _cells(start: float, stop: float) -> slice:
    """The pixels that an interval touches."""
    return slice(int(np.floor(start)), int(np.ceil(stop)))


def _import_cv2() -> ModuleType:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise ConfigError(
            "grabcut needs OpenCV; install it with `pip install deepmac-distill[grabcut]`"
        ) from error
