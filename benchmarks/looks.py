"""How a teacher best looks at boxes and where its masks are best cut, on classes hidden in the training file.

    python benchmarks/recipe_choices.py --data FOLDER --out runs/choices --only base --seeds 0 1
    python benchmarks/looks.py RUN [RUN ...] [--ways WAY ...] [--json benchmarks/results/looks.json]

The runs are one recipe's, of several seeds. Each way is evaluated beside the recipe's own (`deepmac evaluate
teacher --hidden --look ... --cut ...`); what is done is not done again. No validation set is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deepmac_distill import Run
from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.devices import environment
from deepmac_distill.evaluation.results import PairedIoU, from_json, to_json
from deepmac_distill.files import write_json
from deepmac_distill.labels.cut import EVEN_CUT, Cut
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Table, columns, names
from deepmac_distill.report.tables import interval_note
from deepmac_distill.stages.compare import compare_on, truth_of
from deepmac_distill.stages.evaluate import evaluate

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Way:
    """What is asked otherwise than the recipe has it."""

    look: Mapping[str, object] = field(default_factory=dict)
    cut: Cut | None = None


WAYS = {
    "not mirrored": Way({"mirror": False}),
    "cut at 0.5": Way(cut=EVEN_CUT),
    "not mirrored, cut at 0.5": Way({"mirror": False}, EVEN_CUT),
    "whole images": Way({"boxes": "image"}),
    "by size": Way({"boxes": "by-size"}),
    "windows and whole images": Way({"boxes": "average"}),
}
OF_WINDOWS = tuple(WAYS)[:3]  # of a teacher that learned windows alone


def evaluated(run: Run, way: Way = Way()) -> Path:
    """The folder of one evaluation on hidden classes."""
    return evaluate(replace(run.job, look=way.look, asked_cut=way.cut), "teacher", hidden=True)


def measure(runs: Sequence[Run], names_of_ways: Sequence[str]) -> dict[str, PairedIoU]:
    """Each way minus the recipe's own, on hidden classes, over the runs."""
    own = [evaluated(run) for run in runs]
    truth = truth_of(own)
    return {
        name: compare_on(
            truth, [evaluated(run, WAYS[name]) for run in runs], own, RESAMPLES, 0
        ).given_boxes.unseen
        for name in names_of_ways
    }


def page(recorded: Mapping[str, Any]) -> str:
    """Markdown: a row for each recipe and way."""
    rows = []
    for recipe, found in recorded["recipes"].items():
        for way, value in found["ways"].items():
            row = from_json(value, PairedIoU, f"looks: {recipe}: {way}")
            sizes = [size.mask.a_minus_b for _, size in row.by_size.items()] if row.by_size else [None] * 3
            means = row.class_mean_iou
            rows.append((recipe, way, len(found["seeds"]), means.a, means.b, row.a_minus_b, *sizes))
    most = max((len(found["seeds"]) for found in recorded["recipes"].values()), default=1)
    table = Table(
        "",
        (
            *names("recipe", "asked otherwise"),
            *columns("count", ("seeds",)),
            *columns("percent", ("IoU", "as the recipe has it")),
            *columns("points", ("difference", "small", "medium", "large")),
        ),
        tuple(rows),
    )
    return (
        f"{markdown_table(table)}\n\n"
        "`python benchmarks/looks.py RUN ...`: masks in given boxes of the classes that a fold hides in the "
        f"training file, means over classes; brackets are {interval_note(range(most))}."
    )


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--recipe", default="base", help="what the runs are called in the table")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(OF_WINDOWS))
    parser.add_argument("--json", type=Path, help="keep the figures here, beside those that are there")
    given = parser.parse_args()
    runs = [Run(at, progress=Terminal()) for at in given.runs]
    found = {
        "seeds": [run.job.pipeline.seed for run in runs],
        "ways": to_json(measure(runs, given.ways)),
    }
    kept = json.loads(given.json.read_text(encoding="utf-8")) if given.json and given.json.exists() else {}
    kept = {"environment": environment(), "recipes": {**kept.get("recipes", {}), given.recipe: found}}
    print(page(kept))
    if given.json:
        write_json(given.json, kept)


if __name__ == "__main__":
    main()
