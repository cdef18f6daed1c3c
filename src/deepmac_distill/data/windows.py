"""Windows around instances: what a model trains on that sees each box by itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from deepmac_distill.data.augment import View, draw_colors
from deepmac_distill.data.dataset import JITTER_STREAM, AnnotatedImages, Key, Sample, jittered
from deepmac_distill.data.frames import window_view
from deepmac_distill.errors import DataError

_STREAM = 1  # sets the draws of windows apart from those of whole images


class WindowDataset(Dataset[Sample]):
    """Each instance with a mask in a window of its own, the only box on its canvas.

    The window depends on (`seed`, position of the instance, draw) alone.

    Args:
        source: the images and their boxes.
        size_px: side of a window's canvas.
        context: side of a window / longer side of its box, as evaluation has it.
        scale_range: of a random factor on the context, uniform in its logarithm.
        shift: the center moves by at most this share of the window's side, uniformly along each axis.
        box_jitter: see `jittered`; the window is around the moved box, as it would be around a loose one.

    Raises:
        DataError: no instance has a mask.
    """

    def __init__(
        self,
        source: AnnotatedImages,
        *,
        size_px: int,
        context: float,
        scale_range: tuple[float, float] = (0.8, 1.25),
        shift: float = 0.1,
        box_jitter: float = 0.0,
        flip_fraction: float = 0.5,
        color_jitter: bool = True,
        seed: int = 0,
    ) -> None:
        self.source, self.size_px, self.context, self.seed = source, size_px, context, seed
        self.scale_range, self.shift, self.box_jitter = scale_range, shift, box_jitter
        self.flip_fraction, self.color_jitter = flip_fraction, color_jitter
        self._rows = source.masked_rows()
        if not len(self._rows):
            raise DataError(
                f"{source.annotations.path}: no box has a mask; expected at least one to train on windows"
            )

    def __len__(self) -> int:
        """The number of instances with a mask."""
        return len(self._rows)

    def __getitem__(self, key: Key) -> Sample:
        """The window of an instance, in one of its draws.

        Raises:
            DataError: the image is missing, cannot be decoded, or has another size than the annotations give.
        """
        item, draw = key
        row = self._rows[item : item + 1]
        position, boxes = self.source.position_of(int(row[0])), self.source.boxes(row)
        height, width = self.source.size_of(position)
        if self.box_jitter:
            rng = np.random.default_rng([self.seed, item, draw, JITTER_STREAM])
            boxes = jittered(boxes, self.box_jitter, rng, height, width)
        rng = np.random.default_rng([self.seed, item, draw, _STREAM])
        view = self._drawn_view(rng, boxes[0], height, width)
        sample = self.source.sample(position, self.source.read(position), view, row, boxes)
        return replace(sample, complete=False)

    def image_id(self, key: Key) -> int:
        """Of the image that the item is in."""
        return self.source.image_id(self.source.position_of(int(self._rows[key[0]])))

    def _drawn_view(
        self, rng: np.random.Generator, box: NDArray[np.float64], height: int, width: int
    ) -> View:
        low, high = self.scale_range
        context = self.context * math.exp(rng.uniform(math.log(low), math.log(high)))
        shift = (float(rng.uniform(-self.shift, self.shift)), float(rng.uniform(-self.shift, self.shift)))
        view = window_view(box, height, width, context, self.size_px, shift)
        flipped, colors = bool(rng.random() < self.flip_fraction), draw_colors(rng)
        return replace(view, flipped=flipped, colors=colors if self.color_jitter else None)
