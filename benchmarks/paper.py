"""Tables and figures of arXiv:2104.00613, each by one command: `deepmac_distill.experiments` from a shell.

    python benchmarks/paper.py run TABLE coco|small --data FOLDER [--only ROW ...] [--seeds N] [--steps N]
        [--set KEY=VALUE ...] [--tenth] [--start WEIGHTS] [--out FOLDER] [--results FOLDER]
    python benchmarks/paper.py show TABLE coco|small [--only ROW ...] [--results FOLDER] [--tenth]
    python benchmarks/paper.py files FOLDER          # a pipeline file for each training and scale
    python benchmarks/paper.py cost [TABLE ...] [--annotations FILE]  # FLOP, GPU-days, at the paper's scale
    python benchmarks/paper.py list                  # tables, rows and what trains them

TABLE is table-1 ... table-12, figure-3 or appendix-c; appendix B and table 13 are benchmarks/appendix_b.py,
of which `cost` counts table-13 and appendix-b.
`run` writes the pipeline file of each training, does what is not done yet, keeps a small file a training and
seed in the folder of results, and ends in `show`. With `--steps` it is a trial: nothing is kept. `--tenth`
trains a tenth of the steps, with warm-up and decays scaled. Rows of another recipe (`--tenth`, or `--set`
of a key that decides figures) are kept in OUT/results.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from deepmac_distill.errors import DistillError
from deepmac_distill.evaluation.results import to_json
from deepmac_distill.experiments.appendix_b import Part
from deepmac_distill.experiments.paper_checks import (
    recorded_rows,
    require_kept_data,
    require_kept_recipe,
    require_start,
    require_validation,
)
from deepmac_distill.experiments.paper_kept import Kept
from deepmac_distill.experiments.paper_page import differences_table, lines_of, page_of, result_of, table_of
from deepmac_distill.experiments.paper_plan import (
    Runs,
    Words,
    plan,
    require_data,
    to_train,
    write_pipelines,
)
from deepmac_distill.experiments.paper_plots import plots_of
from deepmac_distill.experiments.paper_runs import decisive_words, keep, kept_file
from deepmac_distill.experiments.paper_tables import PaperTable, cut_of, rows_of, table, tables
from deepmac_distill.experiments.paper_trainings import SCALES, pipeline_text, training, trainings
from deepmac_distill.files import write_json
from deepmac_distill.report.terminal import rich_tables

RESULTS = Path(__file__).parent / "results"
SEEDS = {"coco": 1, "small": 3}
# Run by benchmarks/appendix_b.py, their costs counted here.
APPENDIX_B: dict[str, tuple[str, Part]] = {
    "table-13": ("Students of a teacher's masks", "b2"),
    "appendix-b": ("the same, and teachers for LVIS", "b"),
}


def positive(text: str) -> int:
    """A number from one on.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from 1 on")
    return int(text)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    running, showing = commands.add_parser("run"), commands.add_parser("show")
    for command in (running, showing):
        command.add_argument("table")
        command.add_argument("scale", choices=SCALES)
        command.add_argument("--only", nargs="+", default=(), metavar="ROW")
        command.add_argument("--results", type=Path, help="folder of the small files")
        command.add_argument("--heads", type=Path, default=RESULTS / "mask_heads")
        command.add_argument("--out", type=Path, help="folder of the runs")
        command.add_argument("--tenth", action="store_true", help="a tenth of the steps")
    running.add_argument("--data", type=Path, default=Path())
    running.add_argument("--seeds", type=positive)
    running.add_argument("--first-seed", type=int, default=0)
    running.add_argument(
        "--steps", type=positive, default=0, help="a trial of so many steps; nothing is kept"
    )
    running.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    running.add_argument("--start", default="", help="weights for the rows that start from a detector")
    costing = commands.add_parser("cost")
    costing.add_argument("tables", nargs="*", metavar="TABLE")
    costing.add_argument("--annotations", type=Path, help="count the masks an image of this file")
    commands.add_parser("files").add_argument("folder", type=Path)
    commands.add_parser("list")
    return parser.parse_args(arguments)


def run(given: argparse.Namespace) -> int:
    """What is not done yet, then the table."""
    of = table(given.table)
    rows, out = rows_of(of, tuple(given.only)), _out(given)
    asked = {"steps": given.steps, "tenth": given.tenth, "start": given.start}
    asked["overrides"] = tuple(given.overrides)
    runs = Runs(scale=given.scale, data=given.data, out=out, **asked)
    wanted = to_train(rows, runs) or [row.training for row in rows]
    require_data(of, wanted, runs)
    require_start(runs)
    require_validation(wanted, runs)
    recorded = recorded_rows(rows, runs, _kept(given))
    names = to_train(rows, runs, recorded)
    if not given.steps:
        require_kept_data(names, runs, _results(given))
    write_pipelines(names, runs)
    if not given.steps:
        require_kept_recipe(names, runs, _results(given))
    if recorded:
        labels = "; ".join(row.label for row in recorded)
        print(f"{of.id}: recorded on this data, not trained again: {labels}", flush=True)
    if given.scale == "small":
        print(f"{of.id} at a small scale: {cut_of(of)}", flush=True)
    if runs.steps or runs.tenth:
        print(
            f"{of.id}: {f'a trial of {runs.steps} steps' if runs.steps else 'a tenth of the steps'}",
            flush=True,
        )
    for seed in range(given.first_seed, given.first_seed + (given.seeds or SEEDS[given.scale])):
        for name in names:
            if failed := _train(of, name, runs, seed, _results(given)):
                return failed
    if not given.steps:
        show(given)
    return 0


def _train(of: PaperTable, name: str, runs: Runs, seed: int, results: Path) -> int:
    path = kept_file(results, name, seed)
    if path.exists() and not runs.steps:
        print(f"{path}: done before, skipped", flush=True)
        return 0
    for words in plan(of, [name], runs, seed):
        if failed := _call(words):
            return failed
    if not runs.steps:
        command = f"python benchmarks/paper.py run {of.id} {runs.scale} --data FOLDER --only {name}"
        command += (
            " --start FILE" * training(name).start
            + " --tenth" * runs.tenth
            + "".join(f" --set {one}" for one in decisive_words(runs.overrides))
        )
        print(keep(runs.run(name, seed), results, name, runs.scale, seed, command), flush=True)
    return 0


def _call(words: Words) -> int:
    print(f"$ deepmac {shlex.join(words)}", flush=True)
    return subprocess.run([sys.executable, "-m", "deepmac_distill", *words], check=False).returncode


def show(given: argparse.Namespace) -> int:
    """The table beside the paper's, on the terminal, as Markdown and as JSON beside the runs."""
    of = table(given.table)
    found = result_of(of, rows_of(of, tuple(given.only)), given.scale, _kept(given))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for shown in (table_of(found), differences_table(found)):
        for part in rich_tables(shown, console.width) if shown is not None else ():
            console.print(part)
    for line in lines_of(found):
        print(line)
    out = _out(given)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{of.id}.json", to_json(found))
    (out / f"{of.id}.md").write_text(page_of(found) + "\n", encoding="utf-8")
    plots = plots_of(of, found)
    for name, drawn in plots.items():
        (out / name).write_text(drawn, encoding="utf-8")
    print(*(out / name for name in (f"{of.id}.json", f"{of.id}.md", *plots)))
    return 0


def files(given: argparse.Namespace) -> int:
    """A pipeline file for each training and scale."""
    for scale in SCALES:
        (given.folder / scale).mkdir(parents=True, exist_ok=True)
        for name in trainings():
            (given.folder / scale / f"{name}.toml").write_text(pipeline_text(name, scale) + "\n", "utf-8")
        print(given.folder / scale)
    return 0


def cost(given: argparse.Namespace) -> int:
    """What the trainings of each table take at the paper's scale."""
    from deepmac_distill.experiments import paper_costs as costs

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    runs = Runs(scale="coco", data=Path(), out=Path())
    masks = costs.masks_per_image(given.annotations) if given.annotations else costs.MASKS_PER_IMAGE
    print(
        "Masks an image: " + ", ".join(f"{count:.2f} ({name})" for name, count in masks.items()), flush=True
    )
    for name in given.tables or (*tables(), *APPENDIX_B):
        if name in APPENDIX_B:
            title, part = APPENDIX_B[name]
            found = costs.appendix_b_costs(part, masks)
        else:
            title, found = table(name).title, costs.costs_of(table(name), runs, masks)
        for shown in rich_tables(costs.costs_table(f"{name}: {title}", found), console.width):
            console.print(shown)
    speed = f"{costs.TFLOPS:.0f} TFLOP/s a GPU"
    print(f"Counted, at {speed}; a training that several tables share counts in each.")
    return 0


def listed(_: argparse.Namespace) -> int:
    """Every row, and what trains it."""
    for of in tables().values():
        print(f"{of.id}: {of.title}")
        for row in of.rows:
            print(f"  {row.label}: {row.training} ({training(row.training).protocol})")
    return 0


def _out(given: argparse.Namespace) -> Path:
    trial = "-trial" if getattr(given, "steps", 0) else "-tenth" if getattr(given, "tenth", False) else ""
    return given.out or Path("runs") / f"paper-{given.scale}{trial}"


def _results(given: argparse.Namespace) -> Path:
    """Rows by another recipe are kept beside their runs, not among the recorded ones."""
    recorded = given.scale == "small" and not _is_changed(given)
    return given.results or (RESULTS / "paper" if recorded else _out(given) / "results")


def _is_changed(given: argparse.Namespace) -> bool:
    """Whether rows are by another recipe than their pipeline files have."""
    return given.tenth or bool(decisive_words(getattr(given, "overrides", ())))


def _kept(given: argparse.Namespace) -> Kept:
    return Kept(_results(given), given.heads, whole=not _is_changed(given))


ACTIONS = {"run": run, "show": show, "files": files, "cost": cost, "list": listed}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; 2 if there is something for the user to fix."""
    given = parsed(arguments)
    try:
        return ACTIONS[given.action](given)
    except DistillError as error:
        print(f"paper: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
