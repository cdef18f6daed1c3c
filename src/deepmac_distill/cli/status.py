"""`deepmac status`: how far a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.chain import Stage, planned, seed_runs
from deepmac_distill.cli.app import app
from deepmac_distill.cli.buckets import copy_named
from deepmac_distill.cli.ending import next_commands
from deepmac_distill.cli.options import command
from deepmac_distill.cli.terminal import say
from deepmac_distill.config import Pipeline, load_pipeline, recipe_file
from deepmac_distill.config.holdout import BEST, RECIPE, name_of
from deepmac_distill.errors import ConfigError
from deepmac_distill.regular import read_small
from deepmac_distill.weights.starter import NAME as STARTER


@command(app)
def status(
    run: Annotated[Path, typer.Argument(help="Run directory, such as runs/demo.")],
) -> None:
    """Show each stage of a run: what it made and when, what is stale, and how to continue. Only reads.

    Of a folder of several seeds it is that of each.
    """
    run = copy_named(str(run))
    for seed, one in seed_runs(run).items():
        say(f"seed {seed}: {one}")
        _print_status(one)
    if not seed_runs(run):
        _print_status(run)


def _print_status(run: Path) -> None:
    from deepmac_distill.status import status_of, to_do

    found = status_of(run, _planned(run))
    width = max(len(one.stage) for one in found)
    for one in found:
        when = "" if one.when is None else f"{one.when.astimezone():%Y-%m-%d %H:%M}"
        say(f"{one.stage:<{width}}  {one.state:<9}  {when:<16}  {', '.join(one.made)}".rstrip())
    for one in found:
        if one.detail:
            place = "at " if one.state in ("stopped", "at work") else ""
            say(f"{one.stage}: {one.state}: {place}{one.detail}")
    if commands := to_do(run, found) or next_commands(run):
        say("next:", *(f"  {command}" for command in commands))


def _planned(run: Path) -> tuple[Stage, ...]:
    """The stages of the run, as far as its configuration can be read."""
    try:
        pipeline = load_pipeline(run / "config.json")
    except ConfigError as error:  # of an earlier version, or not there yet
        if (run / "config.json").exists():
            say(f"note: {error}")
        return planned(evaluated=True)
    evaluated = pipeline.data.source == "scenes" or bool(pipeline.data.val_annotations)
    trained = trains_teacher(pipeline, run)
    return planned(evaluated=evaluated, segmenter=not trained, holdout=pipeline.holds_out)


def trains_teacher(pipeline: Pipeline, run: Path) -> bool:
    """Whether a run trains a teacher; before a hold-out has named the one that labels, as if it were its own.

    Raises:
        ConfigError: a pipeline file that the pipeline names cannot be read.
    """
    named = pipeline.labels.teacher
    names = {_winner(run) if named == BEST else named, *pipeline.labels.teacher_by_class.values()}
    return any(_is_trained(pipeline, str(name)) for name in names)


def _winner(run: Path) -> str:
    try:
        return str(json.loads(read_small(run / "holdout" / "summary.json").decode())["winner"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return RECIPE


def _is_trained(pipeline: Pipeline, name: str) -> bool:
    whats = {name_of(one): one.partition("=")[2] or one for one in pipeline.holdout.teachers}
    what = whats.get(name, name)
    if what == RECIPE:
        return not pipeline.teacher.segmenter
    file = None if what == STARTER else recipe_file(what)  # the weights: a recipe is called so too
    return file is not None and not load_pipeline(file).teacher.segmenter
