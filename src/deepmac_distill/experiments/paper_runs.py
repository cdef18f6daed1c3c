"""What is kept of a run of the paper's experiments: a small file a training and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepmac_distill.config import Pipeline, flatten, load_pipeline
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.box_noise import BoxNoise
from deepmac_distill.evaluation.results import Evaluation, read_result
from deepmac_distill.experiments.mask_head_results import Ious, rounded, write_result
from deepmac_distill.experiments.paper_tables import LOOSE_PERCENT
from deepmac_distill.experiments.paper_trainings import Scale
from deepmac_distill.experiments.paper_trainings import training as trained_as
from deepmac_distill.experiments.run_record import RunRecord, record_of
from deepmac_distill.files import sha256_of_file
from deepmac_distill.stages.compare import read_ious, read_record
from deepmac_distill.storage.fetching import fetched

INSTANCES = "instances.json"
START = "teacher.train.init_from"  # a digest, of weights that the user named
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
    pipeline = load_pipeline(run / "config.json")
    start = pipeline.teacher.train.init_from if trained_as(training).start else ""
    keys = decisive(pipeline, start)
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
    for other in kept_runs(results, training):
        _require_same_row(kept_file(results, training, seed), found, other)
    instances = KeptInstances(*(tuple(ious[name].to_pylist()) for name in ("image_id", "category_id")))
    _keep_instances(results / INSTANCES, instances)
    write_result(kept_file(results, training, seed), found)
    return kept_file(results, training, seed)


def decisive(pipeline: Pipeline, start: str = "") -> dict[str, Any]:
    """The keys of a pipeline that decide the figures of a row, but data, seed and weights of other runs.

    Args:
        start: weights that the user names for rows that start from some; their digest decides.
    """
    flat = json.loads(json.dumps(flatten(pipeline)))
    keys = {
        key: value for key, value in flat.items() if key.startswith(DECIDES) and not key.endswith("init_from")
    }
    return keys | ({START: sha256_of_file(fetched(start))} if start else {})


def decisive_words(overrides: Sequence[str]) -> list[str]:
    """Those of KEY=VALUE whose key decides the figures of a row.

    >>> decisive_words(["threads=1", "teacher.train.lr=1"])
    ['teacher.train.lr=1']
    """
    return [word for word in overrides if word.startswith(DECIDES)]


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys that both have with other values, and these; a later version has more keys."""
    both = sorted(one.keys() & other.keys())
    return [(key, one[key], other[key]) for key in both if one[key] != other[key]]


def _keep_instances(path: Path, instances: KeptInstances) -> None:
    if path.exists() and read_result(path, KeptInstances) != instances:
        raise RunError(f"{path}: other instances than those of this run; expected one set for every row")
    write_result(path, instances)


def kept_runs(results: Path, training: str) -> list[PaperRun]:
    """What is kept of a training, by seed."""
    paths = sorted(results.glob(f"{training}-seed-*.json"))
    runs = [read_result(path, PaperRun) for path in paths]
    return sorted((run for run in runs if run.training == training), key=lambda run: run.record.seed)


def any_kept(results: Path) -> list[str]:
    """The training of one file, since all of a folder are of one data set; nothing of an empty folder."""
    return [read_result(path, PaperRun).training for path in sorted(results.glob("*-seed-*.json"))[:1]]


def _require_same_row(path: Path, one: PaperRun, other: PaperRun) -> None:
    same = one.record.seed == other.record.seed
    for key, ours, theirs in () if same else different(one.keys, other.keys):
        raise RunError(
            f"{path}: made with {key} = {ours!r}, seed {other.record.seed} with {theirs!r}; "
            "expected one recipe for all seeds of a row"
        )
    if not same and one.truth != other.truth:
        raise RunError(f"{path}: evaluated on other data than seed {other.record.seed}; expected the same")
