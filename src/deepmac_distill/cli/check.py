"""`deepmac check`: what is wrong with a data set, and what is in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.options import Reading, command, names_of

if TYPE_CHECKING:
    import pyarrow as pa

    from deepmac_distill.dataset.problems import Problem

_NUMBERS = re.compile(r"\[[^\]]*\]|-?\d+(\.\d+)?")  # what differs between messages of one nature


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
    hide = names_of(reading.hide or [])
    problems = list(stages.check(annotations, images, seen, strict, against, hide))
    for line in cut_short(problems):
        print(line)
    levels = [problem.level for problem in problems]
    print(f"{annotations}: {levels.count('error')} errors, {levels.count('warning')} warnings")
    if "error" in levels:
        raise typer.Exit(2)
    print()
    for line in class_lines(stages.class_statistics(annotations, seen, hide)):
        print(line)


def cut_short(problems: Sequence[Problem], most: int = 20) -> Iterator[str]:
    """A line for each problem; of those that say the same of many entries the first `most`, and a count."""
    kinds = [(problem.level, _NUMBERS.sub("#", problem.message)) for problem in problems]
    totals, printed = Counter(kinds), Counter[tuple[str, str]]()
    for problem, kind in zip(problems, kinds, strict=True):
        printed[kind] += 1
        if printed[kind] <= most:
            yield f"{problem.level}: {problem}"
        elif printed[kind] == totals[kind]:
            yield f"{problem.level}: ... and {totals[kind] - most} more like the last"


def class_lines(statistics: pa.Table) -> Iterator[str]:
    """A table of plain text: a class on each line, the median size as the side of a square."""
    rows = statistics.to_pylist()
    width = max(len("class"), *(len(row["name"]) for row in rows))
    yield f"{'class':{width}}  {'':6}  {'boxes':>9}  {'masks':>9}  {'median px':>9}"
    for row in rows:
        median = "-" if row["median_px"] is None else f"{row['median_px']:.0f}"
        kind = "seen" if row["seen"] else "unseen"
        yield f"{row['name']:{width}}  {kind:6}  {row['boxes']:9}  {row['masks']:9}  {median:>9}"
