"""The hold-out that a run has, as later stages take it up."""

from __future__ import annotations

from deepmac_distill.errors import DataError, RunError
from deepmac_distill.evaluation.holdout_masks import HoldoutMasks, read_holdout
from deepmac_distill.evaluation.holdout_results import Holdout
from deepmac_distill.evaluation.results import read_result
from deepmac_distill.rundir import RunDir

MASKS = "masks.parquet"
FOLDER = "holdout-folds"  # of the trials, beside the stage


def trials_of(folds: int, quick: bool) -> str:
    """The folder below `FOLDER` with the trials of a hold-out of so many folds.

    >>> trials_of(2, quick=True)
    '2-quick'
    """
    return f"{folds}{'-quick' if quick else ''}"


def kept_holdout(run: RunDir) -> tuple[Holdout, HoldoutMasks]:
    """What a hold-out of a run found, checked.

    Raises:
        RunError: it is not done, or a file was changed since.
        DataError: the masks cannot be read, or the winner was not tried.
    """
    summary, masks = (run.output("holdout", name) for name in ("summary.json", MASKS))
    found, drawn = read_result(summary, Holdout), read_holdout(masks)
    if found.winner is not None and found.winner not in drawn.teachers:
        listed = ", ".join(drawn.teachers)
        raise DataError(f"{summary}: winner: got {found.winner!r}, expected one of {listed}")
    return found, drawn


def winner_of(run: RunDir) -> str:
    """The teacher that won the hold-out of a run; of several that are as good the cheapest.

    Raises:
        RunError: there is no hold-out, or no winner in it.
        DataError: it cannot be read.
    """
    where = f"{run.path}: labels.teacher = 'best'"
    if not (run.path / "holdout").is_dir():
        raise RunError(
            f"{where}: no hold-out there; expected `deepmac holdout` of this run to be done before"
        )
    found, _ = kept_holdout(run)
    if found.winner is None:
        raise RunError(
            f"{where}: no winner: every teacher saw masks of the classes that were tried; expected one that "
            "did not, or a name in labels.teacher"
        )
    return found.winner
