"""An image of an annotation set as the network sees it: a canvas, boxes, and masks that live in the boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deepmac_distill.data.augment import ViewOf
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.geometry.boxes import has_area
from deepmac_distill.geometry.rasterize import rasterize_polygons, rasterize_rle, resample_grid

Key = tuple[int, int]  # position of the image in its set, number of the draw


@dataclass(frozen=True, slots=True)
class Sample:
    """One image on its canvas and its N visible boxes, in table order."""

    image: Tensor  # (3, S, S) uint8 RGB
    image_size: tuple[int, int]  # (height, width) of the image on the canvas
    image_id: int
    rows: NDArray[np.int64]  # (N,) in the annotation table
    boxes: NDArray[np.float64]  # (N, 4) xyxy in canvas pixels, clipped to what is visible
    class_index: NDArray[np.int64]  # (N,)
    masks: NDArray[np.uint8]  # (N, M, M) coverage over the clipped box; zero where has_mask is False
    has_mask: NDArray[np.bool_]  # (N,)
    mask_weight: NDArray[np.float32]  # (N,) of the mask in the loss


class BoxDataset(Dataset[Sample]):
    """The images of an annotation set, each under a view that depends on (`seed`, position, draw) alone.

    Crowds, boxes without area and boxes that the view leaves out are not among a sample's boxes. A box is
    clipped to what is visible first and its mask is rasterized over the clipped box then.
    """

    def __init__(
        self,
        annotations: Annotations,
        images: ImageStore,
        *,
        mask_size: int,
        view_of: ViewOf,
        seed: int = 0,
        with_masks: bool = True,
        wanted: NDArray[np.bool_] | None = None,
        mask_weight: NDArray[np.float32] | None = None,
        soft: Mapping[int, NDArray[np.uint8]] | None = None,
    ) -> None:
        """
        Args:
            images: where the images are.
            mask_size: cells a side of a mask grid.
            view_of: draws the view of an image, such as `training_views(...)` or `evaluation_views(size_px)`.
            with_masks: False leaves every mask out, for work that needs only boxes.
            wanted: (N,) which annotations to show; all by default.
            mask_weight: (N,) of each mask in the loss; 1 by default.
            soft: row -> (S, S) grid over the clipped box, which takes the place of the row's mask.
        """
        table = annotations.annotations
        self.annotations, self.images = annotations, images
        self.mask_size, self.view_of, self.seed = mask_size, view_of, seed
        self._offsets = annotations.rows_by_image()
        self._boxes = annotations.boxes_xyxy()
        self._class_index = annotations.class_index()
        self._usable = pc.equal(table["status"], "ok").to_numpy() & (True if wanted is None else wanted)
        self._has_mask = annotations.has_mask() & with_masks
        weights = np.ones(len(table), np.float32) if mask_weight is None else mask_weight
        self._mask_weight, self._soft = weights, soft or {}

    def __len__(self) -> int:
        """The number of images."""
        return len(self.annotations.images)

    def __getitem__(self, key: Key) -> Sample:
        """The image at a position, in one of its draws.

        Raises:
            DataError: the image is missing, cannot be decoded, or has another size than the annotations give.
        """
        position, draw = key
        image_id, name, height, width = (
            self.annotations.images[name][position].as_py()
            for name in ("image_id", "file_name", "height", "width")
        )
        view = self.view_of(np.random.default_rng([self.seed, position, draw]), height, width)
        rows = np.arange(self._offsets[position], self._offsets[position + 1])
        visible = view.clip(self._boxes[rows])  # (R, 4) source pixels
        kept = self._usable[rows] & has_area(visible)
        rows, visible = rows[kept], visible[kept]
        image = self.images.read_sized(name, height, width)
        return Sample(
            image=view.image(image),
            image_size=view.fit,
            image_id=image_id,
            rows=rows,
            boxes=view.to_canvas(visible),
            class_index=self._class_index[rows],
            masks=view.grids(self._grids(rows, visible, height, width)),
            has_mask=self._has_mask[rows],
            mask_weight=self._mask_weight[rows],
        )

    def _grids(
        self, rows: NDArray[np.int64], boxes: NDArray[np.float64], height: int, width: int
    ) -> NDArray[np.uint8]:
        """(R, M, M) uint8: the masks of table rows over boxes in source pixels."""
        grids = np.zeros((len(rows), self.mask_size, self.mask_size), dtype=np.uint8)
        counts_of, polygons_of = (self.annotations.annotations[name] for name in ("rle_counts", "polygons"))
        for grid, row, box in zip(grids, rows, boxes, strict=True):
            if not self._has_mask[row]:
                continue
            counts, polygons = counts_of[row], polygons_of[row]
            if row in self._soft:
                grid[:] = resample_grid(self._soft[row], self._boxes[row], box, self.mask_size)
            elif counts.is_valid:
                grid[:] = rasterize_rle(counts.as_py(), height, width, box, self.mask_size)
            else:
                parts = [part.values.to_numpy() for part in polygons]
                grid[:] = rasterize_polygons(parts, box, self.mask_size)
        return grids
