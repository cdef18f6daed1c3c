"""`deepmac check`: what is wrong with a data set, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.options import Reading, command, names_of


@command(app)
def check(
    reading: Reading,
    annotations: Annotated[Path, typer.Argument(help="COCO, LVIS or boxes-only JSON.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of its images; they are opened and measured.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A file that must share no image, such as validation.")
    ] = None,
) -> None:
    """Everything that is wrong with a data set, before any training. Exit code 2 if there is an error."""
    from deepmac_distill import stages

    seen, strict = tuple(names_of(reading.seen or ["voc"])), bool(reading.strict)
    problems = list(stages.check(annotations, images, seen, strict, against))
    for problem in problems:
        print(f"{problem.level}: {problem}")
    levels = [problem.level for problem in problems]
    print(f"{annotations}: {levels.count('error')} errors, {levels.count('warning')} warnings")
    if "error" in levels:
        raise typer.Exit(2)
