"""Commands of the chain: each does one stage, `run` does all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.ending import print_ending
from deepmac_distill.cli.jobs import job_of, jobs_of_seeds, refuse_look_of_the_run
from deepmac_distill.cli.options import (
    Code,
    Config,
    Data,
    Looking,
    Pipeline,
    Redo,
    Run,
    Seeds,
    Steps,
    TrainData,
    ValData,
    command,
)
from deepmac_distill.cli.quality import print_quality
from deepmac_distill.cli.results import print_report, print_retention
from deepmac_distill.cli.seeds import retain_seeds, run_seeds
from deepmac_distill.cli.sharding import Sharding
from deepmac_distill.cli.terminal import say


@command(app)
def run(
    pipeline: Pipeline,
    at: Run,
    steps: Steps,
    seeds: Seeds,
    data: Data,
    train: TrainData,
    val: ValData,
    redo: Redo,
    code: Code,
    looking: Looking,
) -> None:
    """Run the whole chain: teach, evaluate, pseudolabel, student, evaluate, report.

    Finished stages are skipped, interrupted ones resume; changed inputs stop the run with an error.
    With --look it is the teacher that looks so, in evaluation and labeling.
    """
    shorter = steps.of("teacher", "student")
    groups = (data, train, val, redo, code, looking)
    if seeds.seeds > 1:
        run_seeds(*jobs_of_seeds(pipeline.path, at, seeds.seeds, *groups, values=shorter))
        return
    job = job_of(pipeline.path, at, *groups, values=shorter)
    from deepmac_distill.stages.run import run as run_chain

    report = run_chain(job)
    if report:
        print_report(report)
        print_quality(job)
        say(f"report: {job.run.path / 'report'}")
    print_ending(job.run.path)


@command(app)
def teach(
    config: Config, at: Run, steps: Steps, data: Data, train: TrainData, redo: Redo, code: Code
) -> None:
    """Train the teacher: boxes of all classes, masks of the seen ones."""
    job = job_of(config.config, at, data, train, redo, code, values=steps.of("teacher"))
    from deepmac_distill.stages.train import teach as train_teacher

    if weights := train_teacher(job):
        say(weights)


@command(app)
def pseudolabel(
    config: Config,
    at: Run,
    data: Data,
    train: TrainData,
    redo: Redo,
    code: Code,
    looking: Looking,
    sharding: Sharding,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="Weights, a run (its teacher), starter, or sam:MODEL; default: this run's."
        ),
    ] = None,
) -> None:
    """Write a mask for every box that has none: masks.parquet (facts) and instances.json (COCO)."""
    refuse_look_of_the_run(at, model)
    job = job_of(config.config, at, data, train, redo, code, looking, sharding)
    from deepmac_distill.stages.pseudolabel import pseudolabel as label_boxes

    say(label_boxes(job, model))


@command(app)
def student(
    config: Config,
    at: Run,
    steps: Steps,
    data: Data,
    train: TrainData,
    redo: Redo,
    labels: Annotated[
        Path | None, typer.Option(help="masks.parquet or a COCO file of another run; default: the run's.")
    ] = None,
) -> None:
    """Train the student on human masks of seen classes and the teacher's of the rest."""
    job = job_of(config.config, at, data, train, redo, values=steps.of("student"))
    from deepmac_distill.stages.student import student as train_student

    say(train_student(job, labels))


@command(app)
def retention(
    config: Config, at: Run, seeds: Seeds, data: Data, train: TrainData, val: ValData, redo: Redo
) -> None:
    """Compare the student with one trained without the teacher's masks and one trained on all human masks.

    Trains both (`student-seen`, `student-human`), and the student if there is none.
    """
    if seeds.seeds > 1:
        retain_seeds(*jobs_of_seeds(config.config, at, seeds.seeds, data, train, val, redo))
        return
    job = job_of(config.config, at, data, train, val, redo)
    from deepmac_distill.stages.retention import retention as measure_retention

    print_retention(measure_retention(job))
    say(f"figures: {job.run.path / 'retention'}")
