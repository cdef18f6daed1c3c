"""Who is tried on what in a hold-out: its trials, each a run of its own, that any process may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deepmac_distill.chain import STAGES
from deepmac_distill.config import Pipeline, TeacherConfig
from deepmac_distill.config.holdout import RECIPE
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.links import inner
from deepmac_distill.models.load import segmenter_for
from deepmac_distill.rundir import DONE, RunDir
from deepmac_distill.stages.candidate import Candidate
from deepmac_distill.stages.holdout_teachers import candidates
from deepmac_distill.stages.holdout_trials import STAGE
from deepmac_distill.stages.job import Job, Split, training_split
from deepmac_distill.stages.kept_holdout import FOLDER, trials_of
from deepmac_distill.stages.preflight import require_ready
from deepmac_distill.stages.train import require_unleaked
from deepmac_distill.storage.copies import origin_of

QUICK = 4  # a quick training has so many times fewer steps


@dataclass(frozen=True)
class Task:
    """One trial: a recipe that trains without the masks of a fold, or a ready teacher on all of them."""

    teacher: Candidate
    fold: int | None  # None: all of them
    names: tuple[str, ...]  # of the classes whose masks are drawn
    job: Job  # of the trial's own run

    @classmethod
    def of(cls, job: Job, plan: Plan, teacher: Candidate, fold: int | None) -> Task:
        """The trial of a fold of a recipe, or with None that of a teacher that is ready."""
        if fold is None:
            names = tuple(name for some in plan.folds for name in some)
            return cls(teacher, fold, names, _job_of(job, plan, teacher, teacher.name, ()))
        names = plan.folds[fold]
        return cls(teacher, fold, names, _job_of(job, plan, teacher, f"{teacher.name}-fold-{fold}", names))

    @property
    def is_done(self) -> bool:
        """Whether its masks are there."""
        return (self.job.run.path / STAGE / DONE).exists()

    def require_ready(self, classes: tuple[str, ...]) -> None:
        """Refuse, before the first training, what this trial would fail on later.

        Raises:
            ConfigError, CheckpointError, ContractError, DataError: the teacher cannot be used or trained.
        """
        if self.teacher.source is not None:
            segmenter_for(self.teacher.source, torch.device("cpu"), classes)
            return
        require_ready(self.job, [STAGES["teacher"]])
        require_unleaked(self.job, "teacher")


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

    def tasks(self, job: Job) -> list[Task]:
        """All trials, in the order of the teachers and of the folds."""
        found: list[Task] = []
        for teacher in self.teachers:
            each: Sequence[int | None] = [None] if teacher.source is not None else range(len(self.folds))
            found += [Task.of(job, self, teacher, fold) for fold in each]
        return found

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


def _job_of(job: Job, plan: Plan, teacher: Candidate, name: str, hide: Sequence[str]) -> Job:
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
    settings = job.pipeline.holdout
    run = RunDir(inner(job.run.path, FOLDER, trials_of(settings.folds, settings.quick), name))
    alone = replace(job, shard=None, joins=False)  # a trial is done by one process, or by all together
    return replace(alone, pipeline=pipeline, source=None, run=run, look={}, asked_cut=None, plan=())


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
