"""Stage `pseudolabel`: facts first (``masks.parquet``), then the rules (``instances.json``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepmac_distill import __version__
from deepmac_distill.chain import command_line, redo_after
from deepmac_distill.comparing import CONTENT
from deepmac_distill.data.framed import framed_units
from deepmac_distill.data.frames import look_words
from deepmac_distill.data.image_check import image_inputs
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.files import write_json
from deepmac_distill.inference import framed_boxes, segment_boxes
from deepmac_distill.labels.cut import DEFAULT_CUT
from deepmac_distill.labels.describe import label_unit
from deepmac_distill.labels.export import SEEN_MASK_CLASSES
from deepmac_distill.labels.outside_box import OutsideBox
from deepmac_distill.labels.plain_masks import PlainMasks
from deepmac_distill.labels.table import assemble, facts_of_units, finished_units, write_unit
from deepmac_distill.labels.teachers import (
    MASKS,
    TEACHERS,
    Counts,
    masks_by_teacher,
    rows_by_teacher,
    seen_by_any,
    summed,
)
from deepmac_distill.models.load import segmenter_for
from deepmac_distill.rundir import UNITS
from deepmac_distill.stages.chosen_teacher import choosing
from deepmac_distill.stages.evaluated_masks import note_how
from deepmac_distill.stages.image_preflight import require_images
from deepmac_distill.stages.job import Job, training_split
from deepmac_distill.stages.labelers import Labeler, labelers_of
from deepmac_distill.stages.own_units import joins_here, own_units, require_joinable
from deepmac_distill.stages.quality import require_quality_to_come
from deepmac_distill.stages.student import chosen_labels
from deepmac_distill.status import learned_the_same

_JOINS = "`deepmac assemble` joins the parts"


def pseudolabel(job: Job, teacher: Path | None = None) -> Path:
    """A mask for every box that has none; returns the COCO file the student learns from.

    Of a shard (`job.shard`) it is the folder of the parts, which `job.joins` joins when all are there.

    Two folders: ``pseudolabel/masks.parquet`` holds facts, ``select/instances.json`` what the rules of
    `[labels]` make of them; changing a rule redoes only the latter.
    """
    job = job if teacher else choosing(job).keeping_look()
    require_quality_to_come(job.pipeline.labels, job.run.path, holds_out=False)
    data = training_split(job)
    annotations = job.read_and_note(data.annotations)
    if job.pipeline.labels.on_unreadable == "error":
        require_images(job, annotations, data.images)
    masks = _label_facts(
        job, annotations, data.images, labelers_of(job, annotations, teacher), teacher is None
    )
    if job.shard is not None:
        if masks.exists():  # all of them were joined before
            return masks.parent
        job.progress.note(f"shard {job.shard} of pseudolabel is done; {_JOINS} once all are")
        return masks.parent
    chosen = chosen_labels(masks, job.pipeline.labels, job.note_once)
    labels, rules = chosen.labels, chosen.rules

    def work(folder: Path) -> None:
        counts = labels.export_coco(annotations.streamed(), rules, folder / "instances.json")
        write_json(folder / "counts.json", counts)
        student = job.run.inputs_of("student") or {}
        if not learned_the_same(student, inputs) and (again := redo_after(job.run.path, "select")):
            job.progress.note(f"labels changed: the student learned from others; next: {again}")
        job.progress.note("labels: " + ", ".join(f"{count} {name}" for name, count in counts.items()))

    inputs = {f"labels.{name}": value for name, value in dataclasses.asdict(rules).items()} | {
        **labels.cut_inputs(),
        "masks.parquet": labels.sha256,
        "data.train_annotations": annotations.fingerprint,
    }
    if labels.quality is not None:
        inputs["calibration"] = labels.quality.sha256
    return job.do("select", inputs, work, derived=True) / "instances.json"


def _label_facts(
    job: Job, annotations: Annotations, images: ImageStore, labelers: Sequence[Labeler], own: bool
) -> Path:
    """The teachers' masks as facts: ``pseudolabel/masks.parquet``, in units that a stopped run keeps.

    Args:
        labelers: the first one is that of all classes but those that have one of their own.
        own: they are the run's, whose look the run keeps.
    """
    labels, source = job.pipeline.labels, labelers[0].source
    inputs = {
        **source.inputs("teacher"),
        **{name: value for one in labelers for name, value in one.inputs.items()},
        "data.train_annotations": annotations.fingerprint,
        **image_inputs("data.train_images", annotations, images, job.progress),
        "labels.soft": labels.soft,
        "labels.unit_images": labels.unit_images,
        "labels.on_unreadable": labels.on_unreadable,
    }

    def work(folder: Path) -> None:
        units = _label_units(job, annotations, images, labelers, folder / UNITS)
        if not joins_here(job):
            return
        facts = facts_of_units(folder / UNITS, units)
        outside, drawn = OutsideBox.of_facts(facts), summed(fact[MASKS] for fact in facts)
        provenance = {
            **outside.summary(),
            **{name: value for name, value in inputs.items() if not name.endswith(CONTENT)},
            "teacher_card": source.provenance(),
            "look": dataclasses.asdict(source.look),
            SEEN_MASK_CLASSES: seen_by_any([one.facts() for one in labelers]),
            TEACHERS: {one.name: {**one.facts(), MASKS: drawn.get(one.name, {})} for one in labelers},
            "seen": annotations.classes.seen_names,
            "cut": DEFAULT_CUT,
            "deepmac-distill": __version__,
        }
        assemble(folder / UNITS, units, folder / "masks.parquet", provenance)
        if words := outside.words():
            job.progress.note(f"{source.name}: {words}")
        if words := PlainMasks.of_facts(facts).words():
            job.progress.note(f"{source.name}: {words}")
        if len(labelers) > 1:
            job.progress.note(f"masks: {_words_of(drawn)}")

    comparing = source.comparing() if own else dataclasses.replace(source.comparing(), redone_for=())
    return job.do("pseudolabel", inputs, work, comparing=comparing, together=True) / "masks.parquet"


def _words_of(drawn: Counts) -> str:
    """Who drew how many masks.

    >>> _words_of({"recipe": {"cat": 2, "dog": 1}, "grabcut": {"bus": 1}})
    'recipe drew 3 of 2 classes, grabcut drew 1 of 1 classes'
    """
    return ", ".join(f"{name} drew {sum(n.values())} of {len(n)} classes" for name, n in drawn.items())


def _label_units(
    job: Job, annotations: Annotations, images: ImageStore, labelers: Sequence[Labeler], parts: Path
) -> int:
    """Write the parts of this process's units that are not there yet; returns the number of all units."""
    count, per_unit = len(annotations.images), job.pipeline.labels.unit_images
    units = {
        unit: range(start, min(start + per_unit, count))
        for unit, start in enumerate(range(0, count, per_unit))
    }
    own = own_units(job, len(units), parts)
    finished = finished_units(parts, own, job.progress.note)
    missing = {unit: units[unit] for unit in own if unit not in finished}
    again = command_line("pseudolabel", out=job.run.path)
    require_joinable(job, "pseudolabel", parts, list(missing), len(units), again)
    if missing:
        with job.progress.bar("labeling", len(own), done=len(finished), unit="unit") as bar:
            for unit, rows, facts in _labeled(job, annotations, images, labelers, missing):
                write_unit(parts, unit, rows, facts)
                bar.advance()
    return len(units)


def _labeled(
    job: Job,
    annotations: Annotations,
    images: ImageStore,
    labelers: Sequence[Labeler],
    units: Mapping[int, range],
) -> Iterator[tuple[int, pa.Table, dict[str, Any]]]:
    """Units by number, their label rows, and facts about each as a whole."""
    offsets = annotations.rows_by_image()
    each = [_labeled_by(one, job, annotations, images, units) for one in labelers]
    for found in zip(*each, strict=True):
        unit = found[0][0]
        first, stop = (int(offsets[at]) for at in (units[unit].start, units[unit].stop))
        wanted = [one.wanted[first:stop] for one in labelers]
        rows = rows_by_teacher([rows for _, rows, _ in found], wanted)
        outside = OutsideBox.of_facts(one.facts() for _, _, one in found)
        yield unit, rows, {**outside.facts(), **PlainMasks.of(rows).facts(), MASKS: masks_by_teacher(rows)}


def _labeled_by(
    labeler: Labeler, job: Job, annotations: Annotations, images: ImageStore, units: Mapping[int, range]
) -> Iterator[tuple[int, pa.Table, OutsideBox]]:
    """Units by number, and their label rows with the masks of one teacher."""
    source = labeler.source
    model = segmenter_for(source, job.device, annotations.classes.names)
    dataset = framed_boxes(source.look, model.spec, annotations, images, labeler.wanted)
    labels, offsets = job.pipeline.labels, annotations.rows_by_image()
    note_how(job, source, model.spec)
    unreadable: dict[int, str] = {}
    autocast = job.autocast_of(source.role)
    framed = framed_units(
        dataset,
        labels.batch_size,
        units,
        job.pipeline.data.workers,
        on_unreadable=None if labels.on_unreadable == "error" else _note_reason(unreadable),
    )
    for unit, some_images in framed:
        unreadable.clear()
        batches = (some.batches for some in some_images)
        found = list(segment_boxes(model, batches, job.device, autocast))
        rows = label_unit(
            annotations,
            range(int(offsets[units[unit].start]), int(offsets[units[unit].stop])),
            found,
            unreadable,
            keep_soft=labels.soft,
            probabilities=model.spec.probabilities,
            lattice=model.spec.lattice,
            seen_mask_classes=source.seen_mask_classes,
            words_of=partial(look_words, source.look, model.spec),
            teacher=labeler.name,
        )
        yield unit, rows, OutsideBox.of(found)


def _note_reason(reasons: dict[int, str]) -> Callable[[int, DataError], None]:
    def note(image_id: int, error: DataError) -> None:
        reasons[image_id] = str(error)

    return note
