"""The units of an evaluation: masks or detections of some images each, kept until all are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from deepmac_distill.contract import BoxSegmenter, Detector
from deepmac_distill.data.dataset import BoxDataset
from deepmac_distill.data.framed import (
    FramedBoxes,
    FramedImages,
    framed_units,
    images_at_once,
    unit_positions,
)
from deepmac_distill.data.loader import evaluation_batches
from deepmac_distill.evaluation.average_precision import Detection
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.inference import boxes_for, detect_objects, framed_boxes, segment_boxes
from deepmac_distill.labels.describe import coco_results, given_box_masks
from deepmac_distill.models.load import Source
from deepmac_distill.progress import Bar
from deepmac_distill.stages.evaluated_set import EvaluatedSet
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.own_units import joins_here, own_units, require_joinable
from deepmac_distill.stages.parts import MadeOf, Parts
from deepmac_distill.structures import Batch

UNIT_BATCHES = 16
MASKS, DETECTIONS = ("masks", "ious"), ("detections",)  # kinds of parts of a unit
Positions = Mapping[int, range]  # of images, by number of unit


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a model drew and found in a set."""

    masks: pa.Table  # row, annotation_id, rle_counts
    ious: pa.Table  # of IOU_SCHEMA
    results: list[Detection] | None  # None: detection is not evaluated


@dataclass(frozen=True, slots=True)
class EvaluationUnits:
    """A model, a set, and the units in which the one is evaluated on the other.

    Units end where batches of the whole set do, so what a unit holds does not depend on who does the others.
    Those of masks are numbered first.
    """

    job: Job
    on: EvaluatedSet
    source: Source
    model: BoxSegmenter
    detector: Detector | None
    framed: FramedBoxes
    whole: BoxDataset
    masks: Positions
    detections: Positions
    title: str  # of a bar

    @classmethod
    def of(
        cls,
        job: Job,
        on: EvaluatedSet,
        source: Source,
        model: BoxSegmenter,
        detector: Detector | None,
        title: str = "masks in given boxes",
    ) -> EvaluationUnits:
        """Those of a set; none of detections without a detector."""
        framed = framed_boxes(source.look, model.spec, on.truth, on.images, on.wanted)
        whole = boxes_for(model.spec, on.truth, on.images, on.wanted)
        size = job.pipeline.evaluation.batch_size
        masks = unit_positions(framed, size, UNIT_BATCHES)
        each = UNIT_BATCHES * images_at_once(model.spec, size)
        starts = range(0, len(whole) if detector else 0, each)
        detections = {
            unit: range(start, min(start + each, len(whole)))
            for unit, start in enumerate(starts, start=len(masks))
        }
        return cls(job, on, source, model, detector, framed, whole, masks, detections, title)

    def do(self, folder: Path, stage: str, again: str) -> Evaluated | None:
        """Do this process's part of them, then join all; None where another process joins them.

        Args:
            folder: where parts are kept until then.
            stage, again: how messages name the stage and the command that does what is missing.
        """
        parts, count = Parts(folder), len(self.masks) + len(self.detections)
        own = own_units(self.job, count, folder)
        missing = self._missing(parts, own)
        require_joinable(self.job, stage, folder, missing, count, again)
        self._draw(parts, own, missing)
        self._detect(parts, own, missing)
        if not joins_here(self.job):
            return None
        return Evaluated(
            self._joined(parts, "masks", self.masks),
            self._joined(parts, "ious", self.masks),
            self._results(parts) if self.detector else None,
        )

    def _missing(self, parts: Parts, own: Iterable[int]) -> list[int]:
        note = self.job.progress.note
        return [
            unit
            for unit in own
            if not parts.holds(MASKS if unit in self.masks else DETECTIONS, unit, self._made_of(unit), note)
        ]

    def _draw(self, parts: Parts, own: Iterable[int], missing: Iterable[int]) -> None:
        """Masks in given boxes, and their IoUs."""
        job, truth, spec = self.job, self.on.truth, self.model.spec
        size, workers = job.pipeline.evaluation.batch_size, job.pipeline.data.workers
        total, todo = _images(self.masks, own), {u: self.masks[u] for u in missing if u in self.masks}
        offsets, autocast = truth.rows_by_image(), job.autocast_of(self.source.role)
        with job.progress.bar(self.title, total, done=total - _images(todo, todo), unit="image") as bar:
            for unit, some in framed_units(self.framed, size, todo, workers):
                drawn = given_box_masks(
                    truth,
                    segment_boxes(self.model, _batches(some, bar), job.device, autocast),
                    job.cut,
                    lattice=spec.lattice,
                    probabilities=spec.probabilities,
                )
                rows = range(int(offsets[todo[unit].start]), int(offsets[todo[unit].stop]))
                parts.write("masks", unit, drawn, self._made_of(unit))
                parts.write("ious", unit, given_box_ious(truth, drawn, rows), self._made_of(unit))

    def _detect(self, parts: Parts, own: Iterable[int], missing: Iterable[int]) -> None:
        if self.detector is None:
            return
        job, size = self.job, images_at_once(self.model.spec, self.job.pipeline.evaluation.batch_size)
        most, autocast = job.pipeline.evaluation.max_detections, job.autocast_of(self.source.role)
        total = _images(self.detections, own)
        todo = {unit: self.detections[unit] for unit in missing if unit in self.detections}
        positions = [position for some in todo.values() for position in some]  # whole batches but the last
        read = evaluation_batches(self.whole, size, positions, job.pipeline.data.workers)
        with job.progress.bar("detection", total, done=total - len(positions), unit="image") as bar:
            for unit, some in todo.items():
                batches = islice(read, -(-len(some) // size))
                detected = detect_objects(self.detector, _counted(batches, bar), job.device, autocast, most)
                results = coco_results(self.on.truth, detected, job.cut, lattice=self.model.spec.lattice)
                lines = pa.array([json.dumps(one) for one in results], pa.string())
                parts.write("detections", unit, pa.table({"result": lines}), self._made_of(unit))

    def _joined(self, parts: Parts, kind: str, units: Positions) -> pa.Table:
        some = [parts.read(kind, unit, self._made_of(unit)) for unit in units]
        return pa.concat_tables(some).combine_chunks()

    def _results(self, parts: Parts) -> list[Detection]:
        return [
            json.loads(line)
            for line in self._joined(parts, "detections", self.detections)["result"].to_pylist()
        ]

    def _made_of(self, unit: int) -> MadeOf:
        positions = self.masks[unit] if unit in self.masks else self.detections[unit]
        return {
            "images": [positions.start, positions.stop],
            "evaluation.batch_size": self.job.pipeline.evaluation.batch_size,
        }


def _images(positions: Positions, units: Iterable[int]) -> int:
    return sum(len(positions[unit]) for unit in units if unit in positions)


def _batches(some: Iterator[FramedImages], bar: Bar) -> Iterator[list[Batch]]:
    for images in some:
        yield images.batches
        bar.advance(images.images)


def _counted(batches: Iterator[Batch], bar: Bar) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        bar.advance(len(batch.image_ids))
