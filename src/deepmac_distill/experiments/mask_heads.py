"""The paper's mask heads, each in a model that is trained whole: which carries over to classes without masks?

Each (row, seed) is a run of the ordinary chain, `teach` and `evaluate teacher`, by one recipe in which the
row's mask head takes the place of the recipe's. All seeds learn and are evaluated on the same data. When a
run ends, what the table needs of it is kept as a small file (see `mask_head_results`); rows whose file is
there are not trained again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmac_distill.config import Pipeline, flatten, load_pipeline
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import ConfigError, RunError
from deepmac_distill.evaluation.results import read_result
from deepmac_distill.experiments.mask_head_results import (
    INSTANCES,
    HeadRun,
    Instances,
    refuse_other_recipe,
    rounded,
    run_name,
    write_result,
)
from deepmac_distill.experiments.mask_head_rows import GRABCUTS, ROWS, values_of
from deepmac_distill.experiments.run_record import Environment, seconds_of
from deepmac_distill.progress import Progress
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.compare import read_ious
from deepmac_distill.stages.evaluate import evaluate
from deepmac_distill.stages.evaluated_set import hidden_set, validation_set
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.train import teach

DECIDES = ("teacher.", "labels.cut", "data.seen", "data.hide", "data.exif")  # of the pipeline's keys
DECIDES_UNTRAINED = ("teacher.segmenter", "teacher.arguments", "teacher.look.", *DECIDES[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Which recipe the rows are trained by, on what, and where they are kept."""

    recipe: Path
    out: Path  # runs: ROW/seed-N
    results: Path  # folder of the small files
    data: str = ""  # folder, in place of the recipe's `data.root`
    overrides: Sequence[str] = ()  # KEY=VALUE
    hidden: bool = False  # evaluate on the classes that data.hide hides, in the training file

    def pipeline(self, row: str, seed: int = 0) -> Pipeline:
        """Of a row; `seed` is counted from the recipe's."""
        values = {**values_of(row), **({"data.root": self.data} if self.data else {})}
        pipeline = load_pipeline(self.recipe, self.overrides, values)
        return load_pipeline(self.recipe, [*self.overrides, f"seed={pipeline.seed + seed}"], values)


def compare_heads(
    comparison: Comparison, rows: Sequence[str], seeds: int, progress: Progress, force: bool = False
) -> None:
    """Train and evaluate each row that is named and not yet there, the first seed of all rows first.

    Args:
        force: again, whatever is there.

    Raises:
        ConfigError: there is no such row, a key is refused, or there is no validation set.
        RunError: a row was made by another recipe or on other data, or another process works on it.
    """
    for row in rows:
        if row not in ROWS:
            raise ConfigError(f"row: got {row!r}, expected one of {', '.join(ROWS)}")
    for seed in range(seeds):
        for row in rows:
            if row in GRABCUTS and seed:
                continue
            pipeline = comparison.pipeline(row, seed)
            path = comparison.results / run_name(row, pipeline.seed)
            if path.exists() and not force:
                made = read_result(path, HeadRun).recipe
                refuse_other_recipe(path, made, _recipe(pipeline, row))
                progress.note(f"{path}: done before, skipped")
                continue
            write_result(path, _run(comparison, pipeline, row, progress, force))
            progress.note(f"{path}: written")


def _run(comparison: Comparison, pipeline: Pipeline, row: str, progress: Progress, force: bool) -> HeadRun:
    """A run of the chain as far as the teacher's evaluation."""
    progress.note(f"{row}, seed {pipeline.seed}")
    run = RunDir(comparison.out / row / f"seed-{pipeline.seed}")
    job = Job(pipeline=pipeline, source=None, run=run, progress=progress, force=force)
    truth = (hidden_set if comparison.hidden else validation_set)(job).truth
    _require_same_truth(comparison.results, truth)
    teach(job)
    folder = evaluate(job, "teacher", hidden=comparison.hidden)
    ious = read_ious(folder).sort_by("row")
    write_result(comparison.results / INSTANCES, Instances.of(ious, truth.classes, truth.fingerprint))
    stages = [stage for stage in ("teacher", folder.name) if (run.path / stage).exists()]
    return HeadRun(
        row=row,
        seed=pipeline.seed,
        recipe=_recipe(pipeline, row),
        environment=read_result(run.path / "environment.json", Environment),
        truth=truth.fingerprint,
        seconds={stage: seconds_of(run.path / stage) for stage in stages},
        training_loss=_training_loss(run.path / "teacher" / "metrics.jsonl"),
        iou=rounded(ious["iou"]),
        boundary_iou=rounded(ious["boundary_iou"]),
    )


def _recipe(pipeline: Pipeline, row: str) -> dict[str, Any]:
    """What decides a row's figures, but for data and seed."""
    decides = DECIDES_UNTRAINED if row in GRABCUTS else DECIDES
    kept = {key: value for key, value in flatten(pipeline).items() if key.startswith(decides)}
    found: dict[str, Any] = json.loads(json.dumps(kept))  # as it will be read back
    return found


def _require_same_truth(results: Path, truth: Truth) -> None:
    path = results / INSTANCES
    if path.exists() and read_result(path, Instances).truth != truth.fingerprint:
        raise RunError(
            f"{truth.path}: other annotations or seen classes than those of {path}; expected the same for "
            "all rows and seeds"
        )


def _training_loss(log: Path) -> float | None:
    """Of the masks, the mean over the last quarter of the log; None of a row that does not learn."""
    if not log.exists():
        return None
    losses: list[float] = [json.loads(line)["mask"] for line in log.read_text(encoding="utf-8").splitlines()]
    return statistics.mean(losses[-max(len(losses) // 4, 1) :])
