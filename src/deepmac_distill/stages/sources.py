"""Which model a stage uses: a file, what another stage of the run made, or a segmenter without weights."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.chain import TRAININGS, WEIGHTS, Role, Trained
from deepmac_distill.config import Pipeline, RoleConfig, load_pipeline
from deepmac_distill.errors import RunError
from deepmac_distill.labels.cut import DEFAULT_CUT, Cut
from deepmac_distill.models.load import Segmenter, Source, Weights
from deepmac_distill.stages.job import Job
from deepmac_distill.teachers.sam.naming import sam_named
from deepmac_distill.weights import starter


def source_of(job: Job, model: Trained | Path) -> Source:
    """The model of a stage of the run, or of any weights file, looking as the job has it.

    Raises:
        RunError: the stage has made nothing yet.
        CheckpointError: not weights of ours.
        ConfigError, ContractError: the segmenter of the pipeline cannot be used.
    """
    return own_source_of(job, model).looking(job.look)


def own_source_of(job: Job, model: Trained | Path) -> Source:
    """The same as it looks where nobody asks it otherwise.

    A model of the run looks as its pipeline has it, whatever its card keeps from its training.
    """
    if isinstance(model, Path):
        if note := starter.note_of(model):
            job.progress.note(note)
        return source_at(model, allow_code=job.allow_code)
    teacher = job.pipeline.teacher
    if model == "teacher" and teacher.segmenter:
        return Segmenter.named(teacher.segmenter, teacher.arguments, job.allow_code, teacher.look)
    path = job.run.output(model, WEIGHTS)  # hashes the file
    recipe: RoleConfig = getattr(job.pipeline, TRAININGS[model].role)
    return Weights.read(path, job.run.sha256_of_output(model, WEIGHTS)).with_look(recipe.look)


def source_at(path: Path, role: Role = "teacher", allow_code: bool = False) -> Source:
    """The model in a weights file, that of a role in a run directory, a SAM or the starter by its name.

    Raises:
        RunError: the directory is no run.
        CheckpointError: not weights of ours.
        ConfigError, ContractError: the run's configuration or segmenter cannot be used.
    """
    if sam := sam_named(path):
        return Segmenter.named("sam", {"model": sam}, allow_code)
    if not path.is_dir():
        return Weights.read(path)
    pipeline = _kept_in(path)
    if role == "teacher" and pipeline and (segmenter := pipeline.teacher.segmenter):
        teacher = pipeline.teacher
        return Segmenter.named(segmenter, teacher.arguments, allow_code, teacher.look)
    weights = path / role / WEIGHTS
    if pipeline is None and not weights.is_file() and (path / WEIGHTS).is_file():
        return Weights.read(path / WEIGHTS)  # what `deepmac import` wrote
    if not weights.is_file():
        raise RunError(f"{path}: no weights of a {role} there; expected a run directory or a weights file")
    found, recipe = Weights.read(weights), pipeline and getattr(pipeline, role)
    return found.with_look(recipe.look) if isinstance(recipe, RoleConfig) else found


def cut_at(path: Path | None) -> Cut:
    """Where the masks of a model end that is named: as its run has it, or by the default.

    Raises:
        ConfigError: the run's configuration cannot be used.
    """
    pipeline = None if path is None else _kept_in(path)
    return DEFAULT_CUT if pipeline is None else pipeline.labels.cut


def _kept_in(run: Path) -> Pipeline | None:
    """The configuration of a run directory; None where there is none."""
    kept = run / "config.json"
    return load_pipeline(kept) if kept.is_file() else None
