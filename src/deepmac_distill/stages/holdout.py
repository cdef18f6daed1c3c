"""Stage `holdout`: teachers tried on seen classes whose masks are hidden from them, in the training file.

The seen classes that have masks are split into folds. A recipe trains once for each fold, without its masks;
what needs no training draws all of them at once. Each trial is a run of its own under ``holdout-folds``, so
that a stopped hold-out goes on. No validation file is read, and no mask of an unseen class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch

from deepmac_distill.chain import STAGES
from deepmac_distill.config import Pipeline, TeacherConfig
from deepmac_distill.config.holdout import RECIPE
from deepmac_distill.dataset.dataset import Dataset
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
from deepmac_distill.links import inner
from deepmac_distill.made_with import read_done
from deepmac_distill.models.load import segmenter_for
from deepmac_distill.report.holdout_tables import holdout_page
from deepmac_distill.rundir import DONE, RunDir, outputs_digest
from deepmac_distill.stages.candidate import Candidate
from deepmac_distill.stages.holdout_teachers import candidates
from deepmac_distill.stages.holdout_trials import Trial, draw
from deepmac_distill.stages.job import Job, Split, training_split
from deepmac_distill.stages.kept_holdout import FOLDER, MASKS, trials_of
from deepmac_distill.stages.preflight import require_ready
from deepmac_distill.stages.sources import own_source_of
from deepmac_distill.stages.train import require_unleaked, teach
from deepmac_distill.storage.copies import origin_of

QUICK = 4  # a quick training has so many times fewer steps


@dataclass(frozen=True)
class Plan:
    """Who is tried on what."""

    split: Split
    dataset: Dataset
    hide: tuple[str, ...]  # classes that `data.hide` hides anyway
    folds: tuple[tuple[str, ...], ...]
    teachers: tuple[Candidate, ...]

    @classmethod
    def of(cls, job: Job) -> Plan:
        """What the pipeline asks for.

        Raises:
            DataError: too few seen classes or masks.
            ConfigError, CheckpointError, ContractError: a teacher cannot be used.
        """
        split = training_split(job)
        dataset, hide = job.open(split.annotations), job.hidden(split.annotations)
        folds = dataset.folds(job.pipeline.holdout.folds, hide)
        return cls(split, dataset, hide, tuple(folds), candidates(job))

    @property
    def trainings(self) -> int:
        """How many there are."""
        return len(self.folds) * sum(teacher.source is None for teacher in self.teachers)

    @property
    def words(self) -> str:
        """What will be done."""
        how = ", ".join(
            f"{one.name} (trained {len(self.folds)} times)" if one.source is None else one.name
            for one in self.teachers
        )
        sizes = " and ".join(str(len(fold)) for fold in self.folds)
        return f"hold-out: {len(self.folds)} folds of {sizes} seen classes; teachers: {how}"


def holdout(job: Job) -> Holdout:
    """Try the teachers, or go on with it; returns the figures.

    Three files: ``holdout/masks.parquet`` (every mask), ``summary.json`` and ``holdout.md`` (the figures).

    Raises:
        DataError: too few seen classes or masks.
        ConfigError, CheckpointError, ContractError: a teacher cannot be used, or saw hidden masks before.
    """
    job = job.keeping_look()
    plan = Plan.of(job)
    job.progress.note(plan.words)
    if job.pipeline.holdout.quick and plan.trainings:
        job.progress.note(f"hold-out: quick: trainings of 1/{QUICK} of the steps; figures are those of these")
    for teacher in plan.teachers:
        _require_ready(job, plan, teacher)
    job.begin()  # else trials alone would not be a run, with which a stopped hold-out goes on
    trials = [(teacher, _tried(job, plan, teacher)) for teacher in plan.teachers]
    masks = plan.dataset.of_untaught([name for fold in plan.folds for name in fold])
    record = _record(job, plan, masks.fingerprint)
    seconds = {teacher.name: _seconds(teacher, folders) for teacher, folders in trials}
    inputs = {
        "hidden masks": masks.fingerprint,
        "holdout": record.recipe_sha256,
        "holdout.quick": record.quick,
        "trials": [outputs_digest(folder) for _, folders in trials for folder in folders],
        "evaluation.bootstrap": job.pipeline.evaluation.bootstrap,
    }

    def work(folder: Path) -> None:
        tables = [_rows_of(folders) for _, folders in trials]
        found = HoldoutMasks(pa.concat_tables([HOLDOUT_SCHEMA.empty_table(), *tables]), record)
        write_holdout(folder / MASKS, found)
        figures = holdout_figures(found, seconds, job.pipeline.evaluation.bootstrap)
        write_json(folder / "summary.json", to_json(figures))
        write_text(folder / "holdout.md", holdout_page(figures))

    return read_result(job.do("holdout", inputs, work, derived=True) / "summary.json", Holdout)


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


def _require_ready(job: Job, plan: Plan, teacher: Candidate) -> None:
    """Refuse, before the first training, what a later trial would fail on."""
    if teacher.source is not None:
        segmenter_for(teacher.source, torch.device("cpu"), plan.dataset.classes.names)
        return
    for number, names in enumerate(plan.folds):
        own = _job_of_fold(job, plan, teacher, number, names)
        require_ready(own, [STAGES["teacher"]])
        require_unleaked(own, "teacher")


def _tried(job: Job, plan: Plan, teacher: Candidate) -> list[Path]:
    """The folders of a teacher's trials: one for each fold of a recipe, else one for all."""
    fold_of = {name: number for number, fold in enumerate(plan.folds) for name in fold}
    shown = plan.dataset.seeing([n for n in plan.dataset.classes.seen_names if n not in plan.hide])
    if teacher.source is not None:
        own = _job_of(job, plan, teacher, _trial_run(job, teacher.name), ())
        truth = plan.dataset.of_untaught(list(fold_of))
        return [draw(Trial(teacher.name, own, truth, plan.split.images, fold_of), teacher.source)]
    folders = []
    for number, names in enumerate(plan.folds):
        own = _job_of_fold(job, plan, teacher, number, names)
        job.progress.note(f"hold-out: {teacher.name}, fold {number + 1} of {len(plan.folds)}")
        teach(own)
        trial = Trial(
            teacher.name, own, shown.of_hidden(names), plan.split.images, dict.fromkeys(names, number)
        )
        folders.append(draw(trial, own_source_of(own, "teacher")))
    return folders


def _trial_run(job: Job, name: str) -> RunDir:
    settings = job.pipeline.holdout
    return RunDir(inner(job.run.path, FOLDER, trials_of(settings.folds, settings.quick), name))


def _job_of_fold(job: Job, plan: Plan, teacher: Candidate, number: int, names: Sequence[str]) -> Job:
    return _job_of(job, plan, teacher, _trial_run(job, f"{teacher.name}-fold-{number}"), names)


def _job_of(job: Job, plan: Plan, teacher: Candidate, run: RunDir, hide: Sequence[str]) -> Job:
    """A trial as a job of its own: the same data without these masks, and without a validation set."""
    data = replace(
        job.pipeline.data,
        source="coco",
        root="",
        train_annotations=_as_named(plan.split.annotations),
        train_images=str(plan.split.images),
        val_annotations="",
        val_images="",
        hide=(*plan.hide, *hide),
    )
    recipe = teacher.recipe or job.pipeline.teacher
    labels = replace(job.pipeline.labels, teacher=RECIPE, teacher_by_class={})
    pipeline: Pipeline = replace(job.pipeline, data=data, teacher=recipe, labels=labels)
    if job.pipeline.holdout.quick and teacher.source is None:
        pipeline = replace(pipeline, teacher=shorter(pipeline.teacher))
    return replace(job, pipeline=pipeline, source=None, run=run, look={}, asked_cut=None, plan=())


def _as_named(path: Path) -> str:
    origin = origin_of(path)
    return str(path) if origin is None else str(origin)


def shorter(recipe: TeacherConfig) -> TeacherConfig:
    """A recipe with a quarter of the steps, its warm-up and decays scaled alike."""
    train = recipe.train
    return replace(
        recipe,
        train=replace(
            train,
            steps=max(train.steps // QUICK, 1),
            warmup_steps=train.warmup_steps // QUICK,
            decay_steps=tuple(step // QUICK for step in train.decay_steps),
        ),
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
