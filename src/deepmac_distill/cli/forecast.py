"""`deepmac forecast`: what a pipeline will need, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.jobs import job_of
from deepmac_distill.cli.options import Code, Data, Pipeline, Run, Steps, TrainData, ValData, command
from deepmac_distill.cli.results import print_table
from deepmac_distill.cli.terminal import say
from deepmac_distill.errors import DeviceError

if TYPE_CHECKING:
    from deepmac_distill.chain import Role
    from deepmac_distill.forecast.needs import Forecast
    from deepmac_distill.forecast.stage_need import StageNeed
    from deepmac_distill.report.table import Table


@command(app)
def forecast(
    pipeline: Pipeline,
    at: Run,
    steps: Steps,
    data: Data,
    train: TrainData,
    val: ValData,
    code: Code,
    teacher: Annotated[bool, typer.Option("--teacher", help="Only what the teacher needs.")] = False,
    student: Annotated[bool, typer.Option("--student", help="Only what the student needs.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Too little memory is a note, not an error: it is an estimate.")
    ] = False,
) -> None:
    """Estimate what each stage needs: data, memory, disk and time, from a few passes of the real model.

    Exit code 2 if data are missing, or if memory or disk is too small. Writes nothing.
    """
    job = job_of(pipeline.path, at, data, train, val, code, values=steps.of("teacher", "student"))

    from deepmac_distill.forecast import needs

    asked: dict[Role, bool] = {"teacher": teacher, "student": student}
    roles = [role for role in asked if asked[role]] or list(asked)
    found = needs.forecast(job, roles)
    if job.pipeline.holds_out and "teacher" in roles and not found.problems:
        from deepmac_distill.forecast.holdout import holdout_stage_need

        found = replace(found, needs=(holdout_stage_need(job), *found.needs))
    _print(found)
    refused = [problem for problem in found.problems if not (anyway and isinstance(problem, DeviceError))]
    for problem in found.problems:
        if problem not in refused[:1]:  # the one that ends the command is printed there
            say(f"note: {problem}")
    if refused:
        raise refused[0]


def _print(found: Forecast) -> None:
    from deepmac_distill.forecast.needs import in_words

    for inventory in found.data:
        state = "; missing: " + ", ".join(inventory.missing) if inventory.missing else ", all there"
        say(f"{inventory.annotations}: {inventory.images} images, {inventory.boxes} boxes{state}")
    print_table(_table(found.needs))
    free = {"memory": found.machine.memory, "disk": found.machine.disk}
    free_space = ", ".join(f"{name} {'unknown' if n is None else in_words(n)}" for name, n in free.items())
    seconds = [need.seconds for need in found.needs if need.seconds is not None]
    time = f"time together {duration(sum(seconds))}" if seconds else "time not measured"
    say(f"device {found.device}; free: {free_space}; disk at most {in_words(found.disk_bytes)}; {time}")


def _table(needs: Sequence[StageNeed]) -> Table:
    from deepmac_distill.report.table import Table, columns, names

    headings = (*names("stage"), *columns("figure", ("memory", "disk", "scratch disk", "time")))
    return Table("Needs, estimated", headings, tuple((need.stage, *_cells(need)) for need in needs))


def _cells(need: StageNeed) -> tuple[str, str, str, str]:
    from deepmac_distill.forecast.needs import in_words

    if need.done:
        return "done before", "", "", ""
    return (
        "less than training" if need.memory_bytes is None else in_words(need.memory_bytes),
        in_words(need.disk_bytes),
        in_words(need.scratch_bytes),
        "not measured" if need.seconds is None else duration(need.seconds),
    )


def duration(seconds: float) -> str:
    """An estimate of time for a person.

    >>> duration(20), duration(5000), duration(40_000), duration(3e6)
    ('under a minute', '83 minutes', '11 hours', '35 days')
    """
    if seconds < 60:
        return "under a minute"
    for unit, length, most in (("minutes", 60, 120), ("hours", 3600, 72)):
        if seconds < most * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
