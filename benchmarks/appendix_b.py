"""Appendix B of arXiv:2104.00613: `deepmac_distill.experiments.appendix_b` from a shell.

    python benchmarks/appendix_b.py run b1|b2|b paper|small --data FOLDER [--lvis FILE] [--anyway]
        [--tenth] [--steps N] [--runs FOLDER]
    python benchmarks/appendix_b.py table paper|small [--runs FOLDER]

`run` forecasts every step, does those that are not done, and ends in the table; `table` reads what is there.
The runs are in runs/NAME, as those of any pipeline file; the table is kept as JSON and Markdown in
runs/appendix_b or runs/appendix_b_small. `--tenth` trains a tenth of each recipe's steps, with warm-up and
decays scaled, in runs/appendix-b-tenth; `--steps` is a trial of so many, in runs/appendix-b-trial.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from deepmac_distill.errors import ConfigError, DistillError
from deepmac_distill.experiments.appendix_b import FOLDERS, RUNS, Runs, Step, plan
from deepmac_distill.experiments.appendix_b_table import cuts, run_line, table, write
from deepmac_distill.report.terminal import rich_tables
from paper import positive


def run(steps: Sequence[Step]) -> int:
    """Do the steps in their order; the exit code of the first that fails, or 0."""
    for step in steps:
        print(f"$ deepmac {shlex.join(step)}", flush=True)
        ended = subprocess.run([sys.executable, "-m", "deepmac_distill", *step], check=False)
        if ended.returncode:
            return ended.returncode
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    running, showing = commands.add_parser("run"), commands.add_parser("table")
    running.add_argument("part", choices=["b1", "b2", "b"])
    for command in (running, showing):
        command.add_argument("protocol", choices=list(RUNS))
        command.add_argument("--runs", type=Path, help="folder of the runs")
    running.add_argument("--data", required=True, help="folder of the data")
    running.add_argument("--lvis", default="", help="lvis_v1_val.json")
    running.add_argument("--tenth", action="store_true", help="a tenth of the steps")
    running.add_argument("--steps", type=positive, default=0, help="a trial of so many steps")
    running.add_argument("--seeds", type=positive, default=1)
    running.add_argument("--anyway", action="store_true", help="where a forecast of memory speaks against it")
    return parser.parse_args(arguments)


def planned(given: argparse.Namespace) -> list[Step]:
    """The steps that a command line asks for.

    Raises:
        ConfigError: several seeds are asked for.
    """
    if given.seeds != 1:
        raise ConfigError(
            f"appendix B: seeds: got {given.seeds}, expected 1: its students learn from one teacher; "
            "deepmac run RECIPE --seeds N repeats a chain"
        )
    runs = Runs(given.protocol, given.data, _folder(given), steps=given.steps, tenth=given.tenth)
    return plan(runs, given.part, given.lvis, given.anyway)


def _folder(given: argparse.Namespace) -> Path:
    """Where the runs are; shorter ones stand apart from those of the recipes."""
    short = given.action == "run" and ("trial" if given.steps else "tenth" if given.tenth else "")
    return given.runs or (Path("runs") / f"appendix-b-{short}" if short else Path("runs"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The commands of the module's docstring; 2 if there is something for the user to fix."""
    given = parsed(arguments)
    try:
        return _run_or_show(given)
    except DistillError as error:
        print(f"appendix_b: {error}", file=sys.stderr)
        return error.exit_code


def _run_or_show(given: argparse.Namespace) -> int:
    folder = _folder(given)
    if given.action == "run":
        steps = planned(given)
        if given.protocol == "small":
            print("\n".join(cuts(Path(given.data))))
        if given.steps or given.tenth:
            print(f"Steps: {given.steps or 'a tenth of the recipes'}, in {folder}", flush=True)
        if failed := run(steps):
            return failed
    found = write(folder, given.protocol)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for shown in rich_tables(table(found.rows), console.width):
        console.print(shown)
    for made in found.runs:
        print(run_line(made))
    written = folder / FOLDERS[given.protocol]
    print(f"{written / 'appendix_b.json'} {written / 'appendix_b.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
