"""A model that gives masks to boxes of an image, and finds objects on it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from deepmac_distill import devices
from deepmac_distill.chain import Role
from deepmac_distill.contract import BoxSegmenter, Detector, ModelSpec
from deepmac_distill.data.images import read_image
from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.geometry.boxes import xywh_to_xyxy
from deepmac_distill.labels.cut import DEFAULT_CUT, Cut, recut
from deepmac_distill.lattice import Lattice
from deepmac_distill.look import WHOLE_IMAGE, Look
from deepmac_distill.models.load import Weights, require_fits
from deepmac_distill.one_image import detect_image, segment_image
from deepmac_distill.stages.sources import source_at
from deepmac_distill.weights import starter

BoxFormat = Literal["xyxy", "xywh"]
ImageLike = str | Path | NDArray[np.uint8] | Image.Image
Rle = dict[str, Any]  # COCO: {"size": [H, W], "counts": str}


class _Masks:
    """The forms of N masks of one image that are kept as compressed COCO counts."""

    __slots__ = ()
    size: tuple[int, int]
    counts: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def rle(self) -> list[Rle]:
        """N masks as COCO run-length codes, ready for JSON."""
        return [{"size": list(self.size), "counts": code.decode("ascii")} for code in self.counts]

    def dense(self) -> NDArray[np.bool_]:
        """(N, H, W) masks as images: large, for those who need them."""
        return _dense(self.rle, self.size)


@dataclass(frozen=True, slots=True)
class BoxMasks(_Masks):
    """Masks of N boxes of one image."""

    size: tuple[int, int]  # (height, width) of the image
    boxes: NDArray[np.float64]  # (N, 4) xyxy in pixels, clipped to the image
    grids: NDArray[np.uint8]  # (N, S, S) probabilities over each box, 255 = certain foreground
    answered: NDArray[np.bool_]  # (N,) False where the model gave no mask
    scores: NDArray[np.float32]  # (N,) mean probability inside each mask; no IoU
    expected_iou: NDArray[np.float32] | None  # (N,) from the grids, not calibrated; None: no probabilities
    model_iou: NDArray[np.float32] | None  # (N,) the model's own estimate, where it makes one
    counts: tuple[bytes, ...]  # N compressed COCO counts
    cuts: NDArray[np.float32]  # (N,) probability above which a pixel is foreground
    lattice: Lattice = "centers"  # where the cells of the grids sample their boxes

    def at(self, cut: Cut) -> BoxMasks:
        """The same grids cut elsewhere; nothing is computed by the model again.

        Args:
            cut: see `Model.masks`.

        Raises:
            ValueError: a cut outside [0, 1), or an unknown rule.
        """
        probabilities = self.expected_iou is not None
        sizes = np.tile(self.size, (len(self), 1))
        masks = recut(self.grids, self.boxes, sizes, cut, probabilities, lattice=self.lattice)
        return dataclasses.replace(
            self,
            scores=masks.scores,
            expected_iou=masks.expected_iou if probabilities else None,
            counts=tuple(masks.counts),
            cuts=masks.cuts,
        )


@dataclass(frozen=True, slots=True)
class Objects(_Masks):
    """D objects that a detector found on one image, best first."""

    size: tuple[int, int]  # (height, width) of the image
    boxes: NDArray[np.float64]  # (D, 4) xyxy in pixels
    class_names: tuple[str, ...]  # D
    scores: NDArray[np.float32]  # (D,) of the detection
    counts: tuple[bytes, ...]  # D compressed COCO counts


class Model:
    """A model that is ready to use on images.

    Args:
        segmenter: anything that keeps the contract.
        device: where it lives.
        class_names: the classes it knows, in the order of its class index; of a model whose masks belong to
            classes, and of a detector.
        look: how it looks at given boxes.

    Raises:
        ConfigError: it cannot take windows of the size that the look has.
    """

    def __init__(
        self,
        segmenter: BoxSegmenter,
        device: torch.device,
        class_names: Sequence[str] = (),
        look: Look = WHOLE_IMAGE,
    ) -> None:
        self._segmenter, self._device, self.class_names = segmenter, device, tuple(class_names)
        require_fits(look, segmenter.spec, segmenter.spec.identity)
        self.look = look

    @property
    def spec(self) -> ModelSpec:
        """What the model is and which inputs it takes."""
        return self._segmenter.spec

    def masks(
        self,
        image: ImageLike,
        boxes: ArrayLike,
        *,
        fmt: BoxFormat = "xyxy",
        classes: Sequence[str] | None = None,
        look: Look | None = None,
        cut: Cut = DEFAULT_CUT,
    ) -> BoxMasks:
        """A mask for each box of an image.

        Args:
            image: a path, a PIL image, or (H, W, 3) uint8 RGB.
            boxes: (N, 4) in pixels: x1, y1, x2, y2, or with `fmt` "xywh" x, y, width, height. They are
                clipped to the image.
            classes: N names, where the model's masks belong to classes.
            look: how to look at the boxes this time; None: as the model does, `Model.look`.
            cut: probability above which a pixel is foreground, in [0, 1); or "expected-iou": each mask is cut
                where its own grid expects the largest IoU (at 0.5 if the model gives no probabilities).

        Raises:
            ValueError: a cut outside [0, 1), or an unknown rule.
            DataError: the image cannot be read, or a box has no area in it.
            ConfigError: the model needs classes that are missing or that it does not know, or it cannot take
                windows of the size that the look has.
            ContractError: the model returned something else than it must.
        """
        pixels = _pixels(image)
        corners = _corners(boxes, fmt)
        index = self._class_index(classes, len(corners))
        looked = self.look if look is None else look
        require_fits(looked, self.spec, self.spec.identity)
        found = segment_image(self._segmenter, pixels, corners, cut, self._device, index, looked)
        segmented, masks = found.segmented, found.masks
        return BoxMasks(
            size=(pixels.shape[1], pixels.shape[2]),
            boxes=found.boxes,
            grids=segmented.grids,
            answered=segmented.answered,
            scores=masks.scores,
            expected_iou=masks.expected_iou if self.spec.probabilities else None,
            model_iou=segmented.iou,
            counts=tuple(masks.counts),
            cuts=masks.cuts,
            lattice=self.spec.lattice,
        )

    def detect(
        self,
        image: ImageLike,
        *,
        min_score: float = 0.3,
        max_detections: int = 100,
        cut: Cut = DEFAULT_CUT,
    ) -> Objects:
        """The objects that the model finds by itself.

        Args:
            image: as in `masks`, as is `cut`.
            min_score: objects below it are left out.
            max_detections: how many objects at most, the best ones.

        Raises:
            ValueError: a cut outside [0, 1), or an unknown rule.
            DataError: the image cannot be read.
            ConfigError: the model was trained without detection.
        """
        if not self.spec.detects:
            raise ConfigError(f"{self.spec.identity}: was trained without detection; expected a detector")
        pixels = _pixels(image)
        found = detect_image(
            cast(Detector, self._segmenter),
            pixels,
            self._device,
            min_score=min_score,
            max_detections=max_detections,
            cut=cut,
        )
        return Objects(
            size=(pixels.shape[1], pixels.shape[2]),
            boxes=found.boxes,
            class_names=tuple(self.class_names[index] for index in found.class_index),
            scores=found.scores,
            counts=tuple(found.masks.counts),
        )

    def _class_index(self, classes: Sequence[str] | None, boxes: int) -> NDArray[np.int64] | None:
        if self.spec.class_agnostic:
            return None
        if classes is None or len(classes) != boxes:
            got = "none" if classes is None else f"{len(classes)}"
            raise ConfigError(
                f"{self.spec.identity}: has a mask for each class: classes: got {got}, expected {boxes}"
            )
        if unknown := [name for name in classes if name not in self.class_names]:
            raise ConfigError(
                f"{self.spec.identity}: class {unknown[0]}: expected one of {', '.join(self.class_names[:5])}"
            )
        return np.array([self.class_names.index(name) for name in classes], dtype=np.int64)


def load(
    model: str | Path | BoxSegmenter,
    *,
    role: Role = "teacher",
    device: str = "auto",
    allow_code: bool = False,
    look: Look | None = None,
) -> Model:
    """A model that is ready to use.

    Args:
        model: a weights file, a run directory, "starter" for the small teacher that comes with the package
            (a file or folder of that name comes first, with a warning), "sam:MODEL" for a SAM by its folder
            or its name on the hub, or an object that keeps the contract of a `BoxSegmenter`.
        role: whose weights of a run directory.
        device: auto, cpu, cuda, cuda:N or mps.
        allow_code: import the code that the run's teacher names, if it is a third party's.
        look: how it looks at given boxes; None: as it was trained to, or as the run has it.

    Raises:
        CheckpointError: no such file, or no weights of ours.
        RunError: the directory is no run.
        DeviceError: the device is not there.
        ConfigError: it cannot take windows of the size that the look has.
    """
    where = devices.pick_device(device)
    if not isinstance(model, str | Path):
        return Model(model, where, look=look or WHOLE_IMAGE)
    if note := starter.note_of(Path(model)):
        warnings.warn(note, stacklevel=2)
    source = source_at(Path(model), role, allow_code)
    names = source.card.class_names if isinstance(source, Weights) else ()
    return Model(source.model(where), where, names, look or source.look)


def _pixels(image: ImageLike) -> Tensor:
    """(3, H, W) uint8 RGB."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    pixels = np.array(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(f"image: got {pixels.shape} {pixels.dtype}, expected (H, W, 3) uint8 RGB")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _corners(boxes: ArrayLike, fmt: BoxFormat) -> NDArray[np.float64]:
    """(N, 4) xyxy of boxes in either format."""
    given = np.asarray(boxes, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != 4:
        raise DataError(f"boxes: got an array of shape {given.shape}, expected (N, 4)")
    if not np.isfinite(given).all():
        raise DataError(
            f"boxes: got {given[~np.isfinite(given).all(1)][0].tolist()}, expected finite numbers"
        )
    return xywh_to_xyxy(given) if fmt == "xywh" else given


def _dense(rles: list[Rle], size: tuple[int, int]) -> NDArray[np.bool_]:
    if not rles:
        return np.zeros((0, *size), np.bool_)
    dense: NDArray[np.bool_] = coco_mask.decode(rles).transpose(2, 0, 1).astype(np.bool_)
    return dense
