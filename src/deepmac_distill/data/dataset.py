"""An image of an annotation set as the network sees it: a canvas, boxes, and masks that live in the boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deepmac_distill.data.augment import View, ViewOf
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.geometry.axis import covered_boxes
from deepmac_distill.geometry.boxes import has_area, move_sides
from deepmac_distill.geometry.rasterize import rasterize_polygons, rasterize_rle, resample_grid
from deepmac_distill.lattice import Lattice

Key = tuple[int, int]  # position of the item in its set, number of the draw
JITTER_STREAM = 3  # sets the draws of jitter apart: without it all others are as they were


@dataclass(frozen=True, slots=True)
class SoftGrid:
    """Probabilities over a box, on the lattice of the model that gave them."""

    cells: NDArray[np.uint8]  # (S, S), 255 = certain foreground
    lattice: Lattice


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
    complete: bool = True  # whether all objects on the canvas are among the boxes
    mirrored: bool = False  # whether grids over the boxes are to be mirrored to be those of the image

    @classmethod
    def of_boxes(
        cls,
        image: Tensor,
        view: View,
        rows: NDArray[np.int64],
        boxes: NDArray[np.float64],
        class_index: NDArray[np.int64],
    ) -> Sample:
        """N boxes of an image without masks, under a view that shows them.

        Args:
            image: (3, H, W) uint8 RGB.
            rows: (N,) how the boxes are known.
            boxes: (N, 4) xyxy in pixels of the image.
            class_index: (N,)
        """
        return cls(
            image=view.image(image),
            image_size=view.fit,
            image_id=0,
            rows=rows,
            boxes=view.to_canvas(boxes),
            class_index=class_index,
            masks=np.zeros((len(rows), 1, 1), np.uint8),
            has_mask=np.zeros(len(rows), np.bool_),
            mask_weight=np.zeros(len(rows), np.float32),
        )


def jittered(
    boxes: NDArray[np.float64], share: float, rng: np.random.Generator, height: int, width: int
) -> NDArray[np.float64]:
    """Boxes in an image, each side moved by at most a share of the box's width or height, uniformly.

    A mask head that trains on them learns that an object may end inside its box, or be cut by it. Every side
    moves by itself; boxes are clipped to the image and keep an area.

    Args:
        boxes: (N, 4) xyxy in the image.
        share: in [0, 0.5).
    """
    return move_sides(boxes, rng.uniform(-share, share, boxes.shape), height, width)


class AnnotatedImages:
    """The images of an annotation set, any part of which becomes a sample.

    Crowds, boxes without area and boxes that a view leaves out are not among a sample's boxes. A box is
    clipped to what is visible first and its mask is rasterized over the clipped box then.
    """

    def __init__(
        self,
        annotations: Annotations,
        images: ImageStore,
        *,
        mask_size: int,
        with_masks: bool = True,
        wanted: NDArray[np.bool_] | None = None,
        mask_weight: NDArray[np.float32] | None = None,
        soft: Mapping[int, SoftGrid] | None = None,
        lattice: Lattice = "centers",
    ) -> None:
        """
        Args:
            images: where the images are.
            mask_size: cells a side of a mask grid.
            with_masks: False leaves every mask out, for work that needs only boxes.
            wanted: (N,) which annotations to show; all by default.
            mask_weight: (N,) of each mask in the loss; 1 by default.
            soft: row -> grid over the clipped box, which takes the place of the row's mask.
            lattice: where the cells of the masks sample their boxes. On "reference" a cell holds what is
                covered around its sample; the paper's code samples a mask of the image there.
        """
        table = annotations.annotations
        self.annotations, self.images, self.mask_size = annotations, images, mask_size
        self._offsets = annotations.rows_by_image()
        self._boxes = annotations.boxes_xyxy()
        self._class_index = annotations.class_index()
        self._usable = pc.equal(table["status"], "ok").to_numpy() & (True if wanted is None else wanted)
        self._has_mask = annotations.has_mask() & with_masks
        ones = np.broadcast_to(np.float32(1), len(table))  # takes no memory
        weights = ones if mask_weight is None else mask_weight
        self._mask_weight, self._soft, self._lattice = weights, soft or {}, lattice

    def __len__(self) -> int:
        """The number of images."""
        return len(self.annotations.images)

    def image_id(self, position: int) -> int:
        """Of the image at a position."""
        return int(self.annotations.images["image_id"][position].as_py())

    def size_of(self, position: int) -> tuple[int, int]:
        """(height, width) of the image at a position, as the annotations give it."""
        height, width = (self.annotations.images[name][position].as_py() for name in ("height", "width"))
        return height, width

    def read(self, position: int) -> Tensor:
        """(3, H, W) uint8 RGB: the image at a position.

        Raises:
            DataError: it is missing, cannot be decoded, or has another size than the annotations give.
        """
        name = self.annotations.images["file_name"][position].as_py()
        return self.images.read_sized(name, *self.size_of(position))

    def rows(self, position: int) -> NDArray[np.int64]:
        """Rows of the image's usable and wanted boxes."""
        rows = np.arange(self._offsets[position], self._offsets[position + 1])
        usable: NDArray[np.int64] = rows[self._usable[rows]]
        return usable

    def boxes(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(R, 4) xyxy in pixels of their image, clipped to it."""
        return self._boxes[rows]

    def masked_rows(self) -> NDArray[np.int64]:
        """Rows of all usable and wanted boxes that have a mask."""
        rows: NDArray[np.int64] = np.flatnonzero(self._usable & self._has_mask & has_area(self._boxes))
        return rows

    def mask_grids(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(R, M, M) coverage of each cell of the rows' own boxes, 255 = all; zero without a mask."""
        sizes, boxes = self.annotations.image_sizes(), self._boxes
        found = [self._grids(row[None], boxes[row][None], *sizes[row].tolist()) for row in rows]
        return np.concatenate([np.zeros((0, self.mask_size, self.mask_size), np.uint8), *found])

    def position_of(self, row: int) -> int:
        """Of the image that a row's box is in."""
        return int(np.searchsorted(self._offsets, row, side="right")) - 1

    def sample(
        self,
        position: int,
        image: Tensor,
        view: View,
        rows: NDArray[np.int64],
        boxes: NDArray[np.float64] | None = None,
    ) -> Sample:
        """Some boxes of an image under a view; those that it leaves out are left out.

        Args:
            image: of the position, as `read`.
            rows: (R,) of the image.
            boxes: (R, 4) as of `boxes`, in the place of the rows' own; masks are seen over these.
        """
        visible = view.clip(self._boxes[rows] if boxes is None else boxes)  # (R, 4) source pixels
        kept = has_area(visible)
        rows, visible = rows[kept], visible[kept]
        return Sample(
            image=view.image(image),
            image_size=view.fit,
            image_id=self.image_id(position),
            rows=rows,
            boxes=view.to_canvas(visible),
            class_index=self._class_index[rows],
            masks=view.grids(self._grids(rows, visible, view.height, view.width)),
            has_mask=self._has_mask[rows],
            mask_weight=self._mask_weight[rows],
        )

    def _grids(
        self, rows: NDArray[np.int64], boxes: NDArray[np.float64], height: int, width: int
    ) -> NDArray[np.uint8]:
        """(R, M, M) uint8: the masks of table rows over boxes in source pixels."""
        grids = np.zeros((len(rows), self.mask_size, self.mask_size), dtype=np.uint8)
        counts_of, polygons_of = (self.annotations.annotations[name] for name in ("rle_counts", "polygons"))
        for grid, row, box in zip(
            grids, rows, covered_boxes(boxes, self.mask_size, self._lattice), strict=True
        ):
            if not self._has_mask[row]:
                continue
            counts, polygons = counts_of[row], polygons_of[row]
            if row in self._soft:
                soft, side = self._soft[row], len(self._soft[row].cells)
                covered = covered_boxes(self._boxes[row][None], side, soft.lattice)[0]
                grid[:] = resample_grid(soft.cells, covered, box, self.mask_size)
            elif counts.is_valid:
                grid[:] = rasterize_rle(counts.as_py(), height, width, box, self.mask_size)
            else:
                parts = [part.values.to_numpy() for part in polygons]
                grid[:] = rasterize_polygons(parts, box, self.mask_size)
        return grids


class BoxDataset(Dataset[Sample]):
    """Each image with its boxes, under a view that depends on (`seed`, position, draw) alone.

    Args:
        source: the images and their boxes.
        view_of: draws the view of an image, such as `training_views(...)` or `evaluation_views(size_px)`.
        box_jitter: see `jittered`.
    """

    def __init__(
        self, source: AnnotatedImages, view_of: ViewOf, seed: int = 0, *, box_jitter: float = 0.0
    ) -> None:
        self.source, self.view_of, self.seed, self.box_jitter = source, view_of, seed, box_jitter

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        """The image at a position, in one of its draws.

        Raises:
            DataError: the image is missing, cannot be decoded, or has another size than the annotations give.
        """
        position, draw = key
        height, width = self.source.size_of(position)
        view = self.view_of(np.random.default_rng([self.seed, position, draw]), height, width)
        image, rows = self.source.read(position), self.source.rows(position)
        boxes = self.source.boxes(rows)
        if self.box_jitter:
            rng = np.random.default_rng([self.seed, position, draw, JITTER_STREAM])
            boxes = jittered(boxes, self.box_jitter, rng, height, width)
        return self.source.sample(position, image, view, rows, boxes)

    def image_id(self, key: Key) -> int:
        """Of the image of a key."""
        return self.source.image_id(key[0])
