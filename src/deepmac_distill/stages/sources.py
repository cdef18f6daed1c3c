"""Which model a stage uses: a file, what another stage of the run made, or a segmenter without weights."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.chain import TRAININGS, WEIGHTS, Role, Trained
from deepmac_distill.config import Pipeline, RoleConfig, TeacherConfig, load_pipeline, recipe_file
from deepmac_distill.config.holdout import BEST, RECIPE, name_of
from deepmac_distill.errors import ConfigError, RunError
from deepmac_distill.labels.cut import DEFAULT_CUT, Cut
from deepmac_distill.models.load import Segmenter, Source, Weights
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.candidate import Candidate
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.kept_holdout import winner_of
from deepmac_distill.stages.quality import chosen_cut
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
    if model == "teacher":
        return source_of_candidate(job, job.choice.main if job.choice else own_teacher(job))
    path = job.run.output(model, WEIGHTS)  # hashes the file
    recipe: RoleConfig = getattr(job.pipeline, TRAININGS[model].role)
    return Weights.read(path, job.run.sha256_of_output(model, WEIGHTS)).with_look(recipe.look)


def own_teacher(job: Job) -> Candidate:
    """The pipeline's own."""
    return candidate(job.pipeline, RECIPE, job.allow_code)


def source_of_candidate(job: Job, chosen: Candidate) -> Source:
    """A teacher, ready; of a recipe it is what the run has trained.

    Raises:
        RunError: nothing is trained yet.
    """
    if chosen.source is not None:
        return chosen.source
    assert chosen.recipe is not None
    path = job.run.output("teacher", WEIGHTS)  # hashes the file
    return Weights.read(path, job.run.sha256_of_output("teacher", WEIGHTS)).with_look(chosen.recipe.look)


def source_at(path: Path, role: Role = "teacher", allow_code: bool = False) -> Source:
    """The model in a weights file, that of a role in a run directory, a SAM or the starter by its name.

    Raises:
        RunError: the directory is no run, or its teacher is the winner of a hold-out that it lacks.
        CheckpointError: not weights of ours.
        ConfigError, ContractError: the run's configuration or segmenter cannot be used.
    """
    if sam := sam_named(path):
        return Segmenter.named("sam", {"model": sam}, allow_code)
    if not path.is_dir():
        return Weights.read(path)
    pipeline = _kept_in(path)
    recipe: RoleConfig | None = getattr(pipeline, role) if pipeline else None
    if role == "teacher" and pipeline:
        chosen = main_teacher(pipeline, RunDir(path), allow_code)
        if chosen.source is not None:
            return chosen.source
        recipe = chosen.recipe
    weights = path / role / WEIGHTS
    if pipeline is None and not weights.is_file() and (path / WEIGHTS).is_file():
        return Weights.read(path / WEIGHTS)  # what `deepmac import` wrote
    if not weights.is_file():
        raise RunError(f"{path}: no weights of a {role} there; expected a run directory or a weights file")
    found = Weights.read(weights)
    return found.with_look(recipe.look) if recipe else found


def main_teacher(pipeline: Pipeline, run: RunDir, allow_code: bool) -> Candidate:
    """The teacher of a run that labels what no other is named for: `labels.teacher`.

    Raises:
        RunError: it is the winner of a hold-out that the run lacks, or that names none.
        ConfigError, CheckpointError, ContractError: it cannot be used.
    """
    name = pipeline.labels.teacher
    return by_name(pipeline, winner_of(run) if name == BEST else name, allow_code)


def by_name(pipeline: Pipeline, name: str, allow_code: bool) -> Candidate:
    """The teacher that is called so among `holdout.teachers`, or where none is named among the defaults.

    Raises:
        ConfigError, CheckpointError, ContractError: it cannot be used.
    """
    named = [one for one in pipeline.holdout.teachers if name_of(one) == name]
    return candidate(pipeline, named[0] if named else name, allow_code)


def candidate(pipeline: Pipeline, named: str, allow_code: bool) -> Candidate:
    """One teacher as `holdout.teachers` names it.

    Raises:
        ConfigError, CheckpointError, ContractError: it cannot be used.
    """
    name, what = name_of(named), named.partition("=")[2] or named
    if what == RECIPE:
        return _of_recipe(name, pipeline.teacher, allow_code)
    path = Path(what)
    if what == starter.NAME or sam_named(path):  # the weights: a recipe is called starter too
        return Candidate(name, None, source_at(path, allow_code=allow_code))
    if (file := recipe_file(what)) is not None:
        return _of_recipe(name, load_pipeline(file).teacher, allow_code)
    if path.exists() or path.suffix == ".safetensors":
        return Candidate(name, None, source_at(path, allow_code=allow_code))
    arguments = pipeline.holdout.arguments.get(name, {})
    try:
        return Candidate(name, None, Segmenter.named(what, arguments, allow_code))
    except ConfigError as error:
        raise ConfigError(f"holdout.teachers: {name}: {error}") from None


def _of_recipe(name: str, recipe: TeacherConfig, allow_code: bool) -> Candidate:
    if not recipe.segmenter:
        return Candidate(name, recipe, None)
    return Candidate(
        name, recipe, Segmenter.named(recipe.segmenter, recipe.arguments, allow_code, recipe.look)
    )


def cut_at(path: Path | None, teacher: Source | None = None) -> Cut:
    """Where the masks of a model end that is named: as its run has it, or by the default.

    Args:
        teacher: the model, if it is the run's teacher, for whose masks a calibration may choose.

    Raises:
        ConfigError: the run's configuration cannot be used.
    """
    pipeline = None if path is None else _kept_in(path)
    if path is None or pipeline is None:
        return DEFAULT_CUT
    return chosen_cut(path, pipeline.labels, lambda: teacher) if teacher else pipeline.labels.cut_alone


def _kept_in(run: Path) -> Pipeline | None:
    """The configuration of a run directory; None where there is none."""
    kept = run / "config.json"
    return load_pipeline(kept) if kept.is_file() else None
