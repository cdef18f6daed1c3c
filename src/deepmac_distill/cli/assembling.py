"""`deepmac assemble`: joins what shards have done."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.jobs import job_of
from deepmac_distill.cli.options import Code, Config, Data, Looking, Run, TrainData, command
from deepmac_distill.cli.terminal import say


@command(app)
def assemble(
    config: Config,
    at: Run,
    data: Data,
    train: TrainData,
    code: Code,
    looking: Looking,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Weights, a run (its teacher), or starter, as the shards had it."),
    ] = None,
) -> None:
    """Join what the shards of `pseudolabel` have done; names what is missing, and labels nothing itself."""
    job = dataclasses.replace(job_of(config.config, at, data, train, code, looking), joins=True)
    from deepmac_distill.stages.pseudolabel import pseudolabel as join_labels

    say(join_labels(job, model))
