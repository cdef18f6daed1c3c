"""Stage `calibration`: what masks are worth, from the classes that a hold-out hid from their teacher."""

from __future__ import annotations

import glob
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepmac_distill.calibration.calibration import Calibration, read_calibration, write_calibration
from deepmac_distill.calibration.fitting import calibrate as fit
from deepmac_distill.calibration.from_holdout import held_out, tried_masks
from deepmac_distill.calibration.tables import page_of
from deepmac_distill.config import flatten_model, load_pipeline
from deepmac_distill.errors import DataError, RunError
from deepmac_distill.evaluation.holdout_masks import HoldoutMasks, HoldoutTeacher, read_holdout
from deepmac_distill.files import sha256_of_file, write_text
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.quality import STAGE, SUFFIX

TRIALS = "holdout-folds"  # runs of the folds, below the run
SEED = 0  # of resampled classes and images


def calibrate(run: RunDir, progress: Progress | None = None, force: bool = False) -> tuple[Calibration, ...]:
    """A file and a page for each teacher of a run's hold-out: ``calibration/NAME.calibration.json``.

    A teacher with too few masks of hidden classes is left out with a note. `force` makes the files anew, also
    where one was changed.

    Raises:
        RunError: the run has no hold-out.
        DataError: it cannot be read, or no teacher has enough masks.
    """
    progress = progress or Silent()
    path = run.path / "holdout" / "masks.parquet"
    if not path.is_file():
        raise RunError(f"{run.path}: no holdout/masks.parquet; expected `deepmac holdout` to be done before")
    masks = read_holdout(path)

    def work(folder: Path) -> None:
        refused = []
        for teacher in masks.record.teachers:
            try:
                found = _of_teacher(run, masks, teacher)
            except DataError as error:
                refused.append(f"{teacher.name}: {error}")
                continue
            write_calibration(folder / f"{teacher.name}{SUFFIX}", found)
            write_text(folder / f"{teacher.name}.md", page_of(found))
        if len(refused) == len(masks.record.teachers):
            raise DataError(f"{path}: no teacher can be calibrated: {'; '.join(refused)}")
        for reason in refused:
            progress.note(f"not calibrated: {reason}")

    inputs = {"holdout": sha256_of_file(path)}
    folder = run.run_stage(STAGE, inputs, work, progress, force, derived=True)
    found = (folder / f"{teacher.name}{SUFFIX}" for teacher in masks.record.teachers)
    return tuple(read_calibration(one) for one in found if one.is_file())


def _of_teacher(run: RunDir, masks: HoldoutMasks, teacher: HoldoutTeacher) -> Calibration:
    tried = tried_masks(masks, teacher.name)
    made_with = _made_with(run, teacher, masks.record.quick)
    return fit(tried, held_out(masks, teacher.name, tried, made_with), SEED)


def _made_with(run: RunDir, teacher: HoldoutTeacher, quick: bool) -> dict[str, Any]:
    """What the provenance of this teacher's label files holds: of a recipe its keys, else the model itself.

    Raises:
        DataError: the run of a fold is gone.
    """
    if not teacher.trained:
        return {"teacher": teacher.identity}
    kept = sorted((run.path / TRIALS).glob(f"*/{glob.escape(teacher.name)}-fold-0/config.json"))
    if not kept:
        raise DataError(f"{run.path / TRIALS}: no trial of {teacher.name}, expected its config.json")
    recipe = load_pipeline(kept[0]).teacher
    facts: dict[str, Any] = {"teacher_card.model": flatten_model(recipe.model), "look": asdict(recipe.look)}
    if not quick:
        facts["teacher_card.steps"] = recipe.train.steps
    return dict(json.loads(json.dumps(facts)))  # as a provenance keeps it: lists for tuples
