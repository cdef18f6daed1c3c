"""A finished run's figures beside the hardware, seed and time that they took, kept for the pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deepmac_distill.chain import CHAIN
from deepmac_distill.config import DeepMacConfig, RoleConfig, load_pipeline
from deepmac_distill.evaluation.results import Comparison, Evaluation, R, Report, read_result
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


def seconds_of(stage: Path) -> float:
    """Seconds of a finished stage since its last start."""
    return read_result(stage / DONE, StageTime).seconds_since_last_start


def described(recipe: RoleConfig) -> str:
    """A model and its training in a few words."""
    model, train = recipe.model, recipe.train
    kind = f"deepmac with {model.mask_head}" if isinstance(model, DeepMacConfig) else "mask_rcnn"
    images = train.batch_size * train.gradient_accumulation_steps
    return f"{kind} on {model.backbone}, {train.image_size_px} px, {train.steps:,} steps of {images} images"


def _found(path: Path, kind: type[R]) -> R | None:
    return read_result(path, kind) if path.exists() else None
