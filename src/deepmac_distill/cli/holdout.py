"""`deepmac holdout`: which teacher is best on classes hidden from it, and how good its masks are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.forecast import duration
from deepmac_distill.cli.jobs import job_of
from deepmac_distill.cli.options import Code, Config, Data, Redo, Run, Steps, TrainData, command
from deepmac_distill.cli.results import print_line, print_table
from deepmac_distill.cli.sharding import Sharding
from deepmac_distill.cli.terminal import say

if TYPE_CHECKING:
    from deepmac_distill.evaluation.holdout_results import Holdout
    from deepmac_distill.stages.job import Job


@command(app)
def holdout(
    config: Config,
    at: Run,
    steps: Steps,
    data: Data,
    train: TrainData,
    redo: Redo,
    code: Code,
    sharding: Sharding,
    teachers: Annotated[
        list[str] | None,
        typer.Option(
            "--teachers",
            help="recipe, starter, a segmenter, weights, or a pipeline file or run to train; NAME=WHAT names "
            "one. Default: recipe, starter, and grabcut where it runs.",
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Groups of the seen classes; default: 2.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Trainings of a quarter of the steps; the table names it.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Show every class too.")] = False,
) -> None:
    """Try teachers on seen classes whose masks are hidden from them: a table, intervals, and a winner.

    Reads no validation file and no mask of an unseen class. A stopped one goes on. Units of a shard
    are trials: a teacher that is trained without one fold, or a ready teacher.
    """
    given: dict[str, object] = {
        **(
            {}
            if teachers is None
            else {"holdout.teachers": [name for t in teachers for name in t.split(",")]}
        ),
        **({} if folds is None else {"holdout.folds": folds}),
        **({"holdout.quick": True} if quick else {}),
    }
    job = job_of(config.config, at, data, train, redo, code, sharding, values=steps.of("teacher") | given)
    if job.shard is not None:
        from deepmac_distill.stages.holdout import holdout_shard

        say(holdout_shard(job))
        return
    print_cost(job)
    hold_out_and_print(job, per_class)


def hold_out_and_print(job: Job, per_class: bool = False) -> None:
    """The figures of a hold-out, once what is missing of it is done."""
    from deepmac_distill.stages.holdout import holdout as hold_out

    print_holdout(hold_out(job), per_class)
    say(f"figures: {job.run.path / 'holdout'}")


def print_cost(job: Job) -> None:
    """What a hold-out will take, before it starts; nothing where it is done."""
    from deepmac_distill.forecast.holdout import holdout_need

    if (need := holdout_need(job)) is not None:
        time = "time not measured" if need.seconds is None else f"about {duration(need.seconds)}"
        say(
            f"hold-out: {need.trainings} trainings and {need.masks} masks by {need.teachers} teachers: {time}"
        )


def print_holdout(found: Holdout, per_class: bool = False) -> None:
    """The figures, and what follows from them."""
    from deepmac_distill.report import holdout_tables as tables

    print_table(tables.holdout_table(found))
    if found.pairs:
        print_table(tables.pairs_table(found))
    if per_class:
        print_table(tables.classes_table(found))
    for line in (*tables.conclusions(found), tables.INTERVALS, tables.BIAS):
        print_line(line)
