"""`deepmac check`: what is wrong with a data set, and what is in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.image_reading import ReadingImages
from deepmac_distill.cli.options import Reading, command, names_of
from deepmac_distill.cli.results import print_table
from deepmac_distill.cli.terminal import Terminal, say
from deepmac_distill.printable import shortened

if TYPE_CHECKING:
    import pyarrow as pa

    from deepmac_distill.dataset.problems import Problem
    from deepmac_distill.report.table import Table

# What differs between messages of one nature: quoted values, lists and objects, paths, numbers.
_VALUES = re.compile(
    r'"(?:[^"\\]|\\.)*"'
    r"|[\[{][^\[\]{}]*(?:[\]}]|\.\.\.)"
    r"|(?<!\S)\S*[/\\]\S*"
    r"|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
)


@command(app)
def check(
    reading: Reading,
    of_images: ReadingImages,
    annotations: Annotated[Path, typer.Argument(help="COCO, LVIS or boxes-only JSON.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of its images; they are opened and measured.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A file that must share no image, such as validation.")
    ] = None,
    against_images: Annotated[
        Path | None, typer.Option(help="Folder of that file's images. [--images]")
    ] = None,
) -> None:
    """List everything that is wrong with a data set, and its classes. Exit code 2 if there is an error."""
    from deepmac_distill.stages.check import check as find_all_problems
    from deepmac_distill.stages.check import class_statistics

    seen, strict = tuple(names_of(reading.seen or ["voc"])), bool(reading.strict)
    hide = names_of(reading.hide or [])
    reader = of_images.reader
    found = find_all_problems(
        annotations, images, seen, strict, against, hide, reader, against_images, Terminal()
    )
    problems = list(found)
    for line in cut_short(problems):
        say(line)
    levels = [problem.level for problem in problems]
    say(f"{annotations}: {levels.count('error')} errors, {levels.count('warning')} warnings")
    if "error" in levels:
        raise typer.Exit(2)
    print_table(class_table(class_statistics(annotations, seen, hide, images, reader)))


def nature_of(message: str) -> str:
    """A message without the values in it.

    >>> nature_of('/a/b.jpg: mask of size [1, [2]]; expected "x" 3')
    '# mask of size #; expected # #'
    """
    before = ""
    while before != message:  # lists in lists
        before, message = message, _VALUES.sub("#", message)
    return message


def cut_short(problems: Sequence[Problem], most: int = 20) -> Iterator[str]:
    """A line for each problem; of those with one message for many entries the first `most`, and a count."""
    kinds = [(problem.level, nature_of(problem.message)) for problem in problems]
    totals, printed = Counter(kinds), Counter[tuple[str, str]]()
    for problem, kind in zip(problems, kinds, strict=True):
        printed[kind] += 1
        if printed[kind] <= most:
            yield f"{problem.level}: {shortened(str(problem))}"
        elif printed[kind] == totals[kind]:
            yield f"{problem.level}: ... and {totals[kind] - most} more like the last"


def class_table(statistics: pa.Table) -> Table:
    """A row for each class; the median size is the side of a square."""
    from deepmac_distill.report.table import Table, columns, names

    return Table(
        "Classes",
        (
            *names("class", "masks"),
            *columns("count", ("boxes", "with masks")),
            *columns("figure", ("median px",)),
        ),
        tuple(
            (
                *(row["name"], "seen" if row["seen"] else "unseen", row["boxes"], row["masks"]),
                None if row["median_px"] is None else f"{row['median_px']:.0f}",
            )
            for row in statistics.to_pylist()
        ),
    )
