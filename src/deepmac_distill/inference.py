"""A model over a data set: the images at the size it takes, and iterators that hold one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac_distill.contract import BoxSegmenter, Detector, ModelSpec, SegmentedMasks
from deepmac_distill.data.augment import View, evaluation_views, native_views
from deepmac_distill.data.dataset import BoxDataset
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import ContractError
from deepmac_distill.structures import Batch

_ROUNDING = 1e-3  # what a grid may be off [0, 1] by: less than half of the 255 steps that are kept


@dataclass(frozen=True, slots=True)
class SegmentedBoxes:
    """Masks of the boxes of one batch, as arrays."""

    rows: NDArray[np.int64]  # (N,) row numbers in the data set
    grids: NDArray[np.uint8]  # (N, S, S), 255 = certain foreground
    answered: NDArray[np.bool_]  # (N,); where False the grid counts for nothing
    iou: NDArray[np.float32] | None = None  # (N,) the model's own estimate, where it makes one


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
    size_px = spec.input_size_px
    return BoxDataset(
        annotations,
        images,
        mask_size=1,  # without masks no size is better than another
        view_of=native_views(spec.size_divisibility) if size_px is None else evaluation_views(size_px),
        with_masks=False,
        wanted=wanted,
    )


def view_for(spec: ModelSpec, height: int, width: int) -> View:
    """One image of `height` x `width` at the size that a model takes."""
    size_px = spec.input_size_px
    views = native_views(spec.size_divisibility) if size_px is None else evaluation_views(size_px)
    return views(np.random.default_rng(0), height, width)


def images_at_once(spec: ModelSpec, batch_size: int) -> int:
    """Images in a batch: one where each keeps its own size."""
    return 1 if spec.input_size_px is None else batch_size


def segment_boxes(
    model: BoxSegmenter, batches: Iterable[Batch], device: torch.device, autocast: bool
) -> Iterator[SegmentedBoxes]:
    """One mask grid per box, in the order of the batches.

    Probabilities are rounded to 1/255 here, so that a mask made now and a mask made later from the stored
    grid are the same mask.

    Raises:
        ContractError: the model broke the contract; the message names what it returned.
    """
    for batch in batches:
        if not len(batch.instances):
            yield _no_boxes(model.spec.mask_size)
            continue
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            masks = model.segment(batch.images.to(device), batch.instances.to(device))
            require_contract(model, masks, len(batch.instances))
        answered = masks.answered.cpu().numpy()
        grids = _quantized(masks.grids)
        grids[~answered] = 0
        yield SegmentedBoxes(
            rows=batch.instances.rows.numpy(),
            grids=grids,
            answered=answered,
            iou=None if masks.iou is None else masks.iou.cpu().numpy(),
        )


def detect_objects(
    model: Detector, batches: Iterable[Batch], device: torch.device, autocast: bool, max_detections: int
) -> Iterator[DetectedObjects]:
    """Detections per batch. Boxes leave as fractions: only the caller knows the original image sizes."""
    for batch in batches:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            found = model.detect(batch.images.to(device), batch.image_sizes.to(device), max_detections)
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


def require_contract(model: BoxSegmenter, masks: SegmentedMasks, boxes: int) -> None:
    """Refuse what a model returned for so many boxes unless it fits `SegmentedMasks`.

    Raises:
        ContractError: names the model, the field, what was got and what was expected.
    """
    where, size = f"{model.spec.identity}: segment", model.spec.mask_size
    if model.spec.lattice != "centers":  # the codec cuts at the cells' centers; others would be shifted
        raise ContractError(f"{model.spec.identity}: lattice: got {model.spec.lattice!r}, expected 'centers'")
    if not isinstance(masks, SegmentedMasks):
        raise ContractError(f"{where}: got {type(masks).__name__}, expected SegmentedMasks")
    _require_tensor(f"{where}: grids", masks.grids, (boxes, size, size), torch.float32)
    _require_tensor(f"{where}: answered", masks.answered, (boxes,), torch.bool)
    _require_unit(f"{where}: grids", masks.grids)
    if masks.iou is not None:
        _require_tensor(f"{where}: iou", masks.iou, (boxes,), torch.float32)
        _require_unit(f"{where}: iou", masks.iou)


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
