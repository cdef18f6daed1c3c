"""Images as a model looks at their boxes: read once, seen in frames, and batched by canvas."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deepmac_distill.contract import ModelSpec
from deepmac_distill.data.dataset import AnnotatedImages, Sample
from deepmac_distill.data.frames import Frame, frames_of
from deepmac_distill.data.loader import collate
from deepmac_distill.data.workers import Unreadable, loaded, refuse
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.boxes import Boxes
from deepmac_distill.look import Look
from deepmac_distill.structures import Batch

WINDOWS_AT_ONCE = 512  # of several images, in memory


class FramedBoxes(Dataset[list[Sample]]):
    """Each image as the samples in which a model sees its boxes; read once, without masks.

    Args:
        source: the images and their boxes.
        look: how the model looks at boxes.
        spec: of the model.
    """

    def __init__(self, source: AnnotatedImages, look: Look, spec: ModelSpec) -> None:
        self.source, self.look, self.spec = source, look, spec

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, position: int) -> list[Sample]:
        """The frames of an image.

        Raises:
            DataError: the image is missing, cannot be decoded, or has another size than the annotations give.
        """
        image, rows = self.source.read(position), self.source.rows(position)
        frames = frames_of(self.look, self.spec, self.source.boxes(rows), *self.source.size_of(position))
        return [
            _seen_in(frame, self.source.sample(position, image, frame.view, rows[frame.shown]))
            for frame in frames
        ]

    def image_id(self, position: int) -> int:
        """Of the image at a position."""
        return self.source.image_id(position)


@dataclass(frozen=True, slots=True)
class FramedImages:
    """Some images as a model looks at their boxes: each box in one of the batches or in several."""

    images: int  # that could be read
    batches: list[Batch]


def framed_batches(
    dataset: FramedBoxes,
    batch_size: int,
    positions: Sequence[int] | None = None,
    workers: int = 0,
    on_unreadable: Callable[[int, DataError], None] | None = None,
) -> Iterator[FramedImages]:
    """The images at `positions` (all of them by default), once each, in their order, some at a time.

    Args:
        batch_size: canvases of a batch at most; one whole image where each keeps its own size.
        on_unreadable: as in `evaluation_batches`.

    Raises:
        DataError: an image cannot be read and `on_unreadable` is None.
    """
    units = {0: range(len(dataset)) if positions is None else positions}
    for _, some in framed_units(dataset, batch_size, units, workers, on_unreadable):
        yield from some


def framed_units(
    dataset: FramedBoxes,
    batch_size: int,
    units: Mapping[int, Sequence[int]],
    workers: int = 0,
    on_unreadable: Callable[[int, DataError], None] | None = None,
) -> Iterator[tuple[int, Iterator[FramedImages]]]:
    """`framed_batches` of each unit of work by its number, all by one data loader, which reads ahead.

    What a unit holds does not depend on the units before it. Each is to be used up before the next.

    Args:
        units: number -> positions; a unit without any is left out.
        on_unreadable: as in `evaluation_batches`; called while the unit of the image is used.
    """
    together = _images_together(dataset, batch_size)
    images = images_at_once(dataset.spec, batch_size)
    collated = partial(_in_frames, images=images, windows=batch_size)
    owners: deque[int] = deque()  # of the groups that the loader has asked for

    def groups() -> Iterator[list[int]]:
        for unit, positions in units.items():
            for group in _groups(dataset, positions, together):
                owners.append(unit)
                yield group

    found = ((owners.popleft(), *read) for read in loaded(dataset, groups(), workers, collated))
    for unit, of_unit in groupby(found, key=itemgetter(0)):
        yield unit, _readable(of_unit, on_unreadable or refuse)


def unit_positions(dataset: FramedBoxes, batch_size: int, groups: int) -> dict[int, range]:
    """Positions of units by number, each of so many groups as `framed_batches` of the whole set has."""
    units: dict[int, range] = {}
    some = _groups(dataset, range(len(dataset)), _images_together(dataset, batch_size))
    while unit := list(islice(some, groups)):
        units[len(units)] = range(unit[0][0], unit[-1][-1] + 1)
    return units


def framed_image(
    image: Tensor, boxes: Boxes, class_index: NDArray[np.int64], look: Look, spec: ModelSpec, windows: int
) -> list[Batch]:
    """One image as a model looks at its boxes, whose rows are their positions.

    Args:
        image: (3, H, W) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of the image, clipped to it, with area.
        class_index: (N,)
        windows: in a batch at most.
    """
    height, width = image.shape[1:]
    samples = [
        _seen_in(
            frame,
            Sample.of_boxes(image, frame.view, frame.shown, boxes[frame.shown], class_index[frame.shown]),
        )
        for frame in frames_of(look, spec, boxes, height, width)
    ]
    return batches_of(samples, images=1, windows=windows)


def images_at_once(spec: ModelSpec, batch_size: int) -> int:
    """Whole images in a batch: one where each keeps its own size."""
    return 1 if spec.input_size_px is None else batch_size


def batches_of(samples: Sequence[Sample], images: int, windows: int) -> list[Batch]:
    """Samples of any canvases as batches, in their order within those of one kind.

    Args:
        images: canvases of a batch that show a whole image, at most.
        windows: canvases of a batch that show a window, at most.
    """
    kinds: dict[tuple[int, bool, bool], list[Sample]] = {}
    for sample in samples:
        kinds.setdefault((sample.image.shape[-1], sample.complete, sample.mirrored), []).append(sample)
    return [
        collate(some[start : start + size])
        for (_, whole, _), some in kinds.items()
        for size in [images if whole else windows]
        for start in range(0, len(some), size)
    ]


def _seen_in(frame: Frame, sample: Sample) -> Sample:
    return replace(sample, complete=frame.whole, mirrored=frame.view.flipped)


def _in_frames(images_of_samples: list[list[Sample]], images: int, windows: int) -> FramedImages:
    return FramedImages(len(images_of_samples), batches_of(list(chain(*images_of_samples)), images, windows))


def _readable(
    read: Iterable[tuple[int, FramedImages | None, list[Unreadable]]],
    on_unreadable: Callable[[int, DataError], None],
) -> Iterator[FramedImages]:
    for _, some, unreadable in read:
        for failure in unreadable:
            on_unreadable(failure.image_id, failure.error)
        if some is not None:
            yield some


def _images_together(dataset: FramedBoxes, batch_size: int) -> int:
    return images_at_once(dataset.spec, batch_size) if dataset.look.in_images else batch_size


def _groups(dataset: FramedBoxes, positions: Sequence[int], images: int) -> Iterator[list[int]]:
    """Positions in lists of at most so many images, and in windows of one where its boxes are many."""
    group: list[int] = []
    boxes = 0
    for position in map(int, positions):
        more = len(dataset.source.rows(position)) if dataset.look.in_windows else 0
        if group and (len(group) == images or boxes + more > WINDOWS_AT_ONCE):
            yield group
            group, boxes = [], 0
        group.append(position)
        boxes += more
    if group:
        yield group
