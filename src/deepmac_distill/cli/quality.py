"""How good masks are, and which a person should draw next: `calibrate` and `review-list`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.buckets import worked_in
from deepmac_distill.cli.options import Redo, command
from deepmac_distill.cli.results import print_table
from deepmac_distill.cli.terminal import Terminal, say

if TYPE_CHECKING:
    from deepmac_distill.stages.job import Job


@command(app)
def calibrate(
    run: Annotated[Path, typer.Argument(help="Run directory with a hold-out.")],
    redo: Redo,
) -> None:
    """Learn from a hold-out how good each mask is: expected IoU, a lower bound, the best cut."""
    with worked_in(run, "calibrate", None) as here:
        _calibrate(here or run, redo.force)


def _calibrate(run: Path, force: bool) -> None:
    from deepmac_distill.calibration.expected import thresholds_of
    from deepmac_distill.calibration.tables import cuts_table, reliability_table, thresholds_table, words_of
    from deepmac_distill.config import load_pipeline
    from deepmac_distill.labels.label_file import Labels
    from deepmac_distill.rundir import RunDir
    from deepmac_distill.stages.calibrate import calibrate as fit
    from deepmac_distill.stages.quality import KnownQuality, calibrated, quality_words

    for found in fit(RunDir(run), Terminal(), force):
        print_table(reliability_table(found.reliability))
        print_table(cuts_table(found))
        say(*words_of(found), "")
    masks = run / "pseudolabel" / "masks.parquet"
    if masks.is_file():
        kept = run / "config.json"
        labels, found_by = Labels.open(masks), load_pipeline(kept).labels if kept.is_file() else None
        by_calibration = found_by is not None and found_by.by_calibration
        labels, why_not = calibrated(labels, by_calibration=by_calibration)
        say(quality_words(labels, why_not))
        if labels.quality is not None:
            print_table(thresholds_table(thresholds_of(KnownQuality.of(labels).quality)))


def print_quality(job: Job) -> None:
    """How right the quality of a run's masks is, in ten bins; nothing where none is known."""
    from deepmac_distill.calibration.tables import reliability_table
    from deepmac_distill.stages.quality import calibrations_of

    for name, found in calibrations_of(job.run, job.pipeline.labels.calibration).items():
        table = reliability_table(found.calibration.reliability)
        print_table(replace(table, title=f"{name}: {table.title}"))


@command(app)
def review_list(
    labels: Annotated[Path, typer.Argument(metavar="RUN|LABELS", help="Run directory, or masks.parquet.")],
    budget: Annotated[int, typer.Option("--budget", help="Masks that a person has time to draw.")] = 200,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Gives masks a quality. Default: the run's.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="New COCO file.")] = Path("review.json"),
) -> None:
    """List the masks that a person should draw next: those with the lowest bound. An estimate."""
    from deepmac_distill.calibration.tables import classes_to_draw_table
    from deepmac_distill.stages.review import review_list as write_list

    done = write_list(labels, out, budget, calibration)
    found = done.review
    print_table(classes_to_draw_table(found))
    say(
        f"{done.path}: {len(found.rows)} of {found.masks} masks, those with the lowest bound, on "
        f"{done.images} images; draw them, then deepmac import-masks",
        f"expected IoU of the teacher's masks once they are drawn, an estimate: {found.before:.3f} -> "
        f"{found.after:.3f} over masks, {found.class_before:.3f} -> {found.class_after:.3f} over classes; "
        "a drawn mask counts 1",
    )
