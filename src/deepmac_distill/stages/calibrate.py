"""Stage `calibration`: what masks are worth, from the classes that a hold-out hid from their teacher."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepmac_distill.calibration.applied import TRAIN
from deepmac_distill.calibration.calibration import Calibration, read_calibration, write_calibration
from deepmac_distill.calibration.fitting import calibrate as fit
from deepmac_distill.calibration.from_holdout import held_out, tried_masks
from deepmac_distill.calibration.tables import page_of
from deepmac_distill.chain import WEIGHTS
from deepmac_distill.config import flatten_model, load_pipeline
from deepmac_distill.errors import DataError, RunError
from deepmac_distill.evaluation.holdout_masks import HoldoutMasks, HoldoutRecord, HoldoutTeacher, read_holdout
from deepmac_distill.files import sha256_of_file, write_text
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.kept_holdout import FOLDER, trials_of
from deepmac_distill.stages.quality import STAGE, SUFFIX
from deepmac_distill.stages.training_inputs import deciding_keys
from deepmac_distill.weights.card import read_card

# Keys of `train` that a quick hold-out shortens: what the recipe's own are is not known from it
_SHORTENED = ("steps", "warmup_steps", "decay_steps")
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
    made_with = _made_with(run, teacher, masks.record)
    return fit(tried, held_out(masks, teacher.name, tried, made_with), SEED)


def _made_with(run: RunDir, teacher: HoldoutTeacher, record: HoldoutRecord) -> dict[str, Any]:
    """What the provenance of this teacher's label files holds: of a recipe its keys, else the model itself.

    Raises:
        DataError: the run of a fold is gone.
    """
    if not teacher.trained:
        return {"teacher": teacher.identity}
    trials = run.path / FOLDER / trials_of(len(record.folds), record.quick)
    kept = trials / f"{teacher.name}-fold-0" / "config.json"
    if not kept.is_file():
        raise DataError(f"{trials}: no trial of {teacher.name}, expected its config.json")
    recipe = load_pipeline(kept).teacher
    facts: dict[str, Any] = {"teacher_card.model": flatten_model(recipe.model), "look": asdict(recipe.look)}
    weights = kept.with_name("teacher") / WEIGHTS
    keys = (read_card(weights).train if weights.is_file() else {}) or deciding_keys(recipe)
    if record.quick:
        keys = {key: value for key, value in keys.items() if key not in _SHORTENED}
    else:
        facts["teacher_card.steps"] = recipe.train.steps
    facts |= {f"{TRAIN}.{key}": value for key, value in keys.items()}
    if record.training_sha256:
        facts["teacher_card.data_sha256"] = record.training_sha256
    return dict(json.loads(json.dumps(facts)))  # as a provenance keeps it: lists for tuples
