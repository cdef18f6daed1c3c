"""Several runs of one recipe that differ in their seed alone: their means, with training noise.

Each seed is a complete run of its own; what is written here follows from them and is written anew each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deepmac_distill.chain import ARMS, seed_runs
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.over_seeds import comparison_over_seeds, evaluations_over_seeds, mean_table
from deepmac_distill.evaluation.results import Comparison, Report, read_result, to_json
from deepmac_distill.evaluation.retention import retention_in_given_boxes, retention_over_seeds
from deepmac_distill.evaluation.retention_results import Retention
from deepmac_distill.evaluation.seed_results import SeedsReport
from deepmac_distill.files import write_json
from deepmac_distill.stages.compare import compare_on, read_ious, require_one_way, seen_elsewhere, truth_of
from deepmac_distill.stages.evaluate import ROLES, read_evaluation


def report_seeds(out: Path, runs: Mapping[int, Path], resamples: int, seed: int) -> SeedsReport:
    """Teacher and student over seeds: ``report/summary.json`` in `out`.

    Args:
        runs: by seed, each with its report.
        seed: of the resampled images.

    Raises:
        RunError: a run lacks its report.
        DataError: they were evaluated on other instances.
    """
    folders = {role: {key: run / f"evaluate-{role}" for key, run in runs.items()} for role in ROLES}
    everywhere = [folder for by_seed in folders.values() for folder in by_seed.values()]
    for by_seed in folders.values():
        require_one_way(list(by_seed.values()))
    truth, elsewhere = truth_of(everywhere), seen_elsewhere(everywhere)
    ious = {role: {key: read_ious(at) for key, at in by_seed.items()} for role, by_seed in folders.items()}
    each = {
        role: {key: read_evaluation(at) for key, at in by_seed.items()} for role, by_seed in folders.items()
    }
    reports = {key: read_result(run / "report" / "summary.json", Report) for key, run in runs.items()}
    teacher, student = evaluations_over_seeds(
        [ious[role] for role in ROLES],
        [each[role] for role in ROLES],
        truth.classes,
        resamples,
        seed,
        shown_elsewhere=elsewhere,
    )
    difference = comparison_over_seeds(
        ious["student"],
        ious["teacher"],
        {key: report.student_minus_teacher for key, report in reports.items()},
        truth.classes,
        resamples,
        seed,
        shown_elsewhere=elsewhere,
    )
    found = SeedsReport(
        seeds=tuple(runs),
        report=Report(teacher, student, difference, truth.counts),
        class_mean_iou={
            role: {
                str(key): one.given_boxes.map(lambda row: row.class_mean_iou.model)
                for key, one in by_seed.items()
            }
            for role, by_seed in each.items()
        },
    )
    write_json(out / "report" / "summary.json", to_json(found))
    return found


def retention_of_seeds(out: Path, runs: Mapping[int, Path], resamples: int, seed: int) -> Retention:
    """Retention over seeds: ``retention/summary.json`` in `out`.

    Args:
        runs: by seed, each with its retention.
        seed: of the resampled images.

    Raises:
        RunError: a run lacks its retention.
        DataError: they were evaluated on other instances.
    """
    folders = {
        arm: {key: run / f"evaluate-{stage}" for key, run in runs.items()} for arm, stage in ARMS.items()
    }
    everywhere = [folder for by_seed in folders.values() for folder in by_seed.values()]
    require_one_way(everywhere)  # arms too: they are one student, but for what it learned from
    truth = truth_of(everywhere)
    means = {
        arm: mean_table([read_ious(folder) for folder in by_seed.values()])
        for arm, by_seed in folders.items()
    }
    found = retention_over_seeds(
        {key: read_result(run / "retention" / "summary.json", Retention) for key, run in runs.items()},
        retention_in_given_boxes(means, truth.classes, resamples, seed),
    )
    write_json(out / "retention" / "summary.json", to_json(found))
    return found


def evaluations_of_seeds(folder: Path) -> dict[int, Path]:
    """The evaluations by seed that a path such as RUNS/evaluate-student stands for; empty for one that is.

    >>> evaluations_of_seeds(Path("no/such/evaluate-student"))
    {}
    """
    if folder.exists():
        return {}
    runs = seed_runs(folder.parent)
    return {seed: run / folder.name for seed, run in runs.items() if (run / folder.name).exists()}


def compare_seeds(a: Mapping[int, Path], b: Mapping[int, Path], resamples: int, seed: int) -> Comparison:
    """Paired differences, a minus b, of two recipes: first of each seed, then their mean.

    Args:
        a, b: evaluation folders by seed; seeds of one alone are left out.

    Raises:
        RunError: they have no seed in common.
        DataError: they were evaluated on other instances, or the set has changed since.
    """
    common = [key for key in a if key in b]
    if not common:
        one, other = (", ".join(map(str, keys)) or "none" for keys in (a, b))
        raise RunError(f"compare: seeds {one} and {other}; expected a seed that both have")
    everywhere = [folders[key] for folders in (a, b) for key in common]
    for folders in (a, b):
        require_one_way([folders[key] for key in common])
    truth, elsewhere = truth_of(everywhere), seen_elsewhere(everywhere)
    return comparison_over_seeds(
        {key: read_ious(a[key]) for key in common},
        {key: read_ious(b[key]) for key in common},
        {key: compare_on(truth, a[key], b[key], resamples, seed) for key in common},
        truth.classes,
        resamples,
        seed,
        shown_elsewhere=elsewhere,
    )
