"""How masks fare in loose boxes, recipe by recipe: the figures of finished `deepmac evaluate --box-noise`.

    deepmac evaluate teacher --hidden --box-noise 0,5,10,20 --out RUN
    python benchmarks/box_noise.py base=RUN,RUN "box jitter=RUN,RUN" [--json FILE]

Each name stands for the runs of one recipe, of several seeds. No model is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from deepmac_distill.devices import environment
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.box_noise import BoxNoise
from deepmac_distill.files import write_json
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Table, columns, names
from deepmac_distill.stages.box_noise import read_box_noise


def levels(run: Path) -> dict[float, float]:
    """Class-mean IoU on hidden classes at each percent of noise, of a run's one evaluation in loose boxes.

    Raises:
        DataError: the run has none or several of them, or it has no hidden class.
    """
    found = sorted(run.glob("box-noise-teacher-*-hidden"))
    if len(found) != 1:
        raise DataError(f"{run}: {len(found)} evaluations of a teacher in loose boxes; expected one")
    noise: BoxNoise = read_box_noise(found[0])
    ious = {level.percent: level.given_boxes.unseen.class_mean_iou.model for level in noise.levels}
    if None in ious.values():
        raise DataError(f"{found[0]}: no hidden classes; expected some")
    return {percent: iou for percent, iou in ious.items() if iou is not None}


def page(recorded: Mapping[str, Any]) -> str:
    """Markdown: a row for each recipe, a column for each strength; means over the seeds."""
    rows = recorded["recipes"]
    percents = sorted({percent for seeds in rows.values() for found in seeds for percent in found}, key=float)
    table = Table(
        "",
        (
            *names("recipe"),
            *columns("count", ("seeds",)),
            *columns("percent", tuple(f"{float(percent):g} %" for percent in percents)),
        ),
        tuple(
            (recipe, len(seeds), *(fmean(found[percent] for found in seeds) for percent in percents))
            for recipe, seeds in rows.items()
        ),
    )
    return (
        f"{markdown_table(table)}\n\n"
        "`deepmac evaluate teacher --hidden --box-noise 0,5,10,20`, then `python benchmarks/box_noise.py`: "
        "each side of a box moves by up to so much of its width or height; mask IoU, mean over the classes "
        "that a fold hides in the training file."
    )


def main() -> None:
    """Collect, print, and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+", metavar="NAME=RUN,RUN")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    named = (recipe.partition("=") for recipe in given.recipes)
    rows = {
        name: [{f"{percent:g}": iou for percent, iou in levels(Path(run)).items()} for run in runs.split(",")]
        for name, _, runs in named
    }
    recorded = {"environment": environment(), "recipes": rows}
    print(page(recorded))
    if given.json:
        write_json(given.json, recorded)


if __name__ == "__main__":
    main()
