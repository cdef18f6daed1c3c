"""The paper's mask heads on one frozen backbone: `deepmac_distill.experiments.mask_heads` from a shell.

    python benchmarks/mask_heads.py train --pipeline FILE.toml --data FOLDER \\
        [--deepmac DEEPMAC.safetensors] [--mask-rcnn MASK_RCNN.safetensors] --out runs/mask_heads \\
        [--seeds 0 1] [--only ROW ...] [--threads N] [--force]
    python benchmarks/mask_heads.py table runs/mask_heads [--json benchmarks/results/mask_heads.json]

Rows need trained weights of the model whose mask head they are; GrabCut needs none. Rows that are done are
not done again; several processes may share the work with `--only`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.config import load_pipeline
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.devices import environment, use_threads
from deepmac_distill.errors import DistillError
from deepmac_distill.evaluation.results import from_json, to_json
from deepmac_distill.experiments.mask_head_costs import costs
from deepmac_distill.experiments.mask_head_rows import GRABCUTS, ROWS
from deepmac_distill.experiments.mask_head_table import MaskHeadFigures, compare_rows, made, table
from deepmac_distill.experiments.mask_heads import Comparison, HeadRecipe, compare_heads
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.files import write_json
from deepmac_distill.report.markdown import markdown_table

RECIPE = ("steps", "batch_size", "views", "warmup_steps")  # of `HeadRecipe`, with a flag each


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    training = commands.add_parser("train")
    training.add_argument("--pipeline", type=Path, required=True)
    training.add_argument("--data", default="")
    training.add_argument("--deepmac", type=Path)
    training.add_argument("--mask-rcnn", type=Path)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--threads", type=int)
    training.add_argument("--seeds", type=int, nargs="+", default=[0])
    every = [*ROWS, *GRABCUTS]
    training.add_argument("--only", nargs="+", choices=every, default=every)
    training.add_argument("--force", action="store_true", help="redo rows that were made otherwise")
    for field in fields(HeadRecipe):
        if field.name in RECIPE:
            flag = f"--{field.name.replace('_', '-')}"
            training.add_argument(flag, type=int, default=field.default, dest=field.name)
    showing = commands.add_parser("table")
    showing.add_argument("out", type=Path)
    showing.add_argument("--json", type=Path)
    showing.add_argument("--resamples", type=int, default=1000)
    return parser.parse_args(arguments)


def train(given: argparse.Namespace) -> None:
    """The rows that are asked for and not yet there."""
    pipeline = load_pipeline(given.pipeline, [f"data.root={json.dumps(given.data)}"] if given.data else [])
    named = {"deepmac": given.deepmac, "mask_rcnn": given.mask_rcnn}
    weights = {kind: path for kind, path in named.items() if path is not None}
    recipe = HeadRecipe(**{name: getattr(given, name) for name in RECIPE})
    use_threads(pipeline.threads if given.threads is None else given.threads)
    comparison = Comparison.of(pipeline, weights, recipe)
    compare_heads(comparison, given.only, given.seeds, given.out, Terminal(), force=given.force)


def show(given: argparse.Namespace) -> None:
    """The table of the rows that are there."""
    facts = json.loads((given.out / "evaluation.json").read_text(encoding="utf-8"))
    truth = Dataset.open(Path(facts["annotations"]), seen=tuple(facts["seen"])).for_evaluation()
    rows = compare_rows(given.out, truth, given.resamples)
    found = MaskHeadFigures(
        environment=from_json(environment(), Environment, "environment"),
        rows=rows,
        made=made(given.out),
        costs=costs(facts["base_models"], rows.keys() & ROWS.keys()),
    )
    if given.json:
        write_json(given.json, to_json(found))
    print(markdown_table(table(found)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; 2 if there is something for the user to fix."""
    given = parsed(arguments)
    try:
        (train if given.action == "train" else show)(given)
    except DistillError as error:
        print(f"mask_heads: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
