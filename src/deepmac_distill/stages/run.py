"""The whole chain, in the order that `deepmac_distill.chain` declares."""

from __future__ import annotations

from dataclasses import replace

from deepmac_distill.chain import Stage, planned
from deepmac_distill.config.holdout import RECIPE
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.results import Report
from deepmac_distill.stages.calibrate import calibrate
from deepmac_distill.stages.chosen_teacher import choosing
from deepmac_distill.stages.evaluate import evaluate, report, require_lead, require_validation
from deepmac_distill.stages.holdout import holdout, require_expected_iou
from deepmac_distill.stages.job import Job, validation_named
from deepmac_distill.stages.preflight import require_ready
from deepmac_distill.stages.pseudolabel import pseudolabel
from deepmac_distill.stages.student import student
from deepmac_distill.stages.train import require_unleaked, teach


def run(job: Job) -> Report | None:
    """The whole chain; returns the report, None without a validation set. Stages that are done are skipped, a
    stopped one goes on.

    Raises:
        GateError: the teacher's lead over the ellipse is below `evaluation.min_lead_over_ellipse`, or its
            mean IoU on hidden classes below `holdout.min_expected_iou_unseen`.
    """
    holds_out = job.pipeline.holds_out
    # So that a resume and every other stage has the look too. Who labels is known after the hold-out.
    job = job.keeping_look() if holds_out else choosing(job).keeping_look()
    evaluated = validation_named(job)
    plan = _plan(job, evaluated)
    require_ready(job, plan)
    require_unleaked(job, "student")
    if evaluated:
        require_validation(job)
    if holds_out:
        found = holdout(_numbered(job, plan))
        _calibrate(job)
        job = choosing(job)
        require_expected_iou(job, found, job.choice.main.name if job.choice else RECIPE)
        plan = _plan(job, evaluated)
        require_ready(job, plan)
    job = _numbered(job, plan)
    for stage in plan:
        if stage.kind not in ("holdout", "report"):
            _do(job, stage)
    if not evaluated:
        job.progress.note("no data.val_annotations: nothing was evaluated")
        return None
    return report(job)


def _calibrate(job: Job) -> None:
    """Give the labels to come a quality, where the hold-out has masks enough for it."""
    with job.ranks.one_first():
        if not job.ranks.leads:
            return
        try:
            calibrate(job.run, job.progress)
        except DataError as error:
            job.progress.note(f"no quality of masks: {error}")


def _plan(job: Job, evaluated: bool) -> tuple[Stage, ...]:
    return planned(evaluated=evaluated, segmenter=not job.trains_teacher, holdout=job.pipeline.holds_out)


def _numbered(job: Job, plan: tuple[Stage, ...]) -> Job:
    return replace(job, plan=tuple(stage.name for stage in plan))


def _do(job: Job, stage: Stage) -> None:
    match stage.kind:
        case "train":
            (teach if stage.role == "teacher" else student)(job)
        case "evaluate":
            folder = evaluate(job, stage.model)
            if stage.role == "teacher":
                require_lead(job, folder)
        case "label":
            pseudolabel(job)  # and the selection, which follows from it
