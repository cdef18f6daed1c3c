"""Who labels: the pipeline's own teacher, the winner of the run's hold-out, or teachers by class."""

from __future__ import annotations

from dataclasses import replace

from deepmac_distill.config.holdout import BEST, RECIPE
from deepmac_distill.errors import ConfigError, RunError
from deepmac_distill.stages.candidate import Candidate, TeacherChoice
from deepmac_distill.stages.job import Job, training_split
from deepmac_distill.stages.kept_holdout import kept_holdout
from deepmac_distill.stages.quality import chosen_cut
from deepmac_distill.stages.sources import by_name, main_teacher, own_source_of


def choosing(job: Job) -> Job:
    """The job with the teachers that `labels.teacher` and `labels.teacher_by_class` name.

    The pipeline's teacher is then the one that the run trains, if it trains one. What the run keeps stays.

    Raises:
        RunError: the winner of a hold-out is asked for that is not there, or is of other data or teachers.
        ConfigError: several teachers would have to be trained, a class is not in the data, or a look is asked
            for that the teacher does not take.
        CheckpointError, ContractError: a teacher cannot be used.
    """
    labels = job.pipeline.labels
    if job.choice is not None or (labels.teacher == RECIPE and not labels.teacher_by_class):
        return job
    asked, job = bool(job.look), job.keeping_look()
    main = main_teacher(job.pipeline, job.run, job.allow_code)
    if labels.teacher == BEST:
        _require_holdout_of(job, main)
    if asked and main.recipe is not job.pipeline.teacher:
        raise ConfigError(
            f"--look: is how the pipeline's own teacher looks, and labels.teacher = {labels.teacher!r} is "
            f"{main.name}; expected no --look"
        )
    names = dict.fromkeys(labels.teacher_by_class.values())
    others = {
        name: main if name == main.name else by_name(job.pipeline, name, job.allow_code) for name in names
    }
    choice = TeacherChoice(main, {cls: others[name] for cls, name in labels.teacher_by_class.items()})
    _require_classes(job, choice)
    _require_one_training(choice)
    recipe = choice.trained.recipe if choice.trained else main.recipe
    pipeline = job.pipeline if recipe is None else replace(job.pipeline, teacher=recipe)
    return replace(job, pipeline=pipeline, kept=job.pipeline, choice=choice)


def cutting(job: Job) -> Job:
    """The job with the teacher's masks ending where its calibration has chosen, if it may choose."""
    if job.asked_cut is not None or not job.pipeline.labels.by_calibration:
        return job
    cut = chosen_cut(job.run.path, job.pipeline.labels, lambda: own_source_of(job, "teacher"))
    if cut == job.cut:
        return job
    job.note_once(f"labels.cut: the teacher's masks end at {cut}, which its calibration chose")
    pipeline = replace(job.pipeline, labels=replace(job.pipeline.labels, cut=cut))
    return replace(job, pipeline=pipeline, kept=job.kept or job.pipeline)


def _require_holdout_of(job: Job, winner: Candidate) -> None:
    """Refuse a hold-out of other data, or of another recipe or model under the winner's name; note a tie.

    Raises:
        RunError: names what differs.
    """
    found, masks = kept_holdout(job.run)
    where, again = f"{job.run.path / 'holdout'}", "expected `deepmac holdout` of this run to be done again"
    (tried,) = (one for one in masks.record.teachers if one.name == winner.name)
    if tried.identity != winner.identity:
        raise RunError(
            f"{where}: is of another {winner.name} than labels here (its recipe or model); {again}"
        )
    dataset = job.open(training_split(job).annotations)
    names = [name for fold in masks.record.folds for name in fold]
    known = set(names) <= set(dataset.classes.names)
    if not known or dataset.of_untaught(names).fingerprint != masks.record.data_sha256:
        raise RunError(f"{where}: is of other masks or boxes than {dataset.path} has; {again}")
    others = [name for name in found.tied if name != winner.name]
    tie = f", tied with {', '.join(others)} and the cheaper one" if others else ""
    job.note_once(f"labels.teacher = 'best': {winner.name} won the hold-out{tie}")


def _require_classes(job: Job, choice: TeacherChoice) -> None:
    if not choice.by_class:
        return
    path = training_split(job).annotations
    known = job.open(path).classes.names
    for name in choice.by_class:
        if name not in known:
            listed = ", ".join(known[:5])
            raise ConfigError(
                f"labels.teacher_by_class.{name}: no such class in {path}; expected names such as {listed}"
            )


def _require_one_training(choice: TeacherChoice) -> None:
    """A run has a place for the weights of one teacher."""
    trained = {one.name: one for one in (choice.main, *choice.by_class.values()) if one.source is None}
    if len(trained) > 1:
        raise ConfigError(
            f"labels: {' and '.join(trained)} would have to be trained; expected one such teacher in a run, "
            "and of others their weights (holdout.teachers: NAME=PATH)"
        )
