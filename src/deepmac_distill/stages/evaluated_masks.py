"""What evaluations have in common: a model's masks in the boxes of a set, and whose masks it saw before."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from deepmac_distill.contract import BoxSegmenter, ModelSpec
from deepmac_distill.data.framed import framed_batches
from deepmac_distill.dataset.views import Truth
from deepmac_distill.inference import framed_boxes, segment_boxes
from deepmac_distill.labels.cut import note_of
from deepmac_distill.labels.describe import given_box_masks
from deepmac_distill.models.load import Source
from deepmac_distill.stages.evaluated_set import EvaluatedSet
from deepmac_distill.stages.job import Job
from deepmac_distill.structures import Batch


def masks_in_given_boxes(
    job: Job, on: EvaluatedSet, source: Source, model: BoxSegmenter, title: str = "masks in given boxes"
) -> pa.Table:
    """A model's masks of the boxes of a set, as it looks at them, cut as labels are."""
    framed = _framed(job, source, model.spec, on, title)
    segmented = segment_boxes(model, framed, job.device, job.autocast_of(source.role))
    spec = model.spec
    return given_box_masks(
        on.truth, segmented, job.cut, lattice=spec.lattice, probabilities=spec.probabilities
    )


def note_how(job: Job, source: Source, spec: ModelSpec) -> None:
    """Note where masks are not cut by the rule that is asked for, or a model looks at what it never saw."""
    for note in filter(None, (note_of(job.cut, spec), source.look_note)):
        job.progress.note(note)


def shown_elsewhere(job: Job, truth: Truth, source: Source, upper_bound: bool) -> frozenset[str]:
    """Unseen classes of which the model saw masks, or may have; a note names them.

    Args:
        upper_bound: the model saw every mask of this data, on purpose.
    """
    if upper_bound:
        return frozenset()
    unseen, seen = frozenset(truth.classes.unseen_names), source.seen_mask_classes
    names = unseen if seen is None else unseen & frozenset(seen)
    if names:
        why = "nobody knows whose masks it saw" if seen is None else "it saw their masks"
        job.progress.note(f"{source.name}: {len(names)} unseen classes count as shown elsewhere: {why}")
    return names


def _framed(job: Job, source: Source, spec: ModelSpec, on: EvaluatedSet, title: str) -> Iterator[list[Batch]]:
    """Some images at a time, as the model looks at their boxes."""
    dataset = framed_boxes(source.look, spec, on.truth, on.images, on.wanted)
    size, workers = job.pipeline.evaluation.batch_size, job.pipeline.data.workers
    with job.progress.bar(title, len(dataset), unit="image") as bar:
        for some in framed_batches(dataset, size, workers=workers):
            yield some.batches
            bar.advance(some.images)
