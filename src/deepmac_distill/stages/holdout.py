"""Stage `holdout`: teachers tried on seen classes whose masks are hidden from them, in the training file.

The seen classes that have masks are split into folds. A recipe trains once for each fold, without its masks;
what needs no training draws all of them at once. Each trial is a run of its own under ``holdout-folds``, so
that a stopped hold-out goes on, and several processes may do some trials each. No validation file is read,
and no mask of an unseen class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepmac_distill.chain import command_line
from deepmac_distill.comparing import Comparing
from deepmac_distill.errors import GateError
from deepmac_distill.evaluation.holdout_figures import holdout_figures
from deepmac_distill.evaluation.holdout_masks import (
    HOLDOUT_SCHEMA,
    HoldoutMasks,
    HoldoutRecord,
    HoldoutTeacher,
    read_trial,
    write_holdout,
)
from deepmac_distill.evaluation.holdout_results import Holdout
from deepmac_distill.evaluation.results import read_result, to_json
from deepmac_distill.files import sha256_of_json, write_json, write_text
from deepmac_distill.made_with import read_done
from deepmac_distill.report.holdout_tables import holdout_page
from deepmac_distill.rundir import DONE, outputs_digest
from deepmac_distill.stages.candidate import Candidate
from deepmac_distill.stages.holdout_plan import QUICK, Plan, Task
from deepmac_distill.stages.holdout_trials import Trial, draw
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.kept_holdout import FOLDER, MASKS
from deepmac_distill.stages.own_units import own_units, require_joinable
from deepmac_distill.stages.sources import own_source_of
from deepmac_distill.stages.train import teach

STAGE = "holdout"
_JOINS = f"`deepmac assemble {STAGE}` makes the figures"
_TRIALS, _RESAMPLES = "trials", "evaluation.bootstrap"  # inputs of the figures alone


def holdout(job: Job) -> Holdout:
    """Try the teachers, or go on with it; returns the figures.

    Three files: ``holdout/masks.parquet`` (every mask), ``summary.json`` and ``holdout.md`` (the figures).

    Raises:
        DataError: too few seen classes or masks.
        ConfigError, CheckpointError, ContractError: a teacher cannot be used, or saw hidden masks before.
        RunError: the job only joins, and trials are missing.
    """
    job, plan, tasks = _planned(job)
    missing = [number for number, task in enumerate(tasks) if not task.is_done]
    again = command_line(STAGE, out=job.run.path)
    require_joinable(job, STAGE, job.run.path / f"{STAGE}.part", missing, len(tasks), again)
    _require_ready(plan, tasks)
    job.begin()  # else trials alone would not be a run, with which a stopped hold-out goes on
    folders = [_tried(plan, task) for task in tasks]
    inputs, record = _inputs(job, plan)
    inputs[_TRIALS] = [outputs_digest(folder) for folder in folders]
    inputs[_RESAMPLES] = job.pipeline.evaluation.bootstrap

    def work(folder: Path) -> None:
        by_teacher = {
            one.name: [at for task, at in zip(tasks, folders, strict=True) if task.teacher is one]
            for one in plan.teachers
        }
        tables = [_rows_of(some) for some in by_teacher.values()]
        found = HoldoutMasks(pa.concat_tables([HOLDOUT_SCHEMA.empty_table(), *tables]), record)
        write_holdout(folder / MASKS, found)
        seconds = {teacher.name: _seconds(teacher, by_teacher[teacher.name]) for teacher in plan.teachers}
        figures = holdout_figures(found, seconds, job.pipeline.evaluation.bootstrap)
        write_json(folder / "summary.json", to_json(figures))
        write_text(folder / "holdout.md", holdout_page(figures))

    return read_result(job.do(STAGE, inputs, work, derived=True) / "summary.json", Holdout)


def holdout_shard(job: Job) -> Path:
    """Do the trials of a shard (`job.shard`), beside others; returns the folder of trials.

    Raises:
        DataError, ConfigError, CheckpointError, ContractError: as `holdout`.
        RunError: another process does the same shard, or one began with other teachers or folds.
    """
    job, plan, tasks = _planned(job)

    def work(folder: Path) -> None:
        own = [tasks[number] for number in own_units(job, len(tasks), folder)]
        _require_ready(plan, own)
        for task in own:
            _tried(plan, task)

    comparing = Comparing(dropped=(_TRIALS, _RESAMPLES))
    done = job.do(STAGE, _inputs(job, plan)[0], work, comparing=comparing).name == STAGE
    if not done:
        job.progress.note(f"shard {job.shard} of {STAGE} is done; {_JOINS} once all are")
    return job.run.path / FOLDER


def _planned(job: Job) -> tuple[Job, Plan, list[Task]]:
    job = job.keeping_look()
    plan = Plan.of(job)
    job.progress.note(plan.words)
    if job.pipeline.holdout.quick and plan.trainings:
        job.progress.note(f"hold-out: quick: trainings of 1/{QUICK} of the steps; figures are those of these")
    return job, plan, plan.tasks(job)


def _require_ready(plan: Plan, tasks: Sequence[Task]) -> None:
    for task in tasks:
        task.require_ready(plan.dataset.classes.names)


def _tried(plan: Plan, task: Task) -> Path:
    """The folder of a trial's masks."""
    job, name = task.job, task.teacher.name
    if task.fold is None:
        fold_of = {name: number for number, fold in enumerate(plan.folds) for name in fold}
        truth, source = plan.dataset.of_untaught(list(task.names)), task.teacher.source
        assert source is not None
    else:
        job.progress.note(f"hold-out: {name}, fold {task.fold + 1} of {len(plan.folds)}")
        teach(job)
        shown = plan.dataset.seeing([n for n in plan.dataset.classes.seen_names if n not in plan.hide])
        fold_of = dict.fromkeys(task.names, task.fold)
        truth, source = shown.of_hidden(task.names), own_source_of(job, "teacher")
    return draw(Trial(name, job, truth, plan.split.images, fold_of), source)


def _inputs(job: Job, plan: Plan) -> tuple[dict[str, Any], HoldoutRecord]:
    """What decides which trials there are, and the record of it."""
    masks = plan.dataset.of_untaught([name for fold in plan.folds for name in fold])
    record = _record(job, plan, masks.fingerprint)
    facts = {
        "teachers": [one.name for one in plan.teachers],
        "holdout.folds": len(plan.folds),
        "holdout.quick": record.quick,
        "seed": record.seed,
    }
    job.keep_facts(record.recipe_sha256, facts)
    recipe = {"holdout": record.recipe_sha256, "holdout.quick": record.quick}
    return {"hidden masks": masks.fingerprint, **recipe}, record


def require_expected_iou(job: Job, found: Holdout, teacher: str | None) -> None:
    """Stop before labeling where too little can be expected: the gate `holdout.min_expected_iou_unseen`.

    Args:
        teacher: that will label.

    Raises:
        GateError: its mean IoU on hidden classes is below the gate, or is not known.
    """
    gate, folder = job.pipeline.holdout.min_expected_iou_unseen, job.run.path / "holdout"
    if not gate:
        return
    figures = found.of(teacher) if teacher else None
    value = figures.iou.value if figures and figures.ranked else None
    if value is None:
        why = "saw masks of the classes that were tried" if figures else "was not tried"
        raise GateError(f"{folder}: {teacher or 'no teacher'} {why}, expected a mean IoU of hidden classes")
    if value < gate:
        raise GateError(
            f"{folder}: {teacher}: expected IoU of unseen classes: got {100 * value:.1f} on hidden classes, "
            f"expected at least {100 * gate:.1f}"
        )


def _record(job: Job, plan: Plan, data_sha256: str) -> HoldoutRecord:
    teachers = tuple(HoldoutTeacher(one.name, one.source is None, one.identity) for one in plan.teachers)
    about = {
        "teachers": [[one.name, one.identity] for one in plan.teachers],
        "folds": plan.folds,
        "seed": job.pipeline.seed,
        "labels.cut": job.pipeline.labels.cut_alone,
        "quick": job.pipeline.holdout.quick,
    }
    return HoldoutRecord(
        recipe_sha256=sha256_of_json(about),
        data_sha256=data_sha256,
        seed=job.pipeline.seed,
        quick=job.pipeline.holdout.quick,
        folds=plan.folds,
        teachers=teachers,
        training_sha256=plan.dataset.for_training(plan.hide).fingerprint if plan.trainings else "",
    )


def _rows_of(folders: Sequence[Path]) -> pa.Table:
    """The masks of a teacher, in the order of images and annotations whatever fold they are of."""
    rows = pa.concat_tables([read_trial(folder / MASKS) for folder in folders])
    return rows.sort_by([("image_id", "ascending"), ("annotation_id", "ascending")])


def _seconds(teacher: Candidate, folders: Sequence[Path]) -> float:
    """Of one training, if there is one, and of drawing all masks."""
    drawing = sum(_seconds_of(folder) for folder in folders)
    trainings = [folder.with_name("teacher") for folder in folders if teacher.source is None]
    return drawing + sum(map(_seconds_of, trainings)) / max(len(trainings), 1)


def _seconds_of(stage: Path) -> float:
    return float(read_done(stage / DONE)["seconds_since_last_start"])
