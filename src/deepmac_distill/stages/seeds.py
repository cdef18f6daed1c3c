"""Several runs of one recipe that differ in their seed alone: their means, with training noise.

Each seed is a complete run of its own; what is written here follows from them and is written anew each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from deepmac_distill.chain import ARMS, Role
from deepmac_distill.evaluation.mean_result import mean_result
from deepmac_distill.evaluation.results import Evaluation, Report, read_result, to_json
from deepmac_distill.evaluation.retention_results import Retention
from deepmac_distill.evaluation.seed_results import SeedsReport
from deepmac_distill.evaluation.summary import summarize_given_boxes
from deepmac_distill.files import write_json
from deepmac_distill.links import inner
from deepmac_distill.progress import Progress
from deepmac_distill.stages.compare import (
    compare_on,
    read_ious,
    require_one_way,
    seen_elsewhere,
    splits_of,
    truth_of,
)
from deepmac_distill.stages.evaluate import ROLES, read_evaluation
from deepmac_distill.stages.retention import retained


def report_seeds(
    out: Path, runs: Mapping[int, Path], resamples: int, seed: int, progress: Progress | None = None
) -> SeedsReport:
    """Teacher and student over seeds: ``report/summary.json`` in `out`.

    Args:
        runs: by seed, each with its evaluations.
        seed: of the resampled images.

    Raises:
        RunError: a run lacks an evaluation.
        DataError: they were evaluated on other instances.
    """
    folders = {role: [run / f"evaluate-{role}" for run in runs.values()] for role in ROLES}
    everywhere = [folder for of_seeds in folders.values() for folder in of_seeds]
    truth, elsewhere, named = truth_of(everywhere), seen_elsewhere(everywhere), splits_of(everywhere)
    each = {role: [read_evaluation(folder) for folder in of_seeds] for role, of_seeds in folders.items()}

    def mean(role: Role) -> Evaluation:
        ious = [read_ious(folder) for folder in folders[role]]
        given_boxes = summarize_given_boxes(
            ious, truth.classes, resamples, seed, shown_elsewhere=elsewhere, named=named
        )
        return replace(mean_result(each[role]), given_boxes=given_boxes)

    difference = compare_on(truth, folders["student"], folders["teacher"], resamples, seed, progress)
    found = SeedsReport(
        seeds=tuple(runs),
        report=Report(mean("teacher"), mean("student"), replace(difference, seeds=tuple(runs)), truth.counts),
        class_mean_iou={
            role: {
                str(key): one.given_boxes.map(lambda row: row.class_mean_iou.model)
                for key, one in zip(runs, of_seeds, strict=True)
            }
            for role, of_seeds in each.items()
        },
    )
    write_json(inner(out, "report", "summary.json"), to_json(found))
    return found


def retention_of_seeds(
    out: Path, runs: Mapping[int, Path], resamples: int, seed: int, progress: Progress | None = None
) -> Retention:
    """Retention over seeds: ``retention/summary.json`` in `out`.

    Args:
        runs: by seed, each with its retention.
        seed: of the resampled images.

    Raises:
        RunError: a run lacks its retention.
        DataError: they were evaluated on other instances.
    """
    folders = {arm: [run / f"evaluate-{stage}" for run in runs.values()] for arm, stage in ARMS.items()}
    everywhere = [folder for of_seeds in folders.values() for folder in of_seeds]
    require_one_way(everywhere)  # arms too: they are one student, but for what it learned from
    truth = truth_of(everywhere)
    first = read_result(next(iter(runs.values())) / "retention" / "summary.json", Retention)
    found = replace(first, seeds=tuple(runs), **retained(truth, folders, resamples, seed, progress))
    write_json(inner(out, "retention", "summary.json"), to_json(found))
    return found
