"""The paper's mask heads, each in a model that is trained whole: `deepmac_distill.experiments` from a shell.

    python benchmarks/mask_heads.py train --data FOLDER [--seeds 3] [--only ROW ...] [--out runs/mask_heads]
        [--results FOLDER] [--recipe mask_heads] [--set KEY=VALUE ...] [--hidden] [--force]
    python benchmarks/mask_heads.py costs [--results FOLDER]   # of each mask head, on this machine
    python benchmarks/mask_heads.py table [--results FOLDER]   # of the rows that are there

The small file of a (row, seed) is written when its training ends, and what is there is not trained again:
stop it and start it as you like. Several processes share the work with `--only`. The small files are kept in
benchmarks/results/mask_heads, where `--results` names no other folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.config import DeepMacConfig, load_pipeline, located
from deepmac_distill.devices import environment, use_threads
from deepmac_distill.errors import DistillError
from deepmac_distill.evaluation.results import from_json
from deepmac_distill.experiments.mask_head_costs import costs
from deepmac_distill.experiments.mask_head_figures import figures_of
from deepmac_distill.experiments.mask_head_results import COSTS, Costs, read_results, write_result
from deepmac_distill.experiments.mask_head_rows import HEADS, ROWS, SEEDS
from deepmac_distill.experiments.mask_head_table import page, page_of_some
from deepmac_distill.experiments.mask_heads import Comparison, compare_heads
from deepmac_distill.experiments.run_record import Environment

RESULTS = Path(__file__).parent / "results" / "mask_heads"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    training, costing, showing = (commands.add_parser(name) for name in ("train", "costs", "table"))
    for command in (training, costing, showing):
        command.add_argument("--results", type=Path, default=RESULTS)
    for command in (training, costing):
        command.add_argument("--recipe", type=Path, default=Path("mask_heads"))
        command.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    training.add_argument("--data", default="")
    training.add_argument("--out", type=Path, default=Path("runs/mask_heads"))
    training.add_argument("--seeds", type=int, default=SEEDS, help="so many, from the recipe's seed on")
    training.add_argument("--only", nargs="+", default=ROWS, metavar="ROW", help=", ".join(ROWS))
    training.add_argument("--hidden", action="store_true", help="evaluate on the classes of data.hide alone")
    training.add_argument("--force", action="store_true", help="redo rows that are there")
    showing.add_argument("--resamples", type=int, default=1000)
    return parser.parse_args(arguments)


def train(given: argparse.Namespace) -> None:
    """The rows that are asked for and not yet there."""
    comparison = Comparison(
        recipe=located(given.recipe),
        out=given.out,
        results=given.results,
        data=given.data,
        overrides=given.overrides,
        hidden=given.hidden,
    )
    compare_heads(comparison, given.only, given.seeds, Terminal(), given.force)


def measure_costs(given: argparse.Namespace) -> None:
    """Parameters, multiply-adds and milliseconds of each mask head, at the recipe's widths."""
    pipeline = load_pipeline(located(given.recipe), given.overrides)
    model = pipeline.teacher.model
    if not isinstance(model, DeepMacConfig):
        raise DistillError(f"{given.recipe}: teacher.model: got a {model.architecture}, expected a deepmac")
    use_threads(pipeline.threads)
    machine = from_json(environment(), Environment, "environment")
    write_result(given.results / COSTS, Costs(machine, costs(model, HEADS)))


def show(given: argparse.Namespace) -> None:
    """The tables of the rows that are there."""
    results = read_results(given.results)
    print(page(results, figures_of(results, given.resamples)))


def recorded_page(folder: Path) -> str:
    """Markdown of the rows in a folder; empty where none is."""
    if not any(folder.glob("*-seed-*.json")):
        return ""
    results = read_results(folder)
    return page(results, figures_of(results))


def longer_page(folder: Path) -> str:
    """Markdown: some of the mask heads, trained four times as long."""
    results = read_results(folder)
    command = (
        "python benchmarks/mask_heads.py train --data FOLDER --only hourglass-52 hourglass-20 resnet-4 "
        "--results benchmarks/results/mask_heads_1920_steps --out runs/longer "
        "--set teacher.train.steps=1920 --set teacher.train.ema_decay=0.998"
    )
    return page_of_some(results, figures_of(results), command)


ACTIONS = {"train": train, "costs": measure_costs, "table": show}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; 2 if there is something for the user to fix."""
    given = parsed(arguments)
    try:
        ACTIONS[given.action](given)
    except DistillError as error:
        print(f"mask_heads: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
