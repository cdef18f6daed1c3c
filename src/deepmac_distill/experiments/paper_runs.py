"""What is kept of a run of the paper's experiments: a small file a training and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepmac_distill.config import flatten, load_pipeline
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.box_noise import BoxNoise
from deepmac_distill.evaluation.mean_result import mean_result
from deepmac_distill.evaluation.results import Evaluation, Interval, read_result
from deepmac_distill.experiments.mask_head_figures import figures_of
from deepmac_distill.experiments.mask_head_results import Ious, read_results, rounded, write_result
from deepmac_distill.experiments.paper_tables import LOOSE_PERCENT, Measure, PaperRow, PaperTable
from deepmac_distill.experiments.paper_trainings import Scale, same_run
from deepmac_distill.experiments.run_record import RunRecord, record_of
from deepmac_distill.stages.compare import read_ious, read_record

INSTANCES = "instances.json"
DECIDES = ("teacher.", "labels.cut", "data.seen", "evaluation.splits")  # of the keys, for two seeds of a row


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRun:
    """One training with one seed."""

    training: str
    scale: Scale
    truth: str  # fingerprint of annotations and seen classes
    keys: Mapping[str, Any]  # what decides the figures, but data and seed
    record: RunRecord
    loose: BoxNoise | None = None
    iou: Ious = ()  # an instance of `KeptInstances`, in given boxes
    loose_iou: Ious = ()  # the same in loose boxes


@dataclass(frozen=True, slots=True)
class KeptInstances:
    """The instances that every run of a folder was evaluated on, in the order of the truth's rows."""

    image_id: tuple[int, ...]
    category_id: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Ours of one row: figures by split, each over seeds."""

    seeds: tuple[int, ...]
    figures: Mapping[str, Interval]  # fractions
    per_class: Mapping[str, float | None]  # class -> figure, mean over seeds
    box: float | None = None  # AP of boxes, all classes
    minutes: float | None = None  # of training and evaluation, mean over seeds


def kept_file(results: Path, training: str, seed: int) -> Path:
    """Where a run is kept."""
    return results / f"{training}-seed-{seed}.json"


def keep(run: Path, results: Path, training: str, scale: Scale, seed: int, command: str) -> Path:
    """Write the small file of a run that has ended.

    Raises:
        RunError: the run lacks an evaluation, the row was made by another recipe with another seed, or the
            folder's rows are of other instances.
    """
    record = record_of(run, command)
    for behind in sorted(run.glob("evaluate-teacher-behind-*/summary.json")):
        record = replace(record, teacher=read_result(behind, Evaluation))
    if record.teacher is None:
        raise RunError(f"{run}: no evaluation of the teacher; expected one to keep")
    flat = json.loads(json.dumps(flatten(load_pipeline(run / "config.json"))))
    keys = {
        key: value for key, value in flat.items() if key.startswith(DECIDES) and not key.endswith("init_from")
    }
    evaluated, noise = run / "evaluate-teacher", run / f"box-noise-teacher-{LOOSE_PERCENT}"
    ious, is_loose = read_ious(evaluated).sort_by("row"), (noise / "summary.json").exists()
    found = PaperRun(
        training=training,
        scale=scale,
        truth=read_record(evaluated).annotations_sha256,
        keys=keys,
        record=replace(record, run=f"runs/{training}/seed-{seed}"),
        loose=read_result(noise / "summary.json", BoxNoise) if is_loose else None,
        iou=rounded(ious["iou"]),
        loose_iou=rounded(read_ious(noise).sort_by("row")["iou"]) if is_loose else (),
    )
    for other in _kept(results, training):
        _require_same_row(kept_file(results, training, seed), found, other)
    instances = KeptInstances(*(tuple(ious[name].to_pylist()) for name in ("image_id", "category_id")))
    _keep_instances(results / INSTANCES, instances)
    write_result(kept_file(results, training, seed), found)
    return kept_file(results, training, seed)


def _keep_instances(path: Path, instances: KeptInstances) -> None:
    if path.exists() and read_result(path, KeptInstances) != instances:
        raise RunError(f"{path}: other instances than those of this run; expected one set for every row")
    write_result(path, instances)


def found_of(of: PaperTable, row: PaperRow, scale: Scale, results: Path, heads: Path) -> Found | None:
    """Ours of a row; None where it has not been run.

    Args:
        results: folder of the small files of this scale.
        heads: folder of the recorded comparison of mask heads.
    """
    if scale == "small" and row.recorded:
        return _recorded(row, heads)
    kept = _kept(results, same_run(row.training, scale))
    return _over_seeds(kept, of.measure(scale)) if kept else None


def _kept(results: Path, training: str) -> list[PaperRun]:
    paths = sorted(results.glob(f"{training}-seed-*.json"))
    runs = [read_result(path, PaperRun) for path in paths]
    return sorted((run for run in runs if run.training == training), key=lambda run: run.record.seed)


def _require_same_row(path: Path, one: PaperRun, other: PaperRun) -> None:
    same = one.record.seed == other.record.seed
    for key in () if same else sorted(one.keys.keys() & other.keys.keys()):
        if one.keys[key] != other.keys[key]:
            raise RunError(
                f"{path}: made with {key} = {one.keys[key]!r}, seed {other.record.seed} with "
                f"{other.keys[key]!r}; expected one recipe for all seeds of a row"
            )
    if not same and one.truth != other.truth:
        raise RunError(f"{path}: evaluated on other data than seed {other.record.seed}; expected the same")


def _over_seeds(runs: Sequence[PaperRun], measure: Measure) -> Found:
    evaluations = [run.record.teacher for run in runs if run.record.teacher is not None]
    whole: Evaluation = mean_result(evaluations) if len(evaluations) > 1 else evaluations[0]
    seconds = [sum(run.record.seconds.values()) / 60 for run in runs]
    boxes = whole.detected.bbox
    classes = {row.name: row.segm_AP if measure == "AP" else row.model for row in whole.per_class}
    return Found(
        seeds=tuple(run.record.seed for run in runs),
        figures=_figures(whole, runs, measure),
        per_class=classes,
        box=None if boxes is None else boxes.all.AP,
        minutes=sum(seconds) / len(seconds),
    )


def _figures(whole: Evaluation, runs: Sequence[PaperRun], measure: Measure) -> dict[str, Interval]:
    if measure == "AP":
        found = whole.detected.segm
        return {} if found is None else {name: Interval(one.AP) for name, one in found.items()}
    if measure == "IoU":
        return {name: one.model for name, one in whole.given_boxes.items()}
    loose = [run.loose.levels[0] for run in runs if run.loose is not None]
    if len(loose) < len(runs):
        return {}
    level = mean_result(loose) if len(loose) > 1 else loose[0]
    return {name: one.model for name, one in level.given_boxes.items()}


def _recorded(row: PaperRow, heads: Path) -> Found | None:
    """A row of the comparison of mask heads, from what it keeps."""
    if not any(heads.glob(f"{row.recorded}-seed-*.json")):
        return None
    results = read_results(heads)
    if row.swapped:
        seen = tuple(not one for one in results.instances.seen)
        results = replace(results, instances=replace(results.instances, seen=seen))
    runs = [run for run in results.runs if run.row == row.recorded]
    found = figures_of(replace(results, runs=tuple(runs))).rows[row.recorded]
    kept = results.instances
    ious, category = np.mean([run.iou for run in runs], axis=0), np.array(kept.category_id)
    per_class = {
        name: float(ious[category == id].mean()) if (category == id).any() else None
        for name, id in zip(kept.class_names, kept.category_ids, strict=True)
    }
    return Found(
        seeds=found.seeds,
        figures={"seen": found.iou.seen, "unseen": found.iou.unseen},
        per_class=per_class,
        minutes=sum(sum(run.seconds.values()) for run in runs) / 60 / len(runs),
    )
