"""`deepmac assemble`: joins what shards have done."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.cutting import Cutting
from deepmac_distill.cli.evaluating import Evaluating
from deepmac_distill.cli.holdout import hold_out_and_print
from deepmac_distill.cli.jobs import job_of
from deepmac_distill.cli.options import Code, Config, Data, Looking, Run, TrainData, ValData, command
from deepmac_distill.cli.terminal import say
from deepmac_distill.errors import ConfigError, RunError

_LABELS, _EVALUATION, _HOLDOUT = "pseudolabel", "evaluate", "holdout"


@command(app)
def assemble(
    config: Config,
    at: Run,
    data: Data,
    train: TrainData,
    val: ValData,
    code: Code,
    looking: Looking,
    cutting: Cutting,
    evaluating: Evaluating,
    stage: Annotated[str, typer.Argument(help="Whose shards: pseudolabel, evaluate or holdout.")] = _LABELS,
    role: Annotated[
        str | None, typer.Argument(help="Of evaluate: teacher (default), student or as its shards had it.")
    ] = None,
) -> None:
    """Join what the shards of `pseudolabel`, `evaluate` or `holdout` have done, given the same options.

    Names what is missing, and does none of it itself.
    """
    if stage not in (_LABELS, _EVALUATION, _HOLDOUT):
        raise ConfigError(f"assemble: got {stage}, expected {_LABELS}, {_EVALUATION} or {_HOLDOUT}")
    if stage != _EVALUATION and (given := _of_evaluation(role, cutting, evaluating)):
        raise ConfigError(f"assemble {stage}: got {given}, expected it for {_EVALUATION} alone")
    if stage == _HOLDOUT and evaluating.model is not None:
        raise ConfigError(f"assemble {_HOLDOUT}: got --model, expected none: the run names its teachers")
    evaluated = evaluating.evaluated(role) if stage == _EVALUATION else None
    if not (at.out is None or any(at.out.glob("*"))):
        raise RunError(f"{at.out}: no run there; expected one in which shards have begun")
    job = dataclasses.replace(
        job_of(config.config, at, data, train, val, code, looking, cutting, values=evaluating.values),
        joins=True,
    )
    if evaluated is not None:
        evaluating.evaluate(job, evaluated)
        return
    if stage == _HOLDOUT:
        hold_out_and_print(job)
        return
    from deepmac_distill.stages.pseudolabel import pseudolabel

    say(pseudolabel(job, evaluating.model))


def _of_evaluation(role: str | None, cutting: Cutting, evaluating: Evaluating) -> str:
    """What only an evaluation takes, of what is given; empty where nothing is."""
    flags = {
        role or "": role is not None,
        "--cut": cutting.cut is not None,
        "--hidden": evaluating.hidden,
        "--reference": evaluating.reference,
        "--per-class": evaluating.per_class,
        "--box-noise": bool(evaluating.box_noise),
    }
    return next((name for name, given in flags.items() if given), "")
