"""Samples become batches, in an order that no number of workers and no restart changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from deepmac_distill.data.dataset import BoxDataset, Key, Sample
from deepmac_distill.data.windows import WindowDataset
from deepmac_distill.data.workers import loaded, refuse
from deepmac_distill.errors import DataError
from deepmac_distill.structures import Batch, Instances

WHOLE = slice(None)  # batch


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of at least one sample; instances stay in the samples' order."""
    boxes = torch.from_numpy(np.concatenate([s.boxes for s in samples])).float()
    lengths = torch.tensor([len(s.boxes) for s in samples])
    instances = Instances(
        image_index=torch.arange(len(samples)).repeat_interleave(lengths),
        rows=torch.from_numpy(np.concatenate([s.rows for s in samples])),
        boxes=boxes,
        class_index=torch.from_numpy(np.concatenate([s.class_index for s in samples])),
        masks=torch.from_numpy(np.concatenate([s.masks for s in samples])),
        has_mask=torch.from_numpy(np.concatenate([s.has_mask for s in samples])),
        mask_weight=torch.from_numpy(np.concatenate([s.mask_weight for s in samples])),
    )
    return Batch(
        images=torch.stack([s.image for s in samples]),
        image_sizes=torch.tensor([s.image_size for s in samples]),
        image_ids=tuple(s.image_id for s in samples),
        instances=instances,
        complete=all(s.complete for s in samples),
        mirrored=all(s.mirrored for s in samples),
    )


def training_keys(images: int, batch_size: int, seed: int, step: int) -> list[Key]:
    """Which images make up batch `step`, and which draw of each: a pure function.

    The stream is one shuffle of all images after another; a batch may reach over the end of one. The draw of
    an image is the number of the shuffle, so no view of an image comes twice.

    >>> [training_keys(3, 2, seed=0, step=s) for s in range(3)]
    [[(2, 0), (0, 0)], [(1, 0), (2, 1)], [(0, 1), (1, 1)]]
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return [
        (int(_shuffle(images, seed, place // images)[place % images]), place // images) for place in places
    ]


def training_batches(
    dataset: BoxDataset | WindowDataset,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    workers: int = 0,
    part: slice = WHOLE,
) -> Iterator[Batch]:
    """Batches without end from `first_step` on: those of a run that never stopped, for any `workers`.

    Args:
        part: which places of each batch are read, in one of several processes that share it.

    Raises:
        DataError: the set has no images, or one of them cannot be read.
    """
    if len(dataset) == 0:
        raise DataError(f"{dataset.source.annotations.path}: no images; expected at least one to train on")
    keys = (training_keys(len(dataset), batch_size, seed, step)[part] for step in count(first_step))
    return _batches(dataset, keys, workers, refuse)


def alternating_batches(
    images: BoxDataset,
    windows: WindowDataset,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    workers: int = 0,
    part: slice = WHOLE,
) -> Iterator[Batch]:
    """`training_batches` of whole images and of windows in turn, images first.

    Raises:
        DataError: as `training_batches`.
    """
    streams = (
        training_batches(images, batch_size, seed, (first_step + 1) // 2, workers, part),
        training_batches(windows, batch_size, seed, first_step // 2, workers, part),
    )
    return (next(streams[step % 2]) for step in count(first_step))


def evaluation_batches(
    dataset: BoxDataset,
    batch_size: int,
    positions: Sequence[int] | None = None,
    workers: int = 0,
    on_unreadable: Callable[[int, DataError], None] | None = None,
) -> Iterator[Batch]:
    """Draw 0 of the images at `positions` (all of them by default), once each, in their order.

    Args:
        on_unreadable: gets the image id and the reason; that image is then left out of its batch, and a
            batch without images is left out. None: the error is raised.

    Raises:
        DataError: an image cannot be read and `on_unreadable` is None.
    """
    positions = range(len(dataset)) if positions is None else positions
    starts = range(0, len(positions), batch_size)
    keys = ([(int(p), 0) for p in positions[start : start + batch_size]] for start in starts)
    return _batches(dataset, keys, workers, on_unreadable or refuse)


def _batches(
    dataset: BoxDataset | WindowDataset,
    keys: Iterable[list[Key]],
    workers: int,
    on_unreadable: Callable[[int, DataError], None],
) -> Iterator[Batch]:
    for batch, unreadable in loaded(dataset, keys, workers, collate):
        for failure in unreadable:
            on_unreadable(failure.image_id, failure.error)
        if batch is not None:
            yield batch


@lru_cache(maxsize=2)
def _shuffle(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(images)
