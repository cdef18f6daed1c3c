"""Ours of the rows of the paper's tables, read back from the small files and the recorded mask heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deepmac_distill.dataset.classes import VOC_NAMES, Classes
from deepmac_distill.evaluation.mean_result import mean_result
from deepmac_distill.evaluation.results import Evaluation, Interval, SplitIoU, read_result
from deepmac_distill.evaluation.seed_noise import seeds_alone
from deepmac_distill.experiments.mask_head_figures import HeadFigures, figures_of
from deepmac_distill.experiments.mask_head_results import Ious, Results, read_results
from deepmac_distill.experiments.paper_runs import (
    INSTANCES,
    KeptInstances,
    PaperRun,
    decisive,
    different,
    kept_runs,
)
from deepmac_distill.experiments.paper_tables import Measure, PaperRow, PaperTable
from deepmac_distill.experiments.paper_trainings import Scale, pipeline_of, same_run
from deepmac_distill.experiments.run_record import Environment

OUTSIDE_VOC = "non-voc"  # a split that rows name beside `unseen`
SEEN_UNSEEN = ("seen", "unseen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Ours of one row: figures by split, each over seeds."""

    seeds: tuple[int, ...]
    figures: Mapping[str, Interval]  # fractions
    over_ellipse: Mapping[str, Interval]  # IoU minus that of an ellipse that fills the box; empty of an AP
    per_class: Mapping[str, float | None]  # class -> figure, mean over seeds
    box: float | None = None  # AP of boxes, all classes
    minutes: float | None = None  # of training and evaluation, mean over seeds
    machines: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # with version -> seeds there


@dataclass(frozen=True, slots=True)
class Scores:
    """An IoU an instance of each seed of a row."""

    instances: KeptInstances
    by_seed: Mapping[int, Ious]
    classes: Classes  # seen: those whose masks the row was shown
    about: tuple[str, ...]  # the classes that the row is about
    learns: bool = True  # what does not has the same masks with every seed


@dataclass(frozen=True, slots=True)
class Aps:
    """The AP of each seed of a row, by split."""

    by_seed: Mapping[int, Mapping[str, float | None]]
    split: str  # that the row is about
    classes: Classes
    about: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """The folders that hold rows, each file read once."""

    results: Path  # small files of a scale
    heads: Path  # the recorded comparison of mask heads
    whole: bool = True  # rows by their pipeline files; recorded ones do not stand beside others

    @cached_property
    def recorded(self) -> Results | None:
        """The comparison of mask heads; None where there is none or the small files are of other data."""
        found = read_results(self.heads) if any(self.heads.glob("*-seed-*.json")) else None
        if found is None or not (self.results / INSTANCES).exists():
            return found
        theirs = KeptInstances(found.instances.image_id, found.instances.category_id)
        return found if theirs == self.instances else None

    @cached_property
    def head_figures(self) -> HeadFigures | None:
        """Its figures."""
        return None if self.recorded is None else figures_of(self.recorded)

    @cached_property
    def instances(self) -> KeptInstances:
        """Those of the small files.

        Raises:
            RunError: they are missing or broken.
        """
        return read_result(self.results / INSTANCES, KeptInstances)

    def is_recorded(self, row: PaperRow, scale: Scale) -> bool:
        """Whether a row is taken over from the comparison of mask heads: none was trained in its place."""
        if scale != "small" or not self.whole or self.recorded is None or not row.recorded:
            return False
        return not kept_runs(self.results, same_run(row.training, scale))

    def found_of(self, of: PaperTable, row: PaperRow, scale: Scale) -> Found | None:
        """Ours of a row; None where it has not been run."""
        if self.is_recorded(row, scale):
            return self._recorded(row)
        runs = kept_runs(self.results, same_run(row.training, scale))
        return _over_seeds(runs, of.measure(scale)) if runs else None

    def scores_of(self, of: PaperTable, row: PaperRow, scale: Scale) -> Scores | None:
        """An IoU an instance of a row; None where it was not run or where AP is measured."""
        if self.is_recorded(row, scale):
            return self._recorded_scores(row)
        measure, runs = of.measure(scale), kept_runs(self.results, same_run(row.training, scale))
        loose = measure == "IoU in loose boxes"
        by_seed = {run.record.seed: run.loose_iou if loose else run.iou for run in runs}
        if measure == "AP" or not by_seed or not all(by_seed.values()) or runs[0].record.teacher is None:
            return None
        classes = classes_of(runs[0].record.teacher)
        return Scores(self.instances, by_seed, classes, _about(row, classes), _learns(row, scale))

    def aps_of(self, of: PaperTable, row: PaperRow, scale: Scale) -> Aps | None:
        """The AP of each seed of a row; None where it was not run or where IoU is measured."""
        runs = kept_runs(self.results, same_run(row.training, scale))
        if of.measure(scale) != "AP" or not runs or runs[0].record.teacher is None:
            return None
        classes = classes_of(runs[0].record.teacher)
        split = row.split if row.split == OUTSIDE_VOC or classes.unseen_names else "all"
        by_seed = {run.record.seed: _aps(run) for run in runs}
        return Aps(by_seed, split, classes, _about(row, classes))

    def changed(self, row: PaperRow, scale: Scale) -> str:
        """In words: the keys in which a row's runs differ from its pipeline file; empty where they do not."""
        expected = decisive(pipeline_of(row.training, scale))
        words = {
            f"{key} = {theirs!r} in place of {ours!r}": None
            for made_with in self._keys_of(row, scale)
            for key, theirs, ours in different(made_with, expected)
            if not (row.swapped and key == "data.seen")
        }
        more = f" and {len(words) - 3} more keys" if len(words) > 3 else ""
        return f"{row.label}: {', '.join(list(words)[:3])}{more}" if words else ""

    def _keys_of(self, row: PaperRow, scale: Scale) -> list[Mapping[str, Any]]:
        """What decided the figures of each run of a row."""
        if self.is_recorded(row, scale):
            recorded = self.recorded.runs if self.recorded else ()
            return [run.recipe for run in recorded if run.row == row.recorded]
        return [run.keys for run in kept_runs(self.results, same_run(row.training, scale))]

    def _recorded(self, row: PaperRow) -> Found | None:
        results, figures = self.recorded, self.head_figures
        runs = [] if results is None else [run for run in results.runs if run.row == row.recorded]
        if results is None or figures is None or not runs:
            return None
        one, kept = figures.rows[row.recorded], results.instances
        split, leads = ((one.seen, one.unseen) for one in (one.iou, one.minus_ellipse))
        if row.swapped:
            split, leads = split[::-1], leads[::-1]
        ious, category = np.mean([run.iou for run in runs], axis=0), np.array(kept.category_id)
        per_class = {
            name: float(ious[category == id].mean()) if (category == id).any() else None
            for name, id in zip(kept.class_names, kept.category_ids, strict=True)
        }
        return Found(
            seeds=one.seeds,
            figures={**dict(zip(SEEN_UNSEEN, split, strict=True)), "all": _mean_of(per_class)},
            over_ellipse=dict(zip(SEEN_UNSEEN, leads, strict=True)),
            per_class=per_class,
            minutes=sum(sum(run.seconds.values()) for run in runs) / 60 / len(runs),
            machines=_machines([(run.environment, run.seed) for run in runs]),
        )

    def _recorded_scores(self, row: PaperRow) -> Scores | None:
        results = self.recorded
        runs = [] if results is None else [run for run in results.runs if run.row == row.recorded]
        if results is None or not runs:
            return None
        kept, classes = results.instances, results.instances.classes
        if row.swapped:
            classes = replace(classes, seen=tuple(not one for one in classes.seen))
        by_seed = {run.seed: run.iou for run in runs}
        instances = KeptInstances(kept.image_id, kept.category_id)
        return Scores(instances, by_seed, classes, _about(row, classes), _learns(row, "small"))


def _learns(row: PaperRow, scale: Scale) -> bool:
    return not pipeline_of(row.training, scale).teacher.segmenter


def _about(row: PaperRow, classes: Classes) -> tuple[str, ...]:
    if row.split == OUTSIDE_VOC:
        return tuple(name for name in classes.names if name not in VOC_NAMES)
    return classes.unseen_names or classes.names


def classes_of(found: Evaluation) -> Classes:
    """The classes that an evaluation is of."""
    fields = zip(*((one.name, one.category_id, one.seen) for one in found.per_class), strict=True)
    return Classes(*map(tuple, fields))


def _aps(run: PaperRun) -> dict[str, float | None]:
    found = None if run.record.teacher is None else run.record.teacher.detected.segm
    return {} if found is None else {name: one.AP for name, one in found.items()}


def _over_seeds(runs: Sequence[PaperRun], measure: Measure) -> Found:
    evaluations = [run.record.teacher for run in runs if run.record.teacher is not None]
    whole: Evaluation = mean_result(evaluations) if len(evaluations) > 1 else evaluations[0]
    seconds = [sum(run.record.seconds.values()) / 60 for run in runs]
    boxes, masks = whole.detected.bbox, _in_boxes(whole, runs, measure)
    ious = {name: one.model for name, one in masks.items()}
    classes = {row.name: row.segm_AP if measure == "AP" else row.model for row in whole.per_class}
    return Found(
        seeds=tuple(run.record.seed for run in runs),
        figures=_aps_over_seeds(runs) if measure == "AP" else ious,
        over_ellipse={name: one.model_minus_ellipse for name, one in masks.items()},
        per_class=classes,
        box=None if boxes is None else boxes.all.AP,
        minutes=sum(seconds) / len(seconds),
        machines=_machines([(run.record.environment, run.record.seed) for run in runs]),
    )


def _mean_of(per_class: Mapping[str, float | None]) -> Interval:
    """Over classes; without an interval, which the comparison of mask heads keeps of splits alone."""
    return Interval(float(np.mean([value for value in per_class.values() if value is not None])))


def _machines(each: Sequence[tuple[Environment, int]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for machine, seed in each:
        name = f"{machine.hardware}, torch {machine.torch}"
        found[name] = (*found.get(name, ()), seed)
    return found


def _aps_over_seeds(runs: Sequence[PaperRun]) -> dict[str, Interval]:
    each = [_aps(run) for run in runs]
    return {name: seeds_alone([aps.get(name) for aps in each]) for name in each[0]}


def _in_boxes(whole: Evaluation, runs: Sequence[PaperRun], measure: Measure) -> dict[str, SplitIoU]:
    """What was measured in given or loose boxes, by split; empty of an AP, or where a seed lacks it."""
    if measure == "AP":
        return {}
    if measure == "IoU":
        return dict(whole.given_boxes.items())
    loose = [run.loose.levels[0] for run in runs if run.loose is not None]
    if len(loose) < len(runs):
        return {}
    level = mean_result(loose) if len(loose) > 1 else loose[0]
    return dict(level.given_boxes.items())
