"""A finished run's figures beside the hardware, seed and time that they took, kept for the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from deepmac_distill.chain import CHAIN
from deepmac_distill.config import DeepMacConfig, RoleConfig, load_pipeline
from deepmac_distill.evaluation.mean_result import mean_result
from deepmac_distill.evaluation.results import Comparison, Evaluation, R, Report, read_result
from deepmac_distill.evaluation.retention import mean_retention
from deepmac_distill.evaluation.retention_results import Retention
from deepmac_distill.rundir import DONE


@dataclass(frozen=True, slots=True)
class Environment:
    """Versions and hardware: a run's `environment.json`."""

    python: str
    platform: str
    processor: str
    cores: int | None
    gpus: tuple[str, ...]
    packages: Mapping[str, str | None]  # name: version

    @property
    def hardware(self) -> str:
        """The GPUs, else the processor and its cores."""
        return ", ".join(self.gpus) or f"{self.cores} cores of {self.processor}"

    @property
    def torch(self) -> str | None:
        """The version of PyTorch."""
        return self.packages["torch"]


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a stage's `done.json` keeps of its time."""

    seconds_since_last_start: float


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Masks that a student learns from, by who drew them: `select/counts.json`."""

    human: int
    teacher: int
    rejected: int
    unlabeled: int
    written: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that is kept of one run of the chain; None for what the run did not do."""

    command: str
    environment: Environment
    run: str  # its folder
    seed: int
    student_model: str  # in a few words
    seconds: Mapping[str, float]  # stage: since its last start
    labels: LabelCounts | None = None
    teacher: Evaluation | None = None
    student: Evaluation | None = None
    student_minus_teacher: Comparison | None = None
    retention: Retention | None = None


def record_of(run: Path, command: str) -> RunRecord:
    """What is kept of a run.

    Raises:
        DistillError: a file of the run cannot be read.
    """
    pipeline = load_pipeline(run / "config.json")
    report = _found(run / "report" / "summary.json", Report)
    return RunRecord(
        command=command,
        environment=read_result(run / "environment.json", Environment),
        run=f"runs/{run.name}",
        seed=pipeline.seed,
        student_model=described(pipeline.student),
        seconds={
            stage.name: seconds_of(run / stage.name) for stage in CHAIN if (run / stage.name / DONE).exists()
        },
        labels=_found(run / "select" / "counts.json", LabelCounts),
        teacher=_found(run / "evaluate-teacher" / "summary.json", Evaluation),
        student=_found(run / "evaluate-student" / "summary.json", Evaluation),
        student_minus_teacher=report.student_minus_teacher if report else None,
        retention=_found(run / "retention" / "summary.json", Retention),
    )


def small_record_of(run: Path, command: str) -> RunRecord:
    """`record_of` without the rows of each class, less than 100 kB: what is kept of one of several seeds."""
    whole = record_of(run, command)
    teacher, student = (found and replace(found, per_class=()) for found in (whole.teacher, whole.student))
    return replace(whole, run=f"runs/{run.parent.name}/{run.name}", teacher=teacher, student=student)


def record_over_seeds(records: Sequence[RunRecord]) -> tuple[tuple[int, ...], RunRecord]:
    """The seeds of some records of one recipe, and their mean as a record; a single one is as it was.

    Intervals hold training noise. Their image part is that of one seed, a little too wide, since the
    instances are not kept.
    """
    by_seed = {record.seed: record for record in records}
    if len(by_seed) == 1:
        return tuple(by_seed), records[0]
    whole = list(by_seed.values())
    teachers, students, differences = (
        [one.teacher for one in whole if one.teacher],
        [one.student for one in whole if one.student],
        [one.student_minus_teacher for one in whole if one.student_minus_teacher],
    )
    retentions = {seed: record.retention for seed, record in by_seed.items() if record.retention}
    return tuple(by_seed), replace(
        records[0],
        seconds=_mean_seconds([record.seconds for record in records]),
        teacher=mean_result(teachers) if teachers else None,
        student=mean_result(students) if students else None,
        student_minus_teacher=mean_result(differences) if differences else None,
        retention=mean_retention(retentions) if retentions else None,
    )


def _mean_seconds(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    stages = dict.fromkeys(stage for seconds in each for stage in seconds)
    return {stage: fmean(one[stage] for one in each if stage in one) for stage in stages}


def seconds_of(stage: Path) -> float:
    """Seconds of a finished stage since its last start."""
    return read_result(stage / DONE, StageTime).seconds_since_last_start


def described(recipe: RoleConfig) -> str:
    """A model and its training in a few words."""
    model, train = recipe.model, recipe.train
    kind = f"deepmac with {model.mask_head}" if isinstance(model, DeepMacConfig) else "mask_rcnn"
    seen = train.batch_size * train.gradient_accumulation_steps
    if train.views == "windows":
        views = f"{recipe.window_size_px} px, {train.steps:,} steps of {seen} windows"
    else:
        views = f"{train.image_size_px} px, {train.steps:,} steps of {seen} images"
    return f"{kind} on {model.backbone}, {views}"


def _found(path: Path, kind: type[R]) -> R | None:
    return read_result(path, kind) if path.exists() else None
