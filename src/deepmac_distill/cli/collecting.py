"""`deepmac results`: runs of any pipeline files in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.options import command
from deepmac_distill.cli.results import print_line, print_table
from deepmac_distill.cli.terminal import say
from deepmac_distill.config import MAX_RESAMPLES
from deepmac_distill.errors import ConfigError
from deepmac_distill.files import write_json, written_whole


@command(app)
def results(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs, folders of runs of several seeds, or evaluation folders; NAME=PATH names a row."
        ),
    ],
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="Show this split alone, such as one of `evaluation.splits`: rows may then have seen "
            "different classes.",
        ),
    ] = "",
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write every figure to.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="File to write the table to.")] = None,
    resamples: Annotated[
        int, typer.Option(min=1, max=MAX_RESAMPLES, help="Bootstrap resamples of the images.")
    ] = 1000,
) -> None:
    """Collect runs of any pipeline files into one table, with seeds, intervals and versions.

    Rows evaluated on different data, seen classes or splits are refused.
    """
    named = _named(runs)
    from deepmac_distill.evaluation.results import to_json
    from deepmac_distill.report.collected_table import collected_lines, collected_page, collected_table
    from deepmac_distill.stages.collected import collect
    from deepmac_distill.stages.outputs import OURS, PAGE_MARK, require_ours

    if markdown and markdown.suffix != ".md":
        raise ConfigError(f"--markdown {markdown}: expected a name that ends in .md")
    require_ours(filter(None, [as_json, markdown]), named.values())
    found = collect(named, split, resamples)
    print_table(collected_table(found))
    for line in collected_lines(found):
        print_line(line)
    if as_json:
        write_json(as_json, {"info": OURS, **to_json(found)})
        say(as_json)
    if markdown:
        with written_whole(markdown) as aside:
            aside.write_text(f"{PAGE_MARK}\n\n{collected_page(found)}\n", encoding="utf-8")
        say(markdown)


def _named(runs: list[str]) -> dict[str, Path]:
    """Row -> path; a path that stands alone is its own name.

    >>> _named(["runs/a", "b=runs/c"])
    {'runs/a': PosixPath('runs/a'), 'b': PosixPath('runs/c')}
    """
    found: dict[str, Path] = {}
    for text in runs:
        name, equals, path = text.partition("=")
        named, at = (name, Path(path)) if equals and not Path(text).exists() else (text, Path(text))
        if not named or named in found or not str(at):
            raise ConfigError(f"{text}: expected RUN or NAME=RUN, each name once")
        found[named] = at
    return found
