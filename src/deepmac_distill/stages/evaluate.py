"""Stages `evaluate` and `report`: masks and detections evaluated on the validation set."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from deepmac_distill.chain import Role, Trained, command_line
from deepmac_distill.config import MaskRcnnConfig
from deepmac_distill.contract import BoxSegmenter, Detector
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import DataError, GateError
from deepmac_distill.evaluation.average_precision import (
    KINDS,
    Detection,
    coco_average_precision,
)
from deepmac_distill.evaluation.how_evaluated import HowEvaluated
from deepmac_distill.evaluation.mask_iou import with_names
from deepmac_distill.evaluation.results import (
    AveragePrecision,
    Evaluation,
    Report,
    read_result,
    to_json,
)
from deepmac_distill.evaluation.summary import summarize
from deepmac_distill.files import sha256_of_file, write_json, write_text
from deepmac_distill.labels.cut import EVEN_CUT
from deepmac_distill.made_with import refuse_edit
from deepmac_distill.models.load import Source, detector_for, segmenter_for
from deepmac_distill.report.contact_sheet import contact_sheet
from deepmac_distill.rundir import UNITS
from deepmac_distill.stages.behind import require_detections, require_same_set, results_behind
from deepmac_distill.stages.chosen_teacher import choosing, cutting
from deepmac_distill.stages.compare import EvaluationRecord, compare_on, evaluated_masks
from deepmac_distill.stages.evaluated_masks import note_how, shown_elsewhere
from deepmac_distill.stages.evaluated_model import EvaluatedModel
from deepmac_distill.stages.evaluated_set import EvaluatedSet, require_split, splits_on
from deepmac_distill.stages.evaluated_units import EvaluationUnits
from deepmac_distill.stages.image_preflight import require_images
from deepmac_distill.stages.job import Job, training_split, validation_split
from deepmac_distill.stages.overlap import note_overlap
from deepmac_distill.stages.preflight import require_evaluable
from deepmac_distill.stages.quality import calibrations_of, quality_pages
from deepmac_distill.stages.sheet import draw_sheet
from deepmac_distill.storage.copies import lasting_name, origin_of
from deepmac_distill.storage.location import is_remote
from deepmac_distill.weights.card import other_classes

ROLES: tuple[Role, ...] = ("teacher", "student")


def evaluate(job: Job, model: Trained | Path, *, hidden: bool = False, boxes_of: Path | None = None) -> Path:
    """Evaluate the model of a stage, or any weights file, on the validation set; returns the results' folder.

    ``summary.json`` holds every figure, ``ious.parquet`` each instance's, ``detections.json`` COCO results.
    Of a shard (`job.shard`) it is the folder of the parts, which `job.joins` joins when all are there.

    Args:
        hidden: evaluate in the training file instead, on the classes that `data.hide` hides there, in given
            boxes alone. This is what choices are made by: no validation set is read.
        boxes_of: folder of a detector's evaluation on the same set: AP is of its boxes with these masks.

    Raises:
        DataError: the detector was evaluated on another set, or does not detect.
    """
    job = cutting(choosing(job)) if model == "teacher" else job
    behind = "" if boxes_of is None else sha256_of_file(require_detections(boxes_of))
    further = f"behind-{behind[:8]}" if behind else ""
    of = EvaluatedModel.of(job, "evaluate", model, hidden=hidden, further=further)
    settings = job.pipeline.evaluation
    inputs: dict[str, Any] = {
        "evaluation.max_detections": settings.max_detections,
        "evaluation.reference": settings.reference,
        "evaluation.gt_boxes_only": settings.gt_boxes_only,
    }
    if boxes_of is not None:
        require_same_set(boxes_of, of.on.truth)
        inputs["boxes of"] = behind
    unnamed = {"labels.cut": EVEN_CUT, "evaluation.gt_boxes_only": False}
    words = (model,) if isinstance(model, str) else ("--model", model)
    again = command_line("evaluate", *words, out=job.run.path)
    folder = of.do(job, inputs, unnamed, lambda at: _evaluate(job, of, again, at, boxes_of), together=True)
    if folder.name.endswith(".part"):  # of a shard, before all are joined
        job.progress.note(
            f"shard {job.shard} of {of.stage} is done; `deepmac assemble evaluate` joins them once all are"
        )
    return folder


def require_validation(job: Job) -> bool:
    """Whether there is a validation set; one that is of no use is refused before hours of work.

    Raises:
        DataError: the file cannot be read, an image or every mask is missing, or a model with a mask for each
            class would lack one of its classes.
    """
    data = validation_split(job)
    if data is None:
        return False
    require_evaluable(job.read(data.annotations, hide_unseen=False))
    splits_on(job, job.read(data.annotations, hide_unseen=False))
    truth, training = job.read(data.annotations), job.read(training_split(job).annotations)
    ours, theirs = set(training.classes.names), set(truth.classes.names)
    if ours != theirs and not job.pipeline.evaluation.gt_boxes_only:
        named = ", ".join(sorted(ours ^ theirs)[:3])
        job.progress.note(
            f"{truth.path}: classes differ from those of {training.path} in {named}: masks in given boxes "
            "are evaluated, detection is not"
        )
    if lacking := sorted(theirs - ours):
        _require_class_agnostic(job, f"{truth.path}: class {lacking[0]} is not in {training.path}")
    require_images(job, truth, data.images)
    note_overlap(job, truth, data.images)
    return True


def _require_class_agnostic(job: Job, why: str) -> None:
    roles = [role for role in ROLES if role != "teacher" or job.trains_teacher]
    for role in roles:
        model = getattr(job.pipeline, role).model
        if isinstance(model, MaskRcnnConfig) and not model.class_agnostic:
            raise DataError(
                f"{why}, and {role}.model has a mask for each class; expected the same classes, or "
                f"{role}.model.class_agnostic = true"
            )


def require_lead(job: Job, evaluation: Path) -> None:
    """Stop before labeling when the teacher is not worth it: the gate of `evaluation.min_lead_over_ellipse`.

    Raises:
        GateError: the lead on unseen classes is below the gate.
    """
    gate = job.pipeline.evaluation.min_lead_over_ellipse
    lead = read_evaluation(evaluation).given_boxes.unseen.model_minus_ellipse.value
    if gate and (lead is None or lead < gate):
        got = (
            "no unseen masks to evaluate on" if lead is None else f"{100 * lead:.1f} points over the ellipse"
        )
        raise GateError(f"{evaluation}: teacher: {got} on unseen classes, expected at least {100 * gate:.1f}")


def report(job: Job) -> Report:
    """Teacher and student side by side: ``report/summary.json`` and ``report/contact_sheet.png``.

    Where the quality of the labels is known, ``quality-TEACHER.md`` has how right it is.

    Raises:
        ConfigError: there is no validation set.
    """
    data = require_split(job)
    teacher, student = (job.run.path / f"evaluate-{role}" for role in ("teacher", "student"))
    settings = job.pipeline.evaluation
    known = calibrations_of(job.run, job.pipeline.labels.calibration)
    pages = quality_pages(known)

    def work(folder: Path) -> None:
        job.run.log_validation_reading("report", data.annotations)
        for name, text in pages.items():
            write_text(folder / name, text)
        truth = job.read(data.annotations, hide_unseen=False)
        found = Report(
            teacher=read_evaluation(teacher),
            student=read_evaluation(student),
            student_minus_teacher=replace(
                compare_on(
                    *(truth, (student,), (teacher,), settings.bootstrap, job.pipeline.seed), job.progress
                ),
                seeds=(job.pipeline.seed,),
            ),
            data=truth.counts,
        )
        write_json(folder / "summary.json", to_json(found))
        masks = {at.name.removeprefix("evaluate-"): evaluated_masks(at, truth) for at in (teacher, student)}
        elsewhere = frozenset(row.name for row in found.teacher.per_class if row.shown_elsewhere)
        sheet = draw_sheet(truth, data.images, masks, settings.sheet_of_each, elsewhere)
        if sheet.rows:
            contact_sheet(sheet.rows, folder / "contact_sheet.png", job.run.path.name, sheet.note)
        else:
            job.progress.note("no true masks to show: no contact sheet")

    inputs: dict[str, Any] = {
        "teacher evaluation": sha256_of_file(teacher / "summary.json"),
        "student evaluation": sha256_of_file(student / "summary.json"),
        "evaluation.sheet_of_each": settings.sheet_of_each,
        **{f"calibration of {name}": one.sha256 for name, one in known.items()},
    }
    return read_result(job.do("report", inputs, work, derived=True) / "summary.json", Report)


def read_evaluation(folder: Path) -> Evaluation:
    """The figures that `evaluate` wrote.

    Raises:
        RunError: they are missing, broken or something else.
    """
    found = read_result(folder / "summary.json", Evaluation)
    refuse_edit(folder / "summary.json")
    return found


def _evaluate(job: Job, of: EvaluatedModel, again: str, folder: Path, boxes_of: Path | None) -> None:
    """Masks in given boxes, then detections, then every figure of both, once all units are there."""
    settings, on, source, truth = job.pipeline.evaluation, of.on, of.source, of.on.truth
    model = segmenter_for(source, job.device, truth.classes.names)
    elsewhere = shown_elsewhere(job, truth, source, of.upper_bound)
    note_how(job, source, model.spec)
    detector = None if on.hidden or boxes_of else _detector(job, source, model, truth)
    units = EvaluationUnits.of(job, on, source, model, detector)
    found = units.do(folder / UNITS, of.stage, again)
    if found is None:
        return
    pq.write_table(with_names(truth, found.masks), folder / "masks.parquet")
    pq.write_table(with_names(truth, found.ious), folder / "ious.parquet")
    segm = bbox = None
    results = results_behind(job, of, model, boxes_of, folder) if boxes_of else found.results
    if results is not None:
        segm, bbox = _average_precision(job, on, results, elsewhere, folder)

    def from_here(path: Path) -> str | None:
        if is_remote(path) or origin_of(path) is not None:
            return None
        try:
            return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
        except ValueError:  # on another drive of Windows
            return None

    record = EvaluationRecord(
        annotations=lasting_name(truth.path),
        annotations_sha256=truth.fingerprint,
        images=on.images.absolute(),
        annotations_from_here=from_here(truth.path),
        images_from_here=from_here(on.images.folder),
        exif=on.images.exif,
        max_megapixels=on.images.max_megapixels,
        seen=truth.classes.seen_names,
        hidden=on.hidden,
        weights=source.name,
        how=HowEvaluated(source.identity, source.look, job.cut),
        shown_elsewhere=tuple(sorted(elsewhere)),
        splits={name: tuple(members) for name, members in on.splits.items()},
    )
    write_json(folder / "evaluation.json", to_json(record))
    summary = summarize(
        truth.classes,
        found.ious,
        segm=segm,
        bbox=bbox,
        shown_elsewhere=elsewhere,
        named=on.splits,
        resamples=settings.bootstrap,
        seed=job.pipeline.seed,
    )
    write_json(folder / "summary.json", to_json(summary))


def _average_precision(
    job: Job, on: EvaluatedSet, results: list[Detection], elsewhere: frozenset[str], folder: Path
) -> tuple[AveragePrecision, AveragePrecision]:
    """Of masks and of boxes; the COCO results are kept."""
    (folder / "detections.json").write_text(json.dumps(results), encoding="utf-8")
    reference = job.pipeline.evaluation.reference
    segm, bbox = (
        coco_average_precision(
            on.truth, results, kind, shown_elsewhere=elsewhere, named=on.splits, reference=reference
        )
        for kind in KINDS
    )
    return segm, bbox


def _detector(job: Job, source: Source, model: BoxSegmenter, truth: Truth) -> Detector | None:
    """The model as a detector of the classes of `truth`, where that is asked for and it is one."""
    if job.pipeline.evaluation.gt_boxes_only:
        return None
    detector = detector_for(source, model, truth.classes.names)
    if detector is None and model.spec.detects and source.card is not None:
        differ = other_classes(source.card.class_names, truth.classes.names)
        job.progress.note(f"{source.name}: detection is not evaluated: {differ}")
    return detector
