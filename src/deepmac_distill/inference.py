"""A model over a data set: the images at the size it takes, and iterators that hold one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac_distill.contract import BoxSegmenter, Detector, ModelSpec, SegmentedMasks, require_finite
from deepmac_distill.data.dataset import AnnotatedImages, BoxDataset
from deepmac_distill.data.framed import FramedBoxes
from deepmac_distill.data.frames import views_of
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import ContractError
from deepmac_distill.look import Look
from deepmac_distill.structures import Batch

_ROUNDING = 1e-3  # what a grid may be off [0, 1] by: less than half of the 255 steps that are kept


@dataclass(frozen=True, slots=True)
class SegmentedBoxes:
    """Masks of the boxes of one batch, as arrays."""

    rows: NDArray[np.int64]  # (N,) row numbers in the data set
    grids: NDArray[np.uint8]  # (N, S, S), 255 = certain foreground
    answered: NDArray[np.bool_]  # (N,); where False the grid counts for nothing
    iou: NDArray[np.float32] | None = None  # (N,) the model's own estimate, where it makes one
    outside: NDArray[np.float32] | None = None  # (N,) share of each mask that its box has cut off, if known


@dataclass(frozen=True, slots=True)
class DetectedObjects:
    """Detections of one batch; boxes are fractions of their image's width and height."""

    image_ids: NDArray[np.int64]  # (D,)
    boxes_fraction: NDArray[np.float64]  # (D, 4) xyxy in [0, 1]
    class_index: NDArray[np.int64]  # (D,)
    scores: NDArray[np.float32]  # (D,)
    grids: NDArray[np.uint8]  # (D, S, S)


def boxes_for(
    spec: ModelSpec, annotations: Annotations, images: ImageStore, wanted: NDArray[np.bool_] | None = None
) -> BoxDataset:
    """Whole images at the size that a model takes, with all usable boxes or the (N,) `wanted` ones."""
    return BoxDataset(_without_masks(annotations, images, wanted), views_of(spec))


def framed_boxes(
    look: Look,
    spec: ModelSpec,
    annotations: Annotations,
    images: ImageStore,
    wanted: NDArray[np.bool_] | None = None,
) -> FramedBoxes:
    """Images as a model looks at their boxes: all usable ones or the (N,) `wanted` ones."""
    return FramedBoxes(_without_masks(annotations, images, wanted), look, spec)


def segment_boxes(
    model: BoxSegmenter, groups: Iterable[Sequence[Batch]], device: torch.device, autocast: bool
) -> Iterator[SegmentedBoxes]:
    """One mask grid per box of each group of batches.

    A box that is in several batches of its group gets the mean of its grids, and of what the model states of
    them, over those in which it was answered. In a group of one batch boxes keep their order; else they
    are in the order of their rows.

    Probabilities are rounded to 1/255 here, so that a mask made now and a mask made later from the stored
    grid are the same mask.

    Raises:
        ContractError: the model broke the contract; the message names what it returned.
    """
    for group in groups:
        found = [_segmented(model, batch, device, autocast) for batch in group if len(batch.instances)]
        rows = [batch.instances.rows for batch in group if len(batch.instances)]
        if not found:
            yield _no_boxes(model.spec.mask_size)
            continue
        merged, masks = (rows[0], found[0]) if len(found) == 1 else _mean_masks(rows, found)
        answered = masks.answered.numpy()
        grids = _quantized(masks.grids)
        grids[~answered] = 0
        yield SegmentedBoxes(
            rows=merged.numpy(),
            grids=grids,
            answered=answered,
            iou=None if masks.iou is None else masks.iou.numpy(),
            outside=None if masks.outside is None else masks.outside.numpy(),
        )


def _without_masks(
    annotations: Annotations, images: ImageStore, wanted: NDArray[np.bool_] | None
) -> AnnotatedImages:
    # Without masks no size is better than another.
    return AnnotatedImages(annotations, images, mask_size=1, with_masks=False, wanted=wanted)


def _segmented(model: BoxSegmenter, batch: Batch, device: torch.device, autocast: bool) -> SegmentedMasks:
    """The masks of the boxes of a batch, on the CPU, as they are on the image."""
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        masks = model.segment(batch.images.to(device), batch.instances.to(device))
        require_contract(model, masks, len(batch.instances))
    grids = masks.grids.flip(-1) if batch.mirrored else masks.grids
    iou, outside = (None if values is None else values.cpu() for values in (masks.iou, masks.outside))
    return SegmentedMasks(grids.cpu(), masks.answered.cpu(), iou, outside)


def _mean_masks(rows: Sequence[Tensor], found: Sequence[SegmentedMasks]) -> tuple[Tensor, SegmentedMasks]:
    """The rows, each once in their order, and the mean of their masks over where they were answered."""
    answered = torch.cat([masks.answered for masks in found])  # (M,)
    each, which = torch.unique(torch.cat(list(rows)), return_inverse=True)  # (N,), (M,)
    counts = torch.zeros(len(each)).index_add_(0, which, answered.float())

    def mean(values: Tensor) -> Tensor:  # (M, ...) to (N, ...)
        shape = (-1, *[1] * (values.ndim - 1))
        taken = torch.where(answered.view(shape), values, 0.0)
        summed = torch.zeros(len(each), *values.shape[1:]).index_add_(0, which, taken)
        return summed / counts.clamp(min=1).view(shape)

    def mean_stated(values: Sequence[Tensor | None]) -> Tensor | None:
        stated = [some for some in values if some is not None]
        return mean(torch.cat(stated)) if len(stated) == len(values) else None

    return each, SegmentedMasks(
        grids=mean(torch.cat([masks.grids for masks in found])),
        answered=counts > 0,
        iou=mean_stated([masks.iou for masks in found]),
        outside=mean_stated([masks.outside for masks in found]),
    )


def detect_objects(
    model: Detector,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: bool,
    max_detections: int,
    min_score: float = 0.0,
) -> Iterator[DetectedObjects]:
    """Detections per batch. Boxes leave as fractions: only the caller knows the original image sizes.

    Raises:
        ContractError: the model returned something that is no number.
    """
    for batch in batches:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            images, sizes = batch.images.to(device), batch.image_sizes.to(device)
            try:
                found = model.detect(images, sizes, max_detections, min_score)
                require_finite("boxes", found.boxes, found.scores)
            except ContractError as error:
                raise ContractError(f"{_called(model)}: {error}") from None
        _require_unit(f"{_called(model)}: detect: masks", found.masks)
        index = found.image_index.cpu()
        size_hw = batch.image_sizes[index]  # (D, 2)
        scale = (
            torch.stack([size_hw[:, 1], size_hw[:, 0]], 1).repeat(1, 2).double()
        )  # (D, 4) width, height twice
        yield DetectedObjects(
            image_ids=np.asarray(batch.image_ids, dtype=np.int64)[index.numpy()],
            boxes_fraction=(found.boxes.cpu().double() / scale).numpy(),
            class_index=found.class_index.cpu().numpy(),
            scores=found.scores.cpu().numpy(),
            grids=_quantized(found.masks),
        )


def _called(model: BoxSegmenter) -> str:
    return model.spec.name or model.spec.identity


def require_contract(model: BoxSegmenter, masks: SegmentedMasks, boxes: int) -> None:
    """Refuse what a model returned for so many boxes unless it fits `SegmentedMasks`.

    Raises:
        ContractError: names the model, the field, what was got and what was expected.
    """
    where, size = f"{_called(model)}: segment", model.spec.mask_size
    if not isinstance(masks, SegmentedMasks):
        raise ContractError(f"{where}: got {type(masks).__name__}, expected SegmentedMasks")
    _require_tensor(f"{where}: grids", masks.grids, (boxes, size, size), torch.float32)
    _require_tensor(f"{where}: answered", masks.answered, (boxes,), torch.bool)
    _require_unit(f"{where}: grids", masks.grids)
    for name, stated in (("iou", masks.iou), ("outside", masks.outside)):
        if stated is not None:
            _require_tensor(f"{where}: {name}", stated, (boxes,), torch.float32)
            _require_unit(f"{where}: {name}", stated)


def _no_boxes(size: int) -> SegmentedBoxes:
    return SegmentedBoxes(
        rows=np.zeros(0, np.int64),
        grids=np.zeros((0, size, size), np.uint8),
        answered=np.zeros(0, np.bool_),
    )


def _require_tensor(where: str, got: object, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if not isinstance(got, Tensor):
        raise ContractError(f"{where}: got {type(got).__name__}, expected a tensor {shape} {dtype}")
    if tuple(got.shape) != shape or got.dtype != dtype:
        raise ContractError(f"{where}: got {tuple(got.shape)} {got.dtype}, expected {shape} {dtype}")


def _require_unit(where: str, values: Tensor) -> None:
    if not values.numel():
        return
    low, high = (float(bound) for bound in values.aminmax())  # not a number if one of the values is none
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise ContractError(f"{where}: got values from {low:g} to {high:g}, expected finite ones in [0, 1]")


def _quantized(probs: Tensor) -> NDArray[np.uint8]:
    quantized: NDArray[np.uint8] = (probs.float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return quantized
